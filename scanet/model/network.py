"""The whole network (Fig. 2): stacked hourglasses, each followed by MSFI, BDMP, SACWA and SSA."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scanet.config import STRIDE, Network
from scanet.model.channel_attention import ChannelAttention, SemanticsEncoder
from scanet.model.hourglass import Hourglass, Residual, Stem
from scanet.model.message_passing import MultiScaleIntegration
from scanet.model.spatial_attention import SpatialAttention, gumbel_difference

Features = Float[Tensor, "b c h w"]
Intermediates = dict[str, Tensor]


class Stack(nn.Module):
    """One hourglass with the paper's modules and its output layers.

    Order (our reading of §2 and §2.3): hourglass, MSFI with or without BDMP, SACWA, a residual block, the
    hourglass's own output layers (residual, 1x1 convolution), SSA, heat-map convolution. With `attention_place`
    "features", SSA comes before the output layers (§2's "sequentially").
    """

    def __init__(self, config: Network) -> None:
        super().__init__()
        channels, row = config.channels, config.row
        self.hourglass = Hourglass(channels)
        integration = partial(MultiScaleIntegration, shared=config.shared_messages, upsampling=config.upsampling)
        self.msfi = integration(channels, messages=row.messages) if row.msfi else None
        self.sacwa = (ChannelAttention if row.gate else SemanticsEncoder)(channels // 2) if row.sacwa else None
        # 128 channels become 256 again: SACWA's concatenation does it, else a 1x1 convolution.
        self.widen = nn.Conv2d(channels // 2, channels, 1) if row.msfi and not row.sacwa else None
        self.refine = Residual(channels, channels) if row.msfi or row.block else None
        self.output = nn.Sequential(
            Residual(channels, channels),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.attend_first = config.attention_place == "features"
        self.ssa = (
            None
            if row.attention == "none"
            else SpatialAttention(
                channels, row.attention, config.tau, skip=config.attention_skip, test_map=config.test_map
            )
        )
        self.heatmap = nn.Conv2d(channels, config.joints, 1)
        if config.heatmap_std is not None:
            nn.init.normal_(self.heatmap.weight, std=config.heatmap_std)
            nn.init.zeros_(self.heatmap.bias)  # type: ignore[arg-type]

    def forward(
        self, x: Features, noise: Float[Tensor, "b 1 h w"] | None
    ) -> tuple[Float[Tensor, "b j h w"], Features, Intermediates]:
        """The stack's heat maps, the features that they were read from, and its intermediates by name."""
        fused = self.hourglass(x)
        out: Intermediates = {f"F1{i}": f for i, f in enumerate(fused, start=1)}
        features = fused[0]
        if self.msfi is not None:
            out["integrated"] = features = self.msfi(fused)
        if isinstance(self.sacwa, ChannelAttention):
            features, out["gate"] = self.sacwa(features)
        elif self.sacwa is not None:
            features = self.sacwa(features)
        if self.widen is not None:
            features = self.widen(features)
        if self.refine is not None:
            features = self.refine(features)
        if not self.attend_first:
            features = self.output(features)
        if self.ssa is not None:
            features, maps = self.ssa(features, noise)
            out |= maps
        if self.attend_first:
            features = self.output(features)
        return self.heatmap(features), features, out


class SCANet(nn.Module):
    """`heatmaps, out = model(images)`.

    images: (b, 3, s, s), RGB in [0, 1] less one half. noise: (b, stacks, s/4, s/4) of `draw_noise`, in training; None
    for the noise-free attention that testing uses (paper silent).
    heatmaps: (b, stacks, joints, s/4, s/4), the target being 1 at a joint. out: for each stack the intermediates that
    the row has, by name: F11 .. F14 (b, c, s/4, s/4) .. (b, c, s/32, s/32) with c channels, integrated (b, c/2, s/4,
    s/4), gate (b, c), and logits, probability, attention (b, 1, s/4, s/4).

    Raises ValueError if the images' width is no multiple of 64.
    """

    def __init__(self, config: Network) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.stem = Stem(channels)
        self.stacks = nn.ModuleList(Stack(config) for _ in range(config.stacks))
        remaps = range(config.stacks - 1)
        self.remap_features = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in remaps)
        self.remap_heatmaps = nn.ModuleList(nn.Conv2d(config.joints, channels, 1) for _ in remaps)

    def draw_noise(
        self, batch_size: int, input_size: int, generator: torch.Generator
    ) -> Float[Tensor, "b stacks h w"]:
        """Eq. (8)'s noise for every cell of every stack's map, on the generator's device."""
        cells = input_size // STRIDE
        return gumbel_difference((batch_size, len(self.stacks), cells, cells), generator)

    def forward(
        self, images: Float[Tensor, "b 3 s s"], noise: Float[Tensor, "b stacks h w"] | None = None
    ) -> tuple[Float[Tensor, "b stacks j h w"], list[Intermediates]]:
        if images.shape[-1] % 64:  # the stem halves twice, the hourglass four times
            raise ValueError(f"images of {tuple(images.shape[-2:])} pixels: give multiples of 64")
        x = self.stem(images)
        heatmaps, outs = [], []
        for i, stack in enumerate(self.stacks):
            heatmap, features, out = stack(x, None if noise is None else noise[:, i : i + 1])
            heatmaps.append(heatmap)
            outs.append(out)
            if i < len(self.stacks) - 1:
                x = self.remap_features[i](features).add_(x).add_(self.remap_heatmaps[i](heatmap))
        return torch.stack(heatmaps, dim=1), outs
