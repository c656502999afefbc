"""The paper as data, intervals, and verdicts: by hand, by slow references and on simulated results."""

import dataclasses
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import ndtri

from scanet import results
from scanet.config import EPHEMERAL, ROWS, resolve
from scanet.files import UserError, write_json
from scanet.pckh import PCK
from scanet.report import claims, figures, statistics, tables
from scanet.report.claims import Claim, Held
from scanet.report.statistics import Estimate, holm, of_seeds, pckh
from scanet.results import Record
from scanet.skeleton import MPII

ROOT = Path(__file__).parents[1]
PERSONS, JOINTS = 60, 14


# The paper as data


def test_table1_fits_a_mean_over_all_joints_and_not_a_plain_one() -> None:
    """Weights of the columns, near a seventh each, give every printed mean to within rounding; equal ones do not."""
    printed = np.array(list(tables.paper()["table1"]["rows"].values()))
    assert printed.shape == (10, 8)
    columns, mean = printed[:, :7], printed[:, 7]
    one = np.ones((10, 1))
    best = linprog(  # the weights whose largest error is smallest
        [0] * 7 + [1],
        A_ub=np.block([[columns, -one], [-columns, -one]]),
        b_ub=[*mean, *-mean],
        A_eq=[[1] * 7 + [0]],
        b_eq=[1],
        bounds=[(0.12, 0.17)] * 7 + [(0, None)],
    )
    assert best.fun < 0.1  # half a last digit of the mean, and of the columns
    assert (mean - columns.mean(axis=1)).min() > 0.25


def test_table2_fits_a_plain_mean_and_the_differences_of_the_text() -> None:
    rows = {name: tables.paper_row(name) for name in tables.paper()["table2"]["rows"]}
    assert [len(row) for row in rows.values()] == [8] * 7
    others = ("Sho.", "Elb.", "Wri.", "Hip", "Knee", "Ank.")
    neck = [14 * row["Mean"] - row["Head"] - 2 * sum(row[name] for name in others) for row in rows.values()]
    assert (round(min(neck), 2), round(max(neck), 2)) == (97.84, 98.15)
    mean = {name: row["Mean"] for name, row in rows.items()} | tables.paper()["means"]
    stated = [claim for claim in claims.claims() if claim.kind in ("difference", "mean") and claim.value is not None]
    assert len(stated) == 21
    for claim in stated:
        row, over = claim.measure["row"], claim.measure.get("over")
        assert claim.value == pytest.approx(mean[row] - (mean[over] if over else 0)), claim.id
    assert {0.3, 0.27, 0.25, 0.35} <= {claim.value for claim in stated}


def test_every_claim_is_complete_and_named_once() -> None:
    stated = claims.claims()
    assert len({claim.id for claim in stated}) == len(stated)
    assert all(claim.low < claim.high for claim in stated)
    with pytest.raises(UserError, match="claim 'x' lacks place: give id, statement, place and one of the kinds"):
        Claim.read({"id": "x", "statement": "", "kind": "mean"})
    whole = {"id": "x", "statement": "Soft attention", "kind": "mean", "place": "§1", "row": "soft"}
    with pytest.raises(UserError, match="claim 'x' has the unknown applied directly: leave it out"):
        Claim.read(whole | {"applied directly": None})
    with pytest.raises(UserError, match="claim 'x': choose the error from right, mirrored"):
        Claim.read(whole | {"error": "left"})
    for wrong in ({"row": "SSSA"}, {"over": "SSSA"}, {"plus": [{"module": "SSSA"}]}):
        with pytest.raises(UserError, match="claim 'x' names the unknown row SSSA: choose from Baseline, "):
            Claim.read({"id": "x", "statement": "s", "place": "p", "kind": "difference", **wrong})
    with pytest.raises(UserError, match="claim 'x' lacks a kind"):
        Claim.read({"id": "x", "statement": "", "place": "", "kind": "guess"})


# Intervals


def test_plain_mean_by_hand() -> None:
    annotated = np.array([[1, 1, 0], [1, 0, 0]], bool)  # the third joint never: it is left out
    hits = np.array([[1, 0, 0], [1, 0, 0]])
    weights = np.array([[1, 1], [0, 2], [3, 0]])
    assert statistics.plain_mean(weights, hits, annotated).tolist() == [50, 100, 50]


def test_half_width_by_hand() -> None:
    three = Estimate(1.0, 0.3, 0.1, seeds=3)
    assert three.half_width() == pytest.approx(math.hypot(1.959964 * 0.3, 4.302653 * 0.1), rel=1e-6)
    assert Estimate(1.0, 0.3, 0.0, seeds=1).interval() == pytest.approx((1 - 0.587989, 1 + 0.587989), rel=1e-5)
    of = statistics.of_seeds([1.0, 2.0, 3.0])
    assert (of.value, of.person_error, of.seeds) == (2, 0, 3)
    assert of.half_width() == pytest.approx(4.302653 / math.sqrt(3))
    assert math.isnan(statistics.of_seeds([1.0]).half_width())
    with pytest.raises(ValueError, match="at least one seed"):
        statistics.of_seeds([])


def test_leaving_out_each_person_of_a_mean_gives_its_standard_error() -> None:
    """Closed form: the jackknife of a mean is the standard deviation over the root of their number."""
    persons = np.random.default_rng(0).normal(size=(12, 3))  # what each adds to the mean of each of three seeds
    without = (persons.sum(axis=0) - persons) / 11
    of = statistics.of_seeds(persons.mean(axis=0).tolist(), without.tolist())
    assert of.person_error == pytest.approx(persons.mean(axis=1).std(ddof=1) / 12**0.5)
    assert of.seed_error == statistics.of_seeds(persons.mean(axis=0).tolist()).seed_error
    alone = statistics.of_seeds([1.0], [[0.5], [1.5]])
    assert alone.half_width() == pytest.approx(1.96 * 0.5, rel=1e-4)


