"""The store: exact geometry, nothing enlarged, safe against kills, and a fingerprint of content alone."""

import io
import itertools
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from shared import LSPET as FILES
from shared import needs_lspet

from scanet.data import lsp, prepare, store
from scanet.data.person import Person, Reading
from scanet.data.store import MARGIN, Store, fill
from scanet.files import UserError
from scanet.skeleton import LSP, MPII


def person(image: str = "a.png", x: float = 100.0, y: float = 80.0, side: float = 60.0, index: int = 0) -> Person:
    joints = np.arange(32, dtype=float).reshape(16, 2)
    joints[3] = np.nan
    return Person(image, index, "train", (x, y), side / 200, joints, np.isfinite(joints[:, 0]), 12.5)


def photograph(folder: Path, name: str, value: int) -> None:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (120, 90), (value, 255 - value, value)).save(folder / name)


def one_crop(tmp_path: Path, who: Person, pixels: np.ndarray, resolution: int) -> np.ndarray:
    """The person's canvas (3, M, M), as float, from a photograph (H, W, 3)."""
    (tmp_path / "images").mkdir(exist_ok=True)
    Image.fromarray(pixels).save(tmp_path / "images" / who.image)
    fill(tmp_path / "s.h5", [who], tmp_path / "images", dataset="d", resolution=resolution, progress=False)
    crops = Store(tmp_path / "s.h5").crops([0])
    assert crops.shape == (1, 3, 2 * resolution, 2 * resolution)
    assert crops.dtype == np.uint8
    return crops[0].astype(float)


@pytest.mark.parametrize("side", [47.3, 80.0, 200.7])  # zooms 1, 1 and 0.4
@pytest.mark.parametrize(
    ("x", "y"), [(160.0, 120.0), (160.37, 119.81), (8.3, 120.2), (310.6, 120.4), (160.2, 6.9), (159.7, 232.1)]
)
def test_point_lands_where_the_geometry_says(tmp_path: Path, x: float, y: float, side: float) -> None:
    """A blob inside the photograph, for persons in its middle and at each border, to a tenth of a canvas pixel."""
    resolution = 80
    zoom = min(1.0, resolution / side)
    target = np.array([x, y]) + np.array([11.3, -9.6]) * np.where([x > 300, y < 10], -1, 1)
    columns, rows = np.meshgrid(np.arange(320), np.arange(240))
    sigma = 2.0 / zoom**0.5
    blob = np.exp(-((columns - target[0]) ** 2 + (rows - target[1]) ** 2) / (2 * sigma**2))
    pixels = np.repeat((250 * blob)[..., None], 3, 2).round().astype(np.uint8)
    canvas = one_crop(tmp_path, person(x=x, y=y, side=side), pixels, resolution).mean(0)
    canvas[canvas < 6] = 0  # what JPEG scatters around
    cells = np.arange(2 * resolution) + 0.5
    centroid = np.array([canvas.sum(0) @ cells, canvas.sum(1) @ cells]) / canvas.sum()
    expected = (target - [x, y]) * zoom + resolution
    assert np.abs(centroid - expected).max() < 0.1


def test_photograph_ends_where_the_geometry_says(tmp_path: Path) -> None:
    """White to the last whole canvas pixel within the photograph, black beyond."""
    who = person(x=7.0, y=5.25, side=100)
    canvas = one_crop(tmp_path, who, np.full((60, 90, 3), 255, np.uint8), 50)[0]
    zoom, half = 0.5, 50
    columns, rows = np.flatnonzero(canvas.max(0) > 128), np.flatnonzero(canvas.max(1) > 128)
    assert columns[0] == np.ceil(-7.5 * zoom) + half
    assert columns[-1] + 1 == np.floor((89.5 - 7) * zoom) + half
    assert rows[0] == np.ceil(-5.75 * zoom) + half
    assert rows[-1] + 1 == np.floor((59.5 - 5.25) * zoom) + half
    inside = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert inside.min() > 250
    assert canvas.sum() == inside.sum()


