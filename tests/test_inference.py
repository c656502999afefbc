"""From heat maps to the photograph: an oracle that puts out true targets must be read back, mirrored or not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hrnet import read_json
from PIL import Image
from shared import MPII as FILES
from shared import needs_mpii
from torch import Tensor, nn

from scanet.config import ROWS, Network, Tta
from scanet.data.heatmaps import draw_targets, mirror
from scanet.data.loader import Persons
from scanet.data.person import Person
from scanet.data.store import Store, fill
from scanet.data.transforms import crop_matrix, to_input
from scanet.inference import PYRAMID, interpolation, peaks, predict, predict_heatmaps
from scanet.model import SCANet, gumbel_difference
from scanet.skeleton import MPII

SIZE, CELLS, SIGMA = 64, 16, 1.75
CPU = torch.device("cpu")
#: Centre and scale of five persons: small ones are stored as they are, large ones at fewer pixels.
CENTERS = [(150.3, 140.0), (149.5, 160.25), (170.0, 151.7), (148.9, 150.1), (140.0, 155.0)]
PERSONS = list(zip(CENTERS, [0.3, 0.4, 0.55, 0.9, 1.2], strict=True))


def positions() -> Tensor:
    """True joints of each person, in cells, away from the border."""
    return 1.5 + (CELLS - 3) * torch.rand(len(PERSONS), 16, 2, generator=torch.Generator().manual_seed(0))


def in_photograph(cells: np.ndarray, center: tuple[float, float], scale: float) -> np.ndarray:
    """By hand: the 16 cells span the person's box of 200 * scale pixels around the centre."""
    return np.asarray(center) + (cells / CELLS - 0.5) * 200 * scale


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Each person's photograph tells its number by its red, and its right side, seen from the centre, by its blue."""
    folder = tmp_path_factory.mktemp("inference")
    persons = []
    for number, ((center, scale), cells) in enumerate(zip(PERSONS, positions().double().numpy(), strict=True)):
        pixels = np.zeros((300, 310, 3), np.uint8)
        pixels[..., 0] = 40 * (number + 1)
        pixels[:, round(center[0]) :, 2] = 200
        Image.fromarray(pixels).save(folder / f"{number}.png")
        joints = in_photograph(cells, center, scale)
        persons.append(Person(f"{number}.png", 0, "valid", center, scale, joints, np.ones(16, bool), 20.0))
    fill(folder / "store.h5", persons, folder, dataset="d", resolution=SIZE * 5 // 4, progress=False)
    filled = Store(folder / "store.h5")
    assert filled.zoom.min() < 1 == filled.zoom.max()  # both kinds are among them
    return filled


class Oracle(SCANet):
    """Puts out the targets of the person that it sees, mirrored if the person is. The first stack knows nothing."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = Network(row=ROWS["Baseline"], joints=16, stacks=2)
        self.seen: list[tuple[int, bool]] = []

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, list[dict[str, Tensor]]]:
        assert noise is None
        assert not self.training
        number = ((images[:, 0, 28:36].mean(dim=(1, 2)) + 0.5) * 255 / 40).round().long() - 1
        left, right = images[:, 2, 20:44, 20:28].mean(dim=(1, 2)), images[:, 2, 20:44, 36:44].mean(dim=(1, 2))
        mirrored = left > right
        self.seen += zip(number.tolist(), mirrored.tolist(), strict=True)
        cells = positions()[number]
        swapped = torch.stack([CELLS - cells[..., 0], cells[..., 1]], dim=-1)[:, list(MPII.flip)]
        targets = draw_targets(torch.where(mirrored[:, None, None], swapped, cells), CELLS, SIGMA, "subpixel")
        return torch.stack([torch.rand_like(targets), targets], dim=1), []


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_an_oracle_s_joints_are_read_back(store: Store, tta: Tta) -> None:
    """Through store, crop, decoding and back, within the quarter cell that decoding leaves on each axis."""
    oracle = Oracle()
    found = predict(oracle, Persons(store, np.arange(5), CPU), size=SIZE, tta=tta, batch_size=3)
    assert found.joints.dtype == np.float64
    cell = np.array([200 * scale / CELLS for _, scale in PERSONS])
    error = (found.joints - store.joints) / cell[:, None, None]
    assert np.abs(error).max() < 0.25 + 1e-3
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.06  # 80 joints, each +-1/8 on average
    off = (positions().floor() + 0.5 - positions()).square().sum(-1)
    np.testing.assert_allclose(found.heat, torch.exp(-off / (2 * SIGMA**2)).numpy(), atol=1e-4)
    plain = [(i, False) for i in range(5)]
    turned = [(i, True) for i in range(5)]
    expected = plain if tta == "none" else plain[:3] + turned[:3] + plain[3:] + turned[3:]
    assert oracle.seen == expected


def test_flip_test_of_an_oracle_changes_nothing(store: Store) -> None:
    persons = Persons(store, np.arange(5), CPU)
    plain, flipped = (predict(Oracle(), persons, size=SIZE, tta=tta) for tta in ("none", "flip"))
    np.testing.assert_allclose(flipped.joints, plain.joints, atol=1e-3)
    np.testing.assert_allclose(flipped.heat, plain.heat, atol=1e-5)


def test_persons_come_in_their_order_whatever_the_batch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = predict(Oracle(), Persons(store, np.arange(5), CPU), size=SIZE, tta="flip")
    done: list[int] = []
    parts = predict(
        Oracle(), Persons(store, np.arange(5), CPU), size=SIZE, tta="flip", batch_size=2, on_batch=done.append
    )
    assert done == [2, 2, 1]
    assert np.array_equal(parts.joints, whole.joints)
    for share in (0.4, 0.0):  # decoded once into memory, or read batch by batch
        monkeypatch.setattr("scanet.data.loader.MEMORY_SHARE", share)
        some = predict(Oracle(), Persons(store, np.array([3, 1, 4]), CPU), size=SIZE, tta="flip", batch_size=2)
        assert np.array_equal(some.joints, whole.joints[[3, 1, 4]])
        assert np.array_equal(some.heat, whole.heat[[3, 1, 4]])


# ---- test-time augmentation ----


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU's queue")
@pytest.mark.parametrize("tta", ["flip", "six-scale"])
@pytest.mark.parametrize("cached", [True, False])
def test_prediction_waits_for_the_gpu_at_its_end_alone(store: Store, tta: Tta, cached: bool) -> None:
    persons = Persons(store, store.indices("valid"), torch.device("cuda"), cached=cached)
    model = SCANet(Network(ROWS["SSA"], joints=16, stacks=1, channels=16)).cuda()
    done: list[int] = []

    def watch(batch: int) -> None:
        done.append(batch)
        torch.cuda.set_sync_debug_mode("error" if len(done) < len(PERSONS) else "default")

    try:
        predict(model, persons, size=SIZE, tta=tta, batch_size=1, on_batch=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert done == [1] * len(PERSONS)


def test_six_scales_of_an_oracle(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """True heat maps of every crop: the joints come back within half a cell of the coarsest crop, on each axis."""
    seen: list[tuple[list[int], float]] = []

    def truth(_: SCANet, images: Tensor, tta: Tta) -> Tensor:
        assert tta == "six-scale"
        boxes = PYRAMID[len(seen) % 6]
        number = ((images[:, 0, 28:36, 28:36].mean(dim=(1, 2)) + 0.5) * 255 / 40).round().long() - 1
        seen.append((number.tolist(), boxes))
        return draw_targets((positions()[number] - CELLS / 2) / boxes + CELLS / 2, CELLS, SIGMA, "subpixel")

    monkeypatch.setattr("scanet.inference.predict_heatmaps", truth)
    found = predict(Oracle(), Persons(store, np.arange(5), CPU), size=SIZE, tta="six-scale", batch_size=3)
    assert seen == [([0, 1, 2], b) for b in PYRAMID] + [([3, 4], b) for b in PYRAMID]
    cell = np.array([1.3 * 200 * scale / CELLS for _, scale in PERSONS])
    error = (found.joints - store.joints) / cell[:, None, None]
    assert np.abs(error).max() < 0.5
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.05


def at_all_phases(persons: list[Person], count: int = 32) -> list[Person]:
    """Each person so often, with the centre moved along the diagonal of a cell: so decoding's grid averages out."""
    return [
        replace(person, index=k, center=(person.center[0] + step, person.center[1] + step))
        for person in persons
        for k, step in enumerate(np.arange(count) / count * 200 * person.scale / CELLS)
    ]


def round_trip(persons: list[Person], images: Path, folder: Path, tta: Tta) -> np.ndarray:
    """Errors (n, 2) in cells of the coarsest crop, where the network's maps are the true ones of every crop.

    Joints that lie outside the narrowest crop, or less than a cell from its edge, are left out.
    """
    fill(folder / "store.h5", persons, images, dataset="d", resolution=SIZE * 5 // 4, progress=False)
    people = Persons(Store(folder / "store.h5"), np.arange(len(persons)), CPU)
    crops = PYRAMID if tta == "six-scale" else (1.0,)
    asked: list[Tensor] = []

    def truth(_: SCANet, images: Tensor, tta: Tta) -> Tensor:  # noqa: ARG001
        first, boxes = 64 * (len(asked) // len(crops)), crops[len(asked) % len(crops)]
        index = torch.arange(first, first + len(images))
        asked.append(index)
        matrix = crop_matrix(people.scale[index] * boxes, people.zoom[index], SIZE)
        placed = to_input(people.joints[index], people.center[index], people.zoom[index], matrix, SIZE)
        return draw_targets(placed * CELLS / SIZE, CELLS, SIGMA, "subpixel")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scanet.inference.predict_heatmaps", truth)
        found = predict(Oracle(), people, size=SIZE, tta=tta, batch_size=64).joints
    scale = np.array([person.scale for person in persons])[:, None, None]
    known = np.stack([person.joints for person in persons])
    away = np.abs(known - np.array([person.center for person in persons])[:, None]) / (200 * scale) * CELLS
    inside = (away < min(crops) * CELLS / 2 - 1).all(axis=2)
    assert inside.mean() > 0.5
    return ((found - known) / (max(crops) * 200 * scale / CELLS))[inside]


ROUND_TRIP = pytest.mark.parametrize(("tta", "largest"), [("none", 0.3), ("six-scale", 0.5)])


@ROUND_TRIP
def test_true_maps_are_read_back_without_bias(tta: Tta, largest: float, tmp_path: Path) -> None:
    Image.new("RGB", (300, 310)).save(tmp_path / "grey.png")
    cells = positions().double().numpy()
    persons = [
        Person("grey.png", 0, "valid", center, scale, in_photograph(joints, center, scale), np.ones(16, bool), 20.0)
        for (center, scale), joints in zip(PERSONS, cells, strict=True)
    ]
    error = round_trip(at_all_phases(persons), tmp_path, tmp_path, tta)
    assert np.abs(error).max() < largest
    if tta == "none":
        assert np.abs(error.mean(axis=0)).max() < 0.01


@needs_mpii
@ROUND_TRIP
def test_real_persons_are_read_back_without_bias(tta: Tta, largest: float, tmp_path: Path) -> None:
    persons = read_json(FILES / "test_mpii.json")
    error = round_trip(at_all_phases(persons), FILES / "images", tmp_path, tta)
    assert np.abs(error).max() < largest
    if tta == "none":
        assert np.abs(error.mean(axis=0)).max() < 0.01


def test_interpolation_keeps_a_linear_map_and_ends_with_the_crop() -> None:
    """By hand: 4 cells over a crop of 8, in a frame of 12 with a point at every unit."""
    weights = interpolation(4, 8.0, 12, 12.0, torch.device("cpu"))
    assert weights.shape == (12, 4)
    inside = [2 <= point < 10 for point in range(12)]
    assert weights.sum(dim=1).tolist() == [float(i) for i in inside]
    centres = torch.tensor([3.0, 5.0, 7.0, 9.0])  # of the cells, in the frame
    between = (weights @ centres)[3:9]
    torch.testing.assert_close(between, torch.arange(3, 9) + 0.5)


def test_peaks_are_those_of_the_maps_resized_one_by_one() -> None:
    """Against a slow reference: every map drawn point by point into the frame."""
    pyramid = list(torch.rand(len(PYRAMID), 2, 3, 5, 5, generator=torch.Generator().manual_seed(4)))
    side = 26  # 1.3 boxes at 4 points to each of 5 cells
    mean = np.zeros((2, 3, side, side))
    for boxes, maps in zip(PYRAMID, pyramid, strict=True):
        for y in range(side):
            for x in range(side):
                u, v = (((p + 0.5) / side - 0.5) * 1.3 / boxes + 0.5 for p in (x, y))
                if min(u, v) > 0 and max(u, v) < 1:
                    cx, cy = (min(max(c * 5 - 0.5, 0), 4) for c in (u, v))
                    x0, y0 = min(int(cx), 3), min(int(cy), 3)
                    fx, fy = cx - x0, cy - y0
                    part = maps[:, :, y0 : y0 + 2, x0 : x0 + 2].numpy()
                    across = part[..., 0] * (1 - fx) + part[..., 1] * fx
                    mean[:, :, y, x] += (across[..., 0] * (1 - fy) + across[..., 1] * fy) / 6
    cells, heat = peaks(pyramid)
    np.testing.assert_allclose(heat.numpy(), mean.max(axis=(2, 3)), atol=1e-6)
    flat = mean.reshape(2, 3, -1).argmax(axis=2)
    expected = (np.stack([flat % side, flat // side], axis=-1) + 0.5) * 5 / side
    np.testing.assert_allclose(cells.numpy(), expected, atol=1e-5)


class Pooled(Oracle):
    """Heat maps are the image's channels at a quarter of the size, mixed by a weight for each joint."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, list[dict[str, Tensor]]]:
        assert noise is None
        pooled = nn.functional.avg_pool2d(images, 4)
        return torch.einsum("jc,bchw->bjhw", self.weights, pooled)[:, None], []


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) - 0.5


@torch.no_grad()
def test_flip_test_leaves_an_equivariant_model_alone(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that treats left and right alike puts out the mirror image for the mirrored image."""
    monkeypatch.setattr("scanet.device.fast_bf16", lambda _: False)
    weights = torch.randn(16, 3, generator=torch.Generator().manual_seed(2))
    symmetric = Pooled(weights + weights[list(MPII.flip)])
    plain, flipped = (predict_heatmaps(symmetric, images, tta) for tta in ("none", "flip"))
    torch.testing.assert_close(flipped, plain)
    one_sided = Pooled(weights)
    expected = predict_heatmaps(Pooled((weights + weights[list(MPII.flip)]) / 2), images, "none")
    torch.testing.assert_close(predict_heatmaps(one_sided, images, "flip"), expected)
    assert not torch.allclose(predict_heatmaps(one_sided, images, "none"), expected)


@torch.no_grad()
@pytest.mark.parametrize("row", ["Baseline", "ALL"])
def test_flip_test_treats_both_sides_alike(row: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any weights: the mirrored image's heat maps are the image's, mirrored, and the mean of both passes."""
    monkeypatch.setattr("scanet.device.fast_bf16", lambda _: False)
    torch.manual_seed(3)
    model = SCANet(Network(row=ROWS[row], joints=16, stacks=2, channels=16)).eval()
    one, other = (predict_heatmaps(model, x, "flip") for x in (images, images.flip(-1)))
    torch.testing.assert_close(mirror(other, MPII.flip), one)
    passes = [model(x)[0][:, -1] for x in (images, images.flip(-1))]
    torch.testing.assert_close(one, (passes[0] + mirror(passes[1], MPII.flip)) / 2)
    assert not torch.allclose(one, passes[0], atol=1e-4)


@torch.no_grad()
def test_testing_is_noise_free_and_reads_the_last_stack(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanet.device.fast_bf16", lambda _: False)
    torch.manual_seed(4)
    model = SCANet(Network(row=ROWS["SSA"], joints=16, stacks=2, channels=16)).eval()
    heatmaps, outs = model(images)
    for out in outs:  # tau = 1 and no noise: the map is Eq. (5)'s
        torch.testing.assert_close(out["attention"], out["probability"], rtol=0, atol=2e-6)
    torch.testing.assert_close(predict_heatmaps(model, images, "none"), heatmaps[:, 1])
    noise = gumbel_difference((2, 2, CELLS, CELLS), torch.Generator().manual_seed(5))
    assert not torch.allclose(model(images, noise)[0], heatmaps, atol=1e-4)
