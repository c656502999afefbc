"""The points that the paper leaves open, varied one by one and together: does a finding depend on one of them?

A specification is a choice of the other reading at some of the points, by name; the empty one is the package's own.
A finding is the difference of two rows of Table 2 under one specification. The rows are trained anew for it with a
small budget, apart from what can be told from a trained network: the map in testing, and the mean's convention.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from scanet import results
from scanet.config import ROWS, USES, Row, Settings, compared_with, with_module
from scanet.data.loader import Persons
from scanet.data.prepare import open_or_none
from scanet.device import pick_device
from scanet.evaluation import scores
from scanet.files import UserError
from scanet.inference import predict, varied
from scanet.measure.finished import measure_or_load
from scanet.pckh import CONVENTION, CONVENTIONS
from scanet.runs import Run, run_or_load


@dataclass(frozen=True)
class Choice:
    """An open point. readings: the values in use, of which the preset has one or none.

    name: the setting's; or "reference", the row that MSFI is compared with, or "convention", of the mean. trained:
    whether another reading is another training. title: what a figure calls another reading, with {} for its value.
    """

    name: str
    title: str
    readings: tuple[Any, ...]
    trained: bool = True

    def others(self, settings: Settings) -> tuple[Any, ...]:
        """The readings that are not the settings' own."""
        own = {"reference": "Baseline", "convention": CONVENTION}.get(self.name, getattr(settings, self.name, None))
        return tuple(value for value in self.readings if value != own)

    def on(self, row: Row) -> bool:
        """Whether the row's network or training depends on it."""
        return self.name not in ("reference", "convention") and (self.name not in USES or USES[self.name](row))


#: Where the paper is silent or has two readings; book/protocol/open-choices.md explains each.
CHOICES = (
    Choice("reference", "extra residual block in the Baseline too", ("Baseline", "Block"), trained=False),
    Choice("attention_place", "SSA before the output layers", ("output", "features")),
    Choice("attention_skip", "skip around SSA", (False, True)),
    Choice("attention_noise", "no noise in training", (True, False)),
    Choice("test_map", "mean of the noisy maps in testing", ("noise-free", "mean"), trained=False),
    Choice("tau", "temperature {}", (1.0, 0.5, 2.0)),
    Choice("shared_messages", "one H and G for all levels", (False, True)),
    Choice("upsampling", "bilinear up-sampling", ("nearest", "bilinear")),
    Choice("heatmap_std", "first heat-map weights: {}", (0.001, None)),
    Choice("sigma", "targets' sigma {}", (1.75, 1.0)),
    Choice("target", "targets on cell centres", ("subpixel", "floor")),
    Choice("convention", "mean weighted by joints", (CONVENTION, "official"), trained=False),
)

#: A row, and the one that the paper compares it with. `reference` may put the row Block in the Baseline's place.
FINDINGS: Mapping[str, str] = {row: compared_with(row) for row in ("MSFI", "BDMP", "SSA")}
#: All rows that are trained.
ROWS_NEEDED = ("Baseline", "Block", "MSFI", "BDMP", "SSA")
#: What a run of a specification takes in place of the preset's own length and number of persons.
BUDGETS: Mapping[str, Mapping[str, int]] = {
    "tiny": {"epochs": 1},
    "quick": {"epochs": 2, "limit": 1500},
    "synthetic": {"epochs": 1},
    "lspet-small": {"epochs": 3, "limit": 2500},
}

Specification = dict[str, Any]

WEIGHTED = "mean weighted by joints, of the same runs"


@dataclass(frozen=True)
class Choices:
    """epochs, limit (persons of each split): of every run; None takes `BUDGETS`'. specifications: only the first so
    many of each finding; None: all.
    """

    epochs: int | None = None
    limit: int | None = None
    specifications: int | None = None


