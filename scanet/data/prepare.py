"""A data set's store: where it is, and how it is filled, from photographs or from people drawn for it."""

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scanet.config import Settings, stored_resolution
from scanet.data import lsp, mpii, synthetic
from scanet.data.person import Reading
from scanet.data.store import Report, Store, fill
from scanet.files import UserError, alone, data_folder

_READERS: Mapping[str, Callable[[Path], Reading]] = {
    "lspet": lsp.read_folder,
    "mpii": mpii.read_folder,
    "synthetic": mpii.read_folder,  # it is written in MPII's formats
}


def default_path(name: str, resolution: int) -> Path:
    """Where the store of a data set of that name is, unless told otherwise."""
    return data_folder() / f"{name}-{resolution}.h5"


def store_path(settings: Settings) -> Path:
    """Where the settings' data is, or will be put, as a store."""
    return _place(settings)[0]


def _place(settings: Settings) -> tuple[Path, Path | None]:
    """Where the settings' store is, or will be, and the folder to fill it from if that is what the user named."""
    if settings.data is None:
        name = _synthetic_folder(settings).name if settings.dataset == "synthetic" else settings.dataset
        return default_path(name, settings.resolution), None
    given = Path(settings.data).expanduser().resolve()
    if given.suffix == ".h5":
        return given, None
    place = hashlib.sha256(str(given).encode()).hexdigest()[:8]
    return data_folder() / f"{settings.dataset}-{settings.resolution}-{place}.h5", given


def _synthetic_folder(settings: Settings) -> Path:
    counts = f"{settings.synthetic_train}-{settings.synthetic_valid}"
    return data_folder() / f"synthetic-{counts}-p{settings.part_scale:.15g}-c{settings.clutter:.15g}"


def prepare(
    dataset: str, folder: Path, path: Path, resolution: int, *, progress: bool = True,
    on_read: Callable[[Reading], object] | None = None,
) -> Report:  # fmt: skip
    """Fill the store at `path` from a data set's folder as its authors distribute it.

    on_read: called with the annotations, before the photographs are cut.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder that holds the {dataset} data")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the folder that holds the {dataset} data")
    if dataset != "lspet" and (folder / "joints.mat").exists() and not (folder / mpii.MAT_NAME).exists():
        raise UserError(
            f"{folder} holds joints.mat, as LSP and LSP Extended do, and is read for {dataset} here: "
            "give preset lspet-small or lspet, or `scanet prepare lspet`"
        )
    reading = _READERS[dataset](folder)
    if on_read is not None:
        on_read(reading)
    if reading.warning:
        print(f"warning: {reading.warning}", file=sys.stderr)
    if dataset == "mpii" and (absent := mpii.check_photographs(reading)):
        print(f"warning: {absent}", file=sys.stderr)
    report = fill(path, reading.persons, reading.images, dataset=dataset, resolution=resolution, progress=progress)
    for image, reason in report.skipped:
        print(f"skipped {image}: {reason}", file=sys.stderr)
    for image, number in report.outside:
        print(f"person {number} of {image} is annotated outside the photograph: kept, all black", file=sys.stderr)
    return report


def open_store(settings: Settings, *, progress: bool = True) -> Store:
    """The settings' data, drawn (synthetic) and prepared where that has not been done.

    Raises:
        UserError: the preset's photographs are not on this machine, or a store holds another data set.
    """
    path, folder = _place(settings)
    if folder is not None:
        prepare(settings.dataset, folder, path, settings.resolution, progress=progress)
    elif settings.data is None and not path.exists():
        if settings.dataset != "synthetic":
            raise UserError(
                f"preset {settings.preset!r} needs photographs, and {path} does not exist: "
                f"give the data set's folder, as in `-p data FOLDER` or `--data FOLDER`, "
                f"or fill the store once with `scanet prepare {settings.dataset} FOLDER`"
            )
        _draw(
            _synthetic_folder(settings),
            path,
            settings.resolution,
            train=settings.synthetic_train,
            valid=settings.synthetic_valid,
            part_scale=settings.part_scale,
            clutter=settings.clutter,
            progress=progress,
        )
    return _right_store(path, settings)


def open_or_none(settings: Settings, *, progress: bool = True) -> Store | None:
    """As `open_store`, but None where the preset's photographs are not on this machine and no data was named."""
    if settings.data is None and settings.dataset != "synthetic" and not store_path(settings).exists():
        return None
    return open_store(settings, progress=progress)


def filled(settings: Settings) -> Store | None:
    """The settings' store if it is there: nothing is drawn or prepared, but a named store has to be there."""
    path, folder = _place(settings)
    if path.exists():
        return _right_store(path, settings)
    if folder is not None and folder.exists():
        raise UserError(f"no store of {settings.data} is there yet: fill one with `scanet prepare`, and name that")
    if settings.data is not None:
        raise UserError(f"{settings.data} does not exist: give the data set's folder, or a store")
    return None


def _right_store(path: Path, settings: Settings) -> Store:
    store = Store(path)
    if store.dataset != settings.dataset:
        raise UserError(
            f"{path} holds {store.dataset}, but preset {settings.preset!r} is for {settings.dataset}: give a store "
            f"of {settings.dataset}, or another preset"
        )
    check_resolution(store, settings.input_size)
    return store


def check_resolution(store: Store, input_size: int) -> None:
    """Raises UserError unless the store's boxes have as many pixels as a network of this input takes."""
    if store.resolution != stored_resolution(input_size):
        raise UserError(
            f"{store.path} holds boxes of {store.resolution} pixels, and an input_size of {input_size} takes "
            f"{stored_resolution(input_size)}: scanet prepare them with --resolution {stored_resolution(input_size)}"
        )


def _draw(folder: Path, path: Path, resolution: int, *, progress: bool, **how: Any) -> None:
    """Draw people into `folder`, if it is not there yet, and fill the store at `path`. how: as `synthetic.write`."""
    with alone(folder, folder.name, wait=True):
        if not folder.exists():
            synthetic.write(folder, **how, progress=progress)
    prepare("synthetic", folder, path, resolution, progress=progress)


#: Seed of the people drawn to test on; those to train and to validate on are drawn with 0.
TEST_SEED = 1


def drawn_for_testing(
    persons: int, part_scale: float, clutter: float, resolution: int, *, progress: bool = True
) -> Store:
    """Drawn people whom no run has trained or been validated on, as validation persons; drawn where not yet done.

    The first persons of a larger set are those of a smaller one, and at every part_scale and clutter the same people
    stand in the same poses.
    """
    folder = data_folder() / f"synthetic-test-{persons}-p{part_scale:.15g}-c{clutter:.15g}"
    path = folder.with_name(f"{folder.name}-{resolution}.h5")
    if not path.exists():
        how = {"train": 0, "valid": persons, "part_scale": part_scale, "clutter": clutter, "seed": TEST_SEED}
        _draw(folder, path, resolution, progress=progress, **how)
    return Store(path)
