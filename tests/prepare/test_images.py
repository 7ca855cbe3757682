"""Any bytes become a square of pixels or a BadImage with a reason; nothing else."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sicot.config import Images
from sicot.prepare.images import MAX_SCANS, BadImage, decode, encode

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow on what it finds in broken files

SMALL = Images(size=32)
RED, BLUE, WHITE = (250, 10, 10), (10, 10, 250), (255, 255, 255)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def corner(width: int = 96, height: int = 96) -> Image.Image:
    """Red in the upper left quarter, blue elsewhere."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    return image


def near(pixel: np.ndarray, colour: tuple[int, int, int], by: int = 25) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= by)


def reason(photo: bytes, config: Images = SMALL) -> str:
    with pytest.raises(BadImage) as error:
        decode(photo, config)
    assert str(error.value)
    return error.value.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_formats(kind: str) -> None:
    pixels = decode(saved(corner(), kind), SMALL)
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert near(pixels[4, 4], RED)
    assert near(pixels[28, 28], BLUE)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("CMYK", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("PA", "TIFF"), ("LAB", "TIFF")],
)
def test_colour_modes(mode: str, kind: str) -> None:
    pixels = decode(saved(corner().convert(mode), kind), SMALL)
    assert near(pixels[4, 4], RED)
    assert near(pixels[28, 28], BLUE)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    grey = np.full((40, 40), 128 * 257, np.uint16)
    grey[:20] = 65535
    pixels = decode(saved(Image.fromarray(grey), kind), SMALL)
    assert near(pixels[2, 2], (255, 255, 255), 1)
    assert near(pixels[30, 2], (128, 128, 128), 1)


def test_transparency_is_white() -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert near(decode(saved(image, "PNG"), SMALL)[5, 5], WHITE, 0)
    palette = Image.new("P", (40, 40), 0)
    assert near(decode(saved(palette, "PNG", transparency=0), SMALL)[5, 5], WHITE, 0)


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, BLUE)]
    for kind in ("GIF", "WEBP"):
        assert near(decode(saved(frames[0], kind, save_all=True, append_images=frames[1:]), SMALL)[5, 5], RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(kind: str, orientation: int) -> None:
    lying = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    image = corner(96, 64)
    for turn in lying:
        image = image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(saved(image, kind, exif=exif), SMALL)
    assert near(pixels[4, 4], RED)
    assert near(pixels[28, 4], BLUE)
    assert near(pixels[4, 28], BLUE)


def test_a_broken_exif_block_is_no_reason_to_refuse_a_photo() -> None:
    assert decode(saved(corner(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"), SMALL).shape == (32, 32, 3)


@pytest.mark.parametrize(("width", "height"), [(96, 48), (48, 96), (33, 31), (500, 3), (1, 1)])
def test_ways_to_make_a_square(width: int, height: int) -> None:
    photo = saved(Image.new("RGB", (width, height), BLUE), "PNG")
    squash, pad, crop = (decode(photo, Images(size=32, fit=fit)) for fit in ("squash", "pad", "crop"))
    assert (squash == BLUE).all()
    assert (crop == BLUE).all()
    blue = (pad == BLUE).all(axis=2)
    assert blue[15:17, 15:17].any()
    assert abs(blue.mean() - min(width, height) / max(width, height)) < 0.05
    assert (pad[~blue] == WHITE).all()


def test_crop_keeps_the_middle_and_its_proportions() -> None:
    image = Image.new("RGB", (120, 40), BLUE)
    image.paste(RED, (40, 0, 80, 40))
    assert near(decode(saved(image, "PNG"), Images(size=32, fit="crop")).mean(axis=(0, 1)), RED, 10)


def test_a_photo_of_the_right_size_is_not_resampled() -> None:
    photo = saved(Image.effect_noise((32, 32), 90).convert("RGB"), "JPEG", quality=90)
    for fit in ("squash", "pad", "crop"):
        assert (decode(photo, Images(size=32, fit=fit)) == np.asarray(Image.open(io.BytesIO(photo)))).all()


def test_a_prepared_photo_stays_near_itself() -> None:
    pixels = decode(saved(corner(), "PNG"), SMALL)
    again = decode(encode(pixels, 95), SMALL)
    assert np.abs(pixels.astype(int) - again).mean() < 5


# ---------------------------------------------------------------- hostile input


@pytest.mark.parametrize(
    "photo",
    [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7 ...", b"<!doctype html><p>404", b"\x00" * 500, b"hello"],
)
def test_what_is_no_photo(photo: bytes) -> None:
    assert reason(photo) == "image_type"


def test_formats_that_can_run_programs_are_not_opened() -> None:
    assert reason(saved(corner(), "EPS")) == "image_type"


def test_no_bytes() -> None:
    assert reason(b"") == "no_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
def test_truncated_photos(kind: str, share: float) -> None:
    photo = saved(Image.effect_noise((90, 90), 90).convert("RGB"), kind)
    assert reason(photo[: max(12, int(len(photo) * share))]) == "image_unreadable"


def test_too_many_bytes_or_pixels() -> None:
    photo = saved(corner(), "PNG")
    assert reason(photo, Images(size=32, max_bytes=len(photo) - 1)) == "image_too_large"
    assert reason(photo, Images(size=32, max_pixels=96 * 96 - 1)) == "image_too_large"
    assert decode(photo, Images(size=32, max_bytes=len(photo), max_pixels=96 * 96)).shape == (32, 32, 3)


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 32) + b"IDAT" + bytes(40)


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
@pytest.mark.filterwarnings("error")
def test_decompression_bombs_are_refused_by_their_header(side: int) -> None:
    """A header alone: had anything been decoded, the reason would be image_unreadable."""
    assert reason(png_header(side, side)) == "image_too_large"


def test_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    photo = saved(corner(), "JPEG", progressive=True)
    scan = photo.rindex(b"\xff\xda")
    end = photo.rindex(b"\xff\xd9")
    assert reason(photo[:end] + photo[scan:end] * MAX_SCANS + photo[end:]) == "image_unreadable"


PHOTOS = [saved(corner(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")]


@given(st.sampled_from(PHOTOS), st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_photos_give_pixels_or_a_reason(photo: bytes, data: st.DataObject) -> None:
    damaged = bytearray(photo)
    for place in data.draw(st.lists(st.integers(0, len(photo) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    with suppress(BadImage):
        assert decode(bytes(damaged), SMALL).shape == (32, 32, 3)


@given(st.binary(max_size=200))
def test_noise_is_no_photo(photo: bytes) -> None:
    assert reason(photo) in ("no_image", "image_type", "image_unreadable")


def test_a_bad_image_survives_the_way_out_of_a_process() -> None:
    error = pickle.loads(pickle.dumps(BadImage("image_type", "what it is")))  # noqa: S301  our own bytes
    assert (error.reason, str(error)) == ("image_type", "what it is")
