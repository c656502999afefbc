"""Shapes in annotations are checked while the tests run, and nowhere else."""

import shutil
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# As for mypy, an int will do where a float is annotated.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

with install_import_hook("scanet", CHECKER):
    import scanet.bench.run
    import scanet.claims
    import scanet.experiment
    import scanet.export
    import scanet.figures
    import scanet.photo
    import scanet.predictions
    import scanet.tables  # noqa: F401


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder of its own, so that nothing is written into this one."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "experiments").mkdir()
    shutil.copy(Path(__file__).parents[1] / "experiments" / "paper.yaml", folder / "experiments")
    return folder
