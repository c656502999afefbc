"""Eq. (1)-(3) with kernels set by hand, and MSFI against its definition."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scanet.model.message_passing import MessagePassing, MultiScaleIntegration

SIZE = 8
H = (0.5, -2.0, 3.0)  # F31 -> F32 -> F33 -> F34
G = (0.25, 1.5, -4.0)  # F34 -> F33 -> F32 -> F31


def set_kernel(convolution: nn.Conv2d, weight: float, shift: int = 0) -> None:
    """The identity times a weight, which also moves the map to the right by `shift`."""
    convolution.weight.zero_()
    convolution.bias.zero_()
    for c in range(convolution.out_channels):
        convolution.weight[c, c, 1, 1 - shift] = weight


@torch.no_grad()
def by_hand(channels: int, half: str, shift: int = 0) -> MessagePassing:
    """Known weights on the arrows; the fusion hands on one half of what it gets."""
    bdmp = MessagePassing(channels)
    for convolution, weight in zip((*bdmp.H, *bdmp.G), H + G, strict=True):
        set_kernel(convolution, weight, shift)
    for r in bdmp.R:
        r.bias.zero_()
        first, second = (torch.eye(channels), torch.zeros(channels, channels))
        pair = (first, second) if half == "fine to coarse" else (second, first)
        r.weight[:, :, 0, 0] = torch.cat(pair, dim=1)
    return bdmp


@pytest.fixture(scope="module")
def f3() -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, SIZE, SIZE, generator=random) for _ in range(4)]


@torch.no_grad()
def test_messages_from_fine_to_coarse(f3: list[Tensor]) -> None:
    f31, f32, f33, f34 = f3
    a1, a2, a3 = H
    expected = [
        f31,
        f32 + a1 * f31,
        f33 + a2 * f32 + a2 * a1 * f31,
        f34 + a3 * f33 + a3 * a2 * f32 + a3 * a2 * a1 * f31,
    ]
    for got, e in zip(by_hand(3, "fine to coarse")(f3), expected, strict=True):
        torch.testing.assert_close(got, e, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_one_direction_alone_is_both_with_the_other_s_messages_silent(f3: list[Tensor], shared: bool) -> None:
    both = MessagePassing(3, shared=shared)
    for direction, silent in (("top-down", both.G), ("bottom-up", both.H)):
        one = MessagePassing(3, messages=direction, shared=shared)
        weights = {name: value for name, value in both.state_dict().items() if name in one.state_dict()}
        one.load_state_dict(weights)
        assert len(weights) == len(both.state_dict()) - 2 * len(silent)
        with torch.no_grad():
            kept = [parameter.clone() for parameter in silent.parameters()]
            for parameter in silent.parameters():
                parameter.zero_()
            expected = both(f3)
            for parameter, value in zip(silent.parameters(), kept, strict=True):
                parameter.copy_(value)
            assert all(torch.equal(got, e) for got, e in zip(one(f3), expected, strict=True))
            assert not all(torch.equal(got, e) for got, e in zip(one(f3), both(f3), strict=True))


@torch.no_grad()
def test_messages_from_coarse_to_fine(f3: list[Tensor]) -> None:
    f31, f32, f33, f34 = f3
    b1, b2, b3 = G
    expected = [
        f31 + b3 * f32 + b3 * b2 * f33 + b3 * b2 * b1 * f34,
        f32 + b2 * f33 + b2 * b1 * f34,
        f33 + b1 * f34,
        f34,
    ]
    for got, e in zip(by_hand(3, "coarse to fine")(f3), expected, strict=True):
        torch.testing.assert_close(got, e, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_one_weight_gives_a_geometric_series(f3: list[Tensor]) -> None:
    """All kernels the same delta of weight a: F34 gets a F33 + a^2 F32 + a^3 F31, and F31 the mirror of it."""
    a, bdmp = 0.5, by_hand(3, "fine to coarse")
    for convolution in (*bdmp.H, *bdmp.G):
        set_kernel(convolution, a)
    for r in bdmp.R:  # the mean of both halves
        r.weight[:, :, 0, 0] = torch.cat([torch.eye(3), torch.eye(3)], dim=1) / 2
    powers = a ** (np.arange(4)[:, None] - np.arange(4)).clip(0)
    down = np.tril(powers)  # row k: what F3k is made of
    mixed = torch.tensor((down + down[::-1, ::-1]) / 2, dtype=torch.float32)
    expected = torch.einsum("km,mbchw->kbchw", mixed, torch.stack(f3))
    torch.testing.assert_close(torch.stack(bdmp(f3)), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_message_goes_one_step_for_each_arrow() -> None:
    """Kernels that move a map by one cell: after k arrows an impulse has moved k cells."""
    impulse = torch.zeros(1, 1, SIZE, SIZE)
    impulse[0, 0, 4, 2] = 1
    nothing = torch.zeros_like(impulse)
    got = by_hand(1, "fine to coarse", shift=1)([impulse, nothing, nothing, nothing])
    for k, (f, weight) in enumerate(zip(got, np.cumprod([1, *H]), strict=True)):
        assert {(y, x, f[0, 0, y, x].item()) for _, _, y, x in f.nonzero().tolist()} == {(4, 2 + k, weight)}
    got = by_hand(1, "coarse to fine", shift=1)([nothing, nothing, nothing, impulse])
    for k, (f, weight) in enumerate(zip(reversed(got), np.cumprod([1, *G]), strict=True)):
        assert {(y, x, f[0, 0, y, x].item()) for _, _, y, x in f.nonzero().tolist()} == {(4, 2 + k, weight)}


@torch.no_grad()
def test_fusion_reads_fine_to_coarse_first(f3: list[Tensor]) -> None:
    """Eq. (3) is one 1x1 convolution of both passes at a level: with no messages, R = [u, v] gives u F + v F."""
    bdmp = MessagePassing(3)
    for part in (*bdmp.H, *bdmp.G):
        set_kernel(part, 0.0)
    for r, f, got in zip(bdmp.R, f3, bdmp(f3), strict=True):
        both = r.weight[:, :3, 0, 0] + r.weight[:, 3:, 0, 0]
        expected = torch.einsum("oc,bchw->bohw", both, f) + r.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_msfi_is_the_concatenation_of_its_reductions() -> None:
    torch.manual_seed(1)
    msfi = MultiScaleIntegration(16, messages="none")
    f1 = [torch.randn(2, 16, 16 >> i, 16 >> i) for i in range(4)]
    got = msfi(f1)
    assert got.shape == (2, 8, 16, 16)
    for level, (reduce, f) in enumerate(zip(msfi.reduce, f1, strict=True)):
        for y in range(16):
            for x in range(16):
                expected = f[:, :, y >> level, x >> level] @ reduce.weight[:, :, 0, 0].T + reduce.bias
                torch.testing.assert_close(got[:, 2 * level : 2 * level + 2, y, x], expected)


@torch.no_grad()
def test_msfi_passes_its_levels_through_bdmp() -> None:
    torch.manual_seed(2)
    plain, passing = MultiScaleIntegration(16, messages="none"), MultiScaleIntegration(16, messages="both")
    passing.load_state_dict(plain.state_dict(), strict=False)
    f1 = [torch.randn(1, 16, 16 >> i, 16 >> i) for i in range(4)]
    expected = torch.cat(passing.bdmp(list(plain(f1).split(2, dim=1))), dim=1)
    torch.testing.assert_close(passing(f1), expected)


@torch.no_grad()
def test_shared_messages_are_those_of_equal_convolutions(f3: list[Tensor]) -> None:
    """One H and one G give what three equal ones give, with a third of their parameters."""
    torch.manual_seed(0)
    shared, apart = MessagePassing(3, shared=True), MessagePassing(3)
    apart.R.load_state_dict(shared.R.state_dict())
    for ours, theirs in ((shared.H, apart.H), (shared.G, apart.G)):
        assert len(ours) == 1
        for convolution in theirs:
            convolution.load_state_dict(ours[0].state_dict())
    for one, other in zip(shared(f3), apart(f3), strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_coarse_levels_are_up_sampled_as_asked() -> None:
    """A ramp stays a ramp by bilinear interpolation, and becomes steps by the nearest neighbour."""
    levels = [torch.zeros(1, 8, SIZE >> i, SIZE >> i) for i in range(4)]
    levels[1][:] = torch.arange(SIZE // 2, dtype=torch.float32)
    for upsampling, expected in (
        ("nearest", torch.arange(SIZE) // 2),
        ("bilinear", ((torch.arange(SIZE) - 0.5) / 2).clamp(0, SIZE // 2 - 1)),
    ):
        integration = MultiScaleIntegration(8, messages="none", upsampling=upsampling)
        for reduce in integration.reduce:
            reduce.weight[:] = 1 / 8
            reduce.bias.zero_()
        torch.testing.assert_close(integration(levels)[0, 1, 0], expected.float())