def test_person_outside_the_photograph_is_black(tmp_path: Path) -> None:
    assert not one_crop(tmp_path, person(x=-500.0), np.full((60, 90, 3), 255, np.uint8), 50).any()


def test_persons_outside_their_photographs_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kept, because a list of persons must not change by it; told again when the store is found finished."""
    photograph(tmp_path / "images", "a.png", 9)
    photograph(tmp_path / "images", "b.png", 10)
    people = [person(), person(x=-500.0, index=4), person("b.png", y=500.0), person("missing.png")]
    for resumed in (0, 3):
        report = fill(tmp_path / "s.h5", people, tmp_path / "images", dataset="d", resolution=50, progress=False)
        assert (report.stored, report.resumed) == (3, resumed)
        assert report.outside == [("a.png", 4), ("b.png", 0)]
        assert report.skipped == [("missing.png", "the file is missing")]
    reading = Reading(people, tmp_path / "images", [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(prepare._READERS, "mpii", lambda _: reading)
        prepare.prepare("mpii", tmp_path, tmp_path / "s.h5", 50, progress=False)
    told = capsys.readouterr().err
    assert "person 4 of a.png is annotated outside the photograph: kept, all black" in told
    assert "skipped missing.png: the file is missing" in told


@pytest.mark.parametrize("side", [41.3, 163.9])
def test_margin_holds_the_largest_rotated_crop(tmp_path: Path, side: float) -> None:
    """Scale 1.4 turned by up to 60 degrees needs no pixel that is not stored."""
    angles = np.deg2rad(np.arange(-60, 61))
    assert (1.4 * (np.abs(np.cos(angles)) + np.abs(np.sin(angles)))).max() <= MARGIN
    canvas = one_crop(tmp_path, person(x=200.3, y=201.9, side=side), np.full((400, 400, 3), 255, np.uint8), 64)[0]
    box = side * min(1, 64 / side)
    edge = np.linspace(-0.7, 0.7, 41) * box
    u, v = np.meshgrid(edge, edge)
    for a in angles:
        columns = np.floor(np.cos(a) * u - np.sin(a) * v + 64).astype(int)
        rows = np.floor(np.sin(a) * u + np.cos(a) * v + 64).astype(int)
        assert canvas[rows, columns].min() > 250


def test_nothing_is_enlarged(tmp_path: Path) -> None:
    """A small person keeps its pixels, and only twice its box is stored."""
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 255, (20, 20), np.uint8)).resize((200, 200), Image.Resampling.BICUBIC)
    pixels = np.repeat(np.asarray(grey)[..., None], 3, 2)
    canvas = one_crop(tmp_path, person(x=99.5, y=89.5, side=40), pixels, 64)
    # The centre 99.5 lies between pixels 99 and 100, at 64 on the canvas: pixel 100 is cell 64.
    inside = canvas[:, 64 - 40 : 64 + 40, 64 - 40 : 64 + 40]
    expected = pixels[90 - 40 : 90 + 40, 100 - 40 : 100 + 40].transpose(2, 0, 1).astype(float)
    assert np.abs(inside - expected).mean() < 2
    canvas[:, 24:104, 24:104] = 0
    assert not canvas.any()
    made = Store(tmp_path / "s.h5")
    assert made.zoom.tolist() == [1.0]
    assert made.offset.tolist() == [[24, 24]]


def test_orientation_tag_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[274] = 6  # "turn a quarter"
    picture = Image.new("RGB", (90, 60))
    picture.paste((255, 255, 255), (0, 0, 45, 60))
    picture.save(tmp_path / "images" / "a.jpg", exif=exif)
    who = person("a.jpg", x=44.5, y=29.5, side=50)
    fill(tmp_path / "s.h5", [who], tmp_path / "images", dataset="d", resolution=50, progress=False)
    canvas = Store(tmp_path / "s.h5").crops([0])[0, 0].astype(float)
    assert canvas[25:75, 10:48].min() > 200
    assert canvas[25:75, 52:90].max() < 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k in range(8):
        photograph(tmp_path / "images", f"{k}.png", 20 * k)
    return tmp_path


def people() -> list[Person]:
    """Twelve persons; photographs 0 to 3 have two each, not one after the other."""
    return [person(f"{k % 8}.png", x=40.0 + k, y=45.0, side=30 + 5 * k, index=k // 8) for k in range(12)]


def test_what_is_stored_comes_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    persons = people()
    persons[5] = replace(persons[5], split="valid", head_size=np.nan)
    report = fill(folder / "new" / "s.h5", persons, folder / "images", dataset="MPII", resolution=32)
    assert (report.stored, report.skipped, report.resumed) == (12, [], 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "12/12" in captured.err
    assert "persons/s" in captured.err
    assert [p.name for p in (folder / "new").iterdir()] == ["s.h5"]
    made = Store(folder / "new" / "s.h5")
    assert len(made) == 12
    assert made.skeleton is MPII
    assert (made.dataset, made.resolution, made.canvas, made.skipped) == ("MPII", 32, 64, [])
    for k, p in enumerate(persons):
        assert (made.image[k], made.index[k], made.split[k]) == (p.image, p.index, p.split)
        assert (tuple(made.center[k]), made.scale[k]) == (p.center, p.scale)
        assert made.zoom[k] == min(1, 32 / (200 * p.scale))
        np.testing.assert_array_equal(made.joints[k], p.joints)
        np.testing.assert_array_equal(made.visible[k], p.visible)
        np.testing.assert_array_equal(made.head_size[k], p.head_size)
    assert made.indices("valid").tolist() == [5]
    assert made.indices("train").tolist() == [0, 1, 2, 3, 4, *range(6, 12)]
    assert made.indices("test").tolist() == []
    crops = made.crops(np.array([9, 1, 7, 9]), workers=2)
    for crop, number in zip(crops, (1, 1, 7, 1), strict=True):
        assert abs(crop[0, 32, 32].astype(float) - 20 * number).max() < 4
    assert made.crops([]).shape == (0, 3, 64, 64)


def stored_bytes(path: Path) -> list[bytes]:
    with h5py.File(path) as file:
        arrays = [file[name][:].tobytes() for name in ("center", "offset", "zoom", "joints")]
        return [*arrays, *(jpeg.tobytes() for jpeg in file["jpeg"]), *file["image"][:]]


def test_repeat_returns_at_once(folder: Path) -> None:
    path, images = folder / "s.h5", folder / "images"
    fill(path, people(), images, dataset="d", resolution=32, progress=False)
    before = path.stat().st_mtime_ns
    report = fill(path, people(), images, dataset="d", resolution=32, progress=False)
    assert (report.stored, report.resumed) == (12, 12)
    assert path.stat().st_mtime_ns == before
    for persons, resolution in ((people()[:11], 32), (people(), 48)):
        report = fill(path, persons, images, dataset="d", resolution=resolution, progress=False)
        assert (report.stored, report.resumed) == (len(persons), 0)
        assert Store(path).resolution == resolution


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1])))
from scanet.data import store
from test_store import people
store.SHARD = 1
cut, write = store._cut, store._write_annotations
store._cut = lambda *a: (time.sleep(0.03), cut(*a))[1]
store._write_annotations = lambda *a: (write(*a), a[0].flush(), time.sleep(30))
folder = Path(sys.argv[2])
store.fill(folder / "s.h5", people(), folder / "images", dataset="d", resolution=32, progress=False)
"""


