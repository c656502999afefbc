"""What the notebooks and the command line do: check parameters, find the data, train a run or load it."""

import copy
import dataclasses
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from scanet import card, cost, gradients, processes, results, submission, tables, temperature
from scanet.bench import machine, measure
from scanet.config import (
    EPHEMERAL,
    RECIPE,
    Settings,
    Tta,
    changed_dials,
    final_stages,
    refuse_unknown,
    resolve,
    resolve_dials,
)
from scanet.data import lsp, mpii, synthetic
from scanet.data.loader import Persons
from scanet.data.person import Reading
from scanet.data.store import Report, Store, fill
from scanet.data.transforms import GREY, to_input
from scanet.device import describe, fast_bf16, memory, peak_memory, pick_device, within_memory
from scanet.files import UserError, data_folder, home, results_folder, whole_file, write_json
from scanet.inference import Example, Predictions, predict, varied
from scanet.model import SCANet, gumbel_difference
from scanet.pckh import PCK, Scores, torso_size
from scanet.photo import Box, Predictor, as_dict, draw, read
from scanet.plan import Plan, estimate
from scanet.predictions import read_predictions, read_truth
from scanet.results import Measurement, Record
from scanet.skeleton import LSP, MPII, SKELETONS
from scanet.train import train, training_rows

_READERS: Mapping[str, Callable[[Path], Reading]] = {
    "lspet": lsp.read_folder,
    "mpii": mpii.read_folder,
    "synthetic": mpii.read_folder,  # it is written in MPII's formats
}


def parameters(namespace: Mapping[str, Any], **fixed: Any) -> Settings:
    """The settings that a notebook's parameters cell, and whatever papermill put after it, ask for.

    namespace: the notebook's `globals()`. Every public variable in it that holds a plain value counts as a
    parameter, so that a misspelt one is refused and not ignored. fixed: what the notebook leaves no choice of.
    """
    given = _plain(namespace)
    for name in given.keys() & fixed.keys():
        raise UserError(f"{name} is {given[name]!r}, but this notebook always takes {fixed[name]!r}: leave it out")
    return resolve(**given, **fixed)


def measurement_parameters(
    namespace: Mapping[str, Any], kind: type, modules: Sequence[str] = ("SSA",)
) -> tuple[Settings, Any]:
    """As `parameters`, for a notebook that measures finished runs: the runs' settings, and the measurement's own.

    kind: the measurement's dials, a frozen dataclass with defaults; a parameter that has the name of one is that
    one, also where a run has a setting of that name. modules: the rows that the notebook can show, the first being
    the default.

    Raises:
        UserError: as `resolve`, and for a row that is not among `modules`.
    """
    given, own = _plain(namespace), [f.name for f in fields(kind)]
    refuse_unknown(given, [*(f.name for f in fields(Settings) if f.name not in own), *own])
    chosen = resolve_dials(kind, **{name: value for name, value in given.items() if name in own})
    settings = resolve(**{"module": modules[0]} | {name: value for name, value in given.items() if name not in own})
    if settings.module not in modules:
        raise UserError(f"module is {settings.module!r}: this notebook is for {', '.join(modules)}")
    return settings, chosen


