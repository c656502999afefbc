"""Training on a few persons: it learns, it can be killed, and its batches show what their targets say."""

import copy
import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import scanet.train
from scanet import processes
from scanet.config import ROWS, Settings, resolve
from scanet.data.heatmaps import draw_targets
from scanet.data.loader import Batch, Persons
from scanet.data.person import Person
from scanet.data.store import Store, fill
from scanet.data.transforms import Augmentation, draw_augmentation
from scanet.files import UserError
from scanet.losses import heatmap_loss
from scanet.model import SCANet, gumbel_difference
from scanet.skeleton import MPII
from scanet.train import Epoch, Weights, build, epoch_seed, learning_rate, train, training_rows

CPU = torch.device("cpu")
TRAINING, HELD_OUT = 8, 3
RIGHT, LEFT = MPII.index("r-wrist", "l-wrist")


def blob(shape: tuple[int, int], x: float, y: float, sigma: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Persons of a box of 100 pixels on a dark ground: a red blob at the right wrist and a green one at the left."""
    folder = tmp_path_factory.mktemp("train")
    random = np.random.default_rng(0)
    persons = []
    for number in range(TRAINING + HELD_OUT):
        center = 100 + random.uniform(-5, 5, 2)
        joints = center + random.uniform(-15, 15, (16, 2))
        pixels = np.full((200, 210, 3), 40.0)
        for joint, channel in ((RIGHT, 0), (LEFT, 1)):
            side = -1 if channel == 0 else 1
            joints[joint] = center + np.array([side * random.uniform(8, 17), random.uniform(-14, 14)])
            bell = blob((200, 210), *joints[joint], sigma=4.0)[..., None]
            pixels = pixels * (1 - bell) + 250 * bell * np.eye(3)[channel]
        Image.fromarray(pixels.round().astype(np.uint8)).save(folder / f"{number}.png")
        split = "train" if number < TRAINING else "valid"
        place = (float(center[0]), float(center[1]))
        persons.append(Person(f"{number}.png", 0, split, place, 0.5, joints, np.ones(16, bool), 15.0))
    fill(folder / "store.h5", persons, folder, dataset="d", resolution=80, progress=False)
    return Store(folder / "store.h5")


def tiny(module: str = "Baseline", **changes: Any) -> Settings:
    return resolve(**{"module": module, "preset": "tiny", "batch_size": 4, "epochs": 3, **changes})


def run(settings: Settings, store: Store, folder: Path, **how: Any) -> tuple[SCANet, list[Epoch]]:
    return train(settings, store, folder / "checkpoint.safetensors", CPU, progress=False, **how)


def same_weights(one: SCANet, other: SCANet) -> bool:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def timeless(history: list[Epoch]) -> list[Epoch]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in history]


# ---- learning ----


def test_loss_falls_below_that_of_knowing_nothing(store: Store, tmp_path: Path) -> None:
    """Eight persons over and over: below half of the first epoch's loss, and below two thirds of empty maps'."""
    plain = {"scale_jitter": 0, "rotation_probability": 0, "colour_jitter": 0}
    settings = tiny("SSA", epochs=20, channels=32, sigma=1.75, **plain)
    _, history = run(settings, store, tmp_path)
    assert [row["epoch"] for row in history] == list(range(1, 21))
    assert history[-1]["loss"] < history[0]["loss"] / 2
    people = Persons(store, store.indices("train"), CPU)
    still = draw_augmentation(TRAINING, settings, torch.Generator().manual_seed(0))
    empty = [
        b.targets.square().mean()
        for b in people.training_batches(settings, torch.arange(TRAINING).view(-1, 4), still)
    ]
    assert history[-1]["loss"] < torch.stack(empty).mean().item() * 2 / 3


def test_history_tells_what_happened(store: Store, tmp_path: Path) -> None:
    settings = tiny(epochs=6, batch_size=3)
    model, history = run(settings, store, tmp_path)
    assert [row["learning_rate"] for row in history] == [learning_rate(e, 6, 2.5e-3) for e in range(1, 7)]
    for row in history:
        assert row.keys() == {"epoch", "learning_rate", "loss", "seconds", "images_per_second", "pckh"}
        assert row["images_per_second"] * row["seconds"] == pytest.approx(6)  # two batches of three, two left over
        assert 0 <= row["pckh"] <= 100
    held_out = Persons(store, store.indices("valid"), CPU)
    assert scanet.train.validate(model, held_out, settings) == history[-1]["pckh"]


# ---- the same run again ----


class Dropping(SCANet):
    """A network with a layer that draws random numbers by itself."""

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Any:
        return super().forward(torch.nn.functional.dropout(images, 0.2, self.training), noise)


@pytest.mark.parametrize(("module", "network"), [("Baseline", SCANet), ("SSA", SCANet), ("Baseline", Dropping)])
def test_killed_and_resumed_run_is_the_uninterrupted_one(
    module: str, network: type, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit of weights and optimizer; a run that is complete is left as it is."""
    monkeypatch.setattr(scanet.train, "SCANet", network)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, history = run(tiny(module), store, tmp_path / "whole")

    validate, calls = scanet.train.validate, []

    def killed(*arguments: Any) -> float:
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*arguments)

    monkeypatch.setattr(scanet.train, "validate", killed)
    torch.manual_seed(7)  # nothing may depend on the global generator
    with pytest.raises(KeyboardInterrupt):
        run(tiny(module), store, tmp_path / "killed")
    torch.manual_seed(8)
    resumed, again = run(tiny(module), store, tmp_path / "killed")
    assert len(calls) == 4  # epochs 1, 2 (killed), 2, 3
    assert same_weights(whole, resumed)
    assert timeless(again) == timeless(history)
    tensors = [safetensors(tmp_path / name / "checkpoint.safetensors")[1] for name in ("whole", "killed")]
    assert tensors[0] == tensors[1]

    finished, third = run(tiny(module), store, tmp_path / "killed")
    assert len(calls) == 4
    assert third == again
    assert same_weights(finished, resumed)


