"""What several processes train together, against one of them by itself, in turns: for `accelerate launch`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from scanet import processes
from scanet.bench import machine
from scanet.bench.measure import SHORTEST, Lane
from scanet.config import Settings
from scanet.data.loader import Persons
from scanet.data.store import Store
from scanet.device import describe, keep_freed_memory, processor, within_memory
from scanet.train import begin


def measure(settings: Sequence[Settings], store: Store, rounds: int, device: torch.device) -> dict[str, Any]:
    """The record, the same in every process: for each row images a second "alone" and "together" in each round.

    settings: one for each row. The batch is each process's, so together they train on as many times more. Everything
    is read from the store, and timed by the wall's clock, as processes wait for each other.

    Raises:
        UserError: the memory does not suffice.
    """
    keep_freed_memory()
    count, first = processes.count(), settings[0]
    started = machine.load()
    with within_memory(device, f"give a --batch-size below {first.batch_size}"):
        rows = {row.module: _row(row, store, rounds, device) for row in settings}
    return {
        "device": describe(device, compiled=first.compiled),
        "processor": processor(device),
        "processes": count,
        "threads": torch.get_num_threads(),
        "load": [started, machine.load()],
        "settings": {"preset": first.preset, "stacks": first.stacks, "channels": first.channels,
                     "input_size": first.input_size, "batch_size": first.batch_size, "rounds": rounds},
        "rows": rows,
    }  # fmt: skip


def _row(settings: Settings, store: Store, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Images a second of one row, in each round."""
    persons, joints = store.indices("train"), len(store.skeleton.joints)
    wide = replace(settings, batch_size=processes.count() * settings.batch_size)
    alone, together = (Lane(each, begin(each, joints, device)) for each in (settings, wide))

    def rate(lane: Lane, steps: int) -> float:
        people = Persons(store, persons[: steps * lane.settings.batch_size], device)
        return lane.train(people, wall=True)

    found: dict[str, list[float]] = {"alone": [], "together": []}
    steps = 1
    for number in range(rounds + 1):
        with processes.first_by_itself() as mine:
            by_one = rate(alone, steps) if mine else 0.0
        by_all = rate(together, steps)
        if number == 0:  # which warms up, and says how many steps a timing needs
            wanted = round(SHORTEST * by_one / settings.batch_size)
            steps, *_ = processes.gather(max(1, min(wanted, len(persons) // wide.batch_size)))
        else:
            found["alone"].append(by_one)
            found["together"].append(by_all)
    return processes.gather(found)[0]