def _plain(namespace: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> bool:
        if isinstance(value, list | tuple | dict):  # a notebook's list of runs is no parameter
            return all(plain(item) for item in (value.values() if isinstance(value, dict) else value))
        return isinstance(value, str | int | float | bool | None)

    interactive = {"In", "Out"}
    return {
        name: value
        for name, value in namespace.items()
        if plain(value) and not name.startswith("_") and name not in interactive
    }


def store_path(settings: Settings) -> Path:
    """Where the settings' data is, or will be put, as a store."""
    if settings.data is not None:
        given = Path(settings.data).expanduser().resolve()
        if given.suffix == ".h5":
            return given
        place = hashlib.sha256(str(given).encode()).hexdigest()[:8]
        return data_folder() / f"{settings.dataset}-{settings.resolution}-{place}.h5"
    if settings.dataset == "synthetic":
        return data_folder() / f"{_synthetic_folder(settings).name}-{settings.resolution}.h5"
    return data_folder() / f"{settings.dataset}-{settings.resolution}.h5"


def _synthetic_folder(settings: Settings) -> Path:
    counts = f"{settings.synthetic_train}-{settings.synthetic_valid}"
    return data_folder() / f"synthetic-{counts}-p{settings.part_scale:g}-c{settings.clutter:g}"


def prepare(
    dataset: str, folder: Path, path: Path, resolution: int, *, progress: bool = True,
    on_read: Callable[[Reading], object] | None = None,
) -> Report:  # fmt: skip
    """Fill the store at `path` from a data set's folder as its authors distribute it.

    on_read: called with the annotations, before the photographs are cut.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the folder that holds the {dataset} data")
    reading = _READERS[dataset](folder)
    if on_read is not None:
        on_read(reading)
    if reading.warning:
        print(f"warning: {reading.warning}", file=sys.stderr)
    report = fill(path, reading.persons, reading.images, dataset=dataset, resolution=resolution, progress=progress)
    for image, reason in report.skipped:
        print(f"skipped {image}: {reason}", file=sys.stderr)
    for image, number in report.outside:
        print(f"person {number} of {image} is annotated outside the photograph: kept, all black", file=sys.stderr)
    return report


def open_store(settings: Settings, *, progress: bool = True) -> Store:
    """The settings' data, drawn (synthetic) and prepared where that has not been done.

    Raises:
        UserError: the preset's photographs are not on this machine, or a store holds another data set.
    """
    path = store_path(settings)
    if settings.data is not None and path != Path(settings.data).expanduser().resolve():
        prepare(settings.dataset, Path(settings.data).expanduser(), path, settings.resolution, progress=progress)
    elif settings.data is None and not path.exists():
        if settings.dataset != "synthetic":
            raise UserError(
                f"preset {settings.preset!r} needs photographs, and {path} does not exist: "
                f"give the data set's folder, as in `-p data FOLDER`, "
                f"or fill the store once with `scanet prepare {settings.dataset} FOLDER`"
            )
        _draw(
            _synthetic_folder(settings),
            path,
            settings.resolution,
            train=settings.synthetic_train,
            valid=settings.synthetic_valid,
            part_scale=settings.part_scale,
            clutter=settings.clutter,
            progress=progress,
        )
    return _right_store(path, settings)


def _right_store(path: Path, settings: Settings) -> Store:
    store = Store(path)
    if store.dataset != settings.dataset:
        raise UserError(f"{path} holds {store.dataset}, but preset {settings.preset!r} is for {settings.dataset}")
    return store


def _draw(folder: Path, path: Path, resolution: int, *, progress: bool, **how: Any) -> None:
    """Draw people into `folder`, if it is not there yet, and fill the store at `path`. how: as `synthetic.write`."""
    if not folder.exists():
        synthetic.write(folder, **how, progress=progress)
    prepare("synthetic", folder, path, resolution, progress=progress)


#: Seed of the people drawn to test on; those to train and to validate on are drawn with 0.
TEST_SEED = 1


def drawn_for_testing(
    persons: int, part_scale: float, clutter: float, resolution: int, *, progress: bool = True
) -> Store:
    """Drawn people whom no run has trained or been validated on, as validation persons; drawn where not yet done.

    The first persons of a larger set are those of a smaller one, and at every part_scale and clutter the same people
    stand in the same poses.
    """
    folder = data_folder() / f"synthetic-test-{persons}-p{part_scale:g}-c{clutter:g}"
    path = folder.with_name(f"{folder.name}-{resolution}.h5")
    if not path.exists():
        how = {"train": 0, "valid": persons, "part_scale": part_scale, "clutter": clutter, "seed": TEST_SEED}
        _draw(folder, path, resolution, progress=progress, **how)
    return Store(path)


@dataclass(frozen=True)
class Run:
    """A finished run as a notebook works with it.

    notice: why the record is not what today's code and data would give; empty if it is.
    model: None where the weights, store: None where the photographs are not on this machine.
    """

    settings: Settings
    record: Record
    notice: str
    model: SCANet | None
    store: Store | None

    def __str__(self) -> str:
        run = self.record.run
        line = (
            f"{self.record.name}: {run['settings']['epochs']} epochs in {run['seconds'] / 60:.1f} minutes "
            f"({run['images_per_second']:.0f} images/s) on {run['device']}, commit {run['commit'][:12]}, "
            f"key {run['key']}"
        )
        if not self.record.held_out:
            line += "\nNote: the validation persons are among those that it was trained on: no validation result."
        return line + (f"\nNote: {self.notice}." if self.notice else "")


def final(settings: Settings, *, progress: bool = True) -> tuple[Run, Run]:
    """Both stages of the final model (`config.final_stages`): trained, and fine-tuned from there with hard mining."""
    first, second = stages = final_stages(settings)
    if settings.preset == "paper" and results.load(results.folder_of(first, "final")) is None:
        processes.join(pick_device())
        with processes.first_goes_first():
            open_store(first, progress=progress)  # without data there is nothing to plan
        _print_plan(stages)
    trained = run_or_load(first, "final", progress=progress)
    return trained, run_or_load(second, "final", start=trained.record, progress=progress)


def plan(stages: Sequence[Settings]) -> Plan:
    """What these trainings need on this machine, from a few steps on their data or, without it, on drawn persons."""
    settings = stages[0]
    path = store_path(settings)
    named = settings.data is not None and settings.data.endswith(".h5")
    return estimate(stages, _right_store(path, settings) if named or path.is_file() else None)


def _print_plan(stages: Sequence[Settings]) -> None:
    found = plan(stages)  # by all processes together
    if processes.rank() == 0:
        print(found)


def run_or_load(
    settings: Settings, experiment: str = "ablation", *, start: Record | None = None, progress: bool = True
) -> Run:
    """The run's record if there is one, else train it and write its record.

    start: a finished run whose weights are the first ones, instead of the seed's.

    A record that older code made is loaded all the same, with a notice: it is never silently trained again. Only
    the presets that git does not keep (tiny, quick) are.
    """
    device = pick_device()
    processes.join(device)
    folder = results.folder_of(settings, experiment, start)
    with processes.first_goes_first():
        record = results.load(folder)
        try:
            store = open_store(settings, progress=progress)
        except UserError:
            if record is None or settings.data is not None:
                raise
            store = None
    notice = record.outdated(settings, store.fingerprint if store else None, start) if record is not None else ""
    if notice and settings.preset not in EPHEMERAL:
        notice += f"; to train it again, delete {folder.relative_to(home())}"
    elif record is None or notice:
        assert store is not None  # only a record can do without one
        if notice and processes.rank() == 0:
            print(f"{folder.name} ({settings.preset}) is trained again: {notice}.", file=sys.stderr)
        notice = ""
        _train(settings, experiment, store, folder, start, progress=progress)
    with processes.first_goes_first():
        record = results.load(folder)
        assert record is not None
        record = _with_scores(record, settings.tta, store, progress=progress)
    return Run(settings, record, notice, record.model(), store)


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
            f"commit {run['commit'][:12]}, key {run['key']}"
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
    version: int = 1,
) -> Measured:
    """The measurement's table if its key is today's, else measure and write it.

    A measurement that is not today's is shown all the same, with a notice, where the weights or the photographs to
    measure it again are not on this machine. The presets that git does not keep (tiny, quick) have both.

    Args:
        settings: preset, row and seed, by which the measurement is named.
        dials: what else decides it, a frozen dataclass of plain values; its defaults make the canonical measurement.
        measure: called without arguments; returns the table.
        sources: the runs that are measured. None for a measurement that trains for itself: the settings, the data and
            the training recipe then count instead of their keys.
        store: the persons to measure on; None where they are not on this machine.
        version: of the measuring code: raise it when the same sources begin to give another table.

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
    missing = [run.record.name for run in sources if run.model is None]
    others = [run.record.name for run in sources if store and run.record.run["data"]["fingerprint"] != fingerprint]
    if store is None or missing or others:
        lacking = (
            f"the weights of {', '.join(missing)}" if missing else "the photographs that the runs were made from"
        )
        if saved is None:
            raise UserError(
                f"{folder.relative_to(home())} has not been measured, and {lacking} are not on this machine: "
                "train the runs here first"
            )
        return Measured(
            saved, f"what it was measured on or by has changed since, and {lacking} are not on this machine"
        )
    if saved is not None:
        print(f"{saved.name} is measured again: what it was measured on or by has changed.", file=sys.stderr)
    start = time.perf_counter()
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
        **results.provenance(),
    }
    return Measured(results.write_measurement(folder, run, table), "")


