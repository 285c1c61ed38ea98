"""`VlsmSegmenter`: SAM 2 itself before training, another answer for another word after it."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import demo_truth
import numpy as np
import pytest
import tiny_sams
import tiny_texts
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2Config, Sam2Model

from rsvp import Pipeline, registry
from rsvp.errors import BadInput, ModelUnavailable
from rsvp.segmenters import Segmenter
from rsvp.segmenters.networks import Preprocessing, load_base, load_sam2
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.text_encoder import TextEncoder
from rsvp.segmenters.vlsm import VlsmSegmenter, build, from_pretrained, save_pretrained
from rsvp.types import Box, Point, Proposal


def boxed(label: str, *xyxy: float, points: tuple[Point, ...] = ()) -> Proposal:
    return Proposal(label, Box(*xyxy), points)


BOXES = [boxed(f"thing {i}", 6 * i, 4 * i, 6 * i + 25, 4 * i + 30) for i in range(16)]
POINTS = [Proposal(f"dot {i}", points=(Point(7 * i + 3, 5 * i + 3),)) for i in range(16)]
BOTH = [
    boxed(f"both {i}", 10, 8, 90, 70 + i, points=(Point(40 + i, 40), Point(12, 60 - i, False)))
    for i in range(16)
]
MIXED = [
    boxed("cup", 20, 10, 90, 70),
    Proposal("dot", points=(Point(30, 40),)),
    boxed("", 40, 40, 100, 90, points=(Point(50, 50), Point(45, 80, positive=False))),
    Proposal("two dots", points=(Point(30, 40), Point(100, 20, positive=False))),
    boxed("the left one", -30, 50, 60, 400),
    Proposal("far", points=(Point(80, 60),)),
]


def trained(segmenter: VlsmSegmenter, seed: int = 0) -> VlsmSegmenter:
    """As training leaves it: every weight of the fusion has something to say, in bfloat16."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in segmenter.vlsm.fusion.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=draw))
            weight.copy_(weight.bfloat16())
    return segmenter


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory) -> Path:
    return tiny_texts.bert(tmp_path_factory.mktemp("texts") / "bert")


@pytest.fixture(scope="module")
def make(sam2_folder: Path, bert_folder: Path):
    """An untrained VLSM on the small SAM 2, which it does not share with others."""

    def new(crop_margin: float | None = None, **shape: int) -> VlsmSegmenter:
        torch.manual_seed(0)
        base, preprocessing = load_sam2(str(sam2_folder))
        text = TextEncoder(str(bert_folder))
        small = {"width": 32, "blocks": 2, "heads": 4, **shape}
        own = Preprocessing(preprocessing.size, crop_margin=crop_margin)
        return VlsmSegmenter.from_vlsm(build(base, text, **small), text, own, device="cpu")

    return new


@pytest.fixture(scope="module")
def vlsm(make) -> VlsmSegmenter:
    return trained(make())


