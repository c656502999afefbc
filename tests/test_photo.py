"""Photographs of every kind, boxes, and the network in half precision."""

import copy
import inspect
import json
import math
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import scanet
from scanet import photo, results
from scanet.config import ROWS, Network
from scanet.files import UserError
from scanet.model import SCANet
from scanet.photo import Photo, Pose, Predictor, draw, load_model, predict_photos, read, read_boxes
from scanet.skeleton import LSP

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    model = SCANet(Network(row=ROWS["SSA"], joints=14, stacks=1, channels=16))
    return Predictor(model, 64, "random weights", CPU)


def picture(width: int = 90, height: int = 60) -> Image.Image:
    """Smooth, and the same in no two corners."""
    y, x = np.mgrid[:height, :width]
    colours = np.stack([255 * x / width, 255 * y / height, 120 + 60 * np.sin(x / 7) * np.cos(y / 5)], axis=-1)
    return Image.fromarray(colours.round().astype(np.uint8))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read(path).picture).astype(int)


def test_modes_without_loss_are_read_as_rgb(tmp_path: Path) -> None:
    truth = np.asarray(picture()).astype(int)
    grey = np.asarray(picture().convert("L")).astype(int)
    picture().save(tmp_path / "rgb.png")
    assert (pixels(tmp_path / "rgb.png") == truth).all()
    picture().convert("L").save(tmp_path / "grey.png")
    assert (pixels(tmp_path / "grey.png") == grey[..., None]).all()
    picture().quantize(16).save(tmp_path / "palette.png")
    assert (pixels(tmp_path / "palette.png") == np.asarray(picture().quantize(16).convert("RGB"))).all()
    picture().convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(pixels(tmp_path / "bits.png"))) == {0, 255}
    picture().convert("CMYK").save(tmp_path / "cmyk.tif")
    assert (pixels(tmp_path / "cmyk.tif") == truth).all()
    picture().convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "cmyk.jpg") - truth).mean() < 3
    sixteen = Image.fromarray((grey * 257).astype(np.uint16))
    sixteen.save(tmp_path / "16.png")
    sixteen.save(tmp_path / "16.tif")
    for name in ("16.png", "16.tif"):
        assert (pixels(tmp_path / name) == grey[..., None]).all(), name
    Image.fromarray((grey / 255).astype(np.float32)).save(tmp_path / "float.tif")
    assert (pixels(tmp_path / "float.tif") == grey[..., None]).all()


@pytest.mark.parametrize("name", ["rgba.png", "la.png", "palette.png", "rgba.gif"])
def test_what_is_transparent_is_grey(name: str, tmp_path: Path) -> None:
    opened = picture().convert("RGBA")
    opened.paste((200, 30, 30, 0), (0, 0, 45, 60))
    if name == "la.png":
        opened = opened.convert("LA")
    elif name.startswith("palette"):
        opened = opened.quantize(32)
    opened.save(tmp_path / name)
    found = pixels(tmp_path / name)
    assert (found[:, :44] == photo.BACKGROUND).all()
    assert (found[:, 46:] != photo.BACKGROUND).any()


