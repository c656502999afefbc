"""How far a mean PCKh, or a difference of two, can be trusted: variance over persons and over seeds.

Two things would come out otherwise if a run were made again: the validation persons, had others been photographed,
and the training, had it started from another seed. The first is measured by a bootstrap over persons, in which all
seeds and both rows keep the same persons (for measurements that leave parts of them out, by a jackknife); the second
by the spread of the seeds' own values. With so few seeds that spread is itself uncertain, so its part of the interval
takes Student's t with one degree of freedom less than there are seeds. The two parts add as squares. For independent
normal parts, each with its own t, such an interval covers at least as often as it promises (Banerjee, "Approximate
confidence interval for linear functions of means of k populations when the population variances are not equal",
Sankhya 22, 1960). Here it covers somewhat more, as what seeds do to single persons is in both parts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int8, Num
from scipy.special import ndtri, stdtrit

from scanet.errors import KINDS, RIGHT
from scanet.files import UserError
from scanet.results import Record, one_preset

RESAMPLES = 2000  # of the persons; the error of the resulting standard error is then 1.6 %
LEVEL = 0.05  # an interval misses at most so often
SHARED, WHOLE = 0.73, 0.03  # of `draw_hits`, chosen by the records of drawn people and of photographs


@dataclass(frozen=True)
class Estimate:
    """A value, and the standard errors that come from the choice of persons and of seeds; all in one unit.

    With one seed, seed_error is 0 and the interval knows nothing of seeds. person_error is NaN for what one seed
    measured without a sample of persons: there is no interval then.
    """

    value: float
    person_error: float
    seed_error: float
    seeds: int

    def half_width(self, level: float = LEVEL) -> float:
        """Half of the interval that misses in a part of `level` of all cases: both parts, added as squares."""
        t = stdtrit(self.seeds - 1, 1 - level / 2) if self.seeds > 1 else 0.0
        return float(np.hypot(ndtri(1 - level / 2) * self.person_error, t * self.seed_error))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        half = self.half_width(level)
        return self.value - half, self.value + half

    def run_half_width(self, level: float = LEVEL) -> float:
        """Half of the interval around the value that one further run a row would miss in a part of `level` of all
        cases, on the same persons: the paper's printed numbers are such runs. NaN with one seed.
        """
        if self.seeds < 2:
            return math.nan
        return float(stdtrit(self.seeds - 1, 1 - level / 2)) * self.seed_error * math.sqrt(self.seeds + 1)

    def __str__(self) -> str:
        low, high = self.interval()
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "one seed, persons alone"
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}], {seeds}".replace("-", "−")


def of_seeds(values: Sequence[float], without: Sequence[Sequence[float]] = ()) -> Estimate:
    """The estimate from one value of each seed. Raises ValueError if there is none.

    without: the same values with one of g equal groups of the persons left out, by which the persons' error is a
    jackknife (Shao and Tu, "The Jackknife and Bootstrap", 1995, section 2.3). Empty: the seeds' part alone.
    """
    if not len(values):
        raise ValueError("an estimate needs the value of at least one seed")
    seeds = len(values)
    error = float(np.std(values, ddof=1)) / seeds**0.5 if seeds > 1 else 0.0
    persons = 0.0 if seeds > 1 else np.nan
    if without:
        persons = float(np.std(np.mean(without, axis=1)) * (len(without) - 1) ** 0.5)
    return Estimate(float(np.mean(values)), persons, error, seeds)


@lru_cache(maxsize=2)
def resampling(persons: int, resamples: int) -> Float[np.ndarray, "b n"]:
    """How often each person is drawn in each resample, with replacement. The same numbers at each call."""
    drawn = np.random.default_rng(0).integers(persons, size=(resamples, persons))
    places = drawn + persons * np.arange(resamples)[:, None]
    return np.bincount(places.ravel(), minlength=resamples * persons).reshape(resamples, persons).astype(np.float32)


def plain_mean(
    weights: Num[np.ndarray, "b n"], values: Num[np.ndarray, "*r n j"], annotated: Bool[np.ndarray, "n j"]
) -> Float[np.ndarray, "*r b"]:
    """Mean over the joints of 100 * (weighted sum of values / weighted number of annotations): percent.

    values: 1 for a hit and 0 for a miss, or differences of such. A joint without annotation is left out.
    """
    counts = weights @ annotated.astype(weights.dtype)
    known = counts > 0
    rates = 100 * (weights @ values.astype(weights.dtype)) / np.where(known, counts, 1)  # 0 where not known
    return rates.sum(axis=-1) / known.sum(axis=-1)


def pckh(
    values: Num[np.ndarray, "s n j"], annotated: Bool[np.ndarray, "n j"], resamples: int = RESAMPLES
) -> Estimate:
    """The plain mean PCKh (percent) of hits, or of differences of hits, by several seeds on the same persons."""
    persons = values.shape[1]
    each = plain_mean(np.ones((1, persons)), values, annotated)[:, 0]
    resampled = plain_mean(resampling(persons, resamples), values.mean(axis=0), annotated)
    return replace(of_seeds(each.tolist()), person_error=float(resampled.std(ddof=1)))


def row_mean(records: Sequence[Record], tta: str = "flip", kind: str = RIGHT) -> Estimate:
    """The plain mean PCKh of one row, from its records of different seeds; or the rate of another of `errors.KINDS`.

    Raises UserError if they differ in more than the seed, or there is none.
    """
    hits, annotated = _of_kind([*_by_seed(records).values()], tta, kind)
    return pckh(hits, annotated)


def mean_rate(records: Sequence[Record], kind: str) -> float:
    """The value of `row_mean` by flip test alone, without the resampling that its errors need."""
    hits, annotated = _of_kind([*_by_seed(records).values()], "flip", kind)
    return float(plain_mean(np.ones((1, hits.shape[1])), hits, annotated).mean())


def row_difference(
    records: Sequence[Record], over: Sequence[Record], tta: str = "flip", kind: str = RIGHT
) -> Estimate | None:
    """The plain mean PCKh of one row less that of another, seed by seed; None if they have no seed in common.

    kind: another of `errors.KINDS`, for the difference of its rates.

    Raises UserError if a row's records differ in more than the seed, or if the rows have different presets or were
    scored on different persons.
    """
    ours, theirs = _by_seed(records), _by_seed(over)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    hits, annotated = _of_kind([row[seed] for row in (ours, theirs) for seed in seeds], tta, kind)
    return pckh(hits[: len(seeds)] - hits[len(seeds) :], annotated)


def _by_seed(records: Sequence[Record]) -> dict[int, Record]:
    """The records of one row by their seeds."""
    found: dict[int, Record] = {}
    for record in records:
        first, seed = records[0], record.settings["seed"]
        if seed in found:
            raise UserError(f"{found[seed].name} and {record.name} have the same seed: leave one of them out")
        shared = first.settings.keys() & record.settings.keys() - {"seed"}
        names = sorted(name for name in shared if first.settings[name] != record.settings[name])
        if names:
            raise UserError(f"{first.name} and {record.name} differ in {', '.join(names)}: give the runs of one row")
        found[seed] = record
    return found


def _of_kind(
    records: Sequence[Record], tta: str, kind: str
) -> tuple[Int8[np.ndarray, "r n j"], Bool[np.ndarray, "n j"]]:
    """Which joints are of one kind in each record, all of the same persons and of one preset; what is annotated."""
    one_preset(records)
    found = [record.kinds(tta) for record in records]
    annotated = found[0][1]
    for record, (_, other) in zip(records, found, strict=True):
        same = record.run["data"]["fingerprint"] == records[0].run["data"]["fingerprint"]
        if not same or not np.array_equal(other, annotated):
            raise UserError(
                f"{record.name} was scored on other persons ({len(other)}) than {records[0].name} "
                f"({len(annotated)}): delete the one that is not of the present data, and run it again"
            )
    return np.stack([(kinds == KINDS.index(kind)) & annotated for kinds, _ in found]).astype(np.int8), annotated


def holm(
    intervals: Mapping[str, Callable[[float], tuple[float, float]]], comparisons: int | None = None
) -> dict[str, float]:
    """Holm's correction: for each comparison the level of its own interval.

    All intervals at these levels together: that any of those whose true value is 0 excludes 0 happens in a part of
    at most `LEVEL` of all cases. Of m comparisons, those whose interval at LEVEL / m excludes 0 are done with that;
    the m' others are tried at LEVEL / m', and so on until none is added (Holm, "A simple sequentially rejective
    multiple test procedure", Scandinavian Journal of Statistics 6, 1979).

    intervals: for each comparison, the interval at a level. comparisons: how many were asked for, with those of which
    there is no interval: they count as not excluding 0. None: those of `intervals`.
    """
    levels: dict[str, float] = {}
    left = list(intervals)
    without = 0 if comparisons is None else comparisons - len(left)
    while left:
        share = LEVEL / (len(left) + without)
        bounds = {name: intervals[name](share) for name in left}
        done = [name for name, (low, high) in bounds.items() if low > 0 or high < 0]
        levels |= dict.fromkeys(done or left, share)
        left = [name for name in left if name not in levels]
    return levels


@dataclass(frozen=True)
class Coverage:
    """What intervals did on simulated differences whose true value is known.

    seed_spread: standard deviation of a run's mean PCKh from seed to seed, points. truth: the true difference,
    points. covered, positive, negative: parts of the repetitions in which the interval holds the truth, lies above
    0, lies below 0. length: mean length of the interval, points.
    """

    seed_spread: float
    truth: float
    repetitions: int
    covered: float
    positive: float
    negative: float
    length: float


def simulate(
    seed_spread: float,
    truth: float,
    *,
    repetitions: int,
    seeds: int = 3,
    persons: int = 2958,
    joints: int = 14,
    resamples: int = RESAMPLES,
    generator: np.random.Generator,
    level: float = LEVEL,
) -> Coverage:
    """Draw pairs of rows whose true difference is known, and count what their intervals of one level say."""
    value, half = np.empty(repetitions), np.empty(repetitions)
    for k in range(repetitions):
        shift = generator.normal(0, seed_spread, (2, seeds)) + np.array([[truth], [0]])
        hits, annotated = draw_hits(shift, persons, joints, generator)
        estimate = pckh(hits[0].astype(np.int8) - hits[1], annotated, resamples)
        value[k], half[k] = estimate.value, estimate.half_width(level)
    covered = np.abs(value - truth) <= half
    return Coverage(
        seed_spread=seed_spread,
        truth=truth,
        repetitions=repetitions,
        covered=float(covered.mean()),
        positive=float((value - half > 0).mean()),
        negative=float((value + half < 0).mean()),
        length=float(2 * half.mean()),
    )


def draw_hits(
    shift: Float[np.ndarray, "r s"], persons: int, joints: int, generator: np.random.Generator
) -> tuple[Bool[np.ndarray, "r s n j"], Bool[np.ndarray, "n j"]]:
    """Hits of r rows with s seeds, and what is annotated. shift: of each run's mean, points.

    Every hit has the probability of its joint (80 to 95 %) plus the shift, exactly. What decides a joint is the same
    for all runs in `SHARED` of the cases and drawn anew by each run in the others, and for `WHOLE` of the persons all
    the joints go together. So two runs agree as often as two of this repository's, whose agreement hardly depends on
    whether they are of one row, and the persons' error is like theirs.
    """
    chance = np.linspace(0.80, 0.95, joints, dtype=np.float32)
    annotated = generator.random((persons, joints)) < 0.95
    luck = generator.random((*shift.shape, persons, joints), np.float32)
    luck = np.where(generator.random((persons, joints)) < SHARED, luck[:1, :1], luck)
    whole = generator.random(persons) < WHOLE
    luck[:, :, whole] = luck[:, :, whole, :1]
    return (luck < chance + shift[..., None, None].astype(np.float32) / 100) & annotated, annotated
