"""What a run will need: the counts, the arithmetic, and the command."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scanet import cli, cost, plan, runs
from scanet.config import Settings, final_stages, resolve
from scanet.data import prepare
from scanet.data.loader import Persons, fits, kept_squares
from scanet.data.store import Store
from scanet.device import fast_bf16
from scanet.files import UserError
from scanet.plan import Plan, Stage, duration, estimate, size

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def at_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANET_HOME", str(project))
    monkeypatch.setattr(plan, "ENOUGH", 0.0)  # one step


@pytest.fixture(scope="module")
def store(project: Path) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANET_HOME", str(project))
        return prepare.open_store(resolve(preset="tiny"), progress=False)


def paper_like(**changes: object) -> Settings:
    """Preset paper's data and length with a network of the tests."""
    small = resolve(preset="paper", input_size=64, channels=16, stacks=1, batch_size=4)
    return dataclasses.replace(small, **changes)


def test_the_whole_follows_from_what_was_measured() -> None:
    """Without data: MPII's counts, and the paper's length."""
    found = estimate([paper_like()], None)
    (stage,) = found.stages
    assert found.persons == {"train": 22_246, "valid": 2_958, "test": 11_731}
    assert (stage.title, stage.epochs, stage.steps) == ("MSFI+SSA", 250, 22_246 // 4)
    assert stage.training_seconds == pytest.approx(250 * 22_244 / found.images_per_second)
    assert stage.validation_seconds == pytest.approx(250 * 2_958 * found.seconds_per_person["none"])
    assert found.seconds == stage.training_seconds + stage.validation_seconds
    assert list(found.seconds_per_person) == ["none", "flip", "six-scale"]
    assert min(found.seconds_per_person.values()) > 0
    # Stored squares of resolution 80, so 160 pixels a side: as bytes in memory, and as JPEGs on the disk.
    assert found.disk["store"] == round(0.09 * 160**2 * (22_246 + 2_958 + 11_731))
    assert found.cached == fits(25_204, 160, CPU)
    assert found.memory > (25_204 * 3 * 160**2 if found.cached else 0)
    assert found.disk["checkpoint"] == 2 * found.disk["record"]
    few = estimate([paper_like(limit=40)], None)
    assert (few.persons["train"], few.disk["store"]) == (40, found.disk["store"])  # a store has everybody


def test_both_stages_of_the_final_model() -> None:
    stages = final_stages(paper_like(train_on="train+valid", limit=40))
    found = estimate(stages, None)
    assert [stage.title for stage in found.stages] == ["MSFI+BDMP+SCA", "MSFI+ALL"]
    assert [stage.epochs for stage in found.stages] == [250, 10]
    assert [stage.steps for stage in found.stages] == [20, 20]  # 40 persons of each split
    assert found.stages[0].training_seconds == pytest.approx(25 * found.stages[1].training_seconds)


def test_data_at_hand_are_counted(store: Store) -> None:
    found = runs.plan([resolve(preset="tiny")])
    assert found.persons == {"train": 32, "valid": 16, "test": 0}
    assert found.disk["store"] == store.path.stat().st_size
    assert store.path.name in str(found)
    assert "testing 16 " in str(found)
    assert "testing 0" not in str(found)
    with pytest.raises(UserError, match=r"nowhere\.h5 does not exist"):
        runs.plan([resolve(preset="tiny", data="nowhere.h5")])
    with pytest.raises(UserError, match="holds synthetic, but preset 'lspet' is for lspet"):
        runs.plan([resolve(preset="lspet", data=str(store.path))])


def test_squares_are_kept_where_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(3)
    assert Persons(store, rows, CPU, cached=True)._squares is not None
    assert Persons(store, rows, CPU, cached=False)._squares is None
    assert fits(1000, 160, CPU)
    assert not fits(10**9, 160, CPU)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(10**6))  # each of them would keep its own
    assert not fits(1000, 160, CPU)