@pytest.mark.parametrize("moment", ["000001.npz", "000004.npz", "*.h5"])
def test_killed_run_is_continued(folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """SIGKILL while photographs are cut and while the store itself is half written."""
    monkeypatch.setattr(store, "SHARD", 1)
    partial, args = folder / "s.h5.partial", [str(Path(__file__).parent), str(folder)]
    with subprocess.Popen([sys.executable, "-c", KILLED, *args]) as process:
        deadline = time.monotonic() + 60
        while not any(partial.glob(moment)) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "s.h5").exists()
    report = fill(folder / "s.h5", people(), folder / "images", dataset="d", resolution=32, progress=False)
    assert report.stored == 12
    assert 2 <= report.resumed <= 12
    assert not partial.exists()
    fill(folder / "fresh.h5", people(), folder / "images", dataset="d", resolution=32, progress=False)
    assert stored_bytes(folder / "s.h5") == stored_bytes(folder / "fresh.h5")
    assert Store(folder / "s.h5").fingerprint == Store(folder / "fresh.h5").fingerprint


def test_broken_and_foreign_leftovers_are_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD", 2)
    path, images, kept = folder / "s.h5", folder / "images", folder / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "rmtree", lambda *_, **__: None)
        fill(path, people(), images, dataset="d", resolution=32, progress=False)
    expected = stored_bytes(path)
    (folder / "s.h5.partial").rename(kept)
    whole = (kept / "000001.npz").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.unlink()
        shutil.copytree(kept, folder / "s.h5.partial")
        (folder / "s.h5.partial" / "000001.npz").write_bytes(whole[:length])
        report = fill(path, people(), images, dataset="d", resolution=32, progress=False)
        assert report.resumed == 12 - 4  # photographs 2 and 3 with two persons each
        assert stored_bytes(path) == expected
    shutil.copytree(kept, folder / "s.h5.partial")
    assert fill(path, people()[:9], images, dataset="d", resolution=32, progress=False).resumed == 0
    path.write_bytes(path.read_bytes()[:1000])  # a store that is cut off is made again
    assert fill(path, people(), images, dataset="d", resolution=32, progress=False).stored == 12