def test_half_transparent_is_half_grey(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 255, 255, 128)).save(tmp_path / "half.png")
    assert np.abs(pixels(tmp_path / "half.png") - (255 + 128) / 2).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_joints_of_the_upright_picture(
    orientation: int, tmp_path: Path, predictor: Predictor
) -> None:
    turn = {  # how a camera that writes this tag has stored the upright picture
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    upright = picture()
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if turn is None else upright.transpose(turn)
    stored.save(tmp_path / "tagged.png", exif=exif)
    a, b = read(tmp_path / "upright.png"), read(tmp_path / "tagged.png")
    assert (b.width, b.height) == (a.width, a.height) == (90, 60)
    box = [(10.0, 5.0, 40.0, 50.0)]
    np.testing.assert_array_equal(predictor(a, box)[0].joints, predictor(b, box)[0].joints)


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_an_invalid_exif_orientation_is_none(tag: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    picture().save(tmp_path / "tagged.png", exif=exif)
    photo = read(tmp_path / "tagged.png")
    assert (photo.width, photo.height) == photo.picture.size == (90, 60)
    np.testing.assert_array_equal(photo.zoom, 1)


def test_an_unknown_way_of_testing_is_refused(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="tta is 'six_scale': allowed are none, flip, six-scale"):
        inspect.unwrap(Predictor.__call__)(predictor, Photo(picture(), 90, 60), tta="six_scale")  # no check of types


def test_photographs_and_boxes_are_not_written_over(tmp_path: Path, predictor: Predictor) -> None:
    for name in ("a.jpg", "a-pose.jpg"):
        picture().save(tmp_path / name)
    boxes = tmp_path / "a-pose.json"
    boxes.write_text("{}")
    before = [(tmp_path / name).read_bytes() for name in ("a-pose.jpg", "a-pose.json")]
    photos = [tmp_path / "a.jpg", tmp_path / "a-pose.jpg"]
    with pytest.raises(UserError, match=r"a-pose\.jpg is read here and would be lost: give another --output"):
        predict_photos(photos, None, predictor, "none", tmp_path)
    with pytest.raises(UserError, match=r"a-pose\.json is read here and would be lost: give another --output"):
        predict_photos(photos[:1], None, predictor, "none", tmp_path, [boxes])
    assert [(tmp_path / name).read_bytes() for name in ("a-pose.jpg", "a-pose.json")] == before


def test_a_box_of_the_whole_picture_is_no_box(tmp_path: Path, predictor: Predictor) -> None:
    picture().save(tmp_path / "a.png")
    a = read(tmp_path / "a.png")
    without, whole, beyond = predictor(a)[0], predictor(a, [(0, 0, 90, 60)])[0], predictor(a, [(-9, -9, 200, 99)])[0]
    for other in (whole, beyond):
        np.testing.assert_array_equal(without.joints, other.joints)
        assert other.box == (0, 0, 90, 60)
    assert predictor(a, []) == []


def test_boxes_give_their_poses_in_their_order(tmp_path: Path, predictor: Predictor) -> None:
    picture(200, 150).save(tmp_path / "a.png")
    a, boxes = read(tmp_path / "a.png"), [(10.0, 10.0, 50.0, 90.0), (100.0, 30.0, 60.0, 80.0)]
    together = predictor(a, boxes)
    for box, pose in zip(boxes, together, strict=True):
        (alone,) = predictor(a, [box])
        np.testing.assert_allclose(alone.joints, pose.joints, atol=1e-3)
        assert ((pose.confidence >= 0) & (pose.confidence <= 1)).all()
    middles = [pose.joints.mean(axis=0) for pose in together]
    assert middles[0][0] < middles[1][0]


def test_a_moved_person_moves_the_joints(predictor: Predictor) -> None:
    """The crop follows the box: the same person elsewhere in a photograph has the same joints, moved."""
    person = picture(60, 80)
    here, there = Image.new("RGB", (300, 300)), Image.new("RGB", (300, 300))
    here.paste(person, (40, 50))
    there.paste(person, (170, 130))
    (a,) = predictor(Photo(here, 300, 300), [(40, 50, 60, 80)])
    (b,) = predictor(Photo(there, 300, 300), [(170, 130, 60, 80)])
    np.testing.assert_allclose(b.joints - a.joints, np.tile([130.0, 80.0], (14, 1)), atol=1e-3)


def test_a_very_large_jpeg_is_read_smaller_and_its_joints_are_in_its_own_pixels(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(90, 60).resize((1440, 960), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
    whole = read(tmp_path / "large.jpg")
    assert whole.picture.size == (1440, 960)
    monkeypatch.setattr(photo, "LARGE", 400_000)
    reduced = read(tmp_path / "large.jpg")
    assert reduced.picture.size == (720, 480)
    assert (reduced.width, reduced.height) == (1440, 960)
    box = [(300.0, 200.0, 700.0, 700.0)]
    a, b = predictor(whole, box)[0], predictor(reduced, box)[0]
    assert a.box == b.box
    # Random weights have ties that a rounding decides; the others stay within a fraction of a cell of 55 pixels.
    assert np.median(np.linalg.norm(a.joints - b.joints, axis=1)) < 5


def test_too_large_a_picture_is_refused(tmp_path: Path) -> None:
    header = struct.pack(">4sIIBBBBB", b"IHDR", 40000, 30000, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + crc + b"\0\0\0\x40IDAT" + b"\0" * 64)
    with pytest.raises(UserError, match=r"bomb\.png has more than 178 million pixels: make it smaller"):
        read(tmp_path / "bomb.png")


def test_broken_files_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    buffer = BytesIO()
    picture().save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:500])
    (tmp_path / "empty.jpg").touch()
    for name in ("text.jpg", "cut.png", "empty.jpg"):
        with pytest.raises(UserError, match=f"{name} cannot be read as a picture .*: give another file") as said:
            read(tmp_path / name)
        assert str(said.value).count(name) == 1
    with pytest.raises(UserError, match=r"absent\.jpg: there is no such file"):
        read(tmp_path / "absent.jpg")


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        ((100, 0, 10, 10), "has no part in the picture of 90 x 60 pixels"),
        ((5, 5, float("nan"), 10), "has no part in the picture of 90 x 60 pixels"),
        ((5, 5, 0, 10), "is 0 wide and 10 high: give both above 0"),
        ((5, 5, 10, -5), "is 10 wide and -5 high: give both above 0"),
    ],
)
def test_boxes_without_a_part_in_the_picture_are_refused(
    box: tuple[float, float, float, float], sentence: str, predictor: Predictor
) -> None:
    with pytest.raises(UserError, match=sentence):
        predictor(Photo(picture(), 90, 60), [box])


