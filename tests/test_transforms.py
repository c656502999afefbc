"""The warp: where it moves joints it moves the picture, there and back, and how augmentation is drawn."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scanet.config import Settings, resolve
from scanet.data.heatmaps import decode, draw_targets
from scanet.data.person import BOX
from scanet.data.transforms import (
    Augmentation,
    colour,
    crop_matrix,
    draw_augmentation,
    sample_parts,
    sample_whole,
    swap_sides,
    to_input,
    to_photograph,
    warp,
)
from scanet.skeleton import LSP, MPII

SIZE = 64
QUARTER = math.pi / 2


def augmentation(scale: float = 1.0, angle: float = 0.0, flip: bool = False) -> Augmentation:
    """Of one person."""
    return Augmentation(torch.tensor([scale]), torch.tensor([angle]), torch.tensor([flip]), torch.ones(1, 3))


def place(
    *points: tuple[float, float],
    center: tuple[float, float] = (300.0, 200.0),
    scale: float = 1.28,
    zoom: float = 0.5,
    draw: Augmentation | None = None,
    there: Callable[..., Tensor] = to_input,
) -> list[list[float]]:
    """Points of one person through `to_input` or back. The person's box has 256 pixels, so 4 for one of the input."""
    matrix = crop_matrix(torch.tensor([scale]), torch.tensor([zoom]), SIZE, draw)
    where = torch.tensor([points], dtype=torch.float32)
    return there(where, torch.tensor([center]), torch.tensor([zoom]), matrix, SIZE)[0].tolist()


def near(*points: tuple[float, float]) -> list[object]:
    return [pytest.approx(p, abs=1e-4) for p in points]


# ---- by hand ----


@pytest.mark.parametrize("zoom", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("draw", [None, augmentation()], ids=["none", "neutral"])
def test_without_augmentation_the_box_becomes_the_input(zoom: float, draw: Augmentation | None) -> None:
    """Centre to the middle and corners to corners, whatever the stored square's zoom."""
    box = [(300, 200), (172, 72), (428, 72), (428, 328), (304, 198)]
    expected = [(32, 32), (0, 0), (64, 0), (64, 64), (33, 31.5)]
    assert place(*box, zoom=zoom, draw=draw) == near(*expected)
    assert place(*expected, zoom=zoom, draw=draw, there=to_photograph) == near(*box)


def test_a_larger_scale_shows_more_of_the_photograph() -> None:
    assert place((300, 200), (428, 72), draw=augmentation(scale=1.25)) == near((32, 32), (57.6, 6.4))
    assert place((364, 200), draw=augmentation(scale=0.8)) == near((52, 32))


def test_mirrored_by_hand() -> None:
    """Left and right of the centre change places, up and down stay."""
    assert place((340, 180), (300, 180), draw=augmentation(flip=True)) == near((22, 27), (32, 27))


def test_a_quarter_turn_by_hand() -> None:
    """A positive angle turns the picture against the clock: what was to the right of the centre is above it."""
    assert place((340, 200), (300, 180), draw=augmentation(angle=QUARTER)) == near((32, 22), (27, 32))
    assert place((340, 200), (300, 180), draw=augmentation(angle=-QUARTER)) == near((32, 42), (37, 32))


def test_mirrored_and_turned_by_hand() -> None:
    """The picture is turned first and mirrored then."""
    assert place((340, 200), (300, 180), draw=augmentation(angle=QUARTER, flip=True)) == near((32, 22), (37, 32))


def test_matrix_is_from_input_to_canvas() -> None:
    matrix = crop_matrix(torch.tensor([1.28]), torch.tensor([0.5]), SIZE, augmentation(1.25, QUARTER))
    torch.testing.assert_close(matrix, 2.5 * torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]))


# ---- there and back ----


