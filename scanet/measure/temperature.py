"""Attention maps of a trained network at any temperature: what they look like, and what they do to PCKh (§3.3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from scanet.config import ROWS, STRIDE
from scanet.data import transforms
from scanet.data.heatmaps import decode
from scanet.data.loader import Persons
from scanet.data.store import Store
from scanet.device import autocast
from scanet.inference import varied
from scanet.measure import maps
from scanet.model import SCANet
from scanet.pckh import CONVENTION, PCK

#: Half decades around the paper's choice of 1 (§3.3.3), far into both limits of §2.3.
TAUS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
#: Rows that have a temperature.
MODULES = ("SSA", *(name for name, row in ROWS.items() if row.attention == "sharper" and name != "SSA"))
#: What tables and figures call a map without and with Gumbel noise.
NOISE = {False: "noise-free", True: "one draw"}
#: Measures of a map alone, in the table's order.
MEASURES = (
    maps.sharpness, maps.contrast, maps.irregularity, maps.roughness, maps.low, maps.high, maps.extent,
)  # fmt: skip
#: Measures of a map and of where the joints are.
MEASURES_OF_PERSONS = (maps.coverage, maps.at_joints, maps.background)


@dataclass(frozen=True)
class Dials:
    """persons: of the validation persons, at most so many, evenly spaced in their list."""

    persons: int = 200


def choose(rows: np.ndarray, persons: int) -> np.ndarray:
    """At most `persons` of the rows, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(persons, len(rows))).round().astype(int)]


@torch.inference_mode()
def measure(
    model: SCANet,
    store: Store,
    rows: np.ndarray,
    size: int,
    device: torch.device,
    *,
    taus: Sequence[float] = TAUS,
    noises: Sequence[bool] = (False, True),
    seed: int = 0,
    batch_size: int = 25,
) -> pd.DataFrame:
    """The network's maps and its PCKh at each temperature, without noise and with one draw of it a person.

    The draws are the same at every temperature. One row for each of tau, noise (bool) and stack (from 1), with pckh
    (of the whole network: plain mean, percent, one forward pass), and all measures by their names; means over the
    persons.

    Args:
        model: a row with attention.
        size: the network's input, pixels.
    """
    model = model.to(device).eval()
    networks = {tau: varied(model, tau=tau) for tau in taus}
    persons = Persons(store, rows, device)
    visible = torch.as_tensor(store.visible[rows], device=device)
    noise_source = torch.Generator(device).manual_seed(seed)
    cases = [(tau, noisy) for tau in taus for noisy in noises]
    metrics = {case: PCK(store.skeleton) for case in cases}
    found: dict[tuple[float, bool, int], list[np.ndarray]] = {}
    batches = list(torch.arange(len(rows)).split(batch_size))
    for index, squares in zip(batches, persons.squares(batches), strict=True):
        here = index.to(device)
        images, matrix = persons.images(squares, here, size)
        place = persons.center[here], persons.zoom[here], matrix, size
        truth = transforms.to_input(persons.joints[here], *place)
        draw = model.draw_noise(len(index), size, noise_source)
        for tau, noisy in cases:
            with autocast(device):
                heatmaps, outs = networks[tau](images, draw if noisy else None)
            joints = transforms.to_photograph(decode(heatmaps[:, -1].float())[0] * STRIDE, *place)
            chosen = rows[index.numpy()]
            metrics[tau, noisy].update(joints.cpu().double().numpy(), store.joints[chosen], store.head_size[chosen])
            for stack, out in enumerate(outs, start=1):
                attention = out["attention"][:, 0].float()
                values = [each(attention) for each in MEASURES]
                values += [each(attention, truth / STRIDE, visible[here]) for each in MEASURES_OF_PERSONS]
                found.setdefault((tau, noisy, stack), []).append(torch.stack(values, dim=1).cpu().numpy())
    names = [each.__name__ for each in (*MEASURES, *MEASURES_OF_PERSONS)]
    lines = []
    for (tau, noisy, stack), parts in found.items():
        means = np.nanmean(np.concatenate(parts), axis=0)
        pckh = metrics[tau, noisy].compute().row(CONVENTION)["Mean"]
        lines.append(
            {"tau": tau, "noise": noisy, "stack": stack, "pckh": pckh} | dict(zip(names, means, strict=True))
        )
    return pd.DataFrame(lines)
