"""Dealing rows to train, val and test: by class, with duplicates on one side, the same way every time."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sicot.config import Split

TRAIN, VAL, TEST = 0, 1, 2
"""Codes of the splits: places in `schema.SPLITS`."""
TO_BE_MADE = -1


def deal(keys: np.ndarray, labels: np.ndarray, alike: list[np.ndarray], given: np.ndarray, config: Split) -> np.ndarray:
    """Split of each row, int8 [N].

    ``keys`` int64 [N] are distinct and stand for the rows; ``labels`` int64 [N] are class numbers 0 … C - 1.
    Rows with an equal value in one of ``alike`` (int64 [N], counted from 0; -1 = like no other) belong together.
    ``given`` int8 [N] is the split that the catalogue says, or `TO_BE_MADE`.

    Rows that the catalogue deals keep their split, and rows that belong to them follow. Of the rest, each class
    gives `config.val` and `config.test` of its rows, up to a whole row (rounded up or down by chance, so that
    rare classes are tested in fair numbers), and keeps at least one for training. The order of rows is of no effect.
    """
    unit = units(len(keys), alike)
    count = int(unit.max(initial=-1)) + 1
    order = np.lexsort((keys, unit))
    first = order[np.searchsorted(unit[order], np.arange(count))]  # the row of each unit with the smallest key
    size = np.bincount(unit, minlength=count)

    pinned = np.full(count, TEST + 1)  # the smallest split given in the unit: train wins, so nothing leaks out of it
    np.minimum.at(pinned, unit, np.where(given == TO_BE_MADE, TEST + 1, given))
    free = pinned > TEST
    split = np.where(free, TRAIN, pinned).astype(np.int8)
    split[free] = _deal_units(keys[first][free], labels[first][free], size[free], config)
    split = _train_every_class(split, unit, keys, labels, free)
    return np.where(given == TO_BE_MADE, split[unit], given).astype(np.int8)


def units(rows: int, alike: list[np.ndarray]) -> np.ndarray:
    """Number of the unit of each row, int64 [N]: rows are in one unit if a chain of equal values joins them."""
    left, right = np.zeros(0, np.int64), np.zeros(0, np.int64)
    nodes = rows
    for values in alike:  # a graph with a node for each row and each value
        has = np.flatnonzero(values >= 0)
        left, right = np.concatenate([left, has]), np.concatenate([right, nodes + values[has]])
        nodes += int(values.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(nodes, nodes))
    _, unit = connected_components(graph, directed=False)
    return np.unique(unit[:rows], return_inverse=True)[1]


def _deal_units(keys: np.ndarray, labels: np.ndarray, sizes: np.ndarray, config: Split) -> np.ndarray:
    """Split of each unit: a class gives small ones to test, then to val, by chance among equals, and keeps the rest."""
    classes = int(labels.max(initial=-1)) + 1
    rows = np.bincount(labels, weights=sizes, minlength=classes)
    chance = _uniform(np.arange(classes), config.seed + 1)
    most = np.maximum(rows - 1, 0)  # one stays
    test = np.minimum(np.floor(rows * config.test + chance), most)
    held_out = np.minimum(np.floor(rows * (config.test + config.val) + chance), most)

    order = np.lexsort((_uniform(keys, config.seed), sizes, labels))
    upto = np.cumsum(sizes[order])
    before_class = np.concatenate([[0], np.cumsum(rows)])[labels[order]]
    place = upto - before_class  # rows of the class up to and with this unit
    split = np.full(len(keys), TRAIN, np.int8)
    split[order[place <= held_out[labels[order]]]] = VAL
    split[order[place <= test[labels[order]]]] = TEST
    return split


def _train_every_class(
    split: np.ndarray, unit: np.ndarray, keys: np.ndarray, labels: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """Move a unit to training for each class without a training row: one of several classes may hold all it has."""
    trained = np.isin(labels, labels[split[unit] == TRAIN])
    rows = np.flatnonzero(~trained & free[unit])
    rows = rows[np.lexsort((keys[rows], labels[rows]))]
    _, chosen = np.unique(labels[rows], return_index=True)
    split[unit[rows[chosen]]] = TRAIN
    return split


def _uniform(values: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each value: splitmix64, a hash, so that it hangs on nothing but the value and the seed."""
    with np.errstate(over="ignore"):
        mixed = values.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed % 2**32 + 1)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
