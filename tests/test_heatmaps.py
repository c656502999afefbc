"""Targets in closed form, decoding against a loop, and a round trip without bias."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from scanet.config import Border, Target
from scanet.data.heatmaps import decode, draw_targets, mirror
from scanet.skeleton import LSP, MPII, Skeleton

SIZE = 16
NAN = math.nan


def draw(
    *positions: tuple[float, float], sigma: float = 1.75, target: Target = "subpixel", border: Border = "empty"
) -> Tensor:
    """The maps of one person: (joints, SIZE, SIZE)."""
    return draw_targets(torch.tensor([positions]), SIZE, sigma, target, border)[0]


def scattered(count: int, low: float, high: float, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, 16, 2, generator=random)


# ---- targets ----


def offset(cell: int, position: float) -> float:
    """Subtracted in fp32, as ours: at the window's very end the rounding decides."""
    return float(np.float32(cell + 0.5) - np.float32(position))


def slow_target(x: float, y: float, sigma: float, border: Border) -> np.ndarray:
    out = np.zeros((SIZE, SIZE))
    if border == "empty" and not (0 <= x < SIZE and 0 <= y < SIZE):
        return out
    for row in range(SIZE):
        for column in range(SIZE):
            dx, dy = offset(column, x), offset(row, y)
            if abs(dx) <= 3.5 and abs(dy) <= 3.5:
                out[row, column] = math.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))
    return out


@given(
    x=st.floats(-5, SIZE + 5, width=32),
    y=st.floats(-5, SIZE + 5, width=32),
    sigma=st.sampled_from([1.0, 1.75]),
    border=st.sampled_from(["empty", "partial"]),
)
@example(x=0.0, y=-(2.0**-23), sigma=1.0, border="partial")
@settings(deadline=None, max_examples=100)
def test_target_is_the_gaussian(x: float, y: float, sigma: float, border: Border) -> None:
    heatmap = draw((x, y), sigma=sigma, border=border)[0].numpy()
    np.testing.assert_allclose(heatmap, slow_target(x, y, sigma, border), atol=1e-6)


def test_a_joint_just_beyond_the_map_leaves_what_pht_draws_of_it() -> None:
    """PHT's rule: its 7 x 7 cells around the joint's cell, cut off at the map, unless none of them is in it."""
    whole = draw((3.5, 8.5), target="floor")[0]
    for beyond in (1, 2, 3):
        heatmap = draw((0.5 - beyond, 8.5), target="floor", border="partial")[0]
        assert torch.equal(heatmap[:, : 4 - beyond], whole[:, 3 + beyond : 7])
        assert not heatmap[:, 4 - beyond :].any()
    assert not draw((0.5 - 4, 8.5), (NAN, 8.5), (math.inf, 8.5), target="floor", border="partial").any()


def test_peak_and_support_by_hand() -> None:
    """Sigma 1.75, peak 1, 7 x 7 cells around a joint at the centre of a cell."""
    (heatmap,) = draw((8.5, 5.5))
    assert heatmap[5, 8] == heatmap.max() == 1
    rows, columns = (heatmap > 0).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 8, 5, 11)
    assert (heatmap > 0).sum() == 49
    assert heatmap[5, 9].item() == pytest.approx(math.exp(-1 / (2 * 1.75**2)), rel=1e-6)
    assert heatmap[2, 5].item() == pytest.approx(math.exp(-9 / 1.75**2), rel=1e-6)  # the corner, 3 cells on each axis


@pytest.mark.parametrize(
    "nowhere",
    [(NAN, NAN), (NAN, 5.0), (5.0, NAN), (-0.01, 5.0), (5.0, 16.0), (16.5, 5.0), (5.0, -3.0), (math.inf, 5.0)],
)
@pytest.mark.parametrize("target", ["subpixel", "floor"])
def test_missing_and_outside_joints_leave_an_empty_map(nowhere: tuple[float, float], target: Target) -> None:
    heatmaps = draw(nowhere, (5.0, 5.0), target=target)
    assert torch.equal(heatmaps[0], torch.zeros(SIZE, SIZE))
    assert heatmaps[1].max() > 0.9
    inside = draw((0.0, 15.99), target=target)  # the map's own corner is inside
    assert inside.max() > 0.9


@given(x=st.floats(0, SIZE, exclude_max=True, width=32), y=st.floats(0, SIZE, exclude_max=True, width=32))
@settings(deadline=None, max_examples=40)
def test_floored_target_is_the_kernel_of_pht(x: float, y: float) -> None:
    """PHT copies one 7 x 7 image.gaussian, sigma a quarter of its side, to the joint's whole cell."""
    grid = (np.arange(7) - 3) / (7 * 0.25)
    kernel = np.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / 2)
    padded = np.zeros((SIZE + 6, SIZE + 6))
    padded[int(y) : int(y) + 7, int(x) : int(x) + 7] = kernel
    np.testing.assert_allclose(draw((x, y), target="floor")[0].numpy(), padded[3:-3, 3:-3], atol=1e-6)


# ---- decoding ----


