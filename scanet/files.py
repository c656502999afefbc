"""Where things live, how files are written, and the one error that users see."""

import errno
import fcntl
import glob
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


class UserError(Exception):
    """Bad input, said in one sentence that names the thing, its value and the remedy.

    The command line prints the sentence and ends with exit code 1; a notebook shows the sentence
    instead of a stack trace.
    """

    def _render_traceback_(self) -> list[str]:  # IPython asks an exception for this
        return [f"{type(self).__name__}: {self}"]


def home() -> Path:
    """The project's folder: `SCANET_HOME`, else the checkout that this package is installed from, else the
    nearest folder from the working directory upwards that has `experiments/` and `pyproject.toml`, else the working
    directory.
    """
    if "SCANET_HOME" in os.environ:
        return Path(os.environ["SCANET_HOME"]).resolve()
    candidates = [Path(__file__).resolve().parents[1], Path.cwd(), *Path.cwd().parents]
    for folder in candidates:
        if (folder / "experiments").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    return Path.cwd()


def results_folder() -> Path:
    return home() / "experiments" / "results"


def data_folder() -> Path:
    return home() / "data"


def wait_for_disk(path: Path) -> None:
    """Until the file's content is on it: else a power cut may leave a new name with nothing behind it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_place(path: Path) -> None:
    """Raises UserError where no file can be written: something else has its name, or its folder cannot take it."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no ordinary file: give another place")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise UserError(f"{path} cannot be written, as {there} is a file: give another place")
    if not os.access(there, os.W_OK):
        raise UserError(f"{path} cannot be written, as {there} may not be changed: give another place")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Readers see the old file or the new one, never a part of one. Of a link it is the file that is replaced.
    """
    check_place(path)
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    temporary = _beside(path, "tmp")
    try:
        with _named(path):
            yield temporary
        wait_for_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """As `whole_file`, for a folder: an existing folder at `path` is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with _named(path):
            yield temporary
        for written in temporary.iterdir():  # files in folders are pictures, which can be drawn again
            wait_for_disk(written)
        try:
            if path.exists():
                path.replace(old)
            temporary.replace(path)
        except BaseException:  # an interrupt too: one of the two has to be there
            if old.exists():
                old.replace(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path, what: str) -> Path:
    """This process's hidden name for something beside `path`; several machines may share the disk."""
    return path.with_name(f".{path.name}.{os.getpid()}@{platform.node()}.{what}")


_BESIDE = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)@(?P<machine>.*)\.(?P<what>tmp|old)")


def sentence(error: OSError) -> str:
    """What the operating system says of a file, with the name that the user knows it by."""
    if error.errno == errno.ENOSPC and not error.filename:  # HDF5 says it in a long report
        return f"{os.strerror(error.errno)}: make room on the disk, and the same call goes on"
    if not error.filename or not error.strerror:
        return str(error)
    parts = Path(os.fsdecode(error.filename)).parts
    marks = [_BESIDE.fullmatch(part) for part in parts]
    named = Path(*(mark["name"] if mark else part for mark, part in zip(marks, parts, strict=True)))
    return f"{named}: {error.strerror}: check the path, its rights and the room on the disk"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error of the operating system that names no file, as of a full disk, gets this one's name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _clear(path: Path) -> None:
    """Remove what killed processes of this machine left beside `path`; what they had moved away comes back."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        mark = _BESIDE.fullmatch(left.name)
        if mark is None or mark["name"] != path.name:
            continue
        process = int(mark["process"])  # this one has nothing there yet: its number may have been a killed one's
        if mark["machine"] != platform.node() or (process != os.getpid() and _alive(process)):
            continue
        with suppress(FileNotFoundError):  # another process may clear here too
            if mark["what"] == "old" and not path.exists():
                left.replace(path)
            elif left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


@contextmanager
def alone(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """No two processes are at the same time in blocks of one path, beside which a hidden lock file lies meanwhile.

    What another process may have done before, the block has to look for itself.

    wait: for the other to end; it says so on stderr.

    Raises:
        UserError: another process is, and `wait` is False. A killed one is not in the way, as the system takes its
            lock from it.
    """
    created = [folder for folder in path.parents if not folder.exists()]
    lock = path.with_name(f".{path.name}.lock")
    file = _locked(lock, what, wait)
    try:
        yield
    finally:
        lock.unlink()  # while it is held: who has opened it meanwhile sees that it is gone
        file.close()
        with suppress(OSError):  # what the block has written in them stays
            for folder in created:
                folder.rmdir()


def _locked(lock: Path, what: str, wait: bool) -> IO[str]:
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                file.close()
                raise UserError(f"another process is at work on {what}: wait for it, or stop it") from error
            print(f"Waiting for another process that is at work on {what}.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # deleted by the process that held it: a third one may hold a new file of that name


def write_json(path: Path, value: Any) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
