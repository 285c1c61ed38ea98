"""`TextEncoder` on every kind of folder: the real classes, small random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_texts
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_florence2, tiny_qwen3_vl
from transformers import BertModel, CLIPTextModel, SiglipTextModel

from rsvp.errors import ModelUnavailable
from rsvp.segmenters import text_encoder as module
from rsvp.segmenters.text_encoder import TextEncoder

WRITERS = {
    "clip-text": tiny_texts.clip_text,
    "clip": tiny_texts.clip,
    "siglip": tiny_texts.siglip,
    "bert": tiny_texts.bert,
    "qwen3-vl": tiny_qwen3_vl,
    "florence2": tiny_florence2,
}
HOSTILE = {
    "very long": "cup " * 20_000,
    "emoji": "🍎👩‍🚀🏳️‍🌈",
    "control characters": "\x00\x01\x1b[31m\x7f\u200b\u202e",
    "half a surrogate pair": "\ud800",
    "two halves, swapped": "cup \udc00\ud800 cup",
    "the tokens of the model itself": "[EOS]<|im_end|><pad></s>",
    "blank": " \n\t ",
    "empty": "",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("texts")
    return {kind: Path(write(root / kind)) for kind, write in WRITERS.items()}


@pytest.fixture(scope="module", params=WRITERS)
def encoder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> TextEncoder:
    return TextEncoder(str(folders[request.param]))


@pytest.fixture(scope="module")
def bert(folders: dict[str, Path]) -> TextEncoder:
    return TextEncoder(str(folders["bert"]))


# ---------------------------------------------------------------- what the states are


@pytest.mark.parametrize(
    ("kind", "tower"), [("clip", CLIPTextModel), ("siglip", SiglipTextModel), ("bert", BertModel)]
)
def test_states_are_what_the_tower_itself_gives(folders, kind, tower) -> None:
    ids = [list(b"a cup")]
    if kind == "siglip":
        ids = [ids[0] + [256] * 59]  # trained on texts padded to 64, without a mask
    alphabet = TextEncoder(str(folders[kind])).tokenizer
    ids = [[alphabet.convert_tokens_to_ids(c) for c in "aĠcup"] + ids[0][5:]]
    with torch.no_grad():
        expected = tower.from_pretrained(folders[kind])(input_ids=torch.tensor(ids))
    found = TextEncoder(str(folders[kind]))(["a cup"])
    torch.testing.assert_close(found.states, expected.last_hidden_state)
    assert found.attention_mask.all()


def test_siglip_is_padded_to_64_and_its_padding_is_real(folders) -> None:
    found = TextEncoder(str(folders["siglip"]))(["a", "a cup"])
    assert found.states.shape == (2, 64, 16)
    assert found.attention_mask.all()


@pytest.mark.parametrize(
    ("kind", "table"),
    [("qwen3-vl", "embed_tokens.weight"), ("florence2", "shared.weight")],
)
def test_of_a_multimodal_model_the_rows_of_its_table(folders, kind, table) -> None:
    weights = load_file(folders[kind] / "model.safetensors")
    [rows] = [value.float() for name, value in weights.items() if name.endswith(table)]
    encoder = TextEncoder(str(folders[kind]))
    ids = encoder.tokenizer("red cup")["input_ids"]
    assert torch.equal(encoder(["red cup"]).states[0], rows[ids])
    assert encoder.width == rows.shape[1]


@pytest.mark.parametrize("kind", ["clip", "bert", "siglip"])
def test_embeddings_asks_for_the_table_of_any_model(folders, kind) -> None:
    encoder = TextEncoder(f"embeddings:{folders[kind]}")
    assert isinstance(encoder.net, torch.nn.Embedding)
    found = encoder(["cup"])
    assert found.states.shape == (1, 3, 16)  # not padded: no tower was trained to want it
    whole = TextEncoder(str(folders[kind]))
    assert encoder.digest != whole.digest
    assert not torch.allclose(found.states, whole(["cup"]).states[:, :3])


def shard(source: Path, target: Path, table: str) -> Path:
    """The same weights in two files with an index, the table in the second."""
    shutil.copytree(source, target)
    weights = load_file(source / "model.safetensors")
    (target / "model.safetensors").unlink()
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    place = {name: names[name.endswith(table)] for name in weights}
    for file in names:
        part = {name: value for name, value in weights.items() if place[name] == file}
        save_file(part, target / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": place}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return target


@pytest.mark.parametrize("sharded", [False, True])
def test_only_the_table_is_read(folders, tmp_path, monkeypatch, sharded) -> None:
    folder = folders["qwen3-vl"]
    if sharded:
        folder = shard(folder, tmp_path / "sharded", "embed_tokens.weight")
    read = []
    real = module.safe_open

    class Watched:
        def __init__(self, *args, **kwargs) -> None:
            self.file = real(*args, **kwargs)

        def __enter__(self):
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *error) -> None:
            self.file.__exit__(*error)

        def keys(self):
            return self.opened.keys()

        def get_tensor(self, name):
            read.append(name)
            return self.opened.get_tensor(name)

    monkeypatch.setattr(module, "safe_open", Watched)
    for loader in ("torch.load", "safetensors.torch.load_file"):
        monkeypatch.setattr(loader, lambda *_, **__: pytest.fail("all weights were read"))
    TextEncoder(str(folder))
    assert read == ["model.language_model.embed_tokens.weight"]


def test_of_many_files_those_without_the_table_need_not_be_there(folders, tmp_path) -> None:
    folder = shard(folders["qwen3-vl"], tmp_path / "sharded", "embed_tokens.weight")
    (folder / "model-00001-of-00002.safetensors").unlink()
    assert TextEncoder(str(folder)).digest == TextEncoder(str(folders["qwen3-vl"])).digest


# ---------------------------------------------------------------- company, cache


def test_the_states_of_a_text_never_depend_on_its_company(encoder) -> None:
    asked = ["cup", "", "the large red cup on the left", "cup", "x"]
    found, fresh = encoder(asked), TextEncoder(encoder.source)
    for row, text in enumerate(asked):
        alone = fresh([text])
        length = alone.states.shape[1]
        assert torch.equal(found.states[row, :length], alone.states[0])
        assert torch.equal(
            found.attention_mask[row], torch.arange(found.attention_mask.shape[1]) < length
        )
        assert not found.states[row, length:].any()


def test_different_texts_differ(encoder) -> None:
    found = encoder(["cup", "cap"])
    assert not torch.allclose(found.states[0], found.states[1], atol=1e-3)


@pytest.mark.parametrize("label", HOSTILE.values(), ids=HOSTILE)
def test_no_text_breaks_an_encoder(encoder, label) -> None:
    found = encoder([label, "cup"])
    assert found.states.isfinite().all()
    assert found.states.shape[1] <= 64
    assert found.attention_mask[1].any()
    assert found.attention_mask[0].any() == bool(label.strip())


def test_a_text_of_which_the_tokenizer_knows_nothing_is_as_an_empty_one(bert, monkeypatch) -> None:
    class Deaf:
        model_max_length = 10**30

        def __call__(self, text, **_):
            return {"input_ids": []}

    monkeypatch.setattr(bert, "tokenizer", Deaf())
    found = bert(["unheard of"])
    assert found.states.shape == (1, 0, 16)
    assert found.attention_mask.shape == (1, 0)


def test_no_texts(bert) -> None:
    assert bert([]).states.shape == (0, 0, 16)


def test_a_text_is_encoded_once_and_the_oldest_is_dropped_first(folders, monkeypatch) -> None:
    monkeypatch.setattr(module, "_CACHED_TEXTS", 3)
    encoder = TextEncoder(str(folders["bert"]))
    calls = []
    encoder.net.register_forward_hook(lambda *_: calls.append(1))
    for text in ("a", "b", "c", "a", "a "):
        encoder([text])
    assert len(calls) == 3
    encoder(["d"])  # drops "b": "a" was used later
    encoder(["a", "c"])
    assert len(calls) == 4
    encoder(["b"])
    assert len(calls) == 5


def test_the_cache_is_bounded_in_numbers_too(folders, monkeypatch) -> None:
    monkeypatch.setattr(module, "_CACHED_NUMBERS", 100 * 16)
    encoder = TextEncoder(str(folders["bert"]))
    texts = ["x" * 30 + str(i) for i in range(10)]  # about 32 states of 16 numbers each
    calls = []
    encoder.net.register_forward_hook(lambda *_: calls.append(1))
    encoder(texts)
    encoder(texts[-3:])
    assert len(calls) == 10
    encoder(texts[-4:])
    assert len(calls) > 10


def test_states_met_while_inferring_serve_training_afterwards(folders) -> None:
    encoder = TextEncoder(str(folders["bert"]))
    with torch.inference_mode():
        encoder(["cup"])
    weight = torch.ones(16, requires_grad=True)
    (encoder(["cup"]).states * weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.any()


def test_it_is_frozen(encoder) -> None:
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert not encoder.net.training
    assert not encoder(["cup"]).states.requires_grad


# ---------------------------------------------------------------- the digest


def test_a_digest_is_of_the_weights_and_not_of_their_files(folders, tmp_path) -> None:
    digest = TextEncoder(str(folders["bert"])).digest
    assert TextEncoder(str(folders["bert"])).digest == digest
    again = shard(folders["bert"], tmp_path / "sharded", "word_embeddings.weight")
    assert TextEncoder(str(again)).digest == digest
    alone = tmp_path / "tower"
    shutil.copytree(folders["bert"], alone)
    BertModel.from_pretrained(alone, add_pooling_layer=False).save_pretrained(alone)
    assert TextEncoder(str(alone)).digest == digest


def test_a_digest_is_the_same_in_every_precision_that_holds_the_weights(folders, tmp_path) -> None:
    wide = tmp_path / "float32"
    shutil.copytree(folders["qwen3-vl"], wide)  # stored as bfloat16
    weights = load_file(wide / "model.safetensors")
    weights = {name: value.float() for name, value in weights.items()}
    save_file(weights, wide / "model.safetensors", metadata={"format": "pt"})
    assert TextEncoder(str(wide)).digest == TextEncoder(str(folders["qwen3-vl"])).digest


@pytest.mark.parametrize("kind", ["bert", "clip", "qwen3-vl"])
def test_a_digest_changes_with_one_weight(folders, tmp_path, kind) -> None:
    folder = tmp_path / "other"
    shutil.copytree(folders[kind], folder)
    weights = load_file(folder / "model.safetensors")
    tables = ("embed_tokens.weight", "word_embeddings.weight", "token_embedding.weight")
    name = next(n for n in weights if n.endswith(tables))
    weights[name][3, 1] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert TextEncoder(str(folder)).digest != TextEncoder(str(folders[kind])).digest


def test_a_digest_changes_with_the_vocabulary(folders, tmp_path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(folders["bert"], folder)
    file = folder / "tokenizer.json"
    settings = json.loads(file.read_text())
    vocabulary = settings["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(settings))
    assert TextEncoder(str(folder)).digest != TextEncoder(str(folders["bert"])).digest


# ---------------------------------------------------------------- what cannot be read


def refused(source: str) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        TextEncoder(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_without_a_text_side(sam2_folder) -> None:
    assert "cannot be read as a text encoder" in refused(str(sam2_folder))


@pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_is_not_whole(folders, tmp_path, lost) -> None:
    folder = tmp_path / "holes"
    shutil.copytree(folders["bert"], folder)
    (folder / lost).unlink()
    if lost == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()
    assert str(folder) in refused(str(folder))


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_a_missing_weight_is_never_made_up(folders, tmp_path, kind) -> None:
    folder = tmp_path / "holes"
    shutil.copytree(folders[kind], folder)
    weights = load_file(folder / "model.safetensors")
    name = next(n for n in sorted(weights) if "layers.1." in n or "layer.1." in n)
    if kind == "clip":
        name = next(n for n in sorted(weights) if n.startswith("text_model.encoder"))
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks weights" in refused(str(folder))


def test_a_table_that_is_nowhere(folders, tmp_path) -> None:
    folder = tmp_path / "holes"
    shutil.copytree(folders["qwen3-vl"], folder)
    save_file({"other": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert "no table of token embeddings" in refused(str(folder))


def test_code_in_a_folder_is_never_run(folders, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "code"
    shutil.copytree(folders["bert"], folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for name, loader in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        settings = json.loads((folder / name).read_text())
        settings |= {"model_type": "evil", "auto_map": {loader: "evil.Evil"}}
        (folder / name).write_text(json.dumps(settings))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # were anybody asked
    assert "cannot be read as a text encoder" in refused(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_hub_id_that_is_not_here_names_the_command() -> None:
    assert refused("owner/no-such-encoder").endswith("hf download owner/no-such-encoder")
    assert refused("embeddings:owner/no-such").endswith("hf download owner/no-such")
    assert "no-such" in refused("./no-such")


def test_a_hub_that_cannot_be_reached_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # refuses
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waited for {seconds} s"))
    assert refused("owner/no-such-encoder").endswith("hf download owner/no-such-encoder")
