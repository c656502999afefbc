"""§2.2: Semantics-aware Channel-wise Attention (SACWA): a semantics encoder and a feature selector."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

GATE_REDUCTION = 16  # squeeze-and-excitation's default ([5]); paper silent


class SemanticsEncoder(nn.Module):
    """Two dilated 3x3 convolutions beside the untouched input (Fig. 3); the output has twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilated = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=2, dilation=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=4, dilation=4),
            nn.ReLU(inplace=True),
        )

    def forward(self, o: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        return torch.cat([self.dilated(o), o], dim=1)  # Eq. (4)


class FeatureSelector(nn.Module):
    """Squeeze-and-excitation gate ([5]): one weight in (0, 1) for each channel of each image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // GATE_REDUCTION)
        self.excite = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, u: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c"]:
        return self.excite(u.mean(dim=(2, 3)))


class ChannelAttention(nn.Module):
    """SACWA. Returns the selected features, with twice the channels of the input, and the gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = SemanticsEncoder(channels)
        self.selector = FeatureSelector(2 * channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c2 h w"], Float[Tensor, "b c2"]]:
        u = self.encoder(x)
        gate = self.selector(u)
        return u * gate[:, :, None, None], gate
