"""The training loop: RMSprop, a falling rate (`rate`), validation each epoch, a checkpoint each epoch.

Every epoch draws its randomness from (seed, epoch) alone, so a run that was killed and goes on from its last
checkpoint ends with the same weights and the same history as one that was not: on a CPU to the last bit, on a GPU but
for the order in which its kernels add, which no two runs share there.
"""

import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from scanet import processes
from scanet.config import Settings
from scanet.data.loader import Persons, kept_squares
from scanet.data.store import Store
from scanet.data.transforms import draw_augmentation
from scanet.device import autocast, keep_freed_memory, memory_is_full
from scanet.files import UserError, whole_file
from scanet.inference import at_once, predict
from scanet.losses import heatmap_loss
from scanet.model import SCANet, UnroundedConv2d
from scanet.pckh import CONVENTION, PCK

#: §3.1: "drop the learning rate by 10 at the 150th, 170th, and 200th epoch"; the length is PN's script's.
DROPS, OF_EPOCHS = (150, 170, 200), 250

Epoch = dict[str, float]


def learning_rate(epoch: int, epochs: int, initial: float) -> float:
    """The rate of an epoch, counted from 1: a tenth from the start of each of §3.1's epochs on.

    In a run of another length than 250 epochs the drops come after the same share of it.
    """
    passed = sum((epoch - 1) * OF_EPOCHS >= (drop - 1) * epochs for drop in DROPS)
    return initial * 0.1**passed


def rate(settings: Settings, epoch: int, share: float = 0.0) -> float:
    """The learning rate in an epoch, counted from 1, of which a share is over: "linear" falls at every step."""
    if settings.schedule == "linear":
        return settings.learning_rate * (1 - (epoch - 1 + share) / settings.epochs)
    if settings.schedule == "constant":
        return settings.learning_rate
    return learning_rate(epoch, settings.epochs, settings.learning_rate)


def build(settings: Settings, joints: int, device: torch.device) -> SCANet:
    """The network with the initial weights of the seed, PyTorch's defaults (paper silent)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = SCANet(settings.network(joints))
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


#: Each weight starts at a multiple of so many elements: of 16 bytes in bf16, as a GPU's fast kernels want.
ALIGNED = 8


class Weights:
    """All parameters of a model in one vector, which they are views of from now on, and their gradients in its own.

    One rounding to bf16, one collection of gradients and one update of the vector take the place of hundreds of small
    operations each, for which a GPU would wait: a step has about half as many. On a CPU it is the step that autocast
    and the parameters' own gradients make, to the last bit.

    low: the number format that autocast gives convolutions and products of matrices; None if it gives them none.
    """

    def __init__(self, model: nn.Module, low: torch.dtype | None = None) -> None:
        self._parameters = list(model.parameters())
        places, size = [], 0
        for p in self._parameters:
            places.append((p.shape, p.stride(), size))  # the strides are dense in either memory format
            size += -(-p.numel() // ALIGNED) * ALIGNED
        self.vector = nn.Parameter(self._parameters[0].new_zeros(size))  # gaps stay 0, as their gradient is
        self.vector.grad = torch.zeros_like(self.vector)
        self._own = [self.vector.data.as_strided(*place) for place in places]
        self._gradients = [self.vector.grad.as_strided(*place) for place in places]
        for p, own in zip(self._parameters, self._own, strict=True):
            p.data = own.copy_(p.data)
        self._low = torch.empty_like(self.vector.data, dtype=low) if low is not None else None
        rounded = {
            p
            for module in model.modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, UnroundedConv2d)
            for p in module.parameters(recurse=False)
        }
        self._in_step = [
            self._low.as_strided(*place) if self._low is not None and p in rounded else own
            for p, own, place in zip(self._parameters, self._own, places, strict=True)
        ]

    @contextmanager
    def in_steps(self) -> Iterator[None]:
        """In the block the model's weights are what `round` last made of the vector; after it they are its own."""
        self._put(self._in_step)
        try:
            yield
        finally:
            self._put(self._own)

    def _put(self, values: Iterable[Tensor]) -> None:
        for p, value in zip(self._parameters, values, strict=True):
            p.grad = None  # of the other number format
            p.data = value

    def round(self) -> None:
        """Before a step's forward pass."""
        if self._low is not None:
            self._low.copy_(self.vector.data)

    def collect(self) -> Tensor:
        """After its backward pass: the vector's gradient. A parameter that took no part has 0."""
        found: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p, gradient in zip(self._parameters, self._gradients, strict=True):
            if p.grad is None:
                gradient.zero_()
            else:
                found[p.dtype].append((gradient, p.grad))
                p.grad = None
        for pairs in found.values():
            torch._foreach_copy_([gradient for gradient, _ in pairs], [each for _, each in pairs])
        assert self.vector.grad is not None
        return self.vector.grad


