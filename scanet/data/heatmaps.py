"""Targets, and their inverse: heat maps to positions. One coupled convention, unbiased on average.

Positions are edge coordinates in heat-map cells (see `scanet.skeleton`): cell k has its centre at k + 0.5.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from scanet.config import Border, Target

WINDOW = 3.5  # cells on either side of the peak: PHT's Gaussian is 7 x 7


def draw_targets(
    positions: Float[Tensor, "b j 2"], size: int, sigma: float, target: Target, border: Border = "empty"
) -> Float[Tensor, "b j size size"]:
    """A 7 x 7 Gaussian of peak 1 at every joint, drawn after augmentation (PHT; its sigma is 1.75 cells).

    A joint that is NaN leaves an all-zero map, which is a target like any other (PHT), and so does one outside the
    map by more than its window. border: what one outside by less leaves, the same or the part of its Gaussian that
    lies in the map (PHT, HR). target: "subpixel" centres the Gaussian on the joint, "floor" on the centre of the
    joint's cell (PHT, PN).
    """
    if target == "floor":
        positions = positions.floor() + 0.5
    cells = torch.arange(size, device=positions.device) + 0.5
    offset = cells - positions[..., None]  # (b, j, 2, size)
    bell = torch.exp(-(offset**2) / (2 * sigma**2)) * (offset.abs() <= WINDOW)
    drawn = ((positions >= 0) & (positions < size) if border == "empty" else positions.isfinite()).all(dim=-1)
    bell = torch.where(drawn[..., None, None], bell, 0.0).permute(2, 0, 3, 1)  # (2, b, size, j)
    return (bell[1][:, :, None] * bell[0][:, None]).permute(0, 3, 1, 2)  # channels last, as the network's are


def decode(
    heatmaps: Float[Tensor, "b j h w"],
) -> tuple[Float[Tensor, "b j 2"], Float[Tensor, "b j"]]:
    """Positions and their heat: the highest cell's centre, moved a quarter cell towards its larger neighbour.

    PHT's rule, but for each axis by itself: none along an axis on whose border the cell lies, where PHT moves it
    along neither; none between equal neighbours.
    """
    h, w = heatmaps.shape[-2:]
    cells = heatmaps.flatten(2)
    heat, flat = cells.max(dim=2)
    x, y = flat % w, flat // w

    def moved(place: Tensor, size: int, step: int) -> Tensor:
        """The cell's centre along one axis, moved. step: to the next cell along it, of the flat map."""
        low, high = (cells.gather(2, (flat + by).clamp(0, h * w - 1)[..., None])[..., 0] for by in (-step, step))
        interior = (place > 0) & (place < size - 1)
        return place + 0.5 + 0.25 * torch.sign(high - low) * interior

    return torch.stack([moved(x, w, 1), moved(y, h, w)], dim=-1).float(), heat.float()


def mirror(heatmaps: Float[Tensor, "b j h w"], flip: tuple[int, ...]) -> Float[Tensor, "b j h w"]:
    """Heat maps of the mirrored image turned into those of the image: mirrored back, left and right swapped.

    Cells mirror onto cells in this convention, so the one-pixel shift of HR and MM has no place here.
    """
    back = heatmaps.flip(-1)
    return torch.stack([back[:, joint] for joint in flip], dim=1)  # a list as an index is copied to a GPU every time
