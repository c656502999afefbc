"""How an executed notebook becomes a page, and what the book's own Sphinx extension does to it."""

import base64
import importlib.util
import io
import json
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from PIL import Image
from sphinx.errors import ExtensionError

from scanet import results
from scanet.config import EPHEMERAL
from scanet.report.pages import joined, publish, slim

ROOT = Path(__file__).parents[1]
BARE = {"settings": {}, "overrides": {}}  # what every run.json has beside its key


@pytest.fixture(scope="module")
def checks() -> SimpleNamespace:
    spec = importlib.util.spec_from_file_location("checks", ROOT / "book/_ext/checks.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_widgets_are_left_out_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their state in a notebook, a page would load scripts from the network. A run that only a widget offers is
    none of those that the page shows.
    """
    monkeypatch.setenv("SCANET_HOME", str(tmp_path))
    record = tmp_path / "experiments/results/tiny/ablation/SSA-s0/run.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps(BARE | {"key": "a" * 16}), encoding="utf-8")
    widget = nbformat.v4.new_output(
        "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}, "text/plain": "VBox()"}
    )
    text = nbformat.v4.new_output("stream", text="kept")
    state = {"0": {"options": "tiny/ablation/SSA-s0"}}
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Words"),
            nbformat.v4.new_code_cell("panel", outputs=[widget, text]),
            nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]}),
        ],
        metadata={
            "widgets": {"application/vnd.jupyter.widget-state+json": {"state": state}},
            "papermill": {"output_path": "/home/somebody/out.ipynb", "exception": None},
        },
    )
    nbformat.write(notebook, tmp_path / "out.ipynb")
    publish(tmp_path / "out.ipynb", tmp_path / "page.ipynb", "{}")
    written = (tmp_path / "page.ipynb").read_text(encoding="utf-8")
    assert "widget" not in written
    assert "somebody" not in written
    page = json.loads(written)
    assert page["metadata"]["scanet"] == {"runs": {}}
    assert ["".join(output["text"]) for output in page["cells"][1]["outputs"]] == ["kept"]
    assert "".join(page["cells"][1]["source"]) == "panel"
    assert "tags" not in page["cells"][1]["metadata"]
    assert page["cells"][2]["metadata"]["tags"] == ["parameters", "hide-input"]  # shows nothing, so it is folded


def test_a_page_of_a_run_that_is_gone_or_another_stops_the_build(checks: SimpleNamespace, tmp_path: Path) -> None:
    record = tmp_path / "experiments/results/tiny/ablation/SSA-s0/run.json"
    record.parent.mkdir(parents=True)
    page = nbformat.v4.new_notebook(metadata={"scanet": {"runs": {"tiny/ablation/SSA-s0": "a" * 16}}})
    app = SimpleNamespace(env=SimpleNamespace(doc2path=lambda _: "x.ipynb"), srcdir=str(tmp_path / "book"))
    source = [nbformat.writes(page)]
    record.write_text(json.dumps(BARE | {"key": "a" * 16}), encoding="utf-8")
    checks.refuse_stale(app, "x", source)
    checks.refuse_stale(app, "x", [nbformat.writes(nbformat.v4.new_notebook())])  # prose that shows no run
    record.write_text(json.dumps(BARE | {"key": "b" * 16}), encoding="utf-8")
    with pytest.raises(ExtensionError, match=r"book/x\.ipynb shows tiny/ablation/SSA-s0, which has been made again"):
        checks.refuse_stale(app, "x", source)
    record.unlink()
    with pytest.raises(ExtensionError, match=r"shows tiny/ablation/SSA-s0, which is not there: delete .*=tiny"):
        checks.refuse_stale(app, "x", source)


def test_runs_that_a_text_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSA-s0", "SSA-s0-tau=2.0", "SSA-s01", "MSFI-s0"):
        (tmp_path / "tiny/ablation" / name).mkdir(parents=True)
        (tmp_path / "tiny/ablation" / name / "run.json").write_text(json.dumps(BARE | {"key": f"key of {name}"}))
    monkeypatch.setattr(results, "results_folder", lambda: tmp_path)
    text = "tiny/ablation/SSA-s0-tau=2.0: 2 epochs; tiny/ablation/MSFI-s0, and tiny/ablation/SACWA-s0."
    found = results.named_in(text)
    assert found == {
        name: f"key of {name[14:]}" for name in ("tiny/ablation/MSFI-s0", "tiny/ablation/SSA-s0-tau=2.0")
    }


def embedded(pixels: np.ndarray) -> str:
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return "data:image/png;base64,\n" + base64.b64encode(png.getvalue()).decode()


def picture(alpha: int) -> np.ndarray:
    """A smooth picture with some grain: (64, 64, 4)."""
    across = np.linspace(0, 200, 64)[None, :, None]
    grain = np.random.default_rng(0).integers(0, 20, (64, 64, 4))
    pixels = (across + grain).astype(np.uint8)
    pixels[..., 3] = alpha
    return pixels


def test_pictures_become_small_and_hardly_change() -> None:
    svg = f'<svg><image xlink:href="{embedded(picture(255))}" width="64"/><text>words</text></svg>'
    found = slim(svg)
    assert len(found) < len(svg) / 3
    head, _, rest = found.partition("data:image/jpeg;base64,")
    code, _, tail = rest.partition('"')
    assert (head, tail) == ('<svg><image xlink:href="', ' width="64"/><text>words</text></svg>')
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))), float)
    assert np.abs(pixels - picture(255)[..., :3]).mean() < 8


def test_pictures_that_one_can_see_through_stay() -> None:
    svg = f'<image xlink:href="{embedded(picture(100))}"/>'
    assert slim(svg) == svg


def test_what_a_cell_prints_is_one_box() -> None:
    def printed(text: str, name: str = "stdout") -> nbformat.NotebookNode:
        return nbformat.v4.new_output("stream", text=text, name=name)

    table = nbformat.v4.new_output("display_data", {"text/plain": "table"})
    found = joined([printed("a\n"), printed("50%", "stderr"), printed("b\n"), table, printed("c\n")])
    assert [output.get("text") for output in found] == ["a\nb\n", None, "c\n"]
    assert found[1] == table


def test_a_page_has_its_own_title_and_the_keys_of_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANET_HOME", str(tmp_path))
    for name in ("SSA-s0", "SSA-s0-tau=0.5", "SSA-s1"):
        record = tmp_path / "experiments/results/tiny/ablation" / name / "run.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps(BARE | {"key": f"key of {name}"}), encoding="utf-8")
    svg = f'<svg><image xlink:href="{embedded(picture(255))}"/></svg>'
    shown = nbformat.v4.new_output("display_data", {"image/svg+xml": svg, "text/plain": "<Figure>"})
    printed = nbformat.v4.new_output("stream", text="tiny/ablation/SSA-s0-tau=0.5: 2 epochs\n")
    cells = [
        nbformat.v4.new_markdown_cell("# The temperature (Fig. 5)\n\n# not this"),
        nbformat.v4.new_code_cell("run", outputs=[printed, shown]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "executed.ipynb")
    page = tmp_path / "book/runs/tiny/temperature.ipynb"
    publish(tmp_path / "executed.ipynb", page, "{} on tiny")
    made = nbformat.read(page, as_version=4)
    assert made.cells[0].source == "# The temperature (Fig. 5) on tiny\n\n# not this"
    assert made.metadata["scanet"] == {"runs": {"tiny/ablation/SSA-s0-tau=0.5": "key of SSA-s0-tau=0.5"}}
    assert made.cells[1].outputs[1].data["image/svg+xml"] == slim(svg)


KEPT = [page for page in sorted(ROOT.glob("book/runs/*/*.ipynb")) if page.parent.name not in EPHEMERAL]


@pytest.mark.parametrize("page", KEPT, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_a_page_shows_the_cells_of_its_notebook(page: Path) -> None:
    """But for the title, and the parameters that papermill put in. If not, delete the page and make it again."""
    own = ROOT / "experiments" / f"{page.stem.partition('-s')[0]}.ipynb"
    notebook = own if own.exists() else ROOT / "experiments/ablation.ipynb"
    shown, source = (nbformat.read(path, as_version=4).cells for path in (page, notebook))
    kept = [cell for cell in shown if "injected-parameters" not in cell.metadata.get("tags", [])]
    assert [cell.id for cell in kept] == [cell.id for cell in source]
    for cell in (kept[0], source[0]):
        cell.source = cell.source.partition("\n")[2]
    assert [cell.source for cell in kept] == [cell.source for cell in source]
