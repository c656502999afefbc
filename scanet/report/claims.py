"""The paper's claims against what was measured: one ledger, with a verdict that is computed for each line.

A claim (experiments/paper.yaml) says of a quantity that it lies in a range: a difference above 0, a quotient from 10
to 100. The one rule for the verdict, from the quantity's interval on one preset:

reproduced: the whole interval lies in the claim's range. The size of a difference that the paper prints counts too,
    on MPII alone: it must not lie above what one further run of ours would reach.
by construction: the value lies in the range, and our own definitions leave no other outcome: no evidence for the
    paper, however many seeds there are.
not reproduced: the whole interval lies outside the range; or, on MPII, it reaches out of the range and the printed
    difference lies above what one further run of ours would reach.
inconclusive: neither, or there is one seed only.
needs MPII: only MPII can tell, and no MPII run is there.
context: it is about other authors' numbers.
missing: a run that the preset's report has to have (experiments/report.yaml) is not there.
not measured: no preset's report has measured it.

Intervals of the differences under one topic are widened by Holm's correction for the number that it states; what is
counted exactly, such as parameters, needs no seeds. A row that experiments/report.yaml lists for a preset is judged
by the seeds listed there alone: one counts when it is written down, not as soon as it is there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import yaml

from scanet import cost, errors, results
from scanet.config import PRESETS, ROWS, Network
from scanet.errors import RIGHT
from scanet.files import UserError, home, results_folder
from scanet.report.statistics import LEVEL, Estimate, holm, of_seeds, row_difference, row_mean
from scanet.report.tables import PRINTED, number, paper
from scanet.results import Measurement, Record

MEASURE = {"row", "over", "error", "stacks", "experiment", "columns", "ratio", "plus", "minus"}
KINDS = ("difference", "mean", "parameters", "measurement", "server", "context")
VERDICTS = (
    "reproduced", "not reproduced", "inconclusive", "by construction", "missing", "not measured", "needs MPII",
    "context",
)  # fmt: skip
MPII_PRESET = "paper"
TABLE2 = "Table 2"  # the topic of its comparisons
COLUMNS = (
    "topic", "id", "kind", "statement", "asked", "because", "place", "paper",
    "preset", "value", "low", "high", "level", "seeds", "verdict", "runs",
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A statement of the paper about a quantity.

    value: what the paper prints, None if nothing. low, high: the range of the quantity if the statement is true.
    measure: how the quantity is measured, as in paper.yaml. quantity: what it is of, with its unit; within: the
    values that it can have at all. because: why nothing else could have come out, or empty.
    """

    topic: str
    id: str
    statement: str
    place: str
    kind: str
    value: float | None
    low: float
    high: float
    measure: Mapping[str, Any]
    quantity: str = ""
    within: tuple[float, float] = (-math.inf, math.inf)
    because: str = ""

    @classmethod
    def read(cls, entry: Mapping[str, Any], topic: str = "") -> "Claim":
        """From an entry of paper.yaml. Raises UserError for one that is not complete."""
        own = ("id", "statement", "place", "kind", "value", "range", "tolerance", "quantity", "within", "because")
        lacking = [name for name in own[:4] if name not in entry]
        if not lacking and entry["kind"] == "measurement" and "quantity" not in entry:
            raise UserError(
                f"paper.yaml: claim {entry['id']!r} lacks its quantity: say what is measured, in which unit"
            )
        if lacking or entry["kind"] not in KINDS:
            raise UserError(
                f"paper.yaml: claim {entry.get('id')!r} lacks {', '.join(lacking) or 'a kind'}: give id, statement, "
                f"place and one of the kinds {', '.join(KINDS)}"
            )
        unknown = [str(name) for name in entry if name not in (*own, *MEASURE)]
        if unknown:  # such as the rest of a statement behind a comma, where nobody put it in quotes
            raise UserError(f"paper.yaml: claim {entry['id']!r} has the unknown {', '.join(unknown)}: leave it out")
        cells = [*entry.get("plus", []), *entry.get("minus", [])]
        over = entry.get("over")
        named = [
            entry.get("row"),
            over["row"] if isinstance(over, dict) else over,
            *(cell.get("module") for cell in cells),
        ]
        if absent := [name for name in named if name is not None and name not in ROWS]:
            raise UserError(
                f"paper.yaml: claim {entry['id']!r} names the unknown row {absent[0]}: choose from {', '.join(ROWS)}"
            )
        if entry.get("error", RIGHT) not in errors.KINDS:
            raise UserError(f"paper.yaml: claim {entry['id']!r}: choose the error from {', '.join(errors.KINDS)}")
        value = entry.get("value")
        low, high = 0.0, None  # a difference above 0
        if "range" in entry:
            low, high = entry["range"]
        elif "tolerance" in entry:
            low, high = value - entry["tolerance"], value + entry["tolerance"]
        return cls(
            topic=topic,
            id=entry["id"],
            statement=entry["statement"],
            place=entry["place"],
            kind=entry["kind"],
            value=value,
            low=-math.inf if low is None else low,
            high=math.inf if high is None else high,
            measure={name: of for name, of in entry.items() if name not in own},
            quantity=entry.get("quantity") or _quantity(entry),
            within=tuple(entry.get("within") or _WITHIN.get(entry["kind"], (-math.inf, math.inf))),
            because=entry.get("because", ""),
        )

    @property
    def printed(self) -> str:
        """What the paper prints of the quantity, as text; empty if nothing."""
        if self.value is not None:
            return number(self.kind, self.value, digits=2 if self.kind in ("difference", "mean") else 1)
        finite = math.isfinite(self.low) and math.isfinite(self.high)
        return f"{self.low:g} to {self.high:g}" if finite else ""

    @property
    def asked(self) -> str:
        """What is asked of which quantity, as text; empty where nothing of ours can answer."""
        if not self.quantity:
            return ""
        below, above = (self.low < self.within[0], self.high > self.within[1])  # bounds that nothing can pass
        if not below and not above and math.isfinite(self.low) and math.isfinite(self.high):
            true = f"from {self.low:g} to {self.high:g}"
        else:
            true = f"above {self.low:g}" if math.isfinite(self.low) and not below else f"below {self.high:g}"
        return f"{self.quantity}: true {true.replace('-', '−')}"

    @property
    def exact(self) -> bool:
        """Whether the quantity is counted and not estimated."""
        return self.kind == "parameters"