def drawn(seed: int, seeds: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits of two rows on the same persons, and what is annotated."""
    generator = np.random.default_rng(seed)
    annotated = generator.random((PERSONS, JOINTS)) < 0.9
    easy = generator.random((PERSONS, JOINTS)) < 0.7
    first, second = (easy ^ (generator.random((2, seeds, PERSONS, JOINTS)) < 0.2)) & annotated
    return first.astype(np.int8), second.astype(np.int8), annotated


def test_pckh_agrees_with_a_slow_bootstrap() -> None:
    first, second, annotated = drawn(0)
    estimate = pckh(first - second, annotated, resamples=4000)
    generator, values = np.random.default_rng(1), []
    for _ in range(3000):
        chosen = generator.integers(PERSONS, size=PERSONS)
        rates = [
            100 * (row[:, chosen, j].mean(axis=0).sum() / annotated[chosen, j].sum())
            for row in (first, second)
            for j in range(JOINTS)
        ]
        values.append(np.mean(rates[:JOINTS]) - np.mean(rates[JOINTS:]))
    assert estimate.person_error == pytest.approx(np.std(values, ddof=1), rel=0.06)
    each = [
        np.mean([100 * (a[:, j].sum() - b[:, j].sum()) / annotated[:, j].sum() for j in range(JOINTS)])
        for a, b in zip(first, second, strict=True)
    ]
    assert estimate.value == pytest.approx(np.mean(each))
    assert estimate.seed_error == pytest.approx(np.std(each, ddof=1) / math.sqrt(3))


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_properties_of_a_difference(seed: int, seeds: int) -> None:
    first, second, annotated = drawn(seed, seeds)
    estimate = pckh(first - second, annotated)
    swapped = pckh(second - first, annotated)
    assert swapped.value == pytest.approx(-estimate.value)
    assert swapped.half_width() == pytest.approx(estimate.half_width())
    # Seeds in another order, or persons: the same value, and the same interval but for the bootstrap's own draw.
    order = np.random.default_rng(seed).permutation(PERSONS)
    moved = pckh((first - second)[::-1, order], annotated[order])
    assert moved.value == pytest.approx(estimate.value)
    assert moved.seed_error == pytest.approx(estimate.seed_error)
    assert moved.person_error == pytest.approx(estimate.person_error, rel=0.15)
    # One seed's metric is another: so are the value and, with several seeds, the interval's length.
    edited = (first - second).copy()
    edited[0] = -1 * annotated
    changed = pckh(edited, annotated)
    assert changed.value < estimate.value
    assert changed.seed_error > estimate.seed_error or seeds == 1
    # With more agreement an interval is never longer, and the persons' part is its least.
    assert estimate.half_width() >= 1.9599 * estimate.person_error


def test_wrong_persons_and_presets_are_refused(make: Callable[..., Record]) -> None:
    ours, other = make("SSA", 0), make("MSFI", 0, fingerprint="other")
    with pytest.raises(UserError, match=r"MSFI-s0 was scored on other persons \(\d+\) than quick/ablation/SSA-s0 \("):
        statistics.row_difference([ours], [other])
    with pytest.raises(UserError, match=r"presets \['lspet', 'quick'\]"):
        statistics.row_difference([ours], [make("MSFI", 0, preset="lspet")])
    assert statistics.row_difference([ours], [make("MSFI", 1)]) is None


@pytest.mark.parametrize(("seed_spread", "repetitions"), [(0, 150), (0.3, 900), (1.0, 900)])
def test_coverage_with_three_seeds_and_mpiis_persons(seed_spread: float, repetitions: int) -> None:
    """95 % of the intervals hold the true difference, and where there is none 5 % exclude 0, or fewer.

    Of the former to 1.5 points: one standard error of the 150 repetitions, two of the 900.
    """
    generator = np.random.default_rng(0)
    known, null = (
        statistics.simulate(seed_spread, truth, repetitions=repetitions, resamples=200, generator=generator)
        for truth in (0.3, 0.0)
    )
    assert known.covered >= 0.935
    assert null.covered >= 0.935
    assert null.positive + null.negative <= 0.05
    assert known.length == pytest.approx(null.length, rel=0.1)


def _disagreement(one: np.ndarray, other: np.ndarray, annotated: np.ndarray) -> float:
    """Of two runs' hits (n, j), relative to that of independent ones of the same rates."""
    a, b = one[annotated].mean(), other[annotated].mean()
    return float((one != other)[annotated].mean() / (a + b - 2 * a * b))


def test_simulated_runs_agree_as_often_as_those_of_the_records() -> None:
    """Any two runs, and hardly more often two of one row; and the persons' error of a difference is like theirs."""
    found: dict[bool, list[float]] = {True: [], False: []}
    errors = []
    for preset in ("synthetic", "lspet-small"):
        rows = ("Baseline", "MSFI", "BDMP", "SACWA")
        records = [record for record in results.records(preset) if record.settings["module"] in rows]
        hits, annotated = statistics._of_kind(records, "flip", statistics.RIGHT)
        rate = hits[:, annotated].mean()
        # What a percentage point is worth in standard errors of a hit, on so many persons.
        unit = 100 * np.sqrt(rate * (1 - rate) / annotated.any(axis=1).sum())
        for i, j in combinations(range(len(records)), 2):
            same = records[i].settings["module"] == records[j].settings["module"]
            found[same].append(_disagreement(hits[i], hits[j], annotated))
            if not same:
                errors.append(pckh((hits[i] - hits[j])[None], annotated, 200).person_error / unit)
    drawn, annotated = statistics.draw_hits(np.zeros((2, 2)), 2958, JOINTS, np.random.default_rng(0))
    rate = drawn[..., annotated].mean()
    unit = 100 * np.sqrt(rate * (1 - rate) / 2958)
    error = pckh(drawn[0, :1].astype(np.int8) - drawn[1, :1], annotated, 200).person_error / unit
    for one, other in (((0, 0), (0, 1)), ((0, 0), (1, 0))):
        assert _disagreement(drawn[one], drawn[other], annotated) == pytest.approx(np.mean(found[False]), rel=0.1)
    assert np.mean(found[False]) == pytest.approx(np.mean(found[True]), rel=0.1)
    assert error == pytest.approx(np.mean(errors), rel=0.15)


def test_simulated_rows_have_the_known_difference() -> None:
    known = statistics.simulate(0, 40, repetitions=20, persons=300, resamples=50, generator=np.random.default_rng(0))
    assert known.positive == 1  # 40 points are hard to miss
    assert known.length < 6


def test_holm_by_hand() -> None:
    """Of p = 0.016, 0.04, 0.03 and 0.001: 0.001 < 0.05/4, then 0.016 < 0.05/3, then 0.03 > 0.05/2 ends it."""

    def interval(p: float) -> Callable[[float], tuple[float, float]]:
        z = -ndtri(p / 2)
        return lambda level: (z + ndtri(level / 2), z - ndtri(level / 2))

    levels = holm({name: interval(p) for name, p in {"a": 0.016, "b": 0.04, "c": 0.03, "d": 0.001}.items()})
    assert levels == pytest.approx({"d": 0.05 / 4, "a": 0.05 / 3, "b": 0.05 / 2, "c": 0.05 / 2})
    assert holm({}) == {}
    # Two that nobody has measured: they count as not excluding 0.
    few = holm({"d": interval(0.001), "b": interval(0.04)}, comparisons=4)
    assert few == pytest.approx({"d": 0.05 / 4, "b": 0.05 / 3})


# Verdicts


def claim(low: float = 0, high: float = math.inf, value: float | None = None, kind: str = "difference") -> Claim:
    return Claim("", "x", "", "", kind, value, low, high, {})


@pytest.mark.parametrize(
    ("of", "interval", "seeds", "expected"),
    [
        (claim(value=0.3), (0.1, 0.9), 3, "reproduced"),
        (claim(value=0.3), (2.0, 4.0), 3, "reproduced"),  # larger than the paper's, in its direction
        (claim(value=0.3), (-0.1, 0.9), 3, "inconclusive"),
        (claim(value=0.3), (-0.9, -0.1), 3, "not reproduced"),  # excludes the sign
        (claim(), (-0.9, 0.2), 3, "inconclusive"),  # there is no value to exclude
        (claim(), (0.0, 0.2), 3, "inconclusive"),  # does not exclude 0
        (claim(value=0.3), (0.1, 0.9), 1, "inconclusive"),  # one seed
        (claim(), (math.nan, math.nan), 3, "inconclusive"),
        (claim(-math.inf, 0), (-2, -1), 3, "reproduced"),
        (claim(10, 100), (12, 80), 3, "reproduced"),
        (claim(87.6, 88.6, 88.1, "mean"), (87.7, 88.0), 3, "reproduced"),
        (claim(87.6, 88.6, 88.1, "mean"), (87.5, 88.0), 3, "inconclusive"),
        (claim(87.6, 88.6, 88.1, "mean"), (87.0, 87.5), 3, "not reproduced"),
        (replace(claim(10, 100), because="by definition"), (12, 80), 3, "by construction"),
        (replace(claim(10, 100), because="by definition"), (2, 80), 3, "by construction"),  # the value lies in it
        (replace(claim(10, 100), because="by definition"), (2, 12), 3, "inconclusive"),
        (
            replace(claim(10, 100), because="by definition"),
            (2, 8),
            3,
            "not reproduced",
        ),  # a mistake of ours
        (claim(10, 100), (2, 80), 3, "inconclusive"),
        (claim(10, 100), (2, 8), 3, "not reproduced"),
        (claim(15.5, 15.7, 15.6, "parameters"), (15.58, 15.58), 0, "reproduced"),
        (claim(15.5, 15.7, 15.6, "parameters"), (16.0, 16.0), 0, "not reproduced"),
    ],
)
def test_the_rule(of: Claim, interval: tuple[float, float], seeds: int, expected: str) -> None:
    assert claims.verdict(of, sum(interval) / 2, *interval, seeds) == expected


def test_a_printed_difference_is_of_one_run_a_row() -> None:
    """It counts against the claim where one more run of ours would hardly show so large a one."""
    of = claim(value=0.3)
    assert claims.verdict(of, -0.35, -0.9, 0.2, 3, one_run=0.25) == "not reproduced"  # holds 0
    assert claims.verdict(of, -0.35, -0.9, 0.2, 3, one_run=0.35) == "inconclusive"
    assert claims.verdict(of, 0.15, 0.1, 0.2, 3, one_run=0.25) == "inconclusive"  # its sign, and less of it
    assert claims.verdict(of, 0.15, 0.1, 0.2, 3, one_run=0.35) == "reproduced"


def test_one_further_run_is_held_as_often_as_promised() -> None:
    drawn = np.random.default_rng(0).normal(2, 3, (4000, 5))
    held = 0
    for *values, further in drawn:
        estimate = of_seeds(values)
        held += abs(further - estimate.value) <= estimate.run_half_width(0.1)
    assert held / len(drawn) == pytest.approx(0.9, abs=0.015)
    assert math.isnan(of_seeds([1.0]).run_half_width())


def test_what_is_so_by_construction_needs_no_seeds() -> None:
    of = replace(claim(10, 100), because="by definition")
    assert claims.verdict(of, 40, math.nan, math.nan, seeds=1) == "by construction"
    assert claims.verdict(of, 4, math.nan, math.nan, seeds=1) == "inconclusive"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Record]:
    """Writes the record of a run of 60 persons, a given number of which have every joint right."""

    def record(
        module: str,
        seed: int,
        right: int = 40,
        preset: str = "quick",
        fingerprint: str = "data",
    ) -> Record:
        folder = tmp_path / "experiments" / "results" / preset / "ablation" / f"{module}-s{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        truth = np.random.default_rng(0).uniform(0, 100, (PERSONS, 16, 2)).astype(np.float32)
        joints = truth + np.where(np.arange(PERSONS) < right, 1, 50)[:, None, None].astype(np.float32)
        size = np.full(PERSONS, 10, np.float32)
        metric = PCK(MPII)
        metric.update(joints, truth, size)
        scores = metric.compute().as_dict()
        run = {
            "settings": {"module": module, "seed": seed, "preset": preset, "epochs": resolve(preset=preset).epochs},
            "overrides": {},
            "key": "key",
            "recipe": ROWS[module].recipe,
            "network": {"joints": 16},
            "data": {"fingerprint": fingerprint},
            "metrics": {"none": scores, "flip": scores},
        }
        write_json(folder / "run.json", run)
        with h5py.File(folder / "predictions.h5", "w") as file:
            for name, values in {"joints": joints, "truth": truth, "head_size": size}.items():
                file.create_dataset(name, data=values)
        return Record(folder, run)

    return record


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder whose book has a report of the preset quick: two rows, two seeds."""
    monkeypatch.setenv("SCANET_HOME", str(tmp_path))
    (tmp_path / "experiments").mkdir(exist_ok=True)
    shutil.copy(ROOT / "experiments" / "paper.yaml", tmp_path / "experiments")
    listed = "quick: {ablation: {MSFI: [0, 1], SSA: [0, 1]}}\nlspet: {ablation: {SSA: [0]}}\n"
    (tmp_path / "experiments" / "report.yaml").write_text(listed, encoding="utf-8")
    page = tmp_path / "book" / "runs" / "quick" / "table2.ipynb"
    page.parent.mkdir(parents=True)
    page.write_text("{}", encoding="utf-8")
    return tmp_path


def ledger() -> pd.DataFrame:
    """Of the claims that runs can answer."""
    asked = [claim for claim in claims.claims() if claim.kind in ("difference", "measurement")]
    return claims.ledger(asked, claims.held())


def line(name: str) -> pd.Series:
    found = ledger()
    return found[found["id"] == name].squeeze()


def test_hits_are_those_of_the_metric(make: Callable[..., Record]) -> None:
    record = make("SSA", 0, right=45)
    kinds, annotated = record.kinds()
    assert kinds.shape == annotated.shape == (PERSONS, 14)
    assert (kinds == 0).mean() == 0.75
    estimate = statistics.row_mean([record])
    assert estimate.value == pytest.approx(record.scores().row("plain")["Mean"]) == 75


def test_a_hit_is_at_half_a_head_at_most(make: Callable[..., Record]) -> None:
    record = make("SSA", 0, right=0)
    truth = np.random.default_rng(0).integers(0, 100, (PERSONS, 16, 2)).astype(np.float32)
    away = np.where(np.arange(PERSONS) < 20, 5, 5.5).astype(np.float32)  # heads are of 10
    with h5py.File(record.folder / "predictions.h5", "a") as file:
        file["truth"][...] = truth
        file["joints"][...] = truth + np.stack([away, 0 * away], axis=1)[:, None]
    metric = PCK(MPII)
    metric.update(truth + np.stack([away, 0 * away], axis=1)[:, None], truth, np.full(PERSONS, 10.0))
    kinds, _ = record.kinds()
    assert (kinds == 0).sum(axis=0).tolist() == list(metric.compute().at_most) == [20] * 14


def test_a_deleted_record_is_missing_and_an_edited_one_moves_the_interval(
    book: Path, make: Callable[..., Record]
) -> None:
    for seed in (0, 1):
        make("MSFI", seed, right=40 + seed)
        make("SSA", seed, right=52 + seed)
    found = line("ssa-msfi")
    assert (found["preset"], found["seeds"], found["verdict"]) == ("quick", 2, "reproduced")
    assert found["value"] == pytest.approx(20)
    assert found["runs"] == [f"quick/ablation/{run}" for run in ("SSA-s0", "SSA-s1", "MSFI-s0", "MSFI-s1")]
    rates = tables.error_kinds(results.records("quick"))["elsewhere"]
    fewer = line("elsewhere-ssa")  # of the 20 points; the other joints lie on another one, by chance
    assert fewer["value"] == pytest.approx(rates["MSFI+SSA"] - rates["MSFI"])
    assert -20 < fewer["value"] < -10
    claims.check(ledger(), claims.held())

    make("SSA", 1, right=42)  # one seed that is much worse
    edited = line("ssa-msfi")
    assert edited["high"] - edited["low"] > 2 * (found["high"] - found["low"])
    assert edited["verdict"] == "inconclusive"

    shutil.rmtree(book / "experiments/results/quick/ablation/SSA-s1")
    gone = line("ssa-msfi")
    assert (gone["verdict"], gone["runs"]) == ("missing", ["quick/ablation/SSA-s1"])
    assert math.isnan(gone["value"])
    assert line("bdmp-msfi")["verdict"] == "not measured"  # nobody owes it
    with pytest.raises(UserError, match=r"the report lacks quick/ablation/SSA-s1, which makes 7 verdicts “missing”"):
        claims.check(ledger(), claims.held())


@pytest.mark.usefixtures("book")
def test_differences_under_one_topic_share_its_error_rate(make: Callable[..., Record]) -> None:
    """With all that the topic states, trained or not; another topic has its own."""
    for seed in (0, 1):
        for module, right in (("MSFI", 40), ("SSA", 52), ("BDMP", 44 + 4 * seed), ("soft", 40 + seed)):
            make(module, seed, right)
    found = ledger().set_index("id")
    stated = sum(claim.topic == claims.TABLE2 and claim.kind == "difference" for claim in claims.claims())
    assert found["verdict"]["ssa-msfi"] == "reproduced"
    assert found["level"]["ssa-msfi"] == pytest.approx(0.05 / stated)
    assert found["level"]["bdmp-msfi"] == pytest.approx(0.05 / (stated - 1))  # the first is done with
    half = (found["high"] - found["low"])["ssa-msfi"] / 2
    own, open_one = (
        statistics.row_difference(
            *([r for r in claims.held()["quick"].records if r.settings["module"] == m] for m in (row, "MSFI"))
        )
        for row in ("SSA", "BDMP")
    )
    assert half == pytest.approx(own.half_width(0.05 / stated))
    assert half > 1.4 * own.half_width()
    # No difference of two rates is larger than 100.
    assert open_one.half_width(0.05 / (stated - 1)) > 100
    assert (found["low"]["bdmp-msfi"], found["high"]["bdmp-msfi"]) == (-100, 100)
    assert found["level"]["ssa-soft"] == pytest.approx(0.05 / 2)


@pytest.mark.usefixtures("book")
def test_a_listed_row_is_judged_by_the_listed_seeds(make: Callable[..., Record]) -> None:
    for seed in (0, 1, 2):
        for module in ("MSFI", "SSA", "BDMP"):
            make(module, seed, right=40)
    assert line("ssa-msfi")["seeds"] == 2
    assert line("bdmp-msfi")["runs"] == [f"quick/ablation/{m}-s{s}" for m in ("BDMP", "MSFI") for s in (0, 1)]
    assert [r.name for r in claims.held()["quick"].records if r.settings["module"] == "BDMP"][-1].endswith("BDMP-s2")


def test_the_front_page_stops_at_a_deleted_record(book: Path, make: Callable[..., Record]) -> None:
    """Its cells, run as the book's build runs them."""
    text = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    cells = re.findall(r"^```\{code-cell\}.*?\n(?:---\n.*?^---\n|:tags:[^\n]*\n)(.*?)^```", text, re.M | re.S)
    assert len(cells) == 9
    page = "\n".join(cells)
    for module in ("MSFI", "SSA"):
        for seed in (0, 1):
            make(module, seed)
    exec(page, {})
    shutil.rmtree(book / "experiments/results/quick/ablation/MSFI-s1")
    with pytest.raises(UserError, match="the report lacks quick/ablation/MSFI-s1"):
        exec(page, {})
    plt.close("all")


