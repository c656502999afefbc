"""Readers of MPII Human Pose annotations: the official .mat and Newell's .h5.

Both count pixels from 1 (Matlab); the readers subtract 1. The .mat holds the raw centre and scale, the .h5 the
adjusted ones; every `Person` is adjusted, once. Sources: the official archive http://human-pose.mpi-inf.mpg.de;
princeton-vl/pose-hg-train (PHT); bearpaw/pytorch-pose (PP).
"""

import gzip
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import mat_struct
from tqdm import tqdm

from scanet.data.person import Person, Reading, Skipped, Split
from scanet.files import UserError, alone, whole_folder
from scanet.skeleton import MPII

MAT_NAME = "mpii_human_pose_v1_u12_1.mat"
ARCHIVE_NAME = "mpii_human_pose_v1.tar.gz"
JOINTS = len(MPII.joints)
#: Persons in the release's file: training and validation as in Newell's lists, test as in his test.h5.
EXPECTED = {"train": 22_246, "valid": 2_958, "test": 11_731}

NO_BOX = "no scale or centre"
NO_JOINTS = "no joints"
UNLISTED = "in a validation image, but not in the list"

_SITE = "from http://human-pose.mpi-inf.mpg.de"
_GET_ANNOTATIONS = f"get the annotations (mpii_human_pose_v1_u12_2.zip) {_SITE}"
_GET_IMAGES = f"get the photographs ({ARCHIVE_NAME}) {_SITE}"


def read_folder(folder: Path) -> Reading:
    """The persons of the official .mat and the folder of the photographs, `images/`.

    The validation persons are those of the folder's `valid.h5` (Newell's format) if there is one, else
    `validation_list()`. Where `images/` is missing, the official archive is unpacked into it, once, after all else
    has been checked.

    A validation person without a head rectangle is an error and not skipped: PCKh cannot count such a person, and a
    rate over fewer persons than the list has is not the one that others state.

    Raises:
        UserError: a file is missing or unreadable, or the list names persons that the .mat lacks or that have no
            joints, scale, centre or head rectangle there.
    """
    mat, own, images, archive = (folder / name for name in (MAT_NAME, "valid.h5", "images", ARCHIVE_NAME))
    incomplete = f"{folder} is not a complete MPII folder because"
    if not mat.is_file():
        raise UserError(f"{incomplete} {MAT_NAME} is missing in it: {_GET_ANNOTATIONS}.")
    if not images.is_dir() and not archive.is_file():
        raise UserError(
            f"{incomplete} images is missing in it: {_GET_IMAGES} and put the archive, or images unpacked, there."
        )
    standard = validation_list()
    if own.is_file():
        listed = {(person.image, person.index) for person in read_h5(own, "valid")}
        source, remedy = f"valid.h5 in {folder}", "delete valid.h5 to use the list that the field uses"
    else:
        listed, source, remedy = standard, "the validation list that the field uses", _GET_ANNOTATIONS
    persons, skipped = read_mat(mat, listed)
    _check_validation(persons, skipped, listed, f"persons of {source}", str(mat), remedy)
    if not images.is_dir():
        with alone(images, str(images), wait=True):
            if not images.is_dir():  # another process may have done it
                _unpack(archive, images)
    reading = Reading(persons, images, skipped, EXPECTED if listed == standard else {})
    if reading.expected and reading.counts != reading.expected:
        known = ", ".join(f"{number:,} {split}" for split, number in EXPECTED.items())
        warning = f"{mat} does not read as the release v1_u12_1, which gives {known} persons: {_GET_ANNOTATIONS}."
        reading = replace(reading, warning=warning)
    return reading


def check_photographs(reading: Reading) -> str:
    """A warning if test photographs are missing, empty if none is.

    Raises:
        UserError: validation photographs are missing: a rate over fewer persons than the list has is not the one that
            others state.
    """
    known = {path.name for path in reading.images.iterdir()}
    absent = {person.image: person.split for person in reading.persons if person.image not in known}
    if names := sorted(name for name, split in absent.items() if split == "valid"):
        raise UserError(
            f"{reading.images} lacks {len(names):,} of the validation photographs, {names[0]} among them: "
            f"{_GET_IMAGES} and unpack all of it."
        )
    if names := sorted(name for name, split in absent.items() if split == "test"):
        return f"{reading.images} lacks {len(names):,} test photographs, {names[0]} among them: submissions need all."
    return ""


