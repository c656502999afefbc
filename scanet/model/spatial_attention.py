"""§2.3: Sharper Spatial Attention (SSA), and the soft attention that it is compared with.

The softmax of 64 x 64 logits has values near 1/4096, which is what §2.3 complains of. Eq. (5) stretches them to
[0, 1] and Eq. (6)-(9) read each value as the probability of a relaxed Bernoulli draw. From the logits on everything
runs in fp32, also under autocast, and is finite for every tau > 0, for probabilities that are exactly 0 or 1 and for
constant maps; the paper avoided tau < 1.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanet.config import Attention, TestMap

Map = Float[Tensor, "b 1 h w"]

#: Eq. (5) reaches 0 and 1 exactly, where Eq. (6)'s logarithm is infinite: our clamp.
PROBABILITY_FLOOR = 1e-6
#: Noise values in `mean_map`: within 0.002 of the expectation from tau = 1 on, within 0.01 below.
QUANTILES = 64
#: Maps whose logits differ by less have no Eq. (5): they get one half everywhere.
FLAT = 1e-6


def soft_attention(logits: Map) -> Map:
    """The initial map f of §2.3: a softmax over all positions of each image; sums to 1."""
    return logits.float().flatten(1).softmax(dim=1).view_as(logits)


def normalise(logits: Map) -> Map:
    """Eq. (5) of the softmax map, in [0, 1], straight from the logits.

    With f = softmax(a), (f - min f) / (max f - min f) is
    exp(a - max a) * (1 - exp(min a - a)) / (1 - exp(min a - max a)): the tiny values of f are never formed.
    """
    a = logits.float()
    high, low = a.amax(dim=(2, 3), keepdim=True), a.amin(dim=(2, 3), keepdim=True)
    spread = (high - low).clamp(min=FLAT)
    p = torch.exp(a - high) * torch.expm1(low - a) / torch.expm1(-spread)  # Eq. (5)
    return torch.where(high - low < FLAT, 0.5, p)


def sharpen(p: Map, tau: float, noise: Map | Float[Tensor, ""] | None = None) -> Map:
    """Eq. (9) for two classes is a sigmoid: sigmoid((log p1 - log p0 + g1 - g0) / tau).

    Args:
        p: probabilities in [0, 1], Eq. (6).
        noise: g1 - g0, see `gumbel_difference`; None leaves the noise out, and tau = 1 then returns p.
    """
    logit = torch.logit(p.float(), eps=PROBABILITY_FLOOR)  # Eq. (6): log p1 - log p0
    if noise is not None:
        logit = logit + noise
    return torch.sigmoid(logit / tau)  # Eq. (9)


def mean_map(p: Map, tau: float) -> Map:
    """The expectation of the noisy map: `sharpen` averaged over the logistic distribution's quantiles.

    It is not the noise-free map: at tau = 1, p = 0.9 averages 0.816 and p = 0.01 averages 0.037.
    """
    middles = (torch.arange(QUANTILES, device=p.device) + 0.5) / QUANTILES
    return torch.stack([sharpen(p, tau, noise) for noise in torch.logit(middles)]).mean(dim=0)


def gumbel_difference(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """g1 - g0 of two independent Gumbel(0, 1) draws (Eq. 8): a standard logistic draw, on the generator's device."""
    u = torch.rand(*shape, generator=generator, device=generator.device)
    return torch.logit(u, eps=1e-7)


class UnroundedConv2d(nn.Conv2d):
    """A convolution in its weights' own number format, also under autocast."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class SpatialAttention(nn.Module):
    """SSA (`kind` "sharper"), the soft attention of Fig. 4 (`kind` "soft"), or one of two controls between them.

    "rescaled" is the soft map times its number of cells, so that its values are near 1 and no longer near 0.
    "stretched" is Eq. (5) alone, without the sampling of Eq. (6)-(9).

    The attended feature is the input times the map and goes straight into the next convolution: a normalisation
    or a `skip` between them would undo the effect on gradients that §2.3 describes. test_map: what SSA does without
    noise in evaluation mode.
    """

    def __init__(
        self, channels: int, kind: Attention, tau: float, *, skip: bool = False, test_map: TestMap = "noise-free"
    ) -> None:
        super().__init__()
        self.kind = kind
        self.tau = tau
        self.skip = skip
        self.test_map = test_map
        # The last gives what Eq. (5) and the softmax start from. In a trained network many cells come within a
        # thousandth of the highest, which bf16 does not resolve: they would share the maximum, where Eq. (5) is
        # exactly 1 and the clamp of Eq. (6) passes no gradient.
        self.generator = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True), UnroundedConv2d(channels, 1, 1)
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], noise: Map | None = None
    ) -> tuple[Float[Tensor, "b c h w"], dict[str, Map]]:
        """The attended features, and the maps by name: `logits`, `attention` and, for SSA, `probability`."""
        logits = self.generator(x)
        maps = {"logits": logits}
        if self.kind == "soft":
            attention = soft_attention(logits)
        elif self.kind == "rescaled":
            attention = soft_attention(logits) * logits[0].numel()
        elif self.kind == "stretched":
            attention = normalise(logits)
        elif self.kind == "sharper":
            maps["probability"] = probability = normalise(logits)
            averaged = self.test_map == "mean" and noise is None and not self.training
            attention = mean_map(probability, self.tau) if averaged else sharpen(probability, self.tau, noise)
        else:
            raise ValueError(f"SpatialAttention knows sharper, soft, rescaled and stretched, not {self.kind!r}")
        attended = x * attention.to(x.dtype)
        return (x + attended if self.skip else attended), maps | {"attention": attention}
