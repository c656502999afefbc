"""The plain way, for comparison only: how the public hourglass projects train, written again in their shape.

One sample at a time through a CPU loader, targets drawn joint by joint, contiguous NCHW, eager fp32 (a
GPU's convolutions in TF32, as PyTorch has it unless told otherwise). It computes
what the package computes, so the same loss comes out of it, which a test checks; only the way differs. The public
projects also decode the whole photograph for each sample. Here both ways read the store, which flatters this one.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from scanet.config import STRIDE, Settings
from scanet.data.heatmaps import WINDOW
from scanet.data.person import BOX
from scanet.data.store import Store
from scanet.data.transforms import GREY, Augmentation
from scanet.device import cores
from scanet.inference import FINE, PYRAMID
from scanet.model import SCANet


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """The persons `rows` of a store as (image (3, s, s), target (j, s/4, s/4)), each made when it is asked for."""

    def __init__(self, store: Store, rows: np.ndarray, settings: Settings, augmentation: Augmentation) -> None:
        self.store, self.rows, self.settings, self.augmentation = store, rows, settings, augmentation

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        row, size = int(self.rows[i]), self.settings.input_size
        draw, flip = self.augmentation, self.store.skeleton.flip
        stretch = BOX * self.store.scale[row] * self.store.zoom[row] / size * float(draw.scale[i])
        cos, sin = math.cos(float(draw.angle[i])), math.sin(float(draw.angle[i]))
        mirrored = -1 if draw.flip[i] else 1
        matrix = stretch * np.array([[cos * mirrored, -sin], [sin * mirrored, cos]])
        canvas = torch.from_numpy(self.store.crops([row], workers=1)).float()
        image = (crop(canvas, matrix, size)[0] * draw.colour[i][:, None, None]).clamp(0, 1) - GREY
        target = torch.zeros(len(flip), size // STRIDE, size // STRIDE)
        inverse = np.linalg.inv(matrix)
        for joint in range(len(flip)):
            x, y = self.store.joints[row, flip[joint] if draw.flip[i] else joint]
            offset = (np.array([x, y]) - self.store.center[row]) * self.store.zoom[row]
            draw_joint(target[joint], (inverse @ offset + size / 2) / STRIDE, self.settings)
        return image, target


def crop(canvas: Tensor, matrix: np.ndarray, size: int) -> Tensor:
    """The network's input (1, 3, size, size) in [0, 1] from a canvas (1, 3, m, m) in [0, 255]."""
    theta = torch.tensor(matrix * size / canvas.shape[-1], dtype=torch.float32)
    grid = F.affine_grid(F.pad(theta, (0, 1))[None], [1, 3, size, size], align_corners=False)
    return F.grid_sample(canvas, grid, align_corners=False) / 255


def draw_joint(target: Tensor, position: np.ndarray, settings: Settings) -> None:
    """A Gaussian of peak 1 at (x, y), edge coordinates in cells, in a window of `WINDOW` cells on either side."""
    size, (x, y) = len(target), position
    if math.isnan(x) or math.isnan(y) or (settings.border == "empty" and not all(0 <= p < size for p in position)):
        return
    for row in range(max(0, math.ceil(y - WINDOW - 0.5)), min(size, math.floor(y + WINDOW - 0.5) + 1)):
        for column in range(max(0, math.ceil(x - WINDOW - 0.5)), min(size, math.floor(x + WINDOW - 0.5) + 1)):
            distance = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2
            target[row, column] = math.exp(-distance / (2 * settings.sigma**2))


def loader(samples: Samples, batch_size: int, device: torch.device) -> "DataLoader[tuple[Tensor, Tensor]]":
    """Whole batches in order; worker processes for a GPU, none where the network needs the processors itself."""
    workers = min(8, cores()) if device.type == "cuda" else 0
    return DataLoader(
        samples,
        batch_size,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=workers > 0,
    )


def loss_of(heatmaps: Tensor, target: Tensor, top_k: int | None) -> Tensor:
    """heatmaps: (b, stacks, j, h, w). As `scanet.losses.heatmap_loss`."""
    loss = heatmaps.new_zeros(())
    for stack in range(heatmaps.shape[1]):
        if top_k is None:
            loss = loss + nn.MSELoss()(heatmaps[:, stack], target)
        else:
            each = ((heatmaps[:, stack] - target) ** 2).mean(dim=(2, 3)) * target.flatten(2).any(dim=2)
            loss = loss + each.topk(top_k, dim=1)[0].mean()
    return loss


def train(
    model: SCANet,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Sequence[Tensor]],
    noise: list[Tensor] | None,
    top_k: int | None,
    device: torch.device,
) -> float:
    """One pass over the batches; the mean loss. noise: for the attention, one tensor for each batch."""
    model.train()
    losses = []
    for i, (images, target) in enumerate(batches):
        heatmaps, _ = model(images.to(device), None if noise is None else noise[i])
        loss = loss_of(heatmaps, target.to(device), top_k)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def six_scale(model: SCANet, store: Store, rows: np.ndarray, size: int, device: torch.device) -> np.ndarray:
    """Joints (n, j, 2) in the photographs' pixels: person by person, crop by crop, each with its mirror image."""
    model.eval()
    flip = store.skeleton.flip
    side = round(PYRAMID[-1] * FINE * (size // STRIDE))
    found = np.zeros((len(rows), len(flip), 2))
    for n, row in enumerate(rows.tolist()):
        canvas = torch.from_numpy(store.crops([row], workers=1)).float()
        total = torch.zeros(len(flip), side, side, device=device)
        for boxes in PYRAMID:
            stretch = BOX * store.scale[row] * boxes * store.zoom[row] / size
            image = (crop(canvas, stretch * np.eye(2), size) - GREY).to(device)
            maps = model(image)[0][0, -1]
            mirrored = model(image.flip(3))[0][0, -1].flip(2)
            for joint in range(len(flip)):
                maps[joint] = (maps[joint] + mirrored[flip[joint]]) / 2
            place = ((torch.arange(side, device=device) + 0.5) / side * 2 - 1) * PYRAMID[-1] / boxes
            grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1)[None]
            resized = F.grid_sample(maps[None], grid, padding_mode="border", align_corners=False)[0]
            total += resized * (grid[0].abs() < 1).all(dim=-1)
        for joint in range(len(flip)):
            highest = int(total[joint].argmax())
            cell = np.array([highest % side, highest // side]) + 0.5
            offset = (cell / side - 0.5) * size * stretch  # of the last crop, which is the largest
            found[n, joint] = offset / store.zoom[row] + store.center[row]
    return found
