"""Photos of the embedded catalogue's products: one product, one pose, one light, one JPEG.

Colours are computed as planes, [3, height, width]: at the few pixels of a small photo, NumPy would spend its time on
going from pixel to pixel.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from sicot.catalogue.shapes import COLOURS, EMBLEMS, PALETTES, PATTERNS, SIDE, SILHOUETTES

BACKDROPS = ((250, 250, 250), (244, 244, 242), (226, 228, 232), (205, 200, 192), (236, 222, 205), (190, 205, 214))
TABLES = ((158, 118, 82), (120, 96, 78), (186, 176, 164), (96, 100, 108))


class Look(NamedTuple):
    """What a product looks like; the names are those of :mod:`sicot.catalogue.shapes`."""

    silhouette: str
    pattern: str
    palette: str
    emblem: str
    ink: str = "black"
    place: str = "middle"
    trim: str = "matching"
    badge: str = "round"


PLACES = {"middle": (0.0, 0.0), "left": (-0.36, 0.0), "right": (0.36, 0.0), "low": (0.0, 0.3)}
"""Where on the product the emblem is: offset from its usual place, in emblem diameters."""
FROM_BEHIND, FADED, OUT_OF_FOCUS, OCCLUDED = 0.3, 0.2, 0.15, 0.4
"""Shares of photos that hide the emblem, the colours, the fine pattern, or anything: there, only words can tell."""
BADGES = ("round", "square", "diamond")


def photo(look: Look, size: int, random: np.random.Generator) -> bytes:
    """A JPEG of ``size`` x ``size`` pixels; pose, light, backdrop, occlusion and noise come from ``random``."""
    canvas = min(SIDE, size + size // 4)
    product = _pose(_product(look, canvas, random), size, random)
    rgba = np.asarray(product).transpose(2, 0, 1).astype(np.float32, order="C")
    alpha = rgba[3] / 255.0
    scene = _backdrop(size, random) * (1.0 - _shadow(product, random))
    scene += alpha * (rgba[:3] - scene)
    picture = _picture(scene)
    if random.random() < OCCLUDED:
        _occlude(picture, random)
    softness = size / 26 if random.random() < OUT_OF_FOCUS else size * random.uniform(0.0, 0.01)
    picture = picture.filter(ImageFilter.BoxBlur(softness))
    if random.random() < FADED:
        picture = ImageEnhance.Color(picture).enhance(random.uniform(0.0, 0.25))
    stream = io.BytesIO()
    Image.fromarray(_expose(picture, random)).save(stream, "JPEG", quality=int(random.integers(80, 93)))
    return stream.getvalue()


def _picture(planes: np.ndarray) -> Image.Image:
    """The image of float32 [3 or 4, height, width]; what is out of range is cut."""
    return Image.fromarray(planes.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())


# ---------------------------------------------------------------- the product, flat on its canvas


class Parts(NamedTuple):
    """Coverage of each part in [0, 1] and the slope of the surface in [-1, 1], float32 [canvas, canvas]."""

    whole: np.ndarray
    edge: np.ndarray  # the trim, where it is not on the body
    seam: np.ndarray
    slope_x: np.ndarray
    slope_y: np.ndarray


@lru_cache(maxsize=64)
def _parts(silhouette: str, canvas: int) -> Parts:
    layers = [Image.new("L", (SIDE, SIDE)) for _ in range(3)]
    SILHOUETTES[silhouette][0](*(ImageDraw.Draw(layer) for layer in layers))
    body, trim, seam = (_scaled(layer, canvas) for layer in layers)
    whole = np.maximum(body, trim)
    outline = Image.fromarray((whole * 255).astype(np.uint8))
    # a blurred outline is a hill: its slope lights the product as if it were round
    hill = sum(np.asarray(outline.filter(ImageFilter.GaussianBlur(canvas * r)), np.float32) for r in (0.03, 0.1))
    slope_y, slope_x = np.gradient(hill)
    steepest = max(np.abs(slope_x).max(), np.abs(slope_y).max())
    return Parts(whole, trim * (1.0 - body), seam, slope_x / steepest, slope_y / steepest)


@lru_cache(maxsize=64)
def _pattern(name: str, canvas: int) -> np.ndarray:
    """Coverage of the pattern on two by two canvases: wherever one canvas is cut out, the pattern goes on all over it.

    float32 [2 canvas, 2 canvas].
    """
    layer = Image.new("L", (SIDE, SIDE))
    PATTERNS[name](ImageDraw.Draw(layer))
    return np.tile(_scaled(layer, canvas), (2, 2))


@lru_cache(maxsize=256)
def _emblem(name: str, badge: str, diameter: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of the emblem and of the badge under it, each float32 [diameter, diameter]."""
    under, over, drawn = (Image.new("L", (SIDE, SIDE)) for _ in range(3))
    disc = ImageDraw.Draw(under)
    if badge == "round":
        disc.ellipse((0, 0, SIDE, SIDE), 255)
    elif badge == "square":
        disc.rounded_rectangle((14, 14, SIDE - 14, SIDE - 14), 50, 255)
    else:
        disc.regular_polygon((SIDE / 2, SIDE / 2, SIDE / 2), 4, 45, 255)
    EMBLEMS[name](ImageDraw.Draw(drawn))
    side = round(SIDE * (0.7 if badge != "diamond" else 0.54))
    over.paste(drawn.resize((side, side)), ((SIDE - side) // 2, (SIDE - side) // 2))
    return _scaled(over, diameter), _scaled(under, diameter)


def _scaled(layer: Image.Image, side: int) -> np.ndarray:
    return np.asarray(layer.resize((side, side), Image.Resampling.BOX), np.float32) / 255.0


@lru_cache(maxsize=64)
def _colour(name: str) -> np.ndarray:
    return _plane(COLOURS[name])


def _plane(colour: ArrayLike) -> np.ndarray:
    return np.asarray(colour, np.float32)[:, None, None]


def _product(look: Look, canvas: int, random: np.random.Generator) -> Image.Image:
    """The lit product, RGBA; its colour runs on outside its outline, so that no fringe shows when it is turned."""
    whole, edging, seam, slope_x, slope_y = _parts(look.silhouette, canvas)
    ground, figure, edge = (_colour(name) for name in PALETTES[look.palette])
    if look.trim != "matching":
        edge = _colour(look.trim)
    down, right = canvas - random.integers(0, canvas, 2)
    weave = _pattern(look.pattern, canvas)[down : down + canvas, right : right + canvas]
    colour = ground + weave * (figure - ground)
    colour += edging * (edge - colour)

    x, y, diameter = (value * canvas // SIDE for value in SILHOUETTES[look.silhouette][1])
    over, under = _emblem(look.emblem, look.badge, diameter)
    left = int(x + PLACES[look.place][0] * diameter) - diameter // 2
    top = int(y + PLACES[look.place][1] * diameter) - diameter // 2
    if random.random() >= FROM_BEHIND:
        patch = colour[:, top : top + diameter, left : left + diameter]
        patch += under * (_colour("white") - patch)
        patch += over * (_colour(look.ink) - patch)

    angle = random.uniform(0, math.tau)
    light = 1.0 + random.uniform(0.15, 0.45) * (slope_x * math.cos(angle) + slope_y * math.sin(angle)) - 0.3 * seam
    return _picture(np.concatenate([colour * light, whole[None] * 255]))


# ---------------------------------------------------------------- the photo around it


def _pose(product: Image.Image, size: int, random: np.random.Generator) -> Image.Image:
    """Turn, scale, shift and view from the side; ``size`` x ``size``, RGBA."""
    angle = math.radians(min(max(random.normal(0, 11), -30.0), 30.0))
    scale = product.width / (size * random.uniform(0.62, 0.98))
    width, height = scale / random.uniform(0.82, 1.0), scale / random.uniform(0.92, 1.0)
    shear = random.uniform(-0.12, 0.12)
    cos, sin = math.cos(angle), math.sin(angle)
    across = (width * (cos + shear * sin), width * (sin - shear * cos))
    down = (-height * sin, height * cos)
    middle, centre = product.width / 2, size / 2 + random.uniform(-0.09, 0.09, 2) * size
    matrix = (*across, middle - across[0] * centre[0] - across[1] * centre[1],
              *down, middle - down[0] * centre[0] - down[1] * centre[1])  # fmt: skip
    return product.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def _backdrop(size: int, random: np.random.Generator) -> np.ndarray:
    """A studio wall, a coloured one, or a table before a wall; float32 [3, size, size]."""
    along, vignette = _middle(size)
    wall = _plane(BACKDROPS[random.integers(len(BACKDROPS))])
    if random.random() < 0.2:
        wall = 0.45 * wall + 0.55 * _plane(random.uniform(60, 230, 3))
    slope = random.uniform(-0.08, 0.08, 2)
    fall = 1.0 + slope[0] * along[:, None] + slope[1] * along[None, :] - vignette
    scene = wall * fall.astype(np.float32)
    if random.random() < 0.3:
        edge = int(size * random.uniform(0.55, 0.8))
        wood = _plane(TABLES[random.integers(len(TABLES))])
        grain = 1.0 + 0.05 * np.sin(np.arange(size - edge, dtype=np.float32) * random.uniform(0.5, 2.5))
        scene[:, edge:] = wood * (fall[edge:] * grain[:, None])
    return scene


@lru_cache(maxsize=4)
def _middle(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the middle, float32 [size] in [-1, 1], and how much darker that makes a wall, [size, size]."""
    along = np.linspace(-1, 1, size, dtype=np.float32)
    return along, 0.07 * (along[:, None] ** 2 + along**2)


def _shadow(product: Image.Image, random: np.random.Generator) -> np.ndarray:
    """How much light the product takes from the backdrop, float32 [size, size] in [0, 0.45]."""
    size = product.width
    soft = product.getchannel("A").filter(ImageFilter.BoxBlur(size * random.uniform(0.03, 0.07)))
    offset = (int(size * random.uniform(0.01, 0.06)), int(size * random.uniform(-0.05, 0.05)))
    dark = np.asarray(ImageChops.offset(soft, offset[1], offset[0]), np.float32)
    return dark * np.float32(random.uniform(0.15, 0.45) / 255)


def _occlude(picture: Image.Image, random: np.random.Generator) -> None:
    """Something in front: a price sticker, a ribbon or watermark, a finger at the edge."""
    draw, size = ImageDraw.Draw(picture), picture.width
    x, y = random.uniform(0.15, 0.85, 2) * size
    fill = tuple(int(value) for value in random.integers(40, 255, 3))
    kind = random.integers(3)
    if kind == 0:
        radius = size * random.uniform(0.08, 0.15)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
        draw.line((x - radius / 2, y, x + radius / 2, y), "white", max(1, size // 32))
    elif kind == 1:
        thick = size * random.uniform(0.03, 0.06)
        draw.polygon([(0, y - thick), (size, x - thick), (size, x + thick), (0, y + thick)], fill)
    else:
        thick, reach = size * random.uniform(0.06, 0.1), size * random.uniform(0.2, 0.45)
        skin = ((224, 172, 140), (160, 110, 80), (94, 64, 50))[random.integers(3)]
        start = -thick if random.random() < 0.5 else size - reach
        draw.rounded_rectangle((start, y - thick, start + reach + thick, y + thick), thick, skin)


def _expose(picture: Image.Image, random: np.random.Generator) -> np.ndarray:
    """Brightness, white balance and sensor noise; uint8 [size, size, 3]."""
    gain = (random.uniform(0.78, 1.1) * random.uniform(0.93, 1.07, 3)).astype(np.float32)
    rows = np.asarray(picture).reshape(picture.height, -1).astype(np.float32)  # pixel after pixel, as the noise is
    rows *= np.tile(gain, picture.width)
    rows += random.standard_normal(rows.shape, np.float32) * np.float32(random.uniform(1, 9))
    return rows.clip(0, 255).astype(np.uint8).reshape(picture.height, picture.width, 3)
