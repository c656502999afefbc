"""Shapes in annotations are checked while the tests run, and nowhere else."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# As for mypy, an int will do where a float is annotated.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

with install_import_hook("scanet", CHECKER):
    import scanet.bench.run
    import scanet.experiment
    import scanet.export
    import scanet.photo
    import scanet.predictions
    import scanet.report.claims
    import scanet.report.figures
    import scanet.report.tables
    import scanet.report.views


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder of its own, so that nothing is written into this one."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "experiments").mkdir()
    shutil.copy(Path(__file__).parents[1] / "experiments" / "paper.yaml", folder / "experiments")
    return folder


@pytest.fixture
def at_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test or a module (`usefixtures`): records and data are those of its own project folder."""
    monkeypatch.setenv("SCANET_HOME", str(project))


@pytest.fixture
def raise_recipes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, every row's training gives other weights than those of the records."""

    def change() -> None:
        rows = {name: dataclasses.replace(row, recipe=row.recipe + 1) for name, row in scanet.config.ROWS.items()}
        monkeypatch.setattr(scanet.config, "ROWS", rows)

    return change


@pytest.fixture(scope="module")
def run(project: Path) -> "scanet.runs.Run":
    """A run of SSA, trained once for each module that asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANET_HOME", str(project))
        settings = scanet.config.resolve(module="SSA", preset="tiny")
        return scanet.runs.run_or_load(settings, progress=False)
