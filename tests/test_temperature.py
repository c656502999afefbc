"""Maps of a trained network at other temperatures, and the measurements and figures made of them."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from scanet import results
from scanet.measure import temperature
from scanet.measure.finished import measure_attention, measure_temperature
from scanet.measure.temperature import Dials
from scanet.model import gumbel_difference
from scanet.report import figures, tables
from scanet.report.examples import examples, leg_to_head, normalised_errors, with_and_without_noise
from scanet.runs import Run, run_or_load, trained_at

pytestmark = pytest.mark.usefixtures("at_home")

CPU = torch.device("cpu")


def measured(run: Run, **choice: object) -> pd.DataFrame:
    assert run.model is not None
    assert run.store is not None
    rows = run.store.indices("valid")
    return temperature.measure(run.model, run.store, rows, 64, CPU, **choice)  # type: ignore[arg-type]


def test_the_runs_own_temperature_gives_the_runs_own_score(run: Run) -> None:
    table = measured(run, taus=[1.0], noises=[False])
    assert table["pckh"].tolist() == [run.record.scores("none").row("plain")["Mean"]]
    batches = measured(run, taus=[1.0], noises=[False], batch_size=5)
    pd.testing.assert_frame_equal(batches, table, rtol=1e-4)


def test_measures_are_those_of_the_maps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the maps that the figures show, which are computed in fp32."""
    monkeypatch.setattr(temperature, "autocast", lambda _: nullcontext())
    assert run.model is not None
    table = measured(run, taus=[0.5, 20.0], seed=7).set_index(["tau", "noise", "stack"])
    shown = examples(run, 16, tau=20.0)
    by_hand = torch.stack([torch.as_tensor(example.attention[0]) for example in shown])
    for measure in temperature.MEASURES:
        expected = measure(by_hand).mean().item()
        assert table.loc[(20.0, False, 1), measure.__name__] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    # Those of persons, at joints that are placed in the same picture in another way.
    assert run.store is not None
    rows = run.record.predictions()["row"][np.argsort(normalised_errors(run))]
    visible = torch.as_tensor(run.store.visible[rows])
    cells = by_hand.shape[-1] / shown[0].image.shape[0]
    joints = torch.as_tensor(np.stack([example.truth for example in shown])).float() * cells
    for measure in temperature.MEASURES_OF_PERSONS:
        expected = measure(by_hand, joints, visible).nanmean().item()
        assert table.loc[(20.0, False, 1), measure.__name__] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert run.model.config.tau == 1.0  # the network is left as it is
    noisy = table.xs(True, level="noise")
    assert (noisy["irregularity"] > table.xs(False, level="noise")["irregularity"]).all()
    again = measured(run, taus=[20.0], seed=7).set_index(["tau", "noise", "stack"])
    pd.testing.assert_series_equal(again.loc[(20.0, True, 1)], table.loc[(20.0, True, 1)])  # the same draws


def test_limits_of_the_temperature(run: Run) -> None:
    table = measured(run, taus=[0.01, 100.0]).groupby("tau")[["sharpness", "irregularity", "extent"]].mean()
    assert table.loc[0.01, "sharpness"] > 0.95
    assert table.loc[100.0, "sharpness"] < 0.1
    assert table.loc[100.0, "irregularity"] < 0.05 * table.loc[0.01, "irregularity"]
    assert table.loc[100.0, "extent"] == 1


def test_persons_are_evenly_spaced() -> None:
    rows = np.arange(100, 200)
    assert temperature.choose(rows, 3).tolist() == [100, 150, 199]
    assert temperature.choose(rows, 500).tolist() == rows.tolist()


def test_measurements_name_what_they_measured(run: Run) -> None:
    one = measure_attention(run, Dials())
    table = one.table()
    assert table[["module", "stack", "persons"]].to_numpy().tolist() == [["SSA", 1, 16]]
    assert {"coverage", "sharpness", "contrast", "low", "high", "extent"} <= set(table.columns)
    assert one.measurement.name == "tiny/attention/SSA-s0"


