"""The plain way computes what the package computes; counts against closed forms; ratios from a record."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_processes import together
from torch import nn

from scanet import cost
from scanet.bench import machine, measure, plain, report
from scanet.config import ROWS, Network, Settings, resolve
from scanet.data.loader import Persons
from scanet.data.prepare import open_store
from scanet.data.store import Store
from scanet.data.transforms import draw_augmentation
from scanet.files import UserError
from scanet.inference import predict
from scanet.losses import heatmap_loss
from scanet.model import SCANet, gumbel_difference
from scanet.train import build

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(project: Path) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANET_HOME", str(project))
        return open_store(resolve(preset="tiny"), progress=False)


def settings(module: str = "SSA", **changes: Any) -> Settings:
    return resolve(**{"module": module, "preset": "tiny", "batch_size": 4, **changes})


@pytest.mark.parametrize("border", ["empty", "partial"])
def test_the_plain_ways_samples_are_the_packages(border: str, store: Store) -> None:
    """Images, and targets with missing joints and some just beyond the picture, mirrored or not."""
    here, rows = settings(border=border), store.indices("train")[:16]
    draw = draw_augmentation(16, here, torch.Generator().manual_seed(3))
    assert 0 < int(draw.flip.sum()) < 16
    missing = Store(store.path)
    missing.joints[rows[::3], 2:4] = np.nan  # both hips, so mirrored or not
    missing.center[rows[2::3]] += 90 * missing.scale[rows[2::3], None]  # nearly half a box off
    (ours,) = Persons(missing, rows, CPU).training_batches(here, torch.arange(16)[None], draw)
    theirs = plain.Samples(missing, rows, here, draw)
    peaks = ours.targets.amax(dim=(2, 3))
    assert ((peaks > 0) & (peaks < 0.7)).any() == (border == "partial")
    for i in range(16):
        image, target = theirs[i]
        torch.testing.assert_close(image, ours.images[i], atol=5e-5, rtol=0)  # a grey level is 0.004
        torch.testing.assert_close(target, ours.targets[i], atol=1e-5, rtol=0)
    assert ours.targets[0, 2:4].sum() == 0 < ours.targets[1, 2:4].sum()


@pytest.mark.parametrize("module", ["Baseline", "ALL"])
def test_the_plain_ways_loss_is_the_packages(module: str, store: Store) -> None:
    """The loss in fp32, and whole steps in double precision, as batch normalisation amplifies rounding in them."""
    here = settings(module, input_size=128, batch_size=8)
    rows = store.indices("train")[:16]
    draw = draw_augmentation(16, here, torch.Generator().manual_seed(3))
    noise = [gumbel_difference((8, 1, 32, 32), torch.Generator().manual_seed(i)) for i in range(2)]
    top_k = here.top_k if here.row.hard_mining else None
    batches = list(Persons(store, rows, CPU).training_batches(here, torch.arange(16).view(2, 8), draw))
    samples = plain.loader(plain.Samples(store, rows, here, draw), 8, CPU)

    def both(kind: torch.dtype, rate: float) -> tuple[SCANet, float, SCANet, float]:
        ours = build(here, 16, CPU).to(kind)
        optimizer = torch.optim.SGD(ours.parameters(), lr=rate)
        losses = []
        for batch, drawn in zip(batches, noise, strict=True):
            loss = heatmap_loss(ours(batch.images.to(kind), drawn)[0], batch.targets, top_k)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        theirs = build(here, 16, CPU).to(kind, memory_format=torch.contiguous_format)
        same = [(b.images.to(kind), b.targets) for b in batches]
        optimizer = torch.optim.SGD(theirs.parameters(), lr=rate)
        return ours, float(np.mean(losses)), theirs, plain.train(theirs, optimizer, same, noise, top_k, CPU)

    _, ours, other, theirs = both(torch.float32, 0.0)
    assert theirs == pytest.approx(ours, abs=1e-5)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.0)
    from_store = plain.train(other, optimizer, samples, noise, top_k, CPU)
    assert from_store == pytest.approx(ours, rel=1e-3)  # the pictures' last digits differ
    a, ours, b, theirs = both(torch.float64, 1e-3)
    assert theirs == pytest.approx(ours, rel=1e-5)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-5)


def test_the_plain_ways_six_scales_are_the_packages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanet.device.fast_bf16", lambda _: False)
    rows = store.indices("valid")[:5]
    model = build(settings("Baseline"), 16, CPU).eval()
    ours = predict(model, Persons(store, rows, CPU), size=64, tta="six-scale").joints
    theirs = plain.six_scale(model, store, rows, 64, CPU)
    distance = np.linalg.norm(ours - theirs, axis=2)
    assert np.mean(distance < 1e-2) > 0.9  # where two points are equally high, a rounding decides
    assert np.median(distance) < 1e-3


def test_counts_of_one_convolution_are_its_closed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 x 3, 4 to 8 channels, 10 x 10 pixels, batches of 2, then a sum: forward and backward."""

    class Small(nn.Module):
        def __init__(self, _: Network) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)

        def forward(self, images: torch.Tensor, _noise: None) -> tuple[torch.Tensor, None]:
            return self.layer(images), None

    monkeypatch.setattr(cost, "SCANet", Small)
    monkeypatch.setattr(cost, "heatmap_loss", lambda heatmaps, _: heatmaps.sum())
    found = cost.training_step(Network(), 16, 2, bf16=False)
    by_name = {o.name: o for o in found}
    n, pixels = 2, 16 * 16
    images, weights, features = n * 3 * pixels, 8 * 3 * 9, n * 8 * pixels
    forward = 2 * n * pixels * 8 * 3 * 9
    assert by_name["convolution"].flops == forward
    assert by_name["convolution"].bytes == 4 * (images + weights + features)
    assert by_name["convolution_backward"].flops == forward  # none by the images, which need no gradient
    assert by_name["convolution_backward"].bytes == 4 * (features + images + weights + weights)
    assert by_name["sum"].bytes == 4 * (features + 1)
    assert "expand" not in by_name  # a view moves nothing
    assert cost.activations(Network(), 16, bf16=False) == 4 * images / n


