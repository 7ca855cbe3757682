"""From a photo's bytes to a square of pixels: check, decode, turn upright, fit, re-encode.

Whatever the bytes, `decode` returns pixels or raises :class:`BadImage`. The same function serves preparation,
evaluation, batch prediction and the endpoint, so all of them see a photo alike.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from sicot.config import Images

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # decode() has a limit of its own
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # what is wrong with a photo is in BadImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")  # and RIFF….WEBP, ….ftypavif

MAX_SCANS = 200
"""Progressive JPEGs have some ten scans; one of thousands would keep a decoder busy for hours."""

_TURNS = {  # EXIF orientation → what makes the photo upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(ValueError):
    """A photo that cannot be used. ``reason``: no_image, image_place, image_too_large, image_type, image_unreadable."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that the error survives the way out of a worker process
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


def decode(photo: bytes, config: Images) -> np.ndarray:
    """Pixels of a photo, upright, on white where it is transparent: uint8 [size, size, 3] RGB.

    Of an animation, the first frame. Bytes and pixels are checked before anything is decoded.
    :class:`BadImage` if there is no photo, it is too large, of no known type, or broken.
    """
    if not photo:
        raise BadImage("no_image", "there is no photo")
    if len(photo) > config.max_bytes:
        raise BadImage("image_too_large", f"{len(photo)} bytes, at most {config.max_bytes} are read")
    with _open(photo) as image:
        width, height = image.size
        if width * height > config.max_pixels:
            raise BadImage("image_too_large", f"{width} x {height} pixels, at most {config.max_pixels} are read")
        if width * height == 0:
            raise BadImage("image_unreadable", "it has no pixels")
        if image.format in ("JPEG", "MPO") and photo.count(b"\xff\xda") > MAX_SCANS:
            raise BadImage("image_unreadable", f"more than {MAX_SCANS} scans")
        try:
            return _pixels(image, config)
        except Exception as error:  # broken bytes raise anything from within a decoder
            raise BadImage("image_unreadable", str(error) or type(error).__name__) from error


def encode(pixels: np.ndarray, quality: int) -> bytes:
    """JPEG of uint8 [height, width, 3] RGB pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _open(photo: bytes) -> Image.Image:
    """The photo with its header read and nothing decoded."""
    try:
        return Image.open(io.BytesIO(photo), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("image_too_large", str(error)) from error
    except Exception as error:  # broken headers raise anything, UnidentifiedImageError at best
        known = photo.startswith(_MAGIC) or photo[8:12] == b"WEBP" or photo[4:12] == b"ftypavif"
        if known:
            raise BadImage("image_unreadable", "its header is broken") from error
        raise BadImage("image_type", f"not one of {', '.join(FORMATS)}") from error


def _pixels(image: Image.Image, config: Images) -> np.ndarray:
    size = config.size
    width, height = image.size
    side = max(width, height) if config.fit == "pad" else min(width, height)
    inner = (size, size)  # what the photo fills of the square
    if config.fit == "pad":
        inner = (max(1, round(size * width / side)), max(1, round(size * height / side)))
    image.draft("RGB", inner)  # JPEG: decode at an 1/2, 1/4 or 1/8 of the size, never below `inner`
    photo, image = image, _flat(image)
    if image.size != inner:
        box = None
        if config.fit == "crop":
            width, height = image.size
            left, top = (width - min(width, height)) / 2, (height - min(width, height)) / 2
            box = (left, top, width - left, height - top)
        image = image.resize(inner, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    image = _on_white(image)
    if inner != (size, size):
        square = Image.new("RGB", (size, size), "white")
        square.paste(image, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        image = square
    turn = _TURNS.get(_orientation(photo))
    return np.array(image if turn is None else image.transpose(turn))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001  a broken EXIF block is no reason to refuse the pixels
        return 1


def _flat(image: Image.Image) -> Image.Image:
    """Decoded, 8 bits a channel, RGB or RGBA."""
    image.load()
    if image.mode == "F" or image.mode.startswith("I"):  # 16 or 32 bits, grey
        values = np.asarray(image, dtype=np.float32)
        top = values.max(initial=0.0)
        scale = 255.0 if top <= 1 and image.mode == "F" else 1.0 if top <= 255 else 255 / 65535
        image = Image.fromarray(np.clip(np.nan_to_num(values) * scale, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
