"""The index: what it finds, how it is chosen, and what of it stays exact."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from sicot import index
from sicot.index import Exam, Index, Rows, build, kinds


def clustered(classes: int, dimension: int = 16, seed: int = 0, parts: int = 20) -> Tensor:
    """Rows as of classes that share parts."""
    random = torch.Generator().manual_seed(seed)
    shared_PD = torch.randn(parts, dimension, generator=random)
    own_CD = torch.randn(classes, dimension, generator=random)
    return shared_PD[torch.randint(parts, (classes,), generator=random)] + 0.4 * own_CD


def queries(rows_CD: Tensor, count: int = 60, seed: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    near_ND = rows_CD[torch.randint(len(rows_CD), (count,), generator=random)]
    return near_ND + 0.2 * torch.randn(near_ND.shape, generator=random)


@settings(max_examples=8)
@given(st.integers(20, 3000), st.integers(2, 24), st.booleans(), st.integers(0, 9))
def test_the_chosen_index_finds_the_best_classes(classes: int, dimension: int, directions: bool, seed: int) -> None:
    rows = Rows(clustered(classes, dimension, seed), directions)
    asked_ND = queries(rows.weight_CD, seed=seed)
    made = build(rows, asked_ND, candidates=50, recall=0.95)
    wanted_NK, found_NK = rows.nearest(asked_ND, 10), made.candidates(asked_ND)
    recall = (found_NK[:, :, None] == wanted_NK[:, None]).any(1).double().mean()  # float32 has no 0.95
    assert float(recall) >= 0.95
    assert made.about["recall"] == pytest.approx(float(recall), abs=0.01)  # equal scores may change places
    assert len(made) == classes


@pytest.mark.parametrize("directions", [True, False])
def test_exact_search_by_blocks_is_what_one_product_gives(directions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "BLOCK", 64)
    rows_CD = clustered(300)
    asked_ND, rows = queries(rows_CD), Rows(rows_CD, directions)
    s_NC = asked_ND @ (functional.normalize(rows_CD, dim=1) if directions else rows_CD).T
    assert torch.equal(rows.nearest(asked_ND, 7), s_NC.topk(7).indices)
    torch.testing.assert_close(rows.scores(asked_ND, s_NC.topk(7).indices), s_NC.topk(7).values)


def test_every_kind_is_measured_and_what_was_measured_is_json() -> None:
    rows = Rows(clustered(4000), True)
    exam = Exam.set(rows, queries(rows.weight_CD), 100)
    found = {each.about["kind"]: each.about for each in kinds(rows, exam, 0.9)}
    assert list(found) == ["half", "int8", "lists"]
    assert found["half"]["recall"] == 1
    assert found["lists"]["recall"] >= 0.9
    assert 1 <= found["lists"]["probes"] <= found["lists"]["lists"]
    assert all(json.loads(json.dumps(about)) == about and about["ms"] > 0 for about in found.values())


def test_where_lists_do_not_reach_the_recall_every_row_is_asked() -> None:
    rows = Rows(torch.randn(6000, 48, generator=torch.Generator().manual_seed(0)), False)  # without any clusters
    made = build(rows, torch.randn(100, 48, generator=torch.Generator().manual_seed(1)), candidates=20, recall=0.999)
    assert made.about["kind"] in ("half", "int8")
    assert made.about["recall"] >= 0.999


def test_without_queries_the_rows_themselves_are_asked() -> None:
    rows = Rows(clustered(500), True)
    assert build(rows, None, candidates=30).about["recall"] >= 0.99
    assert build(rows, torch.zeros(0, 16), candidates=30).about["recall"] >= 0.99


def test_lists_that_hold_too_few_rows_are_searched_further() -> None:
    rows = Rows(clustered(1000), True)
    exam = Exam.set(rows, queries(rows.weight_CD), 200)
    lists = list(kinds(rows, exam, 0.0))[-1]  # no recall is asked for: one probe does
    assert lists.about["probes"] == 1
    found_BK = lists.candidates(queries(rows.weight_CD, 20))
    assert (found_BK >= 0).all()
    assert all(len(set(row)) == 200 for row in found_BK.tolist())


def test_a_written_index_is_read_with_its_probes(tmp_path: Path) -> None:
    rows = Rows(clustered(1000), True)
    asked_ND = queries(rows.weight_CD)
    for made in kinds(rows, Exam.set(rows, asked_ND, 40), 0.9):
        made.write(tmp_path / index.FILE)
        again = Index.read(tmp_path / index.FILE, made.about)
        assert torch.equal(made.candidates(asked_ND), again.candidates(asked_ND))


def test_another_thread_searches_with_as_many_threads_as_torch_was_told() -> None:
    rows = Rows(clustered(100), True)
    made, threads = build(rows, None, candidates=20), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with ThreadPoolExecutor(1) as other:
            other.submit(made.candidates, rows[:2]).result()
            assert other.submit(faiss.omp_get_max_threads).result() == threads + 1
    finally:
        torch.set_num_threads(threads)