@given(
    scale=st.floats(0.2, 12.0),
    zoom=st.floats(0.05, 1.0),
    factor=st.floats(0.75, 1.25),
    angle=st.floats(-1.1, 1.1),
    flip=st.booleans(),
    point=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    center=st.tuples(st.floats(0, 2000), st.floats(0, 2000)),
)
@settings(deadline=None, max_examples=150)
def test_to_photograph_inverts_to_input(
    scale: float, zoom: float, factor: float, angle: float, flip: bool,
    point: tuple[float, float], center: tuple[float, float],
) -> None:  # fmt: skip
    """To a hundredth of a pixel, for points anywhere in the person's box or one box around it."""
    draw = augmentation(factor, angle, flip)
    original = (center[0] + point[0] * BOX * scale, center[1] + point[1] * BOX * scale)
    (there,) = place(original, center=center, scale=scale, zoom=zoom, draw=draw)
    (back,) = place((there[0], there[1]), center=center, scale=scale, zoom=zoom, draw=draw, there=to_photograph)
    assert back == pytest.approx(original, abs=1e-2)
    length = math.hypot(there[0] - SIZE / 2, there[1] - SIZE / 2)
    expected = math.hypot(*point) * SIZE / factor  # a similarity: the zoom is gone
    assert length == pytest.approx(expected, abs=1e-2)


def test_missing_joints_stay_missing_alone() -> None:
    (missing, known) = place((math.nan, math.nan), (304, 198))
    assert np.isnan(missing).all()
    assert known == pytest.approx((33, 31.5))


@given(seed=st.integers(0, 10**6), target=st.sampled_from(["subpixel", "floor"]))
@settings(deadline=None, max_examples=15)
def test_round_trip_through_the_heat_maps(seed: int, target: str) -> None:
    """Photograph, input, targets, decoding, photograph: within what decoding leaves, and without bias."""
    n, joints, cells = 200, 16, 16
    random = torch.Generator().manual_seed(seed)
    draw = draw_augmentation(n, SETTINGS, random)
    scale = 0.5 + 4 * torch.rand(n, generator=random)
    zoom = (80 / (BOX * scale)).clamp(max=1)
    center = 1000 * torch.rand(n, 2, generator=random)
    matrix = crop_matrix(scale, zoom, SIZE, draw)
    # Uniform over all cells but those on the border, where decoding has no quarter and into which nothing may round.
    inside = 1.01 + (cells - 2.02) * torch.rand(n, joints, 2, generator=random)
    original = to_photograph(inside * 4, center, zoom, matrix, SIZE)
    placed = to_input(original, center, zoom, matrix, SIZE)
    positions, _ = decode(draw_targets(placed / 4, cells, 1.0, target))
    back = to_photograph(positions * 4, center, zoom, matrix, SIZE)
    cell = BOX * scale * draw.scale / cells  # in the photograph's pixels
    error = (back - original) / cell[:, None, None]
    limit = 0.25 if target == "subpixel" else 0.5
    assert error.norm(dim=-1).max() < limit * math.sqrt(2) + 0.01
    unturned = draw.angle == 0
    assert error[unturned].abs().max() < limit + 0.01
    five = 5 * limit / math.sqrt(3 * n * joints)  # standard errors of a mean of what is even from -limit to limit
    assert error.mean(dim=(0, 1)).abs().max() < five


def test_round_trip_is_unbiased_to_a_hundredth_of_a_cell() -> None:
    n, cells = 4000, 16
    random = torch.Generator().manual_seed(1)
    draw = draw_augmentation(n, SETTINGS, random)
    scale, center = 0.5 + 4 * torch.rand(n, generator=random), 1000 * torch.rand(n, 2, generator=random)
    zoom = (80 / (BOX * scale)).clamp(max=1)
    matrix = crop_matrix(scale, zoom, SIZE, draw)
    inside = (1 + (cells - 2) * torch.rand(n, 4, 2, generator=random)) * 4
    original = to_photograph(inside, center, zoom, matrix, SIZE)
    positions, _ = decode(draw_targets(to_input(original, center, zoom, matrix, SIZE) / 4, cells, 1.75, "subpixel"))
    error = to_photograph(positions * 4, center, zoom, matrix, SIZE) - original
    assert (error / (BOX * scale * draw.scale / cells)[:, None, None]).mean(dim=(0, 1)).abs().max() < 0.01


# ---- the picture goes where the joints go ----

CANVAS = 160


def blobs(positions: Tensor, sigma: float) -> Tensor:
    """Canvases (n, 3, CANVAS, CANVAS) with a bright blob at edge coordinates (n, 2), as `Store.crops` gives them."""
    cells = torch.arange(CANVAS) + 0.5
    bell = torch.exp(-((cells - positions[..., None]) ** 2) / (2 * sigma**2))  # (n, 2, CANVAS)
    picture = 250 * bell[:, 1, :, None] * bell[:, 0, None, :]
    return picture.round().to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()


