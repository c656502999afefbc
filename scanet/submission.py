"""The file that MPII's server scores: the test images' annotations with a network's joints put in.

Structure: the variable `pred` is the official file's `annolist` of the images with `img_train == 0`, and each of its
`annorect` holds `annopoints.point` with the fields x, y and id. Source: the evaluation section of
http://human-pose.mpi-inf.mpg.de. The file counts pixels from 1 (Matlab) and joints from 0; these functions take and
give the package's pixels. The server scores only the persons in `single_person`, but all of them are written.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from scanet.data import mpii
from scanet.data.matlab import save, struct_array
from scanet.files import UserError, whole_file
from scanet.skeleton import MPII

_EMPTY = np.zeros((0, 0))  # Matlab's []


def check(mat: Path, persons: Collection[tuple[str, int]]) -> None:
    """Whether `persons`, each (image name, number from 0), are the test persons of the official file `mat`.

    Persons without scale or centre cannot be cut out, so they are not among those.

    Raises:
        UserError: one is missing or too many, or `mat` cannot be read.
    """
    found, _ = mpii.read_mat(mat, set())
    wanted = {(person.image, person.index) for person in found if person.split == "test"}
    given = set(persons)
    if given - wanted:
        image, index = min(given - wanted)
        raise UserError(
            f"{len(given - wanted)} of the {len(given)} predicted persons are no test persons with scale and centre "
            f"in {mat}, such as person {index} of {image}: predict those that `scanet prepare mpii` finds in it."
        )
    if wanted - given:
        image, index = min(wanted - given)
        raise UserError(
            f"{len(wanted - given)} of the {len(wanted)} test persons in {mat} have no prediction, such as person "
            f"{index} of {image}: get all test photographs and repeat `scanet prepare mpii` and the prediction."
        )


def write(path: Path, mat: Path, predictions: Mapping[tuple[str, int], np.ndarray]) -> int:
    """Write the submission and return the number of images in it.

    mat: the official file. All its test images are kept, in its order and with all their fields; `annopoints` are
    empty for persons without scale or centre.
    predictions: for each (image name, person's number from 0), joints (16, 2) in the package's 0-based pixels.

    Raises:
        UserError: a person is missing or too many, joints have another shape or are not finite, or `mat` cannot be
            read. Nothing is written then.
    """
    for (image, index), joints in predictions.items():
        if joints.shape != (mpii.JOINTS, 2):
            raise UserError(
                f"the prediction for person {index} of {image} has shape {joints.shape}: give ({mpii.JOINTS}, 2), "
                f"x and y of MPII's joints."
            )
        for name, place in zip(MPII.joints, joints.tolist(), strict=True):
            if not np.isfinite(place).all():
                raise UserError(
                    f"the prediction for {name} of person {index} of {image} is {tuple(place)}: give finite numbers, "
                    f"as MPII's server wants a place for every joint."
                )
    check(mat, predictions.keys())
    # Whole numbers lie in the file as bytes; without mat_dtype they would be written as such, and Matlab's
    # arithmetic on them would then saturate.
    release = loadmat(mat, mat_dtype=True)["RELEASE"][0, 0]
    pred = release["annolist"].reshape(1, -1)[:, np.ravel(release["img_train"]) == 0]
    for k, image in enumerate(pred[0]):
        rects = image["annorect"]
        if rects.dtype.names is None:  # nobody: [], or a struct without fields, which scipy cannot write
            pred["annorect"][0, k] = _EMPTY
            continue
        name = _name(image)
        points = [
            _annopoints(predictions[name, index]) if (name, index) in predictions else _EMPTY
            for index in range(rects.size)
        ]
        pred["annorect"][0, k] = _with(rects, "annopoints", points)
    with whole_file(path) as temporary:
        save(temporary, {"pred": pred})
    return pred.size


def _name(image: np.void) -> str:
    return str(image["image"]["name"].item().item())


def _annopoints(joints: np.ndarray) -> dict[str, np.ndarray]:
    """The struct of joints (16, 2). Its numbers are doubles, as Matlab's own are."""
    points = [{"x": x + 1.0, "y": y + 1.0, "id": float(joint)} for joint, (x, y) in enumerate(joints.tolist())]
    return {"point": struct_array(points, ("x", "y", "id"))}


def _with(array: np.ndarray, field: str, values: Sequence[Any]) -> np.ndarray:
    """A copy of a struct array with one field set, one value an element; it is added where there is none."""
    names = array.dtype.names or ()
    changed = np.empty(array.shape, dtype=[(name, object) for name in dict.fromkeys([*names, field])])
    for name in names:
        changed[name] = array[name]
    column = changed.reshape(-1)[field]
    for k, value in enumerate(values):
        column[k] = value
    return changed
