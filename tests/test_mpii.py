"""MPII's three formats: every quirk of the .mat, one convention for all, the adjustment exactly once."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hrnet import read_json
from scipy.io import savemat
from shared import MPII as FILES
from shared import needs_mpii

from scanet.data import mpii
from scanet.data.person import Person, Reading, Skipped
from scanet.data.prepare import prepare
from scanet.files import UserError

EMPTY = np.zeros((0, 0))


def structs(rows: list[dict[str, Any]]) -> np.ndarray:
    """A Matlab struct array; a struct array has the same fields in every element."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for k, row in enumerate(rows):
        array[0, k] = tuple(row.values())
    return array


def rect(
    points: Any, scale: Any = 2.0, objpos: Any = None, head: tuple[int, ...] = (11, 21, 41, 61)
) -> dict[str, Any]:
    return {
        **dict(zip(("x1", "y1", "x2", "y2"), map(np.uint8, head), strict=True)),
        "annopoints": EMPTY if points is None else {"point": structs(points) if points else EMPTY},
        "scale": scale,
        "objpos": {"x": np.uint8(101), "y": np.uint8(201)} if objpos is None else objpos,
    }


def point(joint: int, x: float, y: float, *flag: Any) -> dict[str, Any]:
    return {"x": x, "y": y, "id": np.uint8(joint)} | ({"is_visible": flag[0]} if flag else {})


def write_mat(path: Path, images: list[tuple[str, int, Any]]) -> None:
    """images: (name, img_train, rows of annorect or what stands in their place)."""
    annolist = [
        {"image": {"name": name}, "annorect": structs(rects) if isinstance(rects, list) else rects}
        for name, _, rects in images
    ]
    is_train = np.array([[train for _, train, _ in images]], np.uint8)
    savemat(path, {"RELEASE": {"annolist": structs(annolist), "img_train": is_train, "version": "12"}})


def cell(value: Any) -> np.ndarray:
    """A 1 x 1 cell array around a value."""
    array = np.empty((1, 1), object)
    array[0, 0] = value
    return array


@pytest.fixture
def reading(tmp_path: Path) -> tuple[list[Person], list[Skipped]]:
    path = tmp_path / "quirks.mat"
    no_text = structs([{"x": 1, "y": 1}])
    write_mat(
        path,
        [
            ("numbers.jpg", 1, [rect([point(0, 1, 2, 1), point(9, 30.5, 40.25, 0), point(6, 7, 8, EMPTY)])]),
            ("texts.jpg", 1, [rect([point(15, 5, 6, "1"), point(10, 7, 8, "0"), point(11, 7, 8, "")])]),
            ("absent.jpg", 1, [rect([point(8, 5, 6)])]),
            ("ids.jpg", 1, [rect([
                point(4, 11, 12, 0), point(4, 31, 32, 1), point(5, np.nan, 2, 1), point(5, 41, 42, 1),
                point(16, 1, 1, 1), {**point(0, 1, 1, 1), "id": EMPTY}, {**point(0, 1, 1, 1), "id": 2.5},
            ])]),
            (cell("cells.jpg"), 1, cell(structs([{
                "annopoints": cell({"point": cell(structs([point(7, 5, 6, cell("0"))]))}), "scale": cell(2.0),
                "objpos": cell({"x": cell(101), "y": 201.0}),
            }]))),
            ("several.jpg", 1, [
                rect(None), rect([]), rect([point(1, 9, 9)], scale=EMPTY), rect([point(1, 9, 9)], objpos=EMPTY),
                rect([point(1, 9, 9), point(2, 3, 3)]), rect([point(16, 9, 9)]),
                rect([point(1, 9, 9)], head=(5, 5, 5, 5)), rect([point(1, 9, 9)], scale=0.0),
            ]),
            ("fewer-fields.jpg", 1, [{"x1": 1, "y1": 1, "x2": 2, "y2": 2}]),
            ("other.jpg", 1, no_text),
            ("nobody.jpg", 1, EMPTY),
            ("held-out.jpg", 1, [rect([point(3, 4, 5, 1)]), rect([point(4, 4, 5, 1)]), rect(None)]),
            ("test.jpg", 0, [{"scale": 3.0, "objpos": {"x": 11, "y": 12}}]),
            ("tests.jpg", 0, [{"scale": s, "objpos": {"x": 11, "y": 12}} for s in (1.0, EMPTY, 2.0)]),
            ("empty-test.jpg", 0, EMPTY),
        ],
    )  # fmt: skip
    return mpii.read_mat(path, {("held-out.jpg", 1)})


