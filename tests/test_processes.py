"""Two processes that share a batch do what one does that takes the two halves in turn."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_recipe import persons, settings

import scanet.train
from scanet import processes
from scanet.data.loader import Persons
from scanet.data.store import Store
from scanet.files import UserError
from scanet.losses import heatmap_loss
from scanet.model import gumbel_difference

CPU = torch.device("cpu")

#: What each process does: a step in fp32, then the validation of its share of three persons.
STEP = """
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, sys.argv[2])
from test_recipe import settings

import scanet.train
from scanet import processes
from scanet.data.loader import Persons
from scanet.data.store import Store

folder = Path(sys.argv[1])
scanet.train.autocast = lambda _: nullcontext()
processes.join(torch.device("cpu"))
gradients = []
average = processes.average


def watched(tensor):
    average(tensor)
    gradients.append(tensor.clone())


processes.average = watched
chosen = replace(settings("SSA"), epochs=1, batch_size=8)
store = Store(folder / "store.h5")
model, history = scanet.train.train(chosen, store, folder / "c.safetensors", torch.device("cpu"), progress=False)
vector, loss, *_ = gradients
np.savez(folder / f"{processes.rank()}.npz", gradient=vector, loss=loss, pckh=history[0]["pckh"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    persons(folder, held_out=3, head=60.0)
    return folder


def free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def launch(folder: Path, count: int) -> list[dict[str, np.ndarray]]:
    (folder / "step.py").write_text(STEP, encoding="utf-8")
    here = str(Path(__file__).parent)
    everywhere = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    children = [
        subprocess.Popen(
            [sys.executable, str(folder / "step.py"), str(folder), here],
            # as many threads as here: convolutions add in another order with other numbers of them
            env={**os.environ, **everywhere, "RANK": str(rank), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        for rank in range(count)
    ]
    assert [child.wait(timeout=600) for child in children] == [0] * count
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(count)]


def test_two_processes_are_one_that_takes_the_halves_in_turn(folder: Path) -> None:
    """Loss and gradients to 1e-5, and the same in both; augmentation and noise belong to the sample.

    Statistics are the mean of the halves', and validation counts every person once, though their number is odd.
    """
    first, second = launch(folder, 2)
    assert sorted(path.name for path in folder.glob("*.safetensors")) == ["c.safetensors"]
    for name in ("gradient", "loss", "pckh"):
        np.testing.assert_array_equal(first[name], second[name])

    chosen = settings("SSA")
    store = Store(folder / "store.h5")
    people = Persons(store, store.indices("train"), CPU)
    random = torch.Generator().manual_seed(scanet.train.epoch_seed(chosen.seed, 1))
    order = torch.randperm(8, generator=random)
    draw = scanet.train.draw_augmentation(8, chosen, random)
    source = torch.Generator().manual_seed(scanet.train.epoch_seed(chosen.seed, 1, "noise"))
    noise = gumbel_difference((8, chosen.stacks, 16, 16), source)
    model = scanet.train.build(chosen, 16, CPU)
    weights = scanet.train.Weights(model)
    model.train()
    losses, statistics = [], []
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for half, batch in enumerate(people.training_batches(chosen, order.view(2, 4), draw)):
        model.load_state_dict(before, strict=False)
        heatmaps, _ = model(batch.images, noise[4 * half : 4 * half + 4])
        loss = heatmap_loss(heatmaps, batch.targets)
        (loss / 2).backward()
        losses.append(loss.item())
        statistics.append({name: buffer.clone() for name, buffer in model.named_buffers()})
    assert float(first["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    gradient = weights.collect()
    np.testing.assert_allclose(first["gradient"], gradient, atol=1e-5 * float(gradient.abs().max()))

    saved = {name.removeprefix("model."): values for name, values in load_file(folder / "c.safetensors").items()}
    for name in before:
        if name.endswith(("running_mean", "running_var")):
            mean = torch.stack([each[name] for each in statistics]).mean(dim=0)
            torch.testing.assert_close(saved[name], mean, rtol=1e-4, atol=1e-6)
    model.load_state_dict({name: saved[name] for name in model.state_dict()})
    rows = store.indices("valid")
    whole, even, odd = (
        scanet.train.validate(model, Persons(store, part, CPU), chosen) for part in (rows, rows[::2], rows[1::2])
    )
    assert float(first["pckh"]) == pytest.approx(whole)
    assert len({whole, even, odd}) == 3  # neither process's own


def together(program: str, home: Path) -> list[str]:
    """What each of two processes prints that run this program with SCANET_HOME at `home`."""
    everywhere = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1"}
    here = os.environ | everywhere | {"SCANET_HOME": str(home)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=here | {"RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    printed = [child.communicate(timeout=600)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    return printed


RUN = """
from scanet.config import resolve
from scanet.plan import estimate
from scanet.runs import run_or_load

settings = resolve(preset="tiny", module="Baseline", seed=3)
found = run_or_load(settings, progress=False)
planned = estimate([settings], found.store)
all_by_one = 2 * 16 * planned.seconds_per_person["none"]  # epochs, validation persons
share = round(planned.stages[0].validation_seconds / all_by_one, 6)
print(found.record.run["key"], found.record.run["processes"], len(found.record.history()), share)
"""


def test_a_run_of_two_processes_has_one_record(project: Path) -> None:
    """Process 0 draws the persons and writes the record, and both show it; a plan divides the validation too."""
    first, second = (line.split() for line in together(RUN, project))
    assert first == second
    assert first[1:] == ["2", "2", "0.5"]
    folder = project / "experiments/results/tiny/ablation"
    assert [path.name for path in folder.iterdir()] == ["Baseline-s3"]


@pytest.mark.parametrize(
    ("count", "batch_size", "message"),
    [
        (3, 4, "a batch of 4 cannot be shared by 3 processes: give a batch_size"),
        (4, 4, "a batch of 4 leaves one person for each of 4 processes, .*: give a batch_size of 8 or more"),
        (4, 8, "there are 3 validation persons, and each process needs one, of 4: give more data"),
    ],
)
def test_what_cannot_be_shared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, batch_size: int, message: str
) -> None:
    monkeypatch.setattr(processes, "count", lambda: count)
    chosen = replace(settings("SSA"), batch_size=batch_size)
    with pytest.raises(UserError, match=message):
        scanet.train.train(chosen, Store(folder / "store.h5"), tmp_path / "c", CPU, progress=False)


def test_one_process_is_number_0_of_1() -> None:
    tensor = torch.arange(3.0)
    processes.average(tensor)
    with processes.first_goes_first():
        assert (processes.rank(), processes.count(), processes.gather("x")) == (0, 1, ["x"])
    assert torch.equal(tensor, torch.arange(3.0))
