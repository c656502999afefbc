"""Runs, their records and scores, and the tables and figures made of them, on a few synthetic persons."""

import ast
import dataclasses
import importlib.metadata
import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import scanet.train
from scanet import cost, files, results, runs
from scanet.config import PRESETS, ROWS, Settings, resolve
from scanet.data import prepare
from scanet.data.store import Store
from scanet.evaluation import align, evaluate, predictions_of
from scanet.files import UserError
from scanet.inference import Predictions
from scanet.model import SCANet
from scanet.report import card, figures, tables
from scanet.report.examples import examples
from scanet.report.statistics import row_difference, row_mean
from scanet.results import Record
from scanet.runs import Run, run_or_load
from scanet.skeleton import LSP, MPII

pytestmark = pytest.mark.usefixtures("at_home")


def test_a_record_holds_what_the_run_was(run: Run, project: Path) -> None:
    record = results.load(project / "experiments/results/tiny/ablation/SSA-s0")
    assert record is not None
    assert record.run == run.record.run
    assert record.name == "tiny/ablation/SSA-s0"
    assert record.settings["channels"] == 16
    assert record.run["data"]["train"] == 32
    assert record.run["data"]["valid"] == 16
    assert record.run["processes"] == 1
    history = record.history()
    assert list(history["epoch"]) == [1, 2]
    found = record.predictions()
    assert found["joints"].shape == found["truth"].shape == (16, 16, 2)
    # The record's scores are those of its own predictions.
    error = np.linalg.norm(found["joints"] - found["truth"], axis=2) / found["head_size"][:, None]
    scored = error[:, list(MPII.scored)]
    rate = 100 * np.nanmean(np.where(np.isnan(scored), np.nan, scored <= 0.5), axis=0).mean()
    assert record.scores("flip").row("plain")["Mean"] == pytest.approx(rate)
    assert not list(record.folder.parent.glob(".*"))  # no checkpoint, nothing half-written


def test_a_finished_run_is_loaded_and_not_trained_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    again = run_or_load(run.settings, progress=False)
    assert again.record.run == run.record.run
    assert again.notice == ""
    assert again.model is not None
    assert run.record.run["key"] in str(again)


