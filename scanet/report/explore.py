"""What `explore.ipynb` shows: `scanet.report.views.look`, wired to widgets."""

import io
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import ipywidgets
from matplotlib.figure import Figure
from safetensors import safe_open

from scanet import results
from scanet.data.prepare import store_path
from scanet.data.store import Store
from scanet.files import UserError, results_folder
from scanet.model import SCANet
from scanet.photo import WEIGHTS
from scanet.report import figures
from scanet.report.views import Picture, State, look, person, photograph
from scanet.results import Record
from scanet.runs import Run

ALL_JOINTS = "all joints"


def model_of(run: Run) -> SCANet:
    """The run's network; where its weights are not on this machine, the package's if they are this run's.

    Raises UserError if there are none.
    """
    if run.model is None:
        if run.record.run["key"] == _package()["key"]:
            return _packaged()
        raise UserError(f"the weights of {run.record.name} are not on this machine: to make them, {run.record.again}")
    return run.model


@lru_cache(maxsize=1)
def _packaged() -> SCANet:
    return results.load_network(WEIGHTS)


def _package() -> dict[str, str]:
    """What the package's model says of the run that it is from: run and key, among others."""
    with safe_open(WEIGHTS, framework="pt") as file:
        return file.metadata()


def _offered() -> list[Record]:
    """The finished runs whose network is on this machine: with weights, or the package's."""
    packaged = results.load(results_folder() / _package()["run"])
    return [*results.trained(), *([packaged] if packaged is not None else [])]


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
    record = results.finished(folder)
    settings = replace(record.made_with, data=data)
    path = store_path(settings)
    store = Store(path) if path.exists() else None
    if store is not None and store.fingerprint != record.run["data"]["fingerprint"]:
        store = None  # its rows are other persons
    return Run(settings, record, "", record.model(), store)


class Explorer:
    """The control panel. `widget` is what a notebook displays; the other attributes are its parts.

    run: to begin with. Where it has photographs from an unusual place, other runs of that data set use them too.
    """

    def __init__(self, run: Run) -> None:
        model_of(run)
        self._first = run
        trained = {record.name: record.folder for record in [run.record, *_offered()]}

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
        return photograph(io.BytesIO(content), size, self.x.value, self.y.value, self.side.value)

    def _state(self) -> State:
        joint = None if self.joint.value == ALL_JOINTS else self.joint.value
        return State(self.tau.value, self.stack.value - 1, joint, self.noise.value)
