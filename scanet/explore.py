"""What `explore.ipynb` shows: a picture, a network and the controls' state in, maps and skeletons out.

`look` is the whole of it; `Explorer` wires it to widgets. The network runs as a whole at every change: at `quick`
that takes less time than drawing the figure.
"""

import io
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from scanet import figures, results
from scanet.config import resolve
from scanet.data.heatmaps import decode
from scanet.data.loader import Persons
from scanet.data.store import Store
from scanet.data.transforms import GREY, to_input
from scanet.examples import PICTURE
from scanet.files import UserError
from scanet.inference import Look, View, varied
from scanet.model import SCANet, gumbel_difference
from scanet.model.spatial_attention import SpatialAttention
from scanet.photo import WEIGHTS, read
from scanet.runs import Run
from scanet.skeleton import SKELETONS
from scanet.stores import store_path

ALL_JOINTS = "all joints"


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
    """The controls. stack: from 0. joint: whose heat map, None for the highest of all. noise: seed of its draw."""

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


def photograph(content: bytes, size: int, x: float = 0.5, y: float = 0.5, side: float = 1.0) -> Picture:
    """A square of one's own photograph; what lies outside it is black.

    x, y: the square's centre, as shares of width and height; side: its length, as a share of the longer one.

    Raises:
        UserError: the content is no picture.
    """
    picture = read(io.BytesIO(content)).picture
    half = side * max(picture.size) / 2
    middle = x * picture.width, y * picture.height
    square = picture.crop([round(c + sign * half) for sign in (-1, 1) for c in middle])  # type: ignore[arg-type]

    def scaled(pixels: int) -> np.ndarray:
        return np.asarray(square.resize((pixels, pixels), Image.Resampling.LANCZOS), np.float32) / 255

    pixels = torch.from_numpy(scaled(size)).permute(2, 0, 1)[None] - GREY
    return Picture(scaled(PICTURE), pixels, None)


@lru_cache(maxsize=4)
def _adjustable(model: SCANet) -> SCANet:
    """The network of a control panel, whose temperature may be set: to make one takes as long as to run it twice."""
    return varied(model)


@torch.inference_mode()
def look(model: SCANet, picture: Picture, state: State) -> View:
    """The network's view of the picture at the state's temperature: as in testing, and with noise as in training.

    The noise is one draw of Eq. (8) for every cell of every stack; a row without sharper attention has none.
    """
    model = _adjustable(model)
    for module in model.modules():
        if isinstance(module, SpatialAttention):
            module.tau = state.tau
    skeleton = SKELETONS[model.config.joints]

    def passed(noise: Tensor | None) -> Look:
        heatmaps, outs = model(picture.pixels, noise)
        maps = heatmaps[:, state.stack].float()
        cells, _ = decode(maps)
        one = maps[0].amax(dim=0) if state.joint is None else maps[0, skeleton.joints.index(state.joint)]
        attention = outs[state.stack].get("attention")
        return Look(
            joints=cells[0].numpy() * (PICTURE / maps.shape[-1]),
            heatmap=one.numpy(),
            attention=None if attention is None else attention[0, 0].float().numpy(),
        )

    noisy = None
    if model.config.row.attention == "sharper":
        cells = picture.pixels.shape[-1] // 4
        source = torch.Generator().manual_seed(state.noise)
        noisy = passed(gumbel_difference((1, model.config.stacks, cells, cells), source))
    return View(picture.image, picture.truth, passed(None), noisy)


def model_of(run: Run) -> SCANet:
    """The run's network; where its weights are not on this machine, the package's if they are this run's.

    Raises UserError if there are none.
    """
    if run.model is None:
        with safe_open(WEIGHTS, framework="pt") as file:
            if file.metadata()["key"] == run.record.run["key"]:
                return results.load_model(WEIGHTS)
        raise UserError(f"the weights of {run.record.name} are not on this machine: train the run here first")
    return run.model


def validation_person(run: Run, number: int) -> Picture:
    """One of the run's validation persons, counted from 0. Raises UserError where the photographs are missing."""
    if run.store is None:
        raise UserError(
            f"the photographs of {run.record.name} are not on this machine: give their folder, as in -p data FOLDER"
        )
    rows = run.record.predictions()["row"]
    return person(run.store, int(rows[number]), run.record.settings["input_size"])


@lru_cache(maxsize=4)
def _opened(folder: Path, data: str | None) -> Run:
    """A finished run as it lies on the disk; nothing is trained or drawn."""
    record = results.load(folder)
    if record is None:
        raise UserError(f"{folder} holds no run any more: choose another one")
    settings = resolve(**record.settings, data=data)
    path = store_path(settings)
    return Run(settings, record, "", record.model(), Store(path) if path.exists() else None)