#: A box in parts of the picture, as some detectors give them.
PARTS = '{"a.jpg": [[0.1, 0.1, 0.5, 0.5]]}'


def test_a_folder_is_no_photograph_and_no_boxes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder: give its photographs, as in .*/\*\.jpg"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"is a folder: give the json file of boxes"):
        read_boxes(tmp_path)


def test_json_of_boxes(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"a.jpg": [[1, 2, 3, 4.5]], "b.jpg": []}))
    assert read_boxes(path) == {"a.jpg": [(1.0, 2.0, 3.0, 4.5)], "b.jpg": []}
    for wrong, said in (
        ('{"a.jpg": [[1, 2, 30, 40], [1, 2, 3]]}', r"box 2 of a\.jpg is \[1, 2, 3\]"),
        ('{"a.jpg": [1, 2, 3, 4]}', r"box 1 of a\.jpg is 1"),
        ('{"a.jpg": {"x": 1}}', r"the boxes of a\.jpg are no list"),
        ('{"a": [["x", 2, 3, 4]]}', r"box 1 of a is \[.x., 2, 3, 4\]"),
        ('{"a": ["0099"]}', "box 1 of a is .0099."),
        ('{"a": [[true, true, 50, 50]]}', r"box 1 of a is \[true"),
        ('{"a": [[0, 0, NaN, 50]]}', r"box 1 of a is \[0, 0, NaN"),
        ('{"a": [[0, 0, 1%s, 50]]}' % ("0" * 400), r"box 1 of a is \[0, 0, 10"),
        (PARTS, r"box 1 of a\.jpg is \[0\.1, 0\.1"),
        ("[]", "is no json of boxes by photograph"),
        ("no json", r"is no json of boxes \("),
        ("[" * 100_000, r"is no json of boxes \("),
    ):
        path.write_text(wrong)
        with pytest.raises(UserError, match=rf"boxes\.json:? {said}.*: give \{{\"photo"):
            read_boxes(path)


