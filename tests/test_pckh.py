"""PCK by hand, against an exact double loop, under invariances, and against the published numbers of MPII."""

import json
import math
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shared import MPII as DATA
from shared import needs_mpii

from scanet.files import UserError
from scanet.pckh import CONVENTIONS, PCK, THRESHOLDS, Scores, torso_size
from scanet.predictions import read_predictions, read_truth
from scanet.skeleton import LSP, MPII, Skeleton

COLUMNS = ["Head", "Sho.", "Elb.", "Wri.", "Hip", "Knee", "Ank.", "Mean"]


def count(predicted: np.ndarray, truth: np.ndarray, reference: np.ndarray, skeleton: Skeleton = MPII) -> PCK:
    pck = PCK(skeleton)
    pck.update(predicted, truth, reference)
    return pck


def percent(*fractions: F) -> Any:
    return pytest.approx([float(100 * fraction) for fraction in fractions], abs=1e-12)


# ---- worked out by hand ----

_ = math.nan
# Distances in pixels, as 3-4-5 triangles. NaN: not annotated. -1: annotated and not predicted. The thresholds of
# 0.5 are 5, 10, 5 pixels, and each of the scored persons has distances exactly there.
HEADS = np.array([10.0, 20.0, 10.0, _])
DISTANCES = np.array(
    [
        # r-ankle, knee, hip; l-hip, knee, ankle; pelvis, thorax, neck, head-top; r-wri, elb, sho; l-sho, elb, wri
        [0, _, 5, 0, 10, _, 90, 90, 5, 0, 0, 2.95, 5, _, 0, 10],
        [10, _, 0, 30, 0, 30, 90, 90, 0, 10, 30, _, 0, _, 30, _],
        [10, _, _, _, _, 0, 90, 90, 5, 10, -1, 5, _, _, _, 0],
        [0] * 16,  # nobody knows how large this head is, so nothing of this person counts
    ]
)
#            r-ankle, hip; l-hip, knee, ankle; neck, head-top; r-wri, elb, sho; l-elb, wri: never r-knee, l-shoulder
ANNOTATED = [3, 0, 2, 2, 2, 2, 3, 3, 3, 2, 2, 0, 2, 2]  # 28
AT_MOST = [2, 0, 2, 1, 1, 1, 3, 2, 1, 2, 2, 0, 1, 1]  # 19
BELOW = [1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1]  # 12


@pytest.fixture
def by_hand() -> Scores:
    truth = np.where(np.isnan(DISTANCES)[..., None], math.nan, np.arange(128.0).reshape(4, 16, 2))
    predicted = np.nan_to_num(truth) + np.nan_to_num(DISTANCES)[..., None] * [3, 4] / 5
    predicted[DISTANCES == -1] = math.nan
    return count(predicted, truth, HEADS).compute()


def test_counts_by_hand(by_hand: Scores) -> None:
    assert (by_hand.threshold, by_hand.persons, by_hand.skipped) == (0.5, 3, 1)
    assert by_hand.joints == tuple(name for name in MPII.joints if name not in ("pelvis", "thorax"))
    assert list(by_hand.annotated) == ANNOTATED
    assert list(by_hand.at_most) == AT_MOST
    assert list(by_hand.below) == BELOW


def test_rates_by_hand(by_hand: Scores) -> None:
    rates, strict = by_hand.rates(), by_hand.rates(strict=True)
    assert [rates["r-ankle"], rates["neck"], rates["l-wrist"]] == percent(F(2, 3), F(1), F(1, 2))
    assert [strict["r-ankle"], strict["neck"], strict["l-wrist"]] == percent(F(1, 3), F(1, 3), F(1, 2))
    assert math.isnan(rates["r-knee"])
    assert math.isnan(strict["l-shoulder"])


#: By <=: only the right shoulder and only the left knee are there; the other columns are means of two rates.
GROUPS_AT_MOST = [F(1), (F(1) + F(1, 2)) / 2, (F(1, 3) + F(1, 2)) / 2, F(3, 4), F(1, 2), (F(2, 3) + F(1, 2)) / 2]
GROUPS_BELOW = [F(1, 2), F(1, 2), F(5, 12), F(1, 2), F(1, 2), (F(1, 3) + F(1, 2)) / 2]


