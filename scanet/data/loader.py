"""Persons of one split on the model's device, batch by batch."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from scanet import processes
from scanet.config import Settings
from scanet.data import transforms
from scanet.data.heatmaps import draw_targets
from scanet.data.store import Store
from scanet.device import free_memory, sharing

MEMORY_SHARE = 0.4  # of the device's free memory that stored squares may take; the rest is the network's. Our choice
PART = 512  # persons that are read at once into the device's memory


@dataclass(frozen=True)
class Batch:
    """What the network is trained on. images: less `transforms.GREY`, in [-0.5, 0.5]. targets: heat maps.

    index: (b,), places among the split's persons, which are not the store's rows.
    """

    images: Float[Tensor, "b 3 s s"]
    targets: Float[Tensor, "b j h w"]
    index: Tensor


class Squares:
    """Persons' squares in a device's memory, and where they lie in their photographs: what prediction needs.

    center (n, 2), scale (n,), zoom (n,): as in `Person` and the store.
    """

    def __init__(
        self,
        center: np.ndarray,
        scale: np.ndarray,
        zoom: np.ndarray,
        squares: UInt8[Tensor, "n 3 m m"] | None,
        device: torch.device,
    ) -> None:
        """squares: None where a subclass reads them when they are asked for."""
        self.device = device
        self.center, self.scale, self.zoom = self._column(center), self._column(scale), self._column(zoom)
        self._squares = None if squares is None else squares.to(device)

    def _column(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    def __len__(self) -> int:
        return len(self.center)

    def squares(self, batches: Sequence[Tensor]) -> Iterator[UInt8[Tensor, "b 3 m m"]]:
        """The stored squares of each batch of positions, in order, on the device. batches: on the CPU."""
        assert self._squares is not None
        here = torch.cat(list(batches)).to(self.device)  # all at once: a copy to a GPU waits for the work before it
        for index in here.split([len(index) for index in batches]):
            yield self._squares[index]

    def images(
        self, squares: UInt8[Tensor, "b 3 m m"], index: Tensor, size: int, boxes: float = 1.0
    ) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 2 2"]]:
        """The network's input without augmentation, so many of the person's boxes wide, and the warp's matrix."""
        matrix = transforms.crop_matrix(self.scale[index] * boxes, self.zoom[index], size)
        return transforms.warp(squares, matrix, size) - transforms.GREY, matrix


class Persons(Squares):
    """The stored squares and annotations of `rows`, decoded once into the device's memory if they fit there.

    Where they do not, a thread decodes the next batch while the device works on this one.
    """

    def __init__(self, store: Store, rows: np.ndarray, device: torch.device, *, cached: bool | None = None) -> None:
        """cached: whether to keep the squares in the device's memory; None: if they fit."""
        self.store, self.rows = store, rows
        keep = fits(len(rows), store.canvas, device) if cached is None else cached
        squares = None
        if keep:  # in parts, since a GPU's host may have less memory than the GPU
            squares = torch.empty((len(rows), 3, store.canvas, store.canvas), dtype=torch.uint8, device=device)
            for start in range(0, len(rows), PART):
                squares[start : start + PART] = torch.from_numpy(store.crops(rows[start : start + PART]))
        super().__init__(store.center[rows], store.scale[rows], store.zoom[rows], squares, device)
        self.joints = self._column(store.joints[rows])

    def _read(self, positions: np.ndarray) -> UInt8[Tensor, "b 3 m m"]:
        squares = torch.from_numpy(self.store.crops(self.rows[positions]))
        return squares.pin_memory() if self.device.type == "cuda" else squares  # else the copy waits for the device

    def squares(self, batches: Sequence[Tensor]) -> Iterator[UInt8[Tensor, "b 3 m m"]]:
        if self._squares is not None:
            yield from super().squares(batches)
            return
        with ThreadPoolExecutor(1) as reader:
            pending = [reader.submit(self._read, index.numpy()) for index in batches[:1]]
            for following in [*batches[1:], None]:
                ready = pending.pop()
                squares = ready.result()
                if following is not None:
                    pending.append(reader.submit(self._read, following.numpy()))
                yield squares.to(self.device, non_blocking=True)

    def training_batches(
        self, settings: Settings, order: Int[Tensor, "batches b"], augmentation: transforms.Augmentation
    ) -> Iterator[Batch]:
        """The batches of these positions, in order.

        augmentation: one draw for each person of the split, not for each place in the order.
        """
        size = settings.input_size
        flip = torch.tensor(self.store.skeleton.flip, device=self.device)
        draws = augmentation.to(self.device)
        for here, squares in zip(order.to(self.device), self.squares(list(order)), strict=True):
            draw = draws[here]
            matrix = transforms.crop_matrix(self.scale[here], self.zoom[here], size, draw)
            images = transforms.colour(transforms.warp(squares, matrix, size), draw.colour)
            joints = transforms.swap_sides(self.joints[here], draw.flip, flip)
            placed = transforms.to_input(joints, self.center[here], self.zoom[here], matrix, size)
            cells = settings.heatmap_size
            targets = draw_targets(placed * (cells / size), cells, settings.sigma, settings.target, settings.border)
            yield Batch(images - transforms.GREY, targets, here)


def kept_squares(learning: int, held_out: int, canvas: int, device: torch.device) -> int:
    """Bytes of the stored squares that training keeps in the device's memory: of all its persons, or none.

    Of several processes each keeps all that it learns from, and of those to validate on its share.
    """
    persons = learning + -(-held_out // processes.count())
    return persons * 3 * canvas**2 if fits(persons, canvas, device) else 0


def fits(persons: int, canvas: int, device: torch.device) -> bool:
    """Whether the device's memory has room for so many stored squares, `canvas` pixels a side."""
    return persons * 3 * canvas**2 * sharing(device) < MEMORY_SHARE * free_memory(device)