def test_a_record_takes_up_the_scores_of_six_scales(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without training, and only once; where that cannot be, a sentence says why."""
    copy = Record(tmp_path / "SSA-s0", run.record.run)
    shutil.copytree(run.record.folder, copy.folder)
    monkeypatch.setattr(results, "folder_of", lambda *_: copy.folder)
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    six = dataclasses.replace(run.settings, tta="six-scale")
    assert six.overrides() == {}
    hidden = copy.folder / "weights.safetensors"
    hidden.rename(tmp_path / "hidden")
    with pytest.raises(
        UserError, match=r"no scores with tta 'six-scale', and its weights are not .*: choose one of none, f"
    ):
        run_or_load(six, progress=False)
    with pytest.raises(UserError, match="has no scores with tta 'six-scale': give the store with --data"):
        evaluate(copy.folder, None, "six-scale")
    (tmp_path / "hidden").rename(hidden)

    record = run_or_load(six, progress=False).record
    assert run_or_load(six, progress=False).record.run == record.run  # from the disk
    assert list(record.run["metrics"]) == ["none", "flip", "six-scale"]
    assert {k: v for k, v in record.run.items() if k != "metrics"} == {
        k: v for k, v in run.record.run.items() if k != "metrics"
    }
    found = record.predictions()
    error = np.linalg.norm(found["joints_six-scale"] - found["truth"], axis=2) / found["head_size"][:, None]
    scored = error[:, list(MPII.scored)]
    rate = 100 * np.nanmean(np.where(np.isnan(scored), np.nan, scored <= 0.5), axis=0).mean()
    assert record.scores("six-scale").row("plain")["Mean"] == pytest.approx(rate)
    assert not np.array_equal(found["joints_six-scale"], found["joints"])


def test_scores_of_a_run_that_was_trained_again_meanwhile_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Record(tmp_path / "SSA-s0", run.record.run)
    shutil.copytree(run.record.folder, copy.folder)
    before = (copy.folder / "run.json").read_text()

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        (copy.folder / "run.json").write_text(before.replace(run.record.run["key"], "0" * 16))
        return predictions_of(*arguments, **options)

    monkeypatch.setattr(runs, "predictions_of", meanwhile)
    with pytest.raises(UserError, match="was deleted or trained again meanwhile: ask for its scores once more"):
        runs._with_scores(copy, "six-scale", run.store, progress=False)
    assert json.loads((copy.folder / "run.json").read_text())["metrics"].keys() == {"none", "flip"}


def test_the_commit_is_the_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the project whose folder SCANET_HOME is, or in whose environment the package lies."""
    own = results.commit()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "thesis"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setenv("SCANET_HOME", str(tmp_path))
    assert results.commit() == own
    monkeypatch.setattr(results, "__file__", str(tmp_path / "env" / "scanet" / "results.py"))
    (tmp_path / "env").mkdir()
    assert results.commit() == "unknown"


def test_a_checkout_that_is_not_installed_has_a_provenance(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert results.provenance()["versions"]["scanet"] == "unknown"


def test_an_old_record_is_shown_as_such_unless_it_is_ephemeral(
    run: Run, monkeypatch: pytest.MonkeyPatch, raise_recipes: Callable[[], None]
) -> None:
    raise_recipes()
    assert "other training code" in run.record.outdated(run.settings, None)
    monkeypatch.setattr(runs, "EPHEMERAL", ())
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    again = run_or_load(run.settings, progress=False)
    assert "other training code" in again.notice
    assert "delete experiments/results/tiny/ablation/SSA-s0" in again.notice
    monkeypatch.setattr(runs, "EPHEMERAL", ("tiny",))
    monkeypatch.setattr(runs, "train", lambda *_, **__: (_ for _ in ()).throw(UserError("would train")))
    with pytest.raises(UserError, match="would train"):
        run_or_load(run.settings, progress=False)


def test_outdated_names_other_data_and_a_changed_preset(run: Run) -> None:
    assert run.record.outdated(run.settings, run.record.run["data"]["fingerprint"]) == ""
    assert "other data" in run.record.outdated(run.settings, "f" * 16)
    changed = dataclasses.replace(run.settings, sigma=2.0)
    assert run.record.outdated(changed, None) == "the preset has changed since (sigma)"


def test_a_key_is_of_what_differs_from_the_defaults() -> None:
    """So that the keys of finished runs outlive a new setting, as long as it is left alone."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(Settings):
        novelty: int = 3

    now = resolve(module="SSA", preset="tiny")
    later = Later(**dataclasses.asdict(now))
    key = results.key_of(now, "ablation", "f")
    assert results.key_of(later, "ablation", "f") == key
    assert results.key_of(dataclasses.replace(later, novelty=4), "ablation", "f") != key
    assert results.key_of(dataclasses.replace(now, tau=0.5), "ablation", "f") != key


def test_overrides_have_a_folder_of_their_own() -> None:
    plain = results.folder_of(resolve(module="SSA", preset="tiny", seed=2), "ablation")
    other = results.folder_of(resolve(module="SSA", preset="tiny", seed=2, tau=0.5, data="x"), "ablation")
    assert plain.name == "SSA-s2"
    assert other.name == "SSA-s2-tau=0.5"


def test_weights_come_back_as_they_were(run: Run) -> None:
    assert run.model is not None
    model = results.load_network(run.record.folder / "weights.safetensors")
    assert model.config == run.model.config
    for (name, ours), theirs in zip(model.state_dict().items(), run.model.state_dict().values(), strict=True):
        assert ours.equal(theirs), name


def test_weights_of_another_make_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="holds no weights of a network that this package has now"):
        results.load_network(path)


def test_a_broken_record_is_refused(tmp_path: Path) -> None:
    for text in ("{", "{}", "[]", "null", '{"key": "k", "settings": null}'):
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"is no run record \(.*\): delete its folder"):
            results.load(tmp_path)
    measurement = {"key": "k", "settings": {}, "overrides": {}, "data": "d"}
    (tmp_path / "run.json").write_text(json.dumps(measurement), encoding="utf-8")
    with pytest.raises(UserError, match="is of a measurement and has no metrics: give the folder of a run"):
        results.load(tmp_path)
    settings = {"module": "SSA", "preset": "tiny", "seed": 0}
    for lost, run in (
        ("seed", {"settings": settings | {"epochs": 1}, "data": {"fingerprint": "f"}}),
        ("fingerprint", {"settings": settings, "data": {}}),
    ):
        run["settings"].pop(lost, None)
        (tmp_path / "run.json").write_text(json.dumps(measurement | {"metrics": {}} | run), encoding="utf-8")
        with pytest.raises(UserError, match=rf"is no run record \(it has no {lost}\): delete its folder"):
            results.load(tmp_path)
    assert results.load(tmp_path / "nothing") is None


def test_records_are_canonical_and_in_table_order(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "results_folder", lambda: tmp_path)
    for name, module, seed, overrides in (
        ("SSA-s1", "SSA", 1, {}),
        ("SSA-s0", "SSA", 0, {}),
        ("Baseline-s0", "Baseline", 0, {}),
        ("SSA-s0-tau=2", "SSA", 0, {"tau": 2}),
    ):
        folder = tmp_path / "tiny" / "ablation" / name
        folder.mkdir(parents=True)
        settings = run.record.settings | {"module": module, "seed": seed}
        text = json.dumps(run.record.run | {"settings": settings, "overrides": overrides})
        (folder / "run.json").write_text(text, encoding="utf-8")
    assert [r.folder.name for r in results.records("tiny")] == ["Baseline-s0", "SSA-s0", "SSA-s1"]


def test_align_matches_joints_by_name() -> None:
    mpii = np.arange(32.0).reshape(1, 16, 2)
    lsp = align(mpii, 14)
    for name in LSP.joints:
        assert lsp[0, LSP.joints.index(name)].tolist() == mpii[0, MPII.joints.index(name)].tolist()
    back = align(lsp, 16)
    assert np.isnan(back[0, MPII.index("pelvis", "thorax")]).all()
    assert np.isfinite(back).sum() == 28


def test_evaluate_agrees_with_the_record(run: Run) -> None:
    store = prepare.store_path(run.settings)
    recorded, about = evaluate(run.record.folder, None, "none")
    measured, _ = evaluate(run.record.folder, store, "none", progress=False)
    assert "tiny/ablation/SSA-s0" in about
    assert measured == recorded
    with pytest.raises(UserError, match="give the folder of a finished run"):
        evaluate(store.parent, None, "none")


def test_a_damaged_records_scores_and_predictions_are_named(run: Run, tmp_path: Path) -> None:
    metrics = {"flip": {k: v for k, v in run.record.run["metrics"]["flip"].items() if k != "pooled"}}
    with pytest.raises(UserError, match=r"lacks pooled in its scores by flip, so it is damaged: delete .* and run"):
        Record(run.record.folder, run.record.run | {"metrics": metrics}).scores()
    with pytest.raises(UserError, match=r"has no scores with tta 'six-scale': choose one of none, flip$"):
        run.record.scores("six-scale")
    with h5py.File(tmp_path / "predictions.h5", "w") as file:
        file["joints"] = np.zeros((2, 16, 2))
    with pytest.raises(UserError, match=r"is damaged \(.*'truth'.*\): delete its folder and run again"):
        Record(tmp_path, run.record.run).kinds()


def test_without_the_papers_numbers_a_run_is_shown_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As outside of a checkout: a training does not end in an error for want of a line to set beside it."""
    both = tables.ablation_row(run.record)
    monkeypatch.setattr(tables, "home", lambda: run.record.folder)
    alone = tables.ablation_row(run.record)
    assert alone.index.tolist() == ["ours, tiny"]
    assert alone.equals(both.loc[["ours, tiny"]])
    assert len(tables.final([run.record], "flip")) == 2


def test_a_table_of_no_runs_is_empty() -> None:
    assert tables.runs([]).empty


def test_evaluate_refuses_a_store_of_another_resolution(run: Run, tmp_path: Path) -> None:
    raw = next(files.data_folder().glob("synthetic*c0.5"))
    prepare.prepare("mpii", raw, tmp_path / "coarse.h5", 40, progress=False)
    with pytest.raises(UserError, match=r"coarse\.h5 holds boxes of 40 pixels, and an input_size of 64 takes 80"):
        evaluate(run.record.folder, tmp_path / "coarse.h5", "none", progress=False)


def test_examples_are_ranked_by_error_and_in_place(run: Run) -> None:
    chosen = examples(run, 4)
    assert [e.rank for e in chosen] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    errors = [np.nanmean(np.linalg.norm(e.joints - e.truth, axis=1)) for e in chosen]
    assert errors[0] < errors[-1]
    for example in chosen:
        assert example.image.shape == (256, 256, 3)
        assert 0 <= example.image.min() <= example.image.max() <= 1
        (weights,) = example.attention
        assert weights.shape == (16, 16)
        assert weights.min() == pytest.approx(0, abs=1e-5)  # noise-free at tau = 1: Eq. (5) itself
        assert weights.max() == pytest.approx(1, abs=1e-5)
    assert examples(dataclasses.replace(run, store=None)) == []
    assert examples(run, by=np.full(16, np.nan)) == []  # nobody can be ranked


def test_missing_photographs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs photographs.*scanet prepare lspet FOLDER"):
        run_or_load(resolve(preset="lspet-small"), progress=False)
    with pytest.raises(UserError, match="there is no folder"):
        run_or_load(resolve(preset="lspet-small", data=str(tmp_path / "none")), progress=False)
    with pytest.raises(UserError, match=r"no store of .* is there yet: fill one with `scanet prepare`"):
        prepare.filled(resolve(preset="lspet-small", data=str(tmp_path)))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file: give the folder that holds the lspet data"):
        run_or_load(resolve(preset="lspet-small", data=str(tmp_path / "file")), progress=False)
    tiny = prepare.open_store(resolve(preset="tiny"), progress=False).path
    with pytest.raises(UserError, match="holds synthetic, but preset 'lspet-small' is for lspet"):
        run_or_load(resolve(preset="lspet-small", data=str(tiny)), progress=False)


def test_a_store_of_other_boxes_is_refused(run: Run) -> None:
    """It would give another network under the same key."""
    assert run.store is not None
    tiny = run.store.path
    with pytest.raises(UserError, match=r"holds boxes of 80 pixels, and an input_size of 128 takes 160: .* 160"):
        run_or_load(resolve(preset="tiny", input_size=128, data=str(tiny)), progress=False)


def with_scores(record: Record, module: str, seed: int, correct: int, folder: Path | None = None) -> Record:
    """A copy of the record in which every joint is right for `correct` of 16 persons; predictions in `folder`."""
    run = json.loads(json.dumps(record.run))
    run["settings"] |= {"module": module, "seed": seed}
    for scores in run["metrics"].values():
        n = len(scores["annotated"])
        scores |= {"annotated": [16] * n, "at_most": [correct] * n, "below": [correct] * n}
    if folder is None:
        return Record(record.folder, run)
    folder.mkdir()
    found = record.predictions()
    truth = np.arange(found["truth"].size, dtype=float).reshape(found["truth"].shape)
    wrong = np.where(np.arange(len(truth)) < correct, 0, 1e6)[:, None, None]
    with h5py.File(folder / "predictions.h5", "w") as file:
        for name, values in {"joints": truth + wrong, "truth": truth, "head_size": np.ones(len(truth))}.items():
            file[name] = values
    return Record(folder, run)


def test_table2_has_means_over_seeds_and_differences(run: Run, tmp_path: Path) -> None:
    made = [("Baseline", 0, 8), ("MSFI", 0, 10), ("MSFI", 1, 12), ("SSA", 0, 14), ("soft", 0, 4)]
    records = [with_scores(run.record, *values, tmp_path / str(k)) for k, values in enumerate(made)]
    table = tables.table2(records)
    ours = table.xs("tiny", level="Source")
    assert ours["Mean"].to_dict() == {"Baseline": 50, "MSFI": 68.75, "MSFI+SSA": 87.5, "MSFI+soft": 25}
    assert ours["seeds"].to_dict() == {"Baseline": 1, "MSFI": 2, "MSFI+SSA": 1, "MSFI+soft": 1}
    assert ours["Δ seeds"].dropna().to_dict() == {"MSFI": 1, "MSFI+SSA": 1, "MSFI+soft": 1}
    assert tables.differences(table)["seeds"].dropna().tolist() == [1, 1]
    # Of seed 0 alone, which is the one that the other rows have.
    assert ours["Δ"].dropna().to_dict() == {"MSFI": 12.5, "MSFI+SSA": 25, "MSFI+soft": -37.5}
    halves = {
        title: row_difference([records[row]], [records[over]]).half_width()
        for title, row, over in (("MSFI", 1, 0), ("MSFI+SSA", 3, 1), ("MSFI+soft", 4, 1))
    }
    assert ours["± Δ"].dropna().to_dict() == halves
    assert ours["± Mean"].notna().all()
    assert table.xs("printed", level="Source")[["± Mean", "± Δ"]].isna().all(axis=None)
    # The paper's own differences, as its text states them (§3.3.1 to §3.3.3).
    paper = table.xs("printed", level="Source")["Δ"].round(2)
    assert paper["MSFI"] == 0.30
    assert paper["MSFI+BDMP"] == 0.27
    assert paper["MSFI+SACWA"] == 0.25
    assert paper["MSFI+SSA"] == 0.35


def test_lengths_compare_each_row_with_its_own_of_the_presets_length(run: Run, tmp_path: Path) -> None:
    def trained(module: str, epochs: int, seed: int, correct: int) -> Record:
        copy = with_scores(run.record, module, seed, correct)
        changed = {"epochs": epochs} if epochs != 2 else {}
        now = {"title": ROWS[module].title, "settings": {**copy.settings, **changed}, "overrides": changed}
        return Record(copy.folder, copy.run | now)

    made = [("Baseline", 2, 0), ("MSFI", 2, 0), ("MSFI", 6, 0), ("SSA", 1, 0), ("SSA", 2, 0), ("SSA", 2, 1)]
    several = tables.of_several_lengths([trained(*run, correct=8) for run in made])
    perfect = tmp_path / "MSFI-s0-epochs=6"
    shutil.copytree(run.record.folder, perfect)
    with h5py.File(perfect / "predictions.h5", "a") as file:
        file["joints"][...] = file["truth"][...]
    several[1] = Record(perfect, several[1].run)
    assert {record.settings["module"] for record in several} == {"MSFI", "SSA"}
    table = tables.lengths(several)
    assert list(table.index) == [("MSFI", 2), ("MSFI", 6), ("MSFI+SSA", 1), ("MSFI+SSA", 2)]
    assert table["seeds"].to_list() == [1, 1, 1, 2]
    # These records' persons are all the same run's, but for the long one, which finds every joint.
    mean = run.record.scores().row("plain")["Mean"]
    assert table["Mean"].to_list() == pytest.approx([mean, 100, mean, mean])
    assert table["Δ length"].dropna().to_dict() == pytest.approx({("MSFI", 6): 100 - mean, ("MSFI+SSA", 1): 0})
    assert table["Δ Baseline"].isna().all()  # which has one length alone, and is left out
    assert table["± Δ length"].notna().to_list() == table["Δ length"].notna().to_list()
    baselines = [trained("Baseline", epochs, 0, correct=8) for epochs in (2, 6)]
    with_baseline = tables.lengths([*several, *baselines])
    assert with_baseline["Δ Baseline"].dropna().to_dict() == pytest.approx(
        {("MSFI", 2): 0, ("MSFI", 6): 100 - mean, ("MSFI+SSA", 2): 0}
    )
    with pytest.raises(UserError, match="no row has been trained for several lengths"):
        tables.of_several_lengths(several[:1])


def test_curves_of_several_lengths_end_in_rings() -> None:
    lines = [("MSFI", length, epoch, 10.0 * epoch + length) for length in (1, 3) for epoch in range(1, length + 1)]
    histories = pd.DataFrame(lines, columns=["Method", "length", "epoch", "pckh"])
    (panel,) = figures.by_length(pd.concat([histories.assign(seed=0), histories.assign(seed=1)])).axes
    rings = [line.get_xydata()[0].tolist() for line in panel.lines if line.get_marker() == "o"]
    assert rings == [[1, 11], [3, 33]]
    assert [text.get_text() for text in panel.texts] == ["11.0", "33.0"]
    plt.close("all")


def test_tables_refuse_a_mix_of_presets(run: Run) -> None:
    other = json.loads(json.dumps(run.record.run))
    other["settings"]["preset"] = "quick"
    with pytest.raises(UserError, match=r"presets \['quick', 'tiny'\]"):
        tables.table2([run.record, Record(run.record.folder, other)])


def test_statistics_refuse_records_of_several_rows_or_the_same_seed_twice(run: Run) -> None:
    ssa, other = run.record, with_scores(run.record, "SSA", 1, 8)
    with pytest.raises(UserError, match=r"SSA-s0 and .* differ in module: give the runs of one row"):
        row_mean([ssa, with_scores(run.record, "MSFI", 1, 8)])
    with pytest.raises(UserError, match=r"SSA-s0 and .*SSA-s0 have the same seed"):
        row_mean([other, ssa, ssa])
    with pytest.raises(UserError, match="has no scores with tta 'six-scale': choose one of none, flip"):
        row_mean([ssa], "six-scale")
    assert row_mean([ssa, other]).seeds == 2
    assert row_difference([ssa, other], []) is None
    with pytest.raises(UserError, match="there is no finished run of this preset"):
        row_mean([])


def test_a_row_whose_name_goes_on_is_another_one(run: Run, project: Path) -> None:
    """Records of a row SSA-smooth, of this checkout or of another, are none of SSA's."""
    folder = project / "experiments/results/tiny/ablation/SSA-smooth-s0"
    shutil.copytree(run.record.folder, folder)
    saved = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    saved["settings"]["module"] = "SSA-smooth"
    (folder / "run.json").write_text(json.dumps(saved), encoding="utf-8")
    try:
        assert [record.name for record in results.seeds(run.settings)] == ["tiny/ablation/SSA-s0"]
        assert "tiny/ablation/SSA-smooth-s0" not in [record.name for record in results.records("tiny")]
    finally:
        shutil.rmtree(folder)


def test_runs_follow_the_code_where_they_are_cheap_or_ones_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = resolve(preset="synthetic")
    own = {**ROWS, "SSA": dataclasses.replace(ROWS["SSA"], place="ours")}
    before = {name: results.key_of(s, "ablation", "f") for name, s in (("tiny", run.settings), ("kept", kept))}
    assert run.record.outdated(run.settings, None) == ""
    monkeypatch.setattr(results, "training_code", lambda _: "other")
    assert "other training code" in run.record.outdated(run.settings, None)
    assert results.key_of(run.settings, "ablation", "f") != before["tiny"]
    assert results.key_of(kept, "ablation", "f") == before["kept"]
    monkeypatch.setattr(results, "ROWS", own)
    assert results.key_of(kept, "ablation", "f") != before["kept"]


def test_the_training_code_is_its_statements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "scanet"
    shutil.copytree(Path(results.__file__).parent, package, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    code = results.training_code.__wrapped__
    first, losses = code("SSA"), package / "losses.py"
    written = losses.read_text(encoding="utf-8")
    losses.write_text(written.replace('"""Mean over', '"""A mean over') + "\n\n# a comment\n", encoding="utf-8")
    assert losses.read_text(encoding="utf-8").count("A mean over") == 1
    monkeypatch.setattr(results, "_SOURCES", results._sources(package))
    assert code("SSA") == first
    # Which Python reads it does not count either: later ones have more fields, which are empty.
    monkeypatch.setattr(ast.FunctionDef, "_fields", (*ast.FunctionDef._fields, "later"))
    monkeypatch.setattr(ast.FunctionDef, "later", [], raising=False)
    assert code("SSA") == first
    monkeypatch.setattr(results, "ROWS", {**ROWS, "SSA": dataclasses.replace(ROWS["SSA"], title="another title")})
    assert code("SSA") == first
    monkeypatch.setattr(results, "ROWS", {**ROWS, "SSA": dataclasses.replace(ROWS["SSA"], messages="both")})
    assert code("SSA") != first
    monkeypatch.setattr(results, "ROWS", ROWS)
    losses.write_text(written.replace("mse_loss", "l1_loss"), encoding="utf-8")
    monkeypatch.setattr(results, "_SOURCES", results._sources(package))
    assert code("SSA") != first


def test_the_training_code_is_what_was_imported() -> None:
    """Not what has been written into the files since, of which a running notebook knows nothing."""
    script = """
from pathlib import Path
from scanet import results
read = Path.read_text
Path.read_text = lambda path, **how: read(path, **how).replace("mse_loss", "l1_loss")
print(results.training_code("SSA"))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == results.training_code("SSA")


def test_a_store_that_cannot_be_read_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, raise_recipes: Callable[[], None]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise UserError("the store is broken")

    monkeypatch.setattr(prepare, "open_store", broken)
    with pytest.raises(UserError, match="the store is broken"):  # it is there, and not merely absent
        run_or_load(run.settings, progress=False)
    raise_recipes()
    with pytest.raises(UserError, match="the store is broken"):
        run_or_load(run.settings, progress=False)


def test_tables_refuse_records_from_before_a_change_of_their_preset(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie where today's do, and nothing of their name tells them apart."""
    before = json.loads(json.dumps(run.record.run))
    before["settings"]["epochs"] = 24
    older, newer = Record(run.record.folder, before), run.record
    with pytest.raises(UserError, match=r"SSA-s0 was made when its preset had epochs=24, .*: delete its folder"):
        tables.table2([newer, older])
    assert results.one_preset([older, older]) == "tiny"
    before["settings"] |= {"epochs": newer.settings["epochs"], "heatmap_std": 0.001}
    with pytest.raises(UserError, match=r"when its preset had heatmap_std=0.001, "):
        tables.table2([newer, older])
    with monkeypatch.context() as patch:
        patch.setattr("scanet.config.PRESETS", {**PRESETS, "tiny": {**PRESETS["tiny"], "heatmap_std": 0.001}})
        with pytest.raises(UserError, match=r"when its preset had heatmap_std=None, "):
            tables.table2([newer, older])
    before["settings"] |= {"epochs": 24, "heatmap_std": None}
    before["overrides"] = {"epochs": 24}  # a run with another setting, not an old one
    assert results.one_preset([newer, older]) == "tiny"


def test_what_trains_a_run_again_is_one_command(run: Run) -> None:
    """Its record is in the way as long as it is there."""
    own = {"epochs": 36, "tau": 2.0, "heatmap_std": None}
    changed = Record(run.record.folder, run.record.run | {"overrides": own})
    options = "--preset tiny --seed 0 --set epochs=36 --set tau=2.0 --set heatmap_std=default"
    assert changed.again == f"delete {run.record.folder} and run `scanet train SSA {options}`"
    assert resolve(epochs=36, tau=2.0, heatmap_std="default").overrides() == own
    for folder in ("final/ALL-s0-start.epochs=9", "choices-runs/Baseline-s0"):  # one option would not make these
        made = Record(run.record.folder.parents[1] / folder, changed.run)
        assert made.again == f"delete {made.folder} and make it again as it was made"


def test_an_interrupted_training_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    validate = scanet.train.validate

    def interrupted(*arguments: Any) -> float:
        if epochs:
            raise KeyboardInterrupt
        epochs.append(1)
        return validate(*arguments)

    monkeypatch.setattr(scanet.train, "validate", interrupted)
    settings, said = resolve(preset="tiny", module="Baseline", seed=15), "after its last finished epoch"
    epochs = [1]
    with pytest.raises(KeyboardInterrupt):  # in the first epoch: there is nothing to go on from
        run_or_load(settings, progress=False)
    assert said not in capsys.readouterr().err
    epochs = []
    with pytest.raises(KeyboardInterrupt):
        run_or_load(settings, progress=False)
    assert f"the same call goes on with Baseline-s15 {said}" in capsys.readouterr().err
    monkeypatch.setattr(scanet.train, "validate", validate)
    assert list(run_or_load(settings, progress=False).record.history()["epoch"]) == [1, 2]
    assert "from its checkpoint on" in capsys.readouterr().err


def test_tables_refuse_records_of_different_training_code(run: Run) -> None:
    def made(module: str, **how: Any) -> Record:
        settings = run.record.settings | {"module": module}
        return Record(run.record.folder, run.record.run | {"settings": settings} | how)

    with pytest.raises(
        UserError, match=r"SSA-s0 and .* were made by different training code: delete the older one's"
    ):
        tables.table2([made("SSA"), made("SCA", recipe=1)])
    with pytest.raises(UserError, match="were made by different training code"):
        tables.table2([made("SSA"), made("MSFI", recipe=0)])
    assert results.one_preset([made("SSA", recipe=1), made("SCA", recipe=1), made("MSFI", recipe=1)]) == "tiny"
    with pytest.raises(UserError, match="were made by different training code"):  # tiny's follow the code
        results.one_preset([made("SSA"), made("SSA", code="0" * 16)])
    assert results.one_preset([made("SSA"), made("MSFI", code="0" * 16)]) == "tiny"  # another row's is another


def test_ablation_row_puts_the_paper_beside_ours(run: Run) -> None:
    table = tables.ablation_row(run.record)
    assert table.loc["paper, MPII", "Mean"] == 88.74
    assert table.loc["ours, tiny", "Mean"] == run.record.scores().row("plain")["Mean"]
    shown = tables.show(table).to_html()
    assert "88.74" in shown
    assert run.record.run["key"] in tables.show(tables.facts(run.record)).to_html()
    counted = tables.show(pd.DataFrame({"Mean": [55.0, None], "seeds": [3.0, None]})).to_html()
    assert re.findall(r'class="data[^>]*>([^<]*)</td>', counted) == ["55.00", "3", "", ""]
    assert tables.runs([run.record]).loc["tiny/ablation/SSA-s0", "key"] == run.record.run["key"]
    assert tables.paper_row("SCA") == {"Mean": 88.76}
    assert tables.paper_row("soft") == {}


def test_curves_show_the_history_and_its_drops() -> None:
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "pckh": [5.0, 20.0, 30.0], "loss": [0.3, 0.2, 0.1], "learning_rate": [1, 1, 0.1]}
    )
    scores, losses = figures.training_curves(history)
    assert scores.lines[0].get_ydata().tolist() == [5, 20, 30]
    assert losses.lines[0].get_ydata().tolist() == [0.3, 0.2, 0.1]
    assert [line.get_xdata()[0] for line in scores.lines[1:]] == [2.5]
    falling = figures.training_curves(history.assign(learning_rate=[3, 2, 1]))
    assert len(falling[0].lines) == 1  # no line at every epoch of a linear fall
    plt.close("all")


def test_without_photographs_the_gallery_says_so(run: Run) -> None:
    elsewhere = dataclasses.replace(run, store=None)
    assert "not on this machine" in figures.gallery(examples(elsewhere, 3), MPII).texts[0].get_text()
    plt.close("all")


def test_gallery_draws_every_limb_and_every_map(run: Run) -> None:
    figure = figures.gallery(examples(run, 3), MPII)
    axes = np.array(figure.axes).reshape(2, 3)
    for ax in axes[0]:  # limbs are drawn with gaps between them: the truth's, then one line for each colour
        drawn = [np.isnan(line.get_xdata()).sum() for line in ax.lines]
        assert drawn[0] == sum(drawn[1:]) == len(MPII.limbs)
    assert all(len(ax.images) == 2 for ax in axes[1])
    plt.close("all")


def test_difference_plot_has_the_tables_numbers(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FAR", 30)
    made = [("MSFI", 0, 8), ("SSA", 0, 12)]
    table = tables.table2([with_scores(run.record, *values, tmp_path / values[0]) for values in made])
    ax = figures.differences(tables.differences(table))
    labels = [label.get_text() for label in ax.get_yticklabels()]
    paper = ax.lines[1].get_xdata()
    assert paper[labels.index("MSFI+SSA − MSFI")] == pytest.approx(0.35)
    assert not ax.containers  # one seed: its interval is of the persons alone, and would look the surest
    (point,) = [line for line in ax.lines if line.get_label() == "ours, tiny: one or two seeds"]
    assert point.get_xdata().tolist() == [25]
    assert point.get_markerfacecolor() == "white"
    plt.close("all")


def test_a_difference_far_off_is_a_number_at_the_edge() -> None:
    index = pd.MultiIndex.from_product([["near", "far"], ["tiny"]])
    table = pd.DataFrame({"value": [-1.0, -18.23], "half": [0.5, 1.0], "seeds": [3, 3]}, index=index)
    ax = figures.differences(table)
    assert [text.get_text() for text in ax.texts] == ["◂ −18.2"]
    (bars,) = ax.containers
    assert bars.lines[0].get_xdata().tolist() == [-1]
    assert ax.get_xlim()[0] > -3
    plt.close("all")


def test_every_preset_has_its_place_and_colour_in_the_figure() -> None:
    presets = [name for name in PRESETS if name != "tiny"]
    index = pd.MultiIndex.from_product([["SSA − MSFI"], ["printed", *presets]])
    values = np.arange(len(index)) / 2
    table = pd.DataFrame({"value": values, "half": [math.nan, *np.ones(len(presets))], "seeds": 3}, index=index)
    ax = figures.differences(table)
    assert [bars.get_label() for bars in ax.containers] == [f"ours, {preset}" for preset in presets]
    assert [bars.lines[0].get_xdata().tolist() for bars in ax.containers] == [[value] for value in values[1:]]
    assert len({line.get_color() for line in ax.lines[1:]}) == len(index)
    plt.close("all")


def test_predictions_file_holds_no_path_or_time(run: Run, tmp_path: Path) -> None:
    """The same predictions make the same file, wherever and whenever it is written."""
    with h5py.File(run.record.folder / "predictions.h5") as file:
        assert set(file) == {"joints", "joints_none", "heat", "truth", "head_size", "row"}
        columns = {name: file[name][:] for name in ("joints_none", "truth", "head_size", "row")}
        found = Predictions(file["joints"][:], file["heat"][:])
    assert run.model is not None
    written = (run.record.folder / "predictions.h5").stat().st_mtime
    time.sleep(max(0, written + 1.1 - time.time()))  # HDF5 would note whole seconds
    again = results.write(tmp_path / "again", run.record.run, [], run.model, found, columns).folder
    assert (again / "predictions.h5").read_bytes() == (run.record.folder / "predictions.h5").read_bytes()


# ---- the final model ----


@pytest.fixture(scope="module")
def stages(project: Path) -> tuple[Run, Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANET_HOME", str(project))
        return runs.final(resolve(preset="tiny", stacks=4), progress=False)


def test_the_final_model_is_two_canonical_runs(stages: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    trained, tuned = stages
    assert [run.record.name for run in stages] == ["tiny/final/BDMP+SCA-s0", "tiny/final/ALL-s0"]
    assert [run.record.canonical for run in stages] == [True, True]
    assert [run.record.settings["epochs"] for run in stages] == [2, 1]
    assert tuned.record.history()["learning_rate"].tolist() == [2.5e-6]
    assert "start" not in trained.record.run
    assert tuned.record.run["start"] == {"name": trained.record.name, "key": trained.record.run["key"]}
    assert [r.name for r in results.records("tiny", "final")] == [run.record.name for run in stages]
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    again = runs.final(resolve(preset="tiny", stacks=4), progress=False)
    assert [run.record.run for run in again] == [run.record.run for run in stages]


def test_fine_tuning_starts_from_the_finished_run(stages: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """With every weight and every statistic as the record has them; the key tells which run it was."""
    trained, tuned = stages
    given: list[SCANet] = []

    def spied(settings: Settings, *_: Any, initial: SCANet, **__: Any) -> None:
        assert settings.row.hard_mining
        given.append(initial)
        raise UserError("far enough")

    monkeypatch.setattr(runs, "train", spied)
    with pytest.raises(UserError, match="far enough"):
        run_or_load(dataclasses.replace(tuned.settings, top_k=3), "final", start=trained.record, progress=False)
    weights = load_file(trained.record.folder / "weights.safetensors")
    state = given[0].state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)
    one, other = (
        results.key_of(tuned.settings, "final", "f", Record(trained.record.folder, trained.record.run | {"key": key}))
        for key in ("a", "b")
    )
    assert len({one, other, results.key_of(tuned.settings, "final", "f")}) == 3


def test_another_start_makes_the_fine_tuned_run_another(stages: tuple[Run, Run]) -> None:
    trained, tuned = stages
    changed = Record(trained.record.folder, trained.record.run | {"key": "0" * 16})
    assert tuned.record.outdated(tuned.settings, None, trained.record) == ""
    assert "started from a run with key" in tuned.record.outdated(tuned.settings, None, changed)
    longer = Record(trained.record.folder, trained.record.run | {"overrides": {"epochs": 9, "tau": 2.0}})
    other = dataclasses.replace(tuned.settings, tau=2.0)
    assert results.folder_of(other, "final", longer).name == "ALL-s0-start.epochs=9-tau=2.0"


def test_fine_tuning_needs_the_weights(stages: tuple[Run, Run], tmp_path: Path) -> None:
    trained, tuned = stages
    without = Record(tmp_path / "tiny" / "final" / "gone", trained.record.run)
    remedy = r"gone and run `scanet train --final --preset tiny --seed 0`"
    with pytest.raises(
        UserError, match=f"gone has no weights.safetensors, which git does not keep: .* delete .*{remedy}"
    ):
        run_or_load(dataclasses.replace(tuned.settings, top_k=3), "final", start=without, progress=False)


def test_a_run_on_the_validation_persons_is_no_validation_result() -> None:
    settings = resolve(preset="tiny", module="Baseline", epochs=1, train_on="train+valid", limit=12)
    seen = run_or_load(settings, progress=False)
    assert (seen.record.run["data"]["train"], seen.record.run["data"]["valid"]) == (24, 12)
    assert not seen.record.held_out
    assert not seen.record.canonical  # in no page's table
    assert "among those that it was trained on: no validation result" in str(seen)
    assert tables.ablation_row(seen.record).index[-1] == "ours, tiny, persons it was TRAINED ON"
    scored = seen.record.scores()
    assert "On persons it was TRAINED ON (no validation result)" in card.card(seen.record, scored, scored, 1, None)
    with pytest.raises(UserError, match="was trained on its validation persons"):
        tables.table2([seen.record])
    assert "trained on these persons" in evaluate(seen.record.folder, None, "flip")[1]
    store = prepare.store_path(settings)
    assert "trained on these persons" in evaluate(seen.record.folder, store, "none", progress=False)[1]


def test_table1_keeps_the_test_set_and_ours_apart(stages: tuple[Run, Run], run: Run) -> None:
    """Numbers of a record against its counts; the paper's parameters against the network's."""
    records = [run.record, *(stage.record for stage in stages)]
    table = tables.table1(records)
    theirs, ours = (table.xs(whom, level="Scored on") for whom in ("MPII test", "tiny validation"))
    assert len(theirs) == 10
    assert theirs.loc["the paper's", "Mean"] == 91.6
    assert theirs["printed"].dropna().to_dict() == {
        "Newell et al. [4]": 25.5, "Chu et al. [6]": 58.1, "the paper's": 15.6,
    }  # fmt: skip
    counted = theirs["counted"].dropna().round(1).to_dict()
    assert counted == {"Newell et al. [4]": 25.4, "the paper's": 15.6}
    assert list(ours.index) == [
        "MSFI+SSA, 1 stack, flip", "MSFI+BDMP+SCA, 4 stacks, flip", "MSFI+ALL, 4 stacks, flip",
    ]  # fmt: skip
    scores = stages[1].record.scores("flip")
    line = ours.loc["MSFI+ALL, 4 stacks, flip"]
    assert line["Mean"] == pytest.approx(100 * sum(scores.at_most) / sum(scores.annotated))
    assert line["counted"] == pytest.approx(stages[1].record.run["network"]["parameters"] / 1e6)
    assert line["GFLOP"] == pytest.approx(cost.flops(stages[1].record.network, 64) / 1e9)
    figure = figures.accuracy_by_parameters(table)
    left, right = figure.axes
    assert left.get_title() == "the paper's Table 1: MPII test"
    assert right.get_title() == "this book: tiny validation"
    assert sorted(left.lines[0].get_xdata()) == [15.6, 25.5, 58.1]
    assert sorted(right.lines[0].get_xdata()) == sorted(ours["counted"])
    heights = [text.xyann[1] for text in right.texts]
    assert min(np.diff(heights)) > 0  # no label on another
    plt.close("all")


def test_the_final_model_s_row_says_what_it_is_of(stages: tuple[Run, Run]) -> None:
    trained, tuned = (stage.record for stage in stages)
    table = tables.final([trained, tuned], "flip")
    assert table.loc[("MSFI+ALL, tiny validation", "plain"), "Mean"] == tuned.scores().row("plain")["Mean"]
    assert table.loc[("Table 1, MPII test", "official"), "Mean"] == 91.6
    seen = Record(tuned.folder, tuned.run | {"settings": tuned.settings | {"train_on": "train+valid"}})
    labels = tables.final([seen], "flip").index.get_level_values("Scored on")
    assert "MSFI+ALL, tiny persons it was TRAINED ON" in labels
    assert tables.facts(tuned)["starts from"] == f"tiny/final/BDMP+SCA-s0, key {trained.run['key']}"
    assert "among the first" in tables.facts(seen)["persons"]


def test_other_unfinished_trainings_of_a_name_are_found(tmp_path: Path) -> None:
    """Those of another key, and not those of another name that begins alike."""
    own, other, longer, empty = (
        tmp_path / name / "checkpoint.safetensors"
        for name in (
            ".SSA-s0-" + "a" * 16,
            ".SSA-s0-" + "b" * 16,
            ".SSA-s0-epochs=3-" + "c" * 16,
            ".SSA-s0-" + "d" * 16,
        )
    )
    for path in (own, other, longer):
        path.parent.mkdir()
        path.touch()
    empty.parent.mkdir()
    assert runs._other_checkpoints(own) == [other]


def test_a_run_that_another_process_trains_is_not_trained_beside_it() -> None:
    settings = resolve(preset="tiny", module="Baseline", seed=5)
    folder = results.folder_of(settings, "ablation")
    with (
        files.alone(folder, "what the other one trains"),
        pytest.raises(UserError, match=r"another process is at work on Baseline-s5 \(tiny\)"),
    ):
        run_or_load(settings, progress=False)
    assert not list(folder.parent.glob("*Baseline-s5*"))


def test_a_record_that_another_process_has_just_written_is_taken(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there when this one looked, and came while the store was opened."""
    settings = resolve(preset="tiny", module="Baseline", seed=6)
    folder = results.folder_of(settings, "ablation")
    run_or_load(settings, progress=False)
    aside = folder.rename(project / "aside")

    def open_slowly(*given: Any, **named: Any) -> Store:
        shutil.copytree(aside, folder)
        return open_store(*given, **named)

    open_store = prepare.open_store
    monkeypatch.setattr(prepare, "open_store", open_slowly)
    monkeypatch.setattr(runs, "_train", lambda *_, **__: pytest.fail("trained again"))
    assert run_or_load(settings, progress=False).record.name == "tiny/ablation/Baseline-s6"
