"""Titles and tags become words: one spelling, whole words, bounded, and never an error."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sicot.config import Text
from sicot.prepare.text import LONGEST_WORD, Vocabulary, normalise, segment, tokenise

MARKUP = st.lists(st.sampled_from(["&", "amp;", "lt;", "gt;", "#60;", "<", ">", "b", "/", "http://", " ", "＜", "中"]))
TEXTS = st.text(max_size=80) | st.text(st.characters(categories=["L", "M", "N", "S", "C"])) | MARKUP.map("".join)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("ＳＯＮＹ　耳机", "sony 耳机"),
        ("<b>Red</b> bag<br/>new", "red bag new"),
        ("<script>alert(1)</script>bag", "bag"),
        ("salt &amp; pepper&nbsp;mill", "salt & pepper mill"),
        ("H&M price < 5 and > 3", "h&m price < 5 and > 3"),
        ("看 https://t.cn/aB3点击 www.shop.com/x?y=1 包邮", "看 点击 包邮"),
        ("好看😀❤️的👩‍👩‍👧包", "好看 的 包"),
        ("Nike™ Air®", "nike air"),
        ("a\x00b\nc\td", "a b c d"),
        ("zero\u200bwidth\ufeff soft\u00adhyphen", "zerowidth softhyphen"),
        ("lone\ud800surrogate", "lonesurrogate"),
        ("L’Oréal", "l'oréal"),
        ("  ", ""),
    ],
)
def test_what_reads_the_same_is_spelled_the_same(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


@given(TEXTS)
@example("&amp;lt;b&amp;gt;")
@example("＜ｂ＞")
@example("&" + "amp;" * 30 + "lt;b>")
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in once)
    once.encode()


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("无线蓝牙耳机", ["无线", "蓝牙", "耳机"]),
        ("Sony/索尼 WH-1000XM4 蓝牙耳机 3.5mm", ["sony", "索尼", "wh-1000xm4", "蓝牙", "耳机", "3.5mm"]),
        ("women's t-shirt, h&m (2-pack)", ["women's", "t-shirt", "h&m", "2-pack"]),
        ("500ml*12 1,200g a4+ c++", ["500ml", "12", "1,200g", "a4+", "c++"]),
        ("bag-- -red- 'blue'", ["bag", "red", "blue"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("!!! ... --- ¥", []),
    ],
)
def test_words_of_mixed_titles(title: str, words: list[str]) -> None:
    assert segment(normalise(title)) == words


@given(TEXTS)
def test_words_lose_no_letter_and_hold_no_space(text: str) -> None:
    text = normalise(text)
    words = segment(text)
    assert all(word and not any(letter.isspace() for letter in word) for word in words)
    if all(len(part) <= LONGEST_WORD for part in text.split()):
        letters = [letter for letter in text if letter.isalnum()]
        assert [letter for word in words for letter in word if letter.isalnum()] == letters


@given(TEXTS, st.lists(TEXTS | st.none(), max_size=5), st.integers(1, 12), st.integers(1, 60), st.booleans())
def test_tokens_are_distinct_bounded_and_the_titles_first(
    title: str, tags: list[str | None], most: int, characters: int, pairs: bool
) -> None:
    config = Text(max_words=most, max_characters=characters, pairs=pairs)
    tokens = tokenise(title, tags, config)
    assert len(tokens) == len(set(tokens)) <= most
    singles = list(dict.fromkeys(segment(normalise(title[:characters])[:characters])))
    assert tokens[: len(singles)] == singles[:most]


def test_pairs_follow_all_single_words() -> None:
    tokens = tokenise("red leather bag", ["sale", None, "red"], Text(pairs=True))
    assert tokens == ["red", "leather", "bag", "sale", "red leather", "leather bag"]


def test_nothing_said_is_no_token() -> None:
    assert tokenise(None, None, Text()) == tokenise("", [], Text()) == tokenise("¥", [None], Text()) == []


@given(st.lists(st.text(), unique=True), st.lists(st.text()))
def test_ids_count_from_one_and_zero_is_unknown(words: list[str], tokens: list[str]) -> None:
    vocabulary = Vocabulary(words)
    ids = vocabulary.ids(tokens)
    assert len(vocabulary) == len(words)
    for token, number in zip(tokens, ids, strict=True):
        assert words[number - 1] == token if token in vocabulary else number == 0


def test_jieba_is_silent_and_leaves_no_file_behind(tmp_path: Path) -> None:
    """Its cache would be read back with `marshal` from a folder that everybody can write to."""
    code = "from sicot.prepare.text import segment; print(segment('蓝牙耳机'))"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("['蓝牙', '耳机']", "")
    assert not list(tmp_path.iterdir())