def _check_validation(
    persons: Sequence[Person], skipped: Sequence[Skipped], listed: Set[tuple[str, int]], whose: str, mat: str,
    remedy: str,
) -> None:  # fmt: skip
    """Refuse a .mat in which a listed person is missing or has no head rectangle."""
    heads = {(person.image, person.index): person.head_size for person in persons if person.split == "valid"}
    reasons = {(person.image, person.number): person.reason for person in skipped}
    missing = sorted(listed - heads.keys())
    if missing:
        (image, number), reason = missing[0], reasons.get(missing[0], "not in the file")
        raise UserError(
            f"{mat} lacks {len(missing):,} of the {len(listed):,} {whose}, such as number {number} of {image} "
            f"({reason}): {remedy}."
        )
    headless = sorted(key for key, head in heads.items() if np.isnan(head))
    if headless:
        image, number = headless[0]
        raise UserError(
            f"{mat} has no head rectangle (x1, y1, x2, y2) for {len(headless):,} of the {len(listed):,} {whose}, "
            f"such as number {number} of {image}, and PCKh needs one: {remedy}."
        )


def validation_list() -> set[tuple[str, int]]:
    """The validation split that the field uses (Tompson et al., CVPR 2015), 2,958 pairs: (image, person's number
    from 0, counting every `annorect`). The official files have none.
    """
    text = (resources.files("scanet.data") / "mpii_validation.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {(image, int(index)) for image, *numbers in lines for index in numbers}


def _unpack(archive: Path, images: Path) -> None:
    """The archive's photographs in the new folder `images`: all of them or, after an error, no folder.

    Only regular .jpg files are taken, each under its bare name, so whatever paths, links or modes an archive holds,
    nothing is written elsewhere.
    """
    try:
        with (
            whole_folder(images) as temporary,
            archive.open("rb") as raw,
            gzip.open(raw) as unzipped,
            tarfile.open(fileobj=unzipped, mode="r|") as tar,  # a stream: to go back, gzip starts again
            tqdm(total=archive.stat().st_size, unit="B", unit_scale=True, desc=archive.name, file=sys.stderr) as bar,
        ):
            for member in tar:
                name = PurePosixPath(member.name).name
                content = tar.extractfile(member) if member.isfile() and name.endswith(".jpg") else None
                if content is not None:
                    with (temporary / name).open("wb") as file:
                        shutil.copyfileobj(content, file)
                bar.update(raw.tell() - bar.n)
            while unzipped.read(1 << 20):  # to the checksum at the end
                pass
            if not any(temporary.iterdir()):
                raise tarfile.ReadError("it holds no .jpg")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}): {_GET_IMAGES} again.") from error
    except OSError as error:
        raise UserError(
            f"{archive} cannot be unpacked into {images} ({error}): make room and see that it may be written there."
        ) from error


def read_mat(path: Path, valid: Set[tuple[str, int]]) -> tuple[list[Person], list[Skipped]]:
    """The persons of the official file, in its order, and those left out, each with the first reason that holds.

    valid: as `validation_list()`. "train" are the persons of the training part's other images. "test" is the part
    with `img_train` 0, whose joints are not public: NaN.

    Left out: `NO_BOX`, persons without scale or centre; `NO_JOINTS`, those of the training part without a joint;
    `UNLISTED`, other persons of a validation image, for no image is in both splits (PP's gen_mpii.m does the same).

    Raises:
        UserError: the file cannot be read as Matlab's or holds no `RELEASE`.
    """
    try:
        content = loadmat(path, struct_as_record=False, squeeze_me=True)
        if "RELEASE" not in content:
            raise ValueError("it holds no variable RELEASE")
        release = content["RELEASE"]
        images, is_train = _structs(release.annolist), np.ravel(release.img_train)
        if len(images) != len(is_train):
            raise ValueError(f"{len(images)} images but {len(is_train)} values of img_train")
        names = [str(image.image.name) for image in images]
    except Exception as error:  # scipy raises a dozen kinds for files that are broken or something else
        raise UserError(f"{path} cannot be read as MPII's .mat ({error}): {_GET_ANNOTATIONS}.") from error
    validation_images = {image for image, _ in valid}
    persons, skipped = [], []
    for name, image, train in zip(names, images, is_train, strict=True):
        for index, rect in enumerate(_structs(getattr(image, "annorect", None))):
            split: Split = "valid" if (name, index) in valid else "train" if train else "test"
            scale, position = _number(rect, "scale"), next(iter(_structs(getattr(rect, "objpos", None))), None)
            center, scale = _adjust(_number(position, "x"), _number(position, "y"), scale)
            joints, visible = _points(rect)
            if not (np.isfinite([*center, scale]).all() and scale > 0):
                skipped.append(Skipped(name, index, NO_BOX))
            elif split != "test" and not np.isfinite(joints).any():
                skipped.append(Skipped(name, index, NO_JOINTS))
            elif split == "train" and name in validation_images:
                skipped.append(Skipped(name, index, UNLISTED))
            else:
                persons.append(Person(name, index, split, center, scale, joints, visible, _head_size(rect)))
    return persons, skipped