def test_seed_decides(store: Store, tmp_path: Path) -> None:
    found = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        torch.manual_seed(ord(name))
        state = torch.get_rng_state()
        found[name] = run(tiny("SSA", epochs=1, seed=seed), store, tmp_path / name)
        assert torch.equal(torch.get_rng_state(), state)
    assert same_weights(found["a"][0], found["b"][0])
    assert timeless(found["a"][1]) == timeless(found["b"][1])
    assert not same_weights(found["a"][0], found["c"][0])


def test_every_epoch_has_a_seed_of_its_own() -> None:
    seeds = [epoch_seed(seed, epoch) for seed in range(20) for epoch in range(1, 51)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert epoch_seed(3, 4) == epoch_seed(3, 4)
    assert len({epoch_seed(3, 4, stream) for stream in ("data", "noise", "layers")}) == 3


def safetensors(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Metadata and each tensor's bytes, read by the format's definition: nothing else is in the file."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    metadata = header.pop("__metadata__")
    spans = {name: entry["data_offsets"] for name, entry in header.items()}
    assert sum(stop - start for start, stop in spans.values()) == len(data) - end
    return metadata, {name: data[end + start : end + stop] for name, (start, stop) in spans.items()}


def test_checkpoint_holds_tensors_and_the_history_alone(store: Store, tmp_path: Path) -> None:
    """No pickle: nothing in it can be executed."""
    model, history = run(tiny(epochs=1), store, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    metadata, tensors = safetensors(tmp_path / "checkpoint.safetensors")
    assert json.loads(metadata["history"]) == history
    assert {name.removeprefix("model.") for name in tensors if name.startswith("model.")} == model.state_dict().keys()
    rest = {name.split(".")[0] for name in tensors}
    assert rest == {"model", "optimizer"}
    assert {name for name in tensors if name.startswith("optimizer.")} == {"optimizer.step", "optimizer.square_avg"}


def test_another_number_of_processes_does_not_go_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch statistics would be others. A checkpoint that does not say how many wrote it is believed."""
    run(tiny(epochs=1), store, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(processes, "count", lambda: 2)
        with pytest.raises(
            UserError, match=r"safetensors is of a run by 1 processes, and this is one by 2, .* start 1,"
        ):
            run(tiny(), store, tmp_path)
    save_file(load_file(path), path, metadata={"history": safetensors(path)[0]["history"]})
    assert [row["epoch"] for row in run(tiny(epochs=2), store, tmp_path)[1]] == [1, 2]


def test_a_damaged_checkpoint_is_named(store: Store, tmp_path: Path) -> None:
    """Cut short, or of a network that has changed since."""
    run(tiny(epochs=1), store, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    tensors, metadata = load_file(path), safetensors(path)[0]
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"safetensors is no checkpoint of this network \(.*\): delete it"):
            run(tiny(), store, tmp_path)
    name = next(name for name in tensors if name.startswith("model."))
    save_file({("model.other" if n == name else n): t for n, t in tensors.items()}, path, metadata=metadata)
    with pytest.raises(UserError, match=r"is no checkpoint of this network \(Error\(s\) in loading state_dict"):
        run(tiny(), store, tmp_path)
    squares = tensors["optimizer.square_avg"]
    save_file(tensors | {"optimizer.square_avg": squares[:-1].clone()}, path, metadata=metadata)
    with pytest.raises(UserError, match=r"is no checkpoint of this network \(its optimizer is of weights in another"):
        run(tiny(), store, tmp_path)
    save_file(tensors, path)  # without a history
    with pytest.raises(UserError, match=r"is no checkpoint of this network \('history'\)"):
        run(tiny(), store, tmp_path)


def test_a_full_memory_is_not_the_checkpoints_fault(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(epochs=1), store, tmp_path)

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(scanet.train.Training, "_load", full)
    with pytest.raises(RuntimeError, match="allocate memory"):
        run(tiny(), store, tmp_path)


def test_the_bar_is_drawn_seldom_where_every_state_of_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook: after an hour once in 36 seconds, later once a minute."""
    now = [0.0]
    monkeypatch.setattr(scanet.train.time, "monotonic", lambda: now[0])
    with scanet.train.Progress(tiny(), 8, 0, show=False) as bar:
        for seconds, interval in ((10, 1), (3600, 36), (10**6, 60)):
            now[0] = seconds
            bar.batch_done(1)
            assert bar._bar.mininterval == interval


def test_one_vector_holds_all_parameters_and_trains_them_as_each_would_be() -> None:
    """A step of RMSprop in double precision: about 1e-2. What is left are roundings of gradients that are 0."""
    settings = tiny("ALL", stacks=2)
    apart, together = (build(settings, 14, CPU).double() for _ in range(2))
    weights = Weights(together)
    flat = weights.vector
    assert same_weights(apart, together)
    before = flat.detach().clone()
    optimizers = [torch.optim.RMSprop(p, lr=1e-3, alpha=0.99) for p in (apart.parameters(), [flat])]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for model, optimizer in zip((apart, together), optimizers, strict=True):
        model(images)[0].square().sum().backward()
        if model is together:
            weights.collect()
        optimizer.step()
    for name, values in apart.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], values, rtol=1e-9, atol=1e-5)
    assert ((flat - before).abs() > 0.009).double().mean() > 0.5  # the first step is 1e-3 / sqrt(1 - alpha)


def by_autocast(module: str, images: Tensor, noise: Tensor, steps: int) -> tuple[SCANet, list[float]]:
    """A few steps as PyTorch's own autocast and optimizer make them."""
    model, losses = build(tiny(module, stacks=2), 16, CPU).train(), []
    optimizer = scanet.train.optimizer_of(model.parameters(), 2.5e-3)
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            heatmaps = model(images, noise)[0]
        optimizer.zero_grad()
        loss = heatmap_loss(heatmaps, torch.zeros(4, 16, 16, 16))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("module", ROWS)
def test_rounding_all_weights_at_once_is_autocast_to_the_last_bit(module: str) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 64, 64, generator=random).contiguous(memory_format=torch.channels_last)
    noise = gumbel_difference((4, 2, 16, 16), random)
    expected, losses = by_autocast(module, images, noise, 3)
    model, found = build(tiny(module, stacks=2), 16, CPU).train(), []
    weights = Weights(model, torch.bfloat16)
    optimizer = scanet.train.optimizer_of([weights.vector], 2.5e-3)
    with weights.in_steps():
        assert model.stem[0].weight.dtype == torch.bfloat16
        for _ in range(3):
            weights.round()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                heatmaps = model(images, noise)[0]
            loss = heatmap_loss(heatmaps, torch.zeros(4, 16, 16, 16))
            loss.backward()
            weights.collect()
            optimizer.step()
            found.append(loss.item())
    assert found == losses
    assert same_weights(model, expected)


