"""Eq. (5)-(9): closed forms, limits, the noise's distribution, and what must stay finite."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scanet.config import Attention
from scanet.model.spatial_attention import (
    PROBABILITY_FLOOR,
    SpatialAttention,
    gumbel_difference,
    mean_map,
    normalise,
    sharpen,
    soft_attention,
)

SIZE = 16
TAUS = [0.01, 0.1, 0.5, 1.0, 5.0, 100.0]


def maps(seed: int, spread: float = 1.0, batch: int = 2, size: int = SIZE) -> Tensor:
    return spread * torch.randn(batch, 1, size, size, generator=torch.Generator().manual_seed(seed))


# ---- the initial map ----


@given(seed=st.integers(0, 10**6), spread=st.floats(1e-4, 1e4))
@settings(deadline=None, max_examples=40)
def test_soft_attention_is_the_softmax_over_positions(seed: int, spread: float) -> None:
    a = maps(seed, spread)
    f = soft_attention(a)
    assert f.dtype == torch.float32
    e = np.exp(a.double().numpy() - a.double().numpy().max(axis=(2, 3), keepdims=True))
    np.testing.assert_allclose(f.numpy(), e / e.sum(axis=(2, 3), keepdims=True), rtol=2e-3, atol=1e-7)
    torch.testing.assert_close(f.sum(dim=(1, 2, 3)), torch.ones(2))


# ---- Eq. (5) ----


def equation_5(logits: Tensor) -> Tensor:
    """The softmax map stretched to [0, 1], in float64."""
    f = logits.double().flatten(1).softmax(dim=1)
    low, high = f.amin(dim=1, keepdim=True), f.amax(dim=1, keepdim=True)
    return ((f - low) / (high - low)).view_as(logits)


@given(seed=st.integers(0, 10**6), spread=st.floats(1e-3, 200.0))
@settings(deadline=None, max_examples=60)
def test_normalised_map_is_equation_5(seed: int, spread: float) -> None:
    a = maps(seed, spread)
    p = normalise(a)
    torch.testing.assert_close(p.double(), equation_5(a), rtol=1e-5, atol=1e-6)
    assert torch.equal(p.amin(dim=(1, 2, 3)), torch.zeros(2))  # exactly
    assert torch.equal(p.amax(dim=(1, 2, 3)), torch.ones(2))
    assert (p[a == a.amax(dim=(2, 3), keepdim=True)] == 1).all()
    assert (p[a == a.amin(dim=(2, 3), keepdim=True)] == 0).all()


def test_equation_5_by_hand() -> None:
    """Softmax values in the ratio 1 : 2 : 3 : 5 become 0, 1/4, 1/2 and 1."""
    a = torch.tensor([1.0, 2.0, 3.0, 5.0]).log().view(1, 1, 2, 2)
    torch.testing.assert_close(normalise(a).flatten(), torch.tensor([0, 0.25, 0.5, 1]))


@given(seed=st.integers(0, 10**6), constant=st.integers(-64, 64))
@settings(deadline=None, max_examples=30)
def test_a_constant_added_to_the_logits_changes_nothing(seed: int, constant: int) -> None:
    a = (maps(seed) * 256).round() / 256  # a grid on which adding a whole number is exact
    assert torch.equal(normalise(a + constant), normalise(a))


@pytest.mark.parametrize("value", [0.0, 3.25, -1e4, 1e4])
def test_a_constant_map_gives_one_half(value: float) -> None:
    a = torch.full((2, 1, SIZE, SIZE), value)
    a[1] = maps(1)[0]
    p = normalise(a)
    assert torch.equal(p[0], torch.full_like(p[0], 0.5))
    assert torch.equal(p[1], normalise(a[1:])[0])  # its neighbour in the batch is left alone


# ---- Eq. (6)-(9) ----


def gumbels(seed: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Eq. (8): -log(-log u) of uniform draws."""
    random = torch.Generator().manual_seed(seed)
    u = torch.rand(2, *shape, generator=random, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    g = -torch.log(-torch.log(u))
    return g[0], g[1]


@given(seed=st.integers(0, 10**6), tau=st.floats(0.05, 50.0))
@settings(deadline=None, max_examples=50)
def test_equation_9_is_the_softmax_over_two_classes(seed: int, tau: float) -> None:
    p = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.998 + 0.001
    g1, g0 = gumbels(seed + 1, tuple(p.shape))
    one, zero = (torch.log(p) + g1) / tau, (torch.log1p(-p) + g0) / tau
    high = torch.maximum(one, zero)
    expected = torch.exp(one - high) / (torch.exp(one - high) + torch.exp(zero - high))
    got = sharpen(p.float(), tau, (g1 - g0).float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=2e-3, atol=2e-4 if tau < 0.5 else 2e-5)


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_small_tau_gives_the_hard_draw_on_the_same_noise(seed: int) -> None:
    """Eq. (7): one where log p1 + g1 is the larger of the two, zero elsewhere."""
    p = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 0.98 + 0.01
    g1, g0 = gumbels(seed + 1, tuple(p.shape))
    margin = torch.log(p.double()) + g1 - torch.log1p(-p.double()) - g0
    soft = sharpen(p, 1e-4, (g1 - g0).float())
    clear = margin.abs() > 2e-3  # ties apart
    assert clear.float().mean() > 0.9
    torch.testing.assert_close(soft[clear], (margin > 0).float()[clear], rtol=0, atol=1e-6)


def test_large_tau_gives_one_half() -> None:
    p = normalise(maps(2))
    noise = gumbel_difference(p.shape, torch.Generator().manual_seed(3))
    for n in (None, noise):
        assert (sharpen(p, 1e6, n) - 0.5).abs().max() < 1e-5


@given(seed=st.integers(0, 10**6), spread=st.floats(0.01, 50.0))
@settings(deadline=None, max_examples=30)
def test_without_noise_tau_one_gives_the_probabilities_back(seed: int, spread: float) -> None:
    p = normalise(maps(seed, spread))
    torch.testing.assert_close(sharpen(p, 1.0), p, rtol=0, atol=2 * PROBABILITY_FLOOR)


def test_tau_sharpens_or_flattens_around_one_half() -> None:
    p = torch.linspace(0.01, 0.99, 99).view(1, 1, 9, 11)
    logit = torch.logit(p)
    for tau in TAUS:
        torch.testing.assert_close(torch.logit(sharpen(p, tau).double()).clamp(-12, 12),
                                   (logit.double() / tau).clamp(-12, 12), rtol=1e-2, atol=1e-4)  # fmt: skip
    torch.testing.assert_close(sharpen(1 - p, 0.3), 1 - sharpen(p, 0.3))


# ---- the noise ----


def test_noise_is_the_difference_of_two_gumbel_draws() -> None:
    noise = gumbel_difference((4, 2, 50, 50), torch.Generator().manual_seed(4)).flatten().numpy()
    assert scipy.stats.kstest(noise, "logistic").pvalue > 0.01
    g1, g0 = gumbels(5, (20000,))
    assert scipy.stats.ks_2samp(noise, (g1 - g0).numpy()).pvalue > 0.01
    assert np.isfinite(noise).all()


def test_noise_is_the_generator_s() -> None:
    def draw(seed: int) -> Tensor:
        return gumbel_difference((2, 1, 8, 8), torch.Generator().manual_seed(seed))

    torch.manual_seed(0)
    first = draw(1)
    torch.manual_seed(1)
    assert torch.equal(draw(1), first)
    assert not torch.equal(draw(2), first)
    assert first.unique().numel() > 120  # every position has a draw of its own


@pytest.mark.parametrize(("p", "protocol"), [(0.9, 0.816), (0.01, 0.037)])
def test_mean_of_the_noisy_map_is_not_the_map(p: float, protocol: float) -> None:
    """At tau = 1 the mean over the noise is r (r - 1 - log r) / (r - 1)^2 with r = p / (1 - p)."""
    r = p / (1 - p)
    expected = r * (r - 1 - np.log(r)) / (r - 1) ** 2
    assert expected == pytest.approx(protocol, abs=5e-4)
    noise = gumbel_difference((1, 1, 600, 600), torch.Generator().manual_seed(6))
    sampled = sharpen(torch.full_like(noise, p), 1.0, noise).mean().item()
    assert sampled == pytest.approx(expected, abs=1.5e-3)


def test_hard_draws_are_bernoulli() -> None:
    """Eq. (7) draws 1 with probability p."""
    noise = gumbel_difference((1, 1, 500, 500), torch.Generator().manual_seed(7))
    for p in (0.03, 0.5, 0.8):
        assert sharpen(torch.full_like(noise, p), 1e-4, noise).mean().item() == pytest.approx(p, abs=4e-3)


# ---- finite, always ----

AWKWARD = {
    "constant": torch.zeros(1, 1, 8, 8),
    "constant and huge": torch.full((1, 1, 8, 8), 1e4),
    "spread 1e-7": maps(8, 1e-7, 1, 8),
    "spread 1e-3": maps(9, 1e-3, 1, 8),
    "around the limit of flatness": maps(10, 3e-7, 1, 8),
    "plain": maps(11, 1.0, 1, 8),
    "huge": 1e4 * torch.sign(maps(12, 1.0, 1, 8)),
    "huge and one peak": torch.where(torch.arange(64).view(1, 1, 8, 8) == 20, 1e4, -1e4),
}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("logits", AWKWARD.values(), ids=AWKWARD)
def test_values_and_gradients_are_finite(logits: Tensor, tau: float, noisy: bool, bf16: bool) -> None:
    a = logits.clone().requires_grad_()
    noise = gumbel_difference(a.shape, torch.Generator().manual_seed(13)) if noisy else None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        attention = sharpen(normalise(a), tau, noise)
    assert attention.dtype == torch.float32
    assert ((attention >= 0) & (attention <= 1)).all()
    (attention * torch.arange(64).view(1, 1, 8, 8)).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("tau", TAUS)
def test_probabilities_of_exactly_zero_and_one(tau: float) -> None:
    p = torch.tensor([0.0, 0.25, 0.75, 1.0]).view(1, 1, 2, 2).requires_grad_()
    noise = torch.tensor([5.0, -1.0, 1.0, -5.0]).view(1, 1, 2, 2)
    for n in (None, noise):
        attention = sharpen(p, tau, n)
        assert attention.isfinite().all()
        (gradient,) = torch.autograd.grad(attention.sum(), p)
        assert gradient.isfinite().all()
    ends = sharpen(p, tau).detach().flatten()[[0, 3]]
    expected = torch.sigmoid(torch.tensor([-1.0, 1.0]) * np.log((1 - PROBABILITY_FLOOR) / PROBABILITY_FLOOR) / tau)
    torch.testing.assert_close(ends, expected, rtol=0.1, atol=1e-6)


def test_gradient_is_that_of_equation_5_and_9() -> None:
    """Backward against central differences of the float64 definition."""
    tau, noise = 0.7, gumbel_difference((1, 1, 4, 4), torch.Generator().manual_seed(14))
    a = maps(15, 1.0, 1, 4).requires_grad_()
    weight = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(16))

    def loss(logits: Tensor) -> float:
        p = equation_5(logits).clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
        return float((torch.sigmoid((torch.logit(p) + noise) / tau) * weight).sum())

    (sharpen(normalise(a), tau, noise) * weight).sum().backward()
    base = a.detach().double()
    extremes = {int(base.argmin()), int(base.argmax())}  # Eq. (5) has a corner there
    for i in range(16):
        if i in extremes:
            continue
        step = torch.zeros(16, dtype=torch.float64)
        step[i] = 1e-6
        step = step.view_as(base)
        numeric = (loss(base + step) - loss(base - step)) / 2e-6
        assert a.grad is not None
        assert a.grad.flatten()[i].item() == pytest.approx(numeric, rel=1e-3, abs=1e-5)


