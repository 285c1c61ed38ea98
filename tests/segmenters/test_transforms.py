"""From a photo to SAM 2's square and back, against references that share no code with it."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from rsvp.segmenters.transforms import Window, crop_to_square, margin_box, paste_logits


def triangle_resize(channel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bilinear by its definition: a triangle filter, widened when shrinking."""

    def weights(old: int, new: int) -> np.ndarray:
        scale = old / new
        support = max(scale, 1.0)
        centers = (np.arange(new) + 0.5) * scale
        distance = np.abs(np.arange(old) + 0.5 - centers[:, None]) / support
        table = np.clip(1 - distance, 0, None)
        return table / table.sum(axis=1, keepdims=True)

    height, width = channel.shape
    return weights(height, size[0]) @ channel @ weights(width, size[1]).T


@pytest.mark.parametrize("shape", [(300, 200), (50, 90), (128, 128), (37, 1000)])
def test_the_whole_image_is_resized_as_the_filter_is_defined(make_image, shape) -> None:
    rgb = make_image(*shape).rgb
    square, window = crop_to_square(rgb, (0, 0, shape[1], shape[0]), 0.0, 128)
    assert window == (0, 0, shape[1], shape[0])
    assert square.shape == (3, 128, 128)
    assert square.dtype == torch.float32
    for channel in range(3):
        expected = triangle_resize(rgb[..., channel] / 255.0, (128, 128))
        np.testing.assert_allclose(square[channel].numpy(), expected, atol=2e-6)


def test_margin_box_grows_each_axis_by_its_own_share_and_rounds_outwards() -> None:
    assert margin_box((10, 20, 30, 60), 0.25) == (5, 10, 35, 70)
    assert margin_box((10.2, 20.0, 30.1, 60.0), 0.0) == (10, 20, 31, 60)
    assert margin_box((0, 0, 10, 10), 0.5) == (-5, -5, 15, 15)


def test_a_crop_inside_the_image_equals_resizing_the_slice(make_image) -> None:
    rgb = make_image(120, 160).rgb
    square, window = crop_to_square(rgb, (40, 30, 80, 70), 0.25, 64)
    assert window == (30, 20, 90, 80)
    part = np.ascontiguousarray(rgb[20:80, 30:90])
    expected, _ = crop_to_square(part, (0, 0, 60, 60), 0.0, 64)
    assert torch.equal(square, expected)


def test_outside_the_image_is_the_fill_colour(make_image) -> None:
    rgb = make_image(40, 40).rgb
    square, window = crop_to_square(rgb, (0, 0, 40, 40), 0.5, 80, fill=(0.1, 0.2, 0.3))
    assert window == (-20, -20, 60, 60)
    corner = square[:, :20, :20]
    assert torch.equal(corner, torch.tensor([0.1, 0.2, 0.3])[:, None, None].expand(3, 20, 20))
    inside = torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255
    assert torch.equal(square[:, 20:60, 20:60], inside)


def test_a_window_off_the_image_is_all_fill(make_image) -> None:
    square, _ = crop_to_square(
        make_image(20, 20).rgb, (100, 100, 120, 130), 0.1, 32, fill=(0, 1, 0)
    )
    torch.testing.assert_close(square[1], torch.ones(32, 32))
    assert not square[0].any()


def sample_bilinear(logits: np.ndarray, window: Window, x: int, y: int) -> float:
    """The logit at the centre of pixel (x, y), by the definition of bilinear interpolation."""
    height, width = logits.shape
    u = min(max((x + 0.5 - window.x0) * width / window.width - 0.5, 0), width - 1)
    v = min(max((y + 0.5 - window.y0) * height / window.height - 0.5, 0), height - 1)
    u0, v0 = int(u), int(v)
    u1, v1 = min(u0 + 1, width - 1), min(v0 + 1, height - 1)
    top = logits[v0, u0] * (1 - (u - u0)) + logits[v0, u1] * (u - u0)
    bottom = logits[v1, u0] * (1 - (u - u0)) + logits[v1, u1] * (u - u0)
    return float(top * (1 - (v - v0)) + bottom * (v - v0))


@pytest.mark.parametrize(
    "window", [Window(0, 0, 50, 40), Window(10, 5, 30, 25), Window(-8, 20, 70, 66)]
)
def test_logits_are_pasted_where_the_window_was(window: Window) -> None:
    torch.manual_seed(1)
    logits = torch.randn(16, 16)
    out = np.ones((40, 50), dtype=np.bool_)
    paste_logits(logits, window, (40, 50), out)
    square = logits.double().numpy()
    for y in range(40):
        for x in range(50):
            if not (window.x0 <= x < window.x1 and window.y0 <= y < window.y1):
                assert not out[y, x]
                continue
            value = sample_bilinear(square, window, x, y)
            assert out[y, x] == (value > 0) or abs(value) < 1e-5


@pytest.mark.benchmarks
def test_a_crop_costs_less_than_half_a_millisecond(make_image) -> None:
    rgb = make_image(3000, 4000).rgb
    seconds = []
    for _ in range(200):
        start = time.perf_counter()
        crop_to_square(rgb, (1000, 1000, 1120, 1120), 0.15, 128)
        seconds.append(time.perf_counter() - start)
    print(f"\n120 px box to 128 px: {1e3 * sorted(seconds)[100]:.3f} ms (median of 200)")
    assert sorted(seconds)[20] < 0.5e-3
