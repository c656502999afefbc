"""The explorer's controls, without a browser."""

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scanet import results
from scanet.config import resolve
from scanet.files import UserError
from scanet.report import explore
from scanet.report.explore import Explorer
from scanet.report.views import Picture, State, look
from scanet.runs import Run, run_or_load

pytestmark = pytest.mark.usefixtures("at_home")


@pytest.fixture(scope="module")
def picture() -> Picture:
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    return Picture(np.zeros((256, 256, 3), np.float32), pixels, None)


@pytest.fixture(scope="module")
def run(project: Path) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANET_HOME", str(project))
        run_or_load(resolve(module="Baseline", preset="tiny", epochs=1), progress=False)
        return run_or_load(resolve(module="SSA", preset="tiny", epochs=1), progress=False)


def png(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def test_controls_change_the_picture(run: Run) -> None:
    panel = Explorer(run)
    assert panel.status.value.startswith("tiny/ablation/SSA-s0-epochs=1: ")
    seen = [panel.picture.value]
    for control, value in (
        (panel.tau, 10.0), (panel.number, 3), (panel.joint, "neck"), (panel.noise, 5),
    ):  # fmt: skip
        control.value = value
        assert panel.picture.value not in seen
        seen.append(panel.picture.value)
    assert panel.number.max == 15
    baseline = run.record.folder.parent / "Baseline-s0-epochs=1"
    panel.run.value = baseline  # no attention: another figure
    assert panel.status.value.startswith("tiny/ablation/Baseline-s0-epochs=1: ")
    assert panel.picture.value not in seen


def test_own_photograph_is_asked_for_then_shown(run: Run) -> None:
    panel = Explorer(run)
    before = panel.picture.value
    panel.source.value = "own photograph"
    assert panel.status.value.startswith("choose a file")
    assert (panel._own.layout.display, panel.number.layout.display) == ("flex", "none")
    noise = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    file = {"name": "a.png", "type": "image/png", "size": 1, "last_modified": datetime.now(UTC)}
    panel.upload.value = (file | {"content": memoryview(png(noise))},)
    assert panel.status.value.startswith("tiny/")
    assert panel.picture.value != before
    panel.upload.value = (file | {"content": memoryview(b"words")},)
    assert "cannot be read as a picture" in panel.status.value


def test_missing_weights_and_photographs_are_named(run: Run) -> None:
    with pytest.raises(
        UserError,
        match=r"weights of tiny/ablation/SSA-s0-epochs=1 are not .* run `scanet train SSA .* --set epochs=1`",
    ):
        Explorer(Run(run.settings, run.record, "", None, run.store))
    with pytest.raises(UserError, match="photographs of tiny/ablation/SSA-s0-epochs=1 are not"):
        explore.validation_person(Run(run.settings, run.record, "", run.model, None), 0)


def test_the_packages_model_stands_in_for_its_runs_weights(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture
) -> None:
    absent = Run(run.settings, run.record, "", None, run.store)
    monkeypatch.setattr(explore, "WEIGHTS", tmp_path / "scanet.safetensors")
    own = explore.model_of(run)
    for key in (run.record.run["key"], "another"):
        about = {"run": run.record.name, "key": key, "input_size": "64"}
        results.save_model(own, tmp_path / "scanet.safetensors", half=True, about=about)
        offered = [record.name for record in explore._offered()]
        assert offered.count(run.record.name) == 2  # for its own weights, and for the package's
        if key == "another":
            with pytest.raises(UserError, match="are not on this machine"):
                explore.model_of(absent)
            continue
        ours, shipped = (look(model, picture, State(1.0)).quiet.heatmap for model in (own, explore.model_of(absent)))
        assert np.abs(ours - shipped).max() < 0.02 * np.abs(ours).max()


@pytest.mark.usefixtures("run")
def test_all_runs_with_weights_are_offered() -> None:
    names = [record.name for record in results.trained()]
    assert {"tiny/ablation/Baseline-s0-epochs=1", "tiny/ablation/SSA-s0-epochs=1"} <= set(names)
    assert names == sorted(names)