def test_unreadable_photographs_are_skipped_and_named(folder: Path) -> None:
    path, images = folder / "s.h5", folder / "images"
    good = {name: (images / name).read_bytes() for name in ("1.png", "6.png")}
    (images / "1.png").write_bytes(good["1.png"][:-40])
    (images / "6.png").unlink()
    (images / "4.png").write_text("not a picture")
    report = fill(path, people(), images, dataset="d", resolution=32, progress=False)
    assert report.stored == 8
    reasons = dict(report.skipped)
    assert list(reasons) == ["1.png", "4.png", "6.png"]
    assert reasons["6.png"] == "the file is missing"
    assert all(reasons.values())
    made = Store(path)
    assert made.skipped == report.skipped
    assert made.image.tolist() == [p.image for p in people() if p.image not in reasons]
    assert abs(float(made.crops([3])[0, 0, 32, 32]) - 20 * 5) < 4  # the rows did not shift
    again = fill(path, people(), images, dataset="d", resolution=32, progress=False)
    assert (again.stored, again.skipped, again.resumed) == (8, report.skipped, 8)
    for name, data in good.items():
        (images / name).write_bytes(data)
    assert fill(path, people(), images, dataset="d", resolution=32, progress=False).stored == 11
    assert Store(path).fingerprint != made.fingerprint
    with pytest.raises(UserError, match=r"s\.h5 was filled anew while it was in use"):
        made.crops([3])  # which is another person now


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("no")])
def test_too_many_unreadable(folder: Path, damage: object) -> None:
    for k in range(5):
        damage(folder / "images" / f"{k}.png")  # type: ignore[operator]
    with pytest.raises(UserError, match=r"5 of 8 photographs cannot be read in .*images"):
        fill(folder / "s.h5", people(), folder / "images", dataset="d", resolution=32, progress=False)
    assert not (folder / "s.h5").exists()