@pytest.fixture
def quirks(reading: tuple[list[Person], list[Skipped]]) -> dict[tuple[str, int], Person]:
    persons, _ = reading
    assert len({(p.image, p.index) for p in persons}) == len(persons)
    return {(p.image, p.index): p for p in persons}


def test_mat_keeps_the_right_persons(quirks: dict[tuple[str, int], Person]) -> None:
    splits = {key: person.split for key, person in quirks.items()}
    assert splits == {
        ("numbers.jpg", 0): "train", ("texts.jpg", 0): "train", ("absent.jpg", 0): "train",
        ("ids.jpg", 0): "train", ("cells.jpg", 0): "train",
        ("several.jpg", 4): "train", ("several.jpg", 6): "train",
        ("held-out.jpg", 1): "valid",
        ("test.jpg", 0): "test", ("tests.jpg", 0): "test", ("tests.jpg", 2): "test",
    }  # fmt: skip


def test_mat_tells_whom_it_leaves_out_and_why(reading: tuple[list[Person], list[Skipped]]) -> None:
    _, skipped = reading
    assert skipped == [
        ("several.jpg", 0, mpii.NO_JOINTS), ("several.jpg", 1, mpii.NO_JOINTS), ("several.jpg", 2, mpii.NO_BOX),
        ("several.jpg", 3, mpii.NO_BOX), ("several.jpg", 5, mpii.NO_JOINTS), ("several.jpg", 7, mpii.NO_BOX),
        ("fewer-fields.jpg", 0, mpii.NO_BOX), ("other.jpg", 0, mpii.NO_BOX),
        ("held-out.jpg", 0, mpii.UNLISTED), ("held-out.jpg", 2, mpii.NO_JOINTS),
        ("tests.jpg", 1, mpii.NO_BOX),
    ]  # fmt: skip
    assert Counter(s.reason for s in skipped) == {mpii.NO_BOX: 6, mpii.NO_JOINTS: 4, mpii.UNLISTED: 1}


def test_mat_points(quirks: dict[tuple[str, int], Person]) -> None:
    """Of two points of one joint the first that has a place counts; an id that is no joint's is ignored."""
    person = quirks["ids.jpg", 0]
    assert np.isfinite(person.joints).all(1).nonzero()[0].tolist() == [4, 5]
    np.testing.assert_array_equal(person.joints[[4, 5]], [[10, 11], [40, 41]])
    assert person.visible.nonzero()[0].tolist() == [5]


def test_mat_wrapped_in_cells(quirks: dict[tuple[str, int], Person]) -> None:
    person = quirks["cells.jpg", 0]
    assert (person.center, person.scale) == ((100.0, 230.0), 2.5)
    np.testing.assert_array_equal(person.joints[7], [4, 5])
    assert not person.visible.any()
    assert np.isnan(person.head_size)


def test_mat_door(quirks: dict[tuple[str, int], Person]) -> None:
    """1-based to 0-based, unsigned bytes and all; the adjustment uses the raw scale."""
    person = quirks["numbers.jpg", 0]
    assert person.center == (100.0, 200.0 + 15 * 2.0)
    assert person.scale == 2.5
    assert person.head_size == pytest.approx(0.6 * 50)
    np.testing.assert_array_equal(person.joints[[0, 9, 6]], [[0, 1], [29.5, 39.25], [6, 7]])
    assert np.isnan(np.delete(person.joints, [0, 9, 6], 0)).all()
    assert quirks["test.jpg", 0].center == (10.0, 11.0 + 45.0)


def test_mat_visibility(quirks: dict[tuple[str, int], Person]) -> None:
    assert np.flatnonzero(quirks["numbers.jpg", 0].visible).tolist() == [0, 6]  # number; empty means visible
    assert np.flatnonzero(quirks["texts.jpg", 0].visible).tolist() == [11, 15]
    assert np.flatnonzero(quirks["absent.jpg", 0].visible).tolist() == [8]
    assert quirks["several.jpg", 4].visible.sum() == 2


def test_mat_without_joints_or_head(quirks: dict[tuple[str, int], Person]) -> None:
    test = quirks["test.jpg", 0]
    assert np.isnan(test.joints).all()
    assert test.joints.shape == (16, 2)
    assert not test.visible.any()
    assert np.isnan(test.head_size)
    assert np.isnan(quirks["several.jpg", 6].head_size)  # a rectangle without area