@pytest.fixture(scope="module")
def saved(make, sam2_folder, tmp_path_factory) -> tuple[Path, VlsmSegmenter]:
    """A trained VLSM and the folder that it was saved to."""
    segmenter = trained(make())
    folder = tmp_path_factory.mktemp("saved") / "vlsm"
    net, text = segmenter.vlsm, segmenter.text
    save_pretrained(folder, net, str(sam2_folder), text, training={"steps": 3, "seed": 1})
    return folder, segmenter


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of the saved folder, to be broken."""
    return Path(shutil.copytree(saved[0], tmp_path / "vlsm"))


def assert_same(one, other) -> None:
    assert torch.equal(one.logits, other.logits)
    assert torch.equal(one.scores, other.scores)
    assert one.logits.std() > 0


# ---------------------------------------------------------------- untrained, it is SAM 2


@pytest.mark.parametrize("crop_margin", [None, 0.2])
@pytest.mark.parametrize(
    "proposals",
    [BOXES, BOXES[:1], POINTS, POINTS[:1], BOTH, BOTH[:1], MIXED],
    ids=["boxes", "box", "points", "point", "boxes+points", "box+points", "mixed"],
)
def test_untrained_it_is_sam_2_bit_for_bit(make, make_image, proposals, crop_margin) -> None:
    untrained = make(crop_margin)
    plain = Sam2Segmenter.from_network(untrained.net, untrained.preprocessing, device="cpu")
    [encoding] = plain.encode([make_image(100, 140)])
    [own] = untrained.encode([encoding.image])
    found = untrained.mask_logits(own, proposals)
    assert_same(found, plain.mask_logits(encoding, proposals))
    assert found.presence is not None


@pytest.mark.parametrize(("kind", "proposals"), [("sam3", BOTH), ("edgetam", MIXED)])
def test_it_stands_on_other_networks_with_the_same_decoder(
    kind, proposals, make_image, bert_folder, tmp_path
) -> None:
    source = f"{kind}:{tiny_sams.SAVE[kind](tmp_path)}"
    base, preprocessing = load_base(source)
    text = TextEncoder(str(bert_folder))
    net = build(base, text, width=32, blocks=1, heads=4)
    plain = Sam2Segmenter.from_network(base, preprocessing, device="cpu")
    untrained = VlsmSegmenter.from_vlsm(net, text, preprocessing, device="cpu")
    [encoding] = plain.encode([make_image(100, 140)])
    expected = plain.mask_logits(encoding, proposals)
    assert_same(untrained.mask_logits(encoding, proposals), expected)
    steered = trained(untrained).mask_logits(encoding, proposals)
    assert not torch.allclose(steered.logits, expected.logits, atol=1e-3)
    save_pretrained(tmp_path / "vlsm", net, source, text)
    again = VlsmSegmenter(str(tmp_path / "vlsm"), device="cpu").mask_logits(encoding, proposals)
    torch.testing.assert_close(again.logits, steered.logits, atol=0.05, rtol=0.05)


def test_a_decoder_of_another_layout_is_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match="HQ-SAM has another; those of sam2, sam3, edgetam fit"):
        load_base(f"sam-hq:{tmp_path}")


@pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)
@pytest.mark.parametrize("count", [1, 16])
def test_untrained_on_the_embedded_weights_it_is_sam_2_bit_for_bit(make_image, count) -> None:
    plain = Sam2Segmenter("embedded", device="cpu")
    text = TextEncoder("embedded")
    net = build(plain.net, text)
    untrained = VlsmSegmenter.from_vlsm(net, text, plain.preprocessing, device="cpu")
    [encoding] = plain.encode([make_image(100, 140)])
    for proposals in (BOXES[:count], BOTH[:count], MIXED):
        assert_same(
            untrained.mask_logits(encoding, proposals), plain.mask_logits(encoding, proposals)
        )


@pytest.mark.slow
def test_untrained_on_full_size_hiera_tiny_it_is_sam_2_bit_for_bit(make_image, bert_folder) -> None:
    torch.manual_seed(0)
    base = Sam2Model(Sam2Config()).eval()
    text = TextEncoder(str(bert_folder))
    plain = Sam2Segmenter.from_network(base, Preprocessing(1024), device="cpu")
    untrained = VlsmSegmenter.from_vlsm(build(base, text), text, plain.preprocessing, device="cpu")
    [encoding] = plain.encode([make_image(100, 140)])
    assert [tuple(level.shape[1:]) for level in encoding.features] == [
        (32, 256, 256),
        (64, 128, 128),
        (256, 64, 64),
    ]
    for proposals in (BOXES, BOXES[:1], POINTS[:1], BOTH[:1]):
        assert_same(
            untrained.mask_logits(encoding, proposals), plain.mask_logits(encoding, proposals)
        )


def test_sam_2_and_the_texts_are_frozen_and_the_fusion_is_not(make) -> None:
    net = make().vlsm
    learning = {name for name, weight in net.named_parameters() if weight.requires_grad}
    assert learning == {f"fusion.{name}" for name, _ in net.fusion.named_parameters()}


def test_a_setting_that_there_is_not(make) -> None:
    for wrong in ({"depth": 3}, {"width": 30, "heads": 4}, {"channels": 9}):
        with pytest.raises(BadInput, match="no such fusion"):
            make(**wrong)


# ---------------------------------------------------------------- trained


def test_it_is_a_segmenter_that_reads_labels(vlsm) -> None:
    assert isinstance(vlsm, Segmenter)
    assert vlsm.reads_labels


@pytest.mark.parametrize("crop_margin", [None, 0.2])
def test_a_proposal_gets_the_same_answer_alone_and_in_company(
    make, make_image, crop_margin
) -> None:
    segmenter = trained(make(crop_margin))
    [encoding] = segmenter.encode([make_image(100, 140)])
    proposals = MIXED + BOXES[:10]
    together = segmenter.mask_logits(encoding, proposals)
    scale = together.logits.abs().max()
    for row, proposal in enumerate(proposals):
        alone = segmenter.mask_logits(encoding, [proposal])
        assert (together.logits[row] - alone.logits[0]).abs().max() < 1e-5 * scale
        torch.testing.assert_close(together.scores[row], alone.scores[0])
        torch.testing.assert_close(together.presence[row], alone.presence[0], atol=1e-5, rtol=1e-4)


def test_a_box_and_a_pair_of_points_in_one_batch_keep_their_own_priors(vlsm, make_image) -> None:
    """Both are two tokens; only one of them is a box."""
    [encoding] = vlsm.encode([make_image(100, 140)])
    pair = Proposal("cup", points=(Point(20, 10), Point(90, 70)))
    box = boxed("cup", 20, 10, 90, 70)
    for order in ([box, pair], [pair, box]):
        together = vlsm.mask_logits(encoding, order)
        for row, proposal in enumerate(order):
            alone = vlsm.mask_logits(encoding, [proposal])
            torch.testing.assert_close(together.presence[row], alone.presence[0])
            torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-3, rtol=1e-4)


def test_another_word_gives_another_mask(vlsm, make_image) -> None:
    [encoding] = vlsm.encode([make_image(100, 140)])
    cup, cap, again = (boxed(word, 20, 10, 90, 70) for word in ("cup", "cap", "cup"))
    found = vlsm.mask_logits(encoding, [cup, cap, again])
    assert (found.logits[0] - found.logits[1]).abs().max() > 1e-2
    assert found.presence[0] != found.presence[1]
    torch.testing.assert_close(found.logits[0], found.logits[2])


def test_masks_come_with_a_presence_from_0_to_1(vlsm, make_image) -> None:
    [encoding] = vlsm.encode([make_image(100, 140)])
    found = vlsm.masks(encoding, MIXED)
    assert found.masks.shape == (6, 100, 140)
    assert found.presence.shape == (6,)
    assert found.presence.dtype == np.float32
    assert ((found.presence >= 0) & (found.presence <= 1)).all()
    assert len(set(found.presence.tolist())) == 6
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_no_proposals_give_no_masks(vlsm, make_image) -> None:
    [encoding] = vlsm.encode([make_image(30, 50)])
    found = vlsm.masks(encoding, [])
    assert found.masks.shape == (0, 30, 50)
    assert found.scores.shape == found.presence.shape == (0,)


def test_a_lone_point_takes_the_best_of_three_masks(vlsm, make_image) -> None:
    [encoding] = vlsm.encode([make_image(100, 140)])
    answers = []
    vlsm.vlsm.register_forward_hook(lambda _, __, found: answers.append(found))
    found = vlsm.mask_logits(encoding, POINTS[:5])
    vlsm.mask_logits(encoding, BOXES[:2])
    three, one = answers
    assert three.logits.shape[:2] == (5, 3)
    assert one.logits.shape[:2] == (2, 1)
    torch.testing.assert_close(found.scores, three.scores.max(dim=1).values)
    for row, best in enumerate(three.scores.argmax(dim=1)):
        assert torch.equal(found.logits[row], three.logits[row, best])


LABELS = [
    "",
    "   ",
    "cup " * 5000,
    "🍎👩‍🚀",
    "\x00\x1b[0m\x7f",
    "\ud800",
    "[EOS]",
    "\udfff\ud83c x",
]


@pytest.mark.parametrize("label", LABELS, ids=range(len(LABELS)))
def test_no_label_breaks_it_or_its_neighbours(vlsm, make_image, label) -> None:
    [encoding] = vlsm.encode([make_image(60, 80)])
    box = (5, 5, 40, 40)
    found = vlsm.mask_logits(encoding, [boxed(label, *box), boxed("cup", *box)])
    alone = vlsm.mask_logits(encoding, [boxed("cup", *box)])
    assert all(part.isfinite().all() for part in found)
    torch.testing.assert_close(found.logits[1], alone.logits[0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.presence[1], alone.presence[0], atol=1e-5, rtol=1e-4)


def test_more_proposals_than_a_chunk(vlsm, make_image) -> None:
    [encoding] = vlsm.encode([make_image(64, 64)])
    proposals = [boxed(f"n{x}", x, 2, x + 20, 40) for x in range(40)]
    found = vlsm.masks(encoding, proposals)
    last = vlsm.masks(encoding, proposals[-1:])
    np.testing.assert_allclose(found.presence[-1], last.presence[0], atol=1e-5)


def test_encoding_is_sam_2s_own(vlsm, make_image) -> None:
    plain = Sam2Segmenter.from_network(vlsm.net, vlsm.preprocessing, device="cpu")
    image = make_image(50, 70)
    [one], [other] = vlsm.encode([image]), plain.encode([image])
    assert all(torch.equal(a, b) for a, b in zip(one.features, other.features, strict=True))


# ---------------------------------------------------------------- the folder


def test_a_saved_one_comes_back_as_it_was(saved, make_image) -> None:
    folder, segmenter = saved
    back = VlsmSegmenter(str(folder), device="cpu")
    assert back.name == f"vlsm:{folder}"
    [encoding] = segmenter.encode([make_image(100, 140)])
    found, expected = (s.mask_logits(encoding, MIXED) for s in (back, segmenter))
    assert_same(found, expected)
    assert torch.equal(found.presence, expected.presence)
    one, other = (s.masks(encoding, MIXED).masks for s in (back, segmenter))
    np.testing.assert_array_equal(one, other)
    assert {weight.dtype for weight in back.vlsm.parameters()} == {torch.float32}
    assert not any(weight.is_meta for weight in back.vlsm.parameters())
    assert all(weight.requires_grad for weight in back.vlsm.fusion.parameters())


def test_what_the_folder_holds(saved, sam2_folder, bert_folder) -> None:
    folder, segmenter = saved
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    config = json.loads((folder / "config.json").read_text())
    assert list(config) == [
        *("model_type", "version", "sam2", "text_encoder", "fusion", "training", "strength")
    ]
    assert (config["model_type"], config["version"]) == ("rsvp-vlsm", 1)
    assert config["sam2"]["source"] == str(sam2_folder)
    assert config["text_encoder"] == {"source": str(bert_folder), "sha256": segmenter.text.digest}
    assert len(config["sam2"]["sha256"]) == 64
    assert config["fusion"]["channels"] == 32
    assert config["fusion"]["text_width"] == 16
    assert config["training"] == {"steps": 3, "seed": 1}
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == segmenter.vlsm.fusion.state_dict().keys()
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}


@pytest.mark.skipif(bool(demo_truth.MISSING), reason=demo_truth.WHY_SKIPPED)
def test_of_the_usual_size_it_is_a_few_megabytes(tmp_path) -> None:
    base, _ = load_sam2("embedded")
    text = TextEncoder("embedded")
    save_pretrained(tmp_path, build(base, text), "embedded", text)
    assert 1e5 < sum(file.stat().st_size for file in tmp_path.iterdir()) < 8e6
    assert from_pretrained(str(tmp_path)).config.sam2.source == "embedded"


def test_through_the_registry_and_the_pipeline(saved, make_image) -> None:
    folder, segmenter = saved
    made = registry.make("segmenter", f"vlsm:{folder}", device="cpu")
    assert isinstance(made, VlsmSegmenter)
    image = make_image(100, 140)
    pipeline = Pipeline.from_preset("embedded", segmenter=made)
    result = pipeline.segment(image.rgb, "cup", boxes=[(20, 10, 90, 70)])
    [encoding] = segmenter.encode([image])
    expected = segmenter.masks(encoding, [boxed("cup", 20, 10, 90, 70)])
    np.testing.assert_array_equal(result.mask, expected.masks[0])
    assert result.models.segmenter == f"vlsm:{folder}"


def test_where_the_models_lie_now_can_be_said(folder, sam2_folder, bert_folder, tmp_path) -> None:
    moved = shutil.copytree(sam2_folder, tmp_path / "moved"), shutil.copytree(
        bert_folder, tmp_path / "texts"
    )  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    config["sam2"]["source"], config["text_encoder"]["source"] = "/gone/sam2", "/gone/texts"
    (folder / "config.json").write_text(json.dumps(config))
    assert "/gone/sam2" in refused(folder)
    found = from_pretrained(str(folder), sam2=str(moved[0]), text_encoder=str(moved[1]))
    assert found.text.source == str(moved[1])


# ---------------------------------------------------------------- what is refused


def refused(folder: Path | str, **where: str) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        VlsmSegmenter(str(folder), device="cpu", **where)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 600
    return said


def test_another_sam_2_is_refused(folder, sam2_folder, tmp_path) -> None:
    other = shutil.copytree(sam2_folder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["mask_decoder.iou_token.weight"][0, 0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    said = refused(folder, sam2=str(other))
    assert f"was trained on the SAM 2 {sam2_folder}" in said
    assert f"{other} is another one" in said


def test_another_text_encoder_is_refused(folder, tmp_path) -> None:
    other = tiny_texts.bert(tmp_path / "other", seed=1)
    said = refused(folder, text_encoder=str(other))
    assert "was trained on the text encoder" in said
    assert f"{other} is another one" in said


def changed(**settings):
    return lambda config: json.dumps({**config, **settings})


def with_fusion(**settings):
    return lambda config: json.dumps({**config, "fusion": {**config["fusion"], **settings}})


CONFIGS = {
    "broken": (lambda _: '{"model_type": ', "cannot be read as a VLSM"),
    "empty": (lambda _: "", "cannot be read as a VLSM"),
    "a list": (lambda _: "[]", "holds no settings"),
    "bottomless": (lambda _: "[" * 200_000, "cannot be read as a VLSM"),
    "no text": (lambda _: b"\xff\xfe\x00", "cannot be read as a VLSM"),
    "of SAM 2": (changed(model_type="sam2"), "'sam2', not 'rsvp-vlsm'"),
    "of later": (changed(version=2), "of version 2, this rsvp reads version 1"),
    "without SAM 2": (changed(sam2=None), "'sam2' should be an object, found NoneType"),
    "a number for SAM 2": (
        changed(sam2={"source": 3, "sha256": "0"}),
        "'sam2.source' should be string, found int",
    ),
    "a list for SAM 2": (changed(sam2=[1]), "'sam2' should be an object, found list"),
    "more of SAM 2": (
        changed(sam2={"source": "a", "sha256": "b", "evil": 1}),
        "'sam2.evil' Extra inputs are not permitted",
    ),
    "without fusion": (changed(fusion=None), "'fusion' should be an object, found NoneType"),
    "unknown": (with_fusion(depth=3), "'fusion.depth' Extra inputs are not permitted"),
    "zero": (with_fusion(width=0), "'fusion.width' should be greater than or equal to 1"),
    "text": (with_fusion(width="32"), "'fusion.width' should be int, found str"),
    "gigantic": (with_fusion(width=2**40), "its width 1099511627776 is above"),
    "large": (with_fusion(width=2**15), "does not hold the weights"),
    "deep": (with_fusion(blocks=10**9), "its blocks 1000000000 is above"),
    "other channels": (with_fusion(channels=64), "channels is 64, theirs is 32"),
    "other texts": (with_fusion(text_width=64), "text_width is 64, theirs is 16"),
    "other decoder": (with_fusion(decoder_layers=5), "decoder_layers is 5, theirs is 2"),
    "more blocks": (with_fusion(blocks=3), "does not hold the weights"),
    "notes that are none": (changed(training=[1, 2]), "'training' should be an object, found list"),
    "too strong": (changed(strength=1.5), "'strength' should be less than or equal to 1"),
    "a strength in words": (changed(strength="much"), "'strength' should be float, found str"),
}


@pytest.mark.parametrize(("change", "said"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_cannot_be(folder, change, said) -> None:
    file = folder / "config.json"
    new = change(json.loads(file.read_text()))
    file.write_bytes(new if isinstance(new, bytes) else new.encode())
    assert said in refused(folder)


def lost(weights):
    del weights["kinds"]


def extra(weights):
    weights["sam2.mask_decoder.iou_token.weight"] = torch.zeros(1, 32)


def misshapen(weights):
    weights["presence.weight"] = torch.zeros(1, 33)


def endless(weights):
    weights["presence.weight"][0, 0] = torch.inf


def undefined(weights):
    weights["queries"][0, 0] = torch.nan


WEIGHTS = {
    lost: "1 weights are missing (first kinds)",
    extra: "1 are unexpected (first sam2.mask_decoder.iou_token.weight)",
    misshapen: "presence.weight is (1, 33), expected (1, 32)",
    endless: "not finite: presence.weight",
    undefined: "not finite: queries",
}


@pytest.mark.parametrize(
    ("change", "said"), WEIGHTS.items(), ids=lambda x: getattr(x, "__name__", "")
)
def test_weights_that_do_not_fit(folder, change, said) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert said in refused(folder)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("it ran",)


FILES = {
    "a pickle": pickle.dumps(Bomb()),
    "empty": b"",
    "cut": None,
    "a header of many GB": (2**40).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_file_that_holds_no_weights(folder, content) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:3000] if content is None else content)
    assert "cannot be read as a VLSM" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_that_is_not_whole(folder, name) -> None:
    (folder / name).unlink()
    assert "cannot be read as a VLSM" in refused(folder)


def test_what_is_not_here_names_the_command(tmp_path) -> None:
    assert refused("owner/no-such-vlsm").endswith("hf download owner/no-such-vlsm")
    assert "there are no VLSM weights at" in refused(tmp_path / "nothing")


def test_what_a_plain_sam_2_folder_says(sam2_folder) -> None:
    assert "'sam2', not 'rsvp-vlsm'" in refused(sam2_folder)


# ------------------------------------------------------------ strength


def test_the_steering_counts_by_its_strength_and_by_the_presence(make, make_image) -> None:
    segmenter = trained(make())
    [encoding] = segmenter.encode([make_image(100, 140)])
    net, asked = segmenter.vlsm, [boxed("cup", 20, 10, 90, 70)]
    seen: list[torch.Tensor] = []
    fuse = net.fusion.forward

    def watched(*given, residual_scale, **named):
        steering = fuse(*given, residual_scale=residual_scale, **named)
        whole = fuse(*given, residual_scale=None, **named)
        share = (residual_scale * whole.presence.sigmoid()).reshape(-1, 1, 1, 1)
        torch.testing.assert_close(steering.dense, whole.dense * share)
        assert torch.equal(steering.presence, whole.presence)
        seen.append(steering.dense.clone())
        return steering

    net.fusion.forward = watched
    for strength in (1.0, 0.5, 0.0):
        net.residual_scale = strength
        segmenter.mask_logits(encoding, asked)
    full, half, none = (dense.abs().mean() for dense in seen)
    assert full > 0
    torch.testing.assert_close(half, full / 2)
    assert none == 0


def test_the_strength_is_kept(make, sam2_folder, tmp_path) -> None:
    segmenter = make()
    segmenter.vlsm.residual_scale = 0.6
    save_pretrained(tmp_path, segmenter.vlsm, str(sam2_folder), segmenter.text)
    assert from_pretrained(str(tmp_path)).net.residual_scale == 0.6
