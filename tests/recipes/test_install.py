from __future__ import annotations

import json
import shutil

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from recipes.embedded.install import digest_of_first, update_encoder_digest
from recipes.embedded.vlsm import copy_for_segmenter
from rsvp.errors import ModelUnavailable
from rsvp.registry import embedded_folder
from rsvp.segmenters.text_encoder import TextEncoder
from rsvp.segmenters.vlsm import from_pretrained


@pytest.fixture
def encoder():
    return TextEncoder(str(embedded_folder("reasoner")))


def truncated(encoder, n):
    """The encoder as it was when it had the first n tokens alone."""
    vocabulary = {t: i for t, i in encoder.tokenizer.get_vocab().items() if i < n}

    class Truncated(PreTrainedTokenizerFast):
        def get_vocab(self):
            return vocabulary

    earlier = TextEncoder(str(embedded_folder("reasoner")))
    earlier.tokenizer = Truncated(tokenizer_object=encoder.tokenizer.backend_tokenizer)
    earlier.net = torch.nn.Embedding.from_pretrained(encoder.net.weight[:n].clone())
    return earlier


def vlsm(folder, digest):
    config = {"text_encoder": {"source": "embedded", "sha256": digest}, "fusion": {"width": 8}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def trained_on(folder):
    return json.loads((folder / "config.json").read_text())["text_encoder"]["sha256"]


def test_all_tokens_have_the_digest_of_the_encoder(encoder):
    size = len(encoder.net.weight)
    assert digest_of_first(size, encoder) == encoder.digest
    earlier = truncated(encoder, size - 3)
    assert digest_of_first(size - 3, encoder) == digest_of_first(size - 3, earlier)
    assert digest_of_first(size - 3, encoder) != encoder.digest


def test_a_vlsm_accepts_an_encoder_with_added_tokens(encoder, tmp_path):
    before = digest_of_first(len(encoder.net.weight) - 3, encoder)
    folder = vlsm(tmp_path, before)
    assert update_encoder_digest(folder, "embedded")
    assert trained_on(folder) == encoder.digest
    assert json.loads((folder / "config.json").read_text())["fusion"] == {"width": 8}
    assert update_encoder_digest(folder, "embedded")  # a second time changes nothing
    assert trained_on(folder) == encoder.digest


def test_a_vlsm_of_other_embeddings_is_not_changed(encoder, tmp_path):
    earlier = truncated(encoder, len(encoder.net.weight) - 3)
    earlier.net.weight.data[5] += 0.5
    other = digest_of_first(len(encoder.net.weight) - 3, earlier)
    folder = vlsm(tmp_path, other)
    assert not update_encoder_digest(folder, "embedded")
    assert trained_on(folder) == other


def test_a_vlsm_is_continued_after_its_segmenter_was_trained_further(tmp_path):
    """Its copy accepts the packaged segmenter, and has all of its weights."""
    earlier = tmp_path / "earlier"
    shutil.copytree(embedded_folder("vlsm"), earlier)
    config = json.loads((earlier / "config.json").read_text())
    config["sam2"]["sha256"] = "0" * 64
    (earlier / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match="embedded is another one"):
        from_pretrained(str(earlier))
    loaded = from_pretrained(str(copy_for_segmenter(earlier, tmp_path / "copy")))
    assert loaded.config.residual_scale == 1.0
    assert loaded.config.fusion == from_pretrained("embedded").config.fusion
