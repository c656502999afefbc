"""Run a benchmark, on a store or on persons drawn for it, and write its record."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from scanet import processes, results
from scanet.bench import machine, measure, scaling
from scanet.config import Settings
from scanet.data.prepare import open_store
from scanet.files import UserError, results_folder, write_json
from scanet.train import compiling

#: Persons whom a benchmark draws where it is given no store.
PERSONS = 64


def bench(
    settings: Settings, modules: Sequence[str], rounds: int, device: torch.device, *, progress: bool = True
) -> tuple[dict[str, Any], Path]:
    """Measure the rows `modules` and write the record under `experiments/results/bench/<device>/`.

    settings.data: a store of the settings' data set; None draws a few persons, which are enough for the clock. The
    first of the rows, and the row ALL, are trained in the plain way too. Several processes measure what they train
    together instead (`scanet.bench.scaling`), and number 0 writes it.
    """
    provenance, start = results.provenance(), time.perf_counter()
    count = processes.count()
    if settings.data is None:
        drawn = max(PERSONS, count * settings.batch_size)
        asked = replace(settings, dataset="synthetic", synthetic_train=drawn, synthetic_valid=2)
    else:
        asked = settings
    with processes.first_goes_first():
        store = open_store(asked, progress=progress)
    together = count * settings.batch_size
    if (there := len(store.indices("train"))) < together:
        raise UserError(
            f"{store.path} has {there} training persons, and a step takes {together}: give a smaller --batch-size"
        )
    rows = measure.rows_of(settings, modules)
    with compiling(settings):
        if count > 1:
            found = scaling.measure(rows, store, rounds, device)
        else:
            found = measure.measure(rows, store, (modules[0], "ALL"), rounds, device, progress=progress)
    record = {
        **found,
        "data": {"dataset": store.dataset, "fingerprint": store.fingerprint},
        "seconds": time.perf_counter() - start,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance,
    }
    name = f"{settings.stacks}-stacks-{settings.channels}-channels-{settings.input_size}-pixels"
    ending = f"-{count}-processes" if count > 1 else ""
    path = results_folder() / "bench" / machine.slug(device) / f"{name}{ending}.json"
    if processes.rank() == 0:
        write_json(path, record)
    return record, path
