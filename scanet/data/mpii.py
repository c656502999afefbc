"""Readers of MPII Human Pose annotations: the official .mat, Newell's .h5 and the .json of HRNet.

All three count pixels from 1 (Matlab); the readers subtract 1. The .mat and the .json hold the raw centre and scale,
the .h5 the adjusted ones; every `Person` is adjusted, once. Sources: the official archive
http://human-pose.mpi-inf.mpg.de; princeton-vl/pose-hg-train; leoxiaobin/deep-high-resolution-net.pytorch.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import mat_struct

from scanet.data.person import Person, Split
from scanet.files import UserError
from scanet.skeleton import MPII

MAT_NAME = "mpii_human_pose_v1_u12_1.mat"
JOINTS = len(MPII.joints)

_NEEDED = {
    MAT_NAME: "get the annotations (mpii_human_pose_v1_u12_2.zip) from http://human-pose.mpi-inf.mpg.de",
    "images": "get the photographs (mpii_human_pose_v1.tar.gz) from http://human-pose.mpi-inf.mpg.de",
    "valid.h5": "get Newell's validation list from the annot folder of github.com/princeton-vl/pose-hg-demo",
}


def read_folder(folder: Path) -> tuple[list[Person], Path]:
    """The persons of the official .mat, split by Newell's `valid.h5`, and the folder of the photographs, `images/`.

    Raises:
        UserError: one of the three is missing or unreadable, or the list names persons that the .mat lacks.
    """
    for name, remedy in _NEEDED.items():
        if not (folder / name).exists():
            raise UserError(f"{folder} is not a complete MPII folder because {name} is missing in it: {remedy}.")
    listed = {(person.image, person.index) for person in read_h5(folder / "valid.h5", "valid")}
    persons = read_mat(folder / MAT_NAME, listed)
    found = {(person.image, person.index) for person in persons if person.split == "valid"}
    if found != listed:
        image, index = min(listed - found)
        raise UserError(
            f"{MAT_NAME} lacks {len(listed - found)} of the {len(listed)} persons of valid.h5 in {folder}, such as "
            f"number {index} of {image}: {_NEEDED['valid.h5']}."
        )
    return persons, folder / "images"


def read_mat(path: Path, valid: set[tuple[str, int]]) -> list[Person]:
    """The persons of the official file, in its order.

    valid: (image, person's number from 0, counting every `annorect`) of the validation split. "train" are the other
    images of the training part: no image is in both splits, so unlisted persons of a validation image are left
    out. "test" is the part without joints. Left out as well: persons without scale or centre, and those of the
    training part without joints.

    Raises:
        UserError: the file cannot be read as Matlab's or holds no `RELEASE`.
    """
    try:
        release = loadmat(path, struct_as_record=False, squeeze_me=True)["RELEASE"]
        images, is_train = _structs(release.annolist), np.ravel(release.img_train)
        if len(images) != len(is_train):
            raise ValueError(f"{len(images)} images but {len(is_train)} values of img_train")
        names = [str(image.image.name) for image in images]
    except Exception as error:  # scipy raises a dozen kinds for files that are broken or something else
        raise UserError(f"{path} cannot be read as MPII's .mat ({error}): {_NEEDED[MAT_NAME]}.") from error
    validation_images = {image for image, _ in valid}
    persons = []
    for name, image, train in zip(names, images, is_train, strict=True):
        for index, rect in enumerate(_structs(getattr(image, "annorect", None))):
            split: Split = "valid" if (name, index) in valid else "train" if train else "test"
            if split == "train" and name in validation_images:
                continue
            scale, position = _number(rect, "scale"), getattr(rect, "objpos", None)
            center, scale = _adjust(_number(position, "x"), _number(position, "y"), scale)
            joints, visible = _points(rect)
            if np.isfinite([*center, scale]).all() and (split == "test" or np.isfinite(joints).any()):
                persons.append(Person(name, index, split, center, scale, joints, visible, _head_size(rect)))
    return persons


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
    except (OSError, KeyError) as error:
        raise UserError(f"{path} cannot be read as annotations in Newell's format ({error}): replace it.") from error
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


def read_json(path: Path, split: Split) -> list[Person]:
    """The persons of a file in HRNet's format, which holds no head size (NaN) and no person's number: they are
    counted within their image. Every annotated joint is visible, for the format does not tell occluded ones.

    Raises:
        UserError: the file is no JSON or a record lacks something.
    """
    persons = []
    counter: Counter[str] = Counter()
    try:
        for record in json.loads(path.read_text(encoding="utf-8")):
            joints, annotated = np.full((JOINTS, 2), np.nan), np.zeros(JOINTS, bool)
            if "joints" in record:  # a test set has none
                annotated = np.array(record["joints_vis"], float).reshape(JOINTS) > 0
                joints[annotated] = np.array(record["joints"], float).reshape(JOINTS, 2)[annotated] - 1.0
            x, y = record["center"]
            center, scale = _adjust(float(x), float(y), float(record["scale"]))
            image = record["image"]
            persons.append(Person(image, counter[image], split, center, scale, joints, annotated, np.nan))
            counter[image] += 1
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read as annotations in HRNet's format ({error!r}): replace it.") from error
    return persons


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
    visible, as in Newell's files.
    """
    joints, visible = np.full((JOINTS, 2), np.nan), np.zeros(JOINTS, bool)
    for point in _annotated_points(rect):
        joint, place = _number(point, "id"), (_number(point, "x") - 1.0, _number(point, "y") - 1.0)
        if joint in range(JOINTS) and np.isfinite(place).all():
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