_WITHIN = {"difference": (-100.0, 100.0), "mean": (0.0, 100.0)}


def _quantity(entry: Mapping[str, Any]) -> str:
    """Of a kind that says it by itself; empty for one that is not measured here."""
    if entry["kind"] == "difference":
        unit = f"joints found {entry['error']}, percent" if "error" in entry else "points of PCKh"
        return f"{unit}, {entry['row']} − {entry['over']}"
    if entry["kind"] == "parameters":
        return "quotient" if "over" in entry else "millions"
    return "percent" if entry["kind"] == "mean" else ""


def claims() -> list[Claim]:
    """The paper's, in the order of paper.yaml."""
    return [Claim.read(entry, topic) for topic, entries in paper()["claims"].items() for entry in entries]


def verdict(claim: Claim, value: float, low: float, high: float, seeds: int, one_run: float = math.inf) -> str:
    """The module's rule, for a value with an interval from `low` to `high` (NaN for none), from so many seeds.

    one_run: the highest difference that one further run a row of ours would show; its interval leaves out the choice
        of persons, which is the paper's too, and has the claim's level.
    """
    if claim.because and claim.low < value < claim.high:
        return "by construction"
    if (seeds < 2 and not claim.exact) or math.isnan(low):
        return "inconclusive"
    inside = claim.low < low and high < claim.high
    outside = high < claim.low or low > claim.high
    smaller = claim.kind == "difference" and claim.value is not None and max(high, one_run) < claim.value
    if inside and not smaller:
        return "reproduced"
    return "not reproduced" if outside or (smaller and not inside) else "inconclusive"


@dataclass(frozen=True)
class Held:
    """What one preset has: its runs, its measurements' tables, and the names of the runs that it lacks.

    tables: by experiment, the lines of all its measurements with the columns seed, module and run added.
    """

    records: Sequence[Record] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    lacking: frozenset[str] = frozenset()