@pytest.mark.parametrize(
    ("convention", "head", "groups", "mean"),
    [
        # Neck 3/3, head-top 2/3. Twelve joints are annotated: by <= four at 1, five at 1/2, rates 2/3, 2/3, 1/3;
        # by < eight at 1/2 and four at 1/3.
        ("official", (F(1) + F(2, 3)) / 2, GROUPS_AT_MOST, F(19, 28)),
        ("plain", F(2, 3), GROUPS_AT_MOST, (4 + F(5, 2) + F(5, 3)) / 12),
        ("pytorch-pose", F(1, 3), GROUPS_BELOW, (F(8, 2) + F(4, 3)) / 12),
        ("hrnet", F(2, 3), GROUPS_AT_MOST, F(19, 28)),
        ("mmpose", F(1, 3), GROUPS_BELOW, F(12, 28)),
    ],
)
def test_conventions_by_hand(by_hand: Scores, convention: str, head: F, groups: list[F], mean: F) -> None:
    row = by_hand.row(convention)
    assert list(row) == COLUMNS
    assert list(row.values()) == percent(head, *groups, mean)


def test_auc_by_hand(by_hand: Scores) -> None:
    # 11 distances of 0 are within every threshold, 2.95 / 10 from 0.30 on, and 7 reach 0.5 exactly.
    assert list(by_hand.pooled) == [11] * 30 + [12] * 20 + [19]
    assert [by_hand.curve[0], by_hand.curve[-1]] == percent(F(11, 28), F(19, 28))
    assert [by_hand.auc] == percent(F(30 * 11 + 20 * 12 + 19, 51 * 28))
    # Trapezoids: 30 of 11 (the last rises to 12, so + 1/2), 20 of 12 (the last rises to 19, so + 7/2).
    assert [by_hand.auc_integrated] == percent((30 * 11 + F(1, 2) + 20 * 12 + F(7, 2)) / (50 * 28))


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_distance_exactly_at_each_threshold(size: int) -> None:
    """5k from the truth where the head is 500: k / 100, in multiples that floats hold exactly or not."""
    for k, threshold in enumerate(THRESHOLDS):
        truth = np.zeros((1, 16, 2))
        predicted = np.broadcast_to(np.array([3.0, 4.0]) * k * size, truth.shape)
        pck = count(predicted, truth, np.array([500.0 * size]))
        assert pck.at_most[:, 0].tolist() == [int(t >= threshold) for t in THRESHOLDS]
        assert pck.below[:, 0].tolist() == [int(t > threshold) for t in THRESHOLDS]


def test_nothing_annotated_is_nan_and_none() -> None:
    truth = np.zeros((2, 16, 2))
    truth[0, :, 0] = truth[1, :, 1] = math.nan  # half a coordinate pair is none
    scores = count(np.zeros((2, 16, 2)), truth, np.ones(2)).compute()
    assert all(math.isnan(rate) for name in CONVENTIONS for rate in scores.row(name).values())
    assert math.isnan(scores.auc)
    record = scores.as_dict()
    assert record["rows"]["official"] == dict.fromkeys(COLUMNS)
    assert record["auc"] is None


def test_no_persons() -> None:
    scores = count(np.zeros((0, 16, 2)), np.zeros((0, 16, 2)), np.zeros(0)).compute()
    assert scores == PCK().compute()
    assert (scores.persons, scores.skipped, sum(scores.annotated)) == (0, 0, 0)


def test_references_that_are_no_length_are_skipped() -> None:
    pck = count(np.zeros((5, 16, 2)), np.zeros((5, 16, 2)), np.array([math.nan, 0, -1, math.inf, 1]))
    assert (pck.persons, pck.skipped, pck.annotated[0]) == (1, 4, 1)


def test_predictions_that_are_no_place_are_wrong() -> None:
    predicted = np.zeros((3, 16, 2))
    predicted[0, :, 0], predicted[1], predicted[2] = math.nan, math.inf, 1e300
    pck = count(predicted, np.zeros((3, 16, 2)), np.ones(3))
    assert pck.annotated.tolist() == [3] * 14
    assert not pck.at_most.any()
    assert not pck.below.any()


def test_joints_that_a_model_lacks_are_left_out() -> None:
    truth = np.zeros((1, 16, 2))
    predicted = truth.copy()
    lacking = MPII.index("neck", "l-knee")
    predicted[:, lacking] = math.nan
    assert count(predicted, truth, np.ones(1)).compute().row("official")["Mean"] == pytest.approx(100 * 12 / 14)
    pck = PCK(joints=[j for j in MPII.scored if j not in lacking])
    pck.update(predicted, truth, np.ones(1))
    assert list(pck.compute().row("official").values()) == [100.0] * 8


