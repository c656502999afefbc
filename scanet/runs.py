"""A run: trained, or loaded where its record is there; the final model's two stages; what a training will need."""

import dataclasses
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from scanet import cost, processes, results
from scanet.config import EPHEMERAL, Settings, Tta, final_stages
from scanet.data import prepare
from scanet.data.loader import Persons, kept_squares
from scanet.data.store import Store
from scanet.device import describe, peak_memory, pick_device, reset_peak_memory
from scanet.evaluation import pck, predictions_of, scores
from scanet.files import UserError, alone, home
from scanet.inference import Predictions
from scanet.model import SCANet
from scanet.plan import Plan, counted, duration, enough_memory, estimate
from scanet.results import Record
from scanet.skeleton import LSP
from scanet.train import Epoch, check_shares, train, training_rows


@dataclass(frozen=True)
class Run:
    """A finished run as a notebook works with it.

    notice: why the record is not what today's code and data would give; empty if it is.
    model: None where the weights are not on this machine, or are of a network that has changed; store: None where the
    photographs are not. loaded: nothing was trained for it.
    """

    settings: Settings
    record: Record
    notice: str
    model: SCANet | None
    store: Store | None
    loaded: bool = True

    def __str__(self) -> str:
        run = self.record.run
        line = (
            f"{self.record.name}: {counted(run['settings']['epochs'], 'epoch')} in {duration(run['seconds'])} "
            f"({run['images_per_second']:.0f} images/s) on {run['device']}, commit {results.short(run['commit'])}, "
            f"key {run['key']}"
        )
        if not self.record.held_out:
            line += "\nNote: the validation persons are among those that it was trained on: no validation result."
        return line + (f"\nNote: {self.notice}." if self.notice else "")


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
        found = prepare.open_store if record is None else prepare.open_or_none
        store = found(settings, progress=progress)
    notice = record.outdated(settings, store.fingerprint if store else None, start) if record is not None else ""
    if record is not None and notice and settings.preset not in EPHEMERAL:
        notice += f"; to train it again, delete {folder.relative_to(home())}"
        if store is not None and store.fingerprint != record.run["data"]["fingerprint"]:
            store = None  # its rows are other persons
    loaded = record is not None and (not notice or settings.preset not in EPHEMERAL)
    if not loaded:
        if store is None:  # only a record can do without one: say what is the matter with it
            store = prepare.open_store(settings, progress=progress)
        if notice and processes.rank() == 0:
            print(f"{folder.name} ({settings.preset}) is trained again: {notice}.", file=sys.stderr)
        notice = ""
        with alone(folder, f"{folder.name} ({settings.preset})") if processes.rank() == 0 else nullcontext():
            now = results.load(folder)  # another process may have written it while the store was opened
            written = now is not None and (record is None or now.run != record.run)
            if not processes.gather(written)[0]:
                _train(settings, experiment, store, folder, start, progress=progress)
    with processes.first_goes_first():
        record = results.load(folder)
        assert record is not None
        record = _with_scores(record, settings.tta, store, progress=progress)
    try:
        model = record.model()
    except UserError:
        if not notice:
            raise
        model = None  # of a network that has changed since
    return Run(settings, record, notice, model, store, loaded)


def final(settings: Settings, *, progress: bool = True) -> tuple[Run, Run]:
    """Both stages of the final model (`config.final_stages`): trained, and fine-tuned from there with hard mining."""
    first, second = stages = final_stages(settings)
    if settings.preset == "paper" and results.load(results.folder_of(first, "final")) is None:
        processes.join(pick_device())
        with processes.first_goes_first():
            prepare.open_store(first, progress=progress)  # without data there is nothing to plan
        _print_plan(stages)
    trained = run_or_load(first, "final", progress=progress)
    return trained, run_or_load(second, "final", start=trained.record, progress=progress)


def trained_at(settings: Settings, *, progress: bool = True) -> list[Run]:
    """The settings' run, and the finished runs that differ from it in tau alone, by tau."""
    own = results.folder_of(settings, "ablation")
    found = [results.load(path.parent) for path in own.parent.glob(f"{settings.module}-s{settings.seed}*/run.json")]
    taus = {settings.tau} | {record.settings["tau"] for record in found if record is not None}
    each = [dataclasses.replace(settings, tau=tau) for tau in sorted(taus)]
    there = [s for s in each if s == settings or results.load(results.folder_of(s, "ablation")) is not None]
    return [run_or_load(s, progress=progress) for s in there]


def plan(stages: Sequence[Settings]) -> Plan:
    """What these trainings need on this machine, from a few steps on their data or, without it, on drawn persons."""
    store = prepare.filled(stages[0])
    if processes.rank() == 0:
        print(f"Measuring a few steps of {stages[-1].row.title} on {describe(pick_device())}", file=sys.stderr)
    return estimate(stages, store)


