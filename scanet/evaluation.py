"""From predictions to scores: of a run, of anybody's file, and the file for MPII's server."""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scanet import results, submission
from scanet.config import Settings, Tta
from scanet.data.loader import Persons
from scanet.data.prepare import check_resolution
from scanet.data.store import Store
from scanet.device import describe, pick_device, within_memory
from scanet.files import UserError, check_place
from scanet.inference import Predictions, at_once, predict
from scanet.model import SCANet
from scanet.pckh import PCK, Scores, torso_size
from scanet.predictions import read_predictions, read_truth
from scanet.results import Record
from scanet.skeleton import MPII, SKELETONS


def predictions_of(
    model: SCANet, persons: Persons, settings: Settings, tta: Tta, *, progress: bool = False
) -> Predictions:
    """As `inference.predict`, with a bar on stderr if `progress`. settings: the network's run's.

    Raises UserError if the memory does not suffice.
    """
    batch_size = at_once(settings.batch_size)
    remedy = f"testing takes {batch_size} persons at once: end what else is at work there, or take another machine"
    bar = tqdm(total=len(persons), unit="person", disable=not progress)
    with within_memory(persons.device, remedy), bar:
        return predict(model, persons, size=settings.input_size, tta=tta, batch_size=batch_size, on_batch=bar.update)


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


def pck(predictions: Predictions, store: Store, rows: np.ndarray) -> Scores:
    """LSP's own measure: PCK at 0.2 of the torso."""
    metric = _metric(predictions, store)
    metric.update(predictions.joints, store.joints[rows], torso_size(store.joints[rows], store.skeleton))
    return metric.compute(0.2)


def evaluate(run_folder: Path, data: Path | None, tta: Tta, *, progress: bool = True) -> tuple[Scores, str]:
    """A finished run's scores on a store's validation persons, and a line that says what was evaluated.

    data: a store; None for the record's own scores, without running anything. The store may have another skeleton:
    joints are matched by name, and those that the network does not know are not scored.
    """
    record = results.finished(run_folder)
    if data is None:
        if tta not in record.run["metrics"]:
            raise UserError(
                f"{record.name} has no scores with tta {tta!r}: give the store with --data, which takes its weights"
            )
        return record.scores(tta), f"{record.name}, {record.run['data']['dataset']}, {tta}{_seen(record)}"
    model, store, device = record.trained_model(), Store(data), pick_device()
    check_resolution(store, record.settings["input_size"])
    rows = store.indices("valid")
    if not len(rows):
        raise UserError(f"{data} has no validation persons: prepare it with a validation list")
    persons = Persons(store, rows, device)
    predictions = predictions_of(model.to(device), persons, record.made_with, tta, progress=progress)
    seen = _seen(record) if store.fingerprint == record.run["data"]["fingerprint"] else ""
    return scores(predictions, store, rows), f"{record.name} on {data.name}, {tta}, {describe(device)}{seen}"


def _seen(record: Record) -> str:
    return "" if record.held_out else ", trained on these persons"


def evaluate_file(path: Path, truth: Path, key: str | None) -> Scores:
    """Scores of anybody's prediction file against a truth file, both in their own pixels."""
    known = read_truth(truth)
    joints, metric = read_predictions(path, key, len(known.joints)), PCK()
    heads = np.isfinite(known.head_size) & (known.head_size > 0)
    counted = np.isfinite(known.joints).all(axis=-1) & heads[:, None]
    counted[:, np.setdiff1d(np.arange(counted.shape[1]), MPII.scored)] = False
    if not counted.any():
        raise UserError(f"{truth} has no person with a head size and a joint: there is nothing to score against")
    if lost := int((counted & ~np.isfinite(joints).all(axis=-1)).sum()):
        print(
            f"Note: {path} has no numbers for {lost} of {counted.sum()} joints: they count as wrong.", file=sys.stderr
        )
    metric.update(joints, known.joints, known.head_size)
    return metric.compute()


def submit(run_folder: Path, mat: Path, data: Path, tta: Tta, output: Path) -> tuple[int, int]:
    """Write a finished run's joints of MPII's test persons for its server; the numbers of images and persons.

    mat: the official file. data: the store that was prepared from it.
    """
    record = results.finished(run_folder)
    if record.skeleton is not MPII:
        raise UserError(
            f"{run_folder} predicts {len(record.skeleton.joints)} joints and not MPII's {len(MPII.joints)}: "
            f"give a run of preset paper"
        )
    check_place(output)
    model, store, device = record.trained_model(), Store(data), pick_device()
    if output.resolve() in (mat.resolve(), data.resolve()):
        raise UserError(f"{output} is read here and would be lost: give another --output")
    rows = store.indices("test")
    if not len(rows):
        raise UserError(f"{data} has no test persons: fill a store with MPII's by `scanet prepare mpii FOLDER`")
    check_resolution(store, record.settings["input_size"])
    keys = [(str(store.image[row]), int(store.index[row])) for row in rows]
    submission.check(mat, keys)  # before the long part
    persons = Persons(store, rows, device)
    found = predictions_of(model.to(device), persons, record.made_with, tta, progress=True)
    images = submission.write(output, mat, dict(zip(keys, found.joints, strict=True)))
    return images, len(rows)
