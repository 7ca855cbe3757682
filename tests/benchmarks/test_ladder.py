"""The ladder measures what it says: folds that do not leak, rivals that learn, a table of the right rows."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ladder import __main__ as ladder
from benchmarks.ladder import data, finetune, heads, table, trial
from benchmarks.ladder.rivals import REGRESSION, RIVALS
from benchmarks.ladder.rungs import TWO, TwoClassifiers, rungs
from benchmarks.ladder.table import Measured
from sicot import config
from sicot.model import losses
from sicot.model.recognizer import SICoT
from sicot.train.features import Rows
from sicot.train.heads import ask, fold
from tests.builders import experiment, prepared_set

CLASSES, PER_CLASS, WIDTH, WORDS = 4, 12, 512, 9
MODEL = config.Model(dimension=16, visual=config.Visual(trunk="squeezenet1_1", freeze=1))
TRAIN = config.Train(epochs=24, batch_size=16, learning_rate=2e-2, precision="fp32")


def rows(seed: int) -> Rows:
    """Four classes that photos tell apart; the last two words are noise, the others name the class."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    centres = np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    photos = centres[labels][:, None] + random.normal(size=(len(labels), 2, WIDTH))
    words = [[int(label) + 1, int(random.integers(CLASSES + 1, WORDS))] for label in labels]
    words_NT = torch.zeros(len(labels), 3, dtype=torch.long)
    words_NT[:, :2] = torch.tensor(words)
    tokens = [[f"word {word}" for word in each] for each in words]
    ids = [f"{seed}-{number}" for number in range(len(labels))]
    return Rows(ids, torch.from_numpy(photos).half(), tokens, words_NT, torch.from_numpy(labels))


@pytest.fixture(scope="module")
def task() -> heads.Task:
    vectors_VE = torch.randn(WORDS, 8, generator=torch.Generator().manual_seed(0))
    vectors_VE[0] = 0
    return heads.Task(32, rows(1), rows(2), rows(3), vectors_VE, torch.ones(WORDS), CLASSES)


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_learns_what_photos_tell_apart(name: str, task: heads.Task) -> None:
    logits = RIVALS[name](MODEL, TRAIN, task)
    for regime, z_NC in logits.items():
        right = (z_NC.argmax(1) == task.asked.labels_N).float().mean()
        assert right > 0.8, regime
    assert set(logits) == ({"image", "text", "late"} if name == REGRESSION else {"image"})


@pytest.mark.parametrize("name", rungs(MODEL))
def test_every_rung_learns_and_answers_photos_without_words_by_the_photo(name: str, task: heads.Task) -> None:
    one = trial.Trial(name, rungs(MODEL)[name], TRAIN, "title", final=True)
    logits = trial._answers(one, task, None)
    assert ("both" in logits) == one.model.uses_words
    for regime in {"image", "both"} & set(logits):
        assert (logits[regime].argmax(1) == task.asked.labels_N).float().mean() > 0.6, regime
    wordless = heads.replace(task.asked, words_NT=torch.zeros_like(task.asked.words_NT))
    if one.model.uses_words and TWO not in name:
        net = heads.train(one.model, TRAIN, task)
        assert torch.equal(ask(net, wordless, "both"), ask(net, wordless, "image"))


def test_two_classifiers_learn_among_the_same_wrong_words_as_one(
    task: heads.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, swap = [], losses.swap_words
    monkeypatch.setattr(losses, "swap_words", lambda words_BT, share: shares.append(share) or swap(words_BT, share))
    for build in (SICoT, TwoClassifiers):
        heads.train(MODEL, TRAIN.model_copy(update={"epochs": 1}), task, build)
    steps = len(task.train.ids) // TRAIN.batch_size
    assert shares == [MODEL.text_swap] * 2 * steps


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80))
def test_each_row_is_held_out_once_and_never_trained_on_then(labels: list[int]) -> None:
    ids = [f"{(7 * row) % 83:03}" for row in range(len(labels))]
    folds = [fold(ids, np.array(labels), number, trial.FOLDS) for number in range(trial.FOLDS)]
    assert sorted(row for _, outside in folds for row in outside.tolist()) == list(range(len(labels)))
    for inside, outside in folds:
        assert not set(inside.tolist()) & set(outside.tolist())
        assert len(inside) + len(outside) == len(labels)
    for label in set(labels):  # a class is thinned by a fifth, not emptied
        if labels.count(label) > 1:
            assert all(label in np.array(labels)[inside] for inside, _ in folds)
    turned = [fold(ids[::-1], np.array(labels[::-1]), number, trial.FOLDS) for number in range(trial.FOLDS)]
    for (_, outside), (_, other) in zip(folds, turned, strict=True):  # whatever the rows' order
        assert {ids[row] for row in outside} == {ids[::-1][row] for row in other}


