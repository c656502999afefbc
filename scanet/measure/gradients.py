"""§2.3: "the gradients with respect to the parameters of the last convolution layer whose input is the attended
feature are 10-100x larger than the soft one".

Networks with sharper, soft and no attention are trained side by side for a short while, and the gradient of each
stack's heat-map convolution is measured on the same batches; so is that of the finished runs of these rows.
"""

import copy
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from scanet.config import Settings
from scanet.data.loader import Batch, Persons
from scanet.data.store import Store
from scanet.data.transforms import draw_augmentation
from scanet.losses import heatmap_loss
from scanet.model import SCANet, gumbel_difference
from scanet.train import build, epoch_seed, train

#: The networks that are compared: they differ in the attention alone.
MODULES = ("SSA", "soft", "MSFI")


@dataclass(frozen=True)
class Dials:
    """persons: training persons to learn from, in each of the `epochs`. batches: of them, to measure gradients on."""

    persons: int = 120
    epochs: int = 4
    batches: int = 4


def same_start(settings: Settings, joints: int, device: torch.device) -> SCANet:
    """The network with the initial weights of the seed's `MODULES[0]`, as far as it has the same layers.

    The seed alone does not do: a layer that only one network has moves the random numbers of all after it.
    """
    model = build(settings, joints, device)
    source = build(dataclasses.replace(settings, module=MODULES[0]), joints, device).state_dict()
    model.load_state_dict({name: source[name] for name in model.state_dict()})
    return model


def heatmap_norms(model: SCANet, batches: Sequence[Batch], noises: Sequence[Tensor | None]) -> list[float]:
    """For each stack, the L2 norm of the loss's gradient with respect to its heat-map convolution's weight.

    The mean over the batches of each batch's norm, with batch normalisation as in training, and without autocast: in
    fp32, which on a GPU is TF32 inside convolutions, as PyTorch has it unless told otherwise. The model is left as it
    is. noises: for each batch Eq. (8)'s draws, or None.
    """
    model = copy.deepcopy(model).train()
    weights = [weight for name, weight in model.named_parameters() if name.endswith(".heatmap.weight")]
    norms = []
    for batch, noise in zip(batches, noises, strict=True):
        heatmaps, _ = model(batch.images.contiguous(memory_format=torch.channels_last), noise)
        gradients = torch.autograd.grad(heatmap_loss(heatmaps, batch.targets), weights)
        norms.append(torch.stack([g.norm() for g in gradients]))
    return torch.stack(norms).mean(dim=0).tolist()


def measure(
    settings: Settings,
    dials: Dials,
    store: Store,
    device: torch.device,
    finished: Mapping[str, SCANet],
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """A row for each training, epoch, stack (from 1), module and noise (bool), with norm and batches.

    training: "short", with the epochs from 0 (the initial weights) on. All networks begin with the same weights, as
    far as they have the same layers, learn from the same batches by the preset's recipe, and are measured on the
    same further batches. "finished": the networks given, after the settings' epochs, measured on those batches too.
    noise: whether the map was drawn with Gumbel noise in measuring; in training it is, as the settings say.

    finished: by module, those of `MODULES`.
    """
    short = dataclasses.replace(settings, epochs=dials.epochs, limit=dials.persons)
    people = Persons(store, store.indices("train")[: dials.persons], device)
    random = torch.Generator().manual_seed(epoch_seed(settings.seed, 0))  # training's epochs count from 1
    augmentation = draw_augmentation(len(people), settings, random)
    steps = max(1, min(dials.batches, len(people) // settings.batch_size))
    order = torch.randperm(len(people), generator=random)[: steps * settings.batch_size].view(steps, -1)
    batches = list(people.training_batches(settings, order, augmentation))
    shape = (settings.batch_size, settings.stacks, settings.heatmap_size, settings.heatmap_size)
    noise_source = torch.Generator(device).manual_seed(epoch_seed(settings.seed, 0, "noise"))
    draws = [gumbel_difference(shape, noise_source) for _ in batches]
    lines: list[dict[str, object]] = []

    def note(training: str, module: str, epoch: int, model: SCANet) -> None:
        for noisy in (False, True) if module == "SSA" else (False,):
            norms = heatmap_norms(model, batches, draws if noisy else [None] * len(batches))
            for stack, norm in enumerate(norms, start=1):
                of = {"training": training, "epoch": epoch, "stack": stack, "module": module, "noise": noisy}
                lines.append(of | {"norm": norm, "batches": steps})

    with tempfile.TemporaryDirectory() as folder:
        for module in MODULES:
            one = dataclasses.replace(short, module=module)
            initial = same_start(one, len(store.skeleton.joints), device)
            checkpoint, then = Path(folder) / module, partial(note, "short", module)
            train(one, store, checkpoint, device, initial=initial, progress=progress, on_epoch=then)
            note("finished", module, settings.epochs, finished[module].to(device))
    return pd.DataFrame(lines)


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """How many times larger the norm is with SSA than with soft: seed, training, epoch, stack, noise, ratio.

    table: of `measure`, with the column seed.
    """
    pairs = ["seed", "training", "epoch", "stack"]
    of = table.set_index(pairs)
    soft = of[of["module"] == "soft"]["norm"].rename("soft")
    both = of[of["module"] == "SSA"].join(soft)
    return both.assign(ratio=both["norm"] / both["soft"]).reset_index()[[*pairs, "noise", "ratio"]]
