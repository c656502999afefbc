"""One benchmark: every row's training and prediction, the plain way, the machine's limits, all in turns.

Background load and clocks change within minutes. So everything is timed in each of several rounds, one thing after
the other, and a ratio is the median of the rounds' ratios. With one thread on a CPU the processor's time is read
instead of the wall's (`scanet.bench.machine.clock`), which other work on the machine disturbs least.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from scanet import cost
from scanet.bench import machine, plain
from scanet.config import Settings
from scanet.data.loader import Batch, Persons
from scanet.data.store import Store
from scanet.data.transforms import Augmentation, draw_augmentation
from scanet.device import describe, fast_bf16, keep_freed_memory, processor, within_memory
from scanet.inference import predict, predict_heatmaps
from scanet.model import SCANet
from scanet.pckh import PCK
from scanet.train import Progress, Training, begin, build, optimizer_of, train_epoch

#: Seconds that one timing takes at least, but for a single step that takes longer.
SHORTEST = 0.5
#: Steps of a timing on a GPU, at most: our choice, so that its queue is filled and the persons are few.
CUDA_STEPS = 32
#: PCKh's target is for MPII's validation set.
PERSONS = 2958
#: Persons of a six-scale timing, which takes twelve passes for each.
PYRAMID_PERSONS = {"cpu": 2, "cuda": 32}

Timings = dict[str, list[float]]


class Repeated(Persons):
    """A batch in memory in the place of a split: the training loop gets it again and again, at no cost."""

    def __init__(self, batch: Batch, count: int, device: torch.device) -> None:
        self.batch, self.count, self.device = batch, count, device

    def __len__(self) -> int:
        return self.count * len(self.batch.index)

    def training_batches(
        self,
        settings: Settings,  # noqa: ARG002
        order: Int[Tensor, "batches b"],
        augmentation: Augmentation,  # noqa: ARG002
    ) -> Iterator[Batch]:
        for _ in order:
            yield self.batch


@dataclass
class Lane:
    """A row at work: its network under training, and the plain way's where that is compared."""

    settings: Settings
    run: Training
    steps: int = 1
    plain: "Plain | None" = None
    compiled: "Lane | None" = None

    def train(self, people: Persons, *, wall: bool = False) -> float:
        """Images a second of one epoch over `people`."""
        with Progress(self.settings, len(people), 0, show=False) as bar:
            work = partial(train_epoch, self.run, people, self.settings, 1, bar)
            return len(people) / machine.seconds(work, people.device, wall=wall)


@dataclass
class Plain:
    model: SCANet
    optimizer: torch.optim.Optimizer
    noise: list[Tensor] | None


