"""The sharded classifier: whatever the number of ranks, it is one classifier, and at full rate plain cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from sicot.model import sharded
from sicot.model.rows import OPTIMISERS, At, RowOptimiser
from sicot.model.sampling import draw
from sicot.model.sharded import ShardedClassifier, bounds, initial_rows
from tests.model.ranks import Ranks


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    pool = Ranks(4)
    yield pool
    pool.stop()


class Descent(RowOptimiser):
    """w ← w - g at rate 1: tells the gradient."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def update(self, rows_RD: Tensor, at: At, gradient_KD: Tensor, learning_rate: float, batch: int) -> None:
        rows_RD[at] -= learning_rate * gradient_KD


class Case:
    """A batch, its rows dealt to the ranks somehow."""

    def __init__(self, seed: int, classes: int, dimension: int, streams: int, sizes: list[int], kind: str):
        random = np.random.default_rng(seed)
        tensor = lambda *shape: torch.from_numpy(random.standard_normal(shape))  # noqa: E731
        rows = sum(sizes)
        self.kind, self.sizes, self.distill = kind, sizes, 0.7 if streams > 1 else 0.0
        self.rows_CD, self.x_NSD = tensor(classes, dimension), 3 * tensor(rows, streams, dimension)
        self.log_prior_C = tensor(classes).log_softmax(0)
        self.labels_N = torch.from_numpy(random.integers(0, classes, rows))
        self.counts_NS = torch.from_numpy(random.integers(0, 2, (rows, streams))).double()
        self.counts_NS[:, 0] = 1
        self.weights_S = torch.from_numpy(random.uniform(0.2, 2, streams))

    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, gradient of x and of the rows, by plain cross-entropy."""
        rows_CD, x_NSD = self.rows_CD.clone().requires_grad_(), self.x_NSD.clone().requires_grad_()
        unit_CD = functional.normalize(rows_CD, dim=1) if self.kind == "cosine" else rows_CD
        z_NSC = x_NSD @ unit_CD.T + self.log_prior_C
        labels_NS = self.labels_N[:, None].expand(self.counts_NS.shape)
        each_NS = functional.cross_entropy(z_NSC.transpose(1, 2), labels_NS, reduction="none")
        share_NS = self.counts_NS / self.counts_NS.sum(0).clamp(min=1)
        loss = (self.weights_S * (share_NS * each_NS).sum(0)).sum()
        if self.distill:
            student, teacher = z_NSC[:, 0].log_softmax(1), z_NSC[:, 1].detach().log_softmax(1)
            loss = loss + self.distill * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
        loss.backward()
        return loss.detach(), x_NSD.grad, rows_CD.grad  # type: ignore[return-value]


def learn(rank: int, world: int, case: Case, sampled: int) -> tuple[Tensor, Tensor, Tensor]:
    """One rank's loss, gradient of its x and of its rows."""
    first, end = bounds(len(case.rows_CD), rank, world)
    rows_RD = case.rows_CD[first:end].clone()
    classifier = ShardedClassifier(
        rows_RD, case.log_prior_C, Descent(), kind=case.kind, sampled=sampled, rank=rank, world=world
    )
    begin = sum(case.sizes[:rank])
    mine = slice(begin, begin + case.sizes[rank])
    x_BSD = case.x_NSD[mine].clone().requires_grad_()
    loss, _ = classifier.loss(x_BSD, case.labels_N[mine], case.weights_S, case.counts_NS[mine], case.distill)
    loss.backward()
    classifier.step(1.0)
    return loss.detach(), x_BSD.grad / world, case.rows_CD[first:end] - rows_RD  # type: ignore[operator]