def relevant(finding: str) -> list[Choice]:
    """The choices on which the difference between the finding's row and its reference can depend."""
    rows = (ROWS[finding], ROWS[FINDINGS[finding]])
    return [
        choice
        for choice in CHOICES
        if choice.name == "convention"
        or any(choice.on(row) for row in rows)
        or (choice.name == "reference" and FINDINGS[finding] == "Baseline")
    ]


def plackett_burman() -> np.ndarray:
    """(12, 11) of 0 and 1: eleven two-level choices in twelve specifications (Plackett and Burman, 1946).

    Each choice is on in half of them, each pair of choices in a quarter; the last specification has none on.
    """
    first = np.array([1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0])
    return np.vstack([*(np.roll(first, shift) for shift in range(11)), np.zeros(11, int)])


def specifications(finding: str, settings: Settings, first: int | None = None) -> list[Specification]:
    """The package's own reading, every other reading alone, then several together by `plackett_burman`.

    first: only so many of them.
    """
    choices = relevant(finding)
    found: list[Specification] = [{}]
    found += [{choice.name: value} for choice in choices for value in choice.others(settings)]
    # `reference` and `attention_place` never act on one finding, so they can share a column.
    columns = [choice.name for choice in CHOICES if choice.name != "reference"]
    for line in plackett_burman():
        on = dict(zip(columns, line, strict=True))
        on["reference"] = on["attention_place"]
        together = {choice.name: choice.others(settings)[0] for choice in choices if on[choice.name]}
        if together not in found:
            found.append(together)
    return found[:first]


def on_row(specification: Specification, row: str) -> Specification:
    """The part of a specification that acts on one row."""
    return {c.name: specification[c.name] for c in CHOICES if c.name in specification and c.on(ROWS[row])}


def label(specification: Specification) -> str:
    """The specification as a table's cell has it: "sigma=1.0, target=floor"."""
    return ", ".join(f"{name}={value}" for name, value in specification.items()) or "the package's own"


def rows_of(finding: str, specification: Specification) -> tuple[str, str]:
    """The finding's row and the row that it is compared with."""
    return finding, specification.get("reference", FINDINGS[finding])


def measured(settings: Settings, dials: Choices, *, progress: bool = True) -> pd.DataFrame:
    """PCKh of every row under every specification that a finding needs, of the settings' seed.

    The runs lie under the experiment `choices-runs`, which git ignores; each row's table is a measurement, and is
    loaded where it has been made.

    Returns:
        Of all seeds whose tables are there: module, seed, specification (`label` of the part that acts on the row),
        then the mean in each convention.
    """
    needed: dict[str, list[Specification]] = {row: [] for row in ROWS_NEEDED}
    for finding in FINDINGS:
        for specification in specifications(finding, settings, dials.specifications):
            for row in rows_of(finding, specification):
                part = on_row(specification, row)
                if part not in needed[row]:
                    needed[row].append(part)
    if settings.preset not in BUDGETS and dials.epochs is None:
        raise UserError(
            f"choices trains dozens of networks, and preset {settings.preset!r} has no budget for them: give epochs"
        )
    store = open_or_none(settings, progress=progress)
    given = {"epochs": dials.epochs, "limit": dials.limit}
    budget = {**BUDGETS.get(settings.preset, {}), **{k: v for k, v in given.items() if v is not None}}
    tables = []
    for row, parts in needed.items():
        if parts:
            here = with_module(settings, row)
            measure = partial(_measure, here, parts, budget, progress=progress)
            version = results.digest(budget=budget, specifications=[label(part) for part in parts])
            made = measure_or_load(here, "choices", dials, measure, store=store, version=version)
            print(made)
            tables.append(results.over_seeds(made.measurement).assign(module=row))
    return pd.concat(tables)


