"""Prediction files that others published, and the truth that they are scored against.

Both stay in the files' own frame, in which MPII counts pixels from 1. Nothing is shifted here, as PCKh sees only
differences. So score a file's predictions against these truths, never against the package's 0-based joints, and
add 1 to the package's own predictions before they meet these truths.
"""

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from scanet.files import UserError
from scanet.skeleton import MPII

#: MPII's joints, in the order of `scanet.skeleton.MPII`, as all these files have them.
_JOINTS = len(MPII.joints)


@dataclass(frozen=True, eq=False)
class Truth:
    """joints: (N, 16, 2) pixels, 1-based, NaN where missing. head_size: (N,) pixels."""

    joints: np.ndarray
    head_size: np.ndarray


def read_predictions(path: Path | str, key: str | None = None, persons: int | None = None) -> np.ndarray:
    """(N, 16, 2) pixels, float64, from an HDF5 or a Matlab file, whatever the order of its axes.

    key: the variable, by default `preds`. persons: N where it is known; a file with another number is refused.
    An array that has this order as it stands is taken so. Raises UserError if the file or the variable cannot be
    read, or if its shape leaves the axes open.
    """
    path, key = Path(path), key or "preds"
    (array,) = _read(path, [key], "name the variable with --key, and for a run of this package give its folder")
    orders = [order for order in permutations(range(3)) if _fits(array.shape, order, persons)]
    orders = orders[:1] if orders[:1] == [(0, 1, 2)] else orders  # as it should be: no other order is looked for
    if len(orders) != 1:
        wanted = f"({'N' if persons is None else persons}, {_JOINTS}, 2)"
        trouble = "fits in several ways" if orders else "does not fit"
        raise UserError(
            f"{path}: {key} of shape {array.shape} {trouble} {wanted}, one x and y for each joint of each person, "
            f"in some order of axes: name another variable with --key, or make it {wanted}, with MPII's joints"
        )
    return np.ascontiguousarray(array.transpose(orders[0]), dtype=np.float64)


def _fits(shape: tuple[int, ...], order: tuple[int, ...], persons: int | None) -> bool:
    if len(shape) != 3:
        return False
    n, joints, coordinates = (shape[axis] for axis in order)
    return (joints, coordinates) == (_JOINTS, 2) and persons in (None, n)


def read_truth(path: Path | str) -> Truth:
    """MPII's truth from Newell's `valid.h5` or from the toolkit's `detections_our_format.mat`.

    The .mat has the annotations with their fractions; the .h5 has them cut to whole pixels, which moves the
    rates in the second decimal, the head's in the first. Raises UserError for any other file.
    """
    path = Path(path)
    remedy = "give Newell's valid.h5 or detections_our_format.mat as published"
    if path.is_file() and h5py.is_hdf5(path):
        joints, head_size = _read(path, ["part", "normalize"], remedy)
        missing = (joints == 0).all(axis=-1)  # an annotated joint may have one coordinate of 0
    else:
        truth, boxes, missing = _read(path, ["pos_gt_src", "headboxes_src", "jnt_missing"], remedy)
        joints = np.moveaxis(truth, -1, 0)
        head_size = 0.6 * np.linalg.norm(boxes[-1] - boxes[0], axis=0)  # (2 corners, 2 coordinates, N)
        missing = missing.T.astype(bool)
    persons = head_size.size
    if (joints.shape, head_size.shape, missing.shape) != ((persons, _JOINTS, 2), (persons,), (persons, _JOINTS)):
        raise UserError(
            f"{path}: joints of shape {joints.shape}, head sizes of {head_size.shape} and missing joints of "
            f"{missing.shape} do not belong together: {remedy}"
        )
    joints = np.ascontiguousarray(np.where(missing[..., None], np.nan, joints), np.float64)
    return Truth(joints, head_size.astype(np.float64))


def _read(path: Path, names: list[str], remedy: str) -> list[np.ndarray]:
    """The named arrays of an HDF5 (so also a Matlab 7.3) or an older Matlab file, told apart by content."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file: check the path")
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                found = [name for name in file if isinstance(file[name], h5py.Dataset)]
                variables = {name: file[name][()] for name in names if name in found}
        else:
            found = [name for name, *_ in scipy.io.whosmat(path)]
            variables = scipy.io.loadmat(path, variable_names=names)
    except Exception as error:  # scipy raises errors of many kinds for a file that is not Matlab's
        raise UserError(
            f"{path}: not a readable HDF5 or Matlab file ({error}): fetch it again, or write the array with h5py"
        ) from error
    for name in names:
        if name not in variables:
            listed = ", ".join(found) or "none"
            raise UserError(f"{path}: there is no variable {name} (those found: {listed}): {remedy}")
    arrays = [np.asarray(variables[name]) for name in names]
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "fiub":
            raise UserError(f"{path}: {name} holds {array.dtype} and not numbers: {remedy}")
    return arrays
