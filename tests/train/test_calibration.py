"""What is fitted on validation: probabilities that mean what they say, and a line below which a product is unknown."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sicot.train import calibration, worker
from sicot.train.loader import collate
from tests.builders import experiment, prepared_set


def test_the_best_temperature_softens_sure_mistakes_and_sharpens_shy_truths() -> None:
    torch.manual_seed(0)
    labels_N = torch.randint(0, 5, (500,))
    z_NC = torch.randn(500, 5) + 2 * torch.nn.functional.one_hot(labels_N, 5)  # drawn so that 1 fits about
    fitted = calibration.best_temperature(z_NC, labels_N)
    assert calibration.best_temperature(4 * z_NC, labels_N) == pytest.approx(4 * fitted, rel=0.07)
    assert calibration.best_temperature(z_NC / 4, labels_N) == pytest.approx(fitted / 4, rel=0.07)


@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 1000))
def test_the_threshold_keeps_the_share_asked_for_of_the_right_answers(rows: int, kept: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    z_NC, labels_N = torch.randn(rows, 4, generator=random), torch.randint(0, 4, (rows,), generator=random)
    threshold = calibration.known_threshold(z_NC, labels_N, kept)
    p_N, top_N = z_NC.softmax(1).max(1)
    right_N = p_N[top_N == labels_N]
    if not len(right_N):
        assert threshold == 0
        return
    assert (right_N >= threshold).double().mean() >= kept - 1e-9
    above = (right_N > threshold).double().mean()  # and it is the highest line that does, short of certainty
    assert threshold == kept or above <= kept + 1 / len(right_N)


def test_the_mean_of_a_class_is_where_its_photos_and_words_lie(tmp_path: Path) -> None:
    data = prepared_set(tmp_path, rows_per_class=30)
    model = worker.build(experiment(tmp_path), data).eval()
    whole = calibration.class_sums(model, data, 16, 0, 1)
    assert whole.shape == (2, 6, 16)
    lengths = whole.norm(dim=2)
    assert (lengths[0, :5] <= 20 + 1e-4).all()  # no more of a frequent class
    assert lengths[0, 5] <= 30 // 4 + 1e-4
    batch = collate(pq.read_table(f"{data.root}/train/00000.parquet"), 8)
    rare = batch.labels_B == 5
    torch.testing.assert_close(whole[0, 5], model.visual(batch.images_BHW3[rare]).sum(0), rtol=1e-3, atol=1e-3)
    halves = sum(calibration.class_sums(model, data, 16, rank, 2) for rank in (0, 1))
    torch.testing.assert_close(halves[:, 5], whole[:, 5], rtol=1e-3, atol=1e-3)  # all ranks see all of a rare class