def report() -> dict[str, list[str]]:
    """By preset, the names of the runs that its report has to have (experiments/report.yaml)."""
    listed = yaml.safe_load((home() / "experiments" / "report.yaml").read_text(encoding="utf-8"))
    return {
        preset: [
            f"{preset}/{experiment}/{name}-s{seed}"
            for experiment, runs in experiments.items()
            for name, seeds in runs.items()
            for seed in seeds
        ]
        for preset, experiments in listed.items()
    }


def held() -> dict[str, Held]:
    """What each preset has whose report is part of the book: one whose page of Table 2 is there.

    Of what experiments/report.yaml lists it has the seeds that are listed. A preset that is not there owes nothing;
    that of the tests, `tiny`, is never part.
    """
    pages, listed = home() / "book" / "runs", report()
    presets = {
        name: listed.get(name, []) for name in PRESETS if name != "tiny" and (pages / name / "table2.ipynb").exists()
    }
    experiments = sorted({claim.measure["experiment"] for claim in claims() if claim.kind == "measurement"})
    return {
        preset: Held(
            records=[record for record in results.records(preset) if _counts(record.name, owed)],
            tables={
                experiment: pd.concat([_lines(measurement) for measurement in found], ignore_index=True)
                for experiment in experiments
                if (found := [m for m in results.measurements(preset, experiment) if _counts(m.name, owed)])
            },
            lacking=frozenset(name for name in owed if not (results_folder() / name / "run.json").exists()),
        )
        for preset, owed in presets.items()
    }


def _counts(name: str, owed: Sequence[str]) -> bool:
    """Whether a run is one that is owed, or of a row of which none is."""
    return name in owed or name.rpartition("-s")[0] not in {other.rpartition("-s")[0] for other in owed}


def _lines(measurement: Measurement) -> pd.DataFrame:
    table = measurement.table().assign(seed=measurement.run["seed"], run=measurement.name)
    return table if "module" in table else table.assign(module=measurement.run["module"])


def quantity(claim: Claim, preset: Held) -> tuple[Estimate | None, list[str]]:
    """The claim's quantity on one preset, None where its runs are not there; and the runs that it comes from."""
    if claim.kind == "difference":
        row, over = (_row(preset.records, claim.measure[name]) for name in ("row", "over"))
        shared = {record.settings["seed"] for record in row} & {record.settings["seed"] for record in over}
        used = [record.name for record in (*row, *over) if record.settings["seed"] in shared]
        return row_difference(row, over, kind=claim.measure.get("error", RIGHT)), used
    if claim.kind == "mean":
        row = _row(preset.records, claim.measure["row"])
        return (row_mean(row, kind=claim.measure.get("error", RIGHT)) if row else None), [
            record.name for record in row
        ]
    lines = preset.tables.get(claim.measure["experiment"])
    return (None, []) if lines is None else measured(claim.measure, lines)


def _row(records: Sequence[Record], module: str) -> list[Record]:
    return [record for record in records if record.settings["module"] == module]


def measured(measure: Mapping[str, Any], lines: pd.DataFrame) -> tuple[Estimate | None, list[str]]:
    """A quantity from the lines of measurements, from a value of each seed that has all of its cells.

    measure: columns, plus, minus and ratio as in paper.yaml. A quotient is estimated by its logarithm: the value is
    then that logarithm. Of lines by stack, only the last stack's count: its heat maps are the prediction. Where a
    table has its columns without parts of the persons too, the choice of persons is in the estimate.
    """
    if "stack" in lines:
        lines = lines[lines["stack"] == lines["stack"].max()]
    added = [name for name in measure["columns"] if not name.startswith("-")]
    taken = [name[1:] for name in measure["columns"] if name.startswith("-")]
    for name in (*added, *taken):
        if name not in lines.columns:
            raise UserError(f"{lines['run'].iloc[0]} has no column {name!r}: delete its folder and measure it again")
    parts = sum(name.startswith(f"{added[0]} without ") for name in lines.columns)
    endings = ["", *(f" without {part}" for part in range(parts))]
    values, used = [], set()
    for _, of_seed in lines.groupby("seed"):
        terms = [(sign, _cell(of_seed, cell)) for sign in ("plus", "minus") for cell in measure.get(sign, [])]
        if any(cell.empty for _, cell in terms):
            continue
        value = np.zeros(len(endings))
        for sign, cell in terms:
            plus, minus = (
                np.array([cell[[name + ending for name in names]].sum(axis=1, skipna=False) for ending in endings])
                for names in (added, taken)
            )
            amount = np.log(plus - minus) if measure.get("ratio") else plus - minus
            value += amount.mean(axis=1) if sign == "plus" else -amount.mean(axis=1)
            runs = set(cell["run"])
            if len(runs) > 1:
                raise UserError(f"paper.yaml: one cell has lines of {' and '.join(sorted(runs))}: name its module")
            used |= runs
        values.append(value)
    if not values:
        return None, sorted(used)
    whole, *without = np.transpose(values).tolist()
    return of_seeds(whole, without), sorted(used)


