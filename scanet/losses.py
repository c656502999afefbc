"""The training loss: mean squared error of heat maps with intermediate supervision, plain or hard-mined."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def heatmap_loss(
    heatmaps: Float[Tensor, "b stacks j h w"],
    targets: Float[Tensor, "b j h w"],
    top_k: int | None = None,
) -> Float[Tensor, ""]:
    """Mean over pixels, joints and persons, summed over the stacks (PHT).

    top_k: "hard point mining" (§3.1) keeps only the joints of each person with the largest error, in every stack
    by itself. The paper does not define it; this follows CPN's online hard keypoint mining, which keeps 8. As there,
    a joint with an empty target, for want of an annotation or of a place in the crop, has no error to be mined.
    """
    each = F.mse_loss(heatmaps.float(), targets[:, None].expand_as(heatmaps), reduction="none")
    error = each.mean(dim=(3, 4))  # (b, stacks, j)
    if top_k is not None:
        placed = targets.flatten(2).any(dim=2)  # (b, j)
        error = torch.where(placed[:, None], error, 0.0)
        error = error.topk(min(top_k, error.shape[2]), dim=2).values
    return error.mean(dim=(0, 2)).sum()
