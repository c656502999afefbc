"""The `scanet` command as a user calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from scanet import cli
from scanet.config import Network
from scanet.cost import flops

ROOT = Path(__file__).parents[1]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["scanet", *arguments])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCANET_HOME", str(tmp_path))
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "paper.yaml").write_bytes((ROOT / "experiments" / "paper.yaml").read_bytes())
    return tmp_path


def test_info_prints_every_rows_count(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "info", "--json") == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["Baseline"]["parameters"] == {"1": 3426448, "2": 6570400, "4": 12858304, "8": 25434112}
    assert counts["MSFI+ALL"]["parameters"]["4"] == 15581956
    assert counts["Baseline"]["flops"]["2"] == flops(Network())
    assert len(counts) == 10
    assert call(monkeypatch, "info") == 0
    printed = capsys.readouterr().out
    assert "15.582" in printed
    assert "16.7" in printed


def test_evaluate_scores_anybodys_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    joints = random.uniform(50, 200, (40, 16, 2)).astype(int)
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["part"], file["normalize"] = joints, np.full(40, 20.0)
    wrong = joints.astype(float)
    wrong[:10] += 50  # a quarter of the persons is missed by far
    with h5py.File(tmp_path / "preds.h5", "w") as file:
        file["preds"] = wrong
    files = (str(tmp_path / "preds.h5"), "--truth", str(tmp_path / "truth.h5"))
    assert call(monkeypatch, "evaluate", *files, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert {row["Mean"] for row in scores["rows"].values()} == {75.0}
    assert call(monkeypatch, "evaluate", *files) == 0
    printed = capsys.readouterr().out
    assert "pytorch-pose 75.000" in printed
    assert (
        "official:     right if distance <= threshold; Head: mean of neck and head-top; Mean: all joints" in printed
    )
    assert "pytorch-pose: right if distance < threshold; Head: head-top; Mean: mean of the joints' rates" in printed


MPII_FILES = Path(os.environ.get("SCANET_SHARED") or ROOT.parent / "shared" / "data") / "mpii"


@pytest.mark.skipif(not MPII_FILES.is_dir(), reason="no MPII files: set SCANET_SHARED to the folder above mpii/")
@pytest.mark.parametrize(
    ("arguments", "plain", "official", "pooled", "areas"),
    [
        (["detections_our_format.mat", "--key", "pos_pred_src"], [95.600, 81.458], 96.658, 82.337, [55.495, 55.781]),
        (["preds/valid-ours.h5"], [95.941, 87.562], 96.709, 88.035, [58.517, 58.807]),
    ],
)
def test_evaluate_prints_the_golden_numbers(
    arguments: list[str], plain: list[float], official: float, pooled: float, areas: list[float],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Published predictions for MPII's validation persons, in each convention."""
    name, *key = arguments
    files = [str(MPII_FILES / name), *key, "--truth", str(MPII_FILES / "detections_our_format.mat")]
    assert call(monkeypatch, "evaluate", *files, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    rows = scores["rows"]
    assert [rows["plain"]["Head"], rows["plain"]["Mean"]] == pytest.approx(plain, abs=5e-4)
    assert [rows["official"]["Head"], rows["official"]["Mean"]] == pytest.approx([official, pooled], abs=5e-4)
    assert [rows["hrnet"]["Head"], rows["hrnet"]["Mean"]] == pytest.approx([plain[0], pooled], abs=5e-4)
    assert [scores["auc"], scores["auc_integrated"]] == pytest.approx(areas, abs=5e-4)
    assert scores["conventions"].keys() == rows.keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "nothing.h5"], "for a prediction file, give --truth FILE as well"),
        (["train", "SSSA"], "module 'SSSA' is no row of Table 2: allowed are Baseline, Block, MSFI, BDMP"),
        (["train", "SSA", "--preset", "fast"], "preset 'fast' is unknown: allowed are tiny, quick"),
        (["prepare", "mpii", "nowhere"], "there is no folder nowhere"),
        (["prepare", "synthetic", "--preset", "paper"], "has no synthetic data: choose one of tiny, quick"),
        (["prepare", "rehearsal", "."], ". exists: give a new folder for the rehearsal's files"),
        (["prepare", "rehearsal", "new", "--share", "2"], "share is 2.0: allowed is a value from 0.001 to 1.0"),
        (["plan", "--preset", "fast"], "preset 'fast' is unknown: allowed are tiny, quick"),
        (["evaluate", ".", "--tta", "six"], "tta is 'six': allowed are none, flip, six-scale"),
    ],
)
def test_bad_input_gets_a_sentence(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 1
    message = capsys.readouterr().err
    assert sentence in message
    assert message.startswith("scanet: ")
    assert message.count("\n") == 1


def test_train_prepare_and_evaluate_a_run(
    at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "prepare", "synthetic", "--preset", "tiny") == 0
    assert "48 persons in" in capsys.readouterr().out
    assert call(monkeypatch, "train", "Baseline", "--preset", "tiny", "--epochs", "1") == 0
    assert "ours, tiny" in capsys.readouterr().out
    folder = at_home / "experiments/results/tiny/ablation/Baseline-s0-epochs=1"
    assert call(monkeypatch, "train", "Baseline", "--preset", "tiny", "--epochs", "1", "--tta", "six-scale") == 0
    assert "six-scale" in json.loads((folder / "run.json").read_text(encoding="utf-8"))["metrics"]
    assert call(monkeypatch, "evaluate", str(folder)) == 0
    assert "PCKh@0.5 of 16 persons" in capsys.readouterr().out
    raw = next((at_home / "data").glob("synthetic*c0.5"))
    store = at_home / "again.h5"
    assert call(monkeypatch, "prepare", "mpii", str(raw), "--resolution", "80", "--output", str(store)) == 0
    told = capsys.readouterr().out
    assert told.startswith("split       read\ntrain         32\nvalid         16\n48 persons in ")
    assert call(monkeypatch, "evaluate", str(folder), "--data", str(store), "--json") == 0
    assert json.loads(capsys.readouterr().out)["persons"] == 16


def test_help_and_settings_need_no_torch() -> None:
    code = "import sys, scanet.config, scanet.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