def test_training_takes_three_times_the_forward_passs_operations() -> None:
    network = Network(row=ROWS["ALL"], stacks=1, channels=32)
    counted = sum(o.flops for o in cost.training_step(network, 64, 2, bf16=True)) / 2
    by_images = 2 * 32**2 * 8 * 3 * 7**2  # which need no gradient: the first layer's, 7 x 7, 3 to 8 channels
    assert counted == 3 * cost.flops(network, 64) - by_images


def test_half_the_width_of_numbers_is_less_to_move_and_to_keep() -> None:
    network = Network(stacks=1, channels=32)
    moved = {bf16: sum(o.bytes for o in cost.training_step(network, 64, 2, bf16=bf16)) for bf16 in (True, False)}
    assert 0.5 < moved[True] / moved[False] < 0.65
    kept = {bf16: cost.activations(network, 64, bf16=bf16) for bf16 in (True, False)}
    assert 0.45 < kept[True] / kept[False] < 0.65


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mkldnn_convolution", "convolution"),
        ("convolution_backward", "convolution"),
        ("addmm", "convolution"),
        ("aten::native_batch_norm_backward", "normalisation"),
        ("threshold_backward", "activation"),
        ("max_pool2d_with_indices", "pooling and up-sampling"),
        ("upsample_bilinear2d", "pooling and up-sampling"),
        ("_to_copy", "copies and casts"),
        ("aten::add_", "sums and joins"),
        ("aten::addcdiv_", cost.OTHER),
        ("aten::_foreach_addcmul_", cost.OTHER),
        ("sigmoid", cost.OTHER),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert cost.kind(name) == kind


