"""The one file that training reads: every person's square cut from its photograph once, and the annotations.

Geometry. The canvas is a square of M = 2 * resolution pixels with the person's centre in its middle. A point x of
the photograph (0-based, whole numbers at pixel centres) lies at the canvas's edge coordinate
v = (x - center) * zoom + M / 2, where zoom = min(1, resolution / (200 * scale)): nothing is ever enlarged. What
is stored is the part of the canvas, in whole canvas pixels, that the photograph covers, at most `MARGIN` boxes
wide; `offset` is its corner.
"""

import hashlib
import io
import json
import math
import shutil
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from tqdm import tqdm

from scanet.data.person import BOX, Person
from scanet.device import cores, launched
from scanet.files import UserError, alone, check_place, wait_for_disk, whole_file
from scanet.skeleton import SKELETONS, Skeleton

#: Stored side over the person's box: a crop of 1.4 boxes, rotated by any angle, needs 1.4 * sqrt(2) = 1.98.
MARGIN = 2.0
VERSION = 1
QUALITY = 92  # of the JPEGs that training reads: our choice
#: Photographs that an interruption costs at most.
SHARD = 200


@dataclass(frozen=True)
class Report:
    """stored: persons in the store. skipped: (image, reason) of photographs that could not be read.
    resumed: persons found already cut, from an interrupted run or, where equal to `stored`, a finished store.
    outside: (image, person's number) of those whose square lies beside the photograph; they are kept, all black.
    """

    stored: int
    skipped: list[tuple[str, str]]
    resumed: int
    outside: list[tuple[str, int]]


def fill(
    path: Path,
    persons: Sequence[Person],
    images: Path,
    *,
    dataset: str,
    resolution: int,
    progress: bool = True,
) -> Report:
    """Cut every person from the photographs in `images` into the store at `path`, in the given order.

    resolution: the person's box has at most that many stored pixels a side; the canvas has twice as many.
    Photographs are taken as they lie in the file, because the annotations are: MPII's tools do not know the
    camera's orientation tag (HR reads with IMREAD_IGNORE_ORIENTATION).

    An interrupted call leaves its finished parts in the folder `<path>.partial`, each renamed into place when
    whole, and the next call with the same persons and resolution continues there. A finished store of the same
    persons and resolution is left as it is, unless a photograph that it lacks can be read now. Another process that
    fills it is waited for.

    Raises:
        UserError: no persons, a resolution below 16, a folder or a file that is no store at `path`, or more than half
            of the photographs cannot be read.
    """
    if not persons:
        raise UserError(f"there are no persons of {dataset} to put into {path}: check the annotation files")
    if resolution < 16:
        raise UserError(f"a resolution of {resolution} pixels is too small: give at least 16, such as 160")
    check_place(path)
    if path.exists() and _foreign(path):
        raise UserError(f"{path} is there and is no store: give another --output, or delete it.")
    header = _sha256(json.dumps([VERSION, dataset, resolution, MARGIN, QUALITY]).encode(), _annotations(persons))
    done = _finished(path, header, images)
    if done is not None:
        return done
    with alone(path, str(path), wait=True):  # and it may be finished then
        return _finished(path, header, images) or _fill(path, persons, images, dataset, resolution, header, progress)


def _fill(
    path: Path, persons: Sequence[Person], images: Path, dataset: str, resolution: int, header: str, progress: bool
) -> Report:
    """As `fill`; header: what the parts of an interrupted call must have in common with this one."""
    of_image: dict[str, list[int]] = {}
    for i, person in enumerate(persons):
        of_image.setdefault(person.image, []).append(i)
    names = list(of_image)
    _check_photographs(sum(not (images / name).is_file() for name in names), len(names), images)
    partial = path.with_name(path.name + ".partial")
    shards = {
        partial / f"{number:06d}.npz": names[start : start + SHARD]
        for number, start in enumerate(range(0, len(names), SHARD))
    }
    sha1: dict[str, str] = {}
    skipped: list[tuple[str, str]] = []
    resumed = 0
    with (
        tqdm(total=len(persons), unit=" persons", desc=path.name, file=sys.stderr, disable=not progress) as bar,
        ThreadPoolExecutor(cores()) as pool,
    ):

        def work(name: str) -> _Cut:
            cut = _cut(images / name, [persons[i] for i in of_image[name]], resolution)
            bar.update(len(of_image[name]))
            return cut

        for file, shard in shards.items():
            cuts = _load_shard(file, header)
            if cuts is None or any(cut.reason for cut in cuts):  # what could not be read is tried again
                cuts = list(pool.map(work, shard))
                _save_shard(file, header, cuts)
            else:
                count = sum(len(cut.jpegs) for cut in cuts)
                resumed += count
                bar.update(count)
            sha1.update((name, cut.sha1) for name, cut in zip(shard, cuts, strict=True))
            skipped += [(name, cut.reason) for name, cut in zip(shard, cuts, strict=True) if cut.reason]
    _check_photographs(len(skipped), len(names), images)
    attributes = {"dataset": dataset, "resolution": resolution, "canvas": 2 * resolution, "header": header}
    whole = partial / "store.h5"
    stored, outside = _join(whole, persons, of_image, shards, sha1, skipped, attributes)
    wait_for_disk(whole)
    whole.replace(path)
    shutil.rmtree(partial, ignore_errors=True)
    return Report(len(stored), skipped, resumed, [(stored[k].image, stored[k].index) for k in outside])


