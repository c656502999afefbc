"""Kinds of mistakes: by hand, against a slow reference, and what tables and pictures make of them."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanet import errors, results
from scanet.config import ROWS
from scanet.errors import ANOTHER, ELSEWHERE, KINDS, LIMB, MIRRORED, NEAR, RIGHT
from scanet.files import UserError
from scanet.pckh import PCK
from scanet.report import figures, tables
from scanet.skeleton import LSP, SKELETONS, Skeleton


@pytest.mark.parametrize(
    ("at", "kind"),
    [
        ((5, 0), RIGHT),  # at half a head exactly, as in PCKh
        ((5.1, 0), NEAR),
        ((10, 0), NEAR),
        ((-10.1, 0), ELSEWHERE),
        ((45, 5), LIMB),  # between the second and the third joint, half a head beside the line
        ((45, 5.1), ELSEWHERE),
        ((15, 0), ELSEWHERE),  # there is no limb between the first two
        ((30, 4), MIRRORED),
        ((64, 0), ANOTHER),
        ((12.5, 0), MIRRORED),  # within reach of two others: the other side comes first
        ((math.nan, math.nan), ELSEWHERE),  # not found
        ((math.inf, 0), ELSEWHERE),
    ],
)
def test_the_kinds_by_hand(at: tuple[float, float], kind: str) -> None:
    """Three joints on a line, the first two being each other's opposite; heads of 10 pixels."""
    side = 17.0 if at == (12.5, 0) else 30.0
    truth = np.array([[[0, 0], [side, 0], [60 if side == 30 else 8.1, 0]]], float)
    predicted = truth.copy()
    predicted[0, 0] = at
    found, annotated = errors.kinds(predicted, truth, np.array([10.0]), [1, 0, 2], [(1, 2)])
    assert [KINDS[number] for number in found[0]] == [kind, RIGHT, RIGHT]
    assert annotated.all()


def test_what_is_not_annotated_is_void_and_attracts_nothing() -> None:
    truth = np.array([[[0, 0], [math.nan, math.nan], [60, 0]]], float)
    predicted = np.array([[[60, 0], [0, 0], [30, 0]]], float)
    found, annotated = errors.kinds(predicted, truth, np.array([10.0]), [1, 0, 2], [(0, 1), (1, 2)])
    assert annotated.tolist() == [[True, False, True]]
    assert [KINDS[number] for number in found[0, [0, 2]]] == [ANOTHER, ELSEWHERE]


def slow(predicted: np.ndarray, truth: np.ndarray, head: float, skeleton: Skeleton, joint: int) -> str:
    """One joint of one person, in words."""

    def away(other: int) -> float:
        return math.dist(predicted[joint], truth[other]) / head

    if away(joint) <= 0.5:
        return RIGHT
    opposite = skeleton.flip[joint]
    if opposite != joint and away(opposite) <= 0.5:
        return MIRRORED
    if any(away(other) <= 0.5 for other in range(len(truth)) if other not in (joint, opposite)):
        return ANOTHER
    if away(joint) <= 1:
        return NEAR
    steps = np.linspace(0, 1, 801)[:, None]
    for first, second in (skeleton.index(*limb) for limb in skeleton.limbs):
        line = truth[first] + steps * (truth[second] - truth[first])
        beside = np.linalg.norm(predicted[joint] - line, axis=1).min() / head
        if abs(beside - 0.5) < 1e-3:
            return ""  # too close to tell by steps
        if beside < 0.5:
            return LIMB
    return ELSEWHERE


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([14, 16]))
def test_against_a_slow_reference(seed: int, joints: int) -> None:
    skeleton, generator = SKELETONS[joints], np.random.default_rng(seed)
    truth, predicted = generator.uniform(0, 60, (2, 5, joints, 2))
    truth[generator.random((5, joints)) < 0.1] = np.nan
    head = generator.uniform(8, 15, 5)
    limbs = [skeleton.index(*limb) for limb in skeleton.limbs]
    found, annotated = errors.kinds(predicted, truth, head, skeleton.flip, limbs)
    for person, joint in np.argwhere(annotated):
        expected = slow(predicted[person], truth[person], head[person], skeleton, joint)
        assert expected in ("", KINDS[found[person, joint]])
    # Left and right named the other way round, in both: the same kinds at the exchanged joints.
    mirror = list(skeleton.flip)
    other, _ = errors.kinds(predicted[:, mirror], truth[:, mirror], head, skeleton.flip, limbs)
    assert np.array_equal(other[annotated[:, mirror]], found[:, mirror][annotated[:, mirror]])
    # Exchanged in the predictions alone, what was right is mirrored, where there are two sides and they lie apart.
    other, _ = errors.kinds(predicted[:, mirror], truth, head, skeleton.flip, limbs)
    right = annotated & (found == KINDS.index(RIGHT))
    sides = np.array(mirror) != np.arange(joints)
    became = {KINDS[number] for number in other[:, mirror][right & sides & annotated[:, mirror]]}
    assert became <= {MIRRORED, RIGHT}  # right still, where both sides are in reach