def test_swapped_words_are_those_of_another_row_and_photos_stay() -> None:
    before = rows(1)
    after = heads.swapped(before, 0.25)
    moved = (after.words_NT != before.words_NT).any(1)
    assert 0 < int(moved.sum()) <= round(0.25 * len(before.ids))
    assert sorted(map(tuple, after.words_NT.tolist())) == sorted(map(tuple, before.words_NT.tolist()))
    assert torch.equal(after.features_NWF, before.features_NWF)


def test_words_of_the_other_column_are_looked_up_in_this_ones_vocabulary() -> None:
    mine, other = rows(1), heads.replace(rows(1), tokens=[["word 2", "never seen"] for _ in rows(1).ids])
    read = heads.with_words(mine, other, {"word 2": 7})
    assert read.words_NT[0].tolist() == [7, 0, 0]
    assert read.ids == mine.ids


def score(top1: float) -> dict[str, object]:
    return {**dict.fromkeys(table.SHARES, top1), "by_frequency": [{"low": 4, "high": 7, "top1": top1}]}


def test_a_row_says_what_trained_it_and_is_the_mean_over_its_trainings() -> None:
    measured = [
        Measured("default", "title", {"image": score(a), "image_text": score(a), "image_title_nolabel": score(0.1)}, 1)
        for a in (0.5, 0.7)
    ] + [Measured("default", "title_nolabel", {"image": score(0.4), "image_title_nolabel": score(0.8)}, 1)]
    found = {
        (row["rung"], row["regime"]): (row["all"], row["trained_on"], row["seeds"])
        for row in table.rows(measured, ["title", "title_nolabel"])
    }
    assert found["default", "image"] == (60.0, "title", 2)
    assert found["default", "image_title_nolabel"] == (80.0, "title_nolabel", 1)
    assert found["default, one model", "image_title_nolabel"] == (10.0, "title", 2)
    assert found["default, trained on title_nolabel", "image"] == (40.0, "title_nolabel", 1)
    curves = table.curves(measured, ["title", "title_nolabel"])  # the plot shows what the table says
    assert list(curves["default: image_text"].items()) == [(28**0.5, pytest.approx(0.6))]
    assert list(curves["default: image"].values()) == [pytest.approx(0.6)]
    assert list(curves["default: image_title_nolabel"].values()) == [pytest.approx(0.8)]
    assert "60.0 ± " in table.by_regime(table.rows(measured, ["title", "title_nolabel"]))


def test_the_long_tailed_groceries_keep_test_rows_wordless_and_training_rows_of_the_index(tmp_path: Path) -> None:
    source = tmp_path / "grocery"
    source.mkdir()
    for split, title in (("train", "crisp and red"), ("val", ""), ("test", "")):
        table_ = {"id": [f"{split}{n}" for n in range(4)], "image": [b"x"] * 4, "title": [title] * 4}
        more = {"tags": [[]] * 4, "label": ["apple"] * 4, "split": [split] * 4}
        pq.write_table(pa.table({**table_, **more}), source / f"{split}.parquet")
    (source / "train_lt_ir50.csv").write_text("id,label\ntrain1,apple\ntrain3,apple\n")
    made = data._long_tailed(source, tmp_path / "out")
    assert pq.read_table(made / "train.parquet")["id"].to_pylist() == ["train1", "train3"]
    for split in ("val", "test"):
        assert pq.read_table(made / f"{split}.parquet").equals(pq.read_table(source / f"{split}.parquet"))


@pytest.mark.parametrize("final", [False, True])
def test_the_test_split_is_read_for_the_final_figures_alone(tmp_path: Path, final: bool) -> None:
    options = argparse.Namespace(weights=None, views=1, final=final)
    columns = trial.columns({"title": prepared_set(tmp_path / "set")}, options, str(tmp_path / "cache"))
    assert set(columns["title"].rows) == ({"train", "val", "test"} if final else {"train", "val"})


def test_a_fine_tuned_rung_is_trained_once_and_asked_on_the_split_that_is_named(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ladder, "FOLDER", "runs")  # a relative one, as the command's own is
    small = experiment(tmp_path)
    monkeypatch.setattr(finetune, "trials", lambda *_: [("default", "title", small)])
    options = argparse.Namespace(data="six", fresh=False, epochs=1, weights=None, seeds=1, only=[], final=False)
    sets = {"title": prepared_set(tmp_path / "set")}
    first, again = (next(ladder._tuned(options, sets)) for _ in range(2))
    assert set(first.scores) == {"image", "image_text", "text"}
    assert first.scores == again.scores
    assert "already trained" in capfd.readouterr().out
    tested = next(ladder._tuned(argparse.Namespace(**{**vars(options), "final": True}), sets))
    assert tested.scores != first.scores  # of other rows
