"""The visual stream: photo → feature on the unit sphere. v = normalise(P · trunk(photo)).

B batch, H height, W width, F features of the trunk, D feature dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sicot.config import Visual as VisualConfig
from sicot.model.vision import torchvision

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchvision's weights expect


def trunks() -> list[str]:
    """Names of all trunks: torchvision's classifiers."""
    return torchvision.models.list_models(module=torchvision.models)


def build_trunk(name: str, size: int) -> tuple[nn.Module, int]:
    """A torchvision classifier without its last layer, and the number of features F it gives.

    Args:
        name: torchvision's name, e.g. ``mobilenet_v2``.
        size: side of the photos, pixels; transformers are built for it.

    Raises:
        ValueError: there is no such classifier, or it has no last layer to take off.
    """
    if name not in trunks():
        raise ValueError(f"model.visual.trunk: no torchvision classifier is called {name!r}")
    sized: dict[str, object] = {"image_size": size} if name.startswith("vit_") else {}
    if name.startswith("maxvit"):
        sized = {"input_size": (size, size)}
    if name in ("googlenet", "inception_v3"):
        sized = {"init_weights": False, "aux_logits": False}
    model = torchvision.models.get_model(name, weights=None, **sized)
    # the classifier's last layer: linear everywhere but in SqueezeNet, which ends in a 1 x 1 convolution
    path, last = [(p, m) for p, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    if not isinstance(last, nn.Linear) and not name.startswith("squeezenet"):
        raise ValueError(f"model.visual.trunk: {name} does not end in a linear layer")
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.Identity())
    return model, int(last.weight.shape[1])


class Visual(nn.Module):
    """Photo → v, on the unit sphere."""

    mean_3: Tensor
    deviation_3: Tensor

    def __init__(self, config: VisualConfig, size: int, dimension: int):
        super().__init__()
        self.trunk, features = build_trunk(config.trunk, size)
        layers = [layer for layer in self.trunk.modules() if layer._parameters or layer._buffers]
        self.kept = layers[: round(config.freeze * len(layers))]
        for parameter in (parameter for layer in self.kept for parameter in layer.parameters(recurse=False)):
            parameter.requires_grad_(False)
        self.freeze = config.freeze == 1
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.Linear(features, dimension)
        self.register_buffer("mean_3", 255 * torch.tensor(MEAN), persistent=False)
        self.register_buffer("deviation_3", 255 * torch.tensor(DEVIATION), persistent=False)

    def train(self, mode: bool = True) -> Visual:
        """Training mode; layers that are kept as they are keep their batch statistics."""
        super().train(mode)
        if self.freeze:
            self.trunk.eval()
        for layer in self.kept:
            layer.training = False
        return self

    def features(self, images_BHW3: Tensor) -> Tensor:
        """What the trunk makes of photos with values 0 … 255 (uint8, or float after augmentation): features_BF."""
        pixels_BHW3 = (images_BHW3.float() - self.mean_3) / self.deviation_3
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            return self.trunk(pixels_BHW3.permute(0, 3, 1, 2))  # a channels_last tensor, without a copy

    def forward(self, images_BHW3: Tensor) -> Tensor:
        """v_BD of photos, channels last in memory, or of features_BF that :meth:`features` made of them earlier."""
        features_BF = images_BHW3 if images_BHW3.ndim == 2 else self.features(images_BHW3)
        return functional.normalize(self.project(self.dropout(features_BF)).float(), dim=-1)
