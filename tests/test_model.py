"""The hourglass against a slow reference, the network's plan, and the counts of parameters, to the last one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scanet.config import ROWS, Network
from scanet.cost import flops, parameters
from scanet.model import SCANet
from scanet.model.channel_attention import ChannelAttention
from scanet.model.hourglass import DEPTH, Hourglass, Residual, Stem, enlarge
from scanet.model.message_passing import MultiScaleIntegration
from scanet.model.spatial_attention import SpatialAttention

BATCH, STACKS, CELLS = 2, 2, 16
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA's list of fp32 operations")


def small(row: str, **changes: object) -> Network:
    return Network(**({"row": ROWS[row], "joints": 14, "stacks": STACKS, "channels": 16} | changes))


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, every normalisation with statistics and an affine map of its own."""
    random = torch.Generator().manual_seed(seed)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values, low, high in (
                (part.weight, 0.5, 1.5), (part.bias, -0.3, 0.3), (part.running_mean, -0.3, 0.3),
                (part.running_var, 0.5, 2.0),
            ):  # fmt: skip
                values.data.uniform_(low, high, generator=random)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(BATCH, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 0.5


@pytest.fixture(scope="module")
def networks() -> dict[str, SCANet]:
    torch.manual_seed(2)
    return {name: shaken(SCANet(small(name))) for name in ROWS}


# ---- counts ----


@pytest.mark.parametrize(
    ("row", "stacks", "expected"),
    [
        ("Baseline", 1, 3_426_448), ("Baseline", 2, 6_570_400), ("Baseline", 4, 12_858_304),
        ("Baseline", 8, 25_434_112), ("ALL", 4, 15_581_956),
    ],
)  # fmt: skip
def test_parameters_of_the_paper(row: str, stacks: int, expected: int) -> None:
    assert parameters(Network(row=ROWS[row], stacks=stacks)) == expected


@pytest.mark.parametrize("cost", [parameters, flops])
def test_every_stack_after_the_first_costs_the_same(cost: Callable[[Network], int]) -> None:
    one, two, four = (cost(small("ALL", stacks=stacks)) for stacks in (1, 2, 4))
    assert four - two == 2 * (two - one) > 0


def test_operations_by_hand() -> None:
    """A residual block's three convolutions at every place that has one; 64 pixels, so maps of 16 to 1 cells."""

    def convolution(inputs: int, outputs: int, kernel: int, cells: int) -> int:
        return 2 * inputs * outputs * kernel**2 * cells**2

    def residual(inputs: int, outputs: int, cells: int) -> int:
        middle = outputs // 2
        skip = 0 if inputs == outputs else convolution(inputs, outputs, 1, cells)
        return skip + sum(
            convolution(i, o, k, cells)
            for i, o, k in ((inputs, middle, 1), (middle, middle, 3), (middle, outputs, 1))
        )

    stem = convolution(3, 4, 7, 32) + residual(4, 8, 32) + residual(8, 8, 16) + residual(8, 16, 16)
    levels = sum(residual(16, 16, cells) + 2 * residual(16, 16, cells // 2) for cells in (16, 8, 4, 2))
    output = residual(16, 16, 16) + convolution(16, 16, 1, 16) + convolution(16, 14, 1, 16)
    assert flops(small("Baseline", stacks=1), 64) == stem + levels + residual(16, 16, 1) + output


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_parameters_that_each_module_adds() -> None:
    """The plan of the channels: 0.0967 M, 0.3036 M, 0.066 M and 0.2145 M a stack, 0.680913 M together."""
    added = {
        "BDMP": count(MultiScaleIntegration(256, messages="both")),
        "SACWA": count(ChannelAttention(128)),
        "SSA": count(SpatialAttention(256, "sharper", 1.0)),
        "residual": count(Residual(256, 256)),
    }
    assert added == {"BDMP": 96_704, "SACWA": 303_632, "SSA": 66_049, "residual": 214_528}
    of = {name: parameters(Network(row=row, stacks=1)) for name, row in ROWS.items()}
    assert of["ALL"] - of["Baseline"] == sum(added.values()) == 680_913
    assert of["MSFI"] - of["Baseline"] == 4 * 257 * 32 + 129 * 256 + added["residual"]
    assert of["Block"] - of["Baseline"] == added["residual"]
    assert of["BDMP"] - of["MSFI"] == 6 * 32 * (9 * 32 + 1) + 4 * 32 * (64 + 1)
    assert of["top-down"] == of["bottom-up"] == of["BDMP"] - 3 * 32 * (9 * 32 + 1)  # the other's convolutions
    assert of["SACWA"] - of["MSFI"] == added["SACWA"] - 129 * 256  # it does without the 1x1 convolution
    assert of["SACWA"] - of["encoder"] == 16 * 257 + 256 * 17  # the gate: 256 channels to 16 and back
    assert of["SSA"] - of["MSFI"] == of["SCA"] - of["SACWA"] == of["soft"] - of["MSFI"] == added["SSA"]
    assert of["BDMP+SCA"] == of["ALL"]  # they differ in the loss


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 128), (128, 128), (128, 256), (16, 16)])
def test_parameters_of_a_residual_block(inputs: int, outputs: int) -> None:
    middle = outputs // 2
    normalisations = 2 * inputs + 2 * middle + 2 * middle
    convolutions = (inputs + 1) * middle + (9 * middle + 1) * middle + (middle + 1) * outputs
    skip = 0 if inputs == outputs else (inputs + 1) * outputs
    assert count(Residual(inputs, outputs)) == normalisations + convolutions + skip