def test_a_batch_has_to_fit_beside_the_stored_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the byte: weights in fourfold and in bf16, and a batch of 4; squares of 160 pixels take what is left."""
    settings = paper_like(module="Baseline")
    network = settings.network(16)
    bf16 = fast_bf16(CPU)
    each = cost.activations(network, 64, bf16=bf16)
    room = (16 + 2 * bf16) * cost.parameters(network) + 4 * each
    squares = kept_squares(10, 5, 160, CPU)
    assert squares == 15 * 3 * 160**2
    monkeypatch.setattr("scanet.data.loader.MEMORY_SHARE", 0.0)
    assert kept_squares(10, 5, 160, CPU) == 0
    for stored in (0, squares):
        monkeypatch.setattr(plan, "memory", lambda _, has=room + stored: has)
        with plan.enough_memory(settings, 16, stored, CPU):
            pass
        with pytest.raises(UserError, match=r"a batch of 4 needs .*: give a batch_size of 2 or less"):
            plan.enough_memory(settings, 16, stored + 1, CPU)


def test_a_table_in_units_that_can_be_read() -> None:
    made = Plan(
        preset="paper", network="n", device="d", measured_on="m",
        persons={"train": 22_246, "valid": 2_958, "test": 11_731}, batch_size=6,
        stages=(Stage("MSFI+SSA", 250, 3_707, 5_400.0, 59.0),), images_per_second=3.14159,
        seconds_per_person={"none": 0.1, "flip": 1.0}, memory=3 * 2**30, cached=False,
        disk={"store": 2**31, "checkpoint": 2**20},
    )  # fmt: skip
    assert str(made).splitlines() == [
        "What preset paper needs here:",
        "  network         n",
        "  device          d",
        "  measured on     m",
        "  speed           3.14 images/s in training",
        "  MSFI+SSA        250 epochs of 3,707 steps of 6: 90.0 minutes, and 59.0 seconds of validation",
        "  in all          91.0 minutes",
        "  testing 2,958   none 4.9 minutes, flip 49.3 minutes",
        "  testing 11,731  none 19.6 minutes, flip 3.3 hours",
        "  memory          3.0 GiB, without all 25,204 persons for training and validation in it",
        "  disk            store 2.0 GiB, checkpoint 1.0 MiB",
    ]
    assert [duration(s) for s in (0.04, 119.9, 7_199, 172_799, 172_800)] == [
        "0.0 seconds", "119.9 seconds", "120.0 minutes", "48.0 hours", "2.0 days",
    ]  # fmt: skip
    assert size(2**30 - 2**20) == "1023.0 MiB"


def test_paper_is_planned_before_it_is_trained(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row alone; the final model's stages together, once."""
    planned: list[list[str]] = []
    monkeypatch.setattr(runs, "plan", lambda stages: planned.append([s.module for s in stages]))
    monkeypatch.setattr(prepare, "open_store", lambda *_, **__: store)
    settings = paper_like(epochs=1, finetune_epochs=1, limit=8, module="SSA")
    runs.run_or_load(settings, progress=False)
    assert planned == [["SSA"]]
    runs.run_or_load(settings, progress=False)
    assert planned == [["SSA"]]  # there is nothing to train
    runs.final(settings, progress=False)
    runs.final(settings, progress=False)
    assert planned == [["SSA"], ["BDMP+SCA", "ALL"]]
    capsys.readouterr()


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--preset", "tiny", "--final", "--set", "epochs=7", "--set", "batch_size=4", "--json"]
    monkeypatch.setattr(sys, "argv", ["scanet", "plan", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert [stage["epochs"] for stage in found["stages"]] == [7, 1]
    assert [stage["steps"] for stage in found["stages"]] == [8, 8]  # 32 persons
    assert found["network"].startswith("4 stacks, 16 channels")
    total = sum(stage["training_seconds"] + stage["validation_seconds"] for stage in found["stages"])
    assert found["hours"] == pytest.approx(total / 3600)