def test_runs_of_other_temperatures_are_measured_where_there_are_some(run: Run) -> None:
    assert [r.settings.tau for r in trained_at(run.settings, progress=False)] == [1.0]
    other = dataclasses.replace(run.settings, tau=0.25)
    run_or_load(other, progress=False)
    runs = trained_at(run.settings, progress=False)
    assert [r.settings.tau for r in runs] == [0.25, 1.0]
    one = measure_temperature(run.settings, runs, Dials(persons=4))
    assert one.measurement.folder.name == "SSA-s0-persons=4"
    table = one.table()
    assert set(table["tau"]) == {*temperature.TAUS, 0.25}
    assert table.groupby(["trained_tau", "tau", "noise", "stack"]).size().unique().tolist() == [1]
    ax = figures.by_temperature(table, 1.0).axes[0]
    (square,) = [line for line in ax.lines if line.get_label() == "trained at this τ"]
    own = table[(table["trained_tau"] == 0.25) & (table["tau"] == 0.25) & ~table["noise"]]
    assert square.get_ydata().tolist() == own["pckh"].tolist()
    plt.close("all")
    # On a machine that has not got the other run, the measurement is believed as far as that run goes.
    (runs[0].record.folder / "run.json").rename(runs[0].record.folder / "hidden")
    try:
        again = measure_temperature(run.settings, runs[1:], Dials(persons=4))
        assert again.notice == ""
        assert set(again.table()["trained_tau"]) == {0.25, 1.0}
    finally:
        (runs[0].record.folder / "hidden").rename(runs[0].record.folder / "run.json")


def test_tables_of_temperatures_are_of_the_last_stack() -> None:
    lines = [
        (trained, tau, noise, stack, 10 * stack + noise + tau)
        for trained in (1.0, 9.0)
        for tau in (10.0, 0.01)
        for noise in (False, True)
        for stack in (1, 2)
    ]
    table = pd.DataFrame(lines, columns=["trained_tau", "tau", "noise", "stack", "pckh"])
    table["pckh"] += 100 * (table["trained_tau"] == 9)
    table = table.assign(sharpness=table["pckh"], irregularity=0.5, roughness=0.25)
    found = tables.temperatures(table, 1.0, tables.SHAPES)
    assert list(found.index) == ["0.01", "10"]
    assert found["pckh"].to_numpy() == pytest.approx(np.array([[20.01, 21.01], [30, 31]]))
    assert found["irregularity", "one draw"].tolist() == [0.5, 0.5]
    assert tables.temperatures(table.assign(at_joints=1.0), 1.0, ["at_joints"]).columns[0][0] == "at joints"


def test_networks_trained_at_a_temperature_are_compared_seed_by_seed() -> None:
    pckh = {(1.0, 0): 80.0, (1.0, 1): 82.0, (0.5, 0): 79.0, (0.5, 1): 80.0, (0.1, 0): 70.0}
    lines = [
        {"trained_tau": trained, "tau": tau, "noise": noise, "seed": seed, "pckh": value - (tau != trained) - noise}
        for (trained, seed), value in pckh.items()
        for tau in (0.1, 0.5, 1.0)
        for noise in (False, True)
    ]
    found = tables.trained_at(pd.DataFrame(lines), 1.0)
    assert found.index.tolist() == ["0.1", "0.5", "1"]
    assert found["PCKh@0.5"].tolist() == [70, 79.5, 81]
    assert found["Δ"].tolist() == [-10, -1.5, 0]
    assert found.loc["0.5", "± Δ"] == pytest.approx(12.7062 * 0.5, rel=1e-4)  # t of one degree of freedom
    assert found["± Δ"].isna().tolist() == [True, False, True]
    assert found["seeds"].tolist() == [1, 2, 2]


def test_tables_over_seeds(tmp_path: Path) -> None:
    def write(name: str, seed: int, value: float, **changes: object) -> results.Measurement:
        same = {"overrides": {}, "settings": {"persons": 2}, "data": "data", "version": 1, "sources": {}}
        content = {"key": name, "module": "SSA", "seed": seed, **same, **changes}
        return results.write_measurement(tmp_path / name, content, pd.DataFrame({"norm": [value]}))

    first = write("SSA-s0", 0, 1.5)
    write("SSA-s1", 1, 2.5)
    write("SSA-s1-persons=4", 1, 9.0, overrides={"persons": 4})
    write("SSA-s2", 2, 9.0, version=0)
    write("SSA-s3", 3, 9.0, data="other")
    write("SSA-s4", 4, 9.0, settings={"persons": 3})  # before the default was another one
    write("soft-s1", 1, 9.0, module="soft")
    found = results.over_seeds(first).sort_values("seed")
    assert found.to_numpy().tolist() == [[1.5, 0], [2.5, 1]]