class Explorer:
    """The control panel. `widget` is what a notebook displays; the other attributes are its parts.

    run: to begin with. Where it has photographs from an unusual place, other runs of that data set use them too.
    """

    def __init__(self, run: Run) -> None:
        model_of(run)
        self._first = run
        trained = {record.name: record.folder for record in [run.record, *results.trained()]}

        def control(kind: type, description: str, **options: object) -> ipywidgets.Widget:
            made = kind(description=description, layout=ipywidgets.Layout(width="26rem"), **options)
            if kind is not ipywidgets.FileUpload:
                made.style.description_width = "6rem"
            made.observe(self._changed, "value")
            return made

        self.run = control(ipywidgets.Dropdown, "run", options=trained, value=run.record.folder)
        self.source = control(ipywidgets.Dropdown, "picture", options=["validation person", "own photograph"])
        self.number = control(ipywidgets.IntSlider, "person", max=0)
        self.upload = control(ipywidgets.FileUpload, "a photograph", accept="image/*")
        self.x = control(ipywidgets.FloatSlider, "across", value=0.5, max=1.0, step=0.01)
        self.y = control(ipywidgets.FloatSlider, "down", value=0.5, max=1.0, step=0.01)
        self.side = control(ipywidgets.FloatSlider, "side", value=1.0, min=0.1, max=2.0, step=0.01)
        self.stack = control(ipywidgets.Dropdown, "stack", options=[1])
        self.joint = control(ipywidgets.Dropdown, "heat map", options=[ALL_JOINTS])
        self.tau = control(
            ipywidgets.FloatLogSlider, "tau", value=run.settings.tau, min=-2, max=2, step=0.05, readout_format=".3g"
        )
        self.noise = control(ipywidgets.BoundedIntText, "noise draw", max=2**31 - 1)
        self.status = ipywidgets.Label()
        self.picture = ipywidgets.Image(
            format="jpeg", layout=ipywidgets.Layout(max_width="100%", align_self="flex-start")
        )
        self._own = ipywidgets.VBox([self.upload, self.x, self.y, self.side])
        what = ipywidgets.VBox([self.run, self.source, self.number, self._own])
        how = ipywidgets.VBox([self.stack, self.joint, self.tau, self.noise])
        controls = ipywidgets.Box([what, how], layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.widget = ipywidgets.VBox([controls, self.status, self.picture])
        self._quiet = False
        self.draw()

    def _changed(self, _change: object) -> None:
        if not self._quiet:
            self.draw()

    def draw(self) -> None:
        """Show the controls' state: the figure and how long it took, or the sentence that says why not."""
        start = time.perf_counter()
        try:
            run = self._fitted(self._chosen())
            view = look(model_of(run), self._subject(run), self._state())
        except UserError as error:
            self.status.value = str(error)
            return
        # A PNG would take twice as long.
        drawn, quality = io.BytesIO(), {"quality": 90}
        figure = figures.explorer(view, run.record.skeleton, Figure())
        figure.savefig(drawn, format="jpeg", dpi=96, bbox_inches=None, pil_kwargs=quality)
        self.picture.value = drawn.getvalue()
        self.status.value = f"{run.record.name}: {time.perf_counter() - start:.2f} s"

    def _chosen(self) -> Run:
        if self.run.value == self._first.record.folder:
            return self._first
        same_data = self._first.record.settings["dataset"] == _opened(self.run.value, None).record.settings["dataset"]
        return _opened(self.run.value, self._first.settings.data if same_data else None)

    def _fitted(self, run: Run) -> Run:
        """Give the controls the ranges that the run has, without drawing for each of them."""
        self._quiet = True
        try:
            own = self.source.value == "own photograph"
            self._own.layout.display = "flex" if own else "none"
            self.number.layout.display = "none" if own else "flex"
            self.number.max = run.record.run["data"]["valid"] - 1
            for chooser, options in (
                (self.stack, tuple(range(1, run.record.settings["stacks"] + 1))),
                (self.joint, (ALL_JOINTS, *run.record.skeleton.joints)),
            ):
                if chooser.options != options:
                    kept = chooser.value
                    chooser.options = options
                    chooser.value = kept if kept in options else options[0]
        finally:
            self._quiet = False
        return run

    def _subject(self, run: Run) -> Picture:
        if self.source.value == "validation person":
            return validation_person(run, self.number.value)
        if not self.upload.value:
            raise UserError("choose a file with the button above: one person, who fills four fifths of the square")
        content = bytes(self.upload.value[0]["content"])
        size = run.record.settings["input_size"]
        return photograph(content, size, self.x.value, self.y.value, self.side.value)

    def _state(self) -> State:
        joint = None if self.joint.value == ALL_JOINTS else self.joint.value
        return State(self.tau.value, self.stack.value - 1, joint, self.noise.value)
