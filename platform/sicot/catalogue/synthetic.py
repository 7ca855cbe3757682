"""The embedded catalogue: a long-tailed shop of rendered products, any size, a pure function of its seed.

A class is a combination of shared parts (silhouette, palette, emblem, pattern; in large catalogues also ink, place,
badge and trim), so that every class has neighbours which differ in one part only: hard for the eye where rows are few,
while a word that names the part settles it. How many rows a class has follows Zipf's law. With fewer than three rows
a class, the tail ends as thin as a shop's: in classes of two rows, a quarter of them tested, and of one.

Row i depends on (seed, i) alone and costs about a millisecond: nothing is stored, any block can be made anywhere. The
bytes are the same on every run of one installation; another release of Pillow may encode a JPEG differently.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sicot.catalogue.render import BADGES, PLACES, Look, photo
from sicot.catalogue.schema import ROW, SPLITS
from sicot.catalogue.shapes import EMBLEMS, PALETTES, PATTERNS, SILHOUETTES
from sicot.catalogue.words import SYNONYMS, describe
from sicot.config import Synthetic

if TYPE_CHECKING:
    import ray.data

SMALLEST = 3  # rows of the rarest class, two to train on and one to test, where there are that many for every class
CROWDING = 2  # combinations of parts for each class: the fewer, the more neighbours a class has

PARTS: dict[str, tuple[str, ...]] = {
    "silhouette": tuple(SILHOUETTES),
    "palette": tuple(PALETTES),
    "emblem": tuple(EMBLEMS),
    "pattern": tuple(PATTERNS),
    "ink": tuple(SYNONYMS["ink"]),
    "trim": tuple(SYNONYMS["trim"]),
    "place": tuple(PLACES),
    "badge": BADGES,
}
"""Values of each part. The first four are always in use; the others join when the combinations run out."""
MAIN = 4


def dataset(config: Synthetic) -> ray.data.Dataset:
    """The catalogue as a lazy, streamed dataset with the columns of `schema.ROW`, in no particular order."""
    import ray.data

    blocks = min(-(-config.rows // 512), 512)  # each becomes a file of what is prepared: not too many of those

    def render(indices: pa.Table) -> pa.Table:
        return rows(config, indices["id"].to_pylist())

    numbers = ray.data.range(config.rows, override_num_blocks=blocks)
    return numbers.map_batches(render, batch_size=256, batch_format="pyarrow")


def rows(config: Synthetic, indices: Iterable[int]) -> pa.Table:
    """Rows number ``indices`` (0 <= index < config.rows) in the columns and types of `schema.ROW`."""
    wanted = np.fromiter(indices, np.int64)
    ranks, splits = places(config, wanted)
    values = _values(config.classes, config.seed)
    columns: dict[str, list] = {name: [] for name in ROW.names}
    for index, parts, split in zip(wanted.tolist(), class_parts(config, ranks), splits.tolist(), strict=True):
        random = np.random.Generator(np.random.Philox(key=[config.seed % 2**64, index]))
        title, tags = None, None
        if random.random() >= config.no_text:
            title, tags = describe(parts, values, config.word_noise, random)
        columns["id"].append(f"synthetic-{config.seed}-{index}")
        columns["image"].append(photo(Look(**parts), config.image_size, random))
        columns["image_uri"].append(None)
        columns["image_name"].append(None)
        columns["title"].append(title)
        columns["tags"].append(tags)
        columns["label"].append("-".join(parts.values()))
        columns["split"].append(SPLITS[split])
    return pa.table(columns, schema=ROW)


# ---------------------------------------------------------------- which class and split a row is of


@lru_cache(maxsize=4)
def counts(total: int, classes: int, imbalance: float) -> np.ndarray:
    """Rows of each class, most frequent first, int64 [classes]; their sum is ``total``.

    Zipf's law with the largest ``imbalance`` times the smallest, as far as `SMALLEST` rows a class allow, or one where
    ``total`` is less than that for every class.
    """
    least = SMALLEST if total >= SMALLEST * classes else 1
    law = np.arange(1, classes + 1, dtype=np.float64) ** -(np.log(imbalance) / np.log(classes))
    low, high = 0.0, float(total)
    for _ in range(100):  # the height of the curve that sums to `total`
        middle = (low + high) / 2
        low, high = (low, middle) if np.maximum(least, middle * law).sum() > total else (middle, high)
    exact = np.maximum(least, low * law)
    whole = np.floor(exact).astype(np.int64)
    left = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[: left % classes]] += 1
    return whole + left // classes


@lru_cache(maxsize=4)
def _ends(total: int, classes: int, imbalance: float) -> np.ndarray:
    """Place behind each class's last row when all rows stand in the order of their classes, int64 [classes]."""
    return np.cumsum(counts(total, classes, imbalance))


