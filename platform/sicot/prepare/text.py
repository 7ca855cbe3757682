"""From a shop's title to words: normalise, segment (jieba for Chinese runs, words for the rest), look up.

The same three functions serve preparation, evaluation, batch prediction and the endpoint.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import jieba
import pyarrow as pa
import pyarrow.compute as pc

from sicot.config import Text

LONGEST_WORD = 64
"""Longer runs without a space are no words (base64, spam); they are cut here, characters."""

_OFTEN = 16
"""Chinese runs up to this length come again and are remembered, characters."""


def texts(column: Any) -> list[str | None]:
    """Strings of an Arrow column; bytes in it that are no UTF-8 are replaced."""
    values = pc.cast(column, pa.binary()).to_pylist()
    return [None if value is None else value.decode(errors="replace") for value in values]


# ---------------------------------------------------------------- normalise

_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.I)  # with ";": "H&M" is a brand
_TAG = re.compile(r"<(script|style)\b[^<>]*>.*?</\1\s*>|<!--.*?-->|</?[a-z][^<>]*>|<![a-z][^<>]*>", re.I | re.S)
_URL = re.compile(r"(?:https?://|www\.)[!-;=?-~]+", re.I)  # ASCII alone: Chinese text may follow without a space
_JOINERS = re.compile(  # invisible, and inside of words: removed without a gap
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e01ef]"
)
_GAPS = re.compile(  # control characters, private use, trade marks (NFKC would glue "tm" to the word), emoji
    "[\x00-\x1f\x7f-\x9f\ue000-\uf8ff\U000f0000-\U0010ffff©®™℠\u20e3\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff"
    "\u2500-\u27bf\u2900-\u297f\u2b00-\u2bff\U0001f000-\U0001faff\U0001fb00-\U0001fbff]"
)
_QUOTES = {ord("‘"): "'", ord("’"): "'"}
_SPACES = re.compile(r"\s+")


def normalise(text: str) -> str:
    """One spelling for what reads the same: NFKC, lower case, single spaces, no HTML, URLs, emoji, control characters.

    Normalising twice changes nothing more; nothing raises.
    """
    for _ in range(len(text) + 8):  # "&amp;lt;b&amp;gt;" and "＜ｂ＞" show their tag only after a first pass
        before, text = text, _pass(text)
        if text == before:
            break
    return text


def _pass(text: str) -> str:
    if not text.isascii():
        text = _GAPS.sub(" ", _JOINERS.sub("", text))
        text = unicodedata.normalize("NFKC", text)
    if "&" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = _GAPS.sub(" ", _URL.sub(" ", text))
    return _SPACES.sub(" ", text.lower().translate(_QUOTES)).strip()


# ---------------------------------------------------------------- segment

_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_MARKS = "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M")
_LETTER = rf"(?:[^\W_{_HAN}][{_MARKS}]*)"  # a letter or digit of any script, with its accents and vowel signs
_RUN = re.compile(
    rf"(?P<han>[{_HAN}]+)|{_LETTER}+(?:(?:[-'&+]|(?<=\d)[.,](?=\d)){_LETTER}+)*(?:\+{{1,2}}(?!\w))?"
)  # wh-1000xm4, 3.5mm, women's, h&m, a4+


def segment(text: str) -> list[str]:
    """Words of normalised ``text`` in order: Chinese runs by jieba, all else at spaces and punctuation.

    Model numbers and sizes stay whole (``wh-1000xm4``, ``3.5mm``); punctuation is no word.
    """
    words: list[str] = []
    for run in _RUN.finditer(text):
        words.extend(_cut(run[0]) if run["han"] else [run[0]])
    return [word[:LONGEST_WORD] for word in words]


def _cut(run: str) -> Iterable[str]:
    return _cut_before(run) if len(run) <= _OFTEN else _jieba().cut(run)


@lru_cache(maxsize=1 << 14)
def _cut_before(run: str) -> tuple[str, ...]:
    """Sellers repeat themselves: most short runs have been cut before, and cutting is slow."""
    return tuple(_jieba().cut(run))


@cache
def _jieba() -> jieba.Tokenizer:
    """The tokenizer with its dictionary, read once per process (half a second).

    jieba itself would talk about it on stderr and keep a cache in the shared temporary folder, which it reads
    back with `marshal`, whoever wrote it. Reading the dictionary directly is as fast and does neither.
    """
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


# ---------------------------------------------------------------- tokens and ids


def tokenise(title: str | None, tags: Sequence[str | None] | None, config: Text) -> list[str]:
    """Distinct words of a product, the title's first, at most ``config.max_words``.

    With ``config.pairs``, neighbouring title words joined by a space follow behind all single words.
    Title and tags are each cut at ``config.max_characters`` before anything else is done to them.
    """
    limit = config.max_characters
    words = _words(title or "", limit)
    of_tags = _words("\n".join(tag for tag in (tags or ())[:limit] if tag), limit)
    pairs = [f"{left} {right}" for left, right in pairwise(words)] if config.pairs else []
    return list(dict.fromkeys([*words, *of_tags, *pairs]))[: config.max_words]


def _words(text: str, limit: int) -> list[str]:
    return segment(normalise(text[:limit])[:limit])  # cut again: NFKC writes some characters as eighteen


class Vocabulary:
    """Words by id. Ids count from 1; 0 stands for every word that is not in it."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = list(words)
        self._ids = {word: number for number, word in enumerate(self.words, 1)}

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """Id of each token, one for one; 0 = unknown."""
        return [self._ids.get(token, 0) for token in tokens]
