"""Matlab's struct arrays as `scipy.io.savemat` takes them: numpy arrays with one field of objects for each of theirs.

A single struct is a dict.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat


def struct_array(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> np.ndarray:
    """A 1 x N Matlab struct array with the fields `names`, one element a row."""
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for name in names:
        for k, row in enumerate(rows):
            array[name][0, k] = row[name]
    return array


def save(path: Path, variables: Mapping[str, Any]) -> None:
    """Write a compressed .mat file, whose bytes follow from the variables alone."""
    savemat(path, dict(variables), appendmat=False, do_compression=True)
    # The first 116 bytes are free text, in which scipy writes the platform and the time.
    with path.open("r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, written by scanet".ljust(116))
