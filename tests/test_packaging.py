"""environment.yml, pyproject.toml and the notebooks in git agree with each other."""

import json
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "snakemake": "snakemake-minimal"}


def split(requirement: str) -> tuple[str, str]:
    name, bounds = re.fullmatch(r"([A-Za-z0-9_-]+)(.*)", requirement).groups()
    return name, bounds


def test_environment_holds_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = dict(map(split, [*project["dependencies"], *extras["workflow"], *extras["dev"]]))
    wanted = {CONDA_NAMES.get(name, name): bounds for name, bounds in wanted.items()}
    wanted["python"] = project["requires-python"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert dict(map(split, conda["dependencies"])) == {**wanted, "pip": ""}


def test_notebook_templates_have_no_outputs_and_annotated_parameters() -> None:
    notebooks = sorted((ROOT / "experiments").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert not any(cell["outputs"] or cell["execution_count"] for cell in code), path.name
        (parameters,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
        for line in "".join(parameters["source"]).splitlines():
            assert re.fullmatch(r"\w+: \w+ = \S+  # .+", line), f"{path.name}: {line}"
