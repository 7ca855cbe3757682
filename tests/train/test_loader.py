"""The order of training rows: every row once, the same again for the same seed, resumable anywhere."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sicot.prepare.prepared import PreparedSet
from sicot.train.loader import Rows, TrainingBatches, evaluation_batches
from tests.builders import prepared_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepared_set(tmp_path_factory.mktemp("set"))


WINDOW = 40  # several windows in a small set


def epoch(data: PreparedSet, batch_size: int, rank: int, world: int, seed: int, number: int) -> list[pa.Table]:
    """The undecoded batches of a rank, with ids."""
    batches = TrainingBatches(data, batch_size, rank, world, seed, WINDOW)
    batches.epoch = number
    return list(batches._slices())


@pytest.fixture(autouse=True)
def ids_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "COLUMNS", ("id", "image", "words", "label"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.integers(1, 5), batch_size=st.integers(1, 50), seed=st.integers(0, 99), number=st.integers(0, 9))
def test_an_epoch_deals_each_row_once_and_all_ranks_step_equally(
    data: PreparedSet, world: int, batch_size: int, seed: int, number: int
) -> None:
    ranks = [epoch(data, batch_size, rank, world, seed, number) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert len(ranks[0]) == len(TrainingBatches(data, batch_size, 0, world, seed))
    ids = [row for batches in ranks for table in batches for row in table["id"].to_pylist()]
    assert len(ids) == len(set(ids))
    rows = data.manifest.rows["train"]
    assert rows - len(ids) < world * min(batch_size, rows // world) + world  # at most the last, partial batches wait


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.integers(1, 60), size=st.integers(1, 50), equally=st.booleans())
def test_rows_are_dealt_once_each_and_in_order(data: PreparedSet, world: int, size: int, equally: bool) -> None:
    rows = Rows(data, "train")
    ranks = [list(rows.dealt(rank, world, size, ("id",), equally)) for rank in range(world)]
    every = [row for file in rows.files for row in file.read(["id"])["id"].to_pylist()]
    assert [row for tables in ranks for table in tables for row in table["id"].to_pylist()] == every
    assert all(table.num_rows <= size and table.column_names == ["id"] for tables in ranks for table in tables)
    if equally:
        assert len({len(tables) for tables in ranks}) == 1


def test_the_order_is_the_same_for_a_seed_and_new_in_each_epoch(data: PreparedSet) -> None:
    def ids(seed: int, number: int) -> list[str]:
        return [row for table in epoch(data, 8, 0, 2, seed, number) for row in table["id"].to_pylist()]

    assert ids(3, 1) == ids(3, 1)
    assert ids(3, 1) != ids(3, 2)
    assert ids(3, 1) != ids(4, 1)


def test_a_resumed_epoch_goes_on_with_the_very_next_batch(data: PreparedSet) -> None:
    batches = TrainingBatches(data, 16, 0, 1, 0, WINDOW)
    whole = list(batches)
    batches.skip = 3
    rest = list(batches)
    assert len(rest) == len(whole) - 3
    assert all(torch.equal(a.images_BHW3, b.images_BHW3) for a, b in zip(whole[3:], rest, strict=True))


def test_decoding_beside_the_worker_gives_the_same_batches(data: PreparedSet) -> None:
    batches = TrainingBatches(data, 16, 1, 2, 5, WINDOW)
    inline, beside = list(batches.loader(0)), list(batches.loader(2))
    assert len(inline) == len(beside)
    assert all(torch.equal(a.labels_B, b.labels_B) for a, b in zip(inline, beside, strict=True))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.integers(1, 7), batch_size=st.integers(1, 50))
def test_evaluation_sees_every_row_exactly_once_over_all_ranks(data: PreparedSet, world: int, batch_size: int) -> None:
    labels = [
        label
        for rank in range(world)
        for batch in evaluation_batches(data, "test", batch_size, rank, world)
        for label in batch.labels_B.tolist()
    ]
    assert sorted(labels) == sorted([label for label in range(6) for _ in range(6)])