def record() -> dict[str, Any]:
    base = {"training, fixed batch": [10.0, 10.0, 4.0], "training, from the store": [9.0, 10.0, 4.0]}
    return {
        "device": "cpu, 2 threads, bf16",
        "rows": {
            "Baseline": {**base, "training, plain": [3.0, 2.5, 1.0], "flops": 100, "peak_memory": 2**30},
            "ALL": {"training, fixed batch": [5.0, 6.0, 2.0], "flops": 164, "peak_memory": None},
        },
        "others": {"input": [0.001, 0.002, 0.1], "PCKh": [0.004, 0.006, 0.003]},
        "machine": {"matrix": {"fp32": 100.0, "bf16": 200.0}, "bandwidth": 10.0},
        "stages": [
            {"kind": "convolution", "flops": 10, "bytes": 1, "limit": 0.05, "seconds": 0.1},
            {"kind": "activation", "flops": 0, "bytes": 5, "limit": 0.5, "seconds": 0.0},
        ],
    }


def test_ratios_are_medians_of_the_rounds_ratios() -> None:
    found = report.targets(record())
    assert found.loc["training, times the plain way: Baseline", "value"] == 4  # of 3, 4 and 4
    assert found.loc["training, times the plain way: Baseline", "met"]
    assert found.loc["input, of a step on a batch in memory", "value"] == pytest.approx(0.02)
    assert found.loc["PCKh of 2,958 persons (ms)", "value"] == 4
    allowed = found.loc["the slowest row's time, of allowed"]
    assert allowed["value"] == pytest.approx(2 / (1.15 * 1.64))
    assert not allowed["met"]
    assert allowed["why"].startswith("ALL: ")
    table = report.rates(record())
    assert table["time, of allowed"].tolist() == pytest.approx([1 / 1.15, 2 / (1.15 * 1.64)])
    assert table.loc["Baseline", "training, fixed batch"] == 10
    assert table.loc["Baseline", "peak memory (GiB)"] == 1
    stages = report.roofline(record())
    assert stages.loc["convolution", "of the limit"] == 0.5
    assert np.isnan(stages.loc["activation", "of the limit"])


def test_a_missed_target_is_explained_from_the_profile() -> None:
    slow = record()
    slow["rows"]["Baseline"]["training, plain"] = [9.0, 10.0, 4.0]
    line = report.targets(slow).loc["training, times the plain way: Baseline"]
    assert not line["met"]
    text = report.where_time_goes(slow)
    assert text.startswith("100% of the step is convolution, at 50% of the machine's limit")
    assert text.endswith("Baseline would train 0.1 times the plain way")  # 200 / (3 x 100) images a second, and 9


def test_records_side_by_side_have_a_line_for_every_target_that_one_of_them_speaks_of() -> None:
    gpu = record() | {"device": "cuda"}
    gpu["rows"]["Baseline"]["training, compiled"] = [30.0, 30.0, 30.0]
    table = report.side_by_side({"a processor": record(), "a GPU": gpu})
    plain, compiled = "training, times the plain way: Baseline", "the same, by torch.compile: Baseline"
    assert table.loc[(plain, "at least 3")].tolist() == ["4 ✓", ""]
    assert table.loc[(plain, "at least 5")].tolist() == ["", "4 ✗"]
    assert table.loc[(compiled, "at least 5")].tolist() == ["", "12 ✓"]
    assert table.loc[("PCKh of 2,958 persons (ms)", "at most 5")].tolist() == ["4 ✓", "4 ✓"]


def test_a_benchmarks_record_is_plain_and_speaks_of_every_target(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "SHORTEST", 0.0)
    monkeypatch.setattr(machine, "matrix_rate", lambda *_: 1e11)
    monkeypatch.setattr(machine, "bandwidth", lambda *_: 1e10)
    monkeypatch.setattr(torch, "compile", lambda model: model)  # the lane, without minutes of a compiler
    rows = measure.rows_of(settings("Baseline", compiled=True), ["Baseline", "SSA"])
    found = measure.measure(rows, store, ["Baseline"], 2, CPU, progress=False)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found["rows"]) == ["Baseline", "SSA"]
    for name, values in found["rows"]["Baseline"].items():
        assert not isinstance(values, list) or (len(values) == 2 and min(values) > 0), name
    assert not {"training, plain", "training, compiled"} & set(found["rows"]["SSA"])
    assert "training, compiled" in found["rows"]["Baseline"]
    whats = " ".join(report.targets(found).index)
    for word in ("times the plain way", "input", "six scales", "PCKh", "slowest", "by torch.compile: Baseline"):
        assert word in whats
    assert {stage["kind"] for stage in found["stages"]} == {*cost.KINDS, cost.OTHER}
    assert report.roofline(found).loc["convolution", "seconds"] > 0