def test_warp_moves_the_picture_where_to_input_moves_the_joints() -> None:
    """Centroids of blobs under random augmentation, to a tenth of an input pixel."""
    n = 40
    random = torch.Generator().manual_seed(2)
    draw = draw_augmentation(n, SETTINGS, random)
    assert draw.flip.any()
    assert (draw.angle != 0).any()
    center = 200 + 100 * torch.rand(n, 2, generator=random)
    scale = 0.3 + torch.rand(n, generator=random)
    zoom = (CANVAS / 2 / (BOX * scale)).clamp(max=1)
    matrix = crop_matrix(scale, zoom, SIZE, draw)
    wanted = 14 + 36 * torch.rand(n, 1, 2, generator=random)  # well inside the input
    joints = to_photograph(wanted, center, zoom, matrix, SIZE)
    on_canvas = (joints[:, 0] - center) * zoom[:, None] + CANVAS / 2  # the store's geometry
    images = warp(blobs(on_canvas, sigma=2.5), matrix, SIZE).mean(dim=1)
    assert images.shape == (n, SIZE, SIZE)
    cells = torch.arange(SIZE) + 0.5
    total = images.sum(dim=(1, 2))
    centroid = torch.stack([(images.sum(1) @ cells) / total, (images.sum(2) @ cells) / total], dim=-1)
    assert (centroid - to_input(joints, center, zoom, matrix, SIZE)[:, 0]).norm(dim=-1).max() < 0.1
    assert images.amax(dim=(1, 2)).min() > 0.8  # of 250 / 255


def test_warp_by_hand() -> None:
    """Canvas pixel for input pixel: the middle of the canvas, its mirror image, and black beyond its border."""
    canvas = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    expected = canvas[:, :, 2:6, 2:6].float() / 255
    torch.testing.assert_close(warp(canvas, torch.eye(2)[None], 4), expected)
    torch.testing.assert_close(warp(canvas, torch.diag(torch.tensor([-1.0, 1]))[None], 4), expected.flip(-1))
    turned = warp(canvas, torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]), 4)
    torch.testing.assert_close(turned, expected.rot90(1, (2, 3)))  # against the clock
    larger = warp(canvas, torch.eye(2)[None], 12)
    torch.testing.assert_close(larger[:, :, 2:10, 2:10], canvas.float() / 255)
    larger[:, :, 2:10, 2:10] = 0
    assert torch.equal(larger, torch.zeros(1, 3, 12, 12))
    halved = warp(canvas, 2 * torch.eye(2)[None], 4)  # each input pixel in the middle of four canvas pixels
    torch.testing.assert_close(halved, torch.nn.functional.avg_pool2d(canvas.float() / 255, 2))


def test_parts_of_canvases_give_what_the_whole_ones_give() -> None:
    """The CPU's way and the GPU's, for crops from a pixel of the canvas to twice its side, beyond its border too."""
    random = torch.Generator().manual_seed(9)
    canvases = torch.randint(0, 256, (5, 3, CANVAS, CANVAS), generator=random, dtype=torch.uint8)
    furthest = torch.tensor([0.5, 5.0, 40.0, CANVAS / 2, CANVAS])
    offset = furthest[:, None, None, None] * (2 * torch.rand(5, SIZE, SIZE, 2, generator=random) - 1)
    parts = sample_parts(canvases, offset, furthest.ceil().int() + 1)
    torch.testing.assert_close(parts, sample_whole(canvases, offset), rtol=0, atol=0.02)  # of 255


def test_colour_scales_each_channel_and_clips() -> None:
    images = torch.tensor([0.0, 0.5, 0.9]).view(1, 1, 1, 3).expand(2, 3, 3, 3)
    got = colour(images, torch.tensor([[1.2, 1.0, 0.8], [1.0, 1.0, 1.0]]))
    torch.testing.assert_close(got[0, :, 0], torch.tensor([[0, 0.6, 1.0], [0, 0.5, 0.9], [0, 0.4, 0.72]]))
    assert torch.equal(got[1], images[1])


# ---- how augmentation is drawn ----

SETTINGS = resolve(preset="paper")
MANY = 40_000


@pytest.fixture(scope="module")
def drawn() -> Augmentation:
    return draw_augmentation(MANY, SETTINGS, torch.Generator().manual_seed(4))


