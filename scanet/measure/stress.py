"""PCKh against part scale and clutter, which the paper says its modules withstand (§1, §4) and never measures.

Every value of an axis has a test set of drawn people made for it; the other dial stays where the training data has
it. The people and their poses are the same at every value.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scanet import results
from scanet.config import ROWS, Settings, resolve
from scanet.data.loader import Persons
from scanet.data.prepare import drawn_for_testing
from scanet.device import pick_device
from scanet.evaluation import scores
from scanet.files import UserError
from scanet.inference import predict
from scanet.measure.finished import Measured, measure_or_load
from scanet.pckh import CONVENTION
from scanet.runs import Run, run_or_load

AXES = ("part_scale", "clutter")
REFERENCE = "Baseline"
#: What is lost on each axis: from these values to those, means of each. Other parts than in training, which had the
#: middle of the dial, are both ends; the clutter grows from one to the other.
LOSSES = {"part_scale": ((0.5,), (0.0, 1.0)), "clutter": ((0.0,), (1.0,))}


@dataclass(frozen=True)
class Stress:
    """persons: drawn for each value. steps: values on each axis, evenly from 0 to 1, an odd number from 3 on."""

    persons: int = 400
    steps: int = 5


def points(settings: Settings, dials: Stress) -> pd.DataFrame:
    """The test sets: axis, value, and both dials. A set that lies on both axes is there twice."""
    training = {axis: getattr(settings, axis) for axis in AXES}
    values = np.linspace(0, 1, dials.steps).round(4).tolist()
    return pd.DataFrame(
        [{"axis": axis, "value": value, **training, axis: value} for axis in AXES for value in values]
    )


def measure(run: Run, dials: Stress, *, progress: bool = True) -> pd.DataFrame:
    """A row for each value of each axis: axis, value, module, pckh (plain mean, one forward pass), persons."""
    assert run.model is not None
    device = pick_device()
    model = copy.deepcopy(run.model).to(device)  # the run's own stays where it is
    found: dict[tuple[float, float], float] = {}
    rows = []
    for point in points(run.settings, dials).itertuples():
        place = float(point.part_scale), float(point.clutter)
        if place not in found:
            store = drawn_for_testing(dials.persons, *place, run.settings.resolution, progress=progress)
            persons = np.arange(len(store))
            predictions = predict(model, Persons(store, persons, device), size=run.settings.input_size, tta="none")
            found[place] = scores(predictions, store, persons).row(CONVENTION)["Mean"]
        rows.append(
            {
                "axis": point.axis,
                "value": point.value,
                "module": run.settings.module,
                "pckh": found[place],
                "persons": dials.persons,
            }
        )
    return pd.DataFrame(rows)


def measured(settings: Settings, dials: Stress, *, progress: bool = True) -> list[Measured]:
    """The measurements of the preset's canonical runs of Table 2's rows, one a run; made where lacking.

    Raises:
        UserError: the preset learns from photographs, which have no dials, or lacks finished runs to compare.
    """
    if settings.dataset != "synthetic":
        raise UserError(
            f"preset {settings.preset!r} learns from photographs, and only drawn people have dials: give quick"
        )
    if settings != resolve(preset=settings.preset):
        raise UserError("the finished runs of a whole preset are tested: give preset, persons and steps alone")
    if dials.steps < 3 or dials.steps % 2 == 0:
        raise UserError(
            f"steps is {dials.steps}: an axis has a middle and two ends, give 3, 5, 7 or another odd number"
        )
    records = [r for r in results.records(settings.preset) if ROWS[r.settings["module"]].place in ("Table 2", "ours")]
    modules = {record.settings["module"] for record in records}
    if REFERENCE not in modules or len(modules) == 1:
        raise UserError(
            f"preset {settings.preset!r} has finished runs of {', '.join(sorted(modules)) or 'no row'}, and it takes "
            f"{REFERENCE} and another row: make them with `scanet train ROW --preset {settings.preset}`"
        )
    found = []
    for record in records:
        own = replace(settings, module=record.settings["module"], seed=record.settings["seed"])
        run = run_or_load(own, progress=progress)
        of_run = measure_or_load(
            run.settings,
            "stress",
            dials,
            lambda run=run: measure(run, dials, progress=progress),  # type: ignore[misc]
            sources=[run],
            store=run.store,
        )
        found.append(of_run)
    return found


def table(found: Sequence[Measured]) -> pd.DataFrame:
    """The lines of `measured`, with the column seed."""
    return pd.concat([each.table().assign(seed=each.measurement.run["seed"]) for each in found], ignore_index=True)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of all modules but the reference, with `difference`: PCKh less the reference's, of the same seed."""
    place = ["axis", "value", "seed"]
    reference = table[table["module"] == REFERENCE].set_index(place)["pckh"].rename("reference")
    others = table[table["module"] != REFERENCE].join(reference, on=place, how="inner")
    return others.assign(difference=others["pckh"] - others["reference"]).drop(columns="reference")


def drops(table: pd.DataFrame) -> pd.DataFrame:
    """For each module and axis, means over the seeds: PCKh at 0, in the middle and at 1, what is lost (`LOSSES`), and
    how much less that is than the reference loses (above 0: more robust). Percent and points.
    """
    places = {0.0: "at 0", 0.5: "at ½", 1.0: "at 1"}
    ends = table[table["value"].isin(list(places))].pivot_table("pckh", ["axis", "module"], "value")
    means = ends.rename(columns=places)
    for axis, (before, after) in LOSSES.items():
        means.loc[axis, "lost"] = (ends[list(before)].mean(axis=1) - ends[list(after)].mean(axis=1)).loc[[axis]]
    order = [(axis, module) for axis in AXES for module in ROWS if (axis, module) in means.index]
    reference = means.xs(REFERENCE, level="module")["lost"].reindex([axis for axis, _ in order])
    means = means.loc[order]
    means[f"less than {REFERENCE}"] = reference.to_numpy() - means["lost"]
    titles = [(axis.replace("_", " "), ROWS[module].title) for axis, module in order]
    return means.set_axis(pd.MultiIndex.from_tuples(titles, names=["Dial", "Method"])).rename_axis(columns=None)
