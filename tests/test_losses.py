"""The loss by hand: means, the sum over stacks, and the joints that hard mining keeps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scanet.losses import heatmap_loss


def constant_errors(errors: list[list[list[float]]]) -> tuple[Tensor, Tensor]:
    """Heat maps whose squared error is the given number at every cell: (persons, stacks, joints)."""
    squared = torch.tensor(errors)
    targets = torch.randn(squared.shape[0], squared.shape[2], 2, 3, generator=torch.Generator().manual_seed(0))
    return targets[:, None] + squared.sqrt()[..., None, None], targets


def test_by_hand() -> None:
    """Two persons, one stack, two joints, 1 x 2 cells."""
    heatmaps = torch.tensor([[[[[1.0, 2.0]], [[0.0, 0.0]]]], [[[[0.5, 0.0]], [[-1.0, 3.0]]]]])
    targets = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[1.0, 3.0]]]])
    # squared errors: 0, 4 | 0, 0 || 0.25, 0 | 4, 0
    assert heatmap_loss(heatmaps, targets).item() == pytest.approx(8.25 / 8)
    # the hardest joint of each person: 2 and 2
    assert heatmap_loss(heatmaps, targets, 1).item() == pytest.approx(2.0)


def test_stacks_are_summed() -> None:
    heatmaps, targets = constant_errors([[[1.0, 3.0], [10.0, 20.0]], [[5.0, 7.0], [0.0, 2.0]]])
    assert heatmap_loss(heatmaps, targets).item() == pytest.approx(4.0 + 8.0)
    single = [heatmap_loss(heatmaps[:, i : i + 1], targets).item() for i in range(2)]
    assert heatmap_loss(heatmaps, targets).item() == pytest.approx(sum(single))


def test_hard_mining_keeps_the_hardest_of_each_person_in_each_stack() -> None:
    heatmaps, targets = constant_errors([[[1.0, 9.0, 4.0], [7.0, 0.0, 2.0]], [[3.0, 3.0, 3.0], [1.0, 2.0, 6.0]]])
    expected = {1: (9 + 3) / 2 + (7 + 6) / 2, 2: (13 + 6) / 4 + (9 + 8) / 4, 3: (14 + 9) / 6 + (9 + 9) / 6}
    for k, value in expected.items():
        assert heatmap_loss(heatmaps, targets, k).item() == pytest.approx(value, rel=1e-5)


def test_a_joint_without_a_target_is_not_mined() -> None:
    """The plain loss trains it towards an empty map; hard mining takes others, however wrong its map is."""
    heatmaps, targets = constant_errors([[[100.0, 9.0, 4.0]], [[50.0, 60.0, 3.0]]])
    for person, joint in ((0, 0), (1, 0), (1, 1)):
        heatmaps[person, :, joint] -= targets[person, joint]
        targets[person, joint] = 0.0
    assert heatmap_loss(heatmaps, targets).item() == pytest.approx((113 + 113) / 6, rel=1e-5)
    # with too few that have one, none takes their place
    expected = {1: (9 + 3) / 2, 2: (13 + 3) / 4, 3: (13 + 3) / 6, 4: (13 + 3) / 6}
    for k, value in expected.items():
        assert heatmap_loss(heatmaps, targets, k).item() == pytest.approx(value, rel=1e-5)


def test_only_the_kept_joints_have_a_gradient() -> None:
    heatmaps, targets = constant_errors([[[1.0, 9.0, 4.0], [7.0, 0.5, 2.0]]])
    heatmaps.requires_grad_()
    heatmap_loss(heatmaps, targets, 2).backward()
    assert heatmaps.grad is not None
    assert (heatmaps.grad[0] != 0).any(dim=(2, 3)).tolist() == [[False, True, True], [True, False, True]]
    torch.testing.assert_close(heatmaps.grad[0, 0, 1], torch.full((2, 3), 2 * 3.0 / (6 * 2)))


@given(seed=st.integers(0, 10**6), stacks=st.integers(1, 3), joints=st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_keeping_all_joints_is_the_plain_loss(seed: int, stacks: int, joints: int) -> None:
    random = torch.Generator().manual_seed(seed)
    heatmaps = torch.randn(2, stacks, joints, 4, 4, generator=random)
    targets = torch.randn(2, joints, 4, 4, generator=random)
    plain = heatmap_loss(heatmaps, targets)
    for k in (None, joints, joints + 1):
        torch.testing.assert_close(heatmap_loss(heatmaps, targets, k), plain)
    slow = sum((heatmaps[:, i] - targets).square().mean() for i in range(stacks))
    torch.testing.assert_close(plain, slow)
    mined = [heatmap_loss(heatmaps, targets, k).item() for k in range(1, joints + 1)]
    assert mined == sorted(mined, reverse=True)  # fewer joints, and harder ones
    assert heatmap_loss(targets[:, None].expand(-1, stacks, -1, -1, -1), targets, 1) == 0


def test_half_precision_heat_maps_are_compared_in_fp32() -> None:
    """A difference of 1e-3 from a target of 1 is lost in bf16, where the loss would be zero."""
    targets = torch.full((1, 1, 2, 2), 1.001)
    heatmaps = torch.ones(1, 1, 1, 2, 2, dtype=torch.bfloat16)
    loss = heatmap_loss(heatmaps, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e-6, rel=1e-2)
