"""Measures of attention maps against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scanet.measure import maps
from scanet.model import gumbel_difference
from scanet.model.spatial_attention import sharpen

CHESS = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 1.0
RAMP = (torch.arange(8) / 7).expand(8, 8)
HALF = torch.full((8, 8), 0.5)
PEAK = torch.zeros(8, 8).index_put((torch.tensor(2), torch.tensor(5)), torch.tensor(1.0))
ALL = torch.stack([CHESS, RAMP, HALF, PEAK])


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (maps.sharpness, [1, 32 / 56, 0, 1]),  # the ramp: the mean of 7, 5, 3, 1 sevenths
        (maps.contrast, [1, 32 / 56, 0, 1]),
        (maps.irregularity, [1, 1 / 14, 0, 4 / 112]),  # a peak differs from four neighbours; there are 112 pairs
        (maps.roughness, [1, 1 / 14, 0, 4 / 112]),
        (maps.low, [0.5, 1 / 8, 0, 63 / 64]),
        (maps.high, [0.5, 1 / 8, 0, 1 / 64]),
        (maps.extent, [0.5, 0.5, 1, 1 / 64]),
    ],
)
def test_closed_forms(measure, expected: list[float]) -> None:  # type: ignore[no-untyped-def]
    assert measure(ALL).tolist() == pytest.approx(expected, rel=1e-5)


@given(scale=st.floats(1e-3, 1), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_what_does_not_depend_on_the_scale(scale: float, seed: int) -> None:
    found = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed))
    joints = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(seed)) * 8
    visible = torch.ones(3, 5, dtype=torch.bool)
    for measure in (maps.contrast, maps.roughness):
        assert measure(scale * found).tolist() == pytest.approx(measure(found).tolist(), rel=1e-3)
        assert measure(found.flip(1)).tolist() == pytest.approx(measure(found).tolist(), rel=1e-4)
    power = 2.0 ** round(math.log2(scale))  # exact, so that no cell at one half changes its side
    assert torch.equal(maps.extent(power * found), maps.extent(found))
    assert torch.equal(maps.coverage(power * found, joints, visible), maps.coverage(found, joints, visible))


def test_coverage_counts_visible_joints_inside() -> None:
    # x, y in cells: on the peak's cell, beside it, outside on either side, on the peak but hidden.
    joints = torch.tensor([[5.99, 2.0], [4.99, 2.0], [8.0, 2.0], [5.0, -0.01], [5.5, 2.5]])
    visible = torch.tensor([True, True, True, True, False])
    assert maps.coverage(PEAK[None], joints[None], visible[None]).tolist() == [0.5]
    assert maps.coverage(HALF[None], joints[None], visible[None]).tolist() == [1.0]
    assert maps.coverage(PEAK[None], joints[None], ~visible[None]).tolist() == [1.0]
    assert maps.coverage(PEAK[None], joints[None, 2:4], visible[None, 2:4]).isnan().all()
    unknown = joints.clone()
    unknown[1] = math.nan  # not annotated, therefore not visible
    hidden = torch.tensor([True, False, True, True, False])
    assert maps.coverage(PEAK[None], unknown[None], hidden[None]).tolist() == [1.0]


def test_temperature_moves_them_as_eq_9_says() -> None:
    """Small tau: values of 0 and 1. Large tau: one half everywhere, and what is left of the map is mostly noise."""
    p = RAMP[None, None]
    noise = gumbel_difference((1, 1, 8, 8), torch.Generator().manual_seed(0))
    small, large = (sharpen(p, tau, noise)[:, 0] for tau in (0.01, 100.0))
    assert maps.sharpness(small).item() > 0.98
    assert maps.sharpness(large).item() < 0.05
    assert maps.irregularity(large).item() < 0.02 < maps.irregularity(small).item()


def test_values_at_the_joints_and_beside_the_person() -> None:
    """A map of 0.9 in columns 3 to 5 and 0.1 elsewhere, and a person whose widened box is from 2.4 to 6.3 across."""
    found = torch.full((1, 8, 8), 0.1)
    found[:, :, 3:6] = 0.9
    joints = torch.tensor([[[3.5, 0.9], [5.5, 7.1], [3.2, 3.0], [1.0, 1.0]]])
    visible = torch.tensor([[True, True, True, False]])
    assert maps.at_joints(found, joints, visible).item() == pytest.approx(0.9)
    assert maps.background(found, joints, visible).item() == pytest.approx(0.1)
    everyone = torch.ones(1, 4, dtype=torch.bool)
    assert maps.at_joints(found, joints, everyone).item() == pytest.approx((3 * 0.9 + 0.1) / 4)
    narrow = torch.tensor([[[4.5, 1.0], [4.5, 7.0]]])  # columns 3.7 to 5.3: two of the three stand outside
    assert maps.background(found, narrow, everyone[:, :2]).item() == pytest.approx((2 * 0.9 + 5 * 0.1) / 7)
    assert maps.background(found, joints, ~everyone).isnan().all()