def _cell(lines: pd.DataFrame, wanted: Mapping[str, Any]) -> pd.DataFrame:
    """The lines with the wanted values: one, another column's, or those of a list, none if one of them is lacking."""
    chosen = np.ones(len(lines), bool)
    for name, value in wanted.items():
        if name not in lines.columns:
            raise UserError(f"paper.yaml: no column {name!r} is measured: choose from {', '.join(lines.columns)}")
        of = lines[value] if isinstance(value, str) and value in lines.columns else value
        chosen &= lines[name].isin(of) if isinstance(of, list) else lines[name] == of
    found = lines[chosen]
    whole = all(set(of) <= set(found[name]) for name, of in wanted.items() if isinstance(of, list))
    return found if whole else found[:0]


def count(claim: Claim) -> float:
    """The parameters of a claim's network, millions; or as a part of another one's."""
    of = _parameters(claim.measure)
    return of / _parameters(claim.measure["over"]) if "over" in claim.measure else of / 1e6


def _parameters(network: Mapping[str, Any]) -> int:
    return cost.parameters(Network(row=ROWS[network["row"]], stacks=network["stacks"]))


def levels(stated: Sequence[Claim], found: Mapping[str, Estimate]) -> dict[str, float]:
    """For each claim with an estimate on one preset, the level of its interval.

    Differences share Holm's correction with all that their topic states, measured or not.
    """
    levels = dict.fromkeys(found, LEVEL)
    for topic in {claim.topic for claim in stated}:
        family = [claim.id for claim in stated if claim.topic == topic and claim.kind == "difference"]
        compared = {name: found[name].interval for name in family if name in found and found[name].seeds > 1}
        levels |= holm(compared, comparisons=len(family))
    return levels


