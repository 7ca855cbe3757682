"""The ladder's rungs: each a change to the settings, all else equal.

Rungs 2 to 6 stand twice: with the MLP that co-training is usually drawn with, and with the plain sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sicot.config import Model
from sicot.model.classifier import Classifier
from sicot.model.recognizer import SICoT

BARE: dict[str, Any] = {"text": 0.0, "tau": 0.0}
VISUAL: dict[str, Any] = {"visual": 1.0, "mixed": 0.0, "text": 0.0, "distill": 0.0, "contrast": 0.0}


TWO = "two classifiers"


def rungs(model: Model) -> dict[str, Model]:
    """Models by rung; ``model`` is the shipped one, `default`."""
    built = {
        "0 visual, CE": change(model, loss={**VISUAL, "tau": 0.0}),
        "1 visual, logit-adjusted": change(model, loss=VISUAL),
    }
    for fusion in ("mlp", "sum"):
        mean = {"kind": "mean"}
        built |= {
            f"2 mean of words, {TWO}, {fusion}": change(model, fusion=fusion, attention=mean, loss=BARE),
            f"3 mean of words, {fusion}": change(model, fusion=fusion, attention=mean, loss=BARE),
            f"4 linear attention, {fusion}": change(model, fusion=fusion, attention={"kind": "linear"}, loss=BARE),
            f"5 bilinear attention, {fusion}": change(model, fusion=fusion, attention={"kind": "bilinear"}, loss=BARE),
            f"6 bilinear, logit-adjusted, {fusion}": change(
                model, fusion=fusion, attention={"kind": "bilinear"}, loss={"text": 0.0, "tau": 1.0}
            ),
        }
    return {**built, "default": model}


class TwoClassifiers(SICoT):
    """The mixed stream with a classifier of its own; cross-entropy of both streams."""

    def __init__(self, config: Model, size: int, log_prior_C: Tensor, vectors_VE: Tensor, idf_V: Tensor):
        super().__init__(config, size, log_prior_C, vectors_VE, idf_V)
        self.mixed = Classifier(config.classifier, len(log_prior_C), config.dimension, config.scale)

    def forward(self, images_BHW3: Tensor, words_BT: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        v_BD = self.visual(images_BHW3)
        m_BD, _, _ = self.noisy_streams(v_BD, words_BT)
        z_v_BC, z_m_BC = self.classifier(v_BD), self.mixed(m_BD)
        parts = {"visual": self._cross_entropy(z_v_BC, labels_B), "mixed": self._cross_entropy(z_m_BC, labels_B)}
        return {"loss": parts["visual"] + parts["mixed"], **parts}

    def answer(self, v_BD: Tensor | None, words_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if words_BT is None:
            return super().answer(v_BD, None)
        return self._mixed(v_BD, words_BT), None

    def _mixed(self, v_BD: Tensor | None, words_BT: Tensor) -> Tensor:
        t_BD, _ = self.semantic(words_BT, v_BD)
        v_BD = torch.zeros_like(t_BD) if v_BD is None else v_BD
        return self.mixed(self.fusion(v_BD, t_BD, (words_BT > 0).any(1, keepdim=True)))


def change(model: Model, **changes: Any) -> Model:
    """The model's settings with some of them changed, sections by their fields."""
    settings = model.model_dump()
    for name, value in changes.items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    return Model(**settings)
