"""Targets, and their inverse: heat maps to positions. One coupled convention, unbiased both ways.

Positions are edge coordinates in heat-map cells (see `scanet.skeleton`): cell k has its centre at k + 0.5.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from scanet.config import Target

WINDOW = 3.5  # cells on either side of the peak: PHT's Gaussian is 7 x 7


def draw_targets(
    positions: Float[Tensor, "b j 2"], size: int, sigma: float, target: Target
) -> Float[Tensor, "b j size size"]:
    """A 7 x 7 Gaussian of peak 1 at every joint, drawn after augmentation (PHT; its sigma is 1.75 cells).

    A joint that is NaN or outside the map leaves an all-zero map, which is a target like any other (PHT).
    target: "subpixel" centres the Gaussian on the joint, "floor" on the centre of the joint's cell (PHT, PN).
    """
    if target == "floor":
        positions = positions.floor() + 0.5
    cells = torch.arange(size, device=positions.device) + 0.5
    offset = cells - positions[..., None]  # (b, j, 2, size)
    bell = torch.exp(-(offset**2) / (2 * sigma**2)) * (offset.abs() <= WINDOW)
    inside = ((positions >= 0) & (positions < size)).all(dim=-1)  # False for NaN
    bell = torch.where(inside[..., None, None], bell, 0.0).permute(2, 0, 3, 1)  # (2, b, size, j)
    return (bell[1][:, :, None] * bell[0][:, None]).permute(0, 3, 1, 2)  # channels last, as the network's are


def decode(
    heatmaps: Float[Tensor, "b j h w"],
) -> tuple[Float[Tensor, "b j 2"], Float[Tensor, "b j"]]:
    """Positions and their heat: the highest cell's centre, moved a quarter cell towards its larger neighbour.

    PHT's rule, per axis; none for a cell on the border, and none between equal neighbours.
    """
    b, j, h, w = heatmaps.shape
    heat, flat = heatmaps.flatten(2).max(dim=2)
    x, y = flat % w, flat // w
    rows = heatmaps.flatten(0, 1)
    person = torch.arange(b * j, device=heatmaps.device)

    def towards_larger(index: Tensor, other: Tensor, size: int, *, horizontal: bool) -> Tensor:
        i, o = index.flatten(), other.flatten()
        before, after = (i - 1).clamp(min=0), (i + 1).clamp(max=size - 1)
        low, high = (
            (rows[person, o, before], rows[person, o, after])
            if horizontal
            else (rows[person, before, o], rows[person, after, o])
        )
        interior = (i > 0) & (i < size - 1)
        return (0.25 * torch.sign(high - low) * interior).view_as(index)

    moved_x = x + 0.5 + towards_larger(x, y, w, horizontal=True)
    moved_y = y + 0.5 + towards_larger(y, x, h, horizontal=False)
    return torch.stack([moved_x, moved_y], dim=-1).float(), heat.float()


def mirror(heatmaps: Float[Tensor, "b j h w"], flip: tuple[int, ...]) -> Float[Tensor, "b j h w"]:
    """Heat maps of the mirrored image turned into those of the image: mirrored back, left and right swapped.

    Cells mirror onto cells in this convention, so the one-pixel shift of HR and MM has no place here.
    """
    return heatmaps.flip(-1)[:, list(flip)]
