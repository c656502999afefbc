"""PCK and PCKh: the share of joints found within a part of a reference length, in the conventions in use.

PCKh measures in head sizes (0.6 * the diagonal of MPII's head rectangle) and is reported at 0.5; LSP's PCK
measures in torso sizes (`torso_size`) and is reported at 0.2, as the plain mean over its 14 joints:

    pck = PCK(LSP)
    pck.update(predicted, truth, torso_size(truth, LSP))
    pck.compute(threshold=0.2).row("plain")

Predictions and truth have to be in one frame; which one does not matter, as only differences count.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from scanet.files import UserError
from scanet.skeleton import GROUPS, MPII, Skeleton

#: Parts of the reference length. Each is the double nearest to k / 100, as a ratio distance / reference is the
#: double nearest to the true one: a distance exactly at a threshold compares as equal.
THRESHOLDS = tuple(k / 100 for k in range(51))


@dataclass(frozen=True)
class Convention:
    """How a table is made of rates.

    strict: a joint at exactly the threshold is wrong (<), else right (<=). pooled: "Mean" is the rate of all
    joints together, which weights each joint by how often it is annotated; else it is the plain mean of the
    joints' rates. head: the joints whose rates' mean is "Head". whose: where it is in use. Printed, it is all that in
    words.
    """

    strict: bool
    pooled: bool
    head: tuple[str, ...]
    whose: str

    def __str__(self) -> str:
        right = f"right if distance {'<' if self.strict else '<='} threshold"
        head = f"Head: {self.head[0]}" if len(self.head) == 1 else f"Head: mean of {' and '.join(self.head)}"
        mean = "all joints pooled" if self.pooled else "mean of the joints' rates"
        return f"{right}; {head}; Mean: {mean} ({self.whose})"


CONVENTIONS = {
    "official": Convention(
        strict=False, pooled=True, head=("neck", "head-top"), whose="MPII's toolkit and leader board, Table 1"
    ),
    # The paper's Table 2 (inferred: the rate of the neck that its rows imply is plausible only here).
    "plain": Convention(strict=False, pooled=False, head=("head-top",), whose="Table 2, inferred"),
    # And the scripts of bearpaw/PyraNet.
    "pytorch-pose": Convention(strict=True, pooled=False, head=("head-top",), whose="bearpaw/pytorch-pose"),
    "hrnet": Convention(
        strict=False, pooled=True, head=("head-top",), whose="leoxiaobin/deep-high-resolution-net.pytorch"
    ),
    "mmpose": Convention(strict=True, pooled=True, head=("head-top",), whose="open-mmlab/mmpose"),
}
CONVENTION = "plain"  # where nothing else is said


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan


def _mean(rates: Iterable[float]) -> float:
    """Mean of those that are not NaN; NaN if none is left."""
    known = [rate for rate in rates if not math.isnan(rate)]
    return fmean(known) if known else math.nan


@dataclass(frozen=True)
class Scores:
    """What PCK counted, at one threshold, and the rates that follow: percent, NaN where nothing counts.

    threshold: part of the reference length, 0 to 0.5. persons: scored; skipped: without a reference length.
    joints: names of the scored joints. One number for each of them: annotated, how often; at_most and below, how
    often predicted within the threshold, by <= and by <. pooled: one number for each of the 51 `THRESHOLDS`, the
    joints within it (<=), all of them together.
    """

    threshold: float
    persons: int
    skipped: int
    joints: tuple[str, ...]
    annotated: tuple[int, ...]
    at_most: tuple[int, ...]
    below: tuple[int, ...]
    pooled: tuple[int, ...]

    def rates(self, strict: bool = False) -> dict[str, float]:
        """Each joint's rate."""
        counts = zip(self.joints, self.below if strict else self.at_most, self.annotated, strict=True)
        return {joint: _percent(right, annotated) for joint, right, annotated in counts}

    def row(self, convention: str) -> dict[str, float]:
        """A table's row: "Head", the columns of `GROUPS`, "Mean".

        A column of several joints is the mean of their rates; a joint that is never annotated, or not scored,
        is left out of every mean. Raises UserError if `convention` is not a key of `CONVENTIONS`.
        """
        if convention not in CONVENTIONS:
            raise UserError(f"unknown PCKh convention {convention!r}: choose one of {', '.join(CONVENTIONS)}")
        rule = CONVENTIONS[convention]
        rates = self.rates(rule.strict)
        columns = {"Head": rule.head, **GROUPS}
        row = {column: _mean(rates.get(joint, math.nan) for joint in of) for column, of in columns.items()}
        right = self.below if rule.strict else self.at_most
        row["Mean"] = _percent(sum(right), sum(self.annotated)) if rule.pooled else _mean(rates.values())
        return row

    @property
    def curve(self) -> tuple[float, ...]:
        """Rate of all joints together (<=) at each of the 51 `THRESHOLDS`."""
        return tuple(_percent(right, sum(self.annotated)) for right in self.pooled)

    @property
    def auc(self) -> float:
        """Area under `curve` from 0 to 0.5 as the mean of its 51 values, percent."""
        return fmean(self.curve)

    @property
    def auc_integrated(self) -> float:
        """As `auc`, by trapezoids: the official toolkit's number."""
        return fmean((a + b) / 2 for a, b in zip(self.curve[:-1], self.curve[1:], strict=True))

    def as_dict(self) -> dict[str, Any]:
        """For run records: the counts, and the rates that follow. None for NaN and lists, as JSON has them."""
        rows = {convention: self.row(convention) for convention in CONVENTIONS}
        rates = {"rates": self.rates(), "rows": rows, "auc": self.auc, "auc_integrated": self.auc_integrated}
        record: dict[str, Any] = _plain({**asdict(self), **rates})
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Scores":
        """Inverse of `as_dict`; only the counts are read. Raises KeyError where one is lacking."""
        counts = ((name, record[name]) for name in cls.__dataclass_fields__)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in counts}
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def relative_errors(predicted: np.ndarray, truth: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each joint's distance as a part of the person's reference length, and whether it counts; both (N, J).

    predicted, truth: (N, J, 2) pixels; reference: (N,) pixels, above 0. A joint counts if it is annotated. The
    distance of one that was not found is NaN, which is within no threshold.
    """
    (x, y), (u, v) = np.moveaxis(truth, 2, 0), np.moveaxis(predicted, 2, 0)
    with np.errstate(invalid="ignore", over="ignore"):  # a prediction of inf is merely wrong
        ratio = np.sqrt((u - x) ** 2 + (v - y) ** 2) / reference[:, None]
    return ratio, ~(np.isnan(x) | np.isnan(y))


class PCK:
    """Counts joints within each of the `THRESHOLDS` of the reference length, update after update.

    Only whole numbers are kept, so the counts of batches and of devices add: `a + b`.

    annotated: (J,) how often each scored joint is annotated. at_most, below: (51, J) how often its distance is at
    most (<=), or below (<), threshold * reference. persons: scored; skipped: without a reference length.
    """

    def __init__(self, skeleton: Skeleton = MPII, joints: Sequence[int] | None = None) -> None:
        """joints: indices of the joints to score; by default the skeleton's `scored` ones (14 of MPII's).
        Joints that a model lacks are left out here: any scored joint without a prediction is wrong.
        """
        self.skeleton = skeleton
        self.joints = tuple(skeleton.scored if joints is None else joints)
        if len(set(self.joints)) < len(self.joints) or not set(self.joints) <= set(range(len(skeleton.joints))):
            last = len(skeleton.joints) - 1
            raise UserError(f"joints to score are {self.joints}: give different numbers from 0 to {last}")
        self.annotated = np.zeros(len(self.joints), np.int64)
        self.at_most = np.zeros((len(THRESHOLDS), len(self.joints)), np.int64)
        self.below = np.zeros_like(self.at_most)
        self.persons = 0
        self.skipped = 0

    def update(self, predicted: np.ndarray, truth: np.ndarray, reference: np.ndarray) -> None:
        """Count N persons.

        predicted, truth: (N, J, 2) pixels, all J joints of the skeleton. In truth NaN is a joint that is not
        annotated, which does not count; in predicted it is a joint that was not found, which is wrong.
        reference: (N,) pixels, head or torso size; a person where it is not a number above 0 is not scored.
        Raises UserError if the shapes are others.
        """
        predicted, truth, reference = (np.asarray(a, np.float64) for a in (predicted, truth, reference))
        shape = (reference.size, len(self.skeleton.joints), 2)
        if predicted.shape != shape or truth.shape != shape or reference.ndim != 1:
            raise UserError(
                f"PCK has predicted of shape {predicted.shape}, truth of {truth.shape} and reference of "
                f"{reference.shape}: give (N, {shape[1]}, 2), (N, {shape[1]}, 2) and (N,)"
            )
        scored = np.isfinite(reference) & (reference > 0)
        ratio, annotated = relative_errors(
            predicted[scored].take(self.joints, axis=1), truth[scored].take(self.joints, axis=1), reference[scored]
        )
        ratio, joint = ratio[annotated], np.nonzero(annotated)[1]
        first = np.searchsorted(THRESHOLDS, ratio)  # the first threshold >= ratio; 51 for NaN and for none
        is_at = np.append(THRESHOLDS, np.nan)[first] == ratio
        self.at_most += self._within(first, joint)
        self.below += self._within(first + is_at, joint)
        self.annotated += annotated.sum(axis=0)
        self.persons += int(scored.sum())
        self.skipped += int((~scored).sum())

    def _within(self, first: np.ndarray, joint: np.ndarray) -> np.ndarray:
        """(51, J) how many are within each threshold, from the first that each is within, 51 for none."""
        shape = (len(THRESHOLDS) + 1, len(self.joints))
        starts = np.bincount(first * shape[1] + joint, minlength=shape[0] * shape[1]).reshape(shape)
        return starts[:-1].cumsum(axis=0)

    def __add__(self, other: "PCK") -> "PCK":
        """The counts of both. Raises UserError unless both score the same joints."""
        if (self.skeleton, self.joints) != (other.skeleton, other.joints):
            raise UserError(f"PCK counts of joints {self.joints} and {other.joints} do not add: score the same")
        both = PCK(self.skeleton, self.joints)
        for name in ("annotated", "at_most", "below", "persons", "skipped"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def compute(self, threshold: float = 0.5) -> Scores:
        """Scores at one of the `THRESHOLDS`: 0.5 for PCKh, 0.2 for LSP's PCK. Raises UserError for others."""
        k = int(np.argmin(np.abs(np.subtract(THRESHOLDS, threshold))))
        if not math.isclose(THRESHOLDS[k], threshold, abs_tol=1e-9):
            raise UserError(f"PCK is not counted at threshold {threshold}: choose 0, 0.01, 0.02 and so on to 0.5")
        return Scores(
            threshold=THRESHOLDS[k],
            persons=self.persons,
            skipped=self.skipped,
            joints=tuple(self.skeleton.joints[j] for j in self.joints),
            annotated=tuple(self.annotated.tolist()),
            at_most=tuple(self.at_most[k].tolist()),
            below=tuple(self.below[k].tolist()),
            pooled=tuple(self.at_most.sum(axis=1).tolist()),
        )


def torso_size(truth: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(N,) pixels: each person's annotated distance from left shoulder to right hip, the length of `PCK@0.2`.

    truth: (N, J, 2) pixels; the sides are the person's own. NaN where one of the two joints is missing.
    """
    shoulder, hip = skeleton.index("l-shoulder", "r-hip")
    return np.linalg.norm(truth[:, shoulder] - truth[:, hip], axis=1)
