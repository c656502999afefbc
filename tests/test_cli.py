"""The `scanet` command as a user calls it."""

import errno
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from shared import MPII as FILES
from shared import needs_mpii

from scanet import cli, export, results
from scanet.config import ROWS, Network, resolve
from scanet.cost import flops
from scanet.report.statistics import row_difference
from scanet.skeleton import LSP

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


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("2.5E-7", 2.5e-7), ("3", 3), ("0.5", 0.5), ("true", True), ("floor", "floor")],
)
def test_values_of_settings_are_read_as_they_are_written(text: str, value: object) -> None:
    """As `learning_rate` is printed where a run advises another one."""
    assert cli._pair(f"name={text}") == ("name", value)
    assert type(cli._pair(f"name={text}")[1]) is type(value)


def test_compare_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And, of the records that come with the repository, the difference with its interval."""
    assert call(monkeypatch, "compare", "SSA", "MSFI", "--preset", "paper") == 1  # in the tests' own empty folder
    assert "MSFI have no finished runs of one seed on preset 'paper'" in capsys.readouterr().err
    assert call(monkeypatch, "compare", "SSA", "MSFI+SSA") == 1
    assert "both rows are SSA: give two different ones" in capsys.readouterr().err
    monkeypatch.setenv("SCANET_HOME", str(ROOT))
    assert call(monkeypatch, "compare", "MSFI+SSA", "soft", "--preset", "synthetic") == 0
    printed = capsys.readouterr().out
    difference = row_difference(*(results.seeds(resolve(module=m, preset="synthetic")) for m in ("SSA", "soft")))
    assert printed == f"MSFI+SSA − MSFI+soft, synthetic, flip: {difference}\n"
    assert "], 4 seeds" in printed


def test_info_prints_every_rows_count(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "info", "--json") == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["Baseline"]["parameters"] == {"1": 3426448, "2": 6570400, "4": 12858304, "8": 25434112}
    assert counts["MSFI+ALL"]["parameters"]["4"] == 15581956
    assert counts["Baseline"]["flops"]["2"] == flops(Network())
    assert len(counts) == len(ROWS)
    assert call(monkeypatch, "info") == 0
    printed = capsys.readouterr().out
    assert "15.582" in printed
    assert "16.7" in printed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("epochs", "--set epochs: give NAME=VALUE"),
        ("epochs=", "--set epochs=: give NAME=VALUE"),
        ("preset=quick", "--set preset: that has a place of its own in the command"),
        ("tau=[", "--set tau=[: give NAME=VALUE"),
        ("tua=1", "unknown parameter 'tua'"),
        ("tau=low", "tau is 'low': allowed is a number from 0.01 to 100"),
        ("epochs=1.5", "epochs is 1.5: allowed is a whole number"),
    ],
)
def test_a_setting_that_is_none_is_refused(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "train", "--set", given) == 1
    assert said in capsys.readouterr().err


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
    with h5py.File(tmp_path / "preds.h5", "a") as file:
        file["preds"][0, 3, 1] = np.nan
    assert call(monkeypatch, "evaluate", *files, "--json") == 0
    assert "has no numbers for 1 of 560 joints: they count as wrong" in capsys.readouterr().err
    with h5py.File(tmp_path / "truth.h5", "a") as file:
        file["normalize"][:] = np.nan
    assert call(monkeypatch, "evaluate", *files) == 1
    assert "has no person with a head size and a joint" in capsys.readouterr().err
    with h5py.File(tmp_path / "truth.h5", "a") as file:
        file["normalize"][:] = 20.0
    assert call(monkeypatch, "evaluate", *files) == 0
    printed = capsys.readouterr().out
    assert "pytorch-pose 75.000" in printed
    assert (
        "official:     right if distance <= threshold; Head: mean of neck and head-top; Mean: all joints" in printed
    )
    assert "pytorch-pose: right if distance < threshold; Head: head-top; Mean: mean of the joints' rates" in printed


@needs_mpii
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
    files = [str(FILES / name), *key, "--truth", str(FILES / "detections_our_format.mat")]
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
        (["evaluate", "nothing.h5"], "nothing.h5: there is no such file or folder: check the path"),
        (["evaluate", str(ROOT / "README.md")], "for a prediction file, give --truth FILE as well"),
        (["info", "--joints", "15"], "joints is 15: allowed are 14, 16"),
        (
            ["train", "SSSA"],
            "module 'SSSA' is no row of Table 2 (perhaps SSA): allowed are Baseline, Block, MSFI, BDMP",
        ),
        (["train", "ssa"], "module 'ssa' is no row of Table 2 (perhaps SSA): allowed are"),
        (["train", "--set", "epoch=3"], "unknown parameter 'epoch' (perhaps epochs): allowed are module, preset"),
        (["train", "SSA", "--preset", "fast"], "preset 'fast' is unknown: allowed are tiny, quick"),
        (["prepare", "mpii", "nowhere"], "there is no folder nowhere"),
        (["prepare", "synthetic", "--preset", "paper"], "has no synthetic data: choose one of tiny, quick"),
        (["prepare", "rehearsal", "."], ". exists: give a new folder for the rehearsal's files"),
        (["prepare", "rehearsal", "new", "--share", "2"], "share is 2.0: allowed is a value from 0.001 to 1.0"),
        (["plan", "--preset", "fast"], "preset 'fast' is unknown: allowed are tiny, quick"),
        (["evaluate", ".", "--tta", "six"], "tta is 'six': allowed are none, flip, six-scale"),
        (["predict", "a.jpg", "--tta", "six"], "tta is 'six': allowed are none, flip, six-scale"),
        (["predict", "a.jpg", "--model", "nowhere"], "there are no weights nowhere: give a file that"),
        (
            ["predict", "a.jpg", "--device", "abacus"],
            "this torch finds no device 'abacus' on this machine: choose",
        ),
        (["predict", "a.jpg", "b.jpg", "--box", "1", "2", "3", "4"], "--box is for one photo and there are 2"),
        (["predict", "a.jpg", "--box", "1", "2", "3", "4", "--boxes", "b.json"], "both --box and --boxes are given"),
        (["predict", "a.jpg", "--boxes", "nowhere.json"], "nowhere.json: there is no such file"),
        (["export", "nowhere"], "nowhere holds no run.json: give the folder of a finished run"),
        (["bench", "--rows", "SSA,SSSA"], "module 'SSSA' is no row of Table 2"),
        (["bench", "--preset", "lspet", "--data", "nowhere.h5"], "nowhere.h5: make it with"),
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


def test_the_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == importlib.metadata.version("scanet")


def test_a_full_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writing bytes to a full disk gives an error without a file's name."""
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((120, 90), 80).save("a.png")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    assert call(monkeypatch, "predict", "a.png", "--box", "0", "0", "90", "90") == 1
    said = "poses/a-pose.jpg: No space left on device: check the path, its rights and the room on the disk"
    assert capsys.readouterr().err == f"scanet: {said}\n"


