"""What a run will need on this machine, from a few steps of it: hours, memory, disk."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from scanet import cost, processes
from scanet.config import Settings, Tta
from scanet.data import mpii, synthetic
from scanet.data.loader import Persons, kept_squares
from scanet.data.store import Store, fill
from scanet.device import describe, fast_bf16, memory, peak_memory, pick_device, within_memory
from scanet.files import UserError
from scanet.inference import predict
from scanet.train import Progress, begin, check_shares, compiling, train_epoch

#: Persons of each split, where the data set itself is not at hand.
PERSONS: Mapping[str, Mapping[str, int]] = {"mpii": mpii.EXPECTED, "lspet": {"train": 9_000, "valid": 1_000}}
#: Bytes of a store for each pixel of its canvases. MPII: five persons at resolution 320; LSP Extended: all at 160;
#: synthetic: 4,000 at 160.
BYTES = {"mpii": 0.09, "lspet": 0.18, "synthetic": 0.095}
DRAWN = 8  # persons, for measuring without data
ENOUGH = 5.0  # seconds of training steps
ROUNDS = {"cuda": 5}  # how often they are taken, else once: a GPU's clock rises in the first second


@dataclass(frozen=True)
class Stage:
    """One training. steps: of one epoch. seconds: of all epochs' training, and of the validation after each."""

    title: str
    epochs: int
    steps: int
    training_seconds: float
    validation_seconds: float


@dataclass(frozen=True)
class Plan:
    """What was measured, and what follows for the whole. Printed, it is a table.

    measured_on: whose pictures the steps saw. persons: of each split. images_per_second: of training.
    seconds_per_person: of testing, by test-time augmentation. memory: bytes, the device's on CUDA, else the
    process's; cached: whether the stored squares are all held in it, which is part of that. disk: bytes, of the
    store, of the checkpoint while training, and of the record.
    """

    preset: str
    network: str
    device: str
    measured_on: str
    persons: dict[str, int]
    batch_size: int
    stages: tuple[Stage, ...]
    images_per_second: float
    seconds_per_person: dict[str, float]
    memory: int
    cached: bool
    disk: dict[str, int]

    @property
    def seconds(self) -> float:
        """Of the whole: training, and validation after each epoch."""
        return sum(stage.training_seconds + stage.validation_seconds for stage in self.stages)

    def as_dict(self) -> dict[str, Any]:
        """For a machine to read."""
        return {**asdict(self), "hours": self.seconds / 3600}

    def __str__(self) -> str:
        lines = [
            ("network", self.network),
            ("device", self.device),
            ("measured on", self.measured_on),
            ("speed", f"{self.images_per_second:.3g} images/s in training"),
        ]
        for stage in self.stages:
            lines.append((
                stage.title,
                f"{counted(stage.epochs, 'epoch')} of {stage.steps:,} steps of {self.batch_size}: "
                f"{duration(stage.training_seconds)}, and {duration(stage.validation_seconds)} of validation",
            ))  # fmt: skip
        lines.append(("in all", duration(self.seconds)))
        for split in ("valid", "test"):
            if self.persons.get(split):
                times = [f"{tta} {duration(self.persons[split] * s)}" for tta, s in self.seconds_per_person.items()]
                lines.append((f"testing {self.persons[split]:,}", ", ".join(times)))
        held, kept = "with" if self.cached else "without", self.persons["train"] + self.persons["valid"]
        lines.append(
            ("memory", f"{size(self.memory)}, {held} all {kept:,} persons for training and validation in it")
        )
        lines.append(("disk", ", ".join(f"{name} {size(number)}" for name, number in self.disk.items())))
        width = max(len(label) for label, _ in lines)
        return "\n".join([f"What preset {self.preset} needs here:", *(f"  {a:<{width}}  {b}" for a, b in lines)])