class Operations(TorchDispatchMode):
    """Counts what is done to tensors, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, _: Any, given: Any = (), named: Any = None) -> Any:
        self.counts[str(function)] += 1
        return function(*given, **(named or {}))

    def work(self) -> int:
        """All but views and allocations, which give a GPU nothing to do."""
        nothing = (
            "view",
            "as_strided",
            "detach",
            "alias",
            "expand",
            "select",
            "slice",
            "squeeze",
            "aten.t.",
            "empty",
        )
        return sum(count for name, count in self.counts.items() if not any(word in name for word in nothing))


def test_a_step_rounds_and_collects_all_weights_at_once() -> None:
    """A network twice as deep has no more casts; by autocast it has one a parameter, and one a gradient."""
    casts = []
    for stacks in (1, 2):

        def step(model: SCANet, stacks: int = stacks) -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                heatmaps = model(torch.zeros(2, 3, 64, 64), torch.zeros(2, stacks, 16, 16))[0]
            heatmap_loss(heatmaps, torch.zeros(2, 16, 16, 16)).backward()

        model = build(tiny("ALL", stacks=stacks), 16, CPU).train()
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        with Operations() as by_each:
            step(model)
        weights = Weights(model, torch.bfloat16)
        with weights.in_steps(), Operations() as done:
            weights.round()
            step(model)
            weights.collect()
        casts.append(sum(done.counts[name] for name in ("aten._to_copy.default", "aten.copy_.default")))
        assert done.counts["aten._foreach_copy_.default"] == 2  # of bf16 and of fp32
        assert done.work() < 0.6 * by_each.work()
    assert casts[1] - casts[0] < 10  # those of the attention's maps


def test_a_parameter_that_took_no_part_has_no_gradient() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 1, bias=False), "left out": nn.Linear(3, 1)})
    weights = Weights(model)
    used, left_out = model["used"](torch.tensor([[1.0, 2.0]])), model["left out"](torch.tensor([[3.0, 4.0, 5.0]]))
    for loss, expected in ((used.sum() + left_out.sum(), [1, 2, 3, 4, 5, 1]), (2 * used.sum(), [2, 4])):
        loss.backward(retain_graph=True)
        gradient = weights.collect()
        assert gradient[gradient != 0].tolist() == expected  # nothing that an earlier step left


def test_an_interrupted_epoch_leaves_the_weights_in_full() -> None:
    model = build(tiny(), 16, CPU)
    before = copy.deepcopy(model)
    weights = Weights(model, torch.bfloat16)
    with pytest.raises(KeyboardInterrupt), weights.in_steps():
        raise KeyboardInterrupt
    assert same_weights(model, before)
    weights.vector.data.zero_()
    assert not any(p.any() for p in model.parameters())  # the vector's views


def test_every_weight_starts_where_a_gpu_s_fast_kernels_want_it() -> None:
    """One number, the bias of SSA's last convolution, would move all that follow it by two bytes."""
    model = build(tiny("SSA", stacks=2), 14, CPU)
    with Weights(model, torch.bfloat16).in_steps():
        assert {p.data_ptr() % 16 for p in model.parameters() if p.dim() == 4} == {0}


