"""What kind of mistake a wrong joint is: on the other side, on another joint, near its own, on a limb, or elsewhere.

PCKh counts them all alike. The kinds are modelled on those of Ronchi and Perona ("Benchmarking and Error Diagnosis in
Multi-Instance Pose Estimation", ICCV 2017), for one annotated person and measured in head sizes: "mirrored" is their
inversion, "near" their jitter; the others are parts of their miss. Where other persons' joints lie is not known.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int8

RIGHT, MIRRORED, ANOTHER, NEAR, LIMB, ELSEWHERE = KINDS = (
    "right", "mirrored", "another joint", "near", "on a limb", "elsewhere",
)  # fmt: skip
REACH = 0.5  # head sizes: PCKh's threshold; a prediction so close to a joint is on it, and so is one to a limb
NEARBY = 1.0  # head sizes


def kinds(
    predicted: Float[np.ndarray, "n j 2"],
    truth: Float[np.ndarray, "n j 2"],
    reference: Float[np.ndarray, " n"],
    opposite: Sequence[int],
    limbs: Sequence[Sequence[int]],
) -> tuple[Int8[np.ndarray, "n j"], Bool[np.ndarray, "n j"]]:
    """Of each joint its kind, as a place in `KINDS`, and whether the joint is annotated: the others' kind is void.

    The first that fits: within `REACH` of its own joint; of the same joint of the other side; of any other joint;
    within `NEARBY` of its own; within `REACH` of a limb, the straight line between two joints; none of these.
    Joints that are not annotated, and their limbs, attract nothing. A joint that was not found (NaN) is "elsewhere".

    Args:
        predicted, truth: pixels; NaN in truth: not annotated. reference: head sizes, pixels, above 0.
        opposite: for each joint that of the other side; a joint of the middle is its own opposite.
        limbs: pairs of joints, of the trunk too.
    """
    joints = np.arange(truth.shape[1])
    starts, ends = truth[:, [first for first, _ in limbs]], truth[:, [second for _, second in limbs]]
    with np.errstate(invalid="ignore", over="ignore"):  # a prediction of inf is merely elsewhere
        head = reference[:, None, None]
        away = np.linalg.norm(predicted[:, :, None] - truth[:, None], axis=3) / head
        beside = distance_to_lines(predicted[:, :, None], starts[:, None], ends[:, None]) / head
    on = away <= REACH  # (n, predicted joint, true joint)
    tests = [
        on[:, joints, joints],
        on[:, joints, opposite],
        on.any(axis=2),
        away[:, joints, joints] <= NEARBY,
        (beside <= REACH).any(axis=2),
    ]
    return np.select(tests, range(len(tests)), len(tests)).astype(np.int8), ~np.isnan(truth).any(axis=2)


def distance_to_lines(
    points: Float[np.ndarray, "*#n 2"], starts: Float[np.ndarray, "*#n 2"], ends: Float[np.ndarray, "*#n 2"]
) -> Float[np.ndarray, "*n"]:
    """From each point to the nearest one of its straight line, whose ends count; NaN where one is not known."""
    along = ends - starts
    length = (along**2).sum(axis=-1)
    part = ((points - starts) * along).sum(axis=-1) / np.where(length > 0, length, 1)
    nearest = starts + part.clip(0, 1)[..., None] * along
    return np.linalg.norm(points - nearest, axis=-1)
