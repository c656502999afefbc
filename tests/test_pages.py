"""What the book's own Sphinx extension does to a page."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def checks() -> SimpleNamespace:
    spec = importlib.util.spec_from_file_location("checks", ROOT / "book/_ext/checks.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_widgets_are_left_out_of_a_page(checks: SimpleNamespace) -> None:
    """With their state in a notebook, a page would load scripts from the network."""
    widget = nbformat.v4.new_output(
        "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}, "text/plain": "VBox()"}
    )
    text = nbformat.v4.new_output("stream", text="kept")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("words"), nbformat.v4.new_code_cell("panel", outputs=[widget, text])],
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"0": {}}}}},
    )
    app = SimpleNamespace(env=SimpleNamespace(doc2path=lambda _: "runs/quick/explore.ipynb"))
    source = [nbformat.writes(notebook)]
    checks.drop_widgets(app, "runs/quick/explore", source)
    assert "widget" not in source[0]
    page = json.loads(source[0])
    assert ["".join(output["text"]) for output in page["cells"][1]["outputs"]] == ["kept"]
    assert "".join(page["cells"][1]["source"]) == "panel"