# ---- the row decides ----


def first_losses(module: str, store: Store, folder: Path, name: str, **changes: Any) -> float:
    (folder / name).mkdir()
    return run(tiny(module, epochs=1, **changes), store, folder / name)[1][0]["loss"]


def test_hard_mining_is_what_sets_all_apart(store: Store, tmp_path: Path) -> None:
    plain = first_losses("BDMP+SCA", store, tmp_path, "plain")
    # Joints sorted by their error add up in another order.
    assert first_losses("ALL", store, tmp_path, "all joints", top_k=16) == pytest.approx(plain, rel=1e-6)
    assert first_losses("ALL", store, tmp_path, "hard", top_k=8) > plain
    assert first_losses("BDMP+SCA", store, tmp_path, "not mined", top_k=8) == plain


def test_initial_weights_take_the_place_of_the_seed_s(store: Store, tmp_path: Path) -> None:
    """No step: the given run's weights and statistics; at a constant rate, whatever §3.1's drops."""
    for name in ("first", "none", "one"):
        (tmp_path / name).mkdir()
    trained, _ = run(tiny("BDMP+SCA", epochs=1), store, tmp_path / "first")
    settings = dataclasses.replace(tiny("ALL", schedule="constant", seed=5), epochs=0)
    checkpoint = tmp_path / "none" / "checkpoint.safetensors"
    tuned, history = train(settings, store, checkpoint, CPU, initial=trained, progress=False)
    assert history == []
    assert same_weights(tuned, trained)
    before = {name: weights.clone() for name, weights in trained.state_dict().items()}
    checkpoint = tmp_path / "one" / "checkpoint.safetensors"
    tuned, history = train(
        dataclasses.replace(settings, epochs=3), store, checkpoint, CPU, initial=trained, progress=False
    )
    assert [row["learning_rate"] for row in history] == [2.5e-3] * 3
    assert not same_weights(tuned, trained)
    assert all(torch.equal(before[name], weights) for name, weights in trained.state_dict().items())