def read_h5(path: Path, split: Split) -> list[Person]:
    """The persons of a file in Newell's format. A joint at (0, 0) is missing; one zero alone is a place.

    Raises:
        UserError: the file cannot be read or lacks a data set.
    """
    try:
        with h5py.File(path, "r") as file:
            part = file["part"][:].astype(float)
            center, scale = file["center"][:].astype(float) - 1.0, file["scale"][:].astype(float)
            visible, head = file["visible"][:] > 0.5, file["normalize"][:].astype(float)
            index = file["person"][:].astype(int)
            names = [_text(name) for name in file["imgname"][:]]
        if len({len(each) for each in (part, center, scale, visible, head, index, names)}) > 1:
            raise ValueError("its arrays are of different lengths")
    except Exception as error:  # as many kinds as there are broken files
        raise UserError(
            f"{path} cannot be read as annotations in Newell's format ({error}): replace or delete it."
        ) from error
    annotated = (part != 0).any(2)
    joints = np.where(annotated[..., None], part - 1.0, np.nan)
    visible &= annotated
    head[head <= 0] = np.nan
    return [
        Person(
            names[i], int(index[i]), split, _pair(center[i]), float(scale[i]), joints[i], visible[i], float(head[i])
        )
        for i in range(len(scale))
    ]


def _adjust(x: float, y: float, scale: float) -> tuple[tuple[float, float], float]:
    """From the file's raw, 1-based centre and scale to the package's (PHT): lower by 15 * scale, 1.25 as wide."""
    return (x - 1.0, y - 1.0 + 15.0 * scale), 1.25 * scale


def _structs(value: Any) -> list[mat_struct]:
    """The elements of a struct array, however it is wrapped: absent, empty, alone or an array."""
    return [item for item in np.ravel(np.asarray(value, dtype=object)) if isinstance(item, mat_struct)]


def _number(struct: Any, field: str, default: float = np.nan) -> float:
    """A field that may be absent, empty, a number, a text or wrapped in an array."""
    value = getattr(struct, field, None)
    if isinstance(value, int | float):
        return float(value)
    items = np.ravel(np.asarray(value))
    try:
        return float(items[0]) if items.size else default
    except (TypeError, ValueError):
        return default


def _points(rect: mat_struct) -> tuple[np.ndarray, np.ndarray]:
    """Joints (16, 2), 0-based, and their visibility (16,). Points without the flag, such as neck and head top, are
    visible, and of several points of one joint the first counts: both as in Newell's files (PHT). Points with
    another id than 0 to 15 or without a place are ignored.
    """
    joints, visible = np.full((JOINTS, 2), np.nan), np.zeros(JOINTS, bool)
    for point in _annotated_points(rect):
        joint, place = _number(point, "id"), (_number(point, "x") - 1.0, _number(point, "y") - 1.0)
        if joint in range(JOINTS) and np.isfinite(place).all() and np.isnan(joints[int(joint), 0]):
            joints[int(joint)] = place
            visible[int(joint)] = _number(point, "is_visible", default=1.0) > 0
    return joints, visible


def _annotated_points(rect: mat_struct) -> Iterator[mat_struct]:
    for points in _structs(getattr(rect, "annopoints", None)):
        yield from _structs(getattr(points, "point", None))


def _head_size(rect: mat_struct) -> float:
    """0.6 times the diagonal of the head's rectangle (official toolkit), NaN without one."""
    x1, y1, x2, y2 = (_number(rect, field) for field in ("x1", "y1", "x2", "y2"))
    return 0.6 * float(np.hypot(x2 - x1, y2 - y1)) or np.nan


def _text(name: Any) -> str:
    """An image's name, stored as text, bytes or ASCII codes padded with zeros."""
    if isinstance(name, str):
        return name
    data = name if isinstance(name, bytes) else bytes(np.asarray(name).astype(np.uint8))
    return data.decode("ascii").strip("\0 ")


def _pair(point: np.ndarray) -> tuple[float, float]:
    return float(point[0]), float(point[1])