def test_the_front_page_says_whether_there_are_runs_on_mpii() -> None:
    sentence = tables.scope(["quick", "synthetic", "lspet-small"])
    assert "on MPII.** Its runs are on drawn people (`quick`, `synthetic`) and on photographs of" in sentence
    assert sentence.endswith("(`lspet-small`): no number of the paper's tables is tested.")
    assert tables.scope(["quick", "paper"]) == ""


def test_a_preset_without_a_page_owes_nothing(book: Path, make: Callable[..., Record]) -> None:
    (book / "book/runs/quick/table2.ipynb").unlink()
    make("SSA", 0)
    assert claims.held() == {}
    claims.check(ledger(), {})


def test_one_seed_decides_nothing(make: Callable[..., Record], book: Path) -> None:
    (book / "experiments/report.yaml").write_text("quick: {ablation: {MSFI: [0], SSA: [0]}}", encoding="utf-8")
    make("MSFI", 0, right=20)
    make("SSA", 0, right=50)
    found = line("ssa-msfi")
    assert found["low"] > 20
    assert found["verdict"] == "inconclusive"


def measure(book: Path, experiment: str, seed: int, table: pd.DataFrame, module: str = "SSA") -> None:
    run = {"experiment": experiment, "preset": "quick", "module": module, "seed": seed, "overrides": {}}
    run |= {"settings": {}, "data": "d", "version": 1, "sources": {}, "key": "key"}
    folder = book / "experiments/results/quick" / experiment / f"{module}-s{seed}"
    results.write_measurement(folder, run, table)


