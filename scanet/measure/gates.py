"""What SACWA's gate does in a trained network: its values, and PCKh with other gates in its place (§2.2).

The gate is one weight for each channel, made "dynamically" (§1) from each person's own features. If it hardly differs
from person to person, it is a constant that the convolutions before it could hold as well.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from scanet.config import ROWS
from scanet.data.loader import Persons
from scanet.data.store import Store
from scanet.evaluation import scores
from scanet.inference import Predictions, predict
from scanet.model import SCANet
from scanet.pckh import CONVENTION

#: Rows that have a gate.
MODULES = ("SACWA", *(name for name, row in ROWS.items() if row.sacwa and row.gate and name != "SACWA"))
#: The gates that a network is given: each person's own, the mean of training persons', and the person's before.
OWN, MEAN, ANOTHER = "its own", "the mean", "another's"
#: Of the persons' values of a channel, for the band in the figure.
BAND = (0.05, 0.95)

Gates = Float[Tensor, "stacks n c"]


@dataclass(frozen=True)
class Dials:
    """persons: of the validation persons, at most so many, evenly spaced; the mean is of at most so many others."""

    persons: int = 1000


@torch.inference_mode()
def measure(
    model: SCANet, store: Store, rows: np.ndarray, learnt: np.ndarray, size: int, device: torch.device
) -> pd.DataFrame:
    """A line for each kind of gate, stack (from 1) and channel (from 0), of one forward pass a person.

    pckh: of the whole network with these gates in every stack, plain mean, percent; mean, spread (standard
    deviation), low and high (`BAND`): of the channel's gate over the persons.

    Args:
        rows: the store's rows to test. learnt: those whose mean gate is tried.
        size: the network's input, pixels.
    """
    model, persons = model.to(device).eval(), Persons(store, rows, device)
    own, predictions = gates_of(model, persons, size)
    average, _ = gates_of(model, Persons(store, learnt, device), size)
    given = {MEAN: average.mean(dim=1, keepdim=True).expand_as(own), ANOTHER: own.roll(1, dims=1)}
    found = {OWN: predictions} | {name: predict_with(model, persons, size, each) for name, each in given.items()}
    tables = []
    for name, gates in ({OWN: own} | given).items():
        low, high = torch.quantile(gates, torch.tensor(BAND, device=device), dim=1)
        columns = {"mean": gates.mean(dim=1), "spread": gates.std(dim=1, correction=0), "low": low, "high": high}
        stacks, channels = np.indices(low.shape)
        table = pd.DataFrame({"stack": stacks.ravel() + 1, "channel": channels.ravel()})
        table = table.assign(**{column: values.flatten().cpu().numpy() for column, values in columns.items()})
        table.insert(0, "pckh", scores(found[name], store, rows).row(CONVENTION)["Mean"])
        table.insert(0, "gate", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def gates_of(model: SCANet, persons: Persons, size: int) -> tuple[Gates, Predictions]:
    """Every person's gates in every stack, and the predictions that they were part of."""
    seen: list[list[Tensor]] = [[] for _ in model.stacks]

    def keep(stack: int, gate: Tensor) -> Tensor:
        seen[stack].append(gate.float())
        return gate

    with _at_the_gates(model, keep):
        predictions = predict(model, persons, size=size, tta="none")
    return torch.stack([torch.cat(each) for each in seen]), predictions


def predict_with(model: SCANet, persons: Persons, size: int, gates: Gates) -> Predictions:
    """The predictions with these gates in place of the network's own."""
    left = list(gates)

    def give(stack: int, gate: Tensor) -> Tensor:
        here, left[stack] = left[stack][: len(gate)], left[stack][len(gate) :]
        return here.to(gate)

    with _at_the_gates(model, give):
        return predict(model, persons, size=size, tta="none")


@contextmanager
def _at_the_gates(model: SCANet, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """Within it, a stack's gate is what `change` makes of the stack's number, from 0, and its own gate (b, c)."""
    hooks = [
        stack.sacwa.selector.register_forward_hook(lambda _, __, gate, number=number: change(number, gate))  # type: ignore[union-attr]
        for number, stack in enumerate(model.stacks)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
