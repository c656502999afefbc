"""A measurement on finished runs: made, or loaded where it is today's; of maps, gates, sizes and gradients."""

import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from scanet import results
from scanet.config import EPHEMERAL, Settings, changed_dials
from scanet.data.store import Store
from scanet.device import describe, pick_device
from scanet.files import UserError, home, results_folder
from scanet.measure import gates, gradients, scales, temperature
from scanet.model import SCANet
from scanet.results import Measurement
from scanet.runs import Run
from scanet.train import training_rows

MAPS = 3  #: Version of the measures of maps: see `measure_or_load`.


@dataclass(frozen=True)
class Measured:
    """A measurement as a notebook works with it. notice: why it is not what would be measured now, or empty."""

    measurement: Measurement
    notice: str

    def table(self) -> pd.DataFrame:
        return self.measurement.table()

    def __str__(self) -> str:
        run = self.measurement.run
        line = (
            f"{self.measurement.name}: measured in {run['seconds']:.0f} s on {run['device']}, "
            f"commit {results.short(run['commit'])}, key {run['key']}"
        )
        return line + (f"\nNote: {self.notice}." if self.notice else "")


def measure_or_load(
    settings: Settings,
    experiment: str,
    dials: Any,
    measure: Callable[[], pd.DataFrame],
    *,
    sources: Sequence[Run] = (),
    store: Store | None,
    version: int | str = 1,
) -> Measured:
    """The measurement's table if its key is today's, else measure and write it.

    A measurement that is not today's is shown all the same, with a notice, where the weights or the photographs to
    measure it again are not on this machine. So is one that trains for itself, which takes long, but for the presets
    that git does not keep (tiny, quick).

    Args:
        settings: preset, row and seed, by which the measurement is named.
        dials: what else decides it, a frozen dataclass of plain values; its defaults make the canonical measurement.
        measure: called without arguments; returns the table.
        sources: the runs that are measured. Empty for a measurement that trains for itself: the settings, the data
            and the training recipe then count instead of their keys.
        store: the persons to measure on; None where they are not on this machine.
        version: of the measuring code: another one when the same sources begin to give another table.

    Raises:
        UserError: there is no such measurement, and the weights or the photographs are not on this machine.
    """
    folder = results.folder_of(settings, experiment, dials=changed_dials(dials))
    saved = results.load_measurement(folder)
    fingerprint = store.fingerprint if store else saved.run["data"] if saved else ""
    keys = {run.record.name: run.record.run["key"] for run in sources}

    def key_of(keys: dict[str, str]) -> str:
        of = keys or results.key_of(settings, experiment, fingerprint)
        return results.digest(experiment=experiment, of=of, dials=asdict(dials), version=version)

    if saved is not None:
        # Further runs behind it are believed where their records are not on this machine.
        absent = {n: k for n, k in saved.run["sources"].items() if results.load(results_folder() / n) is None}
        if saved.run["key"] == key_of(absent | keys):
            return Measured(saved, "")
    missing = [run.record for run in sources if run.model is None]
    others = [run.record.name for run in sources if store and run.record.run["data"]["fingerprint"] != fingerprint]
    if store is None or missing or others:
        names = ", ".join(record.name for record in missing)
        lacking = f"the weights of {names}" if missing else "the photographs that the runs were made from"
        if saved is None:
            needed = missing or [run.record for run in sources if settings.dataset == "synthetic"]  # drawn anew
            raise UserError(
                f"{folder.relative_to(home())} has not been measured, and {lacking} are not on this machine: "
                f"{'; '.join(record.again for record in needed) or 'give their folder, as in -p data FOLDER'}"
            )
        return Measured(
            saved, f"what it was measured on or by has changed since, and {lacking} are not on this machine"
        )
    if saved is not None and not sources and settings.preset not in EPHEMERAL:
        remedy = f"to measure it again, delete {folder.relative_to(home())}"
        return Measured(saved, f"what it was measured on or by has changed since; {remedy}")
    if saved is not None:
        print(f"{saved.name} is measured again: what it was measured on or by has changed.", file=sys.stderr)
    provenance, start = results.provenance(), time.perf_counter()
    table = measure()
    run = {
        "experiment": experiment,
        "preset": settings.preset,
        "module": settings.module,
        "seed": settings.seed,
        "overrides": settings.overrides() | changed_dials(dials),
        "sources": keys,
        "settings": asdict(dials),
        "data": fingerprint,
        "version": version,
        "key": key_of(keys),
        "device": describe(pick_device()),
        "seconds": time.perf_counter() - start,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance,
    }
    return Measured(results.write_measurement(folder, run, table), "")


