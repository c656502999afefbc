"""The book builds from what is committed, without warnings and without the network."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book of the committed pages: the runs of the presets that git ignores are left out."""
    copy = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("_build", "tiny")
    shutil.copytree(ROOT / "book", copy / "book", ignore=ignored)
    for page in (copy / "book/runs/quick").glob("*.ipynb"):
        page.unlink()
    for name in ("scanet", "experiments", "README.md"):  # which the pages include
        (copy / name).symlink_to(ROOT / name)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "book/", "-W", "-n", "--keep-going"]
    environment = os.environ | {"SCANET_HOME": str(copy)}
    ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return copy / "book/_build/html"


def test_every_page_of_the_contents_is_built(html: Path) -> None:
    contents = (ROOT / "book/_toc.yml").read_text(encoding="utf-8")
    pages = re.findall(r"file: (\S+)", contents)
    assert len(pages) > 10
    assert [page for page in pages if not (html / f"{page}.html").exists()] == []
    for run in (ROOT / "book/runs/lspet-small").glob("*.ipynb"):
        assert (html / f"runs/lspet-small/{run.stem}.html").exists()


def test_nothing_is_loaded_from_the_network(html: Path) -> None:
    loaded = r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']+"""
    for page in html.rglob("*.html"):
        found = [tag for tag in re.findall(loaded, page.read_text(encoding="utf-8")) if 'rel="canonical"' not in tag]
        assert found == [], page.name


def test_counts_on_the_method_page_are_the_networks(html: Path) -> None:
    text = (html / "method/hourglass.html").read_text(encoding="utf-8")
    assert {"6.57", "12.86", "15.58"} <= set(re.findall(r"\d+\.\d\d", text))


def test_front_page_has_every_claim_and_its_picture(html: Path) -> None:
    text = (html / "index.html").read_text(encoding="utf-8")
    stated = re.findall(r"- \{id: ([\w-]+)", (ROOT / "experiments/paper.yaml").read_text(encoding="utf-8"))
    assert len(stated) > 40
    assert re.findall(r'<tbody id="claim-([\w-]+)"', text) == stated
    assert text.count('class="verdict') > len(stated)
    assert "alt=\"The paper's differences between rows of Table 2" in text
    for address in set(re.findall(r'href="((?:runs|method)/[^"#]+)"', text)):
        assert (html / unquote(address)).exists(), address
