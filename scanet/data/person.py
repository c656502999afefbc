"""The one record that every reader yields and the store holds, and what a reader says of a folder."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

Split = Literal["train", "valid", "test"]

BOX = 200.0  # pixels of a person's box at scale 1 (MPII)


@dataclass(frozen=True, eq=False)
class Person:
    """One annotated person, in the package's coordinates (see `scanet.skeleton`).

    image: file name inside the images folder. index: the person's number in that image, from 0.
    center: (x, y), pixels; scale: the person's box is a square of `BOX` * scale pixels around the centre. Both are
        *adjusted*: MPII's raw values have had 15 * scale added to y and the scale multiplied by 1.25 (PHT), once,
        by the reader of a format that does not already hold that.
    joints: (J, 2) pixels, NaN where not annotated; visible: (J,), False where occluded or not annotated.
    head_size: pixels, the length that PCKh measures in; NaN if the head is not annotated.
    """

    image: str
    index: int
    split: Split
    center: tuple[float, float]
    scale: float
    joints: np.ndarray
    visible: np.ndarray
    head_size: float


class Skipped(NamedTuple):
    """A person whom a reader left out. number: `Person.index`. reason: a few words, the same for all of a kind."""

    image: str
    number: int
    reason: str


@dataclass(frozen=True)
class Reading:
    """A data set's folder as read. Printed, it is a table of the splits and of the reasons for leaving persons out.

    images: the folder of the photographs. expected: how many persons of each split the published release gives;
    empty where that is not known. warning: a sentence, if the files look like something else than they should be.
    """

    persons: Sequence[Person]
    images: Path
    skipped: Sequence[Skipped]
    expected: Mapping[str, int] = field(default_factory=dict)
    warning: str = ""

    @property
    def counts(self) -> Counter[str]:
        """Persons read, by split."""
        return Counter(person.split for person in self.persons)

    def __str__(self) -> str:
        counts, expected = self.counts, self.expected
        lines = [f"{'split':<8}{'read':>8}" + (f"{'expected':>10}" if expected else "")]
        for split in ("train", "valid", "test"):
            if counts[split] or split in expected:
                lines.append(f"{split:<8}{counts[split]:>8,}" + (f"{expected[split]:>10,}" if expected else ""))
        reasons = Counter(person.reason for person in self.skipped)
        return "\n".join([*lines, *(f"{'skipped':<8}{n:>8,}  {reason}" for reason, n in reasons.most_common())])