def measure_attention(run: Run, dials: temperature.Dials) -> Measured:
    """The test maps of a row with attention: a row a stack of `temperature.measure`, and `module`."""

    def measure() -> pd.DataFrame:
        table = _measure_maps(run, dials, taus=[run.settings.tau], noises=[False])
        return table.drop(columns=["tau", "noise"]).assign(module=run.settings.module)

    return measure_or_load(run.settings, "attention", dials, measure, sources=[run], store=run.store)


def measure_temperature(settings: Settings, runs: Sequence[Run], dials: temperature.Dials) -> Measured:
    """`temperature.measure` of a row with SSA, and `trained_tau`.

    runs: those of `trained_at`. Each is measured at `temperature.TAUS` and at the temperature of every run.
    """
    taus = sorted({*temperature.TAUS, *(run.settings.tau for run in runs)})

    def measure() -> pd.DataFrame:
        tables = [_measure_maps(run, dials, taus=taus).assign(trained_tau=run.settings.tau) for run in runs]
        return pd.concat(tables, ignore_index=True)

    return measure_or_load(settings, "temperature", dials, measure, sources=runs, store=runs[0].store)


def _measure_maps(run: Run, dials: temperature.Dials, **choice: Any) -> pd.DataFrame:
    assert run.model is not None
    assert run.store is not None
    rows = temperature.choose(run.record.predictions()["row"], dials.persons)
    size, seed, device = run.settings.input_size, run.settings.seed, pick_device()
    table = temperature.measure(copy.deepcopy(run.model), run.store, rows, size, device, seed=seed, **choice)
    return table.assign(persons=len(rows))