def test_record_is_json_and_comes_back(by_hand: Scores) -> None:
    text = json.dumps(by_hand.as_dict(), allow_nan=False)
    assert Scores.from_dict(json.loads(text)) == by_hand
    assert json.loads(text)["rates"]["r-knee"] is None
    assert json.loads(text)["rows"]["hrnet"]["Mean"] == by_hand.row("hrnet")["Mean"]


def test_lsp_in_torso_sizes() -> None:
    """Left shoulder (30, 0), right hip (0, 40): a torso of 50, so that at 0.2 a joint may be 10 pixels away."""
    truth = np.zeros((3, 14, 2))
    truth[:, LSP.joints.index("l-shoulder")] = [30, 0]
    truth[:, LSP.joints.index("r-hip")] = [0, 40]
    truth[1, LSP.joints.index("r-hip")] = math.nan
    truth[2, LSP.joints.index("l-wrist")] = math.nan
    torso = torso_size(truth, LSP)
    np.testing.assert_array_equal(torso, [50, math.nan, 50])
    predicted = np.nan_to_num(truth)
    predicted[:, LSP.joints.index("head-top")] += [6, 8]
    predicted[:, LSP.joints.index("neck")] += [6, 8.001]
    predicted[0, LSP.joints.index("l-wrist")] += 10
    scores = count(predicted, truth, torso, LSP).compute(threshold=0.2)
    assert (scores.threshold, scores.persons, scores.skipped) == (0.2, 2, 1)
    # Of 14 rates neck and l-wrist are 0; the wrist is annotated once only, so pooled it is 24 of 27.
    row = scores.row("plain")
    assert [row["Head"], row["Wri."], row["Mean"]] == percent(F(1), F(1, 2), F(12, 14))
    assert [scores.row("hrnet")["Mean"]] == percent(F(24, 27))


def test_errors_say_what_to_do() -> None:
    joints = np.zeros((2, 16, 2))
    with pytest.raises(UserError, match=r"\(16, 2, 2\).*give \(N, 16, 2\)"):
        PCK().update(joints.transpose(1, 2, 0), joints, np.ones(2))
    with pytest.raises(UserError, match="reference"):
        PCK().update(joints, joints, np.ones((2, 1)))
    with pytest.raises(UserError, match=r"0\.505.*choose"):
        PCK().compute(threshold=0.505)
    with pytest.raises(UserError, match="choose"):
        PCK().compute(threshold=0.51)
    with pytest.raises(UserError, match="'weighted': choose one of official, plain"):
        PCK().compute().row("weighted")
    with pytest.raises(UserError, match="0 to 15"):
        PCK(joints=[3, 3])
    with pytest.raises(UserError, match="score the same"):
        PCK() + PCK(LSP)


# ---- against a double loop, and invariances ----

