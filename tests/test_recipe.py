"""The same settings give the same losses as before, in every row; if not, the row's `recipe` has to be raised.

The stored losses are of short runs in double precision on persons made of random pixels. After an intended change of
what training does, raise `recipe` in the rows of `scanet.config.ROWS` that it changes and store what `python
tests/test_recipe.py` prints. For a new row store its line alone.
"""

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import scanet.train
from scanet.config import ROWS, Settings, resolve
from scanet.data.person import Person
from scanet.data.store import Store, fill
from scanet.model import SCANet
from scanet.train import build, train

#: The third epoch's loss of each row, by its recipe.
LOSSES = {
    "Baseline": 0.20016813,
    "Block": 0.20264897,
    "MSFI": 0.22496012,
    "BDMP": 0.23010652,
    "SACWA": 0.17864901,
    "SSA": 0.08894461,
    "SCA": 0.07352392,
    "BDMP+SCA": 0.07551526,
    "ALL": 0.10301598,
    "soft": 0.03231180,
    "top-down": 0.20399490,
    "bottom-up": 0.22996384,
    "encoder": 0.18680462,
    "rescaled": 0.23311397,
    "stretched": 0.07626304,
    "other": 0.02456464,
}

#: Settings whose defaults must go on meaning what they mean: one that differs in all of them.
OTHER = {
    "module": "ALL", "schedule": "linear", "heatmap_std": 0.001, "stacks": 2, "tau": 0.5, "target": "floor",
    "attention_place": "features", "attention_skip": True, "shared_messages": True, "upsampling": "bilinear",
    "attention_noise": False,
}  # fmt: skip


def settings(module: str) -> Settings:
    changes = OTHER if module == "other" else {"module": module}
    # So low a rate that the steps do not let rounding grow, which differs between processors.
    return resolve(**{"preset": "tiny", "epochs": 3, "batch_size": 4, "learning_rate": 1e-5, **changes})


def persons(folder: Path, held_out: int = 2, head: float = 15.0) -> Store:
    """Noise from a fixed generator, in PNG files, which decode to the same pixels everywhere. head: pixels."""
    random = np.random.RandomState(0)  # its stream never changes
    found = []
    for number in range(8 + held_out):
        pixels = random.randint(0, 256, (24, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((120, 120), Image.Resampling.NEAREST).save(folder / f"{number}.png")
        joints = random.uniform(20, 100, (16, 2))
        split = "train" if number < 8 else "valid"
        found.append(Person(f"{number}.png", 0, split, (60.0, 60.0), 0.5, joints, np.ones(16, bool), head))
    fill(folder / "store.h5", found, folder, dataset="d", resolution=80, progress=False)
    return Store(folder / "store.h5")


def build_precise(*arguments: Any) -> SCANet:
    """In double precision and without autocast: single precision's rounding grows too fast to compare losses."""
    model = build(*arguments).double()
    model.register_forward_pre_hook(lambda _, inputs: tuple(x if x is None else x.double() for x in inputs))
    return model


def last_loss(module: str, store: Store, folder: Path) -> float:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanet.train, "autocast", lambda _: nullcontext())
        patch.setattr(scanet.train, "build", build_precise)
        checkpoint = folder / f"{module}.safetensors"
        _, history = train(settings(module), store, checkpoint, torch.device("cpu"), progress=False)
    return history[-1]["loss"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return persons(tmp_path_factory.mktemp("recipe"))


@pytest.mark.parametrize("module", [*ROWS, "other"])
def test_losses_are_those_of_the_recipe(module: str, store: Store, tmp_path: Path) -> None:
    assert module in LOSSES, f"store the line that `python tests/test_recipe.py` prints for the new row {module}"
    assert last_loss(module, store, tmp_path) == pytest.approx(LOSSES[module], rel=1e-4), (
        "training gives other losses than the row's recipe: raise it in scanet.config.ROWS and store the new ones"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        made = persons(Path(name))
        for row in [*ROWS, "other"]:
            print(f'    "{row}": {last_loss(row, made, Path(name)):.8f},')