def test_curves_have_a_line_for_each_row_and_a_band_over_its_seeds(run: Run) -> None:
    run_or_load(dataclasses.replace(run.settings, seed=1), progress=False)
    records = results.seeds(run.settings)
    assert [record.name for record in records] == ["tiny/ablation/SSA-s0", "tiny/ablation/SSA-s1"]
    ax = figures.attention_curves(tables.histories(records))
    mean = (records[0].history()["pckh"] + records[1].history()["pckh"]) / 2
    assert ax.lines[0].get_ydata().tolist() == pytest.approx(mean.tolist())
    assert len(ax.collections) == 1
    plt.close("all")


def test_map_grid_shows_every_map_and_its_scale(run: Run) -> None:
    shown = {f"{tau:g}": with_and_without_noise(run, tau) for tau in (0.1, 10.0)}
    figure = figures.map_grid(shown, shared=True, last=True, titles=["noise-free", "one draw"] * 2)
    *panels, bar = figure.axes
    drawn = [ax.images[0] for ax in panels[4:]]
    assert len(drawn) == 8
    assert all(image.get_clim() == (0, 1) for image in drawn)
    assert bar.get_xlabel() == "attention"
    # The noise is the same draw at each temperature: a pair of maps differs by it, and a person's picture does not.
    quiet, noisy = shown["10"][:2]
    assert np.array_equal(quiet.image, noisy.image)
    draw = gumbel_difference((2, 1, 16, 16), torch.Generator().manual_seed(0))[0, 0].numpy()
    logit = [np.log(example.attention[0] / (1 - example.attention[0])) for example in (quiet, noisy)]
    assert logit[1] - logit[0] == pytest.approx(draw / 10, abs=1e-3)
    figure = figures.map_grid({"SSA": examples(run, 3)}, shared=False)
    assert figure.axes[3].get_title() == "{:.2g} to {:.2g}".format(*figure.axes[3].images[0].get_clim())
    without = [dataclasses.replace(example, attention=[]) for example in shown["10"]]
    for nothing in ({"SSA": []}, {"SSA": without}):
        assert "not on this machine" in figures.map_grid(nothing, shared=False).texts[0].get_text()
        rest = figures.map_grid({**nothing, "other": examples(run, 3)}, shared=False)  # what is there is shown
        assert len(rest.axes) == 3 * (1 + run.settings.stacks)
    plt.close("all")


def test_poses_show_the_value_by_which_they_are_ranked(run: Run) -> None:
    worst = examples(run, 4, between=(0.5, 1))
    values = np.sort(normalised_errors(run))
    assert worst[-1].value == np.nanmax(values)
    assert [example.rank for example in worst] == pytest.approx([0.5, 2 / 3, 5 / 6, 1])
    figure = figures.poses(worst, run.record.skeleton)
    assert [ax.get_title() for ax in figure.axes] == [f"{example.value:.2f} heads" for example in worst]
    by = leg_to_head(run)
    legs = examples(run, 2, by=by)
    assert [example.value for example in legs] == [np.nanmin(by), np.nanmax(by)]
    found, joint = run.record.predictions(), run.record.skeleton.joints.index
    legs = [found["truth"][:, joint(f"{s}-knee")] - found["truth"][:, joint(f"{s}-ankle")] for s in "lr"]
    expected = (np.hypot(*legs[0].T) + np.hypot(*legs[1].T)) / 2 / found["head_size"]
    assert by == pytest.approx(expected, nan_ok=True)
    assert "not on this machine" in figures.poses([], run.record.skeleton).texts[0].get_text()
    plt.close("all")


def test_columns_are_named_apart() -> None:
    names = [measure.__name__ for measure in (*temperature.MEASURES, *temperature.MEASURES_OF_PERSONS)]
    assert len({*names, "tau", "noise", "stack", "pckh"}) == len(names) + 4