def slow_decode(heatmap: np.ndarray) -> tuple[float, float, float]:
    h, w = heatmap.shape
    best = (0, 0)
    for y in range(h):
        for x in range(w):
            if heatmap[y, x] > heatmap[best]:
                best = (y, x)
    y, x = best
    dx = dy = 0.0
    if 0 < x < w - 1:
        left, right = heatmap[y, x - 1], heatmap[y, x + 1]
        dx = 0.25 if right > left else -0.25 if right < left else 0.0
    if 0 < y < h - 1:
        above, below = heatmap[y - 1, x], heatmap[y + 1, x]
        dy = 0.25 if below > above else -0.25 if below < above else 0.0
    return x + 0.5 + dx, y + 0.5 + dy, heatmap[best]


@given(seed=st.integers(0, 10**6), height=st.integers(1, 5), width=st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_decoding_is_the_rule_of_pht(seed: int, height: int, width: int) -> None:
    """Small maps of few values: borders and ties between neighbours in most of them."""
    heatmaps = np.random.default_rng(seed).integers(-2, 3, (2, 3, height, width)).astype(np.float32)
    positions, heat = decode(torch.tensor(heatmaps))
    for person in range(2):
        for joint in range(3):
            x, y, value = slow_decode(heatmaps[person, joint])
            assert positions[person, joint].tolist() == [x, y]
            assert heat[person, joint] == value


def test_decoding_by_hand() -> None:
    heatmap = torch.zeros(1, 1, 5, 6)
    heatmap[0, 0, 3, 2], heatmap[0, 0, 3, 3], heatmap[0, 0, 2, 2] = 4.0, 1.0, 2.0
    position, heat = decode(heatmap)
    assert position.tolist() == [[[2.75, 3.25]]]  # to the right and up
    assert heat.tolist() == [[4.0]]
    heatmap[0, 0, 4, 0] = 9.0  # a corner: nothing to move towards, on neither axis
    assert decode(heatmap)[0].tolist() == [[[0.5, 4.5]]]
    heatmap[0, 0, 0, 3] = 11.0  # the upper border: free to move along it
    heatmap[0, 0, 0, 2] = 1.0
    assert decode(heatmap)[0].tolist() == [[[3.25, 0.5]]]


@pytest.mark.parametrize("sigma", [1.0, 1.75])
def test_decoding_inverts_subpixel_targets(sigma: float) -> None:
    """Within the quarter cell that the rule leaves, on both sides alike."""
    positions = scattered(1000, 1, SIZE - 1, seed=1)
    decoded, heat = decode(draw_targets(positions, SIZE, sigma, "subpixel"))
    error = decoded - positions
    assert error.abs().max() <= 0.25 + 1e-4
    assert error.mean(dim=(0, 1)).abs().max() < 0.005
    fractions = positions - positions.floor()
    for half in (fractions < 0.5, fractions >= 0.5):  # and in each half of the cell
        assert error[half].mean().abs() < 0.01
    off = positions.floor() + 0.5 - positions
    torch.testing.assert_close(heat, torch.exp(-off.square().sum(-1) / (2 * sigma**2)))


def test_decoding_of_floored_targets_is_unbiased() -> None:
    positions = scattered(1000, 1, SIZE - 1, seed=2)
    decoded, heat = decode(draw_targets(positions, SIZE, 1.75, "floor"))
    assert torch.equal(decoded, positions.floor() + 0.5)
    assert torch.equal(heat, torch.ones_like(heat))
    assert (decoded - positions).mean(dim=(0, 1)).abs().max() < 0.01


# ---- mirroring ----


@pytest.mark.parametrize("skeleton", [MPII, LSP], ids=["MPII", "LSP"])
@pytest.mark.parametrize("target", ["subpixel", "floor"])
def test_mirrored_targets_are_targets_of_the_mirrored_joints(skeleton: Skeleton, target: Target) -> None:
    """Exactly, on positions of a 64th of a cell, which mirror without rounding."""
    positions = scattered(20, -1, SIZE + 1, seed=3)[:, : len(skeleton.joints)]
    positions = (positions * 64).floor() / 64 + 1 / 128
    positions[3, 2] = NAN
    flipped = torch.stack([SIZE - positions[..., 0], positions[..., 1]], dim=-1)
    partner = [skeleton.joints.index(_partner(name)) for name in skeleton.joints]
    for joint, other in enumerate(partner):
        assert (joint == other) == (skeleton.joints[joint][:2] not in ("r-", "l-"))
    of_mirrored = draw_targets(flipped[:, partner], SIZE, 1.75, target)
    assert torch.equal(mirror(of_mirrored, skeleton.flip), draw_targets(positions, SIZE, 1.75, target))


def _partner(name: str) -> str:
    return {"r": "l", "l": "r"}[name[0]] + name[1:] if name[1] == "-" else name


def test_mirroring_by_hand_and_twice() -> None:
    maps = torch.arange(12.0).view(1, 3, 2, 2)
    expected = [[[[1, 0], [3, 2]], [[9, 8], [11, 10]], [[5, 4], [7, 6]]]]
    assert mirror(maps, (0, 2, 1)).tolist() == expected
    assert torch.equal(mirror(mirror(maps, (0, 2, 1)), (0, 2, 1)), maps)
