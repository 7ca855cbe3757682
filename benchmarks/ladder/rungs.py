"""The ladder's rungs: each a change to the settings, all else equal.

Rungs 2 to 6 stand twice: with the MLP that co-training is usually drawn with, and with the plain sum.
"""

from __future__ import annotations

from typing import Any

from sicot.config import Model

BARE: dict[str, Any] = {"text": 0.0, "tau": 0.0}
VISUAL: dict[str, Any] = {"visual": 1.0, "mixed": 0.0, "text": 0.0, "distill": 0.0, "contrast": 0.0}


def rungs(model: Model) -> dict[str, Model]:
    """Models by rung; ``model`` is the shipped one, `default`."""
    built = {
        "0 visual, CE": change(model, loss={**VISUAL, "tau": 0.0}),
        "1 visual, logit-adjusted": change(model, loss=VISUAL),
    }
    for fusion in ("mlp", "sum"):
        mean = {"kind": "mean"}
        built |= {
            f"2 mean of words, two classifiers, {fusion}": change(
                model, fusion=fusion, shared=False, attention=mean, loss=BARE
            ),
            f"3 mean of words, {fusion}": change(model, fusion=fusion, attention=mean, loss=BARE),
            f"4 linear attention, {fusion}": change(model, fusion=fusion, attention={"kind": "linear"}, loss=BARE),
            f"5 bilinear attention, {fusion}": change(model, fusion=fusion, attention={"kind": "bilinear"}, loss=BARE),
            f"6 bilinear, logit-adjusted, {fusion}": change(
                model, fusion=fusion, attention={"kind": "bilinear"}, loss={"text": 0.0, "tau": 1.0}
            ),
        }
    return {**built, "default": model}


def change(model: Model, **changes: Any) -> Model:
    """The model's settings with some of them changed, sections by their fields."""
    settings = model.model_dump()
    for name, value in changes.items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    return Model(**settings)
