"""From a trained network to joints in the photograph's pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scanet.config import Tta
from scanet.data import transforms
from scanet.data.heatmaps import decode, mirror
from scanet.data.loader import Persons
from scanet.device import autocast
from scanet.model import SCANet
from scanet.skeleton import SKELETONS


@dataclass(frozen=True)
class Predictions:
    """joints: (n, j, 2) in the photograph's pixels; heat: (n, j), the heat map's peak, about 1 when sure."""

    joints: np.ndarray
    heat: np.ndarray


@dataclass(frozen=True)
class Example:
    """A validation person as a picture shows it.

    image: (s, s, 3) in [0, 1]; joints, truth: (j, 2) edge coordinates in it; heat: (j,). attention: one map (h, w)
    for each stack, none if the row has none or the weights are missing. rank: 0 best, 1 worst.
    """

    image: np.ndarray
    joints: np.ndarray
    truth: np.ndarray
    heat: np.ndarray
    attention: list[np.ndarray]
    rank: float


def predict_heatmaps(model: SCANet, images: Float[Tensor, "b 3 s s"], tta: Tta) -> Float[Tensor, "b j h w"]:
    """The last stack's heat maps without noise in the attention; "flip" averages them with the mirrored image's."""
    with autocast(images.device):
        heatmaps = model(images)[0][:, -1].float()
        if tta == "flip":
            mirrored = model(images.flip(-1))[0][:, -1].float()
            heatmaps = (heatmaps + mirror(mirrored, SKELETONS[model.config.joints].flip)) / 2
    return heatmaps


@torch.inference_mode()
def predict(
    model: SCANet,
    persons: Persons,
    *,
    size: int,
    tta: Tta,
    batch_size: int = 32,
    on_batch: Callable[[int], object] = lambda _: None,
) -> Predictions:
    """The model's joints of every one of `persons`, in their order. size: the network's input, pixels.

    on_batch: told the number of persons of each batch when it is done, for progress.
    """
    model.eval()
    joints, heats = [], []
    batches = list(torch.arange(len(persons)).split(batch_size))
    for index, squares in zip(batches, persons.squares(batches), strict=True):
        here = index.to(persons.device)
        matrix = transforms.crop_matrix(persons.scale[here], persons.zoom[here], size)
        heatmaps = predict_heatmaps(model, persons.images(squares, here, size), tta)
        cells, heat = decode(heatmaps)
        placed = cells * (size / heatmaps.shape[-1])
        center, zoom = persons.center[here], persons.zoom[here]
        joints.append(transforms.to_photograph(placed, center, zoom, matrix, size).cpu())
        heats.append(heat.cpu())
        on_batch(len(index))
    return Predictions(torch.cat(joints).double().numpy(), torch.cat(heats).numpy())
