"""From a photograph, of any kind that Pillow opens, to the joints of the persons in it.

    predictor = scanet.load_model()
    poses = predictor("photo.jpg")

The persons are cut as the store cuts them and go through the same warp and decoding as in testing. There is no
detector here: without boxes the whole picture is taken as one person's.
"""

import io
import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps
from safetensors import SafetensorError, safe_open

from scanet import results
from scanet.colours import limb_colour
from scanet.config import Tta, stored_resolution
from scanet.data.loader import Squares
from scanet.data.lsp import AROUND
from scanet.data.person import BOX
from scanet.data.store import cut_square, paste, zoom_of
from scanet.device import pick_device, within_memory
from scanet.errors import distance_to_lines
from scanet.files import UserError, check_place, whole_file, write_json
from scanet.inference import predict
from scanet.model import SCANet
from scanet.skeleton import SKELETONS, Skeleton

#: The model that comes with the package, and its card beside it.
WEIGHTS = Path(__file__).parent / "weights" / "scanet.safetensors"
#: Pixels: a JPEG with more is read at a half, a quarter or an eighth of its size, which costs no accuracy, as the
#: network sees a few hundred pixels of a person. Pillow refuses pictures of more than 2 * Image.MAX_IMAGE_PIXELS.
LARGE = 2**25
#: What a transparent pixel shows: grey, which the network's input has as zero.
BACKGROUND = (128, 128, 128)

#: A joint of less confidence counts as not found: its limbs are drawn faintly. Our choice.
UNSURE = 0.2

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph as a viewer shows it, upright.

    picture: RGB, smaller than the file's if that is very large. width, height: the file's own, pixels, upright.
    """

    picture: Image.Image
    width: int
    height: int

    @property
    def zoom(self) -> np.ndarray:
        """(2,) pixels of `picture` per pixel of the file, along x and y."""
        return np.array(self.picture.size) / (self.width, self.height)


@dataclass(frozen=True, eq=False)
class Pose:
    """A person in a photograph. All lengths are in the file's pixels, upright.

    box: (x, y, width, height), x and y being the top left corner's, in edge coordinates. joints: (j, 2), whole
    numbers at pixel centres. confidence: (j,), the heat map's peak in [0, 1], which is 1 at a joint in training; it
    is not a probability.
    """

    box: Box
    joints: np.ndarray
    confidence: np.ndarray


def read(source: Path | str | io.BytesIO) -> Photo:
    """A photograph of any mode: upright by its EXIF tag, transparency on grey, 16 bits and CMYK made RGB.

    Of an animation the first picture. Raises UserError for a file that is missing, broken or too large.
    """
    path = Path(source) if isinstance(source, Path | str) else "the file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `LARGE` and the error deal with it
            with Image.open(source) as opened:
                turned = opened.getexif().get(0x0112) in (5, 6, 7, 8)  # EXIF orientation: rows and columns swapped
                width, height = opened.size[::-1] if turned else opened.size
                factor = 1
                while width * height > LARGE * factor**2 and factor < 8:
                    factor *= 2
                opened.draft(None, (opened.width // factor, opened.height // factor))
                picture = _rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file: check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: give its photographs, as in {path}/*.jpg") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UserError(f"{path} has more than {limit} million pixels: make it smaller first") from error
    except Exception as error:  # whatever a decoder says of a broken file
        reason = re.sub(rf"(: | file ){re.escape(repr(str(path)))}", "", str(error)) or type(error).__name__
        raise UserError(f"{path} cannot be read as a picture ({reason}): give another file") from error
    return Photo(picture, width, height)


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, BACKGROUND), layer).convert("RGB")
    if picture.mode[0] in "IF":  # 16 bits, or 32; Pillow's own conversion would cut them off at 255
        values = np.asarray(picture, np.float64)
        whole = picture.mode[0] == "I"
        full = 65535.0 if whole and values.max() < 65536 else 1.0 if not whole and values.max() <= 1 else values.max()
        picture = Image.fromarray((values / full * 255).clip(0, 255).round().astype(np.uint8))
    return picture.convert("RGB")


class Predictor:
    """A network ready for photographs: `poses = predictor(photo, boxes)`."""

    def __init__(self, model: SCANet, input_size: int, name: str, device: torch.device | None = None) -> None:
        """input_size: the network's input in training, pixels. device: the best one there is."""
        self.device = device or pick_device()
        self.model = model.to(self.device).eval()
        self.input_size = input_size
        self.name = name

    @property
    def skeleton(self) -> Skeleton:
        return SKELETONS[self.model.config.joints]

    def __call__(
        self, photo: Photo | Path | str, boxes: Sequence[Box] | None = None, tta: Tta = "flip"
    ) -> list[Pose]:
        """A pose for each box, in their order; without boxes, the whole picture is one person's.

        photo: of `read`, or the path of a file.
        boxes: (x, y, width, height) as in `Pose`, as close around the persons as a detector puts them. What of them
        is outside the photograph is cut off. An empty list says that there is nobody.

        Raises:
            UserError: a box has no size or lies outside the photograph, tta is unknown, or the file cannot be read.
        """
        if tta not in get_args(Tta):
            raise UserError(f"tta is {tta!r}: allowed are {', '.join(get_args(Tta))}")
        photo = photo if isinstance(photo, Photo) else read(photo)
        whole = (0.0, 0.0, float(photo.width), float(photo.height))
        inside = [_inside(box, photo) for box in ([whole] if boxes is None else boxes)]
        if not inside:
            return []
        corners = np.array(inside).reshape(-1, 2, 2)
        middle = (corners[:, 0] + corners[:, 1] / 2) * photo.zoom - 0.5  # of `photo.picture`, pixel centres
        # As in training, but never more than the photograph is long: there is nobody outside of it.
        longest = max(photo.picture.size)
        scale = np.minimum(AROUND * (corners[:, 1] * photo.zoom).max(axis=1), longest) / BOX
        persons = cut_out(photo.picture, middle, scale, self.input_size, self.device)
        found = predict(self.model, persons, size=self.input_size, tta=tta)
        joints = (found.joints + 0.5) / photo.zoom - 0.5
        return [
            Pose(box, j, c) for box, j, c in zip(inside, joints, found.heat.clip(0, 1).astype(float), strict=True)
        ]