def test_train_prepare_and_evaluate_a_run(
    at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "prepare", "synthetic", "--preset", "tiny") == 0
    assert "48 persons in" in capsys.readouterr().out
    assert call(monkeypatch, "train", "Baseline", "--preset", "tiny", "--set", "epochs=1") == 0
    told = capsys.readouterr()
    assert "ours, tiny" in told.out
    assert "Loaded from its record" not in told.err
    folder = at_home / "experiments/results/tiny/ablation/Baseline-s0-epochs=1"
    assert call(monkeypatch, "train", "Baseline", "--preset", "tiny", "--set", "epochs=1", "--tta", "six-scale") == 0
    assert "Loaded from its record, not trained: another --seed or --set is another run." in capsys.readouterr().err
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


def test_photographs_of_lsp_are_told_from_mpiis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "joints.mat").touch()
    for command in (["train", "SSA", "--data"], ["train", "SSA", "--preset", "paper", "--data"], ["prepare", "mpii"]):
        assert call(monkeypatch, *command, str(tmp_path)) == 1
        assert "holds joints.mat, as LSP and LSP Extended do" in capsys.readouterr().err


def test_predict_does_what_it_can_and_says_what_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one.png", "two.jpg"):
        Image.effect_noise((120, 90), 80).save(name)
    Path("broken.jpg").write_text("no picture")
    assert call(monkeypatch, "predict", "one.png", "broken.jpg", "two.jpg") == 1
    told = capsys.readouterr()
    assert "Device: " in told.out.splitlines()[0]
    assert "one.png: 1 person, poses/one-pose.jpg" in told.out
    warning, broken, last = told.err.splitlines()
    assert "boxes are needed" in warning
    assert broken.startswith("scanet: broken.jpg cannot be read as a picture")
    assert last == "scanet: 1 of 3 photos could not be done: see above"
    assert sorted(path.name for path in Path("poses").iterdir()) == [
        "one-pose.jpg", "one-pose.json", "two-pose.jpg", "two-pose.json",
    ]  # fmt: skip
    with Image.open("poses/two-pose.jpg") as drawn:
        assert drawn.size == (120, 90)
    found = json.loads(Path("poses/one-pose.json").read_text())
    (person,) = found["persons"]
    assert person["box"] == [0, 0, 120, 90]
    assert set(person["joints"]) == set(LSP.joints)
    Path("boxes.json").write_text(json.dumps({"one.png": [[10, 10, 50, 70], [60, 5, 40, 80]], "two.jpg": []}))
    files = ("one.png", "two.jpg", "--boxes", "boxes.json", "--output", "boxed", "--tta", "none")
    assert call(monkeypatch, "predict", *files) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "2 persons" in told.out
    assert "0 persons" in told.out
    assert call(monkeypatch, "predict", "one.png", "broken.jpg", "--boxes", "boxes.json") == 1
    assert "broken.jpg is not in the json of boxes" in capsys.readouterr().err
    Path("boxes.json").write_text(json.dumps({"one.png": [[500, 500, 20, 20]], "two.jpg": []}))
    assert call(monkeypatch, "predict", *files) == 1
    assert capsys.readouterr().err.startswith("scanet: one.png: the box 500 500 20 20 has no part in the picture")
    assert call(monkeypatch, "predict", "broken.jpg", "--box", "1", "2", "30", "40") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1  # of one photograph one sentence is all
    Path("file").touch()
    assert call(monkeypatch, "predict", "one.png", "two.jpg", "--output", "file") == 1
    assert len(capsys.readouterr().err.splitlines()) == 2  # beside what is said of boxes, once for all photographs
    Path("half/one-pose.json").mkdir(parents=True)
    assert call(monkeypatch, "predict", "one.png", "--output", "half") == 1
    assert "half/one-pose.json is a folder" in capsys.readouterr().err
    assert not Path("half/one-pose.jpg").exists()  # nor a picture without its numbers
    assert call(monkeypatch, "predict", "one.png", "there/one.jpg") == 1
    assert "2 of the photos are called one: give them in separate calls" in capsys.readouterr().err


