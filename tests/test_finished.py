"""Measurements of finished runs: their folders, and when they are made again."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import pytest

from scanet import results
from scanet.files import UserError
from scanet.measure.finished import measure_or_load
from scanet.runs import Run, run_or_load

pytestmark = pytest.mark.usefixtures("at_home")


@dataclass(frozen=True)
class Dials:
    persons: int = 8
    epochs: int = 1


def counted() -> pd.DataFrame:
    return pd.DataFrame({"module": ["SSA", "SSA"], "noise": [True, False], "norm": [0.5, 0.25]})


def refused() -> pd.DataFrame:
    pytest.fail("measured again")


def test_a_measurement_is_written_whole_and_loaded_while_it_is_todays(run: Run) -> None:
    def go(measure, **changes):  # type: ignore[no-untyped-def]
        return measure_or_load(
            run.settings,
            "counts",
            **{"dials": Dials(), "sources": [run], "store": run.store} | changes,
            measure=measure,
        )

    made = go(counted)
    pd.testing.assert_frame_equal(made.table(), counted())
    saved = made.measurement.run
    assert made.measurement.name == "tiny/counts/SSA-s0"
    assert saved["sources"] == {"tiny/ablation/SSA-s0": run.record.run["key"]}
    assert saved["settings"] == {"persons": 8, "epochs": 1}
    assert saved["overrides"] == {}
    assert saved["key"] in str(made)
    assert go(refused).measurement == made.measurement
    # Another dial is another measurement, in a folder of its own and not among the canonical ones.
    other = go(counted, dials=Dials(persons=4))
    assert other.measurement.name == "tiny/counts/SSA-s0-persons=4"
    assert go(refused).measurement == made.measurement
    assert [m.name for m in results.measurements("tiny", "counts")] == ["tiny/counts/SSA-s0"]
    # New code or a new run: it is measured again.
    assert go(counted, version=2).measurement.run["key"] != saved["key"]
    changed = dataclasses.replace(run.record, run=run.record.run | {"key": "0" * 16})
    again = go(counted, sources=[dataclasses.replace(run, record=changed)])
    assert again.measurement.run["key"] != saved["key"]
    assert again.notice == ""
    with pytest.raises(UserError, match=r"^tiny/counts/SSA-s0 is older than tiny/ablation/SSA-s0: delete its folder"):
        results.measurements("tiny", "counts")  # the run on disk has another key than it was measured by


@pytest.mark.parametrize(("name", "value"), [("version", 2), ("data", "other"), ("settings", {"persons": 4})])
def test_measurements_that_differ_in_more_than_the_seed_are_refused(name: str, value: object) -> None:
    """The ledger would else take them for one."""
    made = {"module": "SSA", "overrides": {}, "settings": {}, "data": "d", "version": 1, "sources": {}, "key": "k"}
    folder = results.results_folder() / "tiny" / f"differing in {name}"
    for seed in (0, 1):
        results.write_measurement(folder / f"SSA-s{seed}", made | {"seed": seed}, counted())
    assert [m.run["seed"] for m in results.measurements("tiny", folder.name)] == [0, 1]
    results.write_measurement(folder / "SSA-s1", made | {"seed": 1, name: value}, counted())
    with pytest.raises(UserError, match=rf"SSA-s0 and tiny/.*/SSA-s1 differ in {name}: delete the older"):
        results.measurements("tiny", folder.name)


def test_a_measurement_without_sources_depends_on_settings_data_and_recipe(
    run: Run, raise_recipes: Callable[[], None]
) -> None:
    def key(settings=run.settings) -> str:  # type: ignore[no-untyped-def]
        return measure_or_load(settings, "alone", Dials(), counted, store=run.store).measurement.run["key"]

    first = key()
    assert key() == first
    assert key(dataclasses.replace(run.settings, learning_rate=0.1)) != first
    raise_recipes()
    assert key() != first


def test_the_runs_behind_a_table_over_seeds_are_those_of_all_its_measurements(run: Run) -> None:
    other = run_or_load(dataclasses.replace(run.settings, seed=1), progress=False)
    here, _ = (
        measure_or_load(each.settings, "behind", Dials(), counted, sources=[each], store=each.store)
        for each in (run, other)
    )
    assert [record.name for record in results.behind([here.measurement])] == [run.record.name, other.record.name]
    plain = run_or_load(dataclasses.replace(run.settings, module="Baseline"), progress=False)
    there = measure_or_load(plain.settings, "behind", Dials(), counted, sources=[plain], store=plain.store)
    both = results.behind([here.measurement, there.measurement])
    assert [record.name for record in both] == [plain.record.name, run.record.name, other.record.name]
    few = measure_or_load(run.settings, "behind", Dials(1), counted, sources=[run], store=run.store)
    assert [record.name for record in results.behind([few.measurement])] == [run.record.name]


def test_without_weights_or_photographs_it_is_shown_with_a_notice(run: Run) -> None:
    without = dataclasses.replace(run, model=None)
    with pytest.raises(
        UserError, match=r"tiny/far/SSA-s0 has not been measured, and the weights of tiny/ablation/SSA-s0"
    ):
        measure_or_load(run.settings, "far", Dials(), refused, sources=[without], store=run.store)
    measure_or_load(run.settings, "far", Dials(), counted, sources=[run], store=run.store)
    # Nothing has changed, as far as can be seen.
    assert measure_or_load(run.settings, "far", Dials(), refused, sources=[without], store=None).notice == ""
    for sources, store, lacking in [([without], run.store, "weights"), ([run], None, "photographs")]:
        old = measure_or_load(run.settings, "far", Dials(), refused, sources=sources, store=store, version=2)
        assert lacking in old.notice
        assert lacking in str(old)
        pd.testing.assert_frame_equal(old.table(), counted())
    # So is one whose run was trained again elsewhere, which is all that the notebook has of that seed.
    name = run.record.name
    other = results.write_measurement(
        old.measurement.folder, old.measurement.run | {"sources": {name: "0" * 16}}, counted()
    )
    pd.testing.assert_frame_equal(results.over_seeds(other).drop(columns="seed"), counted())
    # Other photographs than the run's are no photographs to measure it on.
    moved = run.record.run | {"data": run.record.run["data"] | {"fingerprint": "f" * 16}}
    other = dataclasses.replace(run, record=dataclasses.replace(run.record, run=moved))
    old = measure_or_load(run.settings, "far", Dials(), refused, sources=[other], store=run.store, version=2)
    assert "the photographs that the runs were made from" in old.notice