def ledger(stated: Sequence[Claim], presets: Mapping[str, Held]) -> pd.DataFrame:
    """A line for each claim and each preset that has something to say to it; one line where none has.

    Columns: `COLUMNS`. paper: what it prints, as text; preset: "" for none; low, high: the interval that the verdict
    is from, NaN for none; level: of that interval; runs: a list of names, or "counted" for what needs none.
    """
    lines: dict[str, list[dict[str, Any]]] = {claim.id: [] for claim in stated}
    for name, preset in presets.items():
        asked = [claim for claim in stated if asks(claim, name)]
        answers = {claim.id: quantity(claim, preset) for claim in asked}
        found = {key: estimate for key, (estimate, _) in answers.items() if estimate is not None}
        level = levels(stated, found)
        for claim in asked:
            if lacks(claim, preset):
                lines[claim.id].append({"preset": name, "verdict": "missing", "runs": lacks(claim, preset)})
            elif claim.id in found:
                comparable = claim.kind != "difference" or name == MPII_PRESET
                stated_here = claim if comparable else replace(claim, value=None)
                line = _line(stated_here, found[claim.id], level[claim.id])
                lines[claim.id].append({"preset": name, **line, "runs": answers[claim.id][1]})
    rows = [
        {"topic": claim.topic, "id": claim.id, "kind": claim.kind, "statement": claim.statement, "place": claim.place}
        | {"asked": claim.asked, "because": claim.because}
        | {"paper": claim.printed}
        | line
        for claim in stated
        for line in lines[claim.id] or [_without_runs(claim)]
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def asks(claim: Claim, preset: str) -> bool:
    """Whether a preset's runs can say anything to a claim."""
    return claim.kind in ("difference", "measurement") or (claim.kind == "mean" and preset == MPII_PRESET)


def lacks(claim: Claim, preset: Held) -> list[str]:
    """The runs that a claim needs of those that the preset's report lacks."""
    cells = [*claim.measure.get("plus", []), *claim.measure.get("minus", [])]
    rows = {cell.get("module") for cell in cells} | {claim.measure.get("row"), claim.measure.get("over")}
    every = any("module" not in cell for cell in cells)  # a cell that names no row is of whatever is measured
    needed = []
    for name in sorted(preset.lacking):
        _, experiment, run = name.split("/")
        if experiment == claim.measure.get("experiment", "ablation"):
            needed += [name] if every or run.rpartition("-s")[0] in rows else []
    return needed


def _line(claim: Claim, estimate: Estimate, level: float) -> dict[str, Any]:
    if claim.kind == "mean":  # the paper's is of the same persons: their choice moves both
        estimate = replace(estimate, person_error=0.0 if estimate.seeds > 1 else math.nan)
    low, high = estimate.interval(level)
    value = estimate.value
    if claim.measure.get("ratio"):
        value, low, high = (math.exp(x) for x in (value, low, high))
    low, high = max(low, claim.within[0]), min(high, claim.within[1])  # NaN stays
    found = {"value": value, "low": low, "high": high, "level": level, "seeds": estimate.seeds}
    one_run = value + estimate.run_half_width(level)
    return found | {"verdict": verdict(claim, value, low, high, estimate.seeds, one_run)}


def _without_runs(claim: Claim) -> dict[str, Any]:
    """The line of a claim that no preset says anything to."""
    line: dict[str, Any] = {"preset": "", "runs": []}
    if claim.exact:
        value = count(claim)
        return line | {"value": value, "verdict": verdict(claim, value, value, value, 0), "runs": ["counted"]}
    fixed = {"mean": "needs MPII", "server": "needs MPII", "context": "context"}
    return line | {"verdict": fixed.get(claim.kind, "not measured")}


def page(run: str) -> str:
    """The address in the book of the page that shows a run, from the front page; empty if there is none.

    A run of the ablation has a page of its own, a measurement is on its experiment's, a count in the method's part.
    """
    if run == "counted":
        return "method/hourglass.html"
    preset, experiment, name = run.split("/")
    address = f"runs/{preset}/{name if experiment == 'ablation' else experiment}"
    return f"{address}.html" if (home() / "book" / f"{address}.ipynb").exists() else ""


def check(lines: pd.DataFrame, presets: Mapping[str, Held]) -> None:
    """Raises UserError if a run that a report has to have is not there."""
    lacking = sorted(name for preset in presets.values() for name in preset.lacking)
    if lacking:
        verdicts = (lines["verdict"] == "missing").sum()
        raise UserError(
            f"the report lacks {', '.join(lacking)}, which makes {verdicts} verdicts “missing”: run what is lacking "
            f"or take it out of experiments/report.yaml"
        )


def table2_differences(lines: pd.DataFrame) -> pd.DataFrame:
    """The ledger's comparisons of Table 2, the paper's and ours, for `scanet.report.figures.differences`."""
    points: dict[tuple[str, str], dict[str, float]] = {}
    for claim in claims():
        if claim.kind == "difference" and claim.topic == TABLE2 and claim.value is not None:
            name = f"{claim.measure['row']} − {claim.measure['over']}"
            points[name, PRINTED] = {"value": claim.value}
            for line in lines[(lines["id"] == claim.id) & lines["value"].notna()].itertuples():
                half = (line.high - line.low) / 2
                points[name, line.preset] = {"value": line.value, "half": half, "seeds": line.seeds}
    index = pd.MultiIndex.from_tuples(points, names=["Comparison", "Source"])
    return pd.DataFrame(list(points.values()), index=index, columns=["value", "half", "seeds"])