@pytest.mark.parametrize("row", ROWS)
def test_count_is_that_of_the_built_network(row: str, networks: dict[str, SCANet]) -> None:
    assert parameters(small(row)) == count(networks[row])


# ---- the hourglass, by the paper's predecessors ----


def reference_normalise(x: Tensor, n: nn.BatchNorm2d) -> Tensor:
    shape = (1, -1, 1, 1)
    scale = n.weight / torch.sqrt(n.running_var + n.eps)
    return (x - n.running_mean.view(shape)) * scale.view(shape) + n.bias.view(shape)


def reference_convolve(x: Tensor, c: nn.Conv2d) -> Tensor:
    """Stride 1: one shifted copy of the padded input for each place in the kernel."""
    size, (height, width) = c.kernel_size[0], x.shape[2:]
    padded = torch.zeros(*x.shape[:2], height + size - 1, width + size - 1, dtype=x.dtype)
    edge = size // 2
    padded[:, :, edge : edge + height, edge : edge + width] = x
    total = c.bias.view(1, -1, 1, 1).expand(len(x), -1, height, width).clone()
    for i in range(size):
        for j in range(size):
            total += torch.einsum("oc,bchw->bohw", c.weight[:, :, i, j], padded[:, :, i : i + height, j : j + width])
    return total


def reference_residual(x: Tensor, r: Residual) -> Tensor:
    y = x
    for n, c in ((r.branch[0], r.branch[2]), (r.branch[3], r.branch[5]), (r.branch[6], r.branch[8])):
        y = reference_convolve(reference_normalise(y, n).clamp(min=0), c)
    return y + (reference_convolve(x, r.skip) if isinstance(r.skip, nn.Conv2d) else x)


def reference_pool(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).amax(dim=(3, 5))


def reference_hourglass(n: int, x: Tensor, hg: Hourglass, fused: list[Tensor]) -> Tensor:
    """PHT's models/hg.lua, `hourglass(n, f, inp)`, which calls itself."""
    level = DEPTH - n
    up1 = reference_residual(x, hg.skips[level])
    low1 = reference_residual(reference_pool(x), hg.downs[level])
    low2 = reference_hourglass(n - 1, low1, hg, fused) if n > 1 else reference_residual(low1, hg.bottom)
    low3 = reference_residual(low2, hg.ups[n - 1])
    up2 = low3.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    fused.insert(0, up1 + up2)
    return fused[0]


def reference_baseline(images: Tensor, model: SCANet) -> Tensor:
    first = model.stem[0]
    x = torch.nn.functional.conv2d(images, first.weight, first.bias, stride=2, padding=3)
    x = reference_normalise(x, model.stem[1]).clamp(min=0)
    x = reference_pool(reference_residual(x, model.stem[3]))
    x = reference_residual(reference_residual(x, model.stem[5]), model.stem[6])
    heatmaps = []
    for i, stack in enumerate(model.stacks):
        features = reference_residual(reference_hourglass(DEPTH, x, stack.hourglass, []), stack.output[0])
        features = reference_convolve(features, stack.output[1])
        features = reference_normalise(features, stack.output[2]).clamp(min=0)
        heatmaps.append(reference_convolve(features, stack.heatmap))
        if i + 1 < len(model.stacks):
            back = reference_convolve(heatmaps[-1], model.remap_heatmaps[i])
            x = x + reference_convolve(features, model.remap_features[i]) + back
    return torch.stack(heatmaps, dim=1)


