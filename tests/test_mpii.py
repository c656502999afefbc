"""MPII's three formats: every quirk of the .mat, one convention for all, the adjustment exactly once."""

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from scanet.data import mpii
from scanet.data.person import Person
from scanet.files import UserError

SHARED = Path(os.environ.get("SCANET_SHARED", Path(__file__).parents[2] / "shared" / "data")) / "mpii"
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


@pytest.fixture
def quirks(tmp_path: Path) -> dict[tuple[str, int], Person]:
    path = tmp_path / "quirks.mat"
    no_text = structs([{"x": 1, "y": 1}])
    write_mat(
        path,
        [
            ("numbers.jpg", 1, [rect([point(0, 1, 2, 1), point(9, 30.5, 40.25, 0), point(6, 7, 8, EMPTY)])]),
            ("texts.jpg", 1, [rect([point(15, 5, 6, "1"), point(10, 7, 8, "0"), point(11, 7, 8, "")])]),
            ("absent.jpg", 1, [rect([point(8, 5, 6)])]),
            ("several.jpg", 1, [
                rect(None), rect([]), rect([point(1, 9, 9)], scale=EMPTY), rect([point(1, 9, 9)], objpos=EMPTY),
                rect([point(1, 9, 9), point(2, 3, 3)]), rect([point(16, 9, 9)]),
                rect([point(1, 9, 9)], head=(5, 5, 5, 5)),
            ]),
            ("fewer-fields.jpg", 1, [{"x1": 1, "y1": 1, "x2": 2, "y2": 2}]),
            ("other.jpg", 1, no_text),
            ("nobody.jpg", 1, EMPTY),
            ("held-out.jpg", 1, [rect([point(3, 4, 5, 1)]), rect([point(4, 4, 5, 1)])]),
            ("test.jpg", 0, [{"scale": 3.0, "objpos": {"x": 11, "y": 12}}]),
            ("tests.jpg", 0, [{"scale": s, "objpos": {"x": 11, "y": 12}} for s in (1.0, EMPTY, 2.0)]),
            ("empty-test.jpg", 0, EMPTY),
        ],
    )  # fmt: skip
    persons = mpii.read_mat(path, {("held-out.jpg", 1)})
    assert len({(p.image, p.index) for p in persons}) == len(persons)
    return {(p.image, p.index): p for p in persons}


def test_mat_keeps_the_right_persons(quirks: dict[tuple[str, int], Person]) -> None:
    splits = {key: person.split for key, person in quirks.items()}
    assert splits == {
        ("numbers.jpg", 0): "train", ("texts.jpg", 0): "train", ("absent.jpg", 0): "train",
        ("several.jpg", 4): "train", ("several.jpg", 6): "train",
        ("held-out.jpg", 1): "valid",
        ("test.jpg", 0): "test", ("tests.jpg", 0): "test", ("tests.jpg", 2): "test",
    }  # fmt: skip


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
    from_mat = mpii.read_mat(tmp_path / mpii.MAT_NAME, {(p["image"], p["index"]) for p in people})
    from_h5 = mpii.read_h5(tmp_path / "valid.h5", "valid")
    from_json = mpii.read_json(tmp_path / "valid.json", "valid")
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
    assert (person.image, person.index, person.split) == ("a.jpg", 3, "train")
    assert person.center == (10.0, 20.0)
    assert person.scale == 1.5
    assert np.isnan(person.joints[3]).all()
    np.testing.assert_array_equal(person.joints[[4, 5, 6]], [[-1, 6], [-3, 6], [4, 4]])
    assert person.visible.tolist() == [j not in (3, 6) for j in range(16)]
    assert np.isnan(person.head_size)


def test_json_of_a_test_set_has_no_joints(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps([{"image": "a.jpg", "center": [11, 21], "scale": 2}]))
    (person,) = mpii.read_json(tmp_path / "test.json", "test")
    assert np.isnan(person.joints).all()
    assert person.center == (10.0, 50.0)


def test_folder(tmp_path: Path) -> None:
    write_formats(tmp_path, made_up())
    people = [*made_up(), {**made_up()[0], "image": "more.jpg"}]
    with pytest.raises(UserError, match=r"images is missing .* get the photographs"):
        mpii.read_folder(tmp_path)
    (tmp_path / "images").mkdir()
    persons, images = mpii.read_folder(tmp_path)
    assert [p.split for p in persons] == ["valid"] * 6
    assert images == tmp_path / "images"
    write_formats(tmp_path, people)
    (tmp_path / "rest").mkdir()
    write_formats(tmp_path / "rest", people[:5])
    (tmp_path / "rest" / "valid.h5").replace(tmp_path / "valid.h5")
    persons, _ = mpii.read_folder(tmp_path)
    # The sixth shares a validation image without being listed.
    assert [p.split for p in persons] == ["valid"] * 5 + ["train"]
    assert persons[-1].image == "more.jpg"


def test_folder_of_pieces_that_do_not_belong_together(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "rest").mkdir()
    write_formats(tmp_path, made_up())
    write_formats(tmp_path / "rest", made_up()[:4])
    (tmp_path / "rest" / mpii.MAT_NAME).replace(tmp_path / mpii.MAT_NAME)
    with pytest.raises(UserError, match=r"lacks 2 of the 6 persons .* number 0 of 000000004.jpg"):
        mpii.read_folder(tmp_path)


@pytest.mark.parametrize("name", [mpii.MAT_NAME, "valid.h5"])
def test_folder_with_a_piece_missing(tmp_path: Path, name: str) -> None:
    write_formats(tmp_path, made_up())
    (tmp_path / "images").mkdir()
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing in it: get "):
        mpii.read_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind" * 20, b'{"a": 1}', b"[1]"])
def test_unreadable_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    readers = (lambda: mpii.read_mat(path, set()), lambda: mpii.read_h5(path, "valid"))
    for read in (*readers, lambda: mpii.read_json(path, "valid")):
        with pytest.raises(UserError, match="cannot be read"):
            read()


def test_mat_of_something_else(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"RELEASE": {"annolist": EMPTY}})
    with pytest.raises(UserError, match="cannot be read"):
        mpii.read_mat(tmp_path / "a.mat", set())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real MPII files are not here (SCANET_SHARED)")
def test_real_persons_agree() -> None:
    """Five real persons: Newell's adjusted, truncated file and HRNet's raw one."""
    listed = mpii.read_h5(SHARED / "valid.h5", "valid")
    assert len(listed) == 2958
    assert len({p.image for p in listed}) == 2729
    by_image = {p.image: p for p in listed}
    persons = mpii.read_json(SHARED / "test_mpii.json", "valid")
    assert len(persons) == 5
    for person in persons:
        other = by_image[person.image]
        assert person.center == pytest.approx(other.center, abs=1e-3)
        assert person.scale == pytest.approx(other.scale, abs=1e-3)
        # The file truncates the 1-based numbers.
        np.testing.assert_array_equal(np.trunc(person.joints + 1) - 1, other.joints)