def test_half_precision_survives_the_file(tmp_path: Path, predictor: Predictor) -> None:
    model = copy.deepcopy(predictor.model)
    about = {"input_size": "64", "run": "a run"}
    wide = next(buffer for name, buffer in model.named_buffers() if name.endswith("running_var"))
    wide.fill_(2e5)  # more than 16 bits hold
    parameters = dict(model.named_parameters())
    results.save_model(model, tmp_path / "half.safetensors", half=True, about=about)
    with safe_open(tmp_path / "half.safetensors", framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds == {torch.float16, torch.float32, torch.int64}  # the last two: batch normalisation's
    again = scanet.load_model(tmp_path / "half.safetensors", CPU)
    assert (again.input_size, again.name) == (64, "a run")
    for (name, a), b in zip(model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert b.dtype == a.dtype, name
        assert torch.equal(b, a.half().float() if name in parameters else a), name
    results.save_model(again.model, tmp_path / "again.safetensors", half=True, about=about)
    third = scanet.load_model(tmp_path / "again.safetensors", CPU).model.state_dict()
    assert all(torch.equal(value, third[name]) for name, value in again.model.state_dict().items())


def test_weights_that_are_none_get_a_sentence(tmp_path: Path, predictor: Predictor) -> None:
    with pytest.raises(UserError, match=r"there are no weights .*absent"):
        load_model(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no run\.json"):
        load_model(tmp_path)
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(UserError, match="text is no weights file"):
        load_model(tmp_path / "text")
    results.save_model(predictor.model, tmp_path / "run.safetensors")
    with pytest.raises(UserError, match="says no size of its input"):
        load_model(tmp_path / "run.safetensors")
    for size in ("abc", "0", "-64", "63"):
        results.save_model(predictor.model, tmp_path / "odd.safetensors", about={"input_size": size})
        with pytest.raises(UserError, match="says no size of its input"):
            load_model(tmp_path / "odd.safetensors")
    broken = copy.deepcopy(predictor.model)
    next(broken.parameters()).data.fill_(math.nan)
    results.save_model(broken, tmp_path / "nan.safetensors", about={"input_size": "64"})
    with pytest.raises(UserError, match=r"nan\.safetensors has weights that are infinite or NaN"):
        load_model(tmp_path / "nan.safetensors")


def test_the_packages_own_model_is_small_and_has_its_card() -> None:
    assert photo.WEIGHTS.stat().st_size <= 16e6
    found = scanet.load_model(device=CPU)
    text = photo.WEIGHTS.with_name("README.md").read_text(encoding="utf-8")
    assert f"| run | {found.name} |" in text
    assert f"{photo.WEIGHTS.stat().st_size / 1e6:.2f} MB" in text
    assert "Licence" in text


def test_a_limb_is_drawn_where_the_joints_are() -> None:
    joints = np.full((14, 2), 10.0)
    ankle, knee = LSP.index("l-ankle", "l-knee")
    joints[[ankle, knee]] = [[30, 70], [70, 70]]
    pose = Pose((0, 0, 100, 100), joints, np.ones(14))
    sure = np.asarray(draw(Photo(Image.new("RGB", (100, 100)), 100, 100), [pose], LSP)).astype(int)
    assert tuple(sure[70, 50]) == (0, 0x72, 0xB2)  # the middle of a left limb is blue
    assert not sure[80:, :].any()
    assert not sure[60:, 80:].any()
    enlarged = Photo(Image.new("RGB", (100, 100)), 200, 200)  # the file is twice as large as what was read
    again = Pose((0, 0, 200, 200), joints * 2 + 0.5, np.ones(14))
    np.testing.assert_array_equal(np.asarray(draw(enlarged, [again], LSP)), sure)
    faint = np.asarray(
        draw(Photo(Image.new("RGB", (100, 100)), 100, 100), [Pose(pose.box, joints, np.zeros(14))], LSP)
    )
    assert 0 < int(faint[70, 50, 2]) < sure[70, 50, 2]
