"""The `sam2` package's own code beside `Sam2Segmenter`, on the same random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from packages import needs_sam2
from test_sam2_checkpoint import configs, to_official
from tiny_sam2 import randomize, small_sam2
from transformers import Sam2Model

from eval.official_sam2 import official_network
from rsvp import registry
from rsvp.errors import BadInput, MissingExtra, ModelUnavailable
from rsvp.segmenters import Segmenter, sam2_package
from rsvp.segmenters.networks import Preprocessing
from rsvp.segmenters.sam2 import Sam2Segmenter
from rsvp.segmenters.sam2_package import Sam2PackageSegmenter, load_package
from rsvp.segmenters.transforms import Window, crop_to_square
from rsvp.types import Box, Point, Proposal

pytestmark = needs_sam2

ONE_BOX = [Proposal("a", Box(20, 10, 90, 70))]
EIGHT_BOXES = [Proposal("a", Box(5 + 9 * i, 4 + i, 60 + 9 * i, 40 + 4 * i)) for i in range(8)]
POINTS = [
    Proposal("a", points=(Point(30, 40), Point(90, 60, positive=False))),
    Proposal("b", points=(Point(10, 10), Point(90, 60))),
    Proposal("c", Box(20, 10, 90, 70), (Point(50, 50), Point(25, 15, positive=False))),
]
ONE_POINT = [Proposal("a", points=(Point(30, 40),)), Proposal("b", points=(Point(90, 60),))]
PROMPTS = {"one box": ONE_BOX, "eight boxes": EIGHT_BOXES, "points": POINTS, "a point": ONE_POINT}


def assert_same_answers(ours, theirs, image) -> None:
    """Logits within 1e-5 and the same masks, for every sort of prompt."""
    [one], [other] = ours.encode([image]), theirs.encode([image])
    for prompts in PROMPTS.values():
        found, expected = ours.mask_logits(one, prompts), theirs.mask_logits(other, prompts)
        assert expected.logits.std() > 0.01
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)
    points = torch.tensor([[30.0, 40.0], [100.0, 7.0], [64.0, 64.0]])
    logits, scores = ours.every_mask(one.features, points)
    expected_logits, expected_scores = theirs.every_mask(other.features, points)
    assert logits.shape[:2] == (3, 3)
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(scores, expected_scores, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def pair() -> tuple[Sam2Segmenter, Sam2PackageSegmenter]:
    net = small_sam2()
    ours = Sam2Segmenter.from_network(net, Preprocessing(128), device="cpu")
    return ours, Sam2PackageSegmenter.from_network(
        official_network(net), Preprocessing(128), device="cpu"
    )


@pytest.fixture(scope="module")
def official_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hiera tiny of SAM 2.1 as the package builds it, random, saved as the official files are."""
    net = sam2_package._instantiate(
        load_package().configs / "sam2.1" / "sam2.1_hiera_t.yaml"
    )  # the video half with it
    randomize_gently(net)
    path = tmp_path_factory.mktemp("official") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": net.state_dict()}, path)
    return path


def randomize_gently(net: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.01)


# ---------------------------------------------------------------- parity


def test_a_small_network_answers_alike(pair, make_image) -> None:
    assert_same_answers(*pair, make_image(75, 111))


def test_the_masks_are_the_same_pixels(pair, make_image) -> None:
    ours, theirs = pair
    image = make_image(75, 211)
    found = ours.masks(ours.encode([image])[0], [*EIGHT_BOXES, *ONE_POINT])
    expected = theirs.masks(theirs.encode([image])[0], [*EIGHT_BOXES, *ONE_POINT])
    assert expected.masks.shape == (10, 75, 211)
    assert 0 < expected.masks.mean() < 1
    assert (found.masks == expected.masks).mean() > 0.99999
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.slow
def test_an_official_file_loads_into_both_and_answers_alike(official_file, make_image) -> None:
    ours = Sam2Segmenter(str(official_file), device="cpu")
    theirs = Sam2PackageSegmenter(str(official_file), device="cpu")
    assert theirs.preprocessing == ours.preprocessing == Preprocessing(1024)
    assert theirs.name == f"sam2-package:{official_file}"
    assert_same_answers(ours, theirs, make_image(80, 120))


def test_what_the_predictor_gives_for_a_box_is_what_we_say_it_gives(pair, make_image) -> None:
    """The package's own way from the image to the masks, without a line of ours in between."""
    _, theirs = pair
    image = make_image(96, 160)
    predictor = load_package().predictor(theirs.net)
    predictor._bb_feat_sizes = [(32, 32), (16, 16), (8, 8)]
    predictor.set_image(image.rgb.copy())
    masks, scores, _ = predictor.predict(
        box=np.array([20, 10, 90, 70]), multimask_output=False, return_logits=False
    )
    found = theirs.masks(theirs.encode([image])[0], ONE_BOX)
    np.testing.assert_array_equal(found.masks, masks.astype(bool))
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)


def test_a_network_with_two_tables_of_positions_keeps_both(make_image) -> None:
    net = small_sam2()
    randomize(net.shared_image_embedding, seed=5)
    ours = Sam2Segmenter.from_network(net, Preprocessing(128), device="cpu")
    theirs = Sam2PackageSegmenter.from_network(
        official_network(net), Preprocessing(128), device="cpu"
    )
    assert_same_answers(ours, theirs, make_image(75, 111))