def made_up(n: int = 6) -> list[dict[str, Any]]:
    """Persons with whole, 1-based, raw numbers, as the files hold them; the last two share an image."""
    rng = np.random.default_rng(5)
    people = []
    for i in range(n):
        annotated = rng.random(16) < 0.8
        annotated[0] = True
        people.append({
            "image": f"{min(i, n - 2):09d}.jpg", "index": int(i == n - 1), "center": rng.integers(50, 250, 2),
            "scale": float(rng.uniform(1, 3)), "joints": rng.integers(1, 255, (16, 2)), "annotated": annotated,
            "head": np.array([10, 20, 30 + i, 60]),
        })  # fmt: skip
    return people


def write_formats(folder: Path, people: list[dict[str, Any]]) -> None:
    rects: dict[str, list[dict[str, Any]]] = {}
    for p in people:
        points = [point(j, *map(float, p["joints"][j]), 1) for j in np.flatnonzero(p["annotated"])]
        objpos = dict(zip("xy", map(float, p["center"]), strict=True))
        rects.setdefault(p["image"], []).append(rect(points, p["scale"], objpos, tuple(p["head"])))
    write_mat(folder / mpii.MAT_NAME, [(name, 1, rows) for name, rows in rects.items()])
    with h5py.File(folder / "valid.h5", "w") as file:
        scale = np.array([p["scale"] for p in people])
        file["center"] = np.array([p["center"] for p in people]) + np.outer(scale, [0, 15])
        file["scale"] = scale * 1.25
        file["part"] = np.array([p["joints"] * p["annotated"][:, None] for p in people], float)
        file["visible"] = np.array([p["annotated"] for p in people], float)
        file["normalize"] = np.array([0.6 * np.hypot(*(p["head"][2:] - p["head"][:2])) for p in people])
        file["person"] = np.array([p["index"] for p in people], float)
        file["imgname"] = np.array([[*p["image"].ljust(14, "\0").encode()] for p in people], float)
    records = [
        {
            "image": p["image"], "center": p["center"].tolist(), "scale": p["scale"],
            "joints": np.where(p["annotated"][:, None], p["joints"], -1).tolist(),
            "joints_vis": p["annotated"].astype(int).tolist(),
        }
        for p in people
    ]  # fmt: skip
    (folder / "valid.json").write_text(json.dumps(records))


def test_three_formats_hold_the_same_persons(tmp_path: Path) -> None:
    people = made_up()
    write_formats(tmp_path, people)
    from_mat, skipped = mpii.read_mat(tmp_path / mpii.MAT_NAME, {(p["image"], p["index"]) for p in people})
    assert skipped == []
    from_h5 = mpii.read_h5(tmp_path / "valid.h5", "valid")
    from_json = read_json(tmp_path / "valid.json")
    assert len(from_mat) == len(from_h5) == len(from_json) == len(people)
    for raw, a, b, c in zip(people, from_mat, from_h5, from_json, strict=True):
        assert (a.image, a.index, a.split) == (b.image, b.index, b.split) == (c.image, c.index, c.split)
        assert (a.image, a.index, a.split) == (raw["image"], raw["index"], "valid")
        x, y = raw["center"] - 1
        for person in (a, b, c):
            assert person.center == pytest.approx((x, y + 15 * raw["scale"]))
            assert person.scale == pytest.approx(1.25 * raw["scale"])
            expected = np.where(raw["annotated"][:, None], raw["joints"] - 1.0, np.nan)
            np.testing.assert_array_equal(person.joints, expected)
            np.testing.assert_array_equal(person.visible, raw["annotated"])
        assert a.head_size == pytest.approx(b.head_size)
        assert np.isnan(c.head_size)


def test_h5_zeros(tmp_path: Path) -> None:
    """Both zero is missing, one zero is a place; names may be bytes; an occluded joint stays annotated."""
    part, visible = np.full((1, 16, 2), 5.0), np.ones((1, 16))
    part[0, 3], part[0, 4], part[0, 5], visible[0, 6] = 0, (0, 7), (-2, 7), 0
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["center"], file["scale"], file["part"] = np.array([[11.0, 21.0]]), np.array([1.5]), part
        file["visible"], file["normalize"], file["person"] = visible, np.array([0.0]), np.array([3.0])
        file["imgname"] = np.array([b"a.jpg"], dtype="S13")
    (person,) = mpii.read_h5(tmp_path / "a.h5", "train")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["scale"]
        file["scale"] = [1.0, 1.0]
    with pytest.raises(UserError, match=r"Newell's format \(its arrays are of different lengths\)"):
        mpii.read_h5(tmp_path / "a.h5", "train")
    assert (person.image, person.index, person.split) == ("a.jpg", 3, "train")
    assert person.center == (10.0, 20.0)
    assert person.scale == 1.5
    assert np.isnan(person.joints[3]).all()
    np.testing.assert_array_equal(person.joints[[4, 5, 6]], [[-1, 6], [-3, 6], [4, 4]])
    assert person.visible.tolist() == [j not in (3, 6) for j in range(16)]
    assert np.isnan(person.head_size)