# ---- the module ----


def module(kind: Attention, tau: float = 1.0, channels: int = 6) -> SpatialAttention:
    torch.manual_seed(17)
    return SpatialAttention(channels, kind, tau)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sharper", "soft"])
def test_attended_features_are_the_input_times_the_map(kind: Attention) -> None:
    ssa, x = module(kind, tau=0.5), torch.randn(2, 6, 8, 8)
    noise = gumbel_difference((2, 1, 8, 8), torch.Generator().manual_seed(18))
    attended, found = ssa(x, noise)
    hidden = torch.einsum("oc,bchw->bohw", ssa.generator[0].weight[:, :, 0, 0], x)
    hidden = (hidden + ssa.generator[0].bias.view(1, -1, 1, 1)).relu()
    logits = torch.einsum("oc,bchw->bohw", ssa.generator[2].weight[:, :, 0, 0], hidden) + ssa.generator[2].bias
    torch.testing.assert_close(found["logits"], logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attended, x * found["attention"])
    if kind == "soft":
        assert found.keys() == {"logits", "attention"}
        assert torch.equal(found["attention"], soft_attention(found["logits"]))
        assert torch.equal(ssa(x)[0], attended)  # it knows no noise
    else:
        assert found.keys() == {"logits", "probability", "attention"}
        assert torch.equal(found["probability"], normalise(found["logits"]))
        assert torch.equal(found["attention"], sharpen(found["probability"], 0.5, noise))
        assert not torch.equal(ssa(x)[0], attended)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["rescaled", "stretched"])