@dataclass
class Training:
    """A run in progress: what a checkpoint holds, and how a step calls the model."""

    model: SCANet
    weights: Weights
    optimizer: torch.optim.Optimizer
    history: list[Epoch]
    forward: Callable[..., Any]

    def save(self, path: Path) -> None:
        """One safetensors file: weights, the optimizer's state; as metadata the history and how many processes."""
        tensors = {f"model.{k}": v.contiguous() for k, v in self.model.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer.state_dict()["state"][0].items()}
        with whole_file(path) as temporary:
            about = {"history": json.dumps(self.history), "processes": str(processes.count())}
            temporary.write_bytes(save(tensors, metadata=about))  # safetensors would hide what the disk says

    def load(self, path: Path) -> None:
        """Raises UserError if the file is of another number of processes, of another network, or damaged."""
        try:
            self._load(path)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            if memory_is_full(error):  # which says nothing of the file
                raise
            first, *_ = str(error).splitlines() or [""]
            raise UserError(
                f"{path} is no checkpoint of this network ({first}): delete it, and the training begins anew"
            ) from error

    def _load(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            wrote = int(about.get("processes", processes.count()))  # older files do not say
            if wrote != processes.count():
                raise UserError(
                    f"{path} is of a run by {wrote} processes, and this is one by {processes.count()}, which share a "
                    f"batch otherwise: start {wrote}, or delete it to begin anew"
                )
            self.history = json.loads(about["history"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        state = {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
        if any(values.dim() and values.shape != self.weights.vector.shape for values in state.values()):
            raise ValueError("its optimizer is of weights in another order")
        self.model.load_state_dict(weights)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {0: state}, "param_groups": groups})


def training_rows(store: Store, settings: Settings) -> np.ndarray:
    """The store's rows that the network learns from."""
    splits = ("train", "valid") if settings.train_on == "train+valid" else ("train",)
    return np.concatenate([store.indices(split)[: settings.limit] for split in splits])


def begin(settings: Settings, joints: int, device: torch.device) -> Training:
    """A run before its first step."""
    model = build(settings, joints, device)
    if settings.sync_batch_norm:
        if device.type != "cuda":
            raise UserError(f"sync_batch_norm is for GPUs, and this is a {device.type}: leave it out")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    with autocast(device):
        low = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    weights = Weights(model, low)
    optimizer = optimizer_of([weights.vector], settings.learning_rate)
    return Training(model, weights, optimizer, [], torch.compile(model) if settings.compiled else model)


@contextmanager
def compiling(settings: Settings) -> Iterator[None]:
    """What torch.compile, which needs a C++ compiler on a CPU, says where it does not work becomes one sentence."""
    try:
        yield
    except RuntimeError as error:
        if not settings.compiled or not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        first, *_ = str(error).splitlines() or [""]
        raise UserError(f"torch.compile does not work on this machine ({first}): leave compiled out") from error


def optimizer_of(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """§3.1's RMSprop with Torch7's constants; PyTorch's too adds eps after the square root."""
    return torch.optim.RMSprop(parameters, lr=rate, alpha=0.99, eps=1e-8)


def check_shares(settings: Settings, learning: int, held_out: int) -> None:
    """Raises UserError unless so many persons to learn from and to validate on do for every process's share."""
    if learning < settings.batch_size:
        raise UserError(
            f"{learning} training persons are fewer than a batch of {settings.batch_size}: "
            "give a smaller batch_size or more data"
        )
    if settings.batch_size % processes.count():
        raise UserError(
            f"a batch of {settings.batch_size} cannot be shared by {processes.count()} processes: "
            f"give a batch_size that is a multiple of {processes.count()}"
        )
    if settings.batch_size == processes.count() and not settings.sync_batch_norm:
        raise UserError(
            f"a batch of {settings.batch_size} leaves one person for each of {processes.count()} processes, too few "
            f"for batch statistics: give a batch_size of {2 * processes.count()} or more"
        )
    if held_out < processes.count():
        raise UserError(
            f"there are {held_out} validation persons, and each process needs one, of {processes.count()}: "
            "give more data, or start fewer processes"
        )


def train(
    settings: Settings,
    store: Store,
    checkpoint: Path,
    device: torch.device,
    *,
    initial: SCANet | None = None,
    progress: bool = True,
    on_epoch: Callable[[int, SCANet], object] = lambda *_: None,
) -> tuple[SCANet, list[Epoch]]:
    """Train from `checkpoint` on if it exists, else from the start; returns the model and a row for each epoch.

    initial: its weights are the first ones; None for the seed's.

    Started in several processes, each takes its share of every batch, by its own batch statistics; gradients are
    averaged, and process 0 writes the checkpoint.

    A row holds epoch, learning_rate, loss, pckh (of the validation persons, plain mean, one forward pass each),
    seconds and images_per_second of training.

    on_epoch: called with 0 and the network before anything is learnt, then after each epoch with its number.
    """
    rows, held_out_rows = training_rows(store, settings), store.indices("valid")[: settings.limit]
    check_shares(settings, len(rows), len(held_out_rows))
    keep_freed_memory()
    cached = kept_squares(len(rows), len(held_out_rows), store.canvas, device) > 0
    own = held_out_rows[processes.rank() :: processes.count()]
    people, held_out = (Persons(store, each, device, cached=cached) for each in (rows, own))
    run = begin(settings, len(store.skeleton.joints), device)
    model = run.model
    if initial is not None:
        model.load_state_dict(initial.state_dict())
    if checkpoint.exists():
        run.load(checkpoint)
    with compiling(settings), Progress(settings, len(people), len(run.history), show=progress) as bar:
        if not run.history:
            on_epoch(0, model)
        for epoch in range(len(run.history) + 1, settings.epochs + 1):
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                # for layers that draw by themselves, such as dropout: the paper has none
                torch.manual_seed(epoch_seed(settings.seed, epoch, "layers") + processes.rank())
                row = train_epoch(run, people, settings, epoch, bar)
            average_statistics(model)
            row["pckh"] = validate(model, held_out, settings)
            bar.epoch_done(row)
            run.history.append(row)
            if processes.rank() == 0:
                run.save(checkpoint)
            on_epoch(epoch, model)
    return model, run.history


def train_epoch(run: Training, people: Persons, settings: Settings, epoch: int, bar: "Progress") -> Epoch:
    device = people.device
    steps, share = len(people) // settings.batch_size, settings.batch_size // processes.count()
    mine = slice(processes.rank() * share, (processes.rank() + 1) * share)  # of every batch
    random = torch.Generator().manual_seed(epoch_seed(settings.seed, epoch))
    order = torch.randperm(len(people), generator=random)[: steps * settings.batch_size].view(steps, -1)
    augmentation = draw_augmentation(len(people), settings, random)
    noise_source = torch.Generator(device).manual_seed(epoch_seed(settings.seed, epoch, "noise"))
    noisy = settings.row.attention == "sharper" and settings.attention_noise
    top_k = settings.top_k if settings.row.hard_mining else None
    run.model.train()
    start = time.perf_counter()
    total = torch.zeros((), device=device)
    batches = 0
    with run.weights.in_steps():
        for batch in people.training_batches(settings, order[:, mine], augmentation):
            set_rate(run.optimizer, rate(settings, epoch, batches / steps))
            noise = None
            if noisy:  # for the whole batch, so that it does not depend on the number of processes
                noise = run.model.draw_noise(settings.batch_size, settings.input_size, noise_source)[mine]
            run.weights.round()
            with autocast(device):
                # [0]: a name for the intermediates would keep them through the next step
                heatmaps = run.forward(batch.images.contiguous(memory_format=torch.channels_last), noise)[0]
            loss = heatmap_loss(heatmaps, batch.targets, top_k)
            loss.backward()
            processes.average(run.weights.collect())
            run.optimizer.step()
            total += loss.detach()
            batches += 1
            bar.batch_done(settings.batch_size)
    processes.average(total)
    mean_loss = float(total) / batches  # waits for the device
    if not math.isfinite(mean_loss) or not run.weights.vector.isfinite().all():
        what = "weights" if math.isfinite(mean_loss) else "loss"
        lower = f"give a lower rate than {settings.learning_rate:g} (learning_rate; of fine-tuning, finetune_rate)"
        raise UserError(f"the {what} became infinite or NaN in epoch {epoch}: {lower}")
    seconds = time.perf_counter() - start
    return {
        "epoch": epoch,
        "learning_rate": rate(settings, epoch),
        "loss": mean_loss,
        "seconds": seconds,
        "images_per_second": batches * settings.batch_size / seconds,
    }


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def epoch_seed(seed: int, epoch: int, stream: Literal["data", "noise", "layers"] = "data") -> int:
    """The seed of one of an epoch's generators: order and augmentation, the attention's noise, layers' own draws."""
    entropy = {"data": (seed, epoch), "noise": (seed, epoch, 1), "layers": (seed, epoch, 2)}[stream]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def validate(model: SCANet, persons: Persons, settings: Settings) -> float:
    """`PCKh@0.5`, plain mean, percent, without test-time augmentation; of several processes' persons together."""
    together = at_once(settings.batch_size)
    predictions = predict(model, persons, size=settings.input_size, tta="none", batch_size=together)
    store, rows = persons.store, persons.rows
    metric = PCK(store.skeleton)
    metric.update(predictions.joints, store.joints[rows], store.head_size[rows])
    return reduce(add, processes.gather(metric)).compute().row(CONVENTION)["Mean"]


def average_statistics(model: nn.Module) -> None:
    """The mean of all processes' batch-normalisation statistics, in each of them."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            processes.average(buffer)


class Progress:
    """One bar for the whole run, in images: epoch, loss, PCKh, images/s and the time left."""

    def __init__(self, settings: Settings, people: int, epochs_done: int, *, show: bool) -> None:
        per_epoch = people // settings.batch_size * settings.batch_size
        self._bar = tqdm(
            total=settings.epochs * per_epoch,
            initial=epochs_done * per_epoch,
            desc=f"{settings.module} seed {settings.seed}",
            unit="image",
            unit_scale=True,
            disable=not show or processes.rank() > 0,
            mininterval=1.0,
            maxinterval=60.0,  # else a thread of the bar's draws it every ten seconds, whatever mininterval is
            dynamic_ncols=True,
        )
        self._start = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def batch_done(self, images: int) -> None:
        if not sys.stderr.isatty():  # a notebook keeps every state of the bar: a run of days would make it huge
            self._bar.mininterval = min(60.0, max(1.0, (time.monotonic() - self._start) / 100))
        self._bar.update(images)

    def epoch_done(self, row: Epoch) -> None:
        self._bar.set_postfix_str(f"epoch {row['epoch']}, loss {row['loss']:.5f}, PCKh {row['pckh']:.1f}")