def cut_out(
    picture: Image.Image, middle: np.ndarray, scale: np.ndarray, input_size: int, device: torch.device
) -> Squares:
    """Squares of a picture as a store holds persons', black outside of it.

    middle (n, 2): 0-based pixels. scale (n,): the boxes' sides over 200 pixels, as a `Person`'s. input_size: the
    network's, pixels.
    """
    resolution = stored_resolution(input_size)
    squares = np.zeros((len(middle), 3, 2 * resolution, 2 * resolution), np.uint8)
    for square, (x, y), s in zip(squares, middle.tolist(), scale.tolist(), strict=True):
        part, corner = cut_square(picture, (x, y), s, resolution)
        if part is not None:
            paste(square, part, corner)
    zoom = np.array([zoom_of(s, resolution) for s in scale.tolist()])
    return Squares(middle, scale, zoom, torch.from_numpy(squares), device)


def _inside(box: Sequence[float], photo: Photo) -> Box:
    x, y, w, h = (float(value) for value in box)
    if w <= 0 or h <= 0:
        raise UserError(f"the box {x:g} {y:g} {w:g} {h:g} is {w:g} wide and {h:g} high: give both above 0")
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, photo.width), min(y + h, photo.height)
    if not (right > left and bottom > top):  # NaN too
        raise UserError(
            f"the box {x:g} {y:g} {w:g} {h:g} has no part in the picture of {photo.width} x {photo.height} pixels: "
            f"give x and y of its top left corner, its width and its height"
        )
    return left, top, right - left, bottom - top


def load_model(where: Path | str | None = None, device: torch.device | None = None) -> Predictor:
    """The network that comes with the package, a run's, or one of a file that `scanet export` wrote.

    where: None, a run's folder or a file.

    Raises:
        UserError: there are no weights, or they are not this package's.
    """
    path = WEIGHTS if where is None else Path(where)
    if path.is_dir():
        record = results.finished(path)
        return Predictor(record.trained_model(), record.settings["input_size"], record.name, device)
    if not path.is_file():
        raise UserError(f"there are no weights {path}: give a file that `scanet export` wrote, or a run's folder")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no weights file ({error}): give one that `scanet export` wrote") from error
    size = about.get("input_size", "")
    if not size.isdecimal() or int(size) == 0 or int(size) % 64:
        raise UserError(f"{path} says no size of its input that a network can have: `scanet export` the run again")
    model = results.load_network(path)
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise UserError(f"{path} has weights that are infinite or NaN: give another file that `scanet export` wrote")
    return Predictor(model, int(size), about.get("run", path.name), device)


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """A json of boxes from any detector, by the photographs' file names: {"photo.jpg": [[x, y, w, h], ...]}."""
    wanted = 'give {"photo.jpg": [[x, y, width, height], ...]}, in pixels'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file: check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: give the json file of boxes") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no json of boxes ({error}): {wanted}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no json of boxes by photograph: {wanted}")
    for name, listed in found.items():
        if not isinstance(listed, list):
            raise UserError(f"{path}: the boxes of {name} are no list: {wanted}")
        for number, box in enumerate(listed, 1):
            if not _is_box(box):
                shown = json.dumps(box)[:60]
                raise UserError(f"{path}: box {number} of {name} is {shown}: {wanted}, width or height above one")
    return {
        name: [(float(x), float(y), float(w), float(h)) for x, y, w, h in listed] for name, listed in found.items()
    }


def _is_box(values: Any) -> bool:
    """Whether they are four numbers that a photograph can have, and the box is more than a pixel."""
    if not isinstance(values, list) or len(values) != 4:
        return False
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return numbers and all(abs(value) < 1e9 for value in values) and max(values[2:]) > 1