def test_folder(tmp_path: Path) -> None:
    """A valid.h5 in the folder is the list; nothing is expected of made-up numbers."""
    people = [*made_up(), {**made_up()[0], "image": "more.jpg"}]
    write_formats(tmp_path, people)
    (tmp_path / "images").mkdir()
    (tmp_path / "rest").mkdir()
    write_formats(tmp_path / "rest", people[:5])
    (tmp_path / "rest" / "valid.h5").replace(tmp_path / "valid.h5")
    reading = mpii.read_folder(tmp_path)
    assert [p.split for p in reading.persons] == ["valid"] * 5 + ["train"]
    assert reading.persons[-1].image == "more.jpg"
    assert reading.images == tmp_path / "images"
    assert reading.skipped == [("000000004.jpg", 1, mpii.UNLISTED)]
    assert (reading.expected, reading.warning) == ({}, "")


def test_validation_list() -> None:
    listed = mpii.validation_list()
    assert len(listed) == 2958
    assert len({image for image, _ in listed}) == 2729
    assert sum(number == 0 for _, number in listed) == 1810
    assert max(number for _, number in listed) == 10
    assert all(len(image) == 13 and image.endswith(".jpg") and image[:9].isdigit() for image, _ in listed)


@needs_mpii
def test_validation_list_is_newells() -> None:
    assert mpii.validation_list() == {(p.image, p.index) for p in mpii.read_h5(FILES / "valid.h5", "valid")}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder in the official nesting that holds the listed persons, three others of their images, four persons to
    learn from and two of the test part, but no valid.h5.
    """
    images: dict[str, list[dict[str, Any]]] = {}
    for image, number in sorted(mpii.validation_list()):
        rows = images.setdefault(image, [])
        rows += [rect(None, scale=EMPTY) for _ in range(number - len(rows))] + [rect([point(1, 9, 9, 1)])]
    for rows in [rows for rows in images.values() if len(rows) == 1][:3]:
        rows.append(rect([point(2, 9, 9)]))
    rows = [(name, 1, rects) for name, rects in images.items()]
    rows.append(("learn.jpg", 1, [rect([point(1, 9, 9)]), rect([point(2, 9, 9)]), rect(None)]))
    rows.append(("more.jpg", 1, [rect([point(1, 9, 9)]), rect([point(2, 9, 9)])]))
    rows.append(("test.jpg", 0, [{"scale": s, "objpos": {"x": 11, "y": 12}} for s in (1.0, 2.0, EMPTY)]))
    write_mat(tmp_path / mpii.MAT_NAME, rows)
    (tmp_path / "images").mkdir()
    return tmp_path


def test_official_folder(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The reading is shown before the photographs, here missing, are cut."""
    shown: list[Reading] = []
    with pytest.raises(
        UserError, match=r"images lacks 2,729 of the validation photographs, 000025245\.jpg among them"
    ):
        prepare("mpii", official, official / "s.h5", 64, progress=False, on_read=shown.append)
    (reading,) = shown
    assert reading.counts == {"train": 4, "valid": 2958, "test": 2}
    assert {(p.image, p.index) for p in reading.persons if p.split == "valid"} == mpii.validation_list()
    assert {p.image for p in reading.persons if p.split == "train"} == {"learn.jpg", "more.jpg"}
    assert all(np.isnan(p.joints).all() for p in reading.persons if p.split == "test")
    last = dict(sorted(mpii.validation_list()))
    unannotated = sum(last.values()) + len(last) - 2958 + 1  # before a listed person in the same image; in test.jpg
    assert str(reading).splitlines() == [
        "split       read  expected",
        "train          4    22,246",
        "valid      2,958     2,958",
        "test           2    11,731",
        f"skipped {unannotated:>8,}  no scale or centre",
        "skipped        3  in a validation image, but not in the list",
        "skipped        1  no joints",
    ]
    message = capsys.readouterr().err
    assert message == f"warning: {reading.warning}\n"
    assert "does not read as the release v1_u12_1, which gives 22,246 train, 2,958 valid, 11,731 test" in message