def test_measurements_are_read_by_their_cells(book: Path) -> None:
    for seed, factor in enumerate((20.0, 30.0, 45.0)):
        norms = pd.DataFrame(
            [
                {
                    "training": training,
                    "epoch": epoch,
                    "stack": stack,
                    "module": module,
                    "noise": module == "SSA",
                    "norm": norm * (1 + stack) * (10 if (training, module) == ("short", "SSA") else 1),
                }
                for training, epoch in (*(("short", n) for n in range(5)), ("finished", 5))
                for stack in (0, 1)
                for module, norm in (("SSA", factor), ("soft", 1.0), ("MSFI", 0.5))
            ]
        )  # fmt: skip
        measure(book, "gradients", seed, norms)
    found = line("gradient-ratio")
    assert found["value"] == pytest.approx(30)  # the geometric mean
    half = 4.302653 * math.log(1.5) / math.sqrt(3)
    assert (found["low"], found["high"]) == pytest.approx((30 * math.exp(-half), 30 * math.exp(half)))
    assert found["verdict"] == "reproduced"
    assert found["runs"] == [f"quick/gradients/SSA-s{seed}" for seed in range(3)]
    assert line("gradient-ratio-early")["value"] == pytest.approx(300)
    with_one_lacking = norms[norms["epoch"] != 3]
    measure(book, "gradients", 2, with_one_lacking)
    assert (line("gradient-ratio-early")["seeds"], line("gradient-ratio")["seeds"]) == (2, 3)
    opposite = line("gradient-soft")
    assert opposite["value"] == pytest.approx(2)
    assert opposite["verdict"] == "not reproduced"