# ---------------------------------------------------------------- the protocol


def test_it_is_a_segmenter(pair, make_image) -> None:
    _, theirs = pair
    assert isinstance(theirs, Segmenter)
    assert registry.load("segmenter", "sam2-package") is Sam2PackageSegmenter
    empty = theirs.masks(theirs.encode([make_image(30, 40)])[0], [])
    assert empty.masks.shape == (0, 30, 40)


def test_images_in_one_batch_are_encoded_as_alone(pair, make_image) -> None:
    _, theirs = pair
    images = [make_image(50, 60), make_image(90, 30, seed=1)]
    together = theirs.encode(images)
    for image, encoding in zip(images, together, strict=True):
        assert encoding.image_size == (image.height, image.width)
        [alone] = theirs.encode([image])
        for level, own in zip(encoding.features, alone.features, strict=True):
            torch.testing.assert_close(level, own, atol=1e-5, rtol=1e-5)


def test_an_earlier_image_can_be_asked_after_a_later_one(pair, make_image) -> None:
    _, theirs = pair
    [first] = theirs.encode([make_image(50, 60)])
    before = theirs.mask_logits(first, ONE_BOX).logits
    theirs.encode([make_image(50, 60, seed=1)])
    assert torch.equal(theirs.mask_logits(first, ONE_BOX).logits, before)


def test_a_window_must_lie_on_the_image(pair, make_image) -> None:
    _, theirs = pair
    with pytest.raises(BadInput, match="windows inside the image"):
        theirs.features([(make_image(50, 60), Window(-3, 0, 20, 20))])


# ---------------------------------------------------------------- which yaml, which weights


@pytest.mark.parametrize(("size", "letter"), [*zip(configs(), ("t", "s", "b+", "l"), strict=True)])
@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
def test_the_yaml_is_chosen_by_the_shapes(size, letter, version, monkeypatch) -> None:
    with torch.device("meta"):
        state = to_official(Sam2Model(configs()[size]))
    if version == "sam2":
        del state["no_obj_embed_spatial"]
    chosen = []

    class Stop(Exception):
        pass

    def instantiate(yaml: Path) -> None:
        chosen.append(yaml)
        raise Stop

    monkeypatch.setattr(sam2_package, "read_checkpoint", lambda *_: state)
    monkeypatch.setattr(sam2_package, "_checkpoint", lambda *_: Path("a.pt"))
    monkeypatch.setattr(sam2_package, "_instantiate", instantiate)
    with pytest.raises(Stop):
        sam2_package.load_network("a.pt")
    assert [path.name for path in chosen] == [f"{version}_hiera_{letter}.yaml"]
    assert chosen[0].is_file()


def test_a_foreign_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"model": {"a.weight": torch.zeros(2)}}, path)
    with pytest.raises(ModelUnavailable, match=r"other\.pt is no official SAM 2 checkpoint"):
        Sam2PackageSegmenter(str(path), device="cpu")


def test_a_checkpoint_that_lacks_a_weight_is_named(official_file, tmp_path: Path) -> None:
    state = torch.load(official_file, weights_only=True)["model"]
    del state["sam_mask_decoder.iou_token.weight"]
    torch.save({"model": state}, tmp_path / "part.pt")
    with pytest.raises(ModelUnavailable, match=r"1 weights are missing \(first sam_mask_decoder"):
        Sam2PackageSegmenter(str(tmp_path / "part.pt"), device="cpu")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nowhere.pt", "no SAM 2 weights at nowhere.pt"),
        ("facebook/sam3", "official .pt files and facebook/sam2-hiera-tiny"),
        ("facebook/sam2.1-hiera-large", "hf download facebook/sam2.1-hiera-large sam2.1_hiera_l"),
    ],
)
def test_weights_that_are_not_here(model: str, said: str) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        Sam2PackageSegmenter(model, device="cpu")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- the import


@pytest.mark.parametrize(
    ("absent", "error", "said"),
    [
        (
            "sam2",
            ModelUnavailable,
            "pip install 'rsvp-segmentation[sam2]' && SAM2_BUILD_CUDA=0 pip install",
        ),
        ("hydra", MissingExtra, "pip install 'rsvp-segmentation[sam2]'"),
    ],
)
def test_what_is_not_installed_is_told_with_its_command(absent, error, said, monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == absent else real(n))
    with pytest.raises(error) as caught:
        sam2_package.load_package.__wrapped__()
    assert said in str(caught.value)


def test_the_transform_is_ours_to_the_last_bit(make_image) -> None:
    rgb = make_image(75, 211).rgb
    transform = torch.nn.Sequential(
        sam2_package._Resize((128, 128)),
        sam2_package._Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    )
    pixels, _ = crop_to_square(rgb, (0, 0, 211, 75), 0.0, 128)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    assert torch.equal(transform(sam2_package._ToTensor()(rgb)), (pixels - mean) / std)


def test_the_makefile_installs_the_version_that_the_message_names() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    version = sam2_package.INSTALL.split()[-1]
    assert version.startswith("sam2==")
    assert f"BUILT_HERE := {version}\n" in makefile
