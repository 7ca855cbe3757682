"""What is asked of a bundle, and what it answers.

B batch, H height, W width, S words and the null word, K ranked classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Query:
    """What a person asks, or gives for a product to be enrolled: a photo, words, or both."""

    image: bytes | None = None
    title: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """A query made ready for the model: decoded, tokenised."""

    image_HW3: np.ndarray | None
    tokens: list[str]
    words: list[int]


@dataclass(frozen=True)
class Top:
    """The best classes of a batch: probabilities p_BK, the classes_BK they are of, and the attention a_BS, if any."""

    p_BK: Tensor
    classes_BK: Tensor
    a_BS: Tensor | None


@dataclass(frozen=True)
class Ranked:
    """A class and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Word:
    """A word of the query and the share of attention it got; unknown words get none."""

    token: str
    weight: float
    known: bool


@dataclass(frozen=True)
class Answer:
    """Classes by falling probability, and which words were believed."""

    ranked: list[Ranked]
    score: float
    """How sure the answer is: the first class's probability."""
    unknown: bool
    """No known product is sure enough: the score is below the threshold of this way of asking."""
    words: list[Word]
    no_word: float
    """Attention on the null word: the share of "none of these words helps"; 1 if there are no words."""
    regime: str = ""
    """How it was asked: image, image_text or text."""
    group: str = ""
    """Of the first class: head, medium, tail or enrolled."""