def test_a_runs_network_is_exported_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "train", "Baseline", "--preset", "tiny") == 0
    run = "experiments/results/tiny/ablation/Baseline-s0"
    assert call(monkeypatch, "export", run) == 0
    assert "MB: PCKh" in capsys.readouterr().out
    card = Path("exported/README.md").read_text(encoding="utf-8")
    mean = json.loads(Path(run, "run.json").read_text())["metrics"]["flip"]["rows"]["plain"]["Mean"]
    assert f"{mean:.2f} |" in next(line for line in card.splitlines() if line.startswith("| 32-bit weights"))
    assert "**synthetic**" in card
    assert '`scanet.load_model("scanet.safetensors")`' in card.replace("\n", " ")
    assert "`scanet predict PHOTO --model scanet.safetensors`" in card.replace("\n", " ")
    assert max(len(line) for line in card.splitlines() if not line.startswith("|")) <= 118
    Image.effect_noise((120, 90), 80).save("a.png")
    for model in ("exported/scanet.safetensors", run):
        assert call(monkeypatch, "predict", "a.png", "--model", model) == 0
        assert "Model: tiny/ablation/Baseline-s0" in capsys.readouterr().out
    assert call(monkeypatch, "export", run) == 0  # again, over its own card
    with monkeypatch.context() as patch:
        patch.setattr(export, "TOLERANCE", -1.0)
        assert call(monkeypatch, "export", run, "--output", "other/model.safetensors") == 1
    assert "keep to the run's folder" in capsys.readouterr().err
    assert not any(Path("other").iterdir())
    assert Path("exported/scanet.safetensors").stat().st_mode == Path("exported/README.md").stat().st_mode
    places = {".": ". is a folder", "exported": "is a folder", "new/README.md": "name of the card",
              f"{run}/weights.safetensors": "would lie in a run's record and change it"}  # fmt: skip
    for output, said in places.items():
        assert call(monkeypatch, "export", run, "--output", output) == 1
        assert said in capsys.readouterr().err
    assert not Path("new").exists()
    Path("exported/README.md").write_text("# My notes\n")
    assert call(monkeypatch, "export", run) == 1
    assert "README.md is no model card, and would be lost" in capsys.readouterr().err
    assert Path("exported/README.md").read_text() == "# My notes\n"


