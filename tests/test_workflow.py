"""The Snakefile, in dry runs: what it would do, and what it refuses."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def dry_run(*config: str, wanted: str = "book", at: Path = ROOT) -> subprocess.CompletedProcess[str]:
    options = ["--snakefile", str(ROOT / "Snakefile"), "--config", *config, "--", wanted]
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", *options]
    return subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)


def jobs(*config: str, wanted: str = "book", at: Path = ROOT) -> dict[str, int]:
    """How many jobs of each rule a call in the folder `at` would run."""
    done = dry_run(*config, wanted=wanted, at=at)
    assert done.returncode == 0, done.stdout + done.stderr
    table = re.search(r"Job stats:\njob +count\n[- ]+\n((?:\w+ +\d+\n)+)", done.stdout + done.stderr)
    assert table is not None, done.stdout
    found = {name: int(count) for name, count in (line.split() for line in table[1].splitlines())}
    assert found.pop("total") == sum(found.values())
    return found


def test_the_kept_report_on_drawn_people_is_complete() -> None:
    """Nothing but the book is left to make, so that a clone's first build trains nothing of it."""
    assert jobs("preset=synthetic", "seeds=4") == {"book": 1}


def test_a_deleted_page_is_all_that_is_made_again(tmp_path: Path) -> None:
    """And what shows its run: other kept pages would lose their maps, as git does not keep weights. Without data."""
    for name in ("experiments", "scanet"):
        (tmp_path / name).symlink_to(ROOT / name)
    kept = shutil.copytree(ROOT / "book/runs/synthetic", tmp_path / "book/runs/synthetic")
    for name in ("Block-s3", "table1", "table2", "errors"):
        (kept / f"{name}.ipynb").unlink()
    assert jobs("preset=synthetic", "seeds=4", at=tmp_path) == {"run": 1, "notebook": 3, "book": 1}


def test_a_grid_has_a_run_for_each_row_and_seed() -> None:
    assert jobs("preset=paper", "seeds=2") == {"book": 1, "run": 30, "notebook": 10}


def test_the_model_for_a_submission_can_be_asked_for() -> None:
    assert jobs("preset=paper", wanted="book/runs/paper/final-s0-train_on=train+valid.ipynb") == {"final": 1}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("prest=paper", "--config prest is unknown: allowed are preset and seeds"),
        ("seeds=three", "seeds is 'three': allowed is their number, from 1 on"),
    ],
)
def test_what_the_workflow_refuses(config: str, sentence: str) -> None:
    done = dry_run(config)
    assert done.returncode == 1
    assert sentence in done.stdout + done.stderr
