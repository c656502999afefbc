"""The gradient of the heat-map convolution with sharper, soft and no attention (§2.3)."""

import copy
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from scanet.config import Settings, resolve
from scanet.data.loader import Batch
from scanet.data.prepare import open_store
from scanet.losses import heatmap_loss
from scanet.measure import gradients
from scanet.measure.gradients import Dials, heatmap_norms, measure, ratios, same_start
from scanet.model import gumbel_difference
from scanet.report import figures, tables
from scanet.train import build

CPU = torch.device("cpu")


def settings(module: str = "SSA", **changes: object) -> Settings:
    return resolve(**{"preset": "tiny", "module": module, "stacks": 2, **changes})


@pytest.fixture(scope="module")
def batch() -> Batch:
    random = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 64, 64, generator=random) - 0.5
    return Batch(images, torch.rand(4, 16, 16, 16, generator=random), torch.arange(4))


def test_networks_start_with_the_same_weights() -> None:
    source = build(settings("SSA"), 16, CPU)
    for module in ("soft", "MSFI"):
        model = same_start(settings(module), 16, CPU)
        theirs = source.state_dict()
        for name, value in model.state_dict().items():
            assert torch.equal(value, theirs[name]), name
    only = set(theirs) - set(model.state_dict())
    assert only
    assert all(".ssa." in name for name in only)


def test_norms_are_those_of_the_loss_and_leave_the_model_alone(batch: Batch) -> None:
    model = build(settings(), 16, CPU)
    before = copy.deepcopy(model.state_dict())
    noise = gumbel_difference((4, 2, 16, 16), torch.Generator().manual_seed(0))
    norms = heatmap_norms(model, [batch, batch], [None, noise])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    # Slow reference: backward through everything, one batch after the other.
    expected = []
    for draw in (None, noise):
        other = copy.deepcopy(model).train()
        heatmap_loss(other(batch.images, draw)[0], batch.targets).backward()
        expected.append([float(stack.heatmap.weight.grad.norm()) for stack in other.stacks])
    assert norms == pytest.approx(pd.DataFrame(expected).mean().tolist(), rel=1e-4)


def test_constant_maps_scale_the_gradient_by_their_value(batch: Batch) -> None:
    """With equal logits soft attention is 1 / cells everywhere and SSA one half: half the number of cells apart.

    To first order in the heat-map convolution's weight, which is therefore made small.
    """
    norms = {}
    for module in ("SSA", "soft", "MSFI"):
        model = same_start(settings(module, stacks=1, heatmap_std=1e-6), 16, CPU)
        for name, parameter in model.named_parameters():
            if ".ssa." in name:
                torch.nn.init.zeros_(parameter)
        (norms[module],) = heatmap_norms(model, [batch], [None])
    assert norms["SSA"] / norms["soft"] == pytest.approx(16 * 16 / 2, rel=1e-3)
    assert norms["SSA"] / norms["MSFI"] == pytest.approx(1 / 2, rel=1e-3)


def test_measure_has_a_line_for_each_epoch_stack_and_network(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANET_HOME", str(project))
    store = open_store(settings(), progress=False)
    dials = Dials(persons=16, epochs=1, batches=2)
    finished = {module: same_start(settings(module), 16, CPU) for module in gradients.MODULES}
    table = measure(settings(), dials, store, CPU, finished, progress=False)
    shape = table.groupby(["training", "module", "noise"]).size().to_dict()
    assert shape == {
        (training, *network): 2 * epochs
        for training, epochs in (("short", 2), ("finished", 1))
        for network in (("SSA", False), ("SSA", True), ("soft", False), ("MSFI", False))
    }
    short, at_the_end = (table[table["training"] == training] for training in ("short", "finished"))
    assert set(short["epoch"]) == {0, 1}
    assert set(at_the_end["epoch"]) == {settings().epochs}
    assert set(table["batches"]) == {2}
    assert (table["norm"] > 0).all()
    pd.testing.assert_frame_equal(measure(settings(), dials, store, CPU, finished, progress=False), table)
    # At the start the networks share their weights, so that without attention the gradients are the largest.
    start = short[(short["epoch"] == 0) & ~short["noise"]].set_index(["module", "stack"])["norm"]
    assert start["soft", 1] < start["SSA", 1] < start["MSFI", 1]
    # These "finished" networks are the initial ones, and are measured on the same batches and draws.
    initial = short[short["epoch"] == 0].set_index(["module", "noise", "stack"])["norm"]
    assert at_the_end.set_index(["module", "noise", "stack"])["norm"].to_dict() == pytest.approx(initial.to_dict())
    shown = tables.finished_norms(table)
    assert list(shown.index) == ["SSA, noise-free", "SSA, one draw", "soft", "MSFI"]
    assert shown.loc["soft"].to_list() == pytest.approx([initial["soft", False, 1], initial["soft", False, 2]])


def test_ratios_are_of_the_same_seed_epoch_and_stack() -> None:
    lines = [
        (seed, training, epoch, module, noise, norm * (1 + seed))
        for seed in (0, 1)
        for training, epoch, scale in (("short", 0, 100.0), ("short", 1, 10.0), ("finished", 9, 1000.0))
        for module, noise, norm in (("SSA", False, scale), ("SSA", True, 2 * scale), ("soft", False, 4.0))
    ]
    table = pd.DataFrame(lines, columns=["seed", "training", "epoch", "module", "noise", "norm"]).assign(stack=1)
    found = ratios(table)
    assert len(found) == 12
    for epoch, noise, expected in ((0, False, 25), (0, True, 50), (1, False, 2.5), (1, True, 5), (9, False, 250)):
        of = found[(found["epoch"] == epoch) & (found["noise"] == noise)]
        assert of["ratio"].tolist() == [expected, expected]
    shown = tables.gradient_ratios(found)
    assert shown["noise-free", 1].tolist() == [25, 2.5, 250]
    assert shown["one draw", 1].tolist() == [50, 5, 500]
    assert shown.index.to_list() == [("short", 0), ("short", 1), ("finished", 9)]
    figure = figures.gradient_norms(table.assign(stack=1), found)
    assert figure.axes[1].lines[0].get_ydata().tolist() == pytest.approx([25, 2.5])
    assert all(ax.get_yscale() == "log" for ax in figure.axes)
    plt.close("all")


def test_the_comparison_is_of_rows_that_differ_in_attention_alone() -> None:
    rows = [settings(module).row for module in gradients.MODULES]
    assert [row.attention for row in rows] == ["sharper", "soft", "none"]
    assert len({(row.msfi, row.messages, row.sacwa, row.hard_mining) for row in rows}) == 1