def test_controls_lie_between_soft_and_sharper_attention(kind: Attention) -> None:
    """Rescaled: the soft map with a mean of 1. Stretched: sharper attention at tau = 1 without noise."""
    control, x = module(kind), torch.randn(2, 6, 8, 8)
    attended, found = control(x)
    torch.testing.assert_close(attended, x * found["attention"])
    if kind == "rescaled":
        torch.testing.assert_close(found["attention"], 64 * module("soft")(x)[1]["attention"])
        torch.testing.assert_close(found["attention"].mean(dim=(1, 2, 3)), torch.ones(2))
    else:
        torch.testing.assert_close(found["attention"], module("sharper")(x)[1]["attention"], rtol=0, atol=2e-6)
        assert torch.equal(found["attention"].amax(dim=(1, 2, 3)), torch.ones(2))
    assert torch.equal(control(x, torch.randn(2, 1, 8, 8))[0], attended)  # it knows no noise


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sharper", "soft"])
def test_maps_are_in_fp32_under_autocast(kind: Attention) -> None:
    ssa, x = module(kind), torch.randn(2, 6, 8, 8)
    noise = gumbel_difference((2, 1, 8, 8), torch.Generator().manual_seed(19))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attended, found = ssa(x.bfloat16(), noise)
    assert attended.dtype == torch.bfloat16
    assert found["logits"].dtype == found["attention"].dtype == torch.float32
    logits = found["logits"]
    if kind == "soft":
        torch.testing.assert_close(found["attention"], soft_attention(logits))
    else:
        assert found["probability"].dtype == torch.float32
        torch.testing.assert_close(found["probability"].double(), equation_5(logits), rtol=1e-5, atol=1e-6)
        assert torch.equal(found["attention"], sharpen(normalise(logits), 1.0, noise))