def _join(
    path: Path,
    persons: Sequence[Person],
    of_image: Mapping[str, Sequence[int]],
    shards: Mapping[Path, Sequence[str]],
    sha1: Mapping[str, str],
    skipped: Sequence[tuple[str, str]],
    attributes: Mapping[str, Any],
) -> tuple[list[Person], list[int]]:
    """Write the store from its parts. Returns the stored persons, and the rows of those outside their photograph.

    of_image: each photograph's persons; shards: the photographs of each part; sha1: each photograph's.
    """
    unread = {name for name, _ in skipped}
    kept = [i for i, person in enumerate(persons) if person.image not in unread]
    row = {i: k for k, i in enumerate(kept)}
    stored = [persons[i] for i in kept]
    fingerprint = _sha256(_annotations(stored), *(sha1[person.image].encode() for person in stored))[:16]
    with h5py.File(path, "w") as store:
        store.attrs.update({**attributes, "version": VERSION, "fingerprint": fingerprint})
        _write_annotations(store, stored, skipped, attributes["resolution"])
        jpegs = store.create_dataset("jpeg", len(stored), h5py.vlen_dtype(np.uint8))
        offset = np.zeros((len(stored), 2), np.int32)
        outside: list[int] = []
        for file, shard in shards.items():
            again = _load_shard(file, attributes["header"])
            if again is None:
                raise UserError(f"{file} cannot be read back: check the disk, then repeat.")
            for name, cut in zip(shard, again, strict=True):
                for i, jpeg, corner in zip(of_image[name], cut.jpegs, cut.offsets, strict=False):
                    jpegs[row[i]] = np.frombuffer(jpeg, np.uint8)
                    offset[row[i]] = corner
                    if not jpeg:
                        outside.append(row[i])
        store["offset"] = offset
        store["outside"] = np.array(outside, np.int32)
    return stored, outside


@dataclass(frozen=True)
class _Cut:
    """One photograph: sha1 of the file's bytes, and each person's JPEG and its corner (x, y) on the canvas.

    reason: why the photograph could not be read, else empty.
    """

    sha1: str
    jpegs: list[bytes]
    offsets: list[tuple[int, int]]
    reason: str = ""


def _cut(photograph: Path, persons: Sequence[Person], resolution: int) -> _Cut:
    try:
        data = photograph.read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            picture = opened.convert("RGB")
    except FileNotFoundError:
        return _Cut("", [], [], "the file is missing")
    except Exception as error:  # whatever a decoder says of a broken file
        return _Cut("", [], [], str(error).replace(str(photograph), photograph.name) or type(error).__name__)
    cuts = [_square(picture, person, resolution) for person in persons]
    return _Cut(hashlib.sha1(data).hexdigest(), [jpeg for jpeg, _ in cuts], [corner for _, corner in cuts])


def _square(picture: Image.Image, person: Person, resolution: int) -> tuple[bytes, tuple[int, int]]:
    """The person's JPEG, empty if the square lies outside the photograph, and its corner on the canvas."""
    part, corner = cut_square(picture, person.center, person.scale, resolution)
    if part is None:
        return b"", corner
    buffer = io.BytesIO()
    part.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue(), corner


