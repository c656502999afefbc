"""The stand-in for MPII: its counts and quirks of place, read back by the reader of the real files."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scanet.data import mpii, rehearsal
from scanet.data.person import Reading
from scanet.files import UserError
from scanet.skeleton import MPII


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty persons to learn from, three on the list, seven to test, of two drawn photographs."""
    folder = tmp_path_factory.mktemp("rehearsal") / "mpii"
    with small():
        counts = rehearsal.write(folder, photographs=2, progress=False)
    assert counts == {"train": 20, "valid": 3, "test": 7}
    return folder


@contextmanager
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        listed = {("000000003.jpg", 0), ("000000003.jpg", 2), ("000000999.jpg", 1)}
        patch.setattr(mpii, "validation_list", lambda: listed)
        patch.setattr(mpii, "EXPECTED", {"train": 20, "valid": 3, "test": 7})
        yield


@pytest.fixture(scope="module")
def reading(folder: Path) -> Reading:
    with small():
        return mpii.read_folder(folder)


def test_the_reader_finds_the_expected_numbers(reading: Reading) -> None:
    assert (reading.counts, reading.warning) == ({"train": 20, "valid": 3, "test": 7}, "")
    assert reading.skipped == [("000000003.jpg", 1, mpii.UNLISTED), ("000000999.jpg", 0, mpii.UNLISTED)]
    of_image = Counter(person.image for person in reading.persons if person.split == "train")
    assert len(of_image) == 14  # three persons in two photographs, as MPII's 22,246 in 14,679
    assert set(of_image.values()) == {1, 2}
    images = {split: {p.image for p in reading.persons if p.split == split} for split in reading.counts}
    assert not images["train"] & images["test"]
    for person in reading.persons:
        assert np.isnan(person.joints).all() == (person.split == "test")


def test_few_photographs_lie_under_all_the_names(folder: Path, reading: Reading) -> None:
    files = [reading.images / person.image for person in reading.persons]
    assert len({file.stat().st_ino for file in files}) == 2
    for file in files[-2:]:
        with Image.open(file) as image:
            assert image.size == (1280, 720)
    assert sorted(path.name for path in folder.iterdir()) == ["images", mpii.MAT_NAME]


def test_annotations_move_with_their_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene with a white dot at each wrist, enlarged: the dot is where the annotation says."""
    wrists = MPII.index("r-wrist", "l-wrist")
    render = rehearsal.render

    def dotted(*arguments: object) -> object:
        scene = render(*arguments)
        scene.image[...] = 0
        for x, y in np.rint(scene.person.joints[wrists]).astype(int):
            scene.image[y - 1 : y + 2, x - 1 : x + 2] = 255
        scene.person.joints[wrists] = np.rint(scene.person.joints[wrists])
        return scene

    monkeypatch.setattr(rehearsal, "render", dotted)
    monkeypatch.setattr(rehearsal, "GRAIN", 0.0)
    image, persons = rehearsal.photograph(np.random.default_rng(4))
    pixels = np.asarray(image).mean(axis=2)
    for person, (left, _, factor) in zip(persons, rehearsal.SCENES, strict=True):
        for x, y in person.joints[wrists]:
            assert left < x < left + 220 * factor
            reach = round(2 * factor)
            column, row = round(x), round(y)
            window = pixels[row - reach : row + reach + 1, column - reach : column + reach + 1]
            ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1]
            middle = np.array([(window * xs).sum(), (window * ys).sum()]) / window.sum()
            np.testing.assert_allclose(middle + np.array([column, row]), [x, y], atol=0.3)


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(UserError, match="exists: give a new folder"):
        rehearsal.write(folder)
    with pytest.raises(UserError, match=r"photographs is 0: allowed is a value from 1 to"):
        rehearsal.write(folder / "new", photographs=0)