def measure_attention(run: Run, dials: temperature.Dials) -> Measured:
    """The test maps of a row with attention: a row a stack of `temperature.measure`, and `module`."""

    def measure() -> pd.DataFrame:
        table = _measure_maps(run, dials, taus=[run.settings.tau], noises=[False])
        return table.drop(columns=["tau", "noise"]).assign(module=run.settings.module)

    return measure_or_load(run.settings, "attention", dials, measure, sources=[run], store=run.store, version=MAPS)


def measure_temperature(settings: Settings, runs: Sequence[Run], dials: temperature.Dials) -> Measured:
    """`temperature.measure` of a row with SSA, and `trained_tau`.

    runs: those of `trained_at`. Each is measured at `temperature.TAUS` and at the temperature of every run.
    """
    taus = sorted({*temperature.TAUS, *(run.settings.tau for run in runs)})

    def measure() -> pd.DataFrame:
        tables = [_measure_maps(run, dials, taus=taus).assign(trained_tau=run.settings.tau) for run in runs]
        return pd.concat(tables, ignore_index=True)

    return measure_or_load(settings, "temperature", dials, measure, sources=runs, store=runs[0].store, version=MAPS)


def _at_hand(run: Run, persons: int) -> tuple[SCANet, Store, np.ndarray]:
    """A copy of a run's network, its store, and so many of its validation persons."""
    assert run.model is not None
    assert run.store is not None
    return copy.deepcopy(run.model), run.store, temperature.choose(run.record.predictions()["row"], persons)


def _measure_maps(run: Run, dials: temperature.Dials, **choice: Any) -> pd.DataFrame:
    model, store, rows = _at_hand(run, dials.persons)
    size, seed = run.settings.input_size, run.settings.seed
    table = temperature.measure(model, store, rows, size, pick_device(), seed=seed, **choice)
    return table.assign(persons=len(rows))


def measure_gates(run: Run, dials: gates.Dials) -> Measured:
    """`gates.measure` of a row with SACWA, on its validation persons."""

    def measure() -> pd.DataFrame:
        model, store, rows = _at_hand(run, dials.persons)
        learnt = temperature.choose(training_rows(store, run.settings), dials.persons)
        table = gates.measure(model, store, rows, learnt, run.settings.input_size, pick_device())
        return table.assign(persons=len(rows))

    return measure_or_load(run.settings, "gates", dials, measure, sources=[run], store=run.store)


def measure_scales(run: Run, dials: scales.Dials) -> Measured:
    """`scales.measure` of a row, and `module`, on its validation persons."""

    def measure() -> pd.DataFrame:
        model, store, rows = _at_hand(run, dials.persons)
        table = scales.measure(model, store, rows, run.settings.input_size, pick_device())
        return table.assign(module=run.settings.module, persons=len(rows))

    return measure_or_load(run.settings, "scales", dials, measure, sources=[run], store=run.store, version=2)


def measure_gradients(runs: Sequence[Run], dials: gradients.Dials) -> Measured:
    """`gradients.measure` with the recipe and the data of these runs, which are of `gradients.MODULES`, in order."""
    settings, store = runs[0].settings, runs[0].store

    def measure() -> pd.DataFrame:
        assert store is not None
        finished = {run.settings.module: copy.deepcopy(run.model) for run in runs if run.model is not None}
        return gradients.measure(settings, dials, store, pick_device(), finished)

    version = f"2, recipe {settings.row.recipe}"  # which the short training follows
    return measure_or_load(settings, "gradients", dials, measure, sources=runs, store=store, version=version)
