"""From a trained network to joints in the photograph's pixels."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scanet.config import Tta
from scanet.data import transforms
from scanet.data.heatmaps import decode, mirror
from scanet.data.loader import Squares
from scanet.device import autocast
from scanet.model import SCANet
from scanet.skeleton import SKELETONS

#: PN's pyramid at testing: factors on the person's box.
PYRAMID = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
#: Points of the frame in which the pyramid's maps are averaged, for each cell of the plain crop: the pixels of its
#: input. PN takes the photograph's own.
FINE = 4
#: Persons of a batch in testing, at most: our choice.
MOST = 32


@dataclass(frozen=True)
class Predictions:
    """joints: (n, j, 2) in the photograph's pixels; heat: (n, j), the heat map's peak, about 1 when sure."""

    joints: np.ndarray
    heat: np.ndarray


def varied(model: SCANet, **changes: Any) -> SCANet:
    """A network of the same weights, which the two share, with other settings that have no weights of their own.

    changes: fields of `Network`, such as tau or test_map.
    """
    with torch.device("meta"):  # no initial values are drawn
        other = SCANet(replace(model.config, **changes))
    other.load_state_dict(model.state_dict(), assign=True)
    return other.train(model.training)


def predict_heatmaps(model: SCANet, images: Float[Tensor, "b 3 s s"], tta: Tta) -> Float[Tensor, "b j h w"]:
    """The last stack's heat maps without noise in the attention; all but "none" average in the mirrored image's."""
    with autocast(images.device):
        heatmaps = model(images)[0][:, -1].float()
        if tta != "none":
            mirrored = model(images.flip(-1))[0][:, -1].float()
            heatmaps = (heatmaps + mirror(mirrored, SKELETONS[model.config.joints].flip)) / 2
    return heatmaps


def at_once(batch_size: int) -> int:
    """Persons of a batch in testing: without gradients an image takes far less memory than in training."""
    return min(MOST, 4 * batch_size)


@torch.inference_mode()
def predict(
    model: SCANet,
    persons: Squares,
    *,
    size: int,
    tta: Tta,
    boxes: float = 1.0,
    batch_size: int = MOST,
    on_batch: Callable[[int], object] = lambda _: None,
) -> Predictions:
    """The model's joints of every one of `persons`, in their order. size: the network's input, pixels.

    boxes: the input is so many of the person's boxes wide; the pyramid's factors come on top.
    on_batch: told the number of persons of each batch when a GPU has it in its queue, for progress.
    """
    model.eval()
    joints, heats = [], []
    batches = list(torch.arange(len(persons)).split(batch_size))
    places = torch.arange(len(persons), device=persons.device).split(batch_size)  # a copy would wait for the GPU
    for here, squares in zip(places, persons.squares(batches), strict=True):
        maps = []
        for factor in PYRAMID if tta == "six-scale" else (1.0,):
            images, matrix = persons.images(squares, here, size, factor * boxes)
            maps.append(predict_heatmaps(model, images, tta))
        cells, heat = decode(maps[0]) if len(maps) == 1 else peaks(maps)
        placed = cells * (size / maps[-1].shape[-1])  # in the last crop, which is the largest
        joints.append(transforms.to_photograph(placed, persons.center[here], persons.zoom[here], matrix, size))
        heats.append(heat)
        on_batch(len(here))
    return Predictions(torch.cat(joints).cpu().double().numpy(), torch.cat(heats).cpu().numpy())


def peaks(pyramid: list[Float[Tensor, "b j h h"]]) -> tuple[Float[Tensor, "b j 2"], Float[Tensor, "b j"]]:
    """Where the mean of the pyramid's maps is highest, in cells of the largest crop, and the heat there.

    As PN does it: every map is interpolated into one frame that is fixed in the photograph, outside its crop it
    counts as zero, and the highest point is taken as it is. The frame is not the whole photograph but the largest
    crop, the others being inside it, with `FINE` points to a cell of the plain one. It can reach beyond the
    photograph, where PN has no points.
    """
    cells = pyramid[0].shape[-1]
    side = round(PYRAMID[-1] * FINE * cells)
    weights = [interpolation(cells, boxes, side, PYRAMID[-1], pyramid[0].device) for boxes in PYRAMID]
    along_x = torch.cat([maps @ each.T for maps, each in zip(pyramid, weights, strict=True)], dim=2)
    mean = (torch.cat(weights, dim=1) / len(weights)) @ along_x  # along y, the sum over the pyramid with it
    heat, flat = mean.flatten(2).max(dim=2)
    return (torch.stack([flat % side, flat // side], dim=-1) + 0.5) * (cells / side), heat


def interpolation(
    cells: int, crop: float, points: int, frame: float, device: torch.device
) -> Float[Tensor, "points cells"]:
    """Linear interpolation, along one axis, of a crop's `cells` at a frame's `points`; 0 for points outside the crop.

    crop, frame: their lengths in any one unit, about a common middle.
    """
    offset = ((torch.arange(points, device=device) + 0.5) / points - 0.5) * frame
    place = (offset / crop + 0.5) * cells - 0.5  # whole numbers at the cells' centres
    weights = 1 - (place.clamp(0, cells - 1)[:, None] - torch.arange(cells, device=device)).abs()
    return weights.clamp(min=0) * (offset.abs() < crop / 2)[:, None]