def deal(count: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test rows of the classes of each ``rank``, with ``count`` rows (>= 1).

    About 70, 10 and 20 %; rare classes give more to the test, up to three rows, so that the tail can be measured. Of
    two rows, every fourth class gives one, or these would crowd the test; a single row is for training.
    """
    test = np.maximum(np.rint(0.2 * count), np.minimum(3, count // 3)).astype(np.int64)
    test += (count == 2) & (rank % 4 == 0)
    val = np.maximum(np.rint(0.1 * count), count >= 6).astype(np.int64) * (count > SMALLEST)
    return count - val - test, val, test


def places(config: Synthetic, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class rank (0 = most frequent) and split (place in `schema.SPLITS`) of each row, int64 [N] each."""
    count = counts(config.rows, config.classes, config.imbalance)
    ends = _ends(config.rows, config.classes, config.imbalance)
    place = _shuffled(indices, config.rows, config.seed)
    rank = np.searchsorted(ends, place, "right")
    nth = place - (ends[rank] - count[rank])
    train, val, _ = deal(count[rank], rank)
    return rank, (nth >= train).astype(np.int64) + (nth >= train + val)


# ---------------------------------------------------------------- what a class looks like


def class_parts(config: Synthetic, ranks: np.ndarray) -> list[dict[str, str]]:
    """Value of every part in use, for the class of each rank; no two classes have the same values."""
    values = _values(config.classes, config.seed)
    digits = _shuffled(ranks, math.prod(map(len, values.values())), config.seed + 1)
    chosen = []
    for choices in values.values():
        digits, digit = np.divmod(digits, len(choices))
        chosen.append([choices[place] for place in digit])
    return [dict(zip(values, row, strict=True)) for row in zip(*chosen, strict=True)]


@lru_cache(maxsize=16)
def _values(classes: int, seed: int) -> dict[str, tuple[str, ...]]:
    """The values of each part that this catalogue uses: few enough that its classes have to share them."""
    sizes = dict.fromkeys(list(PARTS)[:MAIN], 2)
    while math.prod(sizes.values()) < CROWDING * classes:
        open_parts = [part for part in sizes if sizes[part] < len(PARTS[part])]
        if open_parts:
            sizes[min(open_parts, key=lambda part: sizes[part] / len(PARTS[part]))] += 1
        else:
            further = list(PARTS)[len(sizes)]
            sizes[further] = len(PARTS[further])
    used = {}
    for number, (part, size) in enumerate(sizes.items()):
        order = _shuffled(np.arange(len(PARTS[part])), len(PARTS[part]), seed + 100 + number)
        used[part] = tuple(PARTS[part][place] for place in order[:size])
    return used


def _shuffled(index: np.ndarray, size: int, seed: int) -> np.ndarray:
    """A pseudo-random permutation of 0 ... size - 1 at ``index``, without a table: a Feistel cipher, int64 [N]."""
    half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    mask = (np.uint64(1) << half) - np.uint64(1)
    out = np.array(index, np.uint64)
    todo = np.arange(len(out))
    while len(todo):  # what falls outside is enciphered again until it falls inside
        left, right = out[todo] >> half, out[todo] & mask
        for turn in range(4):
            left, right = right, left ^ (_mixed(right, seed * 4 + turn) & mask)
        out[todo] = left << half | right
        todo = todo[out[todo] >= size]
    return out.astype(np.int64)


def _mixed(value: np.ndarray, key: int) -> np.ndarray:
    """Splitmix64: every bit of the result depends on every bit of ``value`` and ``key``."""
    state = value + np.uint64((key + 1) * 0x9E3779B97F4A7C15 % 2**64)
    state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return state ^ state >> np.uint64(31)
