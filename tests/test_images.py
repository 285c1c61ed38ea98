"""Every way in which an image arrives, good and hostile."""

import contextlib
import hashlib
import io
import os
import struct
import sys
import types
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from PIL import ImageFile

from rsvp import images
from rsvp.errors import BadInput
from rsvp.images import image_size, load_image, shrink

# Four flat quarters, so that every flip and turn is told apart, even after JPEG.
RED, GREEN, BLUE, GREY = (220, 20, 20), (20, 200, 20), (20, 20, 220), (120, 120, 120)


def quarters(height=32, width=48):
    rgb = np.empty((height, width, 3), dtype=np.uint8)
    rgb[: height // 2, : width // 2] = RED
    rgb[: height // 2, width // 2 :] = GREEN
    rgb[height // 2 :, : width // 2] = BLUE
    rgb[height // 2 :, width // 2 :] = GREY
    return rgb


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind, body):
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(size, rows, *, bits=8, colour=2, extra=b""):
    """A PNG written by hand, for depths and sizes that Pillow does not write."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            extra,
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        ]
    )


# -- where it comes from


def test_a_path_keeps_its_name_and_the_hash_of_the_file(tmp_path):
    path = tmp_path / "a.png"
    data = encoded(Pil.fromarray(quarters()))
    path.write_bytes(data)
    for source in (path, str(path)):
        image = load_image(source)
        assert image.path == str(path)
        assert image.sha256 == hashlib.sha256(data).hexdigest()
        assert (image.height, image.width) == (32, 48)
        np.testing.assert_array_equal(image.rgb, quarters())


def test_bytes_hash_like_the_file_and_have_no_path():
    data = encoded(Pil.fromarray(quarters()))
    for source in (data, bytearray(data), memoryview(data)):
        image = load_image(source)
        assert image.path is None
        assert image.sha256 == hashlib.sha256(data).hexdigest()


def test_an_image_is_opened_while_torch_is_imported_elsewhere(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    array = np.zeros((4, 6, 3), np.uint8)
    assert load_image(array).width == 6


def test_a_file_is_opened_once(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Pil.fromarray(quarters())))
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args[0]) or real(*args))
    monkeypatch.setattr("builtins.open", lambda *args, **_: pytest.fail(f"opened again: {args}"))
    load_image(path)
    assert opened == [str(path)]


def test_arrays_and_pillow_images_are_hashed_by_their_pixels():
    rgb = quarters()
    from_array, from_pillow = load_image(rgb), load_image(Pil.fromarray(rgb))
    assert from_array.sha256 == from_pillow.sha256 == hashlib.sha256(rgb.tobytes()).hexdigest()


def test_an_array_is_copied_and_may_be_any_view():
    rgb = quarters()
    image = load_image(rgb[::-1, ::2])
    np.testing.assert_array_equal(image.rgb, rgb[::-1, ::2])
    assert image.rgb.flags.c_contiguous
    assert image.rgb.flags.writeable
    rgb[:] = 0
    assert image.rgb.max() > 0


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
def test_a_grey_array_becomes_rgb(shape):
    image = load_image(np.full(shape, 90, dtype=np.uint8))
    assert image.rgb.shape == (5, 7, 3)
    assert (image.rgb == 90).all()


def test_an_rgba_array_is_put_on_white():
    rgba = np.zeros((2, 3, 4), dtype=np.uint8)
    rgba[..., 3] = [0, 128, 255]
    np.testing.assert_allclose(load_image(rgba).rgb[0, :, 0], [255, 127, 0], atol=1)


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 4, 3), 255, dtype=np.float32),
        np.zeros((4, 4, 2), dtype=np.uint8),
        np.zeros((4,), dtype=np.uint8),
        np.zeros((1, 4, 4, 3), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(BadInput, match="image array"):
        load_image(array)


def test_an_image_passes_through():
    image = load_image(quarters())
    assert load_image(image) is image


def test_other_types_are_refused():
    with pytest.raises(BadInput, match="found int"):
        load_image(7)


# -- orientation

TURNED = {  # how a camera that notes this orientation stores the upright image
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_comes_out_upright(orientation, format):
    exif = Pil.Exif()
    exif[0x0112] = orientation
    stored = Pil.fromarray(np.ascontiguousarray(TURNED[orientation](quarters())))
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(format, {})
    data = encoded(stored, format, exif=exif, **options)
    image = load_image(data)
    assert image.rgb.shape == (32, 48, 3)
    np.testing.assert_allclose(image.rgb[4, 4], RED, atol=6)
    np.testing.assert_allclose(image.rgb[4, 44], GREEN, atol=6)
    np.testing.assert_allclose(image.rgb[28, 4], BLUE, atol=6)
    np.testing.assert_allclose(load_image(Pil.open(io.BytesIO(data))).rgb, image.rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_alone_tells_the_upright_size(tmp_path, orientation):
    exif = Pil.Exif()
    exif[0x0112] = orientation
    data = encoded(Pil.fromarray(quarters(20, 30)), "JPEG", exif=exif)
    (tmp_path / "a.jpg").write_bytes(data)
    upright = load_image(data).rgb.shape[:2]
    assert image_size(data) == image_size(tmp_path / "a.jpg") == upright


def test_a_size_is_not_taken_from_what_is_no_image(tmp_path):
    with pytest.raises(BadInput, match="empty"):
        image_size(b"")
    with pytest.raises(BadInput, match="not an image"):
        image_size(b"no image at all")
    with pytest.raises(BadInput, match="no such image file"):
        image_size(tmp_path / "nowhere.png")
    huge = png((40_000, 40_000), b"")
    with pytest.raises(BadInput, match="too large"):
        image_size(huge)


@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff"])
def test_broken_exif_does_not_cost_the_picture(exif):
    data = encoded(Pil.fromarray(quarters()), "JPEG", exif=exif)
    assert load_image(data).rgb.shape == (32, 48, 3)


# -- modes


def test_palette_grey_and_one_bit():
    rgb = Pil.fromarray(quarters())
    np.testing.assert_array_equal(load_image(encoded(rgb.quantize(8))).rgb, quarters())
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (load_image(encoded(Pil.fromarray(grey))).rgb == grey[..., None]).all()
    checks = Pil.fromarray(grey).point(lambda v: 255 if v % 2 else 0, "1")
    assert set(np.unique(load_image(encoded(checks)).rgb)) == {0, 255}


def test_a_transparent_palette_entry_shows_white():
    palette = Pil.new("P", (4, 2), 1)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.putpixel((0, 0), 0)
    image = load_image(encoded(palette, transparency=0))
    assert tuple(image.rgb[0, 0]) == (255, 255, 255)
    assert tuple(image.rgb[0, 1]) == (200, 0, 0)
    half = load_image(encoded(palette, transparency=bytes([255, 128])))
    np.testing.assert_allclose(half.rgb[0, 1], (227, 127, 127), atol=1)


@pytest.mark.parametrize(("mode", "colour"), [("L", 50), ("RGB", (50, 50, 50))])
def test_a_transparent_colour_shows_white(mode, colour):
    flat = Pil.new(mode, (3, 3), colour)
    flat.putpixel((1, 1), 9 if mode == "L" else (9, 9, 9))
    image = load_image(encoded(flat, transparency=colour))
    assert image.rgb[0, 0].tolist() == [255, 255, 255]
    assert image.rgb[1, 1].tolist() == [9, 9, 9]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La"])
def test_alpha_is_composited_on_white(mode):
    rgba = Pil.new("RGBA", (3, 1), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    rgba.putpixel((2, 0), (0, 0, 0, 255))
    for step in {"RGBa": ["RGBa"], "La": ["LA", "La"], "LA": ["LA"]}.get(mode, []):
        rgba = rgba.convert(step)
    np.testing.assert_allclose(load_image(rgba).rgb[0, :, 0], [255, 127, 0], atol=2)


def test_a_palette_with_an_alpha_channel():
    palette = Pil.new("P", (3, 1), 0)
    palette.putpalette([200, 0, 0])
    palette = palette.convert("PA")
    palette.putalpha(Pil.frombytes("L", (3, 1), bytes([0, 128, 255])))
    assert palette.mode == "PA"
    expected = [(255, 255, 255), (227, 127, 127), (200, 0, 0)]
    np.testing.assert_allclose(load_image(palette).rgb[0], expected, atol=1)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    image = load_image(encoded(Pil.fromarray(ramp), format))
    np.testing.assert_array_equal(image.rgb[..., 0], np.arange(256).reshape(16, 16))


def test_big_endian_16_bit_grey():
    ramp = (np.arange(256) * 257).astype(">u2").reshape(16, 16)
    image = load_image(Pil.frombytes("I;16B", (16, 16), ramp.tobytes()))
    np.testing.assert_array_equal(image.rgb[..., 0], np.arange(256).reshape(16, 16))


def test_16_bit_rgb_with_and_without_a_transparent_colour():
    rows = b"\0" + struct.pack(">6H", 0xFFFF, 0x8000, 0, 0x1234, 0x5678, 0x9ABC)
    image = load_image(png((2, 1), rows, bits=16))
    np.testing.assert_allclose(image.rgb[0], [[255, 128, 0], [0x12, 0x56, 0x9A]], atol=1)
    clear = png_chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    assert load_image(png((2, 1), rows, bits=16, extra=clear)).rgb.shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),  # 8-bit values in a wide type
        ([0, 25700, 65535], [0, 100, 255]),  # 16-bit ones
        ([-1000, 0, 1000], [0, 128, 255]),  # neither: their own range
        ([7, 7, 7], [7, 7, 7]),
        ([-3, -3, -3], [0, 0, 0]),
    ],
)
def test_32_bit_integers(values, expected):
    image = load_image(Pil.fromarray(np.array([values], dtype=np.int32)))
    np.testing.assert_allclose(image.rgb[0, :, 0], expected, atol=0.5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), 0.5, float("inf")], [0, 128, 0]),
    ],
)
def test_floats(values, expected):
    pixels = np.array([values], dtype=np.float32)
    image = load_image(encoded(Pil.fromarray(pixels), "TIFF"))
    np.testing.assert_allclose(image.rgb[0, :, 0], expected, atol=0.6)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV"])
def test_other_colour_spaces(mode):
    image = load_image(Pil.fromarray(quarters()).convert(mode))
    np.testing.assert_allclose(image.rgb[4, 4], RED, atol=6)
    np.testing.assert_allclose(image.rgb[28, 4], BLUE, atol=6)


def test_a_cmyk_jpeg():
    data = encoded(Pil.fromarray(quarters()).convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_allclose(load_image(data).rgb[4, 4], RED, atol=8)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(format):
    first, second = Pil.new("RGB", (8, 6), RED), Pil.new("RGB", (8, 6), BLUE)
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(first, format, save_all=True, append_images=[second], **options)
    np.testing.assert_allclose(load_image(data).rgb[0, 0], RED, atol=3)


def test_one_pixel():
    assert load_image(encoded(Pil.new("RGB", (1, 1), RED))).rgb.tolist() == [[list(RED)]]


# -- hostile files


def refused(source, *words, **options):
    """The message of the BadInput that `source` raises: one line with these words in it."""
    with pytest.raises(BadInput) as caught:
        load_image(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for word in words:
        assert word in message
    return message


def test_a_missing_file_a_folder_and_an_empty_file(tmp_path):
    refused(tmp_path / "none.png", "no such image file", "none.png")
    refused(tmp_path, "is a folder", str(tmp_path))
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    refused(empty, "empty.jpg", "0 bytes")
    refused(b"", "0 bytes")
    refused("", "path")
    refused("https://example.org/cat.jpg", "download")
    refused("a\0b.png", "cannot read")
    refused(empty / "below.png", "cannot read", "below.png")


def test_names_stay_on_one_line(tmp_path):
    refused(tmp_path / "two\nlines.png", r"two\nlines.png")
    refused(os.fsencode(tmp_path).decode() + "/\udcff.png", "no such image file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    refused(pipe, "not a regular file")
    if Path("/dev/zero").exists():
        refused("/dev/zero", "not a regular file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_an_unreadable_file(tmp_path):
    path = tmp_path / "locked.png"
    path.write_bytes(b"x")
    path.chmod(0)
    refused(path, "cannot read", "locked.png")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.1, 0.6])
def test_a_truncated_file(tmp_path, format, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Pil.fromarray(noise), format)
    path = tmp_path / f"cut.{format.lower()}"
    path.write_bytes(data[: int(len(data) * kept)])
    refused(path, path.name)


@pytest.mark.parametrize(
    "data",
    [
        b"this is text that somebody called a .jpg",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"RIFF\x10\x00\x00\x00WEBPVP8 ",
        b"II*\x00\x08\x00\x00\x00",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
        b"\0" * 1000,
    ],
)
def test_a_fake_file(tmp_path, data):
    path = tmp_path / "fake.jpg"
    path.write_bytes(data)
    refused(path, "fake.jpg")


def test_flipped_bytes_raise_nothing_but_bad_input():
    random = np.random.default_rng(1)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO"):
        data = np.frombuffer(encoded(Pil.fromarray(quarters()), format), dtype=np.uint8)
        for _ in range(40):
            broken = data.copy()
            where = random.integers(0, min(len(broken), 400), 4)
            broken[where] = random.integers(0, 256, 4)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.suppress(BadInput):
                    load_image(broken.tobytes(), max_pixels=1_000_000)


def test_a_decompression_bomb_is_refused_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(png((50_000, 50_000), b""))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    refused(path, "bomb.png", "50000x50000", "2,500,000,000")


def test_the_limit_is_the_callers_and_not_pillows(monkeypatch):
    monkeypatch.setattr(Pil, "MAX_IMAGE_PIXELS", 10)
    data = encoded(Pil.fromarray(quarters()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(data).width == 48
    assert Pil.MAX_IMAGE_PIXELS == 10
    refused(data, "48x32", "1,000", max_pixels=1000)
    refused(quarters(), "48x32", max_pixels=1000)
    refused(Pil.fromarray(quarters()), "48x32", max_pixels=1000)


@pytest.mark.parametrize("error", [Pil.DecompressionBombError, Pil.DecompressionBombWarning])
def test_pillows_own_alarm_is_bad_input(monkeypatch, error):
    def alarm(_):
        raise error("too many pixels")

    monkeypatch.setattr(ImageFile.ImageFile, "load", alarm)
    refused(encoded(Pil.fromarray(quarters())), "more pixels than Pillow decodes of this format")


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_an_image_between_pillows_limit_and_ours_is_no_broken_one(monkeypatch, kind):
    data = encoded(Pil.fromarray(quarters()), kind)
    monkeypatch.setattr(Pil, "MAX_IMAGE_PIXELS", 10)
    refused(data, "more pixels than Pillow decodes of this format; save it as PNG")


def test_a_file_too_large_for_any_such_image_is_not_read(tmp_path):
    path = tmp_path / "sparse.tif"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    refused(path, "sparse.tif", "too large", max_pixels=1_000_000)


def test_running_out_of_memory_is_said(monkeypatch):
    def no_memory(_):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", no_memory)
    refused(encoded(Pil.fromarray(quarters())), "memory")


# -- shrink


def test_shrink_keeps_small_images_and_the_aspect_of_large_ones():
    rgb = quarters(300, 500)
    assert shrink(rgb, 500) is rgb
    smaller = shrink(rgb, 250)
    assert smaller.shape == (150, 250, 3)
    np.testing.assert_allclose(smaller[20, 20], RED, atol=2)
    np.testing.assert_allclose(smaller[130, 230], GREY, atol=2)
    assert shrink(np.zeros((1, 5000, 3), dtype=np.uint8), 100).shape == (1, 100, 3)


# -- what it costs


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"])
def test_strips_give_what_the_whole_gives(monkeypatch, mode, orientation):
    grey = Pil.fromarray(np.arange(40 * 30, dtype=np.int32).reshape(40, 30) * 50)
    image = grey if mode in ("I", "F", "I;16") else Pil.fromarray(quarters(40, 30))
    image = image.convert(mode)
    image.getexif()[274] = orientation
    whole = load_image(image).rgb
    monkeypatch.setattr(images, "_STRIP_PIXELS", 7 * 30)
    np.testing.assert_array_equal(load_image(image).rgb, whole)


def test_a_jpeg_of_too_many_scans_is_refused_before_decoding(monkeypatch):
    data = encoded(Pil.new("L", (512, 512)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(BadInput, match=r"a JPEG of 20,0.. scans, which would take too long"):
        load_image(data[:-2] + scan * 20_000 + b"\xff\xd9")


def test_the_scans_of_a_thumbnail_do_not_count():
    thumbnail = b"\xff\xda\x00\x02" * 10_000
    data = encoded(Pil.fromarray(quarters()), "JPEG")
    segment = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    opened = load_image(data[:2] + segment + data[2:], max_pixels=32 * 48)
    assert opened.rgb.shape == (32, 48, 3)
