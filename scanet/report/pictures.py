"""What figures show of a person: picture, joints, heat maps and attention, as arrays.

`scanet.report.examples` and `scanet.report.views` make them.
"""

from dataclasses import dataclass

import numpy as np

#: Pixels of a side of the picture in an `Example` or a `View`.
PICTURE = 256


@dataclass(frozen=True)
class Example:
    """A validation person as a picture shows it.

    image: (s, s, 3) in [0, 1]; joints, truth: (j, 2) edge coordinates in it; attention: one map (h, w)
    for each stack, none if the row has none or the weights are missing. rank: of 0 to 1, by `value`, which is the
    mean error in head sizes if nothing else is said; 0 is then the best.
    """

    image: np.ndarray
    joints: np.ndarray
    truth: np.ndarray
    attention: list[np.ndarray]
    rank: float
    value: float


@dataclass(frozen=True, eq=False)
class Look:
    """One pass over one picture, as a stack sees it. joints: (j, 2) edge coordinates in the picture; heatmap: (h, w);
    attention: (h, w), None if the row has none.
    """

    joints: np.ndarray
    heatmap: np.ndarray
    attention: np.ndarray | None


@dataclass(frozen=True, eq=False)
class View:
    """A picture (s, s, 3) in [0, 1], its annotation (j, 2) if there is one, and the looks without and with noise."""

    image: np.ndarray
    truth: np.ndarray | None
    quiet: Look
    noisy: Look | None
