"""Random changes to training photos, a whole batch at a time on the batch's own device.

B batch, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from sicot.config import Augment


def augment(images_BHW3: Tensor, config: Augment) -> Tensor:
    """Mirror, zoom, shift and rotate photos in one resampling, then change their light.

    Args:
        images_BHW3: uint8; features_BF of photos, which there is nothing to mirror in, are returned as they are.
        config: ranges; all zero returns the photos as they are.

    Returns:
        float32 photos of the same shape, values 0 … 255; what comes in from outside repeats the border.
    """
    if images_BHW3.ndim == 2:
        return images_BHW3
    n, device = len(images_BHW3), images_BHW3.device

    def spread(width: float) -> Tensor:
        return (torch.rand(n, device=device) * 2 - 1) * width

    x_B3HW = images_BHW3.permute(0, 3, 1, 2).float()
    if config.flip or config.zoom or config.shift or config.rotate:
        mirror = torch.where(torch.rand(n, device=device) < config.flip, -1.0, 1.0)
        angle, scale = spread(math.radians(config.rotate)), 1 / (1 + spread(config.zoom)).clamp(min=0.1)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        # theta maps output to input positions, both in [-1, 1]; a shift is a share of the side, hence the 2
        theta_B23 = torch.stack(
            [
                torch.stack([cos * mirror, -sin, 2 * spread(config.shift)], 1),
                torch.stack([sin * mirror, cos, 2 * spread(config.shift)], 1),
            ],
            1,
        )
        grid = functional.affine_grid(theta_B23, list(x_B3HW.shape), align_corners=False)
        x_B3HW = functional.grid_sample(x_B3HW, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if config.light:
        brightness, contrast = (
            (1 + spread(config.light))[:, None, None, None],
            (1 + spread(config.light))[:, None, None, None],
        )
        mean_B111 = x_B3HW.mean((1, 2, 3), keepdim=True)
        x_B3HW = ((x_B3HW - mean_B111) * contrast + mean_B111 * brightness).clamp(0, 255)
    return x_B3HW.permute(0, 2, 3, 1)