def test_no_warning_where_the_numbers_are_the_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = made_up()
    write_formats(tmp_path, people)  # its valid.h5 names the same persons as the standard list
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(mpii, "validation_list", lambda: {(p["image"], p["index"]) for p in people})
    monkeypatch.setattr(mpii, "EXPECTED", {"valid": 6})
    reading = mpii.read_folder(tmp_path)
    assert (reading.expected, reading.warning) == ({"valid": 6}, "")
    monkeypatch.setattr(mpii, "EXPECTED", {"valid": 6, "test": 1})
    assert mpii.read_folder(tmp_path).warning.endswith(
        "which gives 6 valid, 1 test persons: " + mpii._GET_ANNOTATIONS + "."
    )


def test_folder_of_pieces_that_do_not_belong_together(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "rest").mkdir()
    people = made_up()
    write_formats(tmp_path, people)
    write_formats(tmp_path / "rest", people[:4])
    (tmp_path / "rest" / mpii.MAT_NAME).replace(tmp_path / mpii.MAT_NAME)
    with pytest.raises(
        UserError, match=r"lacks 2 of the 6 .* 0 of 000000004.jpg \(not in the file\): delete valid.h5"
    ):
        mpii.read_folder(tmp_path)
    (tmp_path / "valid.h5").unlink()
    with pytest.raises(UserError, match=r"lacks 2,958 of the 2,958 persons .* 3 of 000025245.jpg .*: get the annot"):
        mpii.read_folder(tmp_path)
    people[2]["annotated"][:] = False
    write_formats(tmp_path, people)
    with pytest.raises(UserError, match=r"lacks 1 of the 6 persons .* number 0 of 000000002.jpg \(no joints\)"):
        mpii.read_folder(tmp_path)


def test_validation_person_without_a_head(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    people = made_up()
    people[3]["head"] = np.array([7, 7, 7, 7])
    write_formats(tmp_path, people)
    with pytest.raises(UserError, match=r"no head rectangle .* 1 of the 6 persons .* number 0 of 000000003.jpg"):
        mpii.read_folder(tmp_path)


@pytest.mark.parametrize(("name", "thing"), [(mpii.MAT_NAME, "annotations"), ("images", "photographs")])
def test_folder_with_a_piece_missing(tmp_path: Path, name: str, thing: str) -> None:
    write_formats(tmp_path, made_up())
    (tmp_path / "images").mkdir()
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{name} is missing in it: get the {thing} "):
        mpii.read_folder(tmp_path)


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("images/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)


def test_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mpii"
    folder.mkdir()
    write_formats(folder, made_up())
    rng = np.random.default_rng(3)
    files = {f"{k:09d}.jpg": rng.bytes(size) for k, size in enumerate((0, 511, 512, 513, 100_000))}
    evil = {"../outside.jpg": b"out", "/root.jpg": b"root", "images/readme.txt": b"text"}
    write_archive(folder / mpii.ARCHIVE_NAME, {f"images/{name}": data for name, data in files.items()} | evil)
    reading = mpii.read_folder(folder)
    assert reading.images == folder / "images"
    found = {path.name: path.read_bytes() for path in reading.images.iterdir()}
    assert found == {**files, "outside.jpg": b"out", "root.jpg": b"root"}
    assert [path.name for path in tmp_path.iterdir()] == ["mpii"]
    assert len(list(folder.iterdir())) == 5  # the three formats, the archive, images
    (folder / mpii.ARCHIVE_NAME).write_bytes(b"no longer needed")
    monkeypatch.setattr(mpii, "alone", lambda *_, **__: pytest.fail("wrote into a folder that may be read-only"))
    mpii.read_folder(folder)


@pytest.mark.parametrize("keep", [0, 10, 40_000, -9, -4])
def test_broken_archive_leaves_nothing(tmp_path: Path, keep: int) -> None:
    """Cut anywhere, or with a wrong checksum (at -4 lies gzip's length, before it the checksum)."""
    write_formats(tmp_path, made_up())
    path = tmp_path / mpii.ARCHIVE_NAME
    write_archive(path, {f"images/{k}.jpg": np.random.default_rng(k).bytes(30_000) for k in range(3)})
    whole = path.read_bytes()
    path.write_bytes(whole[:keep] + b"abcd" if keep == -4 else whole[:keep])
    with pytest.raises(UserError, match=r"gz cannot be unpacked .*: get the photographs .* again"):
        mpii.read_folder(tmp_path)
    assert not [p for p in tmp_path.iterdir() if "images" in p.name]


def test_archive_without_photographs(tmp_path: Path) -> None:
    write_formats(tmp_path, made_up())
    write_archive(tmp_path / mpii.ARCHIVE_NAME, {"images/readme.txt": b"text"})
    with pytest.raises(UserError, match=r"it holds no \.jpg"):
        mpii.read_folder(tmp_path)
    assert not (tmp_path / "images").exists()


def test_missing_test_photographs_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()

    def warning(*images: str) -> str:
        nobody = np.full((16, 2), np.nan), np.zeros(16, bool), np.nan
        persons = [Person(name, 0, "test", (1.0, 1.0), 1.0, *nobody) for name in images]
        return mpii.check_photographs(Reading(persons, tmp_path, []))

    assert warning("a.jpg", "a.jpg") == ""
    assert "lacks 2 test photographs, b.jpg among them: submissions need all" in warning("c.jpg", "a.jpg", "b.jpg")


@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 20, b'{"a": 1}', b"[1]"])
def test_unreadable_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    readers = (lambda: mpii.read_mat(path, set()), lambda: mpii.read_h5(path, "valid"))
    for read in readers:
        with pytest.raises(UserError, match="cannot be read"):
            read()