def measure_gradients(settings: Settings, dials: gradients.Dials, *, progress: bool = True) -> Measured:
    """`gradients.measure` with the settings' recipe and data."""
    try:
        store = open_store(settings, progress=progress)
    except UserError:
        if settings.data is not None:
            raise
        store = None

    def measure() -> pd.DataFrame:
        assert store is not None
        return gradients.measure(settings, dials, store, pick_device(), progress=progress)

    return measure_or_load(settings, "gradients", dials, measure, store=store)


def trained_at(settings: Settings, *, progress: bool = True) -> list[Run]:
    """The settings' run, and the finished runs that differ from it in tau alone, by tau."""
    own = results.folder_of(settings, "ablation")
    found = [results.load(path.parent) for path in own.parent.glob(f"{settings.module}-s{settings.seed}*/run.json")]
    taus = {settings.tau} | {record.settings["tau"] for record in found if record is not None}
    each = [dataclasses.replace(settings, tau=tau) for tau in sorted(taus)]
    there = [s for s in each if s == settings or results.load(results.folder_of(s, "ablation")) is not None]
    return [run_or_load(s, progress=progress) for s in there]


def _with_scores(record: Record, tta: Tta, store: Store | None, *, progress: bool = True) -> Record:
    """The record with the scores of a test-time augmentation, added to it where it lacks them."""
    if tta in record.run["metrics"]:
        return record
    model = record.model()
    if model is None or store is None:
        lacking = "weights" if model is None else "photographs"
        raise UserError(
            f"{record.name} has no scores with tta {tta!r}, and its {lacking} are not on this machine: "
            f"choose one of {', '.join(record.run['metrics'])}"
        )
    device = pick_device()
    rows = record.predictions()["row"]
    predictions = _predict(
        model.to(device), Persons(store, rows, device), record.settings["input_size"], tta, progress=progress
    )
    return results.add_scores(record, tta, predictions, scores(predictions, store, rows))


