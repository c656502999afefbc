"""What the paper leaves open: the specifications, the runs behind them, the curve."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from scanet import results, runs
from scanet.config import PRESETS, ROWS, Settings, resolve
from scanet.files import UserError
from scanet.measure import choices
from scanet.measure.choices import CHOICES, FINDINGS, Choices, label, on_row, rows_of, specifications
from scanet.model import SCANet
from scanet.report import figures
from scanet.train import build

pytestmark = pytest.mark.usefixtures("at_home")

QUICK, TINY = resolve(preset="quick"), resolve(preset="tiny")


def test_the_design_is_balanced() -> None:
    """Each choice is on in six of twelve, any two in three: columns of +1 and -1 are orthogonal."""
    design = choices.plackett_burman()
    assert design.shape == (12, 11)
    assert np.array_equal((2 * design - 1).T @ (2 * design - 1), 12 * np.eye(11))


def test_choices_are_settings_and_their_readings_are_allowed() -> None:
    names = {choice.name for choice in CHOICES}
    assert len(names) == len(CHOICES) == 12
    for choice in CHOICES:
        assert len(choice.readings) > 1
        if choice.name in Settings.__dataclass_fields__:
            for value in choice.readings:
                assert value is None or getattr(resolve(module="ALL", **{choice.name: value}), choice.name) == value


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("finding", list(FINDINGS))
def test_specifications_are_different_and_take_no_reading_that_is_the_presets_own(preset: str, finding: str) -> None:
    settings = resolve(preset=preset)
    found = specifications(finding, settings)
    assert found[0] == {}
    assert len({label(one) for one in found}) == len(found)
    own = {"reference": "Baseline", "convention": "plain"}
    for one in found:
        assert all(value != own.get(name, getattr(settings, name, None)) for name, value in one.items())
    alone = {label(one) for one in found if len(one) == 1}
    assert len(alone) == sum(len(choice.others(settings)) for choice in choices.relevant(finding))
    assert max(map(len, found)) > 2
    assert specifications(finding, settings, 3) == found[:3]


def test_a_choice_acts_on_the_rows_that_have_what_it_is_about() -> None:
    everything = {choice.name: choice.others(QUICK)[0] for choice in CHOICES}
    on = {row: set(on_row(everything, row)) for row in ROWS}
    training = {"heatmap_std", "sigma", "target"}
    assert on["Baseline"] == on["Block"] == training
    assert on["MSFI"] == training | {"upsampling"}
    assert on["BDMP"] == on["MSFI"] | {"shared_messages"}
    assert on["SSA"] == on["MSFI"] | {"attention_place", "attention_skip", "attention_noise", "test_map", "tau"}
    assert on["soft"] == on["MSFI"] | {"attention_place", "attention_skip"}
    assert rows_of("MSFI", {}) == ("MSFI", "Baseline")
    assert rows_of("MSFI", {"reference": "Block"}) == ("MSFI", "Block")
    assert rows_of("SSA", everything) == ("SSA", "Block")  # which is why `relevant` leaves it out:
    assert "reference" not in {choice.name for choice in choices.relevant("SSA")}


@pytest.mark.parametrize("row", ["Baseline", "Block", "MSFI", "BDMP", "SSA"])
def test_a_choice_that_does_not_act_on_a_row_leaves_its_network_alone(row: str) -> None:
    """`on_row` agrees with the network itself, as far as a choice is one of the network's."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    for choice in CHOICES:
        if choice.name in ("upsampling", "shared_messages", "attention_place", "attention_skip", "test_map"):
            settings = replace(TINY, module=row)
            changed = replace(settings, **{choice.name: choice.others(TINY)[0]})
            with torch.inference_mode():
                one, other = (build(s, 16, torch.device("cpu")).eval()(image)[0] for s in (settings, changed))
            assert torch.equal(one, other) != bool(on_row({choice.name: "another"}, row)), choice.name


def test_a_preset_without_a_budget_asks_for_one() -> None:
    with pytest.raises(UserError, match="preset 'paper' has no budget for them: give epochs"):
        choices.measured(resolve(preset="paper"), Choices(), progress=False)


def test_runs_are_made_once_and_a_table_is_loaded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Choices(specifications=2)
    table = choices.measured(TINY, few, progress=False)
    runs = sorted(path.parent.name for path in (project / "experiments/results/tiny/choices-runs").glob("*/run.json"))
    assert runs == [
        "BDMP-s0-epochs=1", "BDMP-s0-epochs=1-shared_messages=True", "Baseline-s0-epochs=1", "Block-s0-epochs=1",
        "MSFI-s0-epochs=1", "SSA-s0-attention_place=features-epochs=1", "SSA-s0-epochs=1",
    ]  # fmt: skip
    record = results.load(project / "experiments/results/tiny/choices-runs/BDMP-s0-epochs=1-shared_messages=True")
    assert record is not None
    line = table.set_index(["module", "specification"]).loc["BDMP", "shared_messages=True"]
    assert line["plain"] == record.scores().row("plain")["Mean"]
    assert line["official"] == record.scores().row("official")["Mean"]
    kept = results.load_measurement(project / "experiments/results/tiny/choices/SSA-s0-specifications=2")
    assert kept is not None
    assert kept.table()["specification"].tolist() == ["the package's own", "attention_place=features"]
    monkeypatch.setattr(choices, "run_or_load", lambda *_, **__: pytest.fail("trained again"))
    pd.testing.assert_frame_equal(choices.measured(TINY, few, progress=False), table)
    found = choices.effects(table, "BDMP", TINY, 2)
    assert set(found["specification"]) == {"the package's own", "shared_messages=True"}