def test_right_is_what_the_metric_counts() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 100, (40, 14, 2)).astype(float)
    predicted = truth + generator.integers(-8, 9, truth.shape)
    found, _ = errors.kinds(predicted, truth, np.full(40, 10.0), LSP.flip, [])
    metric = PCK(LSP)
    metric.update(predicted, truth, np.full(40, 10.0))
    assert (found == KINDS.index(RIGHT)).sum(axis=0).tolist() == list(metric.compute().at_most)


@pytest.mark.parametrize("preset", ["synthetic", "lspet-small"])
def test_tables_and_bars_of_the_committed_runs(preset: str) -> None:
    """The kinds add up; "right" is Table 2's mean; differences are those of the rates of the seeds that both have."""
    records = results.records(preset)
    seeds = {
        row.title: {r.settings["seed"] for r in records if r.settings["module"] == module}
        for module, row in ROWS.items()
    }
    table = tables.error_kinds(records)
    printed = tables.table2(records).xs(preset, level="Source")
    assert table[list(KINDS)].sum(axis=1).tolist() == pytest.approx([100] * len(table))
    assert table[RIGHT].tolist() == pytest.approx(printed["Mean"].tolist())
    differences = tables.error_differences(records)
    for name, line in differences.iterrows():
        row, against = str(name).split(" − ")
        both = tables.error_kinds([r for r in records if r.settings["seed"] in seeds[row] & seeds[against]])
        assert line["seeds"] == len(seeds[row] & seeds[against])
        for kind in KINDS[1:]:
            assert line[kind] == pytest.approx(both.loc[row, kind] - both.loc[against, kind], abs=1e-9)
        delta = printed.loc[row, "Δ"]
        assert sum(line[kind] for kind in KINDS[1:]) == pytest.approx(-delta, abs=1e-9)
    assert len(differences) == len(table) - 1
    by_joint = tables.errors_by_joint(records, "SSA")
    assert by_joint.sum(axis=1).tolist() == pytest.approx([100] * 8)
    assert by_joint.loc[["head-top", "neck"], MIRRORED].tolist() == [0, 0]
    paired = ["shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
    mean = (by_joint.loc[["head-top", "neck"]].sum() + 2 * by_joint.loc[paired].sum()) / 14
    assert mean.tolist() == pytest.approx(table.loc["MSFI+SSA", list(KINDS)].tolist())
    ax = figures.error_kinds(table)
    panels = figures.error_differences(differences, preset).axes
    assert [panel.get_title() for panel in panels] == list(KINDS[1:])
    drawn = np.concatenate([line.get_xdata() for line in panels[0].lines if line.get_marker() == "o"])
    shown = differences.loc[differences[MIRRORED].abs() <= figures.NEAR_FAR, MIRRORED]
    assert sorted(drawn) == sorted(shown)
    ends = [bar.get_x() + bar.get_width() for bar in ax.containers[-1]]
    assert ends == pytest.approx((100 - table[RIGHT]).tolist())
    plt.close("all")


def test_a_row_without_runs_is_one_sentence() -> None:
    with pytest.raises(UserError, match="is there: make one with `scanet train Block --preset lspet-small`"):
        tables.errors_by_joint(results.records("lspet-small"), "Block")