def measure(
    settings: Sequence[Settings], store: Store, compared: Sequence[str], rounds: int, device: torch.device, *,
    progress: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """The record of a benchmark: plain values, lists with a number for each round. See `scanet.bench.report`.

    settings: one for each row, which differ in nothing else; the first row is the one that others are compared with.
    compared: the rows that the plain way trains too, and, if the settings say so, torch.compile.

    Raises:
        UserError: the memory does not suffice.
    """
    keep_freed_memory()
    first = settings[0]
    size, batch_size = first.input_size, first.batch_size
    bf16 = fast_bf16(device)
    started = machine.load()
    with within_memory(device, f"give a --batch-size below {batch_size}"):
        bench = _Bench(settings, store, compared, device)
        with tqdm(total=(rounds + 1) * bench.timings, unit="timing", disable=not progress, dynamic_ncols=True) as bar:
            peaks = bench.warm_up(bar)
            found = [bench.round(bar) for _ in range(rounds)]
        rates = {"fp32": machine.matrix_rate(device, torch.float32), "bf16": 0.0}
        if bf16:
            rates["bf16"] = machine.matrix_rate(device, torch.bfloat16)
        copied = machine.bandwidth(device)
        stages = bench.stages(rates["bf16"] or rates["fp32"], copied, bf16=bf16)
    rows = {
        lane.settings.module: {
            "flops": cost.flops(lane.settings.network(bench.joints), size),
            "activations": cost.activations(lane.settings.network(bench.joints), size, bf16=bf16),
            "peak_memory": peak,
            **_by_name([r[lane.settings.module] for r in found]),
        }
        for lane, peak in zip(bench.lanes, peaks, strict=True)
    }
    return {
        "device": describe(device),
        "processor": processor(device),
        "threads": torch.get_num_threads(),
        "clock": machine.clock(device),
        "load": [started, machine.load()],
        "settings": {"preset": first.preset, "stacks": first.stacks, "channels": first.channels, "input_size": size,
                     "batch_size": batch_size, "joints": bench.joints, "rounds": rounds},
        "rows": rows,
        "others": _by_name([r["others"] for r in found]),
        "machine": {"matrix": rates, "bandwidth": copied},
        "stages": stages,
    }  # fmt: skip


def _by_name(rounds: list[dict[str, float]]) -> Timings:
    return {name: [r[name] for r in rounds] for name in rounds[0]}


class _Bench:
    def __init__(
        self, settings: Sequence[Settings], store: Store, compared: Sequence[str], device: torch.device
    ) -> None:
        self.store, self.device = store, device
        self.joints = len(store.skeleton.joints)
        self.first = settings[0]
        self.rows = store.indices("train")
        if device.type == "cuda":  # steps enough for a timing, and no more; persons again where there are few
            self.rows = np.resize(self.rows, CUDA_STEPS * self.first.batch_size)
        self.augmentation = draw_augmentation(len(self.rows), self.first, torch.Generator().manual_seed(0))
        everybody = Persons(store, self.rows[: self.first.batch_size], device)
        order = torch.arange(self.first.batch_size)[None]
        (self.batch,) = everybody.training_batches(self.first, order, self.augmentation)
        self.lanes = [self._lane(s, plain_too=s.module in compared) for s in settings]
        self.timings = sum(4 + (lane.plain is not None) + (lane.compiled is not None) for lane in self.lanes) + 4

    def _lane(self, settings: Settings, *, plain_too: bool) -> Lane:
        eager = replace(settings, compiled=False)
        lane = Lane(eager, begin(eager, self.joints, self.device))
        if plain_too and settings.compiled:
            lane.compiled = Lane(settings, begin(settings, self.joints, self.device))
        if plain_too:
            other = build(settings, self.joints, self.device).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            optimizer = optimizer_of(other.parameters(), settings.learning_rate)
            noise = None
            if settings.row.attention == "sharper":
                noise = [other.draw_noise(settings.batch_size, settings.input_size, torch.Generator(self.device))]
            lane.plain = Plain(other, optimizer, noise)
        return lane

    def warm_up(self, bar: "tqdm[Any]") -> list[int | None]:
        """One untimed round; how many steps a timing needs, and the peak memory of each row's training step."""
        peaks = []
        for lane in self.lanes:
            bar.set_description(f"{lane.settings.module}, warming up")
            once = Repeated(self.batch, 1, self.device)
            peaks.append(machine.peak_of(lambda lane=lane, once=once: lane.train(once), self.device))  # type: ignore[misc]
            taken = self.first.batch_size / lane.train(once)
            lane.steps = max(1, min(round(SHORTEST / taken), len(self.rows) // self.first.batch_size))
            bar.update(4)
            if lane.plain is not None:
                self._plain(lane, 1)
                bar.update()
            if lane.compiled is not None:
                bar.set_description(f"{lane.settings.module}, torch.compile")
                lane.compiled.train(once)
                bar.update()
        self._others()
        bar.update(4)
        return peaks

    def round(self, bar: "tqdm[Any]") -> dict[str, dict[str, float]]:
        """Images a second, by row and way; under "others" seconds."""
        found: dict[str, dict[str, float]] = {}
        for lane in self.lanes:
            bar.set_description(lane.settings.module)
            people = Persons(self.store, self.rows[: lane.steps * lane.settings.batch_size], self.device)
            found[lane.settings.module] = {
                "training, fixed batch": lane.train(Repeated(self.batch, lane.steps, self.device)),
                "training, from the store": lane.train(people),
                "prediction, fixed batch": self._predict_fixed(lane),
                "prediction, from the store": self._predict_store(lane, people),
            }
            bar.update(4)
            if lane.plain is not None:
                found[lane.settings.module]["training, plain"] = self._plain(lane, lane.steps)
                bar.update()
            if lane.compiled is not None:
                found[lane.settings.module]["training, compiled"] = lane.compiled.train(people)
                bar.update()
        bar.set_description("input, six scales, PCKh")
        found["others"] = self._others()
        bar.update(4)
        return found

    @torch.inference_mode()
    def _predict_fixed(self, lane: Lane) -> float:
        model, images = lane.run.model.eval(), self.batch.images

        def work() -> None:
            for _ in range(lane.steps):
                predict_heatmaps(model, images, "none")

        return lane.steps * len(images) / machine.seconds(work, self.device)

    def _predict_store(self, lane: Lane, people: Persons) -> float:
        size, batch_size = lane.settings.input_size, lane.settings.batch_size
        taken = machine.seconds(
            lambda: predict(lane.run.model, people, size=size, tta="none", batch_size=batch_size), self.device
        )
        return len(people) / taken

    def _plain(self, lane: Lane, steps: int) -> float:
        assert lane.plain is not None
        settings, other = lane.settings, lane.plain
        samples = plain.Samples(self.store, self.rows[: steps * settings.batch_size], settings, self.augmentation)
        batches = plain.loader(samples, settings.batch_size, self.device)
        if batches.num_workers:
            list(batches)  # the workers' start is not counted
        noise = other.noise and other.noise * steps
        top_k = settings.top_k if settings.row.hard_mining else None
        taken = machine.seconds(
            lambda: plain.train(other.model, other.optimizer, batches, noise, top_k, self.device), self.device
        )
        return len(samples) / taken

    def _others(self) -> dict[str, float]:
        """Seconds: of an image's way into a batch, of a person's six-scale test in both ways, and of PCKh."""
        lane, size = self.lanes[0], self.first.input_size
        people = Persons(self.store, self.rows, self.device)
        count = len(self.rows) // self.first.batch_size
        order = torch.arange(count * self.first.batch_size).view(count, -1)
        sink = machine.seconds(
            lambda: [None for _ in people.training_batches(self.first, order, self.augmentation)], self.device
        )
        found = {"input": sink / order.numel()}
        rows = self.rows[: PYRAMID_PERSONS.get(self.device.type, 1)]
        persons = Persons(self.store, rows, self.device)
        ours = machine.seconds(lambda: predict(lane.run.model, persons, size=size, tta="six-scale"), self.device)
        found["six scales"] = ours / len(rows)
        if lane.plain is not None:
            model = lane.plain.model
            taken = machine.seconds(lambda: plain.six_scale(model, self.store, rows, size, self.device), self.device)
            found["six scales, plain"] = taken / len(rows)
        random = np.random.default_rng(0)
        truth = random.uniform(0, 1000, (PERSONS, 16, 2))
        predicted, heads = truth + random.normal(0, 30, truth.shape), np.full(PERSONS, 60.0)

        def score() -> None:
            metric = PCK()
            metric.update(predicted, truth, heads)
            metric.compute()

        found["PCKh"] = machine.seconds(score, torch.device("cpu"))
        return found

    def stages(self, rate: float, bandwidth: float, *, bf16: bool) -> list[dict[str, Any]]:
        """The first row's training step by kinds of operations: counted, at the limit, and as it was; for one image.

        limit: seconds that the operations need, one after the other, each by the slower of its counts.
        seconds: what the profiler saw of the first row's step on a batch in memory.
        """
        lane, n = self.lanes[0], self.first.batch_size
        counted = cost.training_step(lane.settings.network(self.joints), self.first.input_size, n, bf16=bf16)
        cuda = self.device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        once = Repeated(self.batch, 1, self.device)
        with profile(activities=activities, acc_events=True) as profiler:
            start = time.perf_counter()
            taken = len(once) / lane.train(once)
            share = taken / (time.perf_counter() - start)  # of the wall's time, which the profiler reads
        seen: dict[str, float] = {}
        for event in profiler.key_averages():
            own = event.self_device_time_total if cuda else event.self_cpu_time_total
            if event.key.startswith("aten::"):
                seen[cost.kind(event.key)] = seen.get(cost.kind(event.key), 0.0) + own / 1e6
        return [
            {
                "kind": kind,
                "flops": sum(o.flops for o in counted if cost.kind(o.name) == kind) / n,
                "bytes": sum(o.bytes for o in counted if cost.kind(o.name) == kind) / n,
                "limit": sum(max(o.flops / rate, o.bytes / bandwidth) for o in counted if cost.kind(o.name) == kind)
                / n,
                "seconds": seen.get(kind, 0.0) * (1.0 if cuda else share) / n,
            }
            for kind in (*cost.KINDS, cost.OTHER)
        ]


def rows_of(settings: Settings, modules: Sequence[str]) -> list[Settings]:
    """The settings of several rows that differ in nothing else, with a rate that leaves the weights as they are."""
    return [replace(settings, module=module, learning_rate=1e-9) for module in modules]