def _train(
    settings: Settings, experiment: str, store: Store, folder: Path, start: Record | None, *, progress: bool
) -> None:
    """Train, and write the record; of several processes, number 0 does the writing."""
    device = pick_device()
    where = describe(device) + (f", {processes.count()} processes" if processes.count() > 1 else "")
    if settings.preset == "paper" and experiment != "final":  # of which both stages have been planned together
        _print_plan([settings])
    if processes.rank() == 0:
        print(f"Training {folder.name} ({settings.preset}) on {where}", file=sys.stderr)
    key = results.key_of(settings, experiment, store.fingerprint, start)
    checkpoint = folder.parent / f".{folder.name}-{key}" / "checkpoint.safetensors"
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    initial = _trained(start) if start is not None else None
    with within_memory(device, f"give a batch_size of {_fitting_batch(settings, store, device)} or less"):
        model, history = train(settings, store, checkpoint, device, initial=initial, progress=progress)
    if processes.rank() > 0:
        return
    rows = store.indices("valid")[: settings.limit]
    persons = Persons(store, rows, device)
    predictions = {tta: _predict(model, persons, settings.input_size, tta) for tta in ("none", "flip")}
    run = {
        "experiment": experiment,
        "title": settings.row.title,
        "settings": settings.identity(),
        "overrides": results.overrides(settings, experiment, start),
        "key": key,
        "recipe": RECIPE,
        "data": {
            "dataset": store.dataset,
            "fingerprint": store.fingerprint,
            "train": len(training_rows(store, settings)),
            "valid": len(rows),
        },
        "network": {
            "joints": len(store.skeleton.joints),
            "parameters": cost.parameters(settings.network(len(store.skeleton.joints))),
        },
        "metrics": {tta: scores(found, store, rows).as_dict() for tta, found in predictions.items()},
        "device": where,
        "seconds": sum(epoch["seconds"] for epoch in history),
        "images_per_second": float(np.median([epoch["images_per_second"] for epoch in history])),
        "peak_memory": peak_memory(device),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **results.provenance(),
    }
    if start is not None:
        run["start"] = {"name": start.name, "key": start.run["key"]}
    if store.skeleton is LSP:
        run["pck"] = {tta: _pck(found, store, rows).as_dict() for tta, found in predictions.items()}
    columns = {
        "joints_none": predictions["none"].joints,
        "truth": store.joints[rows],
        "head_size": store.head_size[rows],
        "row": rows,
    }
    results.write(folder, run, history, model, predictions["flip"], columns)
    checkpoint.unlink()
    checkpoint.parent.rmdir()


#: Of the memory that a batch's kept activations may take: the rest is for gradients and workspaces.
ACTIVATIONS_SHARE = 0.7


def _fitting_batch(settings: Settings, store: Store, device: torch.device) -> int:
    """A batch size that fits into the device's memory, by the counted bytes that the backward pass needs.

    Raises:
        UserError: the settings' own batch cannot fit, as it needs more than all the memory for that alone.
    """
    network = settings.network(len(store.skeleton.joints))
    each = cost.activations(network, settings.input_size, bf16=fast_bf16(device))
    held = 16 * cost.parameters(network)  # weights, gradients, mean squares, one more for the update
    room = memory(device) - held
    fitting = int(ACTIVATIONS_SHARE * room / each) * processes.count()
    share = settings.batch_size // processes.count()
    if share * each > room:
        remedy = f"a batch_size of {fitting} or less" if fitting >= 2 else "a smaller input_size or fewer channels"
        raise UserError(
            f"a batch of {share} needs {(share * each + held) / 2**20:,.0f} MiB and {describe(device)} has "
            f"{memory(device) / 2**20:,.0f}: give {remedy}"
        )
    return max(2, fitting)


def _predict(model: SCANet, persons: Persons, size: int, tta: Tta, *, progress: bool = False) -> Predictions:
    with tqdm(total=len(persons), unit="person", disable=not progress) as bar:
        return predict(model, persons, size=size, tta=tta, on_batch=bar.update)


def align(joints: np.ndarray, to: int) -> np.ndarray:
    """Joints (n, j, 2) of one skeleton under the names of the one with `to` joints; NaN where it has others."""
    have, want = SKELETONS[joints.shape[1]].joints, SKELETONS[to].joints
    aligned = np.full((len(joints), to, 2), np.nan)
    shared = [name for name in want if name in have]
    aligned[:, [want.index(name) for name in shared]] = joints[:, [have.index(name) for name in shared]]
    return aligned