cases = st.builds(
    Case,
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 40),  # with four ranks, some have no class at all
    dimension=st.integers(1, 9),
    streams=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    kind=st.sampled_from(["cosine", "linear"]),
)
slow = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(max_examples=100, deadline=None)
@given(case=cases)
def test_one_rank_with_all_rows_is_plain_cross_entropy(case: Case) -> None:
    case.sizes = [sum(case.sizes)]
    for said, wanted in zip(learn(0, 1, case, 0), case.whole(), strict=True):
        torch.testing.assert_close(said, wanted, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("world", [2, 4])
@slow
@given(case=cases)
def test_several_ranks_are_one_classifier(ranks: Ranks, world: int, case: Case) -> None:
    case.sizes = case.sizes if world == 4 else [sum(case.sizes[:3]), case.sizes[3]]
    loss, x_NSD, rows_CD = case.whole()
    answers = ranks.run(world, learn, case, 0)
    for said in answers:
        torch.testing.assert_close(said[0], loss, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(torch.cat([said[1] for said in answers]), x_NSD, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(torch.cat([said[2] for said in answers]), rows_CD, atol=1e-9, rtol=1e-9)


@slow
@given(case=cases)
def test_a_rank_without_rows_of_its_own_in_the_batch_takes_part(ranks: Ranks, case: Case) -> None:
    case.sizes = [0, sum(case.sizes)]
    loss, x_NSD, _ = case.whole()
    empty, full = ranks.run(2, learn, case, 0)
    assert empty[1].shape[0] == 0
    torch.testing.assert_close(full[1], x_NSD, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(empty[0], loss, atol=1e-9, rtol=1e-9)


def test_many_blocks_are_one_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "BLOCK", 7)
    case = Case(0, 40, 6, 3, [9], "cosine")
    for said, wanted in zip(learn(0, 1, case, 0), case.whole(), strict=True):
        torch.testing.assert_close(said, wanted, atol=1e-9, rtol=1e-9)


# ---------------------------------------------------------------- sampling


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), total=st.integers(1, 200), others=st.integers(1, 220), data=st.data())
def test_a_draw_holds_the_batch_and_as_many_others_as_asked(seed: int, total: int, others: int, data: Any) -> None:
    met = torch.tensor(sorted(data.draw(st.sets(st.integers(0, total - 1)))), dtype=torch.long)
    torch.manual_seed(seed)
    drawn = draw(met, total, others)
    assert set(met.tolist()) <= set(drawn.tolist()) <= set(range(total))
    assert torch.equal(drawn, drawn.unique())
    assert len(drawn) == min(total, len(met) + others)


def test_every_other_class_is_drawn_as_often() -> None:
    torch.manual_seed(0)
    met, often = torch.tensor([3, 17]), torch.zeros(40)
    for _ in range(4000):
        often[draw(met, 40, 8)] += 1
    assert often[met].tolist() == [4000, 4000]
    others = torch.cat([often[:3], often[4:17], often[18:]])
    assert (others / 4000 - 8 / 38).abs().max() < 0.03


def test_the_sampled_partition_estimates_that_of_all_classes() -> None:
    """e^loss is the partition over the truth's e^z: linear in what was drawn, so its mean must be right."""
    case = Case(1, 400, 8, 1, [1], "cosine")
    case.x_NSD, case.log_prior_C = case.x_NSD / 10, torch.zeros(400, dtype=torch.double)  # no term rules the others
    whole = float(case.whole()[0].exp())
    torch.manual_seed(0)
    estimates = torch.stack([learn(0, 1, case, 60)[0].exp() for _ in range(2000)])
    assert abs(float(estimates.mean()) / whole - 1) < 0.05


def test_only_rows_in_use_move() -> None:
    case = Case(2, 300, 8, 2, [4], "cosine")
    torch.manual_seed(0)
    moved = (learn(0, 1, case, 20)[2].abs().sum(1) > 0).nonzero()[:, 0]
    assert set(case.labels_N.tolist()) <= set(moved.tolist())
    assert len(moved) == 20


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_finds_the_classes_of_a_separable_set(name: str) -> None:
    torch.manual_seed(0)
    classes, dimension = 200, 16
    centres_CD = functional.normalize(torch.randn(classes, dimension), dim=1)
    rows_RD = initial_rows(classes, dimension, 0, 1, 0)
    classifier = ShardedClassifier(rows_RD, torch.zeros(classes), OPTIMISERS[name](rows_RD), sampled=60)
    for _ in range(300):
        labels_B = torch.randint(classes, (64,))
        x_B1D = 16 * functional.normalize(centres_CD[labels_B] + 0.1 * torch.randn(64, dimension), dim=1)[:, None]
        classifier.loss(x_B1D.requires_grad_(), labels_B, torch.ones(1), torch.ones(64, 1))
        classifier.step(0.1 if name == "adagrad" else 1.0)
    _, best_C1 = classifier.top(16 * centres_CD, 1)
    assert (best_C1[:, 0] == torch.arange(classes)).float().mean() > 0.95


# ---------------------------------------------------------------- answers, and rows beside rows


def answer(rank: int, world: int, case: Case, k: int) -> tuple[Tensor, Tensor, Tensor]:
    first, end = bounds(len(case.rows_CD), rank, world)
    classifier = ShardedClassifier(case.rows_CD[first:end], case.log_prior_C, Descent(), rank=rank, world=world)
    begin = sum(case.sizes[:rank])
    mine = slice(begin, begin + case.sizes[rank])
    sums_RD = torch.zeros(end - first, case.rows_CD.shape[1], dtype=torch.double)
    classifier.add(sums_RD, case.x_NSD[mine, 0], case.labels_N[mine])
    return (*classifier.top(case.x_NSD[mine, 0], k), sums_RD)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_answer_as_one(ranks: Ranks, world: int) -> None:
    case = Case(3, 30, 8, 1, [3, 0, 4, 2][:world], "cosine")
    z_NC = case.x_NSD[:, 0] @ functional.normalize(case.rows_CD, dim=1).T
    wanted = z_NC.topk(12, 1)
    answers = ranks.run(world, answer, case, 12)
    torch.testing.assert_close(torch.cat([said[0] for said in answers]), wanted.values)
    assert torch.equal(torch.cat([said[1] for said in answers]), wanted.indices)
    sums_CD = torch.zeros_like(case.rows_CD).index_add_(0, case.labels_N, case.x_NSD[:, 0])
    torch.testing.assert_close(torch.cat([said[2] for said in answers]), sums_CD)


def test_first_rows_are_the_same_for_any_number_of_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "BLOCK", 10)
    whole = initial_rows(37, 4, 0, 1, seed=5)
    for world in (2, 3, 5):
        parts = [initial_rows(37, 4, rank, world, seed=5) for rank in range(world)]
        assert torch.equal(torch.cat(parts), whole)