def cut_square(
    picture: Image.Image, center: tuple[float, float], scale: float, resolution: int
) -> tuple[Image.Image | None, tuple[int, int]]:
    """The part of a person's canvas that the photograph covers, None if it covers none, and its corner (x, y)."""
    zoom = zoom_of(scale, resolution)
    reach = min(MARGIN * BOX / 2 * scale * zoom, float(resolution))
    corner, size, low, high = [], [], [], []
    for middle, length in zip(center, picture.size, strict=True):
        # Whole canvas pixels, none of them half outside the photograph; the allowance is for rounding.
        first = max(math.ceil((-0.5 - middle) * zoom - 1e-6), math.floor(-reach))
        last = min(math.floor((length - 0.5 - middle) * zoom + 1e-6), math.ceil(reach))
        corner.append(first + resolution)
        size.append(last - first)
        low.append(max(first / zoom + middle + 0.5, 0.0))
        high.append(min(last / zoom + middle + 0.5, float(length)))
    if min(size) <= 0:
        return None, (0, 0)
    box = (low[0], low[1], high[0], high[1])
    part = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS, box=box)
    return part, (corner[0], corner[1])


def paste(canvas: np.ndarray, part: Image.Image, corner: np.ndarray | tuple[int, int]) -> None:
    """Put what `cut_square` gave onto the canvas, uint8 (3, M, M)."""
    pixels = np.asarray(part)
    x, y = corner
    canvas[:, y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels.transpose(2, 0, 1)


def zoom_of(scale: float, resolution: int) -> float:
    """Canvas pixels per pixel of the photograph, at most 1."""
    return min(1.0, resolution / (BOX * scale))


def _sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _annotations(persons: Iterable[Person]) -> bytes:
    """Everything that the records hold, as bytes that are the same on every machine."""
    parts = []
    for p in persons:
        numbers = np.array([*p.center, p.scale, p.head_size, *p.joints.ravel(), *p.visible], dtype="<f8")
        numbers = np.where(np.isnan(numbers), np.nan, numbers) + 0.0  # one bit pattern for NaN, one for zero
        parts += [
            json.dumps([p.image, p.index, p.split, len(p.joints)]).encode(),
            numbers.astype("<f8").tobytes(),
        ]
    return b"".join(parts)


def _finished(path: Path, header: str, images: Path) -> Report | None:
    """The report of a finished store with this header, if filling it again would change nothing."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs["header"] != header:
                return None
            skipped = [(str(image), str(reason)) for image, reason in file["skipped"].asstr()[:]]
            stored = len(file["scale"])
            rows = file["outside"][:] if "outside" in file else np.zeros(0, int)  # older stores do not tell
            outside = [(file["image"].asstr()[row], int(file["index"][row])) for row in rows]
    except (OSError, KeyError):
        return None
    if any(not _cut(images / image, [], 16).reason for image, _ in skipped):
        return None
    return Report(stored, skipped, stored, outside)


def _foreign(path: Path) -> bool:
    """Whether the file is no HDF5, or one without a store's marks. One that is cut off counts as a store."""
    if not h5py.is_hdf5(path):
        return True
    try:
        with h5py.File(path, "r") as file:
            return "fingerprint" not in file.attrs
    except OSError:
        return False


def _check_photographs(missing: int, total: int, images: Path) -> None:
    if 2 * missing > total:
        raise UserError(
            f"{missing} of {total} photographs cannot be read in {images}: check that the images are unpacked there."
        )


def _save_shard(file: Path, header: str, cuts: Sequence[_Cut]) -> None:
    with whole_file(file) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            header=header,
            sha1=[cut.sha1 for cut in cuts],
            reason=[cut.reason for cut in cuts],
            persons=[len(cut.jpegs) for cut in cuts],
            offsets=np.array([corner for cut in cuts for corner in cut.offsets], dtype=np.int32).reshape(-1, 2),
            lengths=[len(jpeg) for cut in cuts for jpeg in cut.jpegs],
            jpegs=np.frombuffer(b"".join(jpeg for cut in cuts for jpeg in cut.jpegs), dtype=np.uint8),
        )