def _metric(predictions: Predictions, store: Store) -> PCK:
    """A metric over the joints that both the network and the annotations have."""
    known = SKELETONS[predictions.joints.shape[1]].joints
    scored = [j for j in store.skeleton.scored if store.skeleton.joints[j] in known]
    return PCK(store.skeleton, scored)


def scores(predictions: Predictions, store: Store, rows: np.ndarray) -> Scores:
    """PCKh of the store's persons `rows`, in every convention."""
    metric = _metric(predictions, store)
    joints = align(predictions.joints, len(store.skeleton.joints))
    metric.update(joints, store.joints[rows], store.head_size[rows])
    return metric.compute()


def _pck(predictions: Predictions, store: Store, rows: np.ndarray) -> Scores:
    """LSP's own measure: PCK at 0.2 of the torso."""
    metric = _metric(predictions, store)
    metric.update(predictions.joints, store.joints[rows], torso_size(store.joints[rows], store.skeleton))
    return metric.compute(0.2)


def evaluate(run_folder: Path, data: Path | None, tta: Tta, *, progress: bool = True) -> tuple[Scores, str]:
    """A finished run's scores on a store's validation persons, and a line that says what was evaluated.

    data: a store; None for the record's own scores, without running anything. The store may have another skeleton:
    joints are matched by name, and those that the network does not know are not scored.
    """
    record = _finished(run_folder)
    if data is None:
        if tta not in record.run["metrics"]:
            raise UserError(f"{record.name} has no scores with tta {tta!r}: give the store with --data")
        return record.scores(tta), f"{record.name}, {record.run['data']['dataset']}, {tta}{_seen(record)}"
    model, store, device = _trained(record), Store(data), pick_device()
    rows = store.indices("valid")
    if not len(rows):
        raise UserError(f"{data} has no validation persons: prepare it with a validation list")
    persons = Persons(store, rows, device)
    predictions = _predict(model.to(device), persons, record.settings["input_size"], tta, progress=progress)
    seen = _seen(record) if store.fingerprint == record.run["data"]["fingerprint"] else ""
    return scores(predictions, store, rows), f"{record.name} on {data.name}, {tta}, {describe(device)}{seen}"


def _seen(record: Record) -> str:
    return "" if record.held_out else ", trained on these persons"


def submit(run_folder: Path, mat: Path, data: Path, tta: Tta, output: Path) -> tuple[int, int]:
    """Write a finished run's joints of MPII's test persons for its server; the numbers of images and persons.

    mat: the official file. data: the store that was prepared from it.
    """
    record = _finished(run_folder)
    if record.skeleton is not MPII:
        raise UserError(
            f"{run_folder} predicts {len(record.skeleton.joints)} joints and not MPII's {len(MPII.joints)}: "
            f"give a run of preset paper"
        )
    model, store, device = _trained(record), Store(data), pick_device()
    rows = store.indices("test")
    if not len(rows):
        raise UserError(f"{data} has no test persons: fill a store with MPII's by `scanet prepare mpii FOLDER`")
    keys = [(str(store.image[row]), int(store.index[row])) for row in rows]
    submission.check(mat, keys)  # before the long part
    persons = Persons(store, rows, device)
    found = _predict(model.to(device), persons, record.settings["input_size"], tta, progress=True)
    images = submission.write(output, mat, dict(zip(keys, found.joints, strict=True)))
    return images, len(rows)


def predict_photos(
    photos: Sequence[Path],
    boxes: Sequence[Box] | Mapping[str, Sequence[Box]] | None,
    predictor: Predictor,
    tta: Tta,
    output: Path,
    on_done: Callable[[Path, Path, int], object] = lambda *_: None,
) -> int:
    """Write `<name>-pose.jpg` and `<name>-pose.json` into `output` for each photograph; how many could not be done.

    boxes: of every photograph alike; or by file name; None takes each whole picture as one person's. A photograph
    that cannot be done is named on stderr and the others go on.

    Raises:
        UserError: two of the photographs would be written to the same place.
    """
    names = Counter(path.stem for path in photos)
    double = [name for name, count in names.items() if count > 1]
    if double:
        raise UserError(f"{names[double[0]]} of the photos are called {double[0]}: give them in separate calls")
    failed = 0
    for path in photos:
        try:
            here = _boxes_of(path, boxes) if isinstance(boxes, Mapping) else boxes
            photo = read(path)
            with within_memory(predictor.device, "give the boxes in several calls, or a smaller model"):
                poses = predictor(photo, here, tta)
        except UserError as error:
            print(f"scanet: {error}", file=sys.stderr)
            failed += 1
            continue
        picture = output / f"{path.stem}-pose.jpg"
        with whole_file(picture) as temporary:
            draw(photo, poses, predictor.skeleton).save(temporary, "JPEG", quality=92, subsampling=0)
        about = {"photo": path.name, "model": predictor.name, "tta": tta}
        write_json(picture.with_suffix(".json"), about | as_dict(poses, photo, predictor.skeleton))
        on_done(path, picture, len(poses))
    return failed


