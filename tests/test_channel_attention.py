"""SACWA: the dilated support of Eq. (4), the order of its concatenation, and the gate in closed form."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scanet.model.channel_attention import ChannelAttention, FeatureSelector, SemanticsEncoder


@torch.no_grad()
def encoder_of_ones(channels: int = 1) -> SemanticsEncoder:
    encoder = SemanticsEncoder(channels)
    for part in encoder.dilated:
        if isinstance(part, nn.Conv2d):
            part.weight.fill_(1.0)
            part.bias.zero_()
    return encoder


@torch.no_grad()
def test_dilated_support_of_an_impulse() -> None:
    """{-2, 0, 2} + {-4, 0, 4} reaches every second cell up to 6; -2 and 2 are reached in two ways."""
    x = torch.zeros(1, 1, 17, 17)
    x[0, 0, 8, 8] = 1
    encoded = encoder_of_ones()(x)[0, 0]
    line = torch.zeros(17)
    line[[2, 4, 6, 8, 10, 12, 14]] = torch.tensor([1.0, 1, 2, 1, 2, 1, 1])
    assert torch.equal(encoded, torch.outer(line, line))


@torch.no_grad()
def test_dilation_two_comes_before_dilation_four() -> None:
    """In the corner the zero padding tells the order: 2 then 4 loses what 4 then 2 keeps."""
    x = torch.zeros(1, 1, 12, 12)
    x[0, 0, 0, 0] = 1
    encoded = encoder_of_ones()(x)[0, 0, 0]
    assert encoded.tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0]  # 4 then 2: [1, 0, 2, 0, 1, 0, 1, ...]


@torch.no_grad()
def test_dilated_features_come_before_the_untouched_input() -> None:
    torch.manual_seed(0)
    encoder, x = SemanticsEncoder(5), torch.randn(2, 5, 9, 9)
    u = encoder(x)
    assert u.shape == (2, 10, 9, 9)
    assert torch.equal(u[:, 5:], x)
    assert (u[:, :5] >= 0).all()  # they end in a ReLU
    assert not torch.equal(u[:, :5], x.relu())


@torch.no_grad()
def test_gate_without_weights_is_one_half() -> None:
    torch.manual_seed(1)
    attention = ChannelAttention(8)
    for part in attention.selector.excite:
        if isinstance(part, nn.Linear):
            part.weight.zero_()
            part.bias.zero_()
    x = torch.randn(3, 8, 5, 5)
    selected, gate = attention(x)
    assert torch.equal(gate, torch.full((3, 16), 0.5))
    torch.testing.assert_close(selected, attention.encoder(x) / 2)


@torch.no_grad()
def test_gate_is_squeeze_and_excitation() -> None:
    """Against numpy: mean over positions, 64 -> 4 -> 64, ReLU and sigmoid."""
    torch.manual_seed(2)
    selector, u = FeatureSelector(64), 3 * torch.randn(2, 64, 6, 7)
    first, second = selector.excite[0], selector.excite[2]
    assert first.weight.shape == (4, 64)
    w1, b1, w2, b2 = (p.numpy().astype(np.float64) for p in (first.weight, first.bias, second.weight, second.bias))
    squeezed = u.numpy().astype(np.float64).mean(axis=(2, 3))
    excited = np.maximum(squeezed @ w1.T + b1, 0) @ w2.T + b2
    np.testing.assert_allclose(selector(u).numpy(), 1 / (1 + np.exp(-excited)), rtol=1e-5)


@torch.no_grad()
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), strength=st.floats(0.01, 30.0))
def test_gate_weighs_whole_channels_of_each_image(seed: int, strength: float) -> None:
    """One number in (0, 1) for each channel of each image, whatever the order of its positions."""
    torch.manual_seed(seed)
    attention, x = ChannelAttention(4), strength * torch.randn(2, 4, 6, 6)
    selected, gate = attention(x)
    assert gate.shape == (2, 8)
    assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(selected, attention.encoder(x) * gate[:, :, None, None])
    torch.testing.assert_close(attention(x[1:])[1], gate[1:])  # by itself
    u = attention.encoder(x)
    shuffled = u.flatten(2)[:, :, torch.randperm(36)].view_as(u)
    torch.testing.assert_close(attention.selector(shuffled), gate, rtol=1e-4, atol=1e-6)