def test_gradient_of_the_map_survives_autocast() -> None:
    """As in trained networks: on a person all logits are near the last layer's bias, beside it far lower.

    In bf16 those of the person would be one number, the highest. Eq. (5) is 1 there, and Eq. (6)'s clamp passes no
    gradient.
    """
    random = torch.Generator().manual_seed(22)
    ssa = SpatialAttention(64, "sharper", 1.0)
    first, _, last = ssa.generator
    assert isinstance(first, torch.nn.Conv2d)
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    with torch.no_grad():
        first.weight.copy_(torch.eye(64)[..., None, None])
        first.bias.zero_()  # type: ignore[union-attr]
        last.weight.copy_(-1.5 + 0.3 * torch.randn(1, 64, 1, 1, generator=random))
        last.bias.fill_(0.15)
        x = torch.rand(2, 64, 8, 8, generator=random) * 4e-5  # a person
        x[..., :2] = 1  # and what is beside it
    noise = gumbel_difference((2, 1, 8, 8), random)
    error = torch.randn(2, 64, 8, 8, generator=random)
    found = []
    for enabled in (False, True):
        ssa.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            attended, maps = ssa(x, noise)
        (attended.float() * error).sum().backward()
        logits = maps["logits"].flatten(1)
        person = logits.unflatten(1, (8, 8))[..., 2:].flatten(1)
        assert (logits.amin(dim=1) < -80).all()
        assert (person.amax(dim=1) - person.amin(dim=1)).max() < 2e-3
        assert (maps["probability"] == 1).sum() == 2  # one cell of each image
        assert last.weight.grad is not None
        found.append(last.weight.grad.flatten().clone())
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.9