def test_temperature_and_stress_claims(book: Path) -> None:
    sweep = [
        {"trained_tau": trained, "tau": tau, "noise": noise, "stack": 0, "pckh": 70 - 5 * (trained < 1),
         "sharpness": 1 / (1 + tau), "irregularity": 1 / (1 + tau), "roughness": 1 / (1 + tau),
         "contrast": 0.8 + 0.1 * noise, "at_joints": 0.4 + 0.2 * noise, "background": 0.5 - 0.2 * noise}
        for trained in (0.1, 0.25, 0.5, 1.0)
        for tau in (0.01, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 100.0)
        for noise in (True, False)
    ]  # fmt: skip
    stress = [
        {"axis": axis, "value": value, "module": module, "pckh": 80 - loss * away, "persons": 9}
        for axis in ("part_scale", "clutter")
        for value in (0.0, 0.5, 1.0)
        for away in [value if axis == "clutter" else abs(2 * value - 1)]  # part scale is lost to both ends
        for module, loss in (("Baseline", 20), ("MSFI", 15), ("SSA", 16), ("BDMP", 15))
    ]
    for seed in (0, 1):
        shift = 0.001 * seed
        table = pd.DataFrame(sweep)
        table[["sharpness", "irregularity", "roughness", "pckh"]] += shift * (table[["tau"]].to_numpy() < 1)
        measure(book, "temperature", seed, table)
        measure(book, "stress", seed, pd.DataFrame(stress).assign(pckh=lambda f, k=seed: f["pckh"] + k * f["value"]))
    assert line("tau-small-sharper")["verdict"] == "by construction"
    assert line("tau-uniform")["verdict"] == "by construction"
    assert line("tau-one-hot")["verdict"] == "by construction"
    assert line("tau-large-irregular")["verdict"] == "not reproduced"
    smoother = line("tau-larger-smoother")
    assert (smoother["value"], smoother["verdict"]) == (pytest.approx(1 / 4 - 1 / 2), "by construction")
    assert line("tau-larger-irregular")["verdict"] == "not reproduced"
    assert line("sharper-sampled")["value"] == pytest.approx(0.1)
    assert (line("region")["value"], line("background")["value"]) == pytest.approx((0.6, 0.3))
    assert line("tau-below-one")["value"] == pytest.approx(-5, abs=0.01)
    assert line("scale-msfi")["value"] == pytest.approx(5)
    assert line("clutter-ssa")["value"] == pytest.approx(-1)
    assert line("scale-sacwa")["verdict"] == "not measured"  # no line of SACWA
    wrong = {"columns": ["pckh"], "plus": [{"taus": 1}]}
    with pytest.raises(UserError, match="no column 'taus' is measured: choose from trained_tau, tau"):
        claims.measured(wrong, pd.DataFrame(sweep).assign(seed=0, run=""))
    older = {"columns": ["pckh", "-norm"], "plus": [{"tau": 1}]}
    with pytest.raises(UserError, match=r"^a run has no column 'norm': delete its folder and measure it again$"):
        claims.measured(older, pd.DataFrame(sweep).assign(seed=0, run="a run"))


