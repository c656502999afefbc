"""§2.1: Bi-directional Message Passing (BDMP) and Multi-scale Features Integration (MSFI)."""

from itertools import cycle

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanet.config import Messages, Upsampling
from scanet.model.hourglass import enlarge

LEVELS = 4  # F11 .. F14

Level = Float[Tensor, "b r h w"]


class MessagePassing(nn.Module):
    """BDMP: messages from fine to coarse (Eq. 1), from coarse to fine (Eq. 2), and their fusion (Eq. 3).

    Each arrow of Fig. 2 has a 3x3 convolution of its own (paper silent on sharing H and G: the count of
    parameters assumes this), unless `shared`. F31 .. F34 all have the finest resolution.

    messages: in both directions, or in one alone ("top-down" is from fine to coarse): then the fusion takes F31 ..
    F34 as they are in place of the other's features, which is a control and not the paper's.
    """

    def __init__(self, reduced: int, *, messages: Messages = "both", shared: bool = False) -> None:
        super().__init__()

        def arrows(direction: Messages) -> nn.ModuleList:
            count = (1 if shared else LEVELS - 1) if messages in ("both", direction) else 0
            return nn.ModuleList(nn.Conv2d(reduced, reduced, 3, padding=1) for _ in range(count))

        self.H = arrows("top-down")
        self.G = arrows("bottom-up")
        self.R = nn.ModuleList(nn.Conv2d(2 * reduced, reduced, 1) for _ in range(LEVELS))

    def forward(self, f3: list[Level]) -> list[Level]:
        top_down = [f3[0]] if self.H else f3
        for h, f in zip(cycle(self.H), f3[1:], strict=False):
            top_down.append(f + h(top_down[-1]))  # Eq. (1)
        bottom_up = [f3[-1]] if self.G else f3[::-1]
        for g, f in zip(cycle(self.G), reversed(f3[:-1]), strict=False):
            bottom_up.append(f + g(bottom_up[-1]))  # Eq. (2)
        passes = zip(self.R, top_down, reversed(bottom_up), strict=True)
        return [r(torch.cat([down, up], dim=1)) for r, down, up in passes]  # Eq. (3)


class MultiScaleIntegration(nn.Module):
    """MSFI: reduce F11 .. F14 to an eighth of their channels, bring them to one size, concatenate.

    Args:
        channels: of the hourglass's features (256); the output has half of it (4 x 32 = 128).
        messages: between the levels before they are concatenated, as in `MessagePassing`; "none" leaves BDMP out.
        shared: by the same convolutions at all levels.
        upsampling: of F22 .. F24 (paper silent).
    """

    def __init__(
        self, channels: int, *, messages: Messages, shared: bool = False, upsampling: Upsampling = "nearest"
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        reduced = channels // 8
        self.reduce = nn.ModuleList(nn.Conv2d(channels, reduced, 1) for _ in range(LEVELS))
        self.bdmp = MessagePassing(reduced, messages=messages, shared=shared) if messages != "none" else None

    def forward(self, f1: list[Float[Tensor, "b c ..."]]) -> Float[Tensor, "b half h w"]:
        size = f1[0].shape[-2:]
        f2 = [reduce(f) for reduce, f in zip(self.reduce, f1, strict=True)]
        f3 = [f2[0], *(enlarge(f, size=size, mode=self.upsampling) for f in f2[1:])]
        f4 = f3 if self.bdmp is None else self.bdmp(f3)
        return torch.cat(f4, dim=1)