def test_gradient_behind_the_sharper_map_is_the_larger_one() -> None:
    """§2.3, of the convolution whose input is the attended feature.

    At one and the same error behind it the gradient of that convolution's weights is linear in the map, and
    f = (max f - min f) p + min f. So the gradient with soft attention is (max f - min f) times the one with the
    sharper map at tau = 1, plus min f times the one without a map, and is hundreds of times smaller.
    """
    sharper, soft = module("sharper"), module("soft")
    soft.load_state_dict(sharper.state_dict())
    x = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(20))
    error = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(21))

    def gradients(features: Tensor) -> Tensor:
        """Of each image's share of the loss: (b, 3, 6)."""
        weight = torch.zeros(2, 3, 6, requires_grad=True)
        (torch.einsum("boc,bchw->bohw", weight, features.detach()) * error).sum().backward()
        assert weight.grad is not None
        return weight.grad

    f = soft(x)[1]["attention"]
    low, high = (f.amin(dim=(2, 3)), f.amax(dim=(2, 3)))
    low, high = low[:, :, None], high[:, :, None]
    of_sharper, of_soft, of_none = gradients(sharper(x)[0]), gradients(soft(x)[0]), gradients(x)
    torch.testing.assert_close(of_soft, (high - low) * of_sharper + low * of_none, rtol=1e-3, atol=1e-6)
    assert of_sharper.norm() > 20 * of_soft.norm()


# ---- the mean of the noisy map ----


@pytest.mark.parametrize(("tau", "within"), [(0.1, 0.01), (1.0, 0.002), (10.0, 0.001)])
def test_mean_map_is_the_expectation_over_the_noise(tau: float, within: float) -> None:
    p = torch.linspace(0, 1, 101).view(1, 1, 1, -1)
    noise = torch.logit((torch.arange(20_000) + 0.5) / 20_000)  # the logistic distribution's quantiles
    logit = torch.logit(p.flatten(), eps=PROBABILITY_FLOOR)
    expected = torch.sigmoid((logit[:, None] + noise) / tau).mean(dim=1)
    assert (mean_map(p, tau).flatten() - expected).abs().max() < within
    if tau == 1.0:  # far from the noise-free map, which is p itself
        torch.testing.assert_close(
            mean_map(torch.tensor([[[[0.9, 0.01]]]]), tau).flatten(), torch.tensor([0.816, 0.037]), atol=2e-3, rtol=0
        )


@torch.no_grad()
def test_mean_map_is_for_testing_without_noise() -> None:
    torch.manual_seed(0)
    attention = SpatialAttention(4, "sharper", 1.0, test_map="mean")
    x, noise = torch.randn(2, 4, 8, 8), torch.zeros(2, 1, 8, 8)
    for training, drawn, averaged in ((True, None, False), (False, noise, False), (False, None, True)):
        maps = attention.train(training)(x, drawn)[1]
        expected = mean_map(maps["probability"], 1.0) if averaged else maps["probability"]
        torch.testing.assert_close(maps["attention"], expected, atol=1e-5, rtol=1e-4)
