"""The file for MPII's server: the official structure, every test person in its place, or no file."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat

from scanet import cli, results, submission
from scanet.data import mpii, synthetic
from scanet.data.loader import Persons
from scanet.data.matlab import struct_array
from scanet.data.store import Store, fill
from scanet.data.synthetic import ImageRecord, PersonRecord, write_mpii_mat
from scanet.files import UserError
from scanet.inference import predict

EMPTY = np.zeros((0, 0))
#: Names of the test images in the file's order, and each annorect's (scale, objpos); None: nobody, no structs.
TEST: dict[str, list[tuple[Any, Any]] | None] = {
    "b.jpg": [(1.2345678901234567, (101, 201.5))],
    "nobody.jpg": None,
    "a.jpg": [(1.5, (11, 12)), (EMPTY, (21, 22)), (2.5, None), (3, (31, 300))],
    "unplaced.jpg": [(EMPTY, None)],
    "c.jpg": [(4.25, (41, 42))],
}
PERSONS = [("b.jpg", 0), ("a.jpg", 0), ("a.jpg", 3), ("c.jpg", 0)]


def annorect(scale: Any, objpos: Any) -> dict[str, Any]:
    return {"scale": scale, "objpos": EMPTY if objpos is None else {"x": objpos[0], "y": objpos[1]}}


def entry(name: str, rects: np.ndarray, frame: Any = EMPTY) -> dict[str, Any]:
    return {"image": {"name": name}, "annorect": rects, "frame_sec": frame, "vididx": EMPTY}


def write_mat(path: Path, test: dict[str, list[tuple[Any, Any]] | None]) -> Path:
    """The official nesting: test images without joints, between two of the training part."""
    point = {"point": struct_array([{"x": 5.0, "y": 6.0, "id": 3}], ("x", "y", "id"))}
    train = struct_array([{**annorect(1.0, (9, 9)), "annopoints": point}], ("annopoints", "scale", "objpos"))
    annolist = [entry("train.jpg", train)]
    for name, rects in test.items():
        people = EMPTY if rects is None else struct_array([annorect(*r) for r in rects], ("scale", "objpos"))
        annolist.append(entry(name, people, 7))
    annolist.append(entry("last.jpg", train))
    release = {
        "annolist": struct_array(annolist, ("image", "annorect", "frame_sec", "vididx")),
        "img_train": np.array([[1, *[0] * len(test), 1]], np.uint8),
        "version": "12",
    }
    savemat(path, {"RELEASE": release})
    # Matlab keeps whole doubles as small integers: elements of class double (6) whose data are of an integer type.
    flags, data = b"\x06\0\0\0\x08\0\0\0", path.read_bytes()
    for integer in (b"\x09", b"\x0c", b"\x0e"):  # uint8, int32, int64
        data = data.replace(flags + integer + b"\0\0\0", flags + b"\x06\0\0\0")
    path.write_bytes(data)
    return path


def made_up(persons: list[tuple[str, int]]) -> dict[tuple[str, int], np.ndarray]:
    rng = np.random.default_rng(3)
    return {person: rng.uniform(-20, 1900, (16, 2)) for person in persons}


def read(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """What a submission predicts: for each (image name, person's number from 0), joints (16, 2) in the package's
    0-based pixels, NaN where a joint has no point. Persons without points are left out.
    """
    predictions = {}
    for image in loadmat(path)["pred"].ravel():
        rects = image["annorect"]
        if "annopoints" not in (rects.dtype.names or ()):
            continue
        for index, annopoints in enumerate(rects["annopoints"].ravel()):
            if annopoints.size:
                joints = np.full((mpii.JOINTS, 2), np.nan)
                for point in annopoints["point"].item().ravel():
                    x, y, joint = (point[field].item() for field in ("x", "y", "id"))
                    joints[int(joint)] = x - 1.0, y - 1.0
                predictions[str(image["image"]["name"].item().item()), index] = joints
    return predictions


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    return write_mat(tmp_path / mpii.MAT_NAME, TEST)


@pytest.fixture
def written(mat: Path) -> tuple[Path, dict[tuple[str, int], np.ndarray]]:
    path, predictions = mat.with_name("pred.mat"), made_up(PERSONS)
    assert submission.write(path, mat, predictions) == len(TEST)
    return path, predictions


def test_every_person_comes_back(written: tuple[Path, dict[tuple[str, int], np.ndarray]]) -> None:
    path, predictions = written
    found = read(path)
    assert list(found) == PERSONS
    for person, joints in predictions.items():
        np.testing.assert_allclose(found[person], joints, rtol=0, atol=1e-3)


def test_structure(written: tuple[Path, dict[tuple[str, int], np.ndarray]]) -> None:
    """Struct by struct, unsqueezed, in Matlab's classes: doubles throughout."""
    path, predictions = written
    assert [name for name in loadmat(path) if not name.startswith("__")] == ["pred"]
    pred = loadmat(path, mat_dtype=True)["pred"]
    assert pred.shape == (1, 5)
    assert pred.dtype.names == ("image", "annorect", "frame_sec", "vididx")
    for image, (name, people) in zip(pred[0], TEST.items(), strict=True):
        assert image["image"].shape == (1, 1)
        assert image["image"].dtype.names == ("name",)
        assert image["image"][0, 0]["name"].tolist() == [name]
        assert image["frame_sec"].tolist() == [[7]]
        assert image["vididx"].shape == (0, 0)
        rects = image["annorect"]
        if people is None:
            assert rects.shape == (0, 0)
            assert rects.dtype == np.float64
            continue
        assert rects.shape == (1, len(people))
        assert rects.dtype.names == ("scale", "objpos", "annopoints")
        for index, (rect, (scale, objpos)) in enumerate(zip(rects[0], people, strict=True)):
            assert rect["scale"].dtype == np.float64
            np.testing.assert_array_equal(rect["scale"], np.atleast_2d(scale))
            if objpos is None:
                assert rect["objpos"].shape == (0, 0)
            else:
                assert rect["objpos"].dtype.names == ("x", "y")
                x, y = (rect["objpos"][0, 0][field] for field in "xy")
                assert x.dtype == y.dtype == np.float64
                assert (x.tolist(), y.tolist()) == ([[objpos[0]]], [[objpos[1]]])
            if (name, index) not in predictions:
                assert rect["annopoints"].shape == (0, 0)
                continue
            assert rect["annopoints"].shape == (1, 1)
            assert rect["annopoints"].dtype.names == ("point",)
            points = rect["annopoints"][0, 0]["point"]
            assert points.shape == (1, 16)
            assert points.dtype.names == ("x", "y", "id")
            assert all(point[field].dtype == np.float64 for point in points[0] for field in ("x", "y", "id"))
            assert [point["id"].tolist() for point in points[0]] == [[[k]] for k in range(16)]
            places = [[point["x"].item(), point["y"].item()] for point in points[0]]
            np.testing.assert_allclose(places, predictions[name, index] + 1, rtol=0, atol=1e-9)


def test_whole_numbers_of_the_mat_are_doubles_kept_as_bytes(mat: Path) -> None:
    """What the test above relies on, and what Matlab does in the official file."""
    values = [loadmat(mat, mat_dtype=kept)["RELEASE"]["annolist"][0, 0][0, 1] for kept in (False, True)]
    stored, meant = (value["annorect"][0, 0]["objpos"][0, 0]["x"] for value in values)
    assert stored.dtype.kind in "iu"
    assert meant.dtype == np.float64


@pytest.mark.skipif(shutil.which("octave") is None, reason="octave is not on this machine")
def test_octave_reads_it(written: tuple[Path, dict[tuple[str, int], np.ndarray]]) -> None:
    path, predictions = written
    code = f"""
        load('{path}'); p = pred(3).annorect(4).annopoints.point;
        printf('%d %d %s %s %d ', size(pred), pred(3).image.name, class(p(1).id), isempty(pred(2).annorect));
        printf('%d ', [p.id]); printf('%.9f ', [p.x], [p.y], pred(3).annorect(4).scale, pred(1).annorect.objpos.y);
    """
    ended = subprocess.run(["octave", "--no-gui", "--eval", code], capture_output=True, text=True, check=True)
    words = ended.stdout.split()
    assert words[:5] == ["1", "5", "a.jpg", "double", "1"]
    assert words[5:21] == [str(k) for k in range(16)]
    expected = [*(predictions["a.jpg", 3].T + 1).ravel(), 3, 201.5]
    np.testing.assert_allclose(np.array(words[21:], float), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("test", [{"one.jpg": [(1.5, (7, 8))]}, {"two.jpg": [(1.5, (7, 8)), (2.5, (9, 8))]}])
def test_a_single_image(test: dict[str, list[tuple[Any, Any]] | None], tmp_path: Path) -> None:
    """Nothing depends on there being several."""
    mat, path = write_mat(tmp_path / mpii.MAT_NAME, test), tmp_path / "pred.mat"
    predictions = made_up([(name, k) for name, people in test.items() for k in range(len(people or []))])
    assert submission.write(path, mat, predictions) == 1
    assert loadmat(path)["pred"].shape == (1, 1)
    found = read(path)
    assert found.keys() == predictions.keys()
    assert all(np.abs(found[person] - predictions[person]).max() < 1e-3 for person in found)


def test_nobody_as_a_struct_without_fields(tmp_path: Path) -> None:
    annolist = struct_array([{"image": {"name": "a.jpg"}, "annorect": {}}], ("image", "annorect"))
    savemat(tmp_path / "a.mat", {"RELEASE": {"annolist": annolist, "img_train": 0}})
    assert submission.write(tmp_path / "pred.mat", tmp_path / "a.mat", {}) == 1
    assert loadmat(tmp_path / "pred.mat")["pred"][0, 0]["annorect"].shape == (0, 0)
    assert read(tmp_path / "pred.mat") == {}


def test_known_joints_are_replaced(tmp_path: Path) -> None:
    """The generated file has joints for test images as well, and structs without elements for nobody."""
    joints = np.full((16, 2), 50.0)
    joints[4] = np.nan
    person = PersonRecord((1.0, 2.0, 3.0, 4.0), 1.5, (5.0, 6.0), joints, np.arange(16) > 0)
    images = [
        ImageRecord("train.jpg", True, [person]),
        ImageRecord("none.jpg", False, []),
        ImageRecord("test.jpg", False, [person, person]),
    ]
    write_mpii_mat(tmp_path / mpii.MAT_NAME, images)
    predictions = made_up([("test.jpg", 0), ("test.jpg", 1)])
    assert submission.write(tmp_path / "pred.mat", tmp_path / mpii.MAT_NAME, predictions) == 2
    none, test = loadmat(tmp_path / "pred.mat")["pred"][0]
    assert none["annorect"].shape == (1, 0)
    assert test["annorect"].dtype.names == ("x1", "y1", "x2", "y2", "annopoints", "scale", "objpos")
    assert test["annorect"][0, 0]["annopoints"][0, 0]["point"].dtype.names == ("x", "y", "id")
    found = read(tmp_path / "pred.mat")
    assert all(np.abs(found[key] - predictions[key]).max() < 1e-3 for key in predictions)


def without(person: tuple[str, int]) -> dict[tuple[str, int], np.ndarray]:
    return {key: joints for key, joints in made_up(PERSONS).items() if key != person}


def changed(joints: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
    return {**made_up(PERSONS), ("a.jpg", 3): joints}


NOT_A_NUMBER = np.where(np.arange(32).reshape(16, 2) == 21, np.nan, 5.0)


@pytest.mark.parametrize(
    ("predictions", "sentence"),
    [
        (without(("a.jpg", 3)), r"1 of the 4 test persons in .* have no prediction, such as person 3 of a.jpg: get"),
        ({}, r"4 of the 4 test persons in .* have no prediction, such as person 0 of a.jpg"),
        (made_up([*PERSONS, ("a.jpg", 4)]), r"1 of the 5 .* no test persons .*, such as person 4 of a.jpg: predict"),
        (made_up([*PERSONS, ("a.jpg", 1)]), r"no test persons with scale and centre in .* person 1 of a.jpg"),
        (made_up([*PERSONS, ("train.jpg", 0)]), r"such as person 0 of train.jpg"),
        (changed(NOT_A_NUMBER), r"for r-wrist of person 3 of a.jpg is \(5.0, nan\): give finite numbers"),
        (changed(np.full((16, 2), np.inf)), r"for r-ankle of person 3 of a.jpg is \(inf, inf\)"),
        (changed(np.zeros((14, 2))), r"for person 3 of a.jpg has shape \(14, 2\): give \(16, 2\)"),
        (changed(np.zeros((2, 16))), r"has shape \(2, 16\)"),
    ],
)
def test_what_cannot_be_submitted_leaves_no_file(
    predictions: dict[tuple[str, int], np.ndarray], sentence: str, mat: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        submission.write(mat.with_name("pred.mat"), mat, predictions)
    assert list(mat.parent.iterdir()) == [mat]


def test_an_interrupted_write_keeps_the_file_before(
    written: tuple[Path, dict[tuple[str, int], np.ndarray]], mat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, predictions = written
    before = path.read_bytes()

    def full(temporary: Path, _: object) -> None:
        temporary.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(submission, "save", full)
    with pytest.raises(OSError, match="no space"):
        submission.write(path, mat, predictions)
    assert path.read_bytes() == before
    assert sorted(mat.parent.iterdir()) == sorted([mat, path])


def test_other_files_are_refused(mat: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read as MPII's .mat"):
        submission.write(mat.with_name("pred.mat"), mat.with_name("nothing.mat"), {})


# The command -----------------------------------------------------------------------------------------------------


def call(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["scanet", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0


@pytest.fixture(scope="module")
def project(project: Path) -> Path:
    """The project with a trained run, MPII's .mat, and the store `mpii.h5` of its persons: 1 to train, 4 to test."""
    images = []
    for k, (name, people) in enumerate({"t.jpg": 1, "b.jpg": 1, "nobody.jpg": 0, "a.jpg": 3}.items()):
        scene = synthetic.render(np.random.default_rng(k), 0.5, 0.5)
        Image.fromarray(scene.image).save(project / name)
        others = [PersonRecord(**{**vars(scene.person), "scale": scene.person.scale * s}) for s in (1, 1.2, 0.8)]
        images.append(ImageRecord(name, name == "t.jpg", others[:people]))
    write_mpii_mat(project / mpii.MAT_NAME, images)
    persons, _ = mpii.read_mat(project / mpii.MAT_NAME, set())
    # The order of a store's rows is not to matter.
    fill(project / "mpii.h5", persons[::-1], project, dataset="mpii", resolution=80, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANET_HOME", str(project))
        assert call("train", "Baseline", "--preset", "tiny", "--set", "epochs=1") == 0
    return project


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCANET_HOME", str(project))
    return project / "experiments/results/tiny/ablation/Baseline-s0-epochs=1"


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_submit_writes_the_runs_predictions(
    tta: Any, run: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert call("submit", run, "--mat", project / mpii.MAT_NAME, "--data", project / "mpii.h5", "--tta", tta) == 0
    captured = capsys.readouterr()
    first, last = captured.out.splitlines()
    assert first.startswith("Device: ")
    assert last == "4 persons in 3 test images: pred_keypoints_mpii.mat"
    assert "4/4" in captured.err  # the bar
    found = read(tmp_path / "pred_keypoints_mpii.mat")
    assert list(found) == [("b.jpg", 0), ("a.jpg", 0), ("a.jpg", 1), ("a.jpg", 2)]
    store = Store(project / "mpii.h5")
    rows = store.indices("test")
    model = results.load_network(run / "weights.safetensors")
    expected = predict(model, Persons(store, rows, torch.device("cpu")), size=64, tta=tta).joints
    for row, joints in zip(rows, expected, strict=True):
        np.testing.assert_allclose(found[store.image[row], store.index[row]], joints, rtol=0, atol=1e-3)


def test_submit_says_what_is_missing(
    run: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(folder: Path, data: Path, mat: Path = project / mpii.MAT_NAME) -> str:
        assert call("submit", folder, "--mat", mat, "--data", data, "--output", tmp_path / "pred.mat") == 1
        assert not (tmp_path / "pred.mat").exists()
        sentence = capsys.readouterr().err
        assert sentence.count("\n") == 1
        return sentence

    for output, said in (
        (tmp_path, "is a folder: give the name of a file"),
        (
            project / mpii.MAT_NAME / "new" / "pred.mat",
            f"cannot be written, as {project / mpii.MAT_NAME} is a file: give",
        ),
        (project / "mpii.h5", "mpii.h5 is read here and would be lost: give another --output"),
        (project / mpii.MAT_NAME, "is read here and would be lost: give another --output"),
    ):
        files = "--mat", project / mpii.MAT_NAME, "--data", project / "mpii.h5"
        before = (project / "mpii.h5").read_bytes(), (project / mpii.MAT_NAME).read_bytes()
        assert call("submit", run, *files, "--output", output) == 1
        assert said in capsys.readouterr().err
        assert ((project / "mpii.h5").read_bytes(), (project / mpii.MAT_NAME).read_bytes()) == before

    (synthetic_store,) = (project / "data").glob("*.h5")
    assert "has no test persons: fill a store with MPII's by `scanet prepare mpii" in refusal(run, synthetic_store)
    assert "holds no run.json" in refusal(project, project / "mpii.h5")
    assert "cannot be read as MPII's .mat" in refusal(run, project / "mpii.h5", project / "nothing.mat")

    part = tmp_path / "part.h5"
    persons = [p for p in mpii.read_mat(project / mpii.MAT_NAME, set())[0] if (p.image, p.index) != ("a.jpg", 1)]
    fill(part, persons, project, dataset="mpii", resolution=80, progress=False)
    assert "have no prediction, such as person 1 of a.jpg" in refusal(run, part)

    other = tmp_path / "a" / "b" / "c"
    shutil.copytree(run, other)
    (other / "weights.safetensors").unlink()
    assert "has no weights.safetensors" in refusal(other, project / "mpii.h5")
    text = (other / "run.json").read_text(encoding="utf-8").replace('"joints": 16', '"joints": 14')
    (other / "run.json").write_text(text, encoding="utf-8")
    assert "predicts 14 joints and not MPII's 16" in refusal(other, project / "mpii.h5")