def _boxes_of(path: Path, boxes: Mapping[str, Sequence[Box]]) -> Sequence[Box]:
    for name in (str(path), path.name):
        if name in boxes:
            return boxes[name]
    raise UserError(f"{path} is not in the json of boxes: add its name, with [] if nobody is in it")


#: Persons whom a benchmark draws where it is given no store.
BENCH_PERSONS = 64


def bench(
    settings: Settings, modules: Sequence[str], rounds: int, device: torch.device, *, progress: bool = True
) -> tuple[dict[str, Any], Path]:
    """Measure the rows `modules` and write the record under `experiments/results/bench/<device>/`.

    settings.data: a store of the settings' data set; None draws a few persons, which are enough for the clock. The
    first of the rows, and the row ALL, are trained in the plain way too.
    """
    start = time.perf_counter()
    if settings.data is None:
        drawn = replace(settings, dataset="synthetic", synthetic_train=BENCH_PERSONS, synthetic_valid=2)
        store = open_store(drawn, progress=progress)
    else:
        store = open_store(settings, progress=progress)
    found = measure.measure(
        measure.rows_of(settings, modules), store, (modules[0], "ALL"), rounds, device, progress=progress
    )
    record = {
        **found,
        "data": {"dataset": store.dataset, "fingerprint": store.fingerprint},
        "seconds": time.perf_counter() - start,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **results.provenance(),
    }
    name = f"{settings.stacks}-stacks-{settings.channels}-channels-{settings.input_size}-pixels.json"
    path = results_folder() / "bench" / machine.slug(device) / name
    write_json(path, record)
    return record, path


