"""Readers of Leeds Sports Pose (LSP) and its extension (LSPET), as their authors distribute them.

Sources: the README.txt files of Johnson and Everingham, http://sam.johnson.io/research/lsp.html and lspet.html.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from scanet.data.person import BOX, Person, Reading, Skipped, Split
from scanet.files import UserError

#: The person's box over the larger side of its joints' bounding box; MPII's adjusted box is also 1.25 heights.
AROUND = 1.25
#: Pixels: the smallest side of a bounding box that is believed (a person of LSPET is about 150 px tall).
SMALLEST = 60.0
#: A joint outside by more than this share of the photograph's longer side is a labelling error: missing.
OUTSIDE = 0.1
#: A person with fewer annotated joints has no box worth learning from.
FEWEST_JOINTS = 3

_WHERE = "unpack the archive from http://sam.johnson.io/research/lsp.html (LSP) or lspet.html (LSP Extended) there"


def read_folder(folder: Path) -> Reading:
    """The persons of `joints.mat` and the folder of their photographs, `images/im00001.jpg` or `im0001.jpg`.

    LSPET's joints are (14, 3, N): x, y, annotated (0 or 1). LSP's are (3, 14, N): x, y, occluded (0 or 1, always
    annotated). Both are Matlab's, so read as 1-based. Neither has a box, so it is made from the joints (the
    paper is silent): a square of 1.25 times the larger side of their bounding box. The head size is the
    distance from neck to head top: NaN if one is missing or both are the same point.

    Split. LSP: its authors', the first half trains. LSPET has none: every tenth number is "valid". Its numbers
    are shuffled: neighbours look no more alike than pictures a thousand numbers apart (thumbnails of 16 x 16
    pixels: mean correlation below 0.02 at every distance), so a block would be no cleaner. About five of the
    1,000 validation pictures show a scene that the training part shows as well (correlation above 0.97).

    On the real 10,000, `OUTSIDE` drops one joint of 123,213 and nobody has fewer than `FEWEST_JOINTS`.

    Raises:
        UserError: a file is missing or `joints.mat` holds something else.
    """
    images, joints_mat = folder / "images", folder / "joints.mat"
    for needed in (joints_mat, images):
        if not needed.exists():
            raise UserError(f"{folder} is not an LSP folder because {needed.name} is missing in it: {_WHERE}.")
    points, flags, extended = _read_joints(joints_mat)
    digits = next((n for n in (5, 4) if (images / f"im{1:0{n}d}.jpg").exists()), 5 if extended else 4)
    persons, skipped = [], []
    for i in range(len(points)):
        number = i + 1
        image = f"im{number:0{digits}d}.jpg"
        joints = points[i] - 1.0  # Matlab counts from 1
        annotated = np.isfinite(joints).all(1) & ((flags[i] > 0) if extended else True)
        annotated &= ~_far_outside(joints, images / image)
        if annotated.sum() < FEWEST_JOINTS:
            skipped.append(Skipped(image, 0, f"fewer than {FEWEST_JOINTS} joints"))
            continue
        low, high = joints[annotated].min(0), joints[annotated].max(0)
        side = AROUND * max(float((high - low).max()), SMALLEST)
        joints[~annotated] = np.nan
        head = float(np.linalg.norm(joints[12] - joints[13])) or np.nan
        held_out = number % 10 == 0 if extended else 2 * number > len(points)
        split: Split = "valid" if held_out else "train"
        x, y = ((low + high) / 2).tolist()
        visible = annotated if extended else annotated & (flags[i] == 0)
        persons.append(Person(image, 0, split, (x, y), side / BOX, joints, visible, head))
    return Reading(persons, images, skipped)


def _read_joints(path: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    """Points (N, 14, 2), the third row (N, 14), and whether the file is LSP Extended's."""
    try:
        joints = loadmat(path)["joints"]
    except Exception as error:  # scipy raises a dozen kinds for files that are broken or something else
        raise UserError(
            f"{path} cannot be read as a Matlab file with a variable `joints` ({error}): {_WHERE}."
        ) from error
    if joints.ndim == 3 and joints.shape[:2] == (14, 3):
        numbers, extended = joints.transpose(2, 0, 1).astype(float), True
    elif joints.ndim == 3 and joints.shape[:2] == (3, 14):
        numbers, extended = joints.transpose(2, 1, 0).astype(float), False
    else:
        raise UserError(
            f"`joints` of {path} has the shape {joints.shape}, not LSP Extended's (14, 3, N) or LSP's (3, 14, N): "
            f"{_WHERE}."
        )
    return numbers[..., :2], numbers[..., 2], extended


def _far_outside(joints: np.ndarray, image: Path) -> np.ndarray:
    """Which joints (J, 2) lie beyond the photograph by more than `OUTSIDE`; none if it cannot be opened.

    What is wrong with it is said where it is cut.
    """
    try:
        with Image.open(image) as photograph:  # reads the header only
            size = np.array(photograph.size)
    except Exception:  # Pillow raises many kinds for files that are broken or too large
        return np.zeros(len(joints), bool)
    beyond = np.maximum(-0.5 - joints, joints - (size - 0.5)).max(1)
    return beyond > OUTSIDE * size.max()