def test_a_benchmark_leaves_the_weights(store: Store) -> None:
    """Training for the clock must not run away to numbers that are slow or not finite."""
    (here,) = measure.rows_of(settings("Baseline"), ["Baseline"])
    bench = measure._Bench([here], store, ["Baseline"], CPU)
    before = build(here, 16, CPU).state_dict()
    bench.lanes[0].train(measure.Repeated(bench.batch, 3, CPU))
    for name, value in bench.lanes[0].run.model.named_parameters():
        torch.testing.assert_close(value, before[name], atol=1e-6, rtol=0, msg=name)


TOGETHER = """
import json

import torch

from scanet import processes
from scanet.bench import run
from scanet.config import resolve

device = torch.device("cpu")
processes.join(device)
seen = []
with processes.first_by_itself() as mine:
    seen = [mine, processes.rank() if mine else None, processes.count() if mine else None]
here = resolve(preset="tiny", batch_size=4)
record, path = run.bench(here, ["Baseline", "SSA"], 2, device, progress=False)
after = [processes.rank(), processes.count()]
print(json.dumps({"seen": seen, "after": after, "rows": record["rows"], "path": str(path)}))
"""


def test_two_processes_measure_what_they_train_together(project: Path) -> None:
    """Process 0 trains by itself meanwhile the other waits; both have one record, and number 0 writes it."""
    first, second = (json.loads(line) for line in together(TOGETHER, project))
    assert first["seen"] == [True, 0, 1]
    assert second["seen"] == [False, None, None]
    assert (first["after"], second["after"]) == ([0, 2], [1, 2])
    assert first["rows"] == second["rows"]
    saved = json.loads(Path(first["path"]).read_text(encoding="utf-8"))
    assert saved["processes"] == 2
    assert Path(first["path"]).name == "1-stacks-16-channels-64-pixels-2-processes.json"
    assert list(saved["rows"]) == ["Baseline", "SSA"]
    for found in saved["rows"].values():
        assert [len(rates) for rates in (found["alone"], found["together"])] == [2, 2]
        assert min(found["alone"] + found["together"]) > 0


def test_times_one_is_the_median_of_the_rounds_ratios() -> None:
    found = report.together(
        {"processes": 3, "rows": {"SSA": {"alone": [10.0, 5.0, 4.0], "together": [20.0, 20.0, 4.0]}}}
    )
    assert found.loc["SSA"].tolist() == [5.0, 20.0, 2.0, "2.00, 4.00, 1.00"]


def test_machine_is_measured_and_named() -> None:
    assert machine.matrix_rate(CPU, torch.float32, repeats=1) > 1e8
    assert machine.bandwidth(CPU, repeats=1) > 1e7
    assert machine.slug(CPU).replace("-", "").isalnum()
    rise = machine.peak_of(lambda: torch.ones(2**25), CPU)
    assert rise is None or rise > 0.9 * 2**27


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_a_peak_that_the_system_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """In some containers the peak cannot be reset."""
    done: list[str] = []
    machine.peak_of(lambda: done.append("once"), CPU)

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    assert machine.peak_of(lambda: done.append("again"), CPU) is None
    assert done == ["once", "again"]


def test_full_memory_is_a_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(measure, "train_epoch", full)
    with pytest.raises(UserError, match=r"the memory of cpu.* is full: give a --batch-size below 4"):
        measure.measure([replace(settings(), learning_rate=1e-9)], store, [], 1, CPU, progress=False)
