"""A stand-in for MPII's two official files, to try the whole way before the download: as many persons, in as many
photographs of the usual size, annotated in the official nesting. A few hundred drawn photographs repeat under all the
names, so they take little room; nothing can be learnt from them that is worth a number.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from scanet.data import mpii
from scanet.data.synthetic import ImageRecord, PersonRecord, background, render, write_mpii_mat
from scanet.files import UserError, whole_folder
from scanet.skeleton import MPII

WIDTH, HEIGHT = 1280, 720
#: Where three drawn scenes lie in a photograph: left and top edge, and how much they are enlarged.
SCENES = ((0, 0, 3.3), (720, 0, 1.5), (955, 395, 1.5))
#: Standard deviation of the grain, in grey values of 255: the files are then about as large as MPII's.
GRAIN = 6.0
#: Persons in a photograph of MPII's training part (22,246 in 14,679).
CROWD = 22_246 / 14_679


def write(
    folder: Path, *, share: float = 1.0, photographs: int = 200, seed: int = 0, progress: bool = True
) -> dict[str, int]:
    """Write `images/` and MPII's .mat into the new `folder`; the number of persons in each split.

    share: of MPII's training and test persons; those for validation are always all on the list.
    photographs: how many different ones are drawn.

    Raises:
        UserError: the folder exists, or a number is out of range.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: give a new folder for the rehearsal's files")
    for name, value, low, high in (("share", share, 0.001, 1.0), ("photographs", photographs, 1, 10_000)):
        if not low <= value <= high:
            raise UserError(f"{name} is {value}: allowed is a value from {low} to {high}")
    counts = {split: round(number * share) for split, number in mpii.EXPECTED.items()}
    counts["valid"] = mpii.EXPECTED["valid"]
    with whole_folder(folder) as temporary:
        (temporary / "drawn").mkdir()
        (temporary / "images").mkdir()
        people: list[list[PersonRecord]] = []
        for i in tqdm(range(photographs), desc="drawing photographs", unit="image", disable=not progress):
            image, persons = photograph(np.random.default_rng(np.random.SeedSequence((seed, i))))
            image.save(temporary / "drawn" / f"{i}.jpg", quality=90)
            people.append(persons)
        records = []
        for number, (name, is_train, size) in enumerate(_layout(counts)):
            drawn = number % photographs
            (temporary / "images" / name).hardlink_to(temporary / "drawn" / f"{drawn}.jpg")
            shown = [people[drawn][k % len(SCENES)] for k in range(size)]
            records.append(ImageRecord(name, is_train, shown if is_train else [_withheld(p) for p in shown]))
        shutil.rmtree(temporary / "drawn")
        write_mpii_mat(temporary / mpii.MAT_NAME, records)
    return counts


def photograph(rng: np.random.Generator) -> tuple[Image.Image, list[PersonRecord]]:
    """A photograph with a person in each of `SCENES`, and their annotations."""
    picture = Image.fromarray(np.clip(background(rng, WIDTH, HEIGHT), 0, 255).astype(np.uint8))
    persons = []
    for left, top, factor in SCENES:
        scene = render(rng, 0.5, 0.5)
        height, width = scene.image.shape[:2]
        size = round(width * factor), round(height * factor)
        picture.paste(Image.fromarray(scene.image).resize(size, Image.Resampling.BICUBIC), (left, top))
        persons.append(_moved(scene.person, np.array([left, top]), factor))
    grain = rng.normal(0, GRAIN, (HEIGHT, WIDTH, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)), persons


def _moved(person: PersonRecord, corner: np.ndarray, factor: float) -> PersonRecord:
    """The person in a scene that is enlarged about its corner; whole numbers are at pixels' centres."""

    def move(points: np.ndarray) -> np.ndarray:
        return (points + 0.5) * factor - 0.5 + corner

    (x1, y1), (x2, y2) = move(np.reshape(person.head_box, (2, 2))).tolist()
    x, y = move(np.array(person.objpos)).tolist()
    return PersonRecord((x1, y1, x2, y2), person.scale * factor, (x, y), move(person.joints), person.visible)


def _withheld(person: PersonRecord) -> PersonRecord:
    """As MPII gives its test persons: without joints."""
    return replace(person, joints=np.full((len(MPII.joints), 2), np.nan), visible=np.zeros(len(MPII.joints), bool))


def _layout(counts: dict[str, int]) -> Iterator[tuple[str, bool, int]]:
    """Each photograph's name, whether it is of the training half, and how many persons it shows."""
    last: dict[str, int] = {}
    for image, number in mpii.validation_list():
        last[image] = max(number, last.get(image, 0))
    yield from ((image, True, number + 1) for image, number in sorted(last.items()))
    fresh = (name for i in range(1, 10**9) if (name := f"{i:09d}.jpg") not in last)
    for split in ("train", "test"):
        ends = np.unique(np.append(np.arange(0, counts[split], CROWD).astype(int), counts[split]))
        for persons in np.diff(ends).tolist():
            yield next(fresh), split == "train", persons