def test_a_run_of_other_code_is_not_among_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    outdated = SimpleNamespace(notice="it was made by older code", record=SimpleNamespace(name="SSA-s0"))
    monkeypatch.setattr(choices, "run_or_load", lambda *_, **__: outdated)
    with pytest.raises(UserError, match="SSA-s0: it was made by older code"):
        choices._measure(TINY, [{}], {}, progress=False)


def test_the_map_in_testing_is_told_from_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.run_or_load(resolve(module="SSA", preset="tiny", epochs=1), "choices-runs", progress=False)
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained"))
    own, mean = choices._rows(run, {}), choices._rows(run, {"test_map": "mean"})
    assert own["plain"] == run.record.scores().row("plain")
    again = choices._rows(run, {"test_map": "noise-free"})
    assert again == own
    assert mean.keys() == own.keys()
    tested: list[str] = []
    predicting = choices.predict

    def noted(model: SCANet, *rest: Any, **how: Any) -> Any:
        tested.append(model.config.test_map)
        return predicting(model, *rest, **how)

    monkeypatch.setattr(choices, "predict", noted)
    choices._rows(run, {"test_map": "mean"})
    assert tested == ["mean"]


def made(values: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """module -> specification -> plain means, one a seed; the official mean is 1 more, for BDMP 3 more."""
    return pd.DataFrame(
        [
            {"module": row, "specification": name, "seed": seed, "plain": mean, "official": mean + extra}
            for row, parts in values.items()
            for extra in [3 if row == "BDMP" else 1]
            for name, means in parts.items()
            for seed, mean in enumerate(means)
        ]
    )


def test_effects_are_sorted_and_pair_rows_under_one_specification() -> None:
    own = "the package's own"
    parts = {"shared_messages=True", "upsampling=bilinear", "heatmap_std=None", "sigma=1.0", "target=floor"}
    msfi = {own: [50.0, 52.0], **{name: [40.0, 40.0] for name in parts - {"shared_messages=True"}}}
    bdmp = {own: [51.0, 55.0], **{name: [39.0, 39.0] for name in parts}}
    bdmp["shared_messages=True"] = [50.0, 50.0]
    table = made({"MSFI": msfi, "BDMP": bdmp})
    found = choices.effects(table, "BDMP", QUICK, 7)
    assert found["effect"].is_monotonic_increasing
    by_name = found.set_index("specification")
    assert by_name.loc[own, ["effect", "low", "high", "seeds"]].tolist() == [2, 1, 3, 2]
    assert by_name.loc["shared_messages=True", ["effect", "low", "high"]].tolist() == [-1, -2, 0]  # MSFI's own run
    assert by_name.loc["sigma=1.0", "effect"] == -1
    assert by_name.loc["convention=official", "effect"] == 4
    titles = choices.titles("BDMP", QUICK)
    assert by_name[titles].sum(axis=1).to_dict() == {name: int(name != own) for name in by_name.index}
    assert by_name.loc["heatmap_std=None", "first heat-map weights: PyTorch's"]

    numbers = choices.summary({"BDMP": found}).loc["MSFI+BDMP less MSFI"]
    assert numbers.tolist() == [7, 2, -1, -1, 4]
    rest = (2 - 1 - 1 - 1 - 1 - 1) / 6
    lines = choices.leverage({"BDMP": found})["BDMP"]
    assert lines["mean weighted by joints"] == pytest.approx(4 - rest)
    assert lines[choices.WEIGHTED] == 2  # 3 points more of BDMP's runs and 1 of MSFI's, under every specification

    curve, dashboard = figures.specification_curve(found, titles, "BDMP less MSFI (points)")
    heights = curve.collections[1].get_offsets()[:, 1]
    assert heights.tolist() == found["effect"].tolist()
    ranges = [segment[:, 1].tolist() for segment in curve.collections[0].get_segments()]
    assert ranges == found[["low", "high"]].to_numpy().tolist()
    squares = dashboard.collections[0].get_offsets()
    assert len(squares) == 6
    labels = [tick.get_text() for tick in dashboard.get_yticklabels()]
    column, row = squares[-1].astype(int).tolist()
    assert found.loc[column, labels[row]]
    plt.close("all")
