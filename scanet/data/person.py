"""The one record that every reader yields and the store holds."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, eq=False)
class Person:
    """One annotated person, in the package's coordinates (see `scanet.skeleton`).

    image: file name inside the images folder. index: the person's number in that image, from 0.
    center: (x, y), pixels; scale: the person's box is a square of 200 * scale pixels around the centre. Both are
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
