"""What kind of mistake a wrong joint is: on the same joint of the other side, on another joint, near, or elsewhere.

PCKh counts them all alike. The kinds are those of Ronchi and Perona ("Benchmarking and Error Diagnosis in
Multi-Instance Pose Estimation", ICCV 2017) for one annotated person, measured in head sizes: their inversion is
"mirrored" or "another joint", their jitter is "near", their miss is "elsewhere"; what lies on another person is
"elsewhere" too, as other persons' joints are not known.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int64

RIGHT, MIRRORED, ANOTHER, NEAR, ELSEWHERE = KINDS = ("right", "mirrored", "another joint", "near", "elsewhere")
REACH = 0.5  # head sizes: PCKh's threshold; a prediction so close to a joint is on it
NEARBY = 1.0  # head sizes


def kinds(
    predicted: Float[np.ndarray, "n j 2"],
    truth: Float[np.ndarray, "n j 2"],
    reference: Float[np.ndarray, " n"],
    opposite: Sequence[int],
) -> tuple[Int64[np.ndarray, "n j"], Bool[np.ndarray, "n j"]]:
    """Of each joint its kind, as a place in `KINDS`, and whether the joint is annotated: the others' kind is void.

    The first that fits: within `REACH` of its own joint; of the same joint of the other side; of any other joint;
    within `NEARBY` of its own. A joint that was not found (NaN) is "elsewhere".

    Args:
        predicted, truth: pixels; NaN in truth: not annotated. reference: head sizes, pixels, above 0.
        opposite: for each joint that of the other side; a joint of the middle is its own opposite.
    """
    joints = np.arange(truth.shape[1])
    with np.errstate(invalid="ignore", over="ignore"):  # a prediction of inf is merely elsewhere
        away = np.linalg.norm(predicted[:, :, None] - truth[:, None], axis=3) / reference[:, None, None]
    on = away <= REACH  # (n, predicted joint, true joint)
    tests = [on[:, joints, joints], on[:, joints, opposite], on.any(axis=2), away[:, joints, joints] <= NEARBY]
    return np.select(tests, range(len(tests)), len(tests)), ~np.isnan(truth).any(axis=2)