def estimate(stages: Sequence[Settings], store: Store | None) -> Plan:
    """The plan of trainings, one after another: of the last one's network, by its speed.

    store: their data, for its counts and a few of its persons; None where it is not at hand: then drawn persons stand
    in, and the counts are the published ones.

    Raises:
        UserError: the memory does not suffice, or the persons for the processes' shares.
    """
    settings, device = stages[-1], pick_device()
    with tempfile.TemporaryDirectory() as folder:
        sample = _drawn(Path(folder), settings) if store is None else store
        persons = {s: len(store.indices(s)) for s in ("train", "valid", "test")} if store else _published(settings)
        guess = round(sum(persons.values()) * (2 * settings.resolution) ** 2 * BYTES[settings.dataset])  # of them all
        persons |= {split: min(persons[split], settings.limit or persons[split]) for split in ("train", "valid")}
        learning = persons["train"] + (persons["valid"] if settings.train_on == "train+valid" else 0)
        for stage in stages:
            check_shares(stage, learning, persons["valid"])
        squares = kept_squares(learning, persons["valid"], 2 * settings.resolution, device)
        with enough_memory(settings, len(sample.skeleton.joints), squares, device), compiling(settings):
            images_per_second, times, weights = _measure(settings, sample, squares > 0, device)
    return Plan(
        preset=settings.preset,
        network=f"{settings.stacks} stacks, {settings.channels} channels, "
        f"{settings.input_size} x {settings.input_size} pixels",
        device=describe(device, compiled=settings.compiled),
        measured_on=f"persons of {store.path.name}" if store else f"{DRAWN} drawn persons",
        persons=persons,
        batch_size=settings.batch_size,
        stages=tuple(
            Stage(
                stage.row.title,
                stage.epochs,
                learning // stage.batch_size,
                stage.epochs * (learning // stage.batch_size) * stage.batch_size / images_per_second,
                stage.epochs * persons["valid"] * times["none"] / processes.count(),
            )
            for stage in stages
        ),
        images_per_second=images_per_second,
        seconds_per_person=times,
        memory=peak_memory(device) + squares,
        cached=squares > 0,
        disk={"store": store.path.stat().st_size if store else guess, "checkpoint": 2 * weights, "record": weights},
    )


def _measure(
    settings: Settings, sample: Store, cached: bool, device: torch.device
) -> tuple[float, dict[str, float], int]:
    """Images a second in training, seconds a person in testing by test-time augmentation, bytes of the weights."""
    rows = sample.indices("train")

    def some(count: int) -> Persons:
        return Persons(sample, np.resize(rows, count), device, cached=cached)

    def speed(steps: int) -> float:
        with Progress(settings, 0, 0, show=False) as bar:
            return train_epoch(run, some(steps * settings.batch_size), settings, 1, bar)["images_per_second"]

    def testing(count: int, tta: Tta) -> float:
        tested, start = some(count), time.perf_counter()
        predict(run.model, tested, size=settings.input_size, tta=tta)
        return (time.perf_counter() - start) / count

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # an earlier run's may have been higher
    run = begin(settings, len(sample.skeleton.joints), device)
    speed(1)  # the first step prepares much
    steps = int(np.clip(ENOUGH * speed(1) / settings.batch_size, 1, 20))
    steps = processes.gather(steps)[0]  # every process has to take as many
    images_per_second = [speed(steps) for _ in range(ROUNDS.get(device.type, 1))][-1]
    testing(2, "none")  # as the first step
    count = int(np.clip(1 / testing(2, "none"), 2, 32))  # of one pass, a second or a batch
    if device.type == "cuda":  # which loads the kernels of a shape when it meets it
        for tta in get_args(Tta):
            testing(count, tta)
    times = {tta: testing(count, tta) for tta in get_args(Tta)}
    return images_per_second, times, sum(values.nbytes for values in run.model.state_dict().values())


#: Of the memory that a batch's kept activations may take: the rest is for gradients and workspaces. Our choice.
ACTIVATIONS_SHARE = 0.7


def enough_memory(
    settings: Settings, joints: int, squares: int, device: torch.device
) -> AbstractContextManager[None]:
    """Around training: where the memory turns out to be full, a sentence proposes half the batch.

    joints: of the skeleton. squares: bytes, `kept_squares`.

    Raises:
        UserError: at once, if the batch cannot fit: the counted bytes that its backward pass needs are more than the
            device has.
    """
    network = settings.network(joints)
    bf16 = fast_bf16(device)
    each = cost.activations(network, settings.input_size, bf16=bf16)
    # Weights, gradients, mean squares and one more for the update; weights in bf16 too.
    held = (18 if bf16 else 16) * cost.parameters(network) + squares
    share, has = settings.batch_size // processes.count(), memory(device)

    def give(fitting: int) -> str:
        """fitting: of one process's share of the batch, which has two images at least."""
        smaller = f"a batch_size of {fitting * processes.count()} or less"
        return "give " + (smaller if fitting >= 2 else "a smaller input_size or fewer channels")

    if held + share * each > has:
        raise UserError(
            f"a batch of {share} needs {(held + share * each) / 2**20:,.0f} MiB and {describe(device)} has "
            f"{has / 2**20:,.0f}: {give(int(ACTIVATIONS_SHARE * (has - held) / each))}"
        )
    return within_memory(device, give(share // 2))


def _published(settings: Settings) -> dict[str, int]:
    drawn = {"train": settings.synthetic_train, "valid": settings.synthetic_valid}
    return dict(PERSONS.get(settings.dataset, drawn))


def _drawn(folder: Path, settings: Settings) -> Store:
    synthetic.write(folder / "drawn", train=DRAWN, valid=1, progress=False)
    reading, path = mpii.read_folder(folder / "drawn"), folder / "store.h5"
    fill(path, reading.persons, reading.images, dataset="drawn", resolution=settings.resolution, progress=False)
    return Store(path)


def counted(number: int, what: str) -> str:
    """A number with its noun."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def size(number: float) -> str:
    """Bytes in the largest binary unit of which there is at least one, from MiB on."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
