"""What the paper says of its attention maps by their looks, as numbers: one for each map.

Maps are (b, h, w). Soft attention's values sum to 1 and SSA's lie between 0 and 1, so measures that should not depend
on the scale are taken of maps that `stretch` has brought to [0, 1].
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Maps = Float[Tensor, "b h w"]
Each = Float[Tensor, "b"]

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
    """The irregularity in units of the map's standard deviation; 0 for a constant map.

    It does not depend on the map's scale: a picture that is drawn from its lowest to its highest value looks as
    irregular as this says. About 2 / sqrt(pi) = 1.13 when every cell is an independent normal draw, near 0 when the
    map changes slowly.
    """
    deviation = maps.flatten(1).std(dim=1, correction=0)
    return torch.where(deviation > 0, irregularity(maps) / deviation, 0.0)


def low(maps: Maps) -> Each:
    """The share of values near 0.

    For "attention values of the unrelated background approach 0" and "avoids excessively small numeric values"
    (§2.3).
    """
    return (maps < NEAR).float().mean(dim=(1, 2))


def high(maps: Maps) -> Each:
    """The share of values near 1. For "attention values within the interesting region approach 1" (§2.3)."""
    return (maps > 1 - NEAR).float().mean(dim=(1, 2))


def extent(maps: Maps) -> Each:
    """The share of cells whose value is at least half of the map's highest."""
    return (maps >= maps.amax(dim=(1, 2), keepdim=True) / 2).float().mean(dim=(1, 2))


def coverage(maps: Maps, joints: Float[Tensor, "b j 2"], visible: Bool[Tensor, "b j"]) -> Each:
    """The share of visible joints in cells whose value is at least half of the map's highest.

    For "covers more regions of the whole body", where soft attention "concentrates on the separate body parts"
    (§3.3.3). To be read beside `extent`: a constant map covers everything.

    Args:
        joints: edge coordinates in cells.
        visible: those to count. Joints outside the map do not count; NaN for a person of whom none is left.
    """
    height, width = maps.shape[1:]
    inside = visible & (joints >= 0).all(dim=2) & (joints[..., 0] < width) & (joints[..., 1] < height)
    cells = torch.where(inside[..., None], joints, 0.0).long()
    person = torch.arange(len(maps), device=maps.device)[:, None]
    attended = maps[person, cells[..., 1], cells[..., 0]] >= maps.amax(dim=(1, 2))[:, None] / 2
    return (attended & inside).sum(dim=1) / inside.sum(dim=1)
