"""The stacked hourglass's parts ([4] of the paper; layer by layer as in PHT's models/hg.lua)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

DEPTH = 4  # times that an hourglass halves the resolution: 64 -> 4


def enlarge(x: Float[Tensor, "b c ..."], **how: Any) -> Float[Tensor, "b c ..."]:
    """As `F.interpolate`, in `x`'s number format: CUDA's autocast would make fp32 of it, and of all that follows."""
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, **how)


class Residual(nn.Module):
    """Pre-activation bottleneck: three times normalise, activate, convolve (1x1, 3x3, 1x1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        self.branch = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, middle, 1),
            nn.BatchNorm2d(middle), nn.ReLU(inplace=True), nn.Conv2d(middle, middle, 3, padding=1),
            nn.BatchNorm2d(middle), nn.ReLU(inplace=True), nn.Conv2d(middle, outputs, 1),
        )  # fmt: skip
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.branch(x).add_(self.skip(x))  # in place: no other operation wants the branch's output


class Stem(nn.Sequential):
    """Photograph to features at a quarter of its resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(3, channels // 4, 7, stride=2, padding=3),
            nn.BatchNorm2d(channels // 4),
            nn.ReLU(inplace=True),
            Residual(channels // 4, channels // 2),
            nn.MaxPool2d(2),
            Residual(channels // 2, channels // 2),
            Residual(channels // 2, channels),
        )


class Hourglass(nn.Module):
    """Down and up again through `DEPTH` resolutions, with a skip branch at each.

    Returns the fused features F11 .. F14 of §2.1: the sums of the skip branch and the up-sampled branch, from
    the finest (b, c, h, w) to the coarsest (b, c, h/8, w/8). F11 is what a plain hourglass puts out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skips = nn.ModuleList(Residual(channels, channels) for _ in range(DEPTH))
        self.downs = nn.ModuleList(Residual(channels, channels) for _ in range(DEPTH))
        self.bottom = Residual(channels, channels)
        self.ups = nn.ModuleList(Residual(channels, channels) for _ in range(DEPTH))

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c ..."]]:
        skipped = []
        for skip, down in zip(self.skips, self.downs, strict=True):
            skipped.append(skip(x))
            x = down(F.max_pool2d(x, 2))
        x = self.bottom(x)
        fused: list[Tensor] = []
        for up in self.ups:
            x = skipped.pop().add_(enlarge(up(x), scale_factor=2.0, mode="nearest"))
            fused.insert(0, x)
        return fused
