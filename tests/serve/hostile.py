"""Photos and bodies that a stranger might send: broken, lying, oversized, or something else altogether."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

SIDE = 96
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
Body = tuple[bytes, str]
"""Content and content type."""


def picture(mode: str = "RGB", side: int = SIDE) -> Image.Image:
    """A smooth one with some noise."""
    random = np.random.default_rng(0)
    pixels = np.add.outer(np.arange(side), np.arange(side))[..., None] + random.integers(0, 40, (side, side, 3))
    return Image.fromarray((pixels % 256).astype(np.uint8)).convert(mode)


def encoded(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    """A picture in a format."""
    file = io.BytesIO()
    (image or picture()).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims to be of this size and holds these chunks."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def damaged() -> Iterator[tuple[str, bytes]]:
    """Every format cut short, and with bytes changed."""
    dice = random.Random(0)
    for form in FORMATS:
        whole = encoded(form)
        for part in (1, 3, 8, 16, 32, 64, len(whole) // 4, len(whole) // 2, len(whole) * 9 // 10, len(whole) - 2):
            yield f"{form} cut at {part}", whole[:part]
        for number in range(10):
            changed = bytearray(whole)
            for _ in range(1 + number * 3):
                changed[dice.randrange(4 if number % 2 else 0, len(changed))] = dice.randrange(256)
            yield f"{form} changed {number}", bytes(changed)


def odd() -> Iterator[tuple[str, bytes]]:
    """Photos that are none of the usual, most of them good."""
    for mode in ("1", "L", "P", "CMYK", "YCbCr", "I;16", "F", "LA", "RGBA"):
        form = "PNG" if mode in ("1", "P", "LA", "RGBA", "I;16") else "TIFF"
        image = picture("L").convert("I").convert("I;16") if mode == "I;16" else picture().convert(mode)
        yield f"{mode} as {form}", encoded(form, image)
    yield "CMYK as JPEG", encoded("JPEG", picture("CMYK"))
    for turn in range(10):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"turned by {turn}", encoded("JPEG", exif=exif)
    yield "EXIF of noise", encoded("JPEG", exif=b"Exif\0\0" + bytes(range(256)) * 20)
    yield "ICC of noise", encoded("JPEG", icc_profile=b"\xff" * 5000)
    yield "progressive", encoded("JPEG", progressive=True)
    yield (
        "a thousand scans",
        encoded("JPEG", progressive=True)[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0\0" * 1000 + b"\xff\xd9",
    )
    frames = [picture().rotate(10 * n) for n in range(30)]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        yield f"30 frames of {form}", encoded(form, save_all=True, append_images=frames)
    yield "one pixel", encoded("PNG", picture(side=1))
    yield "a line", encoded("PNG", picture(side=64).resize((4000, 1)))
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 5_000_000, zip=True)
    yield "text that swells", encoded("PNG", pnginfo=text)


def lying() -> Iterator[tuple[str, bytes]]:
    """Headers that promise what does not come, or what nobody has room for."""
    for side in (0, 1, 30_000, 60_000, 2**31 - 1):
        yield f"PNG of {side} pixels squared", png(side, side, chunk(b"IDAT", zlib.compress(b"\0" * 99)))
    swells = zlib.compress(b"\0" * 60_000_000, 9)
    yield "PNG that swells", png(64, 64, chunk(b"IDAT", swells))
    yield (
        "PNG whose text swells",
        png(64, 64, chunk(b"zTXt", b"c\0\0" + swells), chunk(b"IDAT", zlib.compress(b"\0" * 99))),
    )
    yield "PNG whose profile swells", png(64, 64, chunk(b"iCCP", b"c\0\0" + swells), chunk(b"IDAT", b""))
    yield "PNG of 16 bits, short", png(64, 64, chunk(b"IDAT", zlib.compress(b"\0" * 99)), depth=16)
    yield "PNG of a palette without one", png(64, 64, chunk(b"IDAT", zlib.compress(b"\0" * 9999)), colour=3)
    yield "PNG with 5000 empty chunks", png(8, 8, *[chunk(b"teXt", b"")] * 5000)
    yield "GIF of 65535 squared", b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf7\0\0" + b"\0" * 800
    yield (
        "BMP of many pixels",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 70, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    ring = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 256, 4, 1, 64) + struct.pack("<I", 8)
    yield "TIFF that goes in circles", ring
    yield "TIFF of many tags", b"II*\0\x08\0\0\0" + struct.pack("<H", 65535) + b"\xff" * 60_000
    yield "WEBP of 16384 squared", b"RIFF\xff\xff\0\0WEBPVP8L\xff\0\0\0\x2f\xff\xff\xff\x0f" + b"\0" * 200
    yield "JPEG of 65535 squared", b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3\1\x11\0\2\x11\0\3\x11\0\xff\xd9"
    yield "JPEG of markers", b"\xff\xd8" + b"\xff\xe0\0\2" * 20_000
    yield "JPEG of 0xff", b"\xff\xd8\xff" + b"\xff" * 50_000
    yield "AVIF of boxes", b"\0\0\0\x20ftypavif\0\0\0\0avifmif1" + b"\0\0\0\x08free" * 2000
    yield "a bomb of 30 million pixels", encoded("PNG", Image.new("1", (6000, 5000)))


def else_altogether() -> Iterator[tuple[str, bytes]]:
    """No photos, or photos and something else at once."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as held:
        held.writestr("a.html", "<script>alert(1)</script>")
    page = b"<html><script>alert(document.domain)</script></html>"
    yield "nothing", b""
    yield "zeros", b"\0" * 5000
    yield "SVG", b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    yield "SVG of entities", b"<!DOCTYPE x [<!ENTITY a '" + b"&a;" * 50 + b"'>]><svg>&a;</svg>"
    yield "SVG that reads files", b"<svg><image href='file:///etc/passwd'/></svg>"
    for name, content in (("page", page), ("ZIP", archive.getvalue()), ("program", b"\x7fELF" + b"\0" * 500)):
        yield name, content
        yield f"JPEG and {name}", encoded("JPEG") + content
        yield f"GIF and {name}", encoded("GIF") + content
        yield f"{name} and JPEG", content + encoded("JPEG")
    yield "PDF", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF"
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(/etc/passwd) (r) file\n"
    yield "pickle", b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."
    yield "PPM", b"P6\n64 64\n255\n" + b"\0" * 64 * 64 * 3
    yield "ICO", b"\0\0\1\0\1\0\x40\x40\0\0\1\0\x20\0\x10\0\0\0\x16\0\0\0" + b"\0" * 40
    yield "MP4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 500
    yield "text", "这不是照片".encode() * 100