@torch.no_grad()
def test_baseline_is_the_stacked_hourglass(networks: dict[str, SCANet], images: Tensor) -> None:
    expected = reference_baseline(images[:1], networks["Baseline"])
    assert expected.std() > 0.01
    torch.testing.assert_close(networks["Baseline"](images[:1])[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_hourglass_returns_the_fused_features_of_each_level() -> None:
    torch.manual_seed(3)
    hourglass, expected = shaken(Hourglass(8)), []
    x = torch.randn(1, 8, 32, 32)
    reference_hourglass(DEPTH, x, hourglass, expected)
    fused = hourglass(x)
    assert [f.shape[-1] for f in fused] == [32, 16, 8, 4]
    for f, e in zip(fused, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_stem_leaves_a_quarter_of_the_resolution() -> None:
    assert Stem(16)(torch.rand(1, 3, 64, 64)).shape == (1, 16, 16, 16)


# ---- Table 2's rows ----

INTERMEDIATES = {
    "Baseline": "", "Block": "", "MSFI": "integrated", "BDMP": "integrated", "SACWA": "integrated gate",
    "SSA": "integrated logits probability attention", "SCA": "integrated gate logits probability attention",
    "BDMP+SCA": "integrated gate logits probability attention",
    "ALL": "integrated gate logits probability attention", "soft": "integrated logits attention",
    "top-down": "integrated", "bottom-up": "integrated", "encoder": "integrated",
    "rescaled": "integrated logits attention", "stretched": "integrated logits attention",
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("row", INTERMEDIATES)
def test_what_each_row_puts_out(row: str, networks: dict[str, SCANet], images: Tensor) -> None:
    heatmaps, outs = networks[row](images)
    assert heatmaps.shape == (BATCH, STACKS, 14, CELLS, CELLS)
    assert len(outs) == STACKS
    map_ = (BATCH, 1, CELLS, CELLS)
    shapes = {
        **{f"F1{i + 1}": (BATCH, 16, CELLS >> i, CELLS >> i) for i in range(4)},
        "integrated": (BATCH, 8, CELLS, CELLS), "gate": (BATCH, 16),
        "logits": map_, "probability": map_, "attention": map_,
    }  # fmt: skip
    names = ["F11", "F12", "F13", "F14", *INTERMEDIATES[row].split()]
    for out in outs:
        assert {name: tuple(out[name].shape) for name in out} == {name: shapes[name] for name in names}


@torch.no_grad()
@pytest.mark.parametrize("row", ROWS)
def test_images_of_a_batch_do_not_see_each_other(row: str, networks: dict[str, SCANet], images: Tensor) -> None:
    together = networks[row](images)[0]
    between = (together[0] - together[1]).abs().max().item()
    assert between > 1e-5
    for one, alone in zip(together, images, strict=True):
        torch.testing.assert_close(networks[row](alone[None])[0][0], one, rtol=0, atol=between / 100)


def test_other_sizes_than_multiples_of_64_are_refused(networks: dict[str, SCANet]) -> None:
    with pytest.raises(ValueError, match=r"\(130, 130\) pixels: give multiples of 64"):
        networks["SSA"](torch.zeros(1, 3, 130, 130))


@pytest.mark.parametrize("row", ROWS)
def test_every_parameter_is_trained(row: str, images: Tensor) -> None:
    torch.manual_seed(4)
    model = SCANet(small(row))
    model(images)[0].square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@torch.no_grad()
def test_each_stack_has_noise_of_its_own(networks: dict[str, SCANet], images: Tensor) -> None:
    """Noise of the second stack leaves the first one's heat maps as they are; that of the first changes both."""
    random = torch.Generator().manual_seed(5)
    noise = torch.randn(BATCH, STACKS, CELLS, CELLS, generator=random)
    before = networks["SSA"](images, noise)[0]
    for stack, changed in ((0, [True, True]), (1, [False, True])):
        other = noise.clone()
        other[:, stack] += 1
        after = networks["SSA"](images, other)[0]
        assert [not torch.equal(a, b) for a, b in zip(before.unbind(1), after.unbind(1), strict=True)] == changed


# ---- where the modules stand ----


def lend(source: SCANet, target: SCANet) -> list[str]:
    """Give the source's weights to a network with more modules; returns the names that only that one has."""
    result = target.load_state_dict(source.state_dict(), strict=False)
    assert result.unexpected_keys == []
    return result.missing_keys


@torch.no_grad()
@pytest.mark.parametrize("row", ["SSA", "soft"])
def test_attended_features_go_straight_into_the_next_convolutions(
    row: str, networks: dict[str, SCANet], images: Tensor
) -> None:
    """§2.3: attention of one everywhere is no attention, and of zero leaves the convolutions' biases."""
    plain, model = networks["MSFI"], shaken(SCANet(small(row)))
    assert all(".ssa." in name for name in lend(plain, model))
    if row == "SSA":
        always = torch.full((BATCH, STACKS, CELLS, CELLS), 1e6)
        torch.testing.assert_close(model(images, always)[0], plain(images)[0], rtol=1e-4, atol=1e-5)
        heatmaps, _ = model(images, -always)
        for i, stack in enumerate(model.stacks):
            expected = stack.heatmap.bias.view(1, -1, 1, 1).expand_as(heatmaps[:, i])
            torch.testing.assert_close(heatmaps[:, i], expected)
    else:  # constant logits: 1 / (h w) everywhere, in front of a convolution that is linear
        for stack in model.stacks:
            stack.ssa.generator[2].weight.zero_()
        first, heatmaps = plain(images)[0][:, 0], model(images)[0][:, 0]
        bias = model.stacks[0].heatmap.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(heatmaps - bias, (first - bias) / CELLS**2, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_message_passing_without_messages_is_msfi(networks: dict[str, SCANet], images: Tensor) -> None:
    plain, model = networks["MSFI"], shaken(SCANet(small("BDMP")))
    assert all(".msfi.bdmp." in name for name in lend(plain, model))
    for stack in model.stacks:
        bdmp = stack.msfi.bdmp
        for part in (*bdmp.H, *bdmp.G, *bdmp.R):
            part.weight.zero_()
            part.bias.zero_()
        for r in bdmp.R:
            r.weight[:, :, 0, 0] = torch.cat([torch.eye(2), torch.eye(2)], dim=1) / 2
    torch.testing.assert_close(model(images)[0], plain(images)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_channel_attention_that_selects_only_its_input_is_a_widening(images: Tensor) -> None:
    """SACWA stands where the other rows have the 1x1 convolution: before the refining residual block."""
    torch.manual_seed(6)
    plain, model = shaken(SCANet(small("MSFI"))), shaken(SCANet(small("SACWA")))
    model.load_state_dict(plain.state_dict(), strict=False)
    for stack, other in zip(model.stacks, plain.stacks, strict=True):
        excite = stack.sacwa.selector.excite
        excite[2].weight.zero_()
        excite[2].bias[:] = torch.tensor([-200.0] * 8 + [200.0] * 8)  # the dilated half off, the input on
        other.widen.bias.zero_()
        other.widen.weight[:, :, 0, 0] = torch.cat([torch.zeros(8, 8), torch.eye(8)])
    torch.testing.assert_close(model(images)[0], plain(images)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_enlarging_keeps_the_number_format(device: str) -> None:
    x = torch.randn(2, 4, 8, 8, device=device, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device, dtype=torch.bfloat16):
        larger = enlarge(x, scale_factor=2.0, mode="nearest")
        assert torch.is_autocast_enabled(device)  # again
    assert larger.dtype == torch.bfloat16
    assert larger.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(larger, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_channel_plan_of_the_paper() -> None:
    """256 -> 32 for each level, 4 x 32 = 128, and SACWA's concatenation makes 256 again."""
    with torch.device("meta"):
        stack = SCANet(Network(row=ROWS["ALL"], stacks=1)).stacks[0]
    assert np.unique([(r.in_channels, r.out_channels) for r in stack.msfi.reduce], axis=0).tolist() == [[256, 32]]
    encoder = stack.sacwa.encoder.dilated
    assert [(c.in_channels, c.out_channels, c.dilation) for c in (encoder[0], encoder[2])] == [
        (128, 128, (2, 2)), (128, 128, (4, 4))
    ]  # fmt: skip
    assert stack.refine.branch[2].in_channels == stack.heatmap.in_channels == 256
    assert stack.heatmap.out_channels == 16


# ---- readings of the paper that can be chosen ----


@torch.no_grad()
def test_attention_before_the_output_layers(images: Tensor) -> None:
    """Both readings have the same layers; only the place of SSA differs."""
    torch.manual_seed(3)
    behind = shaken(SCANet(small("SSA", stacks=1)))
    before = shaken(SCANet(small("SSA", stacks=1, attention_place="features")))
    before.load_state_dict(behind.state_dict())
    (stack,) = behind.stacks
    features = stack.refine(stack.widen(stack.msfi(stack.hourglass(behind.stem(images)))))
    for model, expected in (
        (behind, stack.ssa(stack.output(features))[0]),
        (before, stack.output(stack.ssa(features)[0])),
    ):
        torch.testing.assert_close(model(images)[0][:, 0], stack.heatmap(expected))


@torch.no_grad()
def test_skip_around_the_attention() -> None:
    torch.manual_seed(4)
    plain, skipped = SpatialAttention(16, "sharper", 1.0), SpatialAttention(16, "sharper", 1.0, skip=True)
    skipped.load_state_dict(plain.state_dict())
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(skipped(x)[0], x + plain(x)[0])


@torch.no_grad()
def test_control_is_the_baseline_with_the_block_behind_the_hourglass(images: Tensor) -> None:
    torch.manual_seed(5)
    control = shaken(SCANet(small("Block", stacks=1)))
    (stack,) = control.stacks
    features = stack.output(stack.refine(stack.hourglass(control.stem(images))[0]))
    torch.testing.assert_close(control(images)[0][:, 0], stack.heatmap(features))