def _measure(
    settings: Settings, parts: Iterable[Specification], budget: Mapping[str, int], *, progress: bool
) -> pd.DataFrame:
    trained = {choice.name for choice in CHOICES if choice.trained}
    lines = []
    for part in parts:
        training = {name: value for name, value in part.items() if name in trained}
        run = run_or_load(replace(settings, **{**budget, **training}), "choices-runs", progress=progress)
        if run.notice:  # of other code or data than the others' runs
            raise UserError(f"{run.record.name}: {run.notice}")
        means = {name: row["Mean"] for name, row in _rows(run, part).items()}
        lines.append({"specification": label(part), **means})
    return pd.DataFrame(lines)


def _rows(run: Run, part: Specification) -> dict[str, dict[str, float]]:
    """The run's rows in every convention, flip test; tested anew where the specification asks for another map."""
    found = run.record.scores()
    if "test_map" in part:
        assert run.store is not None
        rows = run.record.predictions()["row"]
        model = varied(run.record.trained_model(), test_map=part["test_map"]).to(pick_device())
        persons = Persons(run.store, rows, pick_device())
        predictions = predict(model, persons, size=run.settings.input_size, tta="flip")
        found = scores(predictions, run.store, rows)
    return {name: found.row(name) for name in CONVENTIONS}


def effects(table: pd.DataFrame, finding: str, settings: Settings, first: int | None = None) -> pd.DataFrame:
    """The finding under each of its specifications: a row each, the smallest effect first.

    Columns: specification; effect (points, mean over the seeds), low and high (of single seeds), seeds; `WEIGHTED`,
    what the other convention of the mean adds to the effect of these runs; then for each of `titles` whether that
    reading is taken.
    """
    means = table.set_index(["module", "specification", "seed"]).sort_index()
    lines = []
    for specification in specifications(finding, settings, first):
        convention = specification.get("convention", CONVENTION)
        ours, theirs = (
            means.loc[(row, label(on_row(specification, row)))] for row in rows_of(finding, specification)
        )
        both = (ours - theirs).dropna()
        difference = both[convention]
        taken = {
            title: name in specification and specification[name] == value
            for title, name, value in _readings(finding, settings)
        }
        lines.append(
            {
                "specification": label(specification),
                "effect": difference.mean(),
                "low": difference.min(),
                "high": difference.max(),
                "seeds": len(difference),
                WEIGHTED: (both["official"] - both[CONVENTION]).mean(),
                **taken,
            }
        )
    return pd.DataFrame(lines).sort_values("effect", ignore_index=True)


def summary(effects: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A line for each finding: its specifications, in how many the effect is above 0, and the effect's range."""
    lines = {
        f"{ROWS[finding].title} less {FINDINGS[finding]}": {
            "specifications": len(table),
            "above 0": int((table["effect"] > 0).sum()),
            "lowest": table["effect"].min(),
            "median": table["effect"].median(),
            "highest": table["effect"].max(),
        }
        for finding, table in effects.items()
    }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("points")


def leverage(effects: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A line for each reading, a column for each finding: the mean effect with it less the mean effect without it.

    The line `WEIGHTED` is of the same runs by both conventions of the mean, so that no chance is in it. What
    the convention's own line shows beyond it is chance, and other readings that its runs take: it says how far the
    other lines can be trusted.
    """
    columns = {}
    for finding, table in effects.items():
        readings = [name for name in table.columns if table[name].dtype == bool and table[name].any()]
        columns[finding] = {
            name: table.loc[table[name], "effect"].mean() - table.loc[~table[name], "effect"].mean()
            for name in readings
        } | {WEIGHTED: table[WEIGHTED].mean()}
    return pd.DataFrame(columns).rename_axis("points")


def titles(finding: str, settings: Settings) -> list[str]:
    """The columns of `effects` that say which readings are taken."""
    return [title for title, *_ in _readings(finding, settings)]


def _readings(finding: str, settings: Settings) -> list[tuple[str, str, Any]]:
    """Every reading that is not the package's own: title, the choice's name, the reading."""
    return [
        (choice.title.format("PyTorch's" if value is None else value), choice.name, value)
        for choice in relevant(finding)
        for value in choice.others(settings)
    ]
