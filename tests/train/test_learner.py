"""A training step and what surrounds it."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from sicot import config
from sicot.model.recognizer import SICoT
from sicot.train.augment import augment
from sicot.train.learner import Learner, parameter_groups, warmup_cosine
from sicot.train.loader import Batch

NONE = config.Augment(flip=0, zoom=0, shift=0, rotate=0, light=0)


def model() -> SICoT:
    torch.manual_seed(0)
    chances = {"word_dropout": 0, "text_dropout": 0, "text_swap": 0, "image_dropout": 0}
    settings = config.Model(dimension=8, visual=config.Visual(trunk="squeezenet1_1"), **chances)
    made = SICoT(settings, 32, torch.zeros(4), torch.randn(9, 5), torch.ones(9))
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return made


def batch(rows: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randint(0, 256, (rows, 32, 32, 3), dtype=torch.uint8, generator=generator),
        torch.randint(1, 9, (rows, 3), generator=generator),
        torch.arange(rows) % 4,
    )


def settings(**values: object) -> config.Train:
    return config.Train(**{"precision": "fp32", "augment": NONE, "clip": 0, "warmup": 0, **values})  # type: ignore[arg-type]


def test_two_accumulated_halves_move_the_weights_like_one_whole() -> None:
    whole, halves = batch(8), batch(8)
    one = Learner(settings(), model(), 4, torch.device("cpu"))
    two = Learner(settings(accumulate=2), model(), 4, torch.device("cpu"))
    one.step(whole)
    for part in (slice(0, 4), slice(4, 8)):
        two.step(Batch(halves.images_BHW3[part], halves.words_BT[part], halves.labels_B[part]))
    for (name, a), b in zip(one.model.named_parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3, msg=name)


def test_a_restored_learner_goes_on_as_if_nothing_had_happened() -> None:
    first = Learner(settings(ema=0.9), model(), 6, torch.device("cpu"))
    for seed in range(3):
        first.step(batch(8, seed))
    second = Learner(settings(ema=0.9), model(), 6, torch.device("cpu"))
    second.restore(copy.deepcopy(first.state()))  # as a file would
    for seed in range(3, 6):
        first.step(batch(8, seed))
        second.step(batch(8, seed))
    for (name, a), b in zip(first.kept.state_dict().items(), second.kept.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_averaged_weights_lag_behind_and_are_the_ones_kept() -> None:
    learner = Learner(settings(ema=0.99), model(), 10, torch.device("cpu"))
    for seed in range(5):
        learner.step(batch(8, seed))
    assert learner.kept is not learner.model
    assert not torch.allclose(learner.kept.classifier.weight, learner.model.classifier.weight)


def test_bf16_learns_the_same_direction() -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        learner = Learner(settings(precision=precision), model(), 30, torch.device("cpu"))
        losses.append([float(learner.step(batch(8))["loss"]) for _ in range(6)])
    assert losses[1][-1] < losses[1][0]
    assert abs(losses[0][0] - losses[1][0]) < 0.05 * losses[0][0]


def test_every_parameter_is_in_one_group_at_its_rate() -> None:
    made = model()
    groups = parameter_groups(settings(learning_rate=0.01, trunk_rate=0.1, word_rate=2.0, weight_decay=0.3), made)
    grouped = {id(p): group for group in groups for p in group["params"]}
    assert len(grouped) == sum(len(group["params"]) for group in groups) == len(list(made.parameters()))
    assert grouped[id(made.visual.trunk.features[0].weight)]["lr"] == pytest.approx(0.001)  # type: ignore[union-attr, index]
    assert grouped[id(made.semantic.vectors.weight)]["lr"] == pytest.approx(0.02)
    assert grouped[id(made.classifier.weight)]["weight_decay"] == 0.3
    assert grouped[id(made.classifier.log_scale)]["weight_decay"] == 0.0


def test_the_rate_climbs_then_falls_to_zero() -> None:
    rates = [warmup_cosine(move, 100, 0.1) for move in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.0)
    assert all(math.isfinite(warmup_cosine(0, moves, 0.05)) for moves in (1, 2, 3))


def test_augmentation_with_all_ranges_zero_changes_nothing() -> None:
    images_BHW3 = batch(3).images_BHW3
    torch.testing.assert_close(augment(images_BHW3, NONE), images_BHW3.float())


def test_a_sure_flip_mirrors_and_a_second_one_mirrors_back() -> None:
    flip = NONE.model_copy(update={"flip": 1.0})
    images_BHW3 = batch(2).images_BHW3
    torch.testing.assert_close(augment(images_BHW3, flip), images_BHW3.flip(2).float(), atol=1e-2, rtol=1e-3)


def test_augmented_photos_stay_photos() -> None:
    torch.manual_seed(0)
    out_BHW3 = augment(batch(16).images_BHW3, config.Augment(zoom=0.5, shift=0.3, rotate=45, light=0.5))
    assert out_BHW3.shape == (16, 32, 32, 3)
    assert out_BHW3.min() >= 0
    assert out_BHW3.max() <= 255
    assert len({float(image.mean()) for image in out_BHW3}) == 16  # each photo its own way
