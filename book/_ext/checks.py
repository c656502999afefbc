"""What the build does beyond Sphinx: failed and stale pages stop it, docstrings are shown well, no widgets."""

import json
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

#: The start of a line that describes fields: "center: ..." or "zoom (N,), offset (N, 2): ...".
FIELDS = re.compile(r"((?:\w+(?: \([^)]*\))?, )*\w+(?: \([^)]*\))?): (?=\S)")


def refuse_failed(app: Sphinx, docname: str, source: list[str]) -> None:
    """Without this, the page of a notebook that failed shows the error, and the build succeeds."""
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    stopped = notebook["metadata"].get("papermill", {}).get("exception")
    if stopped or any(output["output_type"] == "error" for output in outputs):
        raise ExtensionError(f"book/{docname}.ipynb holds a run that failed: run it again or delete the file")


def refuse_stale(app: Sphinx, docname: str, source: list[str]) -> None:
    """A page shows runs by name. They have to be there, and still to be those that it was made from."""
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    for name, key in json.loads(source[0])["metadata"].get("scanet", {"runs": {}})["runs"].items():
        path = Path(app.srcdir).parent / "experiments" / "results" / name / "run.json"
        now = json.loads(path.read_text(encoding="utf-8"))["key"] if path.exists() else None
        if now != key:
            what = "is not there" if now is None else "has been made again since"
            preset = name.partition("/")[0]
            raise ExtensionError(
                f"book/{docname}.ipynb shows {name}, which {what}: delete that page and make it again, "
                f"snakemake --cores 2 --config preset={preset} -- book/{docname}.ipynb"
            )


def list_fields(_app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """A paragraph that starts with "field: meaning" becomes a list, one item a line; hanging indents are undone."""
    out: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        first, *rest = paragraph.split("\n")
        if first.startswith(" ") or first.endswith(":"):  # code, a list, or a section such as "Args:"
            out += [first, *rest, ""]
            continue
        listing = what in ("class", "function", "method") and FIELDS.match(first)
        items: list[str] = []
        for line in (first, *rest):
            field = FIELDS.match(line) if listing else None
            if field:
                items.append(f"- **{field[1]}**: {line[field.end() :]}")
            elif items and (listing or line.startswith(" ")):
                items[-1] += f" {line.strip()}"
            else:
                items.append(line)
        out += [*items, ""]
    # Napoleon takes "words: words" in the first line of an attribute for its type: let that line be an empty comment.
    lines[:] = ["..", "", *out] if what in ("attribute", "data", "property") else out


def drop_thebe(_app: Sphinx, _pagename: str, _templatename: str, context: dict[str, Any], _doctree: Any) -> None:
    """Jupyter Book adds thebe, which would run cells on a server, to each page twice; this book has no use for it."""
    context["script_files"] = [
        file for file in context["script_files"] if "thebe" not in f"{file.filename} {file.attributes}"
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", refuse_failed)
    app.connect("source-read", refuse_stale)
    app.connect("autodoc-process-docstring", list_fields, priority=400)  # before napoleon
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