def test_ranges_of_augmentation(drawn: Augmentation) -> None:
    """PyraNet: scale clip(1 + N/4, 3/4, 5/4), rotation clip(30 N, -60, 60) degrees, channels U(0.8, 1.2)."""
    degrees = drawn.angle * 180 / math.pi
    assert (drawn.scale.min(), drawn.scale.max()) == (0.75, 1.25)
    assert (degrees.min().item(), degrees.max().item()) == pytest.approx((-60, 60), abs=1e-4)
    assert (drawn.colour.min() >= 0.8) & (drawn.colour.max() <= 1.2)
    assert drawn.colour.shape == (MANY, 3)


def test_probabilities_of_augmentation(drawn: Augmentation) -> None:
    degrees = drawn.angle * 180 / math.pi

    def share(event: Tensor, probability: float) -> bool:
        """Within four standard errors."""
        error = math.sqrt(probability * (1 - probability) / len(event))
        return abs(event.float().mean().item() - probability) < 4 * error

    normal = torch.distributions.Normal(0.0, 1.0)
    below = [normal.cdf(torch.tensor(z)).item() for z in (-2.0, -1.0, 0.5)]
    assert share(drawn.flip, 0.5)
    assert share(degrees != 0, 0.4)
    rotated = degrees[degrees != 0]
    assert share(rotated < -59.99, below[0])
    assert share(rotated < -30, below[1])
    assert share(rotated < 15, below[2])
    assert share(drawn.scale == 0.75, below[1])
    assert share(drawn.scale == 1.25, below[1])
    assert share(drawn.scale < 1.125, below[2])
    assert share(drawn.colour.flatten() < 0.9, 0.25)
    independent = torch.stack(
        [drawn.scale, drawn.angle, (drawn.angle != 0).float(), drawn.flip.float(), *drawn.colour.T]
    )
    assert torch.corrcoef(independent).fill_diagonal_(0).abs().max() < 0.02  # four standard errors


@pytest.mark.parametrize(
    ("changes", "still"),
    [
        ({"scale_jitter": 0}, {"scale"}), ({"rotation": 0}, {"angle"}), ({"rotation_probability": 0}, {"angle"}),
        ({"colour_jitter": 0}, {"colour"}),
    ],
)  # fmt: skip
def test_what_is_switched_off_is_still_and_the_rest_goes_on(changes: dict[str, float], still: set[str]) -> None:
    def draw(settings: Settings) -> Augmentation:
        return draw_augmentation(50, settings, torch.Generator().manual_seed(5))

    plain, changed = draw(SETTINGS), draw(resolve(preset="paper", **changes))
    for name, neutral in (("scale", 1.0), ("angle", 0.0), ("flip", None), ("colour", 1.0)):
        before, after = getattr(plain, name), getattr(changed, name)
        assert torch.equal(after, torch.full_like(after, neutral) if name in still else before)


def test_draws_are_the_generator_s() -> None:
    """The same seed gives the same draw, and a person's part of it is the same in any batch."""
    first, again, other = (draw_augmentation(60, SETTINGS, torch.Generator().manual_seed(seed)) for seed in (6, 6, 7))
    for name in ("scale", "angle", "flip", "colour"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(8))
    for size in (7, 60):
        parts = [first[index] for index in order.split(size)]
        for name in ("scale", "angle", "flip", "colour"):
            together = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(together, getattr(first, name)[order])


# ---- left and right ----


def test_swapping_sides_by_hand_and_twice() -> None:
    joints = torch.arange(64.0).view(2, 16, 2)
    swapped = swap_sides(joints, torch.tensor([True, False]), torch.tensor(MPII.flip))
    pairs = {0: 5, 1: 4, 2: 3, 10: 15, 11: 14, 12: 13}  # by the ids of MPII
    pairs |= {right: left for left, right in pairs.items()}
    for joint in range(16):
        assert torch.equal(swapped[0, joint], joints[0, pairs.get(joint, joint)])
    assert torch.equal(swapped[1], joints[1])
    for skeleton in (MPII, LSP):
        some = joints[:, : len(skeleton.joints)]
        how = torch.tensor([True, False]), torch.tensor(skeleton.flip)
        assert torch.equal(swap_sides(swap_sides(some, *how), *how), some)
