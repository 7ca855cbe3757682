"""The drawn parts of the embedded catalogue's products: silhouettes, patterns, emblems, colours.

Every shape is drawn once, in a square of `SIDE` x `SIDE`, and scaled to what a photo needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL.ImageDraw import ImageDraw

SIDE = 400
ON, OFF = 255, 0

COLOURS = {
    "red": (200, 40, 45),
    "blue": (45, 85, 190),
    "green": (50, 140, 75),
    "black": (45, 45, 50),
    "white": (236, 233, 226),
    "pink": (235, 140, 170),
    "yellow": (238, 196, 60),
    "brown": (130, 85, 55),
    "purple": (120, 70, 155),
    "orange": (232, 125, 45),
    "teal": (45, 145, 150),
    "grey": (140, 145, 150),
    "gold": (212, 170, 80),
    "silver": (200, 205, 212),
}
PALETTES = {  # ground, pattern, trim
    "red": ("red", "white", "black"),
    "blue": ("blue", "white", "brown"),
    "green": ("green", "yellow", "brown"),
    "black": ("black", "grey", "silver"),
    "white": ("white", "blue", "grey"),
    "pink": ("pink", "white", "purple"),
    "yellow": ("yellow", "black", "brown"),
    "brown": ("brown", "orange", "black"),
    "purple": ("purple", "pink", "silver"),
    "orange": ("orange", "white", "blue"),
    "teal": ("teal", "white", "gold"),
    "grey": ("grey", "black", "orange"),
}

# ---------------------------------------------------------------- silhouettes: what is patterned, what is trim, seams


def _bag(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    trim.arc((125, 35, 275, 250), 180, 360, ON, 18)
    body.polygon([(75, 140), (325, 140), (362, 365), (38, 365)], ON)
    seam.line([(66, 185), (334, 185)], ON, 5)


def _shoe(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    body.polygon([(45, 285), (52, 160), (75, 130), (150, 130), (188, 175), (265, 205), (345, 228), (372, 285)], ON)
    trim.rounded_rectangle((32, 282, 378, 325), 20, ON)
    for step in range(4):
        seam.line([(178 + 24 * step, 180 + 9 * step), (160 + 24 * step, 212 + 9 * step)], ON, 8)


def _bottle(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    body.rounded_rectangle((125, 125, 275, 385), 40, ON)
    body.polygon([(172, 60), (228, 60), (232, 150), (168, 150)], ON)
    trim.rounded_rectangle((160, 12, 240, 72), 12, ON)
    seam.line([(125, 345), (275, 345)], ON, 5)


def _mug(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    trim.ellipse((225, 130, 372, 300), ON)
    trim.ellipse((255, 162, 340, 268), OFF)
    body.rounded_rectangle((70, 85, 280, 355), 30, ON)
    seam.arc((70, 70, 280, 125), 0, 180, ON, 6)


def _shirt(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    body.polygon([(135, 50), (265, 50), (378, 120), (345, 195), (292, 168), (292, 365), (108, 365), (108, 168),
                  (55, 195), (22, 120)], ON)  # fmt: skip
    body.ellipse((152, 22, 248, 92), OFF)
    trim.arc((146, 18, 254, 98), 0, 180, ON, 12)
    seam.line([(108, 168), (122, 85)], ON, 5)
    seam.line([(292, 168), (278, 85)], ON, 5)


def _lamp(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    body.polygon([(140, 40), (260, 40), (345, 225), (55, 225)], ON)
    trim.rectangle((190, 220, 210, 350), ON)
    trim.ellipse((115, 335, 285, 380), ON)
    seam.line([(62, 212), (338, 212)], ON, 6)


def _cap(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    body.pieslice((50, 85, 310, 425), 180, 360, ON)
    trim.pieslice((150, 215, 390, 300), 180, 380, ON)
    seam.arc((110, 85, 250, 425), 180, 270, ON, 5)
    seam.arc((150, 85, 310, 425), 270, 360, ON, 5)


def _backpack(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    trim.arc((160, 25, 240, 104), 180, 360, ON, 16)
    trim.rounded_rectangle((62, 200, 110, 340), 20, ON)
    trim.rounded_rectangle((290, 200, 338, 340), 20, ON)
    body.rounded_rectangle((90, 70, 310, 375), 75, ON)
    seam.rounded_rectangle((120, 250, 280, 355), 20, outline=ON, width=6)


def _watch(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    trim.rounded_rectangle((145, 10, 255, 390), 20, ON)
    body.ellipse((85, 85, 315, 315), ON)
    trim.rounded_rectangle((308, 182, 340, 218), 6, ON)
    seam.ellipse((85, 85, 315, 315), outline=ON, width=12)


def _chair(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    body.rounded_rectangle((105, 25, 295, 205), 30, ON)
    body.polygon([(95, 215), (305, 215), (335, 270), (65, 270)], ON)
    for foot, top in ((70, 85), (330, 315), (130, 135), (270, 265)):
        trim.line([(top, 268), (foot, 385)], ON, 16)
    trim.rectangle((180, 200, 220, 218), ON)
    seam.line([(65, 262), (335, 262)], ON, 6)


def _teapot(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    trim.ellipse((255, 140, 390, 310), ON)
    trim.ellipse((282, 168, 362, 282), OFF)
    trim.polygon([(110, 265), (15, 150), (50, 135), (130, 205)], ON)
    body.ellipse((80, 115, 320, 350), ON)
    trim.ellipse((180, 60, 220, 100), ON)
    trim.pieslice((135, 85, 265, 175), 180, 360, ON)
    seam.arc((130, 110, 270, 160), 0, 180, ON, 6)


def _dress(body: ImageDraw, trim: ImageDraw, seam: ImageDraw) -> None:
    body.polygon([(140, 25), (165, 25), (200, 75), (235, 25), (260, 25), (262, 150), (355, 375), (45, 375),
                  (138, 150)], ON)  # fmt: skip
    body.rectangle((100, 148, 300, 168), OFF)
    trim.rectangle((136, 146, 264, 170), ON)
    for x in (120, 200, 280):
        seam.line([(200 + (x - 200) // 3, 170), (x, 370)], ON, 4)


Silhouette = Callable[[ImageDraw, ImageDraw, ImageDraw], None]
SILHOUETTES: dict[str, tuple[Silhouette, tuple[int, int, int]]] = {  # and where an emblem sits: x, y, diameter
    "bag": (_bag, (200, 272, 105)),
    "shoe": (_shoe, (118, 215, 84)),
    "bottle": (_bottle, (200, 250, 94)),
    "mug": (_mug, (175, 235, 106)),
    "shirt": (_shirt, (200, 205, 104)),
    "lamp": (_lamp, (200, 145, 96)),
    "cap": (_cap, (165, 175, 90)),
    "backpack": (_backpack, (200, 168, 100)),
    "watch": (_watch, (200, 200, 108)),
    "chair": (_chair, (200, 115, 100)),
    "teapot": (_teapot, (200, 240, 104)),
    "dress": (_dress, (200, 275, 94)),
}

# ---------------------------------------------------------------- patterns: periodic, so that they can be shifted


def _plain(draw: ImageDraw) -> None:
    pass


def _striped(draw: ImageDraw) -> None:
    for x in range(0, SIDE, 50):
        draw.rectangle((x, 0, x + 21, SIDE), ON)


def _hooped(draw: ImageDraw) -> None:
    for y in range(0, SIDE, 80):
        draw.rectangle((0, y, SIDE, y + 36), ON)


def _checked(draw: ImageDraw) -> None:
    for x in range(0, SIDE, 80):
        for y in range(0, SIDE, 80):
            draw.rectangle((x, y, x + 39, y + 39), ON)
            draw.rectangle((x + 40, y + 40, x + 79, y + 79), ON)


def _dotted(draw: ImageDraw) -> None:
    for x in range(0, SIDE, 80):
        for y in range(0, SIDE, 80):
            draw.ellipse((x + 8, y + 8, x + 32, y + 32), ON)
            draw.ellipse((x + 48, y + 48, x + 72, y + 72), ON)


def _zigzag(draw: ImageDraw) -> None:
    for y in range(-80, SIDE, 80):
        draw.line([(x, y + (40 if x // 40 % 2 else 0)) for x in range(-40, SIDE + 41, 40)], ON, 24)


def _camo(draw: ImageDraw) -> None:
    blobs = np.random.default_rng(5).random((9, 9))
    tiled = Image.fromarray((np.tile(blobs, (3, 3)) * 255).astype(np.uint8)).resize((3 * SIDE, 3 * SIDE))
    draw.bitmap((0, 0), tiled.crop((SIDE, SIDE, 2 * SIDE, 2 * SIDE)).point(lambda v: ON if v > 132 else OFF), ON)


def _floral(draw: ImageDraw) -> None:
    for x, y in ((50, 50), (250, 50), (150, 150), (350, 150), (50, 250), (250, 250), (150, 350), (350, 350)):
        _petals(draw, x, y, 22, 17)


def _petals(draw: ImageDraw, x: float, y: float, reach: float, radius: float) -> None:
    for turn in range(5):
        cx, cy = x + reach * math.sin(turn * math.tau / 5), y - reach * math.cos(turn * math.tau / 5)
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), ON)
    draw.ellipse((x - radius / 2, y - radius / 2, x + radius / 2, y + radius / 2), OFF)


PATTERNS: dict[str, Callable[[ImageDraw], None]] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "checked": _checked,
    "hooped": _hooped,
    "zigzag": _zigzag,
    "camo": _camo,
    "floral": _floral,
}

# ---------------------------------------------------------------- emblems


def _star(draw: ImageDraw) -> None:
    points = [(190 if turn % 2 == 0 else 78, turn * math.tau / 10) for turn in range(10)]
    draw.polygon([(200 + r * math.sin(a), 205 - r * math.cos(a)) for r, a in points], ON)


def _heart(draw: ImageDraw) -> None:
    draw.ellipse((25, 50, 215, 240), ON)
    draw.ellipse((185, 50, 375, 240), ON)
    draw.polygon([(42, 195), (358, 195), (200, 380)], ON)


def _moon(draw: ImageDraw) -> None:
    draw.ellipse((30, 20, 370, 380), ON)
    draw.ellipse((140, 0, 420, 320), OFF)


def _anchor(draw: ImageDraw) -> None:
    draw.line([(200, 70), (200, 360)], ON, 44)
    draw.line([(110, 135), (290, 135)], ON, 40)
    draw.arc((40, 90, 360, 380), 10, 170, ON, 46)
    draw.ellipse((150, 10, 250, 110), ON)
    draw.ellipse((180, 40, 220, 80), OFF)


def _leaf(draw: ImageDraw) -> None:
    along = [step / 16 for step in range(17)]
    upper = [(70 + 300 * t - 105 * math.sin(math.pi * t), 330 - 300 * t - 105 * math.sin(math.pi * t)) for t in along]
    lower = [(70 + 300 * t + 105 * math.sin(math.pi * t), 330 - 300 * t + 105 * math.sin(math.pi * t)) for t in along]
    draw.polygon(upper + lower[::-1], ON)
    draw.line([(20, 380), (110, 290)], ON, 34)
    draw.line([(110, 290), (260, 140)], OFF, 18)


def _bolt(draw: ImageDraw) -> None:
    draw.polygon([(230, 5), (70, 225), (180, 225), (140, 395), (335, 150), (215, 150), (290, 5)], ON)


def _crown(draw: ImageDraw) -> None:
    draw.polygon([(35, 90), (120, 200), (200, 45), (280, 200), (365, 90), (335, 340), (65, 340)], ON)


def _cat(draw: ImageDraw) -> None:
    draw.ellipse((45, 90, 355, 375), ON)
    draw.polygon([(50, 225), (55, 15), (190, 120)], ON)
    draw.polygon([(350, 225), (345, 15), (210, 120)], ON)
    draw.ellipse((110, 190, 165, 255), OFF)
    draw.ellipse((235, 190, 290, 255), OFF)


def _fish(draw: ImageDraw) -> None:
    draw.ellipse((10, 100, 300, 300), ON)
    draw.polygon([(260, 200), (390, 80), (390, 320)], ON)
    draw.ellipse((65, 150, 110, 195), OFF)


def _flower(draw: ImageDraw) -> None:
    _petals(draw, 200, 205, 110, 82)


def _key(draw: ImageDraw) -> None:
    draw.ellipse((10, 115, 190, 295), ON)
    draw.ellipse((65, 170, 135, 240), OFF)
    draw.rectangle((180, 182, 390, 228), ON)
    draw.rectangle((335, 220, 375, 300), ON)
    draw.rectangle((265, 220, 305, 285), ON)


def _tree(draw: ImageDraw) -> None:
    for top, half in ((10, 90), (95, 125), (185, 160)):
        draw.polygon([(200, top), (200 - half, top + 140), (200 + half, top + 140)], ON)
    draw.rectangle((170, 320, 230, 392), ON)


EMBLEMS: dict[str, Callable[[ImageDraw], None]] = {
    "star": _star,
    "heart": _heart,
    "moon": _moon,
    "anchor": _anchor,
    "leaf": _leaf,
    "bolt": _bolt,
    "crown": _crown,
    "cat": _cat,
    "fish": _fish,
    "flower": _flower,
    "key": _key,
    "tree": _tree,
}