def test_fingerprint_tells_content_and_nothing_else(folder: Path) -> None:
    numbers = itertools.count()

    def fingerprint(persons: list[Person], images: Path, resolution: int = 32) -> str:
        path = folder / f"{next(numbers)}.h5"
        fill(path, persons, images, dataset="d", resolution=resolution, progress=False)
        return Store(path).fingerprint

    images, moved = folder / "images", folder / "elsewhere" / "photos"
    base = fingerprint(people(), images)
    assert len(base) == 16
    assert int(base, 16) >= 0
    shutil.copytree(images, moved)
    assert fingerprint(people(), moved) == base
    assert fingerprint(people(), images, resolution=48) == base
    negative_nan = people()
    negative_nan[2].joints[3] = -np.nan
    assert fingerprint(negative_nan, images) == base
    different = people()
    different[4].joints[0, 0] += 1e-9
    assert fingerprint(different, images) != base
    for change in ({"scale": 0.5}, {"split": "valid"}, {"head_size": 1.0}, {"index": 7}, {"center": (1.0, 2.0)}):
        assert fingerprint([replace(people()[0], **change), *people()[1:]], images) != base  # type: ignore[arg-type]
    assert fingerprint(people()[::-1], images) != base
    with (moved / "3.png").open("ab") as file:
        file.write(b"\0")
    assert fingerprint(people(), moved) != base


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scanet prepare"):
        Store(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(UserError, match=r"is not a store .*scanet prepare"):
        Store(tmp_path / "text.h5")
    with pytest.raises(UserError, match=r"is there and is no store.*give another --output"):
        fill(tmp_path / "text.h5", people(), tmp_path, dataset="MPII", resolution=32, progress=False)
    assert (tmp_path / "text.h5").read_text() == "text"
    with pytest.raises(UserError, match="is a folder"):
        fill(tmp_path, people(), tmp_path, dataset="MPII", resolution=32, progress=False)
    with pytest.raises(UserError, match="is a folder and no store"):
        Store(tmp_path)
    with pytest.raises(UserError, match="no persons of MPII"):
        fill(tmp_path / "s.h5", [], tmp_path, dataset="MPII", resolution=32, progress=False)
    with pytest.raises(UserError, match="a resolution of 8 pixels is too small"):
        fill(tmp_path / "s.h5", people(), tmp_path, dataset="MPII", resolution=8, progress=False)


def test_other_version(folder: Path) -> None:
    fill(folder / "s.h5", people(), folder / "images", dataset="d", resolution=32, progress=False)
    with h5py.File(folder / "s.h5", "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(UserError, match="a store of version 99"):
        Store(folder / "s.h5")


@needs_lspet
def test_real_photographs(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(FILES / "joints.mat", tmp_path)
    with zipfile.ZipFile(FILES / "images-0.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".jpg"))[:20]
        for name in names:
            (tmp_path / "images" / Path(name).name).write_bytes(archive.read(name))
    reading = lsp.read_folder(tmp_path)
    images = reading.images
    some = [p for p in reading.persons if p.image in {Path(n).name for n in names}]
    assert len(some) == 20
    fill(tmp_path / "s.h5", some, images, dataset="LSPET", resolution=96, progress=False)
    made = Store(tmp_path / "s.h5")
    assert made.skeleton is LSP
    crops = made.crops(range(20))
    # The person's middle lies in the photograph, and a plain crop there shows the same colours.
    for k, p in enumerate(some):
        x, y = (round(v) for v in p.center)
        half = round(40 / made.zoom[k])
        with Image.open(io.BytesIO((images / p.image).read_bytes())) as picture:
            box = (max(x - half, 0), max(y - half, 0), min(x + half, picture.width), min(y + half, picture.height))
            patch = np.asarray(picture.crop(box), float)
        offsets = np.round((np.array(box) - np.tile(p.center, 2)) * made.zoom[k] + 96).astype(int)
        cut = crops[k, :, offsets[1] : offsets[3], offsets[0] : offsets[2]]
        assert np.abs(cut.mean((1, 2)) - patch.mean((0, 1))).max() < 6