def test_a_cell_is_of_one_run() -> None:
    lines = pd.DataFrame(
        {"seed": 0, "run": ["x/SSA-s0", "x/SCA-s0"], "module": ["SSA", "SCA"], "tau": 1, "x": [2.0, 4.0]}
    )
    with pytest.raises(UserError, match=r"one cell has lines of x/SCA-s0 and x/SSA-s0: name its module"):
        claims.measured({"columns": ["x"], "plus": [{"tau": 1}]}, lines)
    estimate, runs = claims.measured({"columns": ["x"], "plus": [{"module": "SSA", "tau": 1}]}, lines)
    assert estimate is not None
    assert (estimate.value, runs) == (2, ["x/SSA-s0"])


def test_of_lines_by_stack_the_last_stack_counts() -> None:
    lines = pd.DataFrame(
        {"seed": 0, "run": "r", "stack": [1, 2, 1, 2], "module": ["a", "a", "b", "b"], "x": [9, 2, 9, 5]}
    )
    measure = {"columns": ["x"], "plus": [{"module": "b"}], "minus": [{"module": "a"}]}
    estimate, _ = claims.measured(measure, lines.assign(seed=0, run="r"))
    assert estimate is not None
    assert estimate.value == 3


def test_columns_without_parts_of_the_persons_bring_the_choice_of_persons_in() -> None:
    columns = {"seed": 0, "run": "r", "module": ["a", "b"], "x": [1.0, 5.0]}
    parts = {"x without 0": [1.0, 4.0], "x without 1": [1.0, 6.0]}
    measure = {"columns": ["x"], "plus": [{"module": "b"}], "minus": [{"module": "a"}]}
    estimate, _ = claims.measured(measure, pd.DataFrame(columns | parts))
    assert estimate is not None
    assert (estimate.value, estimate.person_error) == (4, 1)
    estimate, _ = claims.measured(measure, pd.DataFrame(columns))
    assert estimate is not None
    assert math.isnan(estimate.person_error)


def test_a_column_after_a_minus_sign_is_taken_off() -> None:
    columns = {"seed": 0, "run": "r", "module": ["a", "a", "b"], "x": [1.0, 3.0, 7.0], "y": [0.5, 0.5, 4.0]}
    measure = {"columns": ["x", "-y"], "plus": [{"module": "b"}], "minus": [{"module": "a"}]}
    estimate, _ = claims.measured(measure, pd.DataFrame(columns))
    assert estimate is not None
    assert estimate.value == pytest.approx((7 - 4) - (2 - 0.5))


def test_a_measurement_that_the_report_owes_is_missing(book: Path) -> None:
    (book / "experiments/report.yaml").write_text("quick: {temperature: {SSA: [0, 1]}}", encoding="utf-8")
    assert line("tau-uniform")["verdict"] == "missing"
    assert line("coverage")["verdict"] == "not measured"
    (book / "experiments/report.yaml").write_text("quick: {stress: {ALL: [0], SACWA: [0]}}", encoding="utf-8")
    assert line("scale-sacwa")["verdict"] == "missing"
    assert line("scale-msfi")["verdict"] == "not measured"  # it needs neither of the two


def test_a_line_lacks_what_it_needs_and_nothing_else() -> None:
    of = {claim.id: claim for claim in claims.claims()}
    names = [f"paper/ablation/{row}-s0" for row in ("ALL", "MSFI", "SSA")]
    lacking = claims.Held(lacking=frozenset(names))
    assert claims.lacks(of["mean-ssa"], lacking) == names[2:]
    assert claims.lacks(of["ssa-msfi"], lacking) == names[1:]
    assert claims.lacks(of["size-msfi"], lacking) == []


def test_every_entry_has_a_verdict_and_a_line_on_the_page() -> None:
    """On what is committed: computed, complete, and shown. What a user's own runs lack is the book's to say."""
    presets = {name: held for name, held in claims.held().items() if name not in EPHEMERAL}
    found = claims.ledger(claims.claims(), presets)
    claims.check(found, presets)
    assert list(found["id"].unique()) == [claim.id for claim in claims.claims()]
    assert list(found["topic"].unique()) == list(tables.paper()["claims"])
    assert set(found["verdict"]) <= set(claims.VERDICTS)
    verdicts = found.set_index("id")["verdict"]
    assert verdicts["parameters"] == verdicts["fewer-parameters"] == "by construction"
    assert verdicts["parameters-hourglass"] == "reproduced"
    assert verdicts["mean-ssa"] == verdicts["test-mean"] == "needs MPII"
    assert verdicts["others"] == "context"
    shown = tables.ledger(found, claims.page)
    assert shown.count("<tbody id=") == len(claims.claims())
    assert shown.count('<tbody class="topic"') == found["topic"].nunique()
    assert shown.count('class="verdict') == len(found)
    assert "15.58" in shown
    assert "15.6<" in shown
    for claim in claims.claims():
        assert f'id="claim-{claim.id}"' in shown
    account = tables.verdicts(found, claims.VERDICTS)
    counts = [int(n) for n in re.findall(r"<span>(\d+) <span", account)]
    assert sum(counts) == len(found)
    table2 = found[(found["topic"] == "Table 2") & (found["preset"] == "synthetic")]["verdict"].value_counts()
    first = next(word for word in claims.VERDICTS if word in table2)
    assert f"<td>synthetic</td><td><span>{table2[first]} {tables.verdict(first)}</span>" in account