def test_bench_prints_its_tables_and_writes_its_record(
    at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scanet.bench.measure.SHORTEST", 0.0)
    monkeypatch.setattr("scanet.bench.machine.matrix_rate", lambda *_: 1e11)
    monkeypatch.setattr("scanet.bench.machine.bandwidth", lambda *_: 1e10)
    assert call(monkeypatch, "bench", "--preset", "tiny", "--rows", "Baseline", "--rounds", "1") == 0
    printed = capsys.readouterr().out
    for part in ("training, fixed batch", "times the plain way: Baseline:", "normalisation", "100 GFLOP/s, "):
        assert part in printed, part
    (path,) = (at_home / "experiments/results/bench").glob("*/1-stacks-16-channels-64-pixels.json")
    assert json.loads(path.read_text())["data"]["dataset"] == "synthetic"
    assert str(path) in printed
    assert call(monkeypatch, "bench", "--preset", "tiny", "--batch-size", "0") == 1
    assert "batch_size" in capsys.readouterr().err
    store = next((at_home / "data").glob("*.h5"))
    assert call(monkeypatch, "bench", "--preset", "tiny", "--batch-size", "900", "--data", str(store)) == 1
    assert "training persons, and a step takes 900: give a smaller --batch-size" in capsys.readouterr().err


def test_full_memory_is_a_sentence_with_a_smaller_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("scanet.runs.train", full)
    monkeypatch.setattr("scanet.plan.train_epoch", full)
    for command in (("train", "Baseline"), ("plan",)):
        assert call(monkeypatch, *command, "--preset", "tiny") == 1
        message = capsys.readouterr().err.splitlines()[-1]
        assert re.fullmatch(r"scanet: the memory of cpu.* is full: give a batch_size of 4 or less", message)
    assert call(monkeypatch, "train", "Baseline", "--preset", "tiny", "--set", "batch_size=3") == 1
    assert capsys.readouterr().err.endswith(" is full: give a smaller input_size or fewer channels\n")


def test_a_batch_that_cannot_fit_is_refused_before_it_starts(
    at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scanet.plan.memory", lambda _: 2 * 2**20)
    monkeypatch.setattr("scanet.plan.begin", lambda *_: pytest.fail("started"))
    for command in (("train", "Baseline", "--set", "epochs=1"), ("plan",)):
        assert call(monkeypatch, *command, "--preset", "tiny") == 1
        assert "a batch of 8 needs" in (refused := capsys.readouterr().err.splitlines()[-1])
        assert re.search(r"MiB and cpu.* has 2: give (a batch_size of \d or less|a smaller input_size)", refused)
    assert not (at_home / "experiments/results").exists()


def test_help_and_settings_need_no_torch() -> None:
    code = "import sys, scanet.config, scanet.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
