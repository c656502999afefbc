"""A network's view of one picture: its joints, a heat map, its attention with and without noise, at any temperature.

    predictor = scanet.load_model()
    picture = photograph("photo.jpg", predictor.input_size)
    view = look(predictor.model, picture, State(tau=1.0, stack=1))
    view.quiet.attention  # (h, w)

The network runs as a whole at every look: at `quick` that takes less time than drawing the figure.
"""

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from scanet.data.heatmaps import decode
from scanet.data.loader import Persons
from scanet.data.person import BOX
from scanet.data.store import Store
from scanet.data.transforms import GREY, to_input
from scanet.files import UserError
from scanet.inference import varied
from scanet.model import SCANet
from scanet.model.spatial_attention import SpatialAttention
from scanet.photo import cut_out, read
from scanet.report.pictures import PICTURE, Look, View
from scanet.skeleton import SKELETONS


@dataclass(frozen=True, eq=False)
class Picture:
    """A person's box. image: (PICTURE, PICTURE, 3) in [0, 1]; pixels: the same as the network takes it.

    truth: (j, 2) edge coordinates in `image`; None where nothing is annotated.
    """

    image: np.ndarray
    pixels: Float[Tensor, "1 3 s s"]
    truth: np.ndarray | None


@dataclass(frozen=True)
class State:
    """How to look. stack: from 0. joint: whose heat map, None for the highest of all. noise: seed of its draw."""

    tau: float
    stack: int = 0
    joint: str | None = None
    noise: int = 0


def person(store: Store, row: int, size: int) -> Picture:
    """A person of a store, cut as for testing. size: the network's input, pixels."""
    index = torch.zeros(1, dtype=torch.int64)
    persons = Persons(store, np.array([row]), torch.device("cpu"))
    squares = next(persons.squares([index]))
    image, matrix = persons.images(squares, index, PICTURE)
    truth = to_input(persons.joints, persons.center, persons.zoom, matrix, PICTURE)
    return Picture(
        image=(image[0] + GREY).permute(1, 2, 0).numpy(),
        pixels=persons.images(squares, index, size)[0],
        truth=truth[0].numpy(),
    )


def photograph(
    source: Path | str | io.BytesIO, size: int, x: float = 0.5, y: float = 0.5, side: float = 1.0
) -> Picture:
    """A square of one's own photograph; what lies outside it is black.

    Args:
        source: a file, or its content.
        size: the network's input, pixels.
        x, y: the square's centre, as shares of width and height.
        side: its length, as a share of the longer one.

    Raises:
        UserError: it is no picture.
    """
    picture = read(source).picture
    length = side * max(picture.size)
    middle = np.array([x * picture.width, y * picture.height])
    square = picture.crop([round(c + sign * length / 2) for sign in (-1, 1) for c in middle.tolist()])  # type: ignore[arg-type]
    image = np.asarray(square.resize((PICTURE, PICTURE), Image.Resampling.LANCZOS), np.float32) / 255
    index = torch.zeros(1, dtype=torch.int64)
    squares = cut_out(picture, middle[None] - 0.5, np.array([length / BOX]), size, torch.device("cpu"))
    return Picture(image, squares.images(next(squares.squares([index])), index, size)[0], None)


@lru_cache(maxsize=4)
def _adjustable(model: SCANet) -> SCANet:
    """A copy of the network whose temperature may be set: to make one takes as long as to run it twice."""
    return varied(model)


@torch.inference_mode()
def look(model: SCANet, picture: Picture, state: State) -> View:
    """The network's view of the picture at the state's temperature: as in testing, and with noise as in training.

    The noise is one draw of Eq. (8) for every cell of every stack; a row without sharper attention has none.

    Raises:
        UserError: the network has no such joint or stack.
    """
    skeleton = SKELETONS[model.config.joints]
    if state.joint is not None and state.joint not in skeleton.joints:
        raise UserError(f"joint is {state.joint!r}: allowed are {', '.join(skeleton.joints)}")
    if not 0 <= state.stack < model.config.stacks:
        raise UserError(f"stack is {state.stack}: the network has {model.config.stacks}, counted from 0")
    model, device = _adjustable(model), next(model.parameters()).device
    for module in model.modules():
        if isinstance(module, SpatialAttention):
            module.tau = state.tau

    def passed(noise: Tensor | None) -> Look:
        heatmaps, outs = model(picture.pixels.to(device), None if noise is None else noise.to(device))
        maps = heatmaps[:, state.stack].float().cpu()
        cells, _ = decode(maps)
        one = maps[0].amax(dim=0) if state.joint is None else maps[0, skeleton.joints.index(state.joint)]
        attention = outs[state.stack].get("attention")
        return Look(
            joints=cells[0].numpy() * (PICTURE / maps.shape[-1]),
            heatmap=one.numpy(),
            attention=None if attention is None else attention[0, 0].float().cpu().numpy(),
        )

    noisy = None
    if model.config.row.attention == "sharper":
        source = torch.Generator().manual_seed(state.noise)
        noisy = passed(model.draw_noise(1, picture.pixels.shape[-1], source))
    return View(picture.image, picture.truth, passed(None), noisy)