def test_train_on_takes_the_validation_persons_too(store: Store) -> None:
    rows = training_rows(store, tiny(train_on="train+valid"))
    assert rows.tolist() == list(range(TRAINING + HELD_OUT))
    assert training_rows(store, tiny(train_on="train+valid", limit=2)).tolist() == [0, 1, 8, 9]
    assert training_rows(store, tiny()).tolist() == list(range(TRAINING))


def test_only_sharper_attention_is_noisy(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {m: first_losses(m, store, tmp_path, f"{m} noisy") for m in ("SSA", "soft")}
    monkeypatch.setattr("scanet.model.network.gumbel_difference", lambda shape, _: torch.zeros(*shape))
    assert first_losses("soft", store, tmp_path, "soft still") == before["soft"]
    assert first_losses("SSA", store, tmp_path, "SSA still") != before["SSA"]


def test_every_epoch_shows_the_persons_anew(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another order, with other augmentation and other noise."""
    seen: list[list[Tensor]] = []
    training_batches, noise = Persons.training_batches, gumbel_difference

    def watched(self: Persons, settings: Settings, order: Tensor, draw: Augmentation) -> Any:
        seen.append([order.flatten(), draw.scale, draw.colour])
        return training_batches(self, settings, order, draw)

    def watched_noise(*arguments: Any) -> Tensor:
        seen[-1].append(noise(*arguments))
        return seen[-1][-1]

    monkeypatch.setattr(Persons, "training_batches", watched)
    monkeypatch.setattr("scanet.model.network.gumbel_difference", watched_noise)
    run(tiny("SSA", epochs=2), store, tmp_path)
    first, second = seen
    assert len(first) == len(second) == 5  # two batches, each with noise of its own
    assert not torch.equal(first[3], first[4])
    for one, other in zip(first, second, strict=True):
        assert not torch.equal(one, other)
    assert all(torch.equal(order.sort().values, torch.arange(TRAINING)) for order in (first[0], second[0]))


def test_the_schedule_s_rate_moves_the_weights(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RMSprop's first step is 10 times the rate against the gradient's sign, so a rate of zero moves nothing."""
    settings = tiny(epochs=1, batch_size=8)
    start = scanet.train.build(settings, 16, CPU)
    for name, rate in (("still", 0.0), ("moved", 1e-4)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(scanet.train, "learning_rate", lambda *_, rate=rate: rate)
        model, history = run(settings, store, tmp_path / name)
        assert history[0]["learning_rate"] == rate
        moved = model.stacks[0].heatmap.weight - start.stacks[0].heatmap.weight
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, 10 * rate), rtol=1e-2, atol=1e-7)


def test_limit_keeps_the_first_persons(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of both splits the squares are kept in memory, or of neither."""
    seen: list[np.ndarray] = []
    kept: list[bool] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()

    class Spied(Persons):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            seen.append(self.rows)
            kept.append(self._squares is not None)

    monkeypatch.setattr(scanet.train, "Persons", Spied)
    run(tiny(epochs=1, limit=5), store, tmp_path / "first")
    assert [rows.tolist() for rows in seen] == [[0, 1, 2, 3, 4], [8, 9, 10]]
    # Those of either would fit.
    monkeypatch.setattr("scanet.data.loader.fits", lambda persons, *_: persons < 8)
    run(tiny(epochs=1, limit=5), store, tmp_path / "second")
    assert kept == [True, True, False, False]


# ---- what goes wrong ----


def test_a_loss_that_is_no_number_names_the_learning_rate(store: Store, tmp_path: Path) -> None:
    settings = dataclasses.replace(tiny(epochs=1, batch_size=2), learning_rate=1e30)
    with pytest.raises(
        UserError, match=r"^the (loss|weights) became infinite or NaN in epoch 1: give a lower rate than 1e\+30 \("
    ):
        run(settings, store, tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing to go on from


def test_weights_that_are_no_numbers_are_told_apart_from_the_loss(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last step, when no loss has seen them yet."""
    step, steps = torch.optim.RMSprop.step, []

    def last_breaks(self: torch.optim.RMSprop) -> None:
        step(self)
        steps.append(1)
        if len(steps) == 2:
            with torch.no_grad():
                self.param_groups[0]["params"][0][0] = torch.inf

    monkeypatch.setattr(torch.optim.RMSprop, "step", last_breaks)
    with pytest.raises(UserError, match=r"^the weights became infinite or NaN in epoch 1"):
        run(tiny(epochs=1), store, tmp_path)


def test_synchronised_statistics_are_for_gpus(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sync_batch_norm is for GPUs, and this is a cpu: leave it out"):
        run(tiny(sync_batch_norm=True), store, tmp_path)


COMPILED = """
import json
from functools import partial

import torch

import scanet.train
from scanet.config import resolve
from scanet.losses import heatmap_loss
from scanet.model import gumbel_difference

torch.compile = partial(torch.compile, backend="aot_eager")  # the graphs, without minutes of a C++ compiler
images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
noise = gumbel_difference((4, 1, 16, 16), torch.Generator().manual_seed(0))
found = []
for compiled in (False, True):
    here = resolve(module="SSA", preset="tiny", batch_size=4, compiled=compiled)
    run = scanet.train.begin(here, 16, torch.device("cpu"))
    loss = heatmap_loss(run.forward(images, noise)[0], torch.zeros(4, 16, 16, 16), None)
    loss.backward()
    found.append([loss.item(), run.weights.collect().tolist()])
print(json.dumps({"found": found, "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"]}))
"""


def test_compiled_steps_have_the_eager_ones_loss_and_gradients() -> None:
    """In fp32, and the network is one graph. In a process without the tests' type checks."""
    done = subprocess.run([sys.executable, "-c", COMPILED], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    (loss, gradient), (compiled_loss, compiled_gradient) = found["found"]
    assert compiled_loss == pytest.approx(loss, rel=1e-6)
    difference = np.linalg.norm(np.subtract(compiled_gradient, gradient))
    assert difference < 1e-4 * np.linalg.norm(gradient)
    assert found["graphs"] == 1


def test_where_compiling_fails_one_sentence_says_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})

    def without_compiler(*_: Any) -> None:
        raise failure("No working C++ compiler found in config\nand more")

    monkeypatch.setattr(torch, "compile", lambda _: without_compiler)
    with pytest.raises(
        UserError, match=r"does not work on this machine \(No working C\+\+ .* config\): leave compiled"
    ):
        run(tiny(compiled=True), store, tmp_path)


def test_without_validation_persons_nothing_starts(store: Store, tmp_path: Path) -> None:
    only = copy.copy(store)
    only.indices = lambda split: store.indices(split) if split == "train" else np.arange(0)
    with pytest.raises(
        UserError, match="there are 0 validation persons, and each process needs one, of 1: give more"
    ):
        run(tiny(), only, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fewer_persons_than_a_batch(store: Store, tmp_path: Path) -> None:
    for settings, message in (
        (tiny(batch_size=9), "8 training persons are fewer than a batch of 9"),
        (tiny(batch_size=4, limit=3), "3 training persons are fewer than a batch of 4"),
    ):
        with pytest.raises(UserError, match=f"^{message}: give a smaller batch_size or more data$"):
            run(settings, store, tmp_path)


# ---- batches ----


def batches(store: Store, settings: Settings, order: Tensor, draw: Augmentation) -> list[Batch]:
    people = Persons(store, store.indices("train"), CPU)
    return list(people.training_batches(settings, order.view(-1, settings.batch_size), draw))


@pytest.fixture(scope="module")
def draw() -> Augmentation:
    draw = draw_augmentation(TRAINING, tiny(rotation_probability=1), torch.Generator().manual_seed(1))
    assert 2 <= draw.flip.sum() <= 6
    return draw


def test_batches_from_memory_and_from_disk_are_the_same(
    store: Store, draw: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = torch.randperm(TRAINING, generator=torch.Generator().manual_seed(2))
    assert Persons(store, store.indices("train"), CPU)._squares is not None
    from_memory = batches(store, tiny(batch_size=2), order, draw)
    monkeypatch.setattr("scanet.data.loader.MEMORY_SHARE", 0.0)
    assert Persons(store, store.indices("train"), CPU)._squares is None
    from_disk = batches(store, tiny(batch_size=2), order, draw)
    for one, other in zip(from_memory, from_disk, strict=True):
        for name in ("images", "targets", "index"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_batches_have_the_persons_that_were_asked_for(store: Store, draw: Augmentation) -> None:
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    for size in (2, 4, 8):
        found = batches(store, tiny(batch_size=size), order, draw)
        assert torch.equal(torch.stack([b.index for b in found]), order.view(-1, size))


def test_a_person_looks_the_same_in_any_batch(store: Store, draw: Augmentation) -> None:
    backward = torch.arange(TRAINING).flip(0)
    one = batches(store, tiny(batch_size=8), torch.arange(TRAINING), draw)[0]
    for batch in batches(store, tiny(batch_size=2), backward, draw):
        torch.testing.assert_close(batch.images, one.images[batch.index])
        torch.testing.assert_close(batch.targets, one.targets[batch.index])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's queue")
@pytest.mark.parametrize("cached", [True, False])
def test_a_batch_does_not_wait_for_the_gpu(store: Store, draw: Augmentation, cached: bool) -> None:
    people = Persons(store, store.indices("train"), torch.device("cuda"), cached=cached)
    found = people.training_batches(tiny(), torch.arange(TRAINING).view(-1, 4), draw)
    next(found)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert next(found).images.shape == (4, 3, 64, 64)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's queue")
@pytest.mark.parametrize("module", ["SSA", "ALL"])
def test_a_step_does_not_wait_for_the_gpu(store: Store, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch waits once, for its mean loss at the end."""
    gpu, settings = torch.device("cuda"), tiny(module=module, batch_size=2)
    people = Persons(store, store.indices("train"), gpu)
    run = scanet.train.begin(settings, 16, gpu)
    waits: list[str] = []

    def watched(batches: Any) -> Any:
        for number, batch in enumerate(batches):
            if number == 1:
                torch.cuda.set_sync_debug_mode("error")
            yield batch
        torch.cuda.set_sync_debug_mode("default")
        waits.append("the end")

    batches = Persons.training_batches
    monkeypatch.setattr(Persons, "training_batches", lambda self, *rest: watched(batches(self, *rest)))
    try:
        scanet.train.train_epoch(
            run, people, settings, 1, scanet.train.Progress(settings, len(people), 0, show=False)
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert waits == ["the end"]


def subcell_peak(heatmap: Tensor, sigma: float) -> Tensor:
    """(x, y) of a Gaussian from the cells around its highest one: exact, unlike `decode`."""
    y, x = divmod(int(heatmap.argmax()), heatmap.shape[1])
    log = heatmap.log()
    moved = [log[y, x + 1] - log[y, x - 1], log[y + 1, x] - log[y - 1, x]]
    return torch.tensor([x + 0.5, y + 0.5]) + sigma**2 / 4 * 2 * torch.stack(moved)


def test_targets_lie_on_what_the_images_show(store: Store, draw: Augmentation) -> None:
    """Red is the right wrist; in a mirrored image red is on the other side, and is a left wrist."""
    settings = tiny(batch_size=TRAINING)
    (batch,) = batches(store, settings, torch.arange(TRAINING), draw)
    assert batch.images.shape == (TRAINING, 3, 64, 64)
    assert batch.targets.shape == (TRAINING, 16, 16, 16)
    assert -0.5 <= batch.images.min() < 0 < batch.images.max() <= 0.5
    cells = torch.arange(64) + 0.5
    for number in range(TRAINING):
        pair = (RIGHT, LEFT) if not draw.flip[number] else (LEFT, RIGHT)
        for channel, joint in enumerate(pair):
            image = batch.images[number] + 0.5
            shown = (image[channel] - image[[c for c in range(3) if c != channel]].amax(dim=0) - 0.25).clamp(min=0)
            centroid = torch.stack([shown.sum(0) @ cells, shown.sum(1) @ cells]) / shown.sum()
            peak = subcell_peak(batch.targets[number, joint], settings.sigma) * 4
            assert (peak - centroid).norm() < 0.5  # input pixels: JPEG blurs colours
    turned = [subcell_peak(batch.targets[n, RIGHT], settings.sigma)[0] < 8 for n in range(TRAINING)]
    assert torch.stack(turned).float().mean() > 0.5  # right stays on the picture's left, mirrored or not


def test_without_augmentation_a_batch_is_what_testing_sees(store: Store) -> None:
    still = Augmentation(
        torch.ones(TRAINING), torch.zeros(TRAINING), torch.zeros(TRAINING, dtype=torch.bool), torch.ones(TRAINING, 3)
    )
    settings = tiny(batch_size=4)
    people = Persons(store, store.indices("train"), CPU)
    for batch in people.training_batches(settings, torch.arange(TRAINING).view(-1, 4), still):
        squares = torch.from_numpy(store.crops(batch.index.numpy()))
        torch.testing.assert_close(batch.images, people.images(squares, batch.index, 64)[0])
        rows = batch.index.numpy()
        placed = (store.joints[rows] - store.center[rows, None]) / 100 * 16 + 8  # by hand: 16 cells on 100 pixels
        expected = draw_targets(
            torch.tensor(placed, dtype=torch.float32), 16, settings.sigma, settings.target, settings.border
        )
        torch.testing.assert_close(batch.targets, expected, rtol=1e-4, atol=1e-5)


def test_colours_are_those_that_were_drawn(store: Store, draw: Augmentation) -> None:
    """The same batch with and without a factor on each channel of each person."""
    plain = dataclasses.replace(draw, colour=torch.ones_like(draw.colour))
    order = torch.randperm(TRAINING, generator=torch.Generator().manual_seed(3))
    (coloured,), (uncoloured,) = (batches(store, tiny(batch_size=TRAINING), order, d) for d in (draw, plain))
    expected = ((uncoloured.images + 0.5) * draw.colour[order][:, :, None, None]).clamp(0, 1) - 0.5
    torch.testing.assert_close(coloured.images, expected)
    assert (coloured.images - uncoloured.images).abs().max() > 0.01
    assert torch.equal(coloured.targets, uncoloured.targets)


def test_a_resumed_fine_tuning_goes_on_from_its_checkpoint(store: Store, tmp_path: Path) -> None:
    """And not from the weights that it began with."""
    initial, _ = run(tiny(seed=5, epochs=1), store, tmp_path / "first")
    seen: dict[str, SCANet] = {}

    def kill(epoch: int, model: SCANet) -> None:
        if epoch == 0:
            seen["begins"] = copy.deepcopy(model)
        if epoch == 1:
            raise KeyboardInterrupt

    whole, history = run(tiny(epochs=2), store, tmp_path / "whole", initial=initial)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(epochs=2), store, tmp_path / "killed", initial=initial, on_epoch=kill)
    resumed, again = run(tiny(epochs=2), store, tmp_path / "killed", initial=initial)
    assert same_weights(seen["begins"], initial)
    assert same_weights(resumed, whole)
    assert timeless(again) == timeless(history)
    assert not same_weights(whole, run(tiny(epochs=2), store, tmp_path / "other")[0])


def test_linear_schedule_reaches_zero_and_resumes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    monkeypatch.setattr(scanet.train, "set_rate", lambda _optimizer, rate: rates.append(rate))
    settings = tiny(epochs=2, schedule="linear", learning_rate=0.4)
    _, history = train(settings, store, tmp_path / "c", CPU, progress=False)
    # Two epochs of two batches.
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [row["learning_rate"] for row in history] == pytest.approx([0.4, 0.2])


def test_heatmap_std_sets_only_the_heatmap_convolutions() -> None:
    plain, small = (scanet.train.build(tiny(heatmap_std=std), 16, CPU) for std in (None, 0.0))
    for stack in small.stacks:
        assert not stack.heatmap.weight.any()
        assert not stack.heatmap.bias.any()
    assert plain.stacks[0].heatmap.weight.any()
    assert plain.stem[0].weight.equal(small.stem[0].weight)
