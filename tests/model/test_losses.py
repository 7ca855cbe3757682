"""Losses against their definitions."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sicot.model import losses

shapes = st.tuples(st.integers(1, 9), st.integers(2, 12), st.integers(0, 1000))


def draw(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    rows, classes, seed = shape
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.randn(rows, classes, generator=generator), torch.randint(0, classes, (rows,), generator=generator)


@settings(deadline=None, max_examples=30)
@given(shapes)
def test_tau_zero_is_plain_cross_entropy_and_a_flat_prior_changes_nothing(shape: tuple[int, int, int]) -> None:
    z_BC, labels_B = draw(shape)
    plain = functional.cross_entropy(z_BC, labels_B)
    skewed_C, flat_C = torch.randn(shape[1]).log_softmax(0), torch.full((shape[1],), -3.0)
    torch.testing.assert_close(losses.adjusted_cross_entropy(z_BC, labels_B, skewed_C, 0.0), plain)
    torch.testing.assert_close(losses.adjusted_cross_entropy(z_BC, labels_B, flat_C, 1.0), plain)


@settings(deadline=None, max_examples=30)
@given(shapes)
def test_tau_one_is_balanced_softmax(shape: tuple[int, int, int]) -> None:
    z_BC, labels_B = draw(shape)
    prior_C = torch.rand(shape[1]) + 0.01
    weighted_BC = prior_C * z_BC.exp()
    balanced = -(weighted_BC / weighted_BC.sum(1, keepdim=True)).gather(1, labels_B[:, None]).log().mean()
    adjusted = losses.adjusted_cross_entropy(z_BC, labels_B, prior_C.log(), 1.0)
    torch.testing.assert_close(adjusted, balanced, atol=1e-4, rtol=1e-4)


def test_the_prior_makes_the_rare_class_earn_a_larger_push() -> None:
    z_BC, log_prior_C = torch.zeros(2, 2, requires_grad=True), torch.tensor([0.9, 0.1]).log()
    losses.adjusted_cross_entropy(z_BC, torch.tensor([0, 1]), log_prior_C, 1.0).backward()
    assert z_BC.grad is not None
    assert z_BC.grad[1, 1].abs() > 5 * z_BC.grad[0, 0].abs()


def test_distillation_teaches_the_student_alone() -> None:
    teacher_BC, student_BC = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    losses.distillation(teacher_BC, student_BC).backward()
    assert teacher_BC.grad is None
    assert student_BC.grad is not None
    assert losses.distillation(teacher_BC, teacher_BC.detach()).abs() < 1e-6


def test_contrast_rewards_matching_pairs_and_does_not_push_a_class_apart() -> None:
    eye, labels = torch.eye(4), torch.arange(4)
    words = torch.ones(4, dtype=torch.bool)
    matched, mixed_up = (losses.contrast(eye, t, labels, words, 0.1) for t in (eye, eye.roll(1, 0)))
    assert matched < 0.01 < mixed_up
    one_class = losses.contrast(torch.ones(4, 4) / 2, torch.ones(4, 4) / 2, torch.zeros(4), words, 0.1)
    torch.testing.assert_close(one_class, torch.tensor(4.0).log())  # the entropy of four equal positives: the floor
    assert losses.contrast(eye, eye, labels, torch.tensor([True, False, False, False]), 0.1) == 0


def test_hidden_words_come_at_the_asked_rates() -> None:
    torch.manual_seed(0)
    words_BT = torch.ones(4000, 5, dtype=torch.long)
    hidden_BT = losses.hide_words(words_BT, 0.2, 0.3)
    none_B = (hidden_BT == 0).all(1)
    assert abs(none_B.float().mean() - 0.3) < 0.03
    assert abs((hidden_BT[~none_B] == 0).float().mean() - 0.2) < 0.02
    assert torch.equal(losses.hide_words(words_BT, 0, 0), words_BT)


def test_swapped_words_are_the_neighbours_at_the_asked_rate() -> None:
    torch.manual_seed(0)
    words_BT = torch.arange(1, 4001)[:, None].expand(-1, 3)
    swapped_BT, own_B = losses.swap_words(words_BT, 0.2)
    assert abs((~own_B).float().mean() - 0.2) < 0.02
    assert torch.equal(swapped_BT[own_B], words_BT[own_B])
    assert torch.equal(swapped_BT[~own_B], words_BT.roll(1, 0)[~own_B])
    same_BT, all_B = losses.swap_words(words_BT, 0)
    assert torch.equal(same_BT, words_BT)
    assert all_B.all()
