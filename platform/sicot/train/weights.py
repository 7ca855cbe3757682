"""First weights of the trunk: from a file, or from torchvision by name."""

from __future__ import annotations

import io

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from sicot import storage
from sicot.config import Visual
from sicot.errors import UserError
from sicot.model.vision import torchvision
from sicot.model.visual import Visual as VisualStream


def initialise(visual: VisualStream, config: Visual) -> None:
    """Load ``config.weights`` into the trunk; nothing to do if there are none.

    Raises:
        UserError: no such file or name, or the weights are of another network.
    """
    if config.weights is None:
        return
    state = _read(config.trunk, config.weights)
    wanted = visual.trunk.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise UserError(
            f"model.visual.weights: {config.weights} are not {config.trunk}'s: no {missing[0]} "
            f"({len(missing)} of {len(wanted)} tensors missing)"
        )
    try:  # the last layer, which the trunk does not have, is left out
        visual.trunk.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)
    except RuntimeError as error:
        raise UserError(f"model.visual.weights: {config.weights} do not fit {config.trunk}") from error


def _read(trunk: str, weights: str) -> dict[str, Tensor]:
    if "." not in weights and "/" not in weights:
        try:
            return torchvision.models.get_model(trunk, weights=weights).state_dict()
        except (ValueError, KeyError) as error:
            names = [weight.name for weight in torchvision.models.get_model_weights(trunk)]
            raise UserError(
                f"model.visual.weights: {trunk} has no weights {weights!r} in torchvision; it has {', '.join(names)}, "
                "or name a .pt or .safetensors file"
            ) from error
        except OSError as error:
            raise UserError(f"model.visual.weights: cannot download {trunk} {weights}: {error}; name a file") from error
    try:
        content = storage.read_bytes(weights)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"model.visual.weights: no file at {weights}") from error
    try:
        if weights.endswith(".safetensors"):
            return load_safetensors(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken file makes its reader raise
        raise UserError(f"model.visual.weights: {weights} is not a state dict (.pt or .safetensors)") from error
