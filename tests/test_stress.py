"""PCKh against the dials of drawn people: the test sets, the measurement, its differences."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scanet import results
from scanet.config import resolve
from scanet.data.prepare import drawn_for_testing, open_store
from scanet.evaluation import evaluate
from scanet.files import UserError, data_folder
from scanet.measure import stress
from scanet.measure.stress import Stress
from scanet.report import figures
from scanet.runs import run_or_load

pytestmark = pytest.mark.usefixtures("at_home")


TINY = resolve(preset="tiny")
DIALS = Stress(persons=4, steps=3)


@pytest.fixture(scope="module")
def table(project: Path) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANET_HOME", str(project))
        for module in ("Baseline", "SSA"):
            run_or_load(resolve(module=module, preset="tiny"), progress=False)
        return stress.table(stress.measured(TINY, DIALS, progress=False))


def test_points_move_one_dial_at_a_time() -> None:
    points = stress.points(TINY, Stress(steps=5))
    assert len(points) == 10
    part, clutter = (points[points["axis"] == axis] for axis in stress.AXES)
    assert part["part_scale"].tolist() == part["value"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert clutter["clutter"].tolist() == clutter["value"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert set(part["clutter"]) == set(clutter["part_scale"]) == {0.5}


def test_test_people_are_others_than_those_of_training_and_the_same_at_every_value() -> None:
    calm, crowded, flat = (
        drawn_for_testing(4, *dials, TINY.resolution, progress=False) for dials in ((0.5, 0), (0.5, 1), (0, 0.5))
    )
    assert calm.split.tolist() == ["valid"] * 4
    assert np.array_equal(calm.joints, crowded.joints, equal_nan=True)  # clutter moves nobody
    assert not np.array_equal(calm.joints, flat.joints, equal_nan=True)
    seen = open_store(TINY, progress=False)
    for person in calm.joints:
        assert not any(np.allclose(person, other, equal_nan=True) for other in seen.joints)


def test_the_table_has_the_runs_scores(table: pd.DataFrame) -> None:
    assert list(table.columns) == ["axis", "value", "module", "pckh", "persons", "seed"]
    assert table.groupby(["module", "axis"]).size().to_dict() == {
        (module, axis): 3 for module in ("Baseline", "SSA") for axis in stress.AXES
    }
    store = data_folder() / f"synthetic-test-4-p0-c0.5-{TINY.resolution}.h5"
    scores, _ = evaluate(results.results_folder() / "tiny/ablation/SSA-s0", store, "none", progress=False)
    here = table.query("module == 'SSA' and axis == 'part_scale' and value == 0")["pckh"]
    assert here.item() == pytest.approx(scores.row("plain")["Mean"])
    # One set lies on both axes.
    middle = table[table["value"] == 0.5].groupby("module")["pckh"].nunique()
    assert middle.tolist() == [1, 1]


@pytest.mark.usefixtures("table")
def test_a_measurement_is_kept_under_its_dials_and_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = results.folder_of(resolve(module="SSA", preset="tiny"), "stress", dials={"persons": 4, "steps": 3})
    kept = results.load_measurement(folder)
    assert kept is not None
    assert folder.name == "SSA-s0-persons=4-steps=3"
    monkeypatch.setattr(stress, "predict", lambda *_, **__: pytest.fail("measured again"))
    again = stress.table(stress.measured(TINY, DIALS, progress=False))
    assert again[again["module"] == "SSA"]["pckh"].tolist() == kept.table()["pckh"].tolist()


def test_what_cannot_be_measured_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="tested: give preset, persons and steps alone"):
        stress.measured(resolve(preset="tiny", seed=3), DIALS)
    with pytest.raises(UserError, match="preset 'lspet-small' learns from photographs"):
        stress.measured(resolve(preset="lspet-small"), DIALS)
    for steps in (1, 4):
        with pytest.raises(UserError, match=f"steps is {steps}: an axis has a middle and two ends, give 3, 5"):
            stress.measured(TINY, Stress(steps=steps))
    monkeypatch.setenv("SCANET_HOME", str(tmp_path))
    with pytest.raises(
        UserError, match="preset 'tiny' has finished runs of no row, and it takes Baseline and another"
    ):
        stress.measured(TINY, DIALS)


def made(pckh: dict[tuple[str, int], tuple[float, float]]) -> pd.DataFrame:
    """PCKh at the ends of both axes, the same on both, by module and seed."""
    rows = [
        {"axis": axis, "value": value, "module": module, "pckh": percent, "persons": 9, "seed": seed}
        for (module, seed), ends in pckh.items()
        for axis in stress.AXES
        for value, percent in zip((0.0, 1.0), ends, strict=True)
    ]
    return pd.DataFrame(rows)


TWO_SEEDS = made({("Baseline", 0): (80, 60), ("Baseline", 1): (84, 62), ("SSA", 0): (82, 70), ("SSA", 1): (81, 67)})


def test_differences_are_taken_seed_by_seed() -> None:
    found = stress.differences(TWO_SEEDS)
    assert set(found["module"]) == {"SSA"}
    clutter = found[found["axis"] == "clutter"].set_index(["value", "seed"])["difference"]
    assert clutter.to_dict() == {(0, 0): 2, (1, 0): 10, (0, 1): -3, (1, 1): 5}
    # A seed that the reference lacks has no difference.
    lacking = TWO_SEEDS.query("not (module == 'Baseline' and seed == 1)")
    assert set(stress.differences(lacking)["seed"]) == {0}


def test_what_is_lost_less_than_the_reference_is_robustness() -> None:
    middle = TWO_SEEDS[TWO_SEEDS["value"] == 0].assign(value=0.5, pckh=90)
    found = stress.drops(pd.concat([TWO_SEEDS, middle]))
    assert found.columns.tolist() == ["at 0", "at ½", "at 1", "lost", "less than Baseline"]
    assert found.loc["clutter", "Baseline"].tolist() == [82, 90, 61, 21, 0]
    assert found.loc["clutter", "MSFI+SSA"].tolist() == [81.5, 90, 68.5, 13, 8]
    assert found.loc["part scale", "Baseline"].tolist() == [82, 90, 61, 18.5, 0]  # from the middle to both ends
    assert found.loc["part scale", "MSFI+SSA"].tolist() == [81.5, 90, 68.5, 15, 3.5]


def test_small_multiples_show_means_and_the_range_of_seeds() -> None:
    modules = TWO_SEEDS[TWO_SEEDS["module"] != "Baseline"]
    ((panel, beside),) = figures.small_multiples(
        modules, "pckh", "PCKh (%)", background=TWO_SEEDS[TWO_SEEDS["module"] == "Baseline"]
    )
    reference, line = (line.get_ydata().tolist() for line in panel.lines)
    assert (reference, line) == ([82, 61], [81.5, 68.5])
    shade = panel.collections[1].get_paths()[0].vertices
    assert (shade[:, 1].min(), shade[:, 1].max()) == (67, 82)
    labels = panel.get_title(loc="left"), panel.get_xlabel(), beside.get_xlabel()
    assert labels == ("MSFI+SSA", "part scale", "clutter")
    plt.close("all")