def test_mat_of_something_else(tmp_path: Path) -> None:
    savemat(tmp_path / "b.mat", {"annolist": EMPTY})
    with pytest.raises(UserError, match=r"b.mat cannot be read .*no variable RELEASE.*: get the annotations"):
        mpii.read_mat(tmp_path / "b.mat", set())
    savemat(tmp_path / "a.mat", {"RELEASE": {"annolist": EMPTY}})
    with pytest.raises(UserError, match="cannot be read"):
        mpii.read_mat(tmp_path / "a.mat", set())


@needs_mpii
def test_real_persons_agree() -> None:
    """Five real persons: Newell's adjusted, truncated file and HRNet's raw one."""
    listed = mpii.read_h5(FILES / "valid.h5", "valid")
    assert len(listed) == 2958
    assert len({p.image for p in listed}) == 2729
    by_image = {p.image: p for p in listed}
    persons = read_json(FILES / "test_mpii.json")
    assert len(persons) == 5
    for person in persons:
        other = by_image[person.image]
        assert person.center == pytest.approx(other.center, abs=1e-3)
        assert person.scale == pytest.approx(other.scale, abs=1e-3)
        # The file truncates the 1-based numbers.
        np.testing.assert_array_equal(np.trunc(person.joints + 1) - 1, other.joints)


@needs_mpii
def test_real_persons_in_the_official_nesting(tmp_path: Path) -> None:
    """The five again, from a .mat that holds HRNet's raw numbers: each its number of that image in Newell's file."""
    raw = json.loads((FILES / "test_mpii.json").read_text(encoding="utf-8"))
    numbers = {p.image: p.index for p in mpii.read_h5(FILES / "valid.h5", "valid")}
    images = []
    for record in raw:
        points = [
            point(joint, x, y, 1)
            for joint, ((x, y), known) in enumerate(zip(record["joints"], record["joints_vis"], strict=True))
            if known
        ]
        person = rect(points, record["scale"], dict(zip("xy", record["center"], strict=True)))
        images.append((record["image"], 1, [rect(None)] * numbers[record["image"]] + [person]))
    write_mat(tmp_path / mpii.MAT_NAME, images)
    listed = {(record["image"], numbers[record["image"]]) for record in raw}
    from_mat, _ = mpii.read_mat(tmp_path / mpii.MAT_NAME, listed)
    from_json = read_json(FILES / "test_mpii.json")
    from_h5 = {(p.image, p.index): p for p in mpii.read_h5(FILES / "valid.h5", "valid")}
    assert len(from_mat) == 5
    for a, b in zip(from_mat, from_json, strict=True):
        c = from_h5[a.image, a.index]
        assert a.image == b.image
        for other in (b, c):
            assert a.center == pytest.approx(other.center, abs=1e-3)
            assert a.scale == pytest.approx(other.scale, abs=1e-3)
        np.testing.assert_allclose(a.joints, b.joints, atol=0.01)
        np.testing.assert_array_equal(np.trunc(a.joints + 1) - 1, c.joints)
