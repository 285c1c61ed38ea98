from __future__ import annotations

import json

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from recipes.embedded.words_kept import digest_of_first, vouch
from rsvp.registry import embedded_folder
from rsvp.segmenters.text_encoder import TextEncoder


@pytest.fixture
def encoder():
    return TextEncoder(str(embedded_folder("reasoner")))


def fewer(encoder, n):
    """An encoder as it was before the last tokens came."""
    vocabulary = {t: i for t, i in encoder.tokenizer.get_vocab().items() if i < n}

    class Before(PreTrainedTokenizerFast):
        def get_vocab(self):
            return vocabulary

    earlier = TextEncoder(str(embedded_folder("reasoner")))
    earlier.tokenizer = Before(tokenizer_object=encoder.tokenizer.backend_tokenizer)
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
    earlier = fewer(encoder, size - 3)
    assert digest_of_first(size - 3, encoder) == digest_of_first(size - 3, earlier)
    assert digest_of_first(size - 3, encoder) != encoder.digest


def test_a_vlsm_goes_on_with_an_encoder_that_gained_tokens(encoder, tmp_path):
    before = digest_of_first(len(encoder.net.weight) - 3, encoder)
    folder = vlsm(tmp_path, before)
    assert vouch(folder, "embedded")
    assert trained_on(folder) == encoder.digest
    assert json.loads((folder / "config.json").read_text())["fusion"] == {"width": 8}
    assert vouch(folder, "embedded")  # and once more changes nothing
    assert trained_on(folder) == encoder.digest


def test_a_vlsm_of_other_embeddings_is_left_alone(encoder, tmp_path):
    earlier = fewer(encoder, len(encoder.net.weight) - 3)
    earlier.net.weight.data[5] += 0.5
    other = digest_of_first(len(encoder.net.weight) - 3, earlier)
    folder = vlsm(tmp_path, other)
    assert not vouch(folder, "embedded")
    assert trained_on(folder) == other