def _print_plan(stages: Sequence[Settings]) -> None:
    found = plan(stages)  # by all processes together
    if processes.rank() == 0:
        print(found)


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
    predictions = predictions_of(
        model.to(device), Persons(store, rows, device), record.made_with, tta, progress=progress
    )
    with alone(record.folder, record.name, wait=True):
        now = results.load(record.folder)  # with the scores that another process may have added
        if now is None or now.run["key"] != record.run["key"]:
            raise UserError(f"{record.name} was deleted or trained again meanwhile: ask for its scores once more")
        return results.add_scores(now, tta, predictions, scores(predictions, store, rows))


def _train(
    settings: Settings, experiment: str, store: Store, folder: Path, start: Record | None, *, progress: bool
) -> None:
    """Train, and write the record; of several processes, number 0 does the writing."""
    device = pick_device()
    where = describe(device, compiled=settings.compiled)
    if processes.count() > 1:
        where += f", {processes.count()} processes"
    if settings.preset == "paper" and experiment != "final":  # of which both stages have been planned together
        _print_plan([settings])
    # Of what runs now, whatever is edited or committed meanwhile.
    code, provenance = results.training_code(settings.module), results.provenance()
    key = results.key_of(settings, experiment, store.fingerprint, start)
    checkpoint = folder.parent / f".{folder.name}-{key}" / "checkpoint.safetensors"
    if processes.rank() == 0:
        going_on = ", from its checkpoint on" if checkpoint.exists() else ""
        print(f"Training {folder.name} ({settings.preset}) on {where}{going_on}", file=sys.stderr)
        for other in _other_checkpoints(checkpoint):
            print(
                f"Note: {other.parent} holds an unfinished training of that name, from other data, settings or code. "
                "It is not used: delete it if you do not need it.",
                file=sys.stderr,
            )
    reset_peak_memory(device)
    initial = start.trained_model() if start is not None else None
    learning, joints = len(training_rows(store, settings)), len(store.skeleton.joints)
    rows = store.indices("valid")[: settings.limit]
    check_shares(settings, learning, len(rows))
    try:
        with enough_memory(settings, joints, kept_squares(learning, len(rows), store.canvas, device), device):
            model, history = train(settings, store, checkpoint, device, initial=initial, progress=progress)
        if processes.rank() > 0:
            return
        persons = Persons(store, rows, device)
        predictions = {tta: predictions_of(model, persons, settings, tta) for tta in ("none", "flip")}
    except KeyboardInterrupt:
        if processes.rank() == 0 and checkpoint.exists():
            print(
                f"\nStopped: the same call goes on with {folder.name} after its last finished epoch.", file=sys.stderr
            )
        raise
    run = {
        "experiment": experiment,
        "title": settings.row.title,
        "settings": settings.identity(),
        "overrides": results.overrides(settings, experiment, start),
        "key": key,
        "recipe": settings.row.recipe,
        "code": code,
        **_learnt(settings, store, rows, learning, history, predictions),
        "device": where,
        "processes": processes.count(),
        "peak_memory": peak_memory(device),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance,
    }
    if start is not None:
        run["start"] = {"name": start.name, "key": start.run["key"]}
    columns = {
        "joints_none": predictions["none"].joints,
        "truth": store.joints[rows],
        "head_size": store.head_size[rows],
        "row": rows,
    }
    results.write(folder, run, history, model, predictions["flip"], columns)
    shutil.rmtree(checkpoint.parent, ignore_errors=True)


def _learnt(
    settings: Settings, store: Store, rows: np.ndarray, learning: int, history: Sequence[Epoch],
    predictions: Mapping[str, Predictions],
) -> dict[str, Any]:  # fmt: skip
    """What run.json says of the data, the network, the scores and the speed.

    rows: of the validation persons; learning: the number of training persons.
    """
    joints = len(store.skeleton.joints)
    found = {
        "data": {
            "dataset": store.dataset,
            "fingerprint": store.fingerprint,
            "train": learning,
            "valid": len(rows),
        },
        "network": {
            "joints": joints,
            "parameters": cost.parameters(settings.network(joints)),
        },
        "metrics": {tta: scores(of, store, rows).as_dict() for tta, of in predictions.items()},
        "seconds": sum(epoch["seconds"] for epoch in history),
        "images_per_second": float(np.median([epoch["images_per_second"] for epoch in history])),
    }
    if store.skeleton is LSP:
        found["pck"] = {tta: pck(of, store, rows).as_dict() for tta, of in predictions.items()}
    return found


def _other_checkpoints(own: Path) -> list[Path]:
    """The checkpoints of runs with the same name and another key."""
    name, _, key = own.parent.name.rpartition("-")
    keys = f"[0-9a-f]{{{len(key)}}}"
    folders = [path for path in own.parent.parent.glob(".*") if re.fullmatch(re.escape(f"{name}-") + keys, path.name)]
    return sorted(path / own.name for path in folders if path != own.parent and (path / own.name).exists())
