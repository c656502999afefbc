"""What the paper says of its attention maps by their looks, as numbers: one for each map.

Maps are (b, h, w). Soft attention's values sum to 1 and SSA's lie between 0 and 1, so measures that should not depend
on the scale are taken of maps that `stretch` has brought to [0, 1].
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Maps = Float[Tensor, "b h w"]
Each = Float[Tensor, "b"]
Joints = Float[Tensor, "b j 2"]
Visible = Bool[Tensor, "b j"]

NEAR = 0.01  #: A value below it is near 0, above 1 less it near 1.


def stretch(maps: Maps) -> Maps:
    """Each map by Eq. (5): its lowest value becomes 0 and its highest 1. A constant map becomes one half."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.5)


def sharpness(maps: Maps) -> Each:
    """Mean of `|2a - 1|`: 0 when every value is one half, 1 when all are 0 or 1.

    For "the attention map with the smaller tau looks much sharper" (§3.3.3) and "when tau becomes large enough, the
    distribution [...] is completely a uniform distribution" (§2.3), which makes it 0. Of maps whose values are all
    near 0 by their scale, as soft attention's are, `contrast` tells more.
    """
    return (2 * maps - 1).abs().mean(dim=(1, 2))


def contrast(maps: Maps) -> Each:
    """The sharpness of the stretched map, which does not depend on the map's scale.

    For "the attention map generated from the SSA module is much sharper than the soft attention map" (§3.3.3).
    """
    return sharpness(stretch(maps))


def irregularity(maps: Maps) -> Each:
    """Mean absolute difference of neighbouring cells, along both axes: 0 for a constant map, 1 for a chessboard.

    For "the attention map with the larger tau looks more irregular" (§3.3.3) against "the larger the tau is, the
    smoother the distribution" (§2.3).
    """
    down, right = maps.diff(dim=1).abs(), maps.diff(dim=2).abs()
    cells = down[0].numel() + right[0].numel()
    return (down.sum(dim=(1, 2)) + right.sum(dim=(1, 2))) / cells


def roughness(maps: Maps) -> Each:
    """The irregularity of the stretched map: how it looks drawn from its lowest value to its highest."""
    return irregularity(stretch(maps))


def low(maps: Maps) -> Each:
    """The share of values near 0.

    For "avoids excessively small numeric values" (§2.3).
    """
    return (maps < NEAR).float().mean(dim=(1, 2))


def high(maps: Maps) -> Each:
    """The share of values near 1."""
    return (maps > 1 - NEAR).float().mean(dim=(1, 2))


def extent(maps: Maps) -> Each:
    """The share of cells whose value is at least half of the map's highest."""
    return (maps >= maps.amax(dim=(1, 2), keepdim=True) / 2).float().mean(dim=(1, 2))


def coverage(maps: Maps, joints: Joints, visible: Visible) -> Each:
    """The share of visible joints in cells whose value is at least half of the map's highest.

    For "covers more regions of the whole body", where soft attention "concentrates on the separate body parts"
    (§3.3.3). To be read beside `extent`: a constant map covers everything.

    Args:
        joints: edge coordinates in cells.
        visible: those to count. Joints outside the map do not count; NaN for a person of whom none is left.
    """
    values, inside = _values_at(maps, joints, visible)
    attended = values >= maps.amax(dim=(1, 2))[:, None] / 2
    return (attended & inside).sum(dim=1) / inside.sum(dim=1)


def at_joints(maps: Maps, joints: Joints, visible: Visible) -> Each:
    """The mean value in the cells of the visible joints. For "attention values within the interesting region approach
    1" (§2.3). Arguments as for `coverage`.
    """
    values, inside = _values_at(maps, joints, visible)
    return (values * inside).sum(dim=1) / inside.sum(dim=1)


def background(maps: Maps, joints: Joints, visible: Visible) -> Each:
    """The mean value of the cells outside the box of the visible joints, widened by a tenth of the map at each side.

    For "attention values of the unrelated background approach 0" (§2.3). Arguments as for `coverage`; NaN where the
    box fills the map or no joint is visible.
    """
    size = torch.tensor(maps.shape[:0:-1], device=maps.device)
    far = torch.inf * torch.ones_like(joints)
    low = torch.where(visible[..., None], joints, far).amin(dim=1)[:, None, None] - size / 10
    high = torch.where(visible[..., None], joints, -far).amax(dim=1)[:, None, None] + size / 10
    down, right = (torch.arange(n, device=maps.device) + 0.5 for n in maps.shape[1:])
    centres = torch.stack(torch.meshgrid(right, down, indexing="xy"), dim=2)
    beside = ((centres < low) | (centres > high)).any(dim=3) & visible.any(dim=1)[:, None, None]
    return (maps * beside).sum(dim=(1, 2)) / beside.sum(dim=(1, 2))


def _values_at(maps: Maps, joints: Joints, visible: Visible) -> tuple[Float[Tensor, "b j"], Visible]:
    """The value in each joint's cell, and whether the joint is visible and inside the map; if not, some value."""
    height, width = maps.shape[1:]
    inside = visible & (joints >= 0).all(dim=2) & (joints[..., 0] < width) & (joints[..., 1] < height)
    cells = torch.where(inside[..., None], joints, 0.0).long()
    person = torch.arange(len(maps), device=maps.device)[:, None]
    return maps[person, cells[..., 1], cells[..., 0]], inside