def _load_shard(file: Path, header: str) -> list[_Cut] | None:
    try:
        with file.open("rb") as stream, np.load(stream) as shard:  # np.load leaves a broken file open
            if str(shard["header"]) != header:
                return None
            data = shard["jpegs"].tobytes()
            ends = np.cumsum(shard["lengths"], dtype=np.int64).tolist()
            jpegs = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
            corners = [(int(x), int(y)) for x, y in shard["offsets"]]
            last = np.cumsum(shard["persons"]).tolist()
            return [
                _Cut(str(sha1), jpegs[a:b], corners[a:b], str(reason))
                for sha1, reason, a, b in zip(shard["sha1"], shard["reason"], [0, *last], last, strict=False)
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write_annotations(
    file: h5py.File, persons: Sequence[Person], skipped: Sequence[tuple[str, str]], resolution: int
) -> None:
    text = h5py.string_dtype("utf-8")
    file["center"] = np.array([p.center for p in persons], np.float64)
    file["scale"] = np.array([p.scale for p in persons], np.float64)
    file["joints"] = np.stack([p.joints for p in persons]).astype(np.float64)
    file["visible"] = np.stack([p.visible for p in persons]).astype(bool)
    file["head_size"] = np.array([p.head_size for p in persons], np.float64)
    file["index"] = np.array([p.index for p in persons], np.int32)
    file["zoom"] = np.array([zoom_of(p.scale, resolution) for p in persons])
    file.create_dataset("image", data=[p.image for p in persons], dtype=text)
    file.create_dataset("split", data=[p.split for p in persons], dtype=text)
    file.create_dataset("skipped", data=np.array(skipped, object).reshape(-1, 2), dtype=text)


class Store:
    """A store's annotations in memory, N persons; photographs are read when asked for. No file stays open.

    center, joints, scale, visible, head_size, image, index, split: as in `Person`, one row a person.
    zoom (N,), offset (N, 2), canvas: the module's geometry. skipped: (image, reason), as in `Report`.
    fingerprint: 16 hex digits that tell the annotations and the photographs' bytes, wherever they lay.

    Raises:
        UserError: the file is missing, is not a store or is another version's.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise UserError(f"{path} is a folder and no store: give a file that `scanet prepare` filled.")
        if not self.path.is_file():
            raise UserError(f"there is no store {path}: make it with `scanet prepare`")
        try:
            with h5py.File(self.path, "r") as file:
                version = int(file.attrs["version"])
                self.dataset = str(file.attrs["dataset"])
                self.resolution = int(file.attrs["resolution"])
                self.canvas = int(file.attrs["canvas"])
                self.fingerprint = str(file.attrs["fingerprint"])
                self.center: np.ndarray = file["center"][:]
                self.scale: np.ndarray = file["scale"][:]
                self.joints: np.ndarray = file["joints"][:]
                self.visible: np.ndarray = file["visible"][:]
                self.head_size: np.ndarray = file["head_size"][:]
                self.index: np.ndarray = file["index"][:]
                self.zoom: np.ndarray = file["zoom"][:]
                self.offset: np.ndarray = file["offset"][:]
                self.image: np.ndarray = np.array(file["image"].asstr()[:], dtype=str)
                self.split: np.ndarray = np.array(file["split"].asstr()[:], dtype=str)
                self.skipped = [(str(image), str(reason)) for image, reason in file["skipped"].asstr()[:]]
        except (OSError, KeyError, ValueError) as error:
            raise UserError(
                f"{path} is not a store ({error}): give a file that `scanet prepare` filled; "
                "a damaged one has to be deleted and filled again"
            ) from error
        if version != VERSION:
            raise UserError(
                f"{path} is a store of version {version}, not {VERSION}: delete it and fill it with `scanet prepare`."
            )

    def __len__(self) -> int:
        return len(self.scale)

    @property
    def skeleton(self) -> Skeleton:
        return SKELETONS[self.joints.shape[1]]

    def indices(self, split: str) -> np.ndarray:
        """The rows (n,) of "train", "valid" or "test"."""
        return np.flatnonzero(self.split == split)

    def crops(self, indices: Sequence[int] | np.ndarray, workers: int | None = None) -> np.ndarray:
        """The persons' canvases, uint8 (B, 3, M, M), black where there is no photograph.

        workers: decoding threads, by default one a processor.

        Raises:
            UserError: the file was filled anew since this store was opened: its rows may be other persons.
        """
        rows = [int(i) for i in indices]
        out = np.zeros((len(rows), 3, self.canvas, self.canvas), np.uint8)
        with h5py.File(self.path, "r") as file:
            if (file.attrs["fingerprint"], file.attrs["canvas"]) != (self.fingerprint, self.canvas):
                raise UserError(
                    f"{self.path} was filled anew while it was in use: start again with what it holds now"
                )
            stored = file["jpeg"]
            jpegs = [stored[row].tobytes() for row in rows]

        def decode(number: int) -> None:
            if jpegs[number]:
                with Image.open(io.BytesIO(jpegs[number])) as opened:
                    paste(out[number], opened, self.offset[rows[number]])

        with ThreadPoolExecutor(workers or max(1, cores() // launched())) as pool:
            list(pool.map(decode, range(len(rows))))
        return out