def forms() -> Iterator[tuple[str, Body]]:
    """Bodies that are no proper form."""
    photo, line = encoded("JPEG"), b"\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n' + photo + line
    field = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    kind = "multipart/form-data; boundary=b"
    yield "no end", (part, kind)
    yield "no boundary in the body", (photo, kind)
    yield "no boundary in the header", (part + b"--b--", "multipart/form-data")
    yield "an empty boundary", (part + b"--b--", "multipart/form-data; boundary=")
    yield "a long boundary", (part, "multipart/form-data; boundary=" + "b" * 5000)
    yield "two photos", (part + part + b"--b--", kind)
    yield "a thousand fields", (field % (b"tags", b"x") * 1000 + b"--b--", kind)
    yield "a field of headers", (b"--b\r\n" + b"X-A: b\r\n" * 3000 + b"\r\nx\r\n--b--", kind)
    yield "a header without end", (b"--b\r\nContent-Disposition: " + b"x" * 60_000, kind)
    yield "a name of paths", (part.replace(b"x.jpg", b"../../../../etc/passwd") + b"--b--", kind)
    yield "a name of zeros", (part.replace(b"x.jpg", b"\0\0\0") + b"--b--", kind)
    yield "a photo in text", (field % (b"image", b"x") + b"--b--", kind)
    yield "text in a file", (part.replace(b'"image"', b'"title"') + b"--b--", kind)
    yield "titles that differ", (field % (b"title", b"a") + field % (b"title", b"b") + b"--b--", kind)
    yield "a title too long", (field % (b"title", b"x" * 9999) + b"--b--", kind)
    yield "a title of no language", (field % (b"title", b"\xff\xfe\xfd") + b"--b--", kind)
    yield "a title of marks", (field % (b"title", "\u202e\u0000\ufeff".encode() * 50) + b"--b--", kind)
    yield "tags of commas", (field % (b"tags", b"," * 5000) + b"--b--", kind)
    for value in (b"0", b"-1", b"1e9", b"99999999999999999999", b"nan", b"", b"'; drop table", b"5.5", b"0x5"):
        yield f"k of {value.decode()}", (part + field % (b"k", value) + b"--b--", kind)
    yield "a field that is none", (part + field % (b"__proto__", b"x") + b"--b--", kind)
    yield "nested", (b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n--b--", kind)
    yield "a form of ampersands", (b"&" * 50_000, "application/x-www-form-urlencoded")
    yield "a form of percents", (b"title=%" * 5000, "application/x-www-form-urlencoded")
    yield "JSON", (b'{"image": "x"}', "application/json")
    yield "JSON in depth", (b"[" * 50_000, "application/json")
    yield "no type", (photo, "")
    yield "a type of zeros", (photo, "image/\x00")
    yield "another charset", (b"title=x", "application/x-www-form-urlencoded; charset=utf-7")


def corpus() -> dict[str, Body]:
    """All of it."""
    found = {}
    for photos in (damaged, odd, lying, else_altogether):
        found.update({name: (content, "image/jpeg") for name, content in photos()})
    return {**found, **dict(forms())}
