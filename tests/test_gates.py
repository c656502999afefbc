"""SACWA's gates in a trained network: what is measured of them, and other gates in their place."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from scanet.config import resolve
from scanet.data.loader import Persons
from scanet.evaluation import scores
from scanet.experiment import run_or_load
from scanet.inference import predict
from scanet.measure import gates
from scanet.measure.finished import measure_gates
from scanet.measure.gates import ANOTHER, MEAN, OWN
from scanet.report import figures, tables
from scanet.runs import Run

pytestmark = pytest.mark.usefixtures("at_home")

CPU = torch.device("cpu")


@pytest.fixture
def gated(at_home: None) -> Run:  # noqa: ARG001
    return run_or_load(resolve(module="SACWA", preset="tiny"), progress=False)


def test_a_networks_own_gates_are_those_of_its_forward_pass(gated: Run) -> None:
    assert gated.model is not None
    assert gated.store is not None
    rows = gated.store.indices("valid")[:5]
    persons, size = Persons(gated.store, rows, CPU), gated.settings.input_size
    own, predictions = gates.gates_of(gated.model, persons, size)
    images, _ = persons.images(next(persons.squares([torch.arange(5)])), torch.arange(5), size)
    with torch.inference_mode():
        _, outs = gated.model(images)
    expected = torch.stack([out["gate"] for out in outs])
    torch.testing.assert_close(own, expected, rtol=0, atol=0.02)  # bf16, where the processor has it
    plain = predict(gated.model, persons, size=size, tta="none")
    assert np.array_equal(predictions.joints, plain.joints)
    # given back, they change nothing; closed, what is behind them no longer sees the person
    again = gates.predict_with(gated.model, persons, size, own)
    assert np.array_equal(again.joints, plain.joints)
    assert np.array_equal(again.heat, plain.heat)
    shut = gates.predict_with(gated.model, persons, size, torch.zeros_like(own))
    assert np.ptp(shut.heat, axis=0).max() < 1e-6
    assert np.array_equal(predict(gated.model, persons, size=size, tta="none").heat, plain.heat)  # no hook is left


def test_gates_go_to_the_persons_in_their_order(gated: Run) -> None:
    """Also over several batches: 40 persons are two."""
    assert gated.model is not None
    assert gated.store is not None
    persons = Persons(gated.store, np.resize(gated.store.indices("valid"), 40), CPU)
    size = gated.settings.input_size
    own, plain = gates.gates_of(gated.model, persons, size)
    other = own.clone()
    other[:, 35] = 0.0
    changed = gates.predict_with(gated.model, persons, size, other).heat != plain.heat
    assert changed.any(axis=1).nonzero()[0].tolist() == [35]


def test_the_table_by_hand(gated: Run) -> None:
    assert gated.model is not None
    assert gated.store is not None
    with torch.no_grad():  # so small a network learns gates that hardly differ
        for weight in [w for stack in gated.model.stacks for w in stack.sacwa.selector.parameters()]:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(weight.numel()))
    store, size = gated.store, gated.settings.input_size
    rows, learnt = store.indices("valid"), store.indices("train")[:6]
    table = gates.measure(gated.model, store, rows, learnt, size, CPU)
    own, plain = gates.gates_of(gated.model, Persons(store, rows, CPU), size)
    of = {name: lines.reset_index(drop=True) for name, lines in table.groupby("gate", sort=False)}
    assert list(of) == [OWN, MEAN, ANOTHER]
    stacks, _, channels = own.shape
    for lines in of.values():
        assert lines[["stack", "channel"]].to_numpy().tolist() == [
            [s + 1, c] for s in range(stacks) for c in range(channels)
        ]
    assert of[OWN]["mean"].to_numpy() == pytest.approx(own.mean(dim=1).flatten().numpy(), abs=1e-6)
    assert of[OWN]["spread"].to_numpy() == pytest.approx(own.numpy().std(axis=1).ravel(), abs=1e-6)
    low, high = np.quantile(own.numpy(), gates.BAND, axis=1)
    assert of[OWN][["low", "high"]].to_numpy() == pytest.approx(np.stack([low.ravel(), high.ravel()], 1), abs=1e-6)
    average, _ = gates.gates_of(gated.model, Persons(store, learnt, CPU), size)
    assert of[MEAN]["mean"].to_numpy() == pytest.approx(average.mean(dim=1).flatten().numpy(), abs=1e-6)
    assert of[MEAN]["spread"].max() < 1e-6
    assert of[ANOTHER]["mean"].to_numpy() == pytest.approx(of[OWN]["mean"].to_numpy(), abs=1e-6)
    # the scores: of the network as it is, and with the last person's gates for the first
    assert of[OWN]["pckh"].unique().tolist() == [scores(plain, store, rows).row("plain")["Mean"]]
    turned = torch.cat([own[:, -1:], own[:, :-1]], dim=1)
    swapped = gates.predict_with(gated.model, Persons(store, rows, CPU), size, turned)
    assert own.std(dim=1).max() > 0.02
    assert (swapped.heat != plain.heat).any()
    assert of[ANOTHER]["pckh"].unique().tolist() == [scores(swapped, store, rows).row("plain")["Mean"]]


def test_the_measurement_and_what_is_shown_of_it(gated: Run) -> None:
    one = measure_gates(gated, gates.Dials(persons=4))
    assert one.measurement.name == "tiny/gates/SACWA-s0-persons=4"
    assert one.table()["persons"].unique().tolist() == [4]
    ax, *_ = figures.gates(one.table()).axes
    own = one.table().query("gate == @OWN")
    assert ax.lines[0].get_ydata().tolist() == sorted(own["mean"])
    plt.close("all")


def test_tables_are_means_over_the_seeds() -> None:
    lines = [
        {"gate": gate, "pckh": pckh + 10 * seed, "stack": stack, "channel": channel, "seed": seed,
         "mean": 0.2 + 0.4 * channel + 0.1 * seed, "spread": 0.1 * stack}
        for gate, pckh in ((OWN, 70.0), (MEAN, 68.0), (ANOTHER, 60.0))
        for seed in (0, 1) for stack in (1, 2) for channel in (0, 1)
    ]  # fmt: skip
    found = tables.gate_scores(pd.DataFrame(lines))
    assert found["PCKh@0.5"].to_dict() == {OWN: 75.0, MEAN: 73.0, ANOTHER: 65.0}
    assert found["Δ"].to_dict() == {OWN: 0.0, MEAN: -2.0, ANOTHER: -10.0}
    spreads = tables.gate_spreads(pd.DataFrame(lines))
    assert spreads.index.tolist() == [(1, 0), (1, 1), (2, 0), (2, 1)]
    expected = [[0.4, 0.2, 0.1], [0.5, 0.2, 0.1], [0.4, 0.2, 0.2], [0.5, 0.2, 0.2]]
    assert spreads.to_numpy() == pytest.approx(np.array(expected))
