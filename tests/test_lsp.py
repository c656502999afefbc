"""LSP and LSP Extended: the two layouts of joints.mat, boxes, splits, labels that cannot be right."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from shared import LSPET as FILES
from shared import needs_lspet

from scanet.data import lsp
from scanet.files import UserError


def made_up(n: int) -> np.ndarray:
    """Joints (n, 14, 2), 1-based, within photographs of 200 x 150 pixels."""
    return np.random.default_rng(3).uniform([1, 1], [200, 150], (n, 14, 2))


def write(folder: Path, points: np.ndarray, flags: np.ndarray, extended: bool, digits: int) -> Path:
    (folder / "images").mkdir(parents=True)
    both = np.concatenate([points, flags[..., None]], 2)
    savemat(folder / "joints.mat", {"joints": both.transpose(1, 2, 0) if extended else both.transpose(2, 1, 0)})
    for i in range(len(points)):
        Image.new("RGB", (200, 150)).save(folder / "images" / f"im{i + 1:0{digits}d}.jpg")
    return folder


def test_extended(tmp_path: Path) -> None:
    points, flags = made_up(30), np.ones((30, 14))
    flags[0, [2, 12]] = 0
    points[0, 2] = -300
    points[1, 13] = points[1, 12]
    flags[2, 2:] = 0  # two joints are no person
    reading = lsp.read_folder(write(tmp_path / "a", points, flags, True, 5))
    persons = reading.persons
    assert reading.images == tmp_path / "a" / "images"
    assert reading.skipped == [("im00003.jpg", 0, "fewer than 3 joints")]
    assert reading.counts == {"train": 26, "valid": 3}
    assert str(reading).splitlines() == [
        "split       read",
        "train         26",
        "valid          3",
        "skipped        1  fewer than 3 joints",
    ]
    assert [p.image for p in persons] == [f"im{n:05d}.jpg" for n in range(1, 31) if n != 3]
    assert [p.image for p in persons if p.split == "valid"] == ["im00010.jpg", "im00020.jpg", "im00030.jpg"]
    first, second, third = persons[:3]
    annotated = flags[0] > 0
    np.testing.assert_allclose(first.joints[annotated], points[0, annotated] - 1)
    assert np.isnan(first.joints[~annotated]).all()
    np.testing.assert_array_equal(first.visible, annotated)
    assert np.isnan(first.head_size)  # no neck
    assert np.isnan(second.head_size)  # no length
    assert third.head_size == pytest.approx(np.linalg.norm(points[3, 12] - points[3, 13]))
    low, high = (points[0, annotated] - 1).min(0), (points[0, annotated] - 1).max(0)
    assert first.center == pytest.approx(tuple((low + high) / 2))
    assert 200 * first.scale == pytest.approx(1.25 * (high - low).max())
    assert {p.index for p in persons} == {0}


def test_original(tmp_path: Path) -> None:
    points, flags = made_up(6), np.zeros((6, 14))
    flags[0, 5] = 1  # occluded, still annotated
    persons = lsp.read_folder(write(tmp_path / "a", points, flags, False, 4)).persons
    assert [p.image for p in persons] == [f"im000{n}.jpg" for n in range(1, 7)]
    assert [p.split for p in persons] == ["train"] * 3 + ["valid"] * 3
    np.testing.assert_allclose(persons[0].joints, points[0] - 1)
    assert persons[0].visible.tolist() == [j != 5 for j in range(14)]


def test_smallest_box(tmp_path: Path) -> None:
    points = made_up(1) * 0.01 + 50
    persons = lsp.read_folder(write(tmp_path / "a", points, np.ones((1, 14)), True, 5)).persons
    assert 200 * persons[0].scale == pytest.approx(1.25 * 60)


def test_joint_far_outside_is_missing(tmp_path: Path) -> None:
    """The limit is a tenth of the longer side, 20 pixels, beyond the edges at 0.5 and 200.5 (1-based)."""
    points = made_up(1)
    points[0, 0], points[0, 1], points[0, 2] = (-19.4, 5), (-19.6, 5), (20, 170.4)
    points[0, 3], points[0, 4], points[0, 5] = (20, 170.6), (221, 5), (np.nan, 5)
    folder = write(tmp_path / "a", points, np.ones((1, 14)), True, 5)
    persons = lsp.read_folder(folder).persons
    assert np.isnan(persons[0].joints).any(1).nonzero()[0].tolist() == [1, 3, 4, 5]
    assert np.isnan(persons[0].joints[[1, 3, 4, 5]]).all()
    assert persons[0].visible.nonzero()[0].tolist() == [0, 2, *range(6, 14)]
    (folder / "images" / "im00001.jpg").write_bytes(b"broken")  # the store reports it
    persons = lsp.read_folder(folder).persons
    assert np.isnan(persons[0].joints).any(1).nonzero()[0].tolist() == [5]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"joints\.mat is missing .* unpack the archive"):
        lsp.read_folder(tmp_path)
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((16, 3, 5))})
    with pytest.raises(UserError, match="images is missing"):
        lsp.read_folder(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"has the shape \(16, 3, 5\)"):
        lsp.read_folder(tmp_path)
    savemat(tmp_path / "joints.mat", {"other": 1})
    with pytest.raises(UserError, match="cannot be read as a Matlab file"):
        lsp.read_folder(tmp_path)
    (tmp_path / "joints.mat").write_bytes(b"text" * 100)
    with pytest.raises(UserError, match="cannot be read as a Matlab file"):
        lsp.read_folder(tmp_path)


def test_a_photograph_that_pillow_refuses_is_left_to_the_cutting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, made_up(5), np.ones((5, 14)), True, 5)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert len(lsp.read_folder(tmp_path).persons) == 5


@needs_lspet
def test_real_labels(tmp_path: Path) -> None:
    (tmp_path / "joints.mat").symlink_to(FILES / "joints.mat")
    (tmp_path / "images").mkdir()
    persons = lsp.read_folder(tmp_path).persons
    assert len(persons) == 10_000
    assert sum(p.split == "valid" for p in persons) == 1_000
    assert sum(np.isfinite(p.joints).all(1).sum() for p in persons) == 123_213
    assert np.isfinite([p.head_size for p in persons]).sum() == 7_982  # of 7,989 with both, seven at one point
