"""Imprinted rows: what they are made of, and how they share with the trained classes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sicot import config
from sicot.model.imprint import log_odds, mean_direction
from sicot.model.recognizer import SICoT

D = 8


def model(classes: int, seed: int = 0, **of: object) -> SICoT:
    torch.manual_seed(seed)
    settings = config.Model(dimension=D, visual=config.Visual(trunk="squeezenet1_1"), **of)  # type: ignore[arg-type]
    made = SICoT(settings, 32, torch.zeros(classes), torch.randn(5, 6), torch.ones(5)).eval()
    made.means_2CD = torch.nn.functional.normalize(torch.randn(2, classes, D), dim=2)
    return made


def odds(made: SICoT, rows_2ED: torch.Tensor, regime: str, temperature: float = 1.0) -> torch.Tensor:
    v_BD = torch.nn.functional.normalize(torch.randn(3, D, generator=torch.Generator().manual_seed(1)), dim=1)
    words_BT = torch.tensor([[1, 2], [3, 0], [4, 1]])
    asked = {"image": (v_BD, None), "image_text": (v_BD, words_BT), "text": (None, words_BT)}[regime]
    with torch.inference_mode():
        return log_odds(made, rows_2ED, regime, temperature, *asked, made.feature(*asked)[0])


@given(st.integers(1, 6), st.integers(0, 100))
def test_a_row_is_a_direction_that_neither_order_nor_length_of_features_changes(rows: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x_MD = torch.randn(rows, D, generator=random)
    row_D = mean_direction(x_MD)
    assert float(row_D.norm()) == pytest.approx(1, abs=1e-5)
    other_MD = x_MD.flip(0) * torch.rand(rows, 1, generator=random).add(0.1)
    torch.testing.assert_close(mean_direction(other_MD), row_D, rtol=1e-4, atol=1e-5)
    assert not mean_direction(x_MD[:0]).any()


@pytest.mark.parametrize("regime", ["image", "image_text", "text"])
@pytest.mark.parametrize("fusion", ["sum", "mlp", "gate"])
def test_a_class_that_looks_like_the_only_known_one_shares_with_it_equally(regime: str, fusion: str) -> None:
    made = model(1, fusion=fusion)
    torch.testing.assert_close(odds(made, made.means_2CD.clone(), regime), torch.zeros(3, 1))


@pytest.mark.parametrize("regime", ["image", "image_text", "text"])
def test_the_copy_of_a_known_class_gets_what_the_means_give_that_class(regime: str) -> None:
    made = model(4)
    told_BE = odds(made, made.means_2CD[:, 1:3].clone(), regime, temperature=0.7)
    p_BE = told_BE.exp()  # against all four known ones
    assert (p_BE < 1).all()
    every_BC = odds(made, made.means_2CD.clone(), regime, temperature=0.7).exp()
    torch.testing.assert_close(every_BC.sum(1), torch.ones(3))
    torch.testing.assert_close(p_BE, every_BC[:, 1:3])


def test_a_class_answers_only_where_it_was_given_something_to_compare() -> None:
    made = model(4)
    rows_2ED = made.means_2CD.clone()
    rows_2ED[1, 0] = 0  # photos alone
    rows_2ED[0, 1] = 0  # words alone
    image, both, text = (odds(made, rows_2ED, regime) for regime in ("image", "image_text", "text"))
    assert (image[:, 1] == float("-inf")).all()
    assert (text[:, 0] == float("-inf")).all()
    torch.testing.assert_close(both[:, 0], image[:, 0])
    torch.testing.assert_close(both[:, 1], text[:, 1])
    assert torch.isfinite(both).all()