def export(run_folder: Path, output: Path, data: str | None = None, *, progress: bool = True) -> tuple[float, float]:
    """Write a finished run's network in half precision to `output`, and its card, README.md, beside it.

    Returns the validation persons' mean PCKh by flip test with 32-bit and with 16-bit weights, percent.

    Raises:
        UserError: the weights or the photographs are not on this machine, or the README.md there is no such card.
    """
    record = _finished(run_folder)
    readme = output.with_name("README.md")
    if readme.exists() and not readme.read_text(encoding="utf-8").startswith(card.TITLE):
        raise UserError(f"{readme} is no model card, and would be lost: give --output in a folder of its own")
    settings = record.settings
    again = {name: settings[name] for name in ("synthetic_train", "synthetic_valid") if name in settings}
    store = open_store(resolve(preset=settings["preset"], data=data, **again), progress=progress)
    rows, device, size = record.predictions()["row"], pick_device(), settings["input_size"]
    persons = Persons(store, rows, device)
    model = _trained(record)
    with whole_file(output) as temporary:
        about = {"input_size": str(size), "run": record.name, "key": record.run["key"]}
        results.save_model(model, temporary, half=True, about=about)
        both = [
            scores(_predict(network.to(device), persons, size, "flip", progress=progress), store, rows)
            for network in (model, results.load_model(temporary))
        ]
        text = card.card(record, both[0], both[1], temporary.stat().st_size)
    with whole_file(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
    full, half = (found.row(tables.CONVENTION)["Mean"] for found in both)
    return full, half


def _finished(run_folder: Path) -> Record:
    record = results.load(run_folder)
    if record is None:
        raise UserError(f"{run_folder} holds no run.json: give the folder of a finished run")
    return record


def _trained(record: Record) -> SCANet:
    model = record.model()
    if model is None:
        raise UserError(f"{record.folder} has no weights.safetensors on this machine: train the run here first")
    return model


def evaluate_file(path: Path, truth: Path, key: str | None) -> Scores:
    """Scores of anybody's prediction file against a truth file, both in their own pixels."""
    known = read_truth(truth)
    metric = PCK()
    metric.update(read_predictions(path, key, len(known.joints)), known.joints, known.head_size)
    return metric.compute()


PICTURE = 256  # pixels of an example


def errors(run: Run) -> np.ndarray:
    """Each validation person's mean distance from the annotation, in head sizes; NaN with under half the joints."""
    found = run.record.predictions()
    distance = np.linalg.norm(found["joints"] - found["truth"], axis=2) / found["head_size"][:, None]
    known = np.isfinite(distance).sum(axis=1) >= distance.shape[1] // 2
    distance[~known] = np.nan
    return np.array([np.nanmean(row) if k else np.nan for row, k in zip(distance, known, strict=True)])


def leg_to_head(run: Run) -> np.ndarray:
    """Each validation person's lower legs in head sizes, as annotated: large where the legs are near the camera."""
    found, skeleton = run.record.predictions(), run.record.skeleton
    lengths = [
        np.linalg.norm(
            np.diff(found["truth"][:, list(skeleton.index(f"{side}-knee", f"{side}-ankle"))], axis=1)[:, 0], axis=1
        )
        for side in "lr"
    ]
    return np.mean(lengths, axis=0) / found["head_size"]


@torch.inference_mode()
def examples(
    run: Run, count: int = 6, *, by: np.ndarray | None = None, between: tuple[float, float] = (0.0, 1.0),
    tau: float | None = None, noisy: bool = False,
) -> list[Example]:  # fmt: skip
    """Validation persons at evenly spaced ranks of a number, from the lowest to the highest.

    The rule takes the choice out of anybody's hands. Empty where the photographs are not on this machine.

    Args:
        by: the number for each validation person, NaN to leave one out; None: `errors`, from the best to the worst.
        between: the first and the last rank, of 0 to 1.
        tau: of the attention maps; None: the network's own. noisy: one draw of Gumbel noise in them.
    """
    if run.store is None:
        return []
    found = run.record.predictions()
    by = errors(run) if by is None else by
    order = np.argsort(by)[: np.isfinite(by).sum()]  # NaN comes last
    ranks = np.linspace(*between, count)
    chosen = order[np.round(ranks * (len(order) - 1)).astype(int)]
    persons = Persons(run.store, found["row"][chosen], torch.device("cpu"))
    index = torch.arange(count)
    squares = next(persons.squares([index]))
    size = run.record.settings["input_size"]
    images, matrix = persons.images(squares, index, PICTURE)

    def place(joints: np.ndarray) -> np.ndarray:
        points = torch.as_tensor(joints[chosen], dtype=torch.float32)
        return to_input(points, persons.center, persons.zoom, matrix, PICTURE).numpy()

    pictures = (images + GREY).permute(0, 2, 3, 1).numpy()
    maps: list[np.ndarray] = []
    if run.model is not None and run.settings.row.attention != "none":
        shape = (count, len(run.model.stacks), size // 4, size // 4)
        noise = gumbel_difference(shape, torch.Generator().manual_seed(run.settings.seed)) if noisy else None
        model = run.model if tau is None else varied(run.model, tau=tau)
        outs = model(persons.images(squares, index, size)[0], noise)[1]
        maps = [out["attention"][:, 0].float().numpy() for out in outs]
    joints, truth = place(found["joints"]), place(found["truth"])
    return [
        Example(
            pictures[i],
            joints[i],
            truth[i],
            found["heat"][chosen[i]],
            [m[i] for m in maps],
            float(ranks[i]),
            float(by[chosen[i]]),
        )
        for i in range(count)
    ]


def with_and_without_noise(run: Run, tau: float) -> list[Example]:
    """Two persons, at ranks 33 and 67 of 100: each with the noise-free map at a temperature, and with one draw."""
    both = [examples(run, 2, between=(0.33, 0.67), tau=tau, noisy=noisy) for noisy in (False, True)]
    return [example for pair in zip(*both, strict=True) for example in pair]
