"""The drawn people: determinism, what the dials do, and that the files hold what was drawn."""

import hashlib
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from scanet.data import synthetic
from scanet.data.mpii import MAT_NAME
from scanet.data.synthetic import ImageRecord, PersonRecord, Scene, render, write, write_mpii_mat
from scanet.files import UserError
from scanet.skeleton import MPII


def scene(number: int, part_scale: float = 0.5, clutter: float = 0.5) -> Scene:
    return render(np.random.default_rng(number), part_scale, clutter)


def adjusted(person: PersonRecord) -> tuple[np.ndarray, float]:
    """Centre (2,) and side of the box that training crops, in pixels."""
    x, y = person.objpos
    return np.array([x, y + 15 * person.scale]), 250 * person.scale


def head_size(person: PersonRecord) -> float:
    x1, y1, x2, y2 = person.head_box
    return 0.6 * float(np.hypot(x2 - x1, y2 - y1))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_mat(path: Path) -> SimpleNamespace:
    return loadmat(path, squeeze_me=True, struct_as_record=False)["RELEASE"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "mpii"
    write(path, train=6, valid=3, seed=3, progress=False)
    return path


@pytest.fixture(scope="module")
def people() -> list[PersonRecord]:
    # The joints are the same at every clutter (tested below), and a clean picture is drawn sooner.
    return [scene(i, clutter=0.0).person for i in range(240)]


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # scipy writes the time into a .mat file: let it be another time.
    monkeypatch.setattr(time, "asctime", lambda *_: "Thu Jan  1 00:00:00 1970")
    write(tmp_path / "again", train=6, valid=3, seed=3, progress=False)
    assert digests(tmp_path / "again") == digests(folder)


def test_another_seed_gives_other_photographs(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", train=6, valid=3, seed=4, progress=False)
    before, after = digests(folder), digests(tmp_path / "other")
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_more_images_keep_the_first_ones(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "more", train=7, valid=3, seed=3, progress=False)
    before, after = digests(folder), digests(tmp_path / "more")
    assert all(before[f"images/{i:08d}.jpg"] == after[f"images/{i:08d}.jpg"] for i in range(1, 7))
    assert all(before[f"images/{i:08d}.jpg"] == after[f"images/{i + 1:08d}.jpg"] for i in range(7, 10))


def test_joints_lie_inside_the_photograph_and_the_box() -> None:
    kept = 0
    for number in range(40):
        drawn = scene(number, clutter=0.0)
        joints, (height, width, _) = drawn.person.joints, drawn.image.shape
        known = ~np.isnan(joints[:, 0])
        kept += known.sum()
        assert (joints[known] >= -0.5).all()
        assert (joints[known] <= [width - 0.5, height - 0.5]).all()
        assert not drawn.person.visible[~known].any()
        center, side = adjusted(drawn.person)
        assert (np.abs(joints[known] - center) <= side / 2).all()
    assert kept > 0.95 * 40 * 16


def test_proportions_are_like_mpii(people: list[PersonRecord]) -> None:
    # In MPII the head size is an eighth of 200 * scale, for every person; here a little more.
    ratio = np.array([head_size(person) / (200 * person.scale) for person in people])
    assert 1 / 8 < np.median(ratio) < 1 / 7
    assert ratio.max() < 1 / 7
    sides = np.array([250 * person.scale for person in people])
    assert 120 < np.median(sides) < 160


def test_the_mean_pose_is_a_poor_predictor(people: list[PersonRecord]) -> None:
    joints = np.stack([person.joints for person in people])
    centers, sides = map(np.array, zip(*map(adjusted, people), strict=True))
    inside = (joints - centers[:, None]) / sides[:, None, None]
    # Either half of the persons is predicted from the other.
    mean = np.stack([np.nanmean(inside[start::2], axis=0) for start in (1, 0)])
    error = np.linalg.norm(inside - mean[np.arange(len(people)) % 2], axis=2) * sides[:, None]
    limit = 0.5 * np.array([[head_size(person)] for person in people])
    known = ~np.isnan(error)
    rates = ((error <= limit) & known).sum(0) / known.sum(0)
    assert 2 < 100 * rates[list(MPII.scored)].mean() < 20


def test_most_people_face_the_camera(people: list[PersonRecord]) -> None:
    left, right = MPII.index("l-shoulder", "r-shoulder")
    facing = [person.joints[left, 0] > person.joints[right, 0] for person in people]
    assert 0.6 < np.mean(facing) < 0.9


def test_clutter_keeps_the_person() -> None:
    for number in range(10):
        clean, full = scene(number, clutter=0.0), scene(number, clutter=1.0)
        np.testing.assert_array_equal(clean.person.joints, full.person.joints)
        assert clean.person.head_box == full.person.head_box
        assert clean.image.shape == full.image.shape
        assert (clean.image != full.image).any()
        assert not (full.person.visible & ~clean.person.visible).any()


def test_clutter_adds_edges_and_hides_joints() -> None:
    def edges(drawn: Scene) -> float:
        return float(np.abs(np.diff(drawn.image.astype(float), axis=1)).mean())

    levels = [[scene(i, clutter=clutter) for i in range(12)] for clutter in (0.0, 0.5, 1.0)]
    strength = [np.mean([edges(drawn) for drawn in level]) for level in levels]
    assert strength[0] * 1.2 < strength[1]
    assert strength[1] * 1.2 < strength[2]
    visible = [np.mean([drawn.person.visible for drawn in level]) for level in levels]
    assert visible[0] >= visible[1] > visible[2]  # what stands in front comes last


def test_part_scale_draws_near_parts_larger() -> None:
    def ratio(part_scale: float) -> float:
        """How much larger the nearest joint is drawn than the farthest, on average over persons."""
        bodies = [synthetic._pose(np.random.default_rng(i)) for i in range(50)]
        return float(np.mean([np.ptp(np.log(synthetic._project(body, part_scale)[1])) for body in bodies]))

    assert ratio(0.0) == 0
    assert ratio(0.5) > 0.3
    assert ratio(1.0) > 2 * ratio(0.5)
    assert (scene(1, part_scale=0.0).image != scene(1, part_scale=1.0).image).any()


@pytest.mark.parametrize("part_scale", [0.0, 1.0])
def test_part_scale_keeps_the_pose(part_scale: float) -> None:
    """The same body at any part scale: the joints drawn are its projection, moved and enlarged."""
    body = synthetic._pose(np.random.default_rng(5).spawn(4)[0])
    projected = synthetic._project(body, part_scale)[0][: len(MPII.joints)]
    joints = scene(5, part_scale, 0.0).person.joints
    seen = ~np.isnan(joints[:, 0])
    assert seen.sum() > 8
    moved, wanted = (points[seen] - points[seen].mean(axis=0) for points in (joints, projected))
    factor = (moved * wanted).sum() / (wanted**2).sum()
    assert factor > 0
    np.testing.assert_allclose(moved, factor * wanted, atol=1e-9)


def test_the_mat_file_holds_what_was_drawn(folder: Path) -> None:
    release = read_mat(folder / MAT_NAME)
    assert len(release.annolist) == len(release.img_train) == len(release.single_person) == len(release.act) == 9
    assert (release.img_train == 1).all()
    assert (release.single_person == 1).all()
    for i in range(6):
        drawn = render(np.random.default_rng(np.random.SeedSequence((3, 0, i))), 0.5, 0.5)
        entry = release.annolist[i]
        assert entry.image.name == f"{i + 1:08d}.jpg"
        with Image.open(folder / "images" / entry.image.name) as image:
            assert image.size == drawn.image.shape[1::-1]
            assert np.abs(np.asarray(image, float) - drawn.image).mean() < 12
        rect, person = entry.annorect, drawn.person
        assert (rect.x1 - 1, rect.y1 - 1, rect.x2 - 1, rect.y2 - 1) == pytest.approx(person.head_box)
        assert (rect.objpos.x - 1, rect.objpos.y - 1, rect.scale) == pytest.approx((*person.objpos, person.scale))
        known = np.flatnonzero(~np.isnan(person.joints[:, 0]))
        assert [point.id for point in rect.annopoints.point] == known.tolist()
        for point in rect.annopoints.point:
            assert (point.x - 1, point.y - 1) == pytest.approx(tuple(person.joints[point.id]))
            assert point.is_visible == person.visible[point.id]


def test_the_h5_file_lists_the_validation_persons(folder: Path) -> None:
    release = read_mat(folder / MAT_NAME)
    with h5py.File(folder / "valid.h5") as file:
        values = {name: file[name][:] for name in file}
    assert set(values) == {
        "center", "imgname", "index", "normalize", "part", "person", "scale", "torsoangle", "visible"
    }  # fmt: skip
    assert values["imgname"].tolist() == [b"00000007.jpg", b"00000008.jpg", b"00000009.jpg"]
    for k, index in enumerate(values["index"].astype(int)):
        rect = release.annolist[index].annorect
        assert release.annolist[index].image.name.encode() == values["imgname"][k]
        assert values["scale"][k] == pytest.approx(1.25 * rect.scale)
        assert values["center"][k] == pytest.approx([rect.objpos.x, rect.objpos.y + 15 * rect.scale])
        assert values["normalize"][k] == pytest.approx(0.6 * np.hypot(rect.x2 - rect.x1, rect.y2 - rect.y1))
        expected, visible = np.zeros((16, 2)), np.zeros(16)
        for point in rect.annopoints.point:
            expected[point.id] = int(point.x), int(point.y)
            visible[point.id] = point.is_visible
        np.testing.assert_array_equal(values["part"][k], expected)
        np.testing.assert_array_equal(values["visible"][k], visible)


def test_torso_angle_is_newells() -> None:
    # The first person of the real validation file: pelvis (974, 446), thorax (985, 253), angle 3.262 degrees.
    joints = np.full((16, 2), np.nan)
    joints[6:8] = [[973, 445], [984, 252]]
    person = PersonRecord((0.0, 0.0, 1.0, 1.0), 1.0, (0.0, 0.0), joints, np.ones(16, bool))
    assert synthetic._torso_angle(np.nan_to_num(person.joints + 1)[None]) == pytest.approx([3.2620334773967556])


def test_a_missing_joint_and_several_people_in_the_mat_file(tmp_path: Path) -> None:
    joints = np.arange(32.0).reshape(16, 2)
    joints[2:] = np.nan
    person = PersonRecord((1.0, 2.0, 3.0, 4.0), 1.5, (5.0, 6.0), joints, np.arange(16) > 0)
    write_mpii_mat(
        tmp_path / "a.mat", [ImageRecord("a.jpg", True, [person, person]), ImageRecord("b.jpg", False, [])]
    )
    release = read_mat(tmp_path / "a.mat")
    assert release.img_train.tolist() == [1, 0]
    assert len(release.annolist[0].annorect) == 2
    assert len(release.annolist[1].annorect) == 0
    points = release.annolist[0].annorect[1].annopoints.point
    assert [(point.id, point.x, point.y, point.is_visible) for point in points] == [(0, 1, 2, 0), (1, 3, 4, 1)]


@pytest.mark.parametrize("dials", [{"part_scale": 1.5}, {"clutter": -0.1}, {"clutter": float("nan")}])
def test_a_dial_outside_its_range_is_refused(dials: dict[str, float], tmp_path: Path) -> None:
    (name, value), *_ = dials.items()
    with pytest.raises(UserError, match=f"{name} is {value}.*between 0 and 1"):
        write(tmp_path / "data", train=1, valid=1, progress=False, **dials)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "value", "least"), [("train", -1, 0), ("valid", -3, 1), ("seed", -1, 0)])
def test_too_small_a_number_is_refused(name: str, value: int, least: int, tmp_path: Path) -> None:
    numbers = {"train": 1, "valid": 1, name: value}
    with pytest.raises(UserError, match=f"{name} is {value}.*at least {least}"):
        write(tmp_path / "data", **numbers, progress=False)
    assert not list(tmp_path.iterdir())
