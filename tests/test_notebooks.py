"""The notebooks through papermill, as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABLATION = ROOT / "experiments" / "ablation.ipynb"


def papermill(project: Path, notebook: Path, output: Path, *parameters: str) -> subprocess.CompletedProcess[str]:
    pairs = [part for pair in parameters for part in ("-p", *pair.split("=", 1))]
    return subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), str(output), "--no-progress-bar", *pairs],
        env=os.environ | {"SCANET_HOME": str(project)},
        cwd=project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def outputs(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return json.dumps([cell.get("outputs") for cell in cells])


def test_ablation_and_table_at_tiny(project: Path) -> None:
    out = project / "ssa.ipynb"
    ended = papermill(project, ABLATION, out, "module=MSFI+SSA", "preset=tiny")
    assert ended.returncode == 0, ended.stderr
    text = outputs(out)
    assert "88.74" in text  # the paper's row beside ours
    assert text.count("<svg ") == 2  # curves, and pictures with attention
    record = project / "experiments/results/tiny/ablation/SSA-s0/run.json"
    made = record.stat().st_mtime_ns
    out = project / "table2.ipynb"
    ended = papermill(project, ROOT / "experiments" / "table2.ipynb", out, "preset=tiny")
    assert ended.returncode == 0, ended.stderr
    assert ">tiny<" in outputs(out)  # our lines are named by the preset
    out = project / "errors.ipynb"
    ended = papermill(project, ROOT / "experiments" / "errors.ipynb", out, "preset=tiny", "module=SSA")
    assert ended.returncode == 0, ended.stderr
    assert outputs(out).count("<svg ") == 3  # by row, differences, by joint
    assert "mirrored" in outputs(out)
    ended = papermill(project, ROOT / "experiments" / "errors.ipynb", out, "preset=tiny", "seed=1")
    assert ended.returncode == 1
    assert "unknown parameter 'seed': allowed are preset, module" in ended.stderr
    assert record.stat().st_mtime_ns == made
    assert papermill(project, ABLATION, out, "preset=tiny", "epochs=1").returncode == 0
    ended = papermill(project, ROOT / "experiments" / "budget.ipynb", out, "preset=tiny")
    assert ended.returncode == 0, ended.stderr
    assert "tiny/ablation/SSA-s0-epochs=1" in outputs(out)


def test_final_model_and_table_at_tiny(project: Path) -> None:
    out = project / "final.ipynb"
    ended = papermill(project, ROOT / "experiments" / "final.ipynb", out, "preset=tiny")
    assert ended.returncode == 0, ended.stderr
    text = outputs(out)
    assert "91.6" in text  # the paper's last row
    assert "MSFI+ALL, tiny validation" in text
    assert text.count("<svg ") == 3  # curves of both stages, and pictures with attention
    assert "What preset" not in text  # only paper's plan is printed
    folder = project / "experiments/results/tiny/final"
    first, second = (json.loads((folder / name / "run.json").read_text()) for name in ("BDMP+SCA-s0", "ALL-s0"))
    assert second["start"] == {"name": "tiny/final/BDMP+SCA-s0", "key": first["key"]}
    assert list(second["metrics"]) == ["none", "flip", "six-scale"]
    out = project / "table1.ipynb"
    ended = papermill(project, ROOT / "experiments" / "table1.ipynb", out, "preset=tiny")
    assert ended.returncode == 0, ended.stderr
    text = outputs(out)
    assert "MSFI+ALL, 4 stacks, six-scale" in text
    assert "tiny validation" in text
    assert text.count("MPII test") >= 10


def test_stress_explore_and_choices_at_tiny(project: Path) -> None:
    """After a Baseline and an SSA; the explorer's controls are no part of what a page can show."""
    trained = "from scanet.config import resolve; from scanet.runs import run_or_load;" + "".join(
        f"run_or_load(resolve(preset='tiny', module={module!r}), progress=False);" for module in ("Baseline", "SSA")
    )
    home = os.environ | {"SCANET_HOME": str(project)}
    subprocess.run([sys.executable, "-c", trained], env=home, check=True, capture_output=True)
    out = project / "stress.ipynb"
    ended = papermill(project, ROOT / "experiments/stress.ipynb", out, "preset=tiny", "persons=4", "steps=3")
    assert ended.returncode == 0, ended.stderr
    assert outputs(out).count("<svg ") == 2
    out = project / "explore.ipynb"
    ended = papermill(project, ROOT / "experiments/explore.ipynb", out, "preset=tiny")
    assert ended.returncode == 0, ended.stderr
    assert outputs(out).count("<svg ") == 1
    out = project / "choices.ipynb"
    ended = papermill(project, ROOT / "experiments/choices.ipynb", out, "preset=tiny", "specifications=2")
    assert ended.returncode == 0, ended.stderr
    assert outputs(out).count("<svg ") == 3
    assert (project / "experiments/results/tiny/choices/SSA-s0-specifications=2/table.csv").exists()


@pytest.mark.parametrize(
    ("name", "parameters", "figures", "texts", "measurements"),
    [
        ("attention", [], 2, ["MSFI+soft", "88.74", "coverage"], ["attention/SSA-s0", "attention/soft-s0"]),
        ("temperature", ["persons=4"], 2, ["sharpness"], ["temperature/SSA-s0-persons=4"]),
        (
            "scales",
            ["persons=4"],
            1,
            ["less that at 1"],
            ["scales/Baseline-s0-persons=4", "scales/MSFI-s0-persons=4"],
        ),
        ("gates", ["persons=4"], 1, ["over channels"], ["gates/SACWA-s0-persons=4"]),
        ("gradients", ["persons=8", "epochs=1"], 1, ["norm"], ["gradients/SSA-s0-epochs=1-persons=8"]),
        ("qualitative", ["module=MSFI"], 3, ["tiny/ablation/MSFI-s0"], []),
    ],
)
def test_notebooks_about_runs_train_what_is_missing(
    project: Path, name: str, parameters: list[str], figures: int, texts: list[str], measurements: list[str]
) -> None:
    out = project / f"{name}.ipynb"
    ended = papermill(project, ROOT / "experiments" / f"{name}.ipynb", out, "preset=tiny", *parameters)
    assert ended.returncode == 0, ended.stderr
    found = outputs(out)
    assert found.count("<svg ") == figures
    assert [text for text in texts if text not in found] == []
    for measurement in measurements:
        run = json.loads((project / f"experiments/results/tiny/{measurement}/run.json").read_text(encoding="utf-8"))
        assert run["key"] in found


@pytest.mark.parametrize("notebook", sorted(ROOT.glob("experiments/*.ipynb")), ids=lambda path: path.stem)
def test_every_figure_has_alternative_text(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    drawing = [cell for cell in cells if cell["source"] and "".join(cell["source"]).rstrip().endswith(");")]
    assert [
        cell["id"] for cell in drawing if not cell["metadata"].get("mystnb", {}).get("image", {}).get("alt")
    ] == []


@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        ("modul=SSA", "unknown parameter 'modul' (perhaps module): allowed are module, preset, seed"),
        ("module=SSSA", "module 'SSSA' is no row of Table 2 (perhaps SSA): allowed are Baseline, Block, MSFI"),
        ("epochs=two", "epochs is 'two': allowed is a whole number from 1"),
    ],
)
def test_wrong_parameters_are_refused(project: Path, parameter: str, sentence: str) -> None:
    out = project / "refused.ipynb"
    ended = papermill(project, ABLATION, out, "preset=tiny", parameter)
    assert ended.returncode == 1
    assert sentence in ended.stderr
    assert sentence in outputs(out)
