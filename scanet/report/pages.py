"""An executed notebook becomes a page of the book."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

from scanet.files import whole_file
from scanet.results import named_in

WIDGET = "application/vnd.jupyter.widget-view+json"

#: Of a JPEG in a page, from 1 to 95.
QUALITY = 85


def publish(executed: Path, page: Path, title: str) -> None:
    """Write the page of an executed notebook, with a title of its own; in it, {} is the notebook's title.

    The page notes the keys of the runs that it shows: the book's build compares them with the runs' own. A cell that
    shows nothing is folded. What a cell prints is one box, and progress is left out. Photographs in figures become
    JPEGs, which makes the page a fifth as long. Widgets are left out: they need a kernel, would be a blank, and would
    load scripts from other machines.
    """
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    for path in ("input_path", "output_path"):  # of the machine where it was executed
        notebook.metadata.get("papermill", {}).pop(path, None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
            for output in cell.outputs:
                if "image/svg+xml" in output.get("data", {}):
                    output.data["image/svg+xml"] = slim(output.data["image/svg+xml"])
            if not cell.outputs:
                cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    notebook.metadata["scanet"] = {"runs": named_in(nbformat.writes(notebook))}
    first = notebook.cells[0]
    first.source = re.sub("^# (.*)", lambda own: f"# {title.format(own[1])}", first.source)
    with whole_file(page) as file:
        nbformat.write(notebook, file)


def joined(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """A cell's outputs without widgets and what it wrote to stderr, and with neighbouring pieces of text as one."""
    found: list[NotebookNode] = []
    for output in outputs:
        if output.output_type != "stream":
            if WIDGET not in output.get("data", {}):
                found.append(output)
        elif output.name == "stdout":
            if found and found[-1].output_type == "stream":
                found[-1].text += output.text
            else:
                found.append(output)
    return found


def slim(svg: str) -> str:
    """The drawing with its pictures as JPEGs; those that one can see through stay as they are."""

    def smaller(found: re.Match[str]) -> str:
        picture = Image.open(io.BytesIO(base64.b64decode(found[1])))
        if picture.has_transparency_data and min(picture.getchannel("A").tobytes()) < 255:
            return found[0]
        jpeg = io.BytesIO()
        picture.convert("RGB").save(jpeg, "JPEG", quality=QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()

    return re.sub(r"data:image/png;base64,([\w+/=\s]+)", smaller, svg)