def test_the_page_links_each_seed_and_names_its_interval(book: Path, make: Callable[..., Record]) -> None:
    for seed in (0, 1):
        make("MSFI", seed, right=40)
        make("SSA", seed, right=42 + seed)
    (book / "book/runs/quick/SSA-s1.ipynb").write_text("{}", encoding="utf-8")
    found = ledger()
    shown = tables.ledger(found[found["id"] == "ssa-msfi"], claims.page)
    assert '<a href="runs/quick/SSA-s1.html" title="quick/ablation/SSA-s1">1</a><br>MSFI 0 1' in shown
    assert "+4.17" in shown
    assert "2 seeds" in shown
    ax = figures.differences(claims.table2_differences(found))
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[:4] == ["MSFI − Baseline", "BDMP − MSFI", "SACWA − MSFI", "SSA − MSFI"]
    assert ax.lines[1].get_xdata()[3] == 0.35
    (points,) = [line for line in ax.lines if line.get_label() == "ours, quick: one or two seeds"]
    assert points.get_xdata()[0] == pytest.approx(2.5 / 0.6)
    plt.close("all")


def test_a_measurements_line_links_its_page_once_and_says_what_was_asked(book: Path) -> None:
    for seed in (0, 1):
        for module, contrast in (("SSA", 0.8 + 0.01 * seed), ("soft", 0.6)):
            columns = {"module": module, "stack": 0, "contrast": contrast, "low": 0.0, "coverage": 0.5, "extent": 0.2}
            measure(book, "attention", seed, pd.DataFrame([columns]), module)
    (book / "book/runs/quick/attention.ipynb").write_text("{}", encoding="utf-8")
    shown = tables.ledger(ledger().query("id == 'sharper'"), claims.page)
    assert shown.count('<a href="runs/quick/attention.html"') == 1
    assert "SSA 0" not in shown
    assert "<small>contrast of the map, SSA − soft: true above 0</small>" in shown


def test_what_is_asked_stays_within_what_can_be() -> None:
    of = {claim.id: claim.asked for claim in claims.claims()}
    assert of["tau-one-hot"] == "sharpness (0 to 1): true above 0.95"
    assert of["tau-uniform"] == "sharpness (0 to 1): true below 0.1"
    assert of["gradient-ratio"].endswith("SSA / soft: true from 10 to 100")
    assert of["soft-msfi"] == "points of PCKh, soft − MSFI: true below 0"
    assert of["test-mean"] == ""


def test_what_is_decided_is_listed_with_its_intervals_and_its_place() -> None:
    verdicts = [("a", "reproduced", "quick"), ("a", "reproduced", "lspet"), ("a", "inconclusive", "paper"),
                ("b", "inconclusive", "quick"), ("c", "not reproduced", ""), ("d", "missing", "")]  # fmt: skip
    lines = pd.DataFrame(verdicts, columns=["id", "verdict", "preset"]).assign(
        topic="Size & more", statement="x < y", kind="difference", value=1.0, low=0.5, high=1.5,
        asked="points: true above 0",
    )  # fmt: skip
    lines.loc[4, ["low", "high"]] = math.nan
    shown = tables.decided(lines)
    assert re.findall(r'href="#claim-(.)"', shown) == ["a", "c"]
    interval = "+1.00 <span>[+0.50, +1.50]</span>"
    assert "x &lt; y</a> <small>Size &amp; more; points: true above 0<br>" in shown
    assert f"<br>quick: {interval}; lspet: {interval}</small>" in shown
    assert "<br>+1.00</small>" in shown


def test_bars_are_of_three_seeds_and_end_in_an_arrow_where_the_picture_does() -> None:
    index = pd.MultiIndex.from_product([["A", "B", "C", "D"], ["quick"]])
    table = pd.DataFrame({"value": [1.0, 2, 3, -7], "half": [2.0, 400, 9, 4], "seeds": [3, 4, 2, 3]}, index=index)
    ax = figures.differences(table)
    low, high = ax.get_xlim()
    assert high <= 1.25 * figures.FAR
    (bars,) = ax.containers
    assert bars.lines[0].get_xdata().tolist() == [1, 2]
    arrows = {line.get_marker(): line.get_xdata()[0] for line in ax.lines if line.get_marker() in ("<", ">")}
    assert arrows == pytest.approx({"<": low, ">": high}, rel=0.05)
    (seen,) = [each for each in ax.collections if each.get_array() is None and len(each.get_segments()) == 1]
    assert seen.get_segments()[0][:, 0].max() == -3  # of the value beyond the picture: -7 + 4
    assert "◂ −7.0" in [text.get_text() for text in ax.texts]
    (open_point,) = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert open_point.get_xdata().tolist() == [3]
    plt.close("all")