def as_dict(poses: Sequence[Pose], photo: Photo, skeleton: Skeleton) -> dict[str, Any]:
    """What the json beside a picture says: pixels to a hundredth, confidences to a thousandth."""
    return {
        "width": photo.width,
        "height": photo.height,
        "persons": [
            {
                "box": [round(value, 2) for value in pose.box],
                "joints": {
                    name: {"x": round(x, 2), "y": round(y, 2), "confidence": round(c, 3)}
                    for name, (x, y), c in zip(
                        skeleton.joints, pose.joints.tolist(), pose.confidence.tolist(), strict=True
                    )
                },
            }
            for pose in poses
        ],
    }


def draw(photo: Photo, poses: Sequence[Pose], skeleton: Skeleton) -> Image.Image:
    """The picture with the skeletons: left limbs blue, right limbs orange, on a white rim; faint where unsure."""
    canvas = np.array(photo.picture)
    for pose in poses:
        joints = (pose.joints + 0.5) * photo.zoom  # edge coordinates
        thick = max(1.0, 0.009 * float(max(pose.box[2:] * photo.zoom)))  # half a line's width, pixels
        for first, second in skeleton.limbs:
            ends = skeleton.index(first, second)
            strength = 1.0 if pose.confidence[ends].min() >= UNSURE else 0.3
            for radius, colour, share in ((1.6 * thick, "white", 0.6), (thick, limb_colour((first, second)), 1.0)):
                _line(canvas, joints[ends], radius, np.array(ImageColor.getrgb(colour)), share * strength)
    return Image.fromarray(canvas)


def _line(canvas: np.ndarray, ends: np.ndarray, radius: float, colour: np.ndarray, opacity: float) -> None:
    """A line with round ends, its edge one pixel soft. ends: (2, 2) edge coordinates in the canvas (h, w, 3)."""
    low = np.maximum(np.floor(ends.min(axis=0) - radius - 1), 0).astype(int)
    high = np.minimum(np.ceil(ends.max(axis=0) + radius + 1), canvas.shape[1::-1]).astype(int)
    if (high <= low).any():
        return
    x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
    distance = distance_to_lines(np.stack([x, y], axis=-1), *ends)
    cover = (opacity * (radius + 0.5 - distance).clip(0, 1))[..., None]
    part = canvas[low[1] : high[1], low[0] : high[0]]
    part[:] = (part + cover * (colour - part)).round()


def predict_photos(
    photos: Sequence[Path],
    boxes: Sequence[Box] | Mapping[str, Sequence[Box]] | None,
    predictor: Predictor,
    tta: Tta,
    output: Path,
    keep: Collection[Path] = (),
    on_done: Callable[[Path, Path, int], object] = lambda *_: None,
) -> int:
    """Write `<name>-pose.jpg` and `<name>-pose.json` into `output` for each photograph; how many could not be done.

    boxes: of every photograph alike; or by file name; None takes each whole picture as one person's. A photograph
    that cannot be done is named on stderr and the others go on. keep: other files that must not be written over.

    Raises:
        UserError: two of the photographs would be written to the same place, one cannot be written to its own, or a
            photograph or file of `keep` lies there.
    """
    names = Counter(path.stem for path in photos)
    double = [name for name, count in names.items() if count > 1]
    if double:
        raise UserError(
            f"{names[double[0]]} of the photos are called {double[0]}: give them in separate calls, "
            "each with another --output"
        )
    places = {path: [output / f"{path.stem}-pose.{ending}" for ending in ("jpg", "json")] for path in photos}
    read_here = {path.resolve() for path in (*photos, *keep)}
    for place in chain.from_iterable(places.values()):
        check_place(place)
        if place.resolve() in read_here:
            raise UserError(f"{place} is read here and would be lost: give another --output")
    failed = 0
    for path in photos:
        try:
            picture, numbers = places[path]
            here = _boxes_of(path, boxes) if isinstance(boxes, Mapping) else boxes
            photo = read(path)
            with within_memory(predictor.device, "give the boxes in several calls, or a smaller model"):
                poses = _poses(predictor, path, photo, here, tta)
            with whole_file(picture) as temporary:
                draw(photo, poses, predictor.skeleton).save(temporary, "JPEG", quality=92, subsampling=0)
            about = {"photo": path.name, "model": predictor.name, "tta": tta}
            write_json(numbers, about | as_dict(poses, photo, predictor.skeleton))
        except UserError as error:
            print(f"scanet: {error}", file=sys.stderr)
            failed += 1
            continue
        on_done(path, picture, len(poses))
    return failed


def _poses(predictor: Predictor, path: Path, photo: Photo, boxes: Sequence[Box] | None, tta: Tta) -> list[Pose]:
    """The photograph's poses; what is wrong with its boxes is said with its path."""
    try:
        return predictor(photo, boxes, tta)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _boxes_of(path: Path, boxes: Mapping[str, Sequence[Box]]) -> Sequence[Box]:
    for name in (str(path), path.name):
        if name in boxes:
            return boxes[name]
    raise UserError(f"{path} is not in the json of boxes: add its name, with [] if nobody is in it")
