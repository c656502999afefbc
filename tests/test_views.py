"""Looks at one picture: maps at any temperature, heat maps by joint and stack, squares of photographs."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from scanet.config import ROWS, Network
from scanet.files import UserError
from scanet.inference import varied
from scanet.model import SCANet
from scanet.model.spatial_attention import sharpen
from scanet.photo import Photo, Predictor
from scanet.report import figures
from scanet.report.views import Picture, State, look, photograph
from scanet.skeleton import MPII


def network(module: str, **options: float) -> SCANet:
    torch.manual_seed(0)
    return SCANet(Network(row=ROWS[module], channels=16, stacks=2, **options)).eval()


@pytest.fixture(scope="module")
def picture() -> Picture:
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    return Picture(np.zeros((256, 256, 3), np.float32), pixels, None)


def test_a_varied_network_shares_its_weights() -> None:
    model = network("SSA")
    other = varied(model, tau=0.25)
    assert (other.config.tau, model.config.tau) == (0.25, 1.0)
    assert other.config.row == model.config.row
    assert not other.training
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(a.data_ptr() == b.data_ptr() for a, b in pairs)


def test_maps_follow_equation_9_at_the_chosen_temperature(picture: Picture) -> None:
    """The first stack's probability does not depend on tau, so its maps are those of Eq. (9)."""
    model = network("SSA")
    with torch.inference_mode():
        probability = model(picture.pixels)[1][0]["probability"]
    for tau in (0.1, 1.0, 10.0):
        view = look(model, picture, State(tau))
        assert view.quiet.attention == pytest.approx(sharpen(probability, tau)[0, 0].numpy(), abs=1e-5)
        assert view.noisy is not None
        assert not np.allclose(view.noisy.attention, view.quiet.attention)
        assert view.quiet.heatmap.shape == view.quiet.attention.shape == (16, 16)


def test_a_draw_of_noise_is_the_same_again_and_another_one_is_not(picture: Picture) -> None:
    one, again, other = (look(network("SSA"), picture, State(1.0, noise=seed)).noisy for seed in (1, 1, 2))
    assert np.array_equal(one.attention, again.attention)
    assert not np.array_equal(one.attention, other.attention)


def test_stack_and_joint_choose_the_heat_map(picture: Picture) -> None:
    model = network("MSFI")
    with torch.inference_mode():
        heatmaps = model(picture.pixels)[0][0]
    for stack in (0, 1):
        whole = look(model, picture, State(1.0, stack=stack))
        assert np.array_equal(whole.quiet.heatmap, heatmaps[stack].amax(dim=0).numpy())
        wrist = look(model, picture, State(1.0, stack=stack, joint="l-wrist")).quiet
        assert np.array_equal(wrist.heatmap, heatmaps[stack, MPII.index("l-wrist")[0]].numpy())
        # The joint lies in its heat map's highest cell; a cell is 16 of the picture's pixels wide.
        x, y = wrist.joints[MPII.index("l-wrist")[0]] // 16
        assert wrist.heatmap[int(y), int(x)] == wrist.heatmap.max()


@pytest.mark.parametrize(("module", "maps", "looks"), [("MSFI", 2, 1), ("soft", 3, 1), ("SSA", 3, 2)])
def test_the_figure_has_a_row_with_noise_for_sharper_attention_only(
    module: str, maps: int, looks: int, picture: Picture
) -> None:
    figure = figures.explorer(look(network(module), picture, State(1.0)), MPII, Figure())
    assert len(figure.axes) == maps * looks
    scales = [ax.images[-1].get_clim() for ax in figure.axes[2::3] if maps == 3]
    assert all((limits == (0, 1)) == (module == "SSA") for limits in scales)


def png(pixels: np.ndarray, **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    stream.seek(0)
    return stream


def test_a_photograph_is_squared_and_its_outside_is_black() -> None:
    white = np.full((100, 200, 3), 255, np.uint8)
    whole = photograph(png(white), 64)  # as wide as the photograph: black above and below
    assert whole.pixels.shape == (1, 3, 64, 64)
    assert whole.image.shape == (256, 256, 3)
    assert whole.image[:50].max() == whole.image[-50:].max() == 0
    assert whole.image[100:156].min() == 1
    assert whole.pixels[0, :, 32].min() == 0.5  # 1 less GREY
    inside = photograph(png(white), 64, x=0.5, y=0.5, side=0.5)
    assert inside.image.min() == 1
    left = photograph(png(white), 64, x=0.0, side=0.5)
    assert left.image[:, :120].max() == 0
    assert left.image[:, 136:].min() == 1


def test_a_photograph_is_given_to_the_network_as_prediction_does() -> None:
    """The network sees the same pixels of the whole picture as from `Predictor`."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 15, 3), np.uint8))
    smooth = coarse.resize((300, 180), Image.Resampling.BICUBIC)
    model = network("MSFI")
    seen: list[torch.Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float()))
    Predictor(model, 64, "tiny", torch.device("cpu"))(Photo(smooth, 300, 180), tta="none")
    handle.remove()
    pixels = photograph(png(np.asarray(smooth)), 64).pixels
    torch.testing.assert_close(pixels, seen[0], atol=1e-6, rtol=0)


def test_a_photograph_is_turned_as_the_camera_noted() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[:50] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    assert photograph(png(pixels, exif=exif), 64).image[:100].max() == 0


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(UserError, match=r"the file cannot be read as a picture .*: give another file"):
        photograph(io.BytesIO(b"words"), 64)


def test_a_joint_or_a_stack_that_is_not_there_is_named(picture: Picture) -> None:
    with pytest.raises(UserError, match="joint is 'nose': allowed are r-ankle"):
        look(network("MSFI"), picture, State(1.0, joint="nose"))
    with pytest.raises(UserError, match="stack is 2: the network has 2, counted from 0"):
        look(network("MSFI"), picture, State(1.0, stack=2))