Case = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A few persons on a small grid of whole pixels, where distances at a threshold are common."""
    persons = draw(st.integers(0, 4))
    grid = hnp.arrays(np.float64, (persons, 16, 2), elements=st.integers(0, 12))
    missing = hnp.arrays(bool, (persons, 16), elements=st.booleans(), fill=st.just(False))
    predicted, truth = draw(grid), draw(grid)
    predicted[draw(missing)] = math.nan
    truth[draw(missing)] = math.nan
    reference = draw(hnp.arrays(np.float64, persons, elements=st.sampled_from([math.nan, 1, 2, 5, 10, 20, 30])))
    return predicted, truth, reference


def slow(predicted: np.ndarray, truth: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, ...]:
    """In whole numbers: d <= k / 100 * reference is 10000 d^2 <= k^2 reference^2."""
    annotated, at_most, below = np.zeros(16, int), np.zeros((51, 16), int), np.zeros((51, 16), int)
    for person in range(len(reference)):
        for joint in range(16):
            if math.isnan(reference[person]) or math.isnan(truth[person, joint, 0]):
                continue
            annotated[joint] += 1
            if math.isnan(predicted[person, joint, 0]):
                continue
            x, y = (int(value) for value in predicted[person, joint] - truth[person, joint])
            for k in range(51):
                distance, limit = 10_000 * (x * x + y * y), (k * int(reference[person])) ** 2
                at_most[k, joint] += distance <= limit
                below[k, joint] += distance < limit
    return tuple(counts[..., MPII.scored] for counts in (annotated, at_most, below))


@settings(deadline=None, max_examples=60)
@given(case=cases())
def test_same_as_double_loop(case: Case) -> None:
    pck = count(*case)
    for fast, expected in zip((pck.annotated, pck.at_most, pck.below), slow(*case), strict=True):
        np.testing.assert_array_equal(fast, expected)
    # The rates once more, from the counts and with none of the module's helpers.
    annotated, at_most, below = slow(*case)
    scores = pck.compute()
    for name, rule in CONVENTIONS.items():
        right = (below if rule.strict else at_most)[50]
        if annotated.sum() == 0:
            continue
        rates = [100 * r / n for r, n in zip(right, annotated, strict=True) if n]
        mean = 100 * right.sum() / annotated.sum() if rule.pooled else sum(rates) / len(rates)
        assert scores.row(name)["Mean"] == pytest.approx(mean)


@settings(deadline=None, max_examples=40)
@given(case=cases(), cut=st.integers(0, 4), exponent=st.integers(-8, 8), seed=st.integers(0, 99))
def test_invariances(case: Case, cut: int, exponent: int, seed: int) -> None:
    predicted, truth, reference = case
    whole = count(*case).compute().as_dict()

    first, rest = PCK(), PCK()
    first.update(predicted[:cut], truth[:cut], reference[:cut])
    rest.update(predicted[cut:], truth[cut:], reference[cut:])
    assert (first + rest).compute().as_dict() == whole
    first.update(predicted[cut:], truth[cut:], reference[cut:])
    assert first.compute().as_dict() == whole

    scale = 2.0**exponent
    assert count(predicted * scale, truth * scale, reference * scale).compute().as_dict() == whole

    order = np.random.default_rng(seed).permutation(len(reference))
    assert count(predicted[order], truth[order], reference[order]).compute().as_dict() == whole

    mirrored = count(predicted[:, MPII.flip], truth[:, MPII.flip], reference).compute().as_dict()
    assert mirrored["rows"] == whole["rows"]
    assert mirrored["pooled"] == whole["pooled"]


# ---- files ----


def three_persons() -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 500, (3, 16, 2))


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("kind", ["h5", "mat"])
def test_predictions_in_any_order_of_axes(tmp_path: Path, axes: tuple[int, int, int], kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    stored = three_persons().transpose(axes)
    if kind == "mat":
        scipy.io.savemat(path, {"preds": stored, "other": 1})
    else:
        with h5py.File(path, "w") as file:
            file["preds"] = stored
    np.testing.assert_array_equal(read_predictions(path), three_persons())
    np.testing.assert_array_equal(read_predictions(str(path), "preds", persons=3), three_persons())
    with pytest.raises(UserError, match=r"preds of shape .* does not fit \(4, 16, 2\)"):
        read_predictions(path, persons=4)


def test_predictions_of_wrong_files(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["preds"] = np.zeros((16, 2, 2))
        file["scored"] = np.zeros((3, 16, 3))
        file["flat"] = np.zeros((3, 32))
        file["one"] = 5.0
        file["text"] = "abc"
        file["whole"] = np.ones((3, 16, 2), np.int32)
    with pytest.raises(UserError, match=r"a\.h5: preds of shape \(16, 2, 2\) fits in several ways \(N, 16, 2\)"):
        read_predictions(path)
    with h5py.File(path, "a") as file:
        file["square"] = square = np.random.default_rng(0).random((16, 16, 2))
    np.testing.assert_array_equal(read_predictions(path, "square", persons=16), square)  # the order asked for
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["part"], file["normalize"] = np.zeros((2, 16, 2)), ["20", "20"]
    with pytest.raises(UserError, match=r"truth\.h5: normalize holds object and not numbers"):
        read_truth(tmp_path / "truth.h5")
    for name in ("scored", "flat", "one"):
        with pytest.raises(UserError, match=rf"{name} of shape .* does not fit .*name another variable with --key"):
            read_predictions(path, name)
    with pytest.raises(UserError, match="not numbers"):
        read_predictions(path, "text")
    with pytest.raises(UserError, match=r"no variable lost \(those found: flat, .*whole\)"):
        read_predictions(path, "lost")
    assert read_predictions(path, "whole").dtype == np.float64
    with pytest.raises(UserError, match="no such file"):
        read_predictions(tmp_path / "b.h5")
    (tmp_path / "b.h5").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="not a readable HDF5 or Matlab file"):
        read_predictions(tmp_path / "b.h5")


def test_truth_from_both_formats(tmp_path: Path) -> None:
    """One truth in both layouts. A joint at (0, 7) is annotated; 1-based pixels stay as they are."""
    joints = np.floor(three_persons())
    joints[1, 4] = 0, 7
    stored = joints.copy()
    stored[2, 9] = 0
    joints[2, 9] = math.nan
    with h5py.File(tmp_path / "valid.h5", "w") as file:
        file["part"], file["normalize"] = stored, [6.0, 12.0, 3.0]
    boxes = np.array([[[5, 5], [11, 13]], [[1, 2], [17, 14]], [[8, 8], [11, 12]]])  # diagonals 10, 20, 5
    mat = {"pos_gt_src": stored.transpose(1, 2, 0), "headboxes_src": boxes.transpose(1, 2, 0)}
    mat["jnt_missing"] = np.isnan(joints[..., 0]).T.astype(np.uint8)
    scipy.io.savemat(tmp_path / "detections.mat", mat)
    for name in ("valid.h5", "detections.mat"):
        truth = read_truth(tmp_path / name)
        np.testing.assert_array_equal(truth.joints, joints)
        np.testing.assert_allclose(truth.head_size, [6, 12, 3], rtol=1e-15)
    scipy.io.savemat(tmp_path / "detections.mat", {**mat, "jnt_missing": np.zeros((16, 2))})
    with pytest.raises(UserError, match="do not belong together"):
        read_truth(tmp_path / "detections.mat")
    scipy.io.savemat(tmp_path / "detections.mat", {"preds": 1})
    with pytest.raises(UserError, match=r"no variable pos_gt_src.*give Newell's"):
        read_truth(tmp_path / "detections.mat")
    with pytest.raises(UserError, match="no such file"):
        read_truth(tmp_path / "absent.mat")


# ---- published numbers ----


#: head-top, "Head" of the official toolkit, the six groups, plain mean, weighted mean, AUC, AUC integrated.
GOLDEN = {
    "tompson": "95.600 96.658 92.714 83.365 76.736 81.928 73.363 65.446 81.458 82.337 55.495 55.781",
    "ours": "95.941 96.709 94.684 88.529 83.382 87.485 83.094 79.050 87.562 88.035 58.517 58.807",
}
FILES = {
    "tompson": ("detections_our_format.mat", "pos_pred_src"),
    "ours": ("preds/valid-ours.h5", "preds"),
}


@needs_mpii
@pytest.mark.parametrize("name", FILES)
def test_golden_numbers(name: str) -> None:
    truth = read_truth(DATA / "detections_our_format.mat")
    predicted = read_predictions(DATA / FILES[name][0], FILES[name][1], persons=2958)
    scores = count(predicted, truth.joints, truth.head_size).compute()
    assert (scores.persons, scores.skipped) == (2958, 0)
    plain, official, hrnet = (scores.row(key) for key in ("plain", "official", "hrnet"))
    groups = [plain[column] for column in COLUMNS[1:-1]]
    numbers = [plain["Head"], official["Head"], *groups, plain["Mean"], hrnet["Mean"], scores.auc]
    assert [f"{number:.3f}" for number in (*numbers, scores.auc_integrated)] == GOLDEN[name].split()
    assert [official[column] for column in COLUMNS[1:-1]] == groups
    assert official["Mean"] == hrnet["Mean"]


@needs_mpii
def test_newells_truth_is_the_same_but_for_fractions() -> None:
    exact, cut = read_truth(DATA / "detections_our_format.mat"), read_truth(DATA / "valid.h5")
    np.testing.assert_array_equal(np.isnan(exact.joints), np.isnan(cut.joints))
    np.testing.assert_allclose(exact.head_size, cut.head_size, atol=1e-4)
    # In 13 joints the .mat has a 0 where the .h5 has another coordinate.
    assert (np.nan_to_num(np.abs(exact.joints - cut.joints)).max(axis=2) > 1.01).sum() == 13
    scores = count(read_predictions(DATA / "preds/valid-ours.h5"), cut.joints, cut.head_size).compute()
    assert f"{scores.row('plain')['Head']:.3f}" == "95.873"