def test_a_list_says_what_came_of_the_papers_differences() -> None:
    names = ["ALL − Baseline", "ALL − A", "A − Baseline"]
    index = pd.MultiIndex.from_product([names, ["printed", "x", "y"]], names=["Comparison", "Source"])
    columns = {
        "value": [0.8, -3, -1, 0.1, 2, 1, 0.2, 1, 1],
        "half": [math.nan, 2, 0.5, math.nan, 1, 0.5, math.nan, 4, 0.5],
    }
    seeds = [math.nan, 3, 1] * 3
    differences = pd.DataFrame(columns, index=index).assign(seeds=seeds)
    assert tables.outcome(differences) == (
        "- The paper: 3 of 3 differences are positive, the largest 0.80. They are between 3 rows, and so not "
        "independent.\n"
        "- `x`: 2 of 3 are positive. Intervals of three seeds or more: 3; 1 above 0, 1 below, 1 around it; the "
        "paper's step lies outside 2 of them (ALL − Baseline, ALL − A); ± 2.0 points in the median, ± 1.0 at the "
        "least. The whole network is 3.0 points below the baseline (3 seeds).\n"
        "- `y`: 2 of 3 are positive. No interval is of three seeds or more. The whole network is 1.0 points below "
        "the baseline (one seed)."
    )
    assert tables.steps(differences) == (
        "**In short**: the paper's steps are 0.10 to 0.80 points; our intervals of three seeds or more are ± 1.0 "
        "to ± 4.0 points, and 2 of 3 exclude 0."
    )
    assert tables.steps(differences.drop("x", level="Source")).endswith("the three seeds that an interval takes.")
    undecided = tables.steps(differences.assign(half=9.0))
    assert undecided.endswith("± 9.0 to ± 9.0 points, and none of 3 excludes 0.")
    one = tables.outcome(differences.drop([("ALL − A", "x"), ("A − Baseline", "x")]))
    assert "three seeds or more: 1, ALL − Baseline; 0 above 0, 1 below, 0 around it; the paper's" in one
    assert "step lies outside 1 of them (ALL − Baseline); ± 2.0 points. The whole" in one
    inside = tables.outcome(differences.assign(half=9.0))
    assert "0 above 0, 0 below, 3 around it; the paper's step lies inside each; ± 9.0 points" in inside
    assert tables.outcome(differences.xs("printed", level="Source", drop_level=False)) == ""


def test_small_measurements_are_written_out() -> None:
    values = [6.67e-5, -0.000123, 0.934, 28.84, 19.0, 0.0]
    assert [tables.number("measurement", value) for value in values] == [
        "0.0000667", "−0.000123", "0.934", "28.8", "19", "0",
    ]  # fmt: skip


def test_some_questions_are_answered_beside_each_other() -> None:
    lines = pd.DataFrame(
        [["a", "reproduced", "quick", 1.0, 0.5, 1.5, 3], ["a", "inconclusive", "lspet", 2.0, 1.0, 3.0, 1],
         ["b", "inconclusive", "lspet", -1.0, -2.0, 1.0, 2], ["c", "context", "", *[math.nan] * 4]],
        columns=["id", "verdict", "preset", "value", "low", "high", "seeds"],
    ).assign(kind="difference")  # fmt: skip
    shown = tables.glance(lines, {"b": "B < C?", "a": "A?"})
    assert re.findall("<th>(.*?)</th>", shown) == ["", "quick", "lspet"]
    assert re.findall('href="#claim-(.)">(.*?)</a>', shown) == [("b", "B &lt; C?"), ("a", "A?")]
    cells = re.findall('<td data-label="(.*?)">(.*?)</td>', shown)
    assert [preset for preset, _ in cells] == ["quick", "lspet", "quick", "lspet"]
    nothing, b, first, second = (said for _, said in cells)
    assert nothing == ""
    assert b == tables.verdict("inconclusive") + " −1.00 <span>[−2.00, +1.00]</span> <small>2 seeds</small>"
    assert first == tables.verdict("reproduced") + " +1.00 <span>[+0.50, +1.50]</span> <small>3 seeds</small>"
    assert second.endswith("<small>one seed, persons alone</small>")


def test_runs_on_mpii_answer_what_needs_mpii(book: Path, make: Callable[..., Record]) -> None:
    """A mean within half a point of the printed one; and the preset's lines are not taken for the paper's own."""
    records = [make("SSA", seed, 53, "paper") for seed in (0, 1)]
    (book / "experiments/report.yaml").write_text("{}", encoding="utf-8")  # what it does not list owes nothing
    (book / "book/runs/quick").rename(book / "book/runs/paper")
    stated = {claim.id: claim for claim in claims.claims()}
    wide = claims.ledger([stated["mean-ssa"], stated["test-mean"]], claims.held()).set_index("id")
    assert wide["verdict"].to_dict() == {"mean-ssa": "reproduced", "test-mean": "needs MPII"}
    assert wide["low"]["mean-ssa"] == wide["high"]["mean-ssa"]  # seeds that agree; persons have no part in it
    assert wide["value"]["mean-ssa"] == pytest.approx(100 * 53 / 60)
    held = claims.held()
    one = claims.ledger([stated["mean-ssa"]], {"paper": replace(held["paper"], records=records[:1])}).iloc[0]
    assert one["verdict"] == "inconclusive"
    assert math.isnan(one["low"])  # one seed says nothing of seeds, and persons have no part in it
    assert claims.verdict(stated["mean-ssa"], 88.7, 88.5, 88.9, seeds=2) == "reproduced"
    assert claims.verdict(stated["mean-ssa"], 88.5, 88.0, 88.9, seeds=2) == "inconclusive"
    assert claims.verdict(stated["mean-ssa"], 87.5, 87.0, 88.0, seeds=2) == "not reproduced"
    means = tables.table2(records)["Mean"]
    assert means["MSFI+SSA"].to_dict() == pytest.approx({"printed": 88.74, "paper": 100 * 53 / 60})


def test_ledger_keeps_presets_apart(make: Callable[..., Record]) -> None:
    rows = {preset: [make("SSA", s, 50, preset) for s in (0, 1)] for preset in ("quick", "lspet")}
    other = {
        preset: [make("MSFI", s, right, preset) for s in (0, 1)] for preset, right in (("quick", 40), ("lspet", 50))
    }
    held = {preset: Held(records=[*rows[preset], *other[preset]]) for preset in rows}
    (stated,) = (claim for claim in claims.claims() if claim.id == "ssa-msfi")
    found = claims.ledger([stated], held).set_index("preset")
    assert found["value"].to_dict() == pytest.approx({"quick": 100 / 6, "lspet": 0})
    assert dataclasses.replace(stated, value=None).printed == ""


def test_report_has_table2_and_what_is_committed() -> None:
    owed = claims.report()
    rows = {f"quick/ablation/{name}-s0" for name, row in ROWS.items() if row.place == "Table 2"}
    assert rows <= set(owed["quick"])
    kept = [name for preset, names in owed.items() if preset not in EPHEMERAL for name in names]
    assert [name for name in kept if not (ROOT / "experiments/results" / name / "run.json").exists()] == []
