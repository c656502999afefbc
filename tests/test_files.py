"""Files and folders appear whole or not at all."""

import errno
import json
import math
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Thread

import pytest

from scanet import files
from scanet.files import UserError, alone, home, whole_file, whole_folder, write_json

Whole = Callable[[Path], AbstractContextManager[Path]]


class Interrupted(BaseException):
    """As a keyboard interrupt: no `Exception`."""


KILLED = """
import os, signal, sys
from pathlib import Path
from scanet import files
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as temporary:
    (temporary / "content" if temporary.is_dir() else temporary).write_text("left behind")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_in_the_middle(whole: Whole, path: Path) -> None:
    """A process that writes to `path` is killed while it does."""
    assert subprocess.run([sys.executable, "-c", KILLED, whole.__name__, str(path)]).returncode == -signal.SIGKILL


def put(path: Path, text: str, *, folder: bool) -> None:
    if folder:
        path.mkdir(exist_ok=True)
        (path / "content").write_text(text)
    else:
        path.write_text(text)


def content(path: Path, *, folder: bool) -> str:
    return (path / "content" if folder else path).read_text()


@pytest.mark.parametrize(("whole", "folder"), [(whole_file, False), (whole_folder, True)], ids=["file", "folder"])
class TestWhole:
    def test_new(self, whole: Whole, folder: bool, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "er" / "thing"
        with whole(path) as temporary:
            put(temporary, "new", folder=folder)
            assert not path.exists()
            assert temporary.parent == path.parent  # the same file system, so that the rename is one step
        assert content(path, folder=folder) == "new"
        assert list(path.parent.iterdir()) == [path]

    def test_it_is_on_disk_before_it_has_the_name(
        self, whole: Whole, folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
        path = tmp_path / "thing"
        with whole(path) as temporary:
            put(temporary, "new", folder=folder)
        assert synced == [(path / "content" if folder else path).stat().st_ino]

    def test_replaced(self, whole: Whole, folder: bool, tmp_path: Path) -> None:
        path = tmp_path / "thing"
        put(path, "old", folder=folder)
        if folder:
            (path / "of the old one").touch()
        with whole(path) as temporary:
            put(temporary, "new", folder=folder)
            assert content(path, folder=folder) == "old"
        assert content(path, folder=folder) == "new"
        assert list(tmp_path.iterdir()) == [path]
        if folder:
            assert [p.name for p in path.iterdir()] == ["content"]

    @pytest.mark.parametrize("exists", [False, True])
    @pytest.mark.parametrize("error", [ValueError, Interrupted])
    def test_an_error_leaves_what_was_there(
        self, whole: Whole, folder: bool, error: type[BaseException], exists: bool, tmp_path: Path
    ) -> None:
        path = tmp_path / "thing"
        if exists:
            put(path, "old", folder=folder)

        def write_and_fail() -> None:
            with whole(path) as temporary:
                put(temporary, "a part of the n", folder=folder)
                raise error

        with pytest.raises(error):
            write_and_fail()
        assert list(tmp_path.iterdir()) == ([path] if exists else [])
        if exists:
            assert content(path, folder=folder) == "old"

    def test_what_a_killed_process_left_is_in_nobody_s_way(self, whole: Whole, folder: bool, tmp_path: Path) -> None:
        path = tmp_path / "thing"
        kill_in_the_middle(whole, path)
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".thing.")
        with whole(path) as temporary:
            assert not left.exists()
            put(temporary, "new", folder=folder)
        assert list(tmp_path.iterdir()) == [path]
        if folder:
            assert [p.name for p in path.iterdir()] == ["content"]

    def test_a_killed_process_may_have_had_this_ones_number(self, whole: Whole, folder: bool, tmp_path: Path) -> None:
        path = tmp_path / "thing"
        put(path, "old", folder=folder)
        for what in ("tmp", "old"):
            put(tmp_path / f".thing.{os.getpid()}@{platform.node()}.{what}", "left behind", folder=folder)
        with whole(path) as temporary:
            put(temporary, "new", folder=folder)
        assert content(path, folder=folder) == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_what_a_living_process_or_another_machine_writes_stays(
        self, whole: Whole, folder: bool, tmp_path: Path
    ) -> None:
        others = [tmp_path / f".thing.{os.getppid()}@{platform.node()}.tmp", tmp_path / ".thing.1@elsewhere.old"]
        for other in others:
            put(other, "theirs", folder=folder)
        with whole(tmp_path / "thing") as temporary:
            put(temporary, "new", folder=folder)
        assert [content(other, folder=folder) for other in others] == ["theirs", "theirs"]

    def test_other_things_of_the_folder_stay(self, whole: Whole, folder: bool, tmp_path: Path) -> None:
        put(tmp_path / "other", "untouched", folder=folder)
        with whole(tmp_path / "thing") as temporary:
            put(temporary, "new", folder=folder)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "thing"]
        assert content(tmp_path / "other", folder=folder) == "untouched"


def test_what_is_no_file_stays_and_a_link_leads_where_it_did(tmp_path: Path) -> None:
    pipe, link, far = tmp_path / "pipe", tmp_path / "link", tmp_path / "far"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"pipe is no ordinary file: give another place"), whole_file(pipe):
        pass
    assert pipe.is_fifo()
    far.mkdir()
    link.symlink_to(far / "thing")
    for text in ("old", "new"):  # the first time it leads to nothing
        with whole_file(link) as temporary:
            temporary.write_text(text)
        assert (far / "thing").read_text() == text
        assert link.is_symlink()
    assert [p.name for p in far.iterdir()] == ["thing"]


def test_a_failing_rename_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "thing"
    put(path, "old", folder=True)
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise Interrupted
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(Interrupted), whole_folder(path) as temporary:
        put(temporary, "new", folder=True)
    assert list(tmp_path.iterdir()) == [path]
    assert content(path, folder=True) == "old"


def test_a_folder_that_a_killed_process_had_moved_away_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    kill_in_the_middle(whole_file, tmp_path / "for its number")
    (left,) = tmp_path.iterdir()
    moved = left.with_name(left.name.replace("for its number", "thing").replace(".tmp", ".old"))
    left.unlink()
    put(moved, "old", folder=True)
    with whole_folder(path) as temporary:
        assert content(path, folder=True) == "old"
        put(temporary, "new", folder=True)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("hidden", [".{}.12@host.tmp", "{}", ".{}.9@a.b.old"])
def test_an_errors_sentence_has_the_name_that_users_know(hidden: str) -> None:
    name = Path("there") / hidden.format("run-s0") / hidden.format("weights.bin")
    said = files.sentence(OSError(28, "No space left on device", str(name)))
    assert said.startswith("there/run-s0/weights.bin: No space left on device: check")
    assert files.sentence(OSError("truncated")) == "truncated"


def test_json_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, 2.5, None]})
    assert json.loads(path.read_text()) == {"b": [1, 2.5, None]}
    for bad in ({"b": math.nan}, {"b": object()}):  # neither is JSON
        with pytest.raises((ValueError, TypeError)):
            write_json(path, bad)
        assert json.loads(path.read_text()) == {"b": [1, 2.5, None]}
        assert list(tmp_path.iterdir()) == [path]


def test_home_is_the_variable_s_else_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANET_HOME", str(tmp_path / "x" / ".." / "y"))
    assert home() == (tmp_path / "y").resolve()
    assert files.results_folder() == home() / "experiments" / "results"
    assert files.data_folder() == home() / "data"
    monkeypatch.delenv("SCANET_HOME")
    monkeypatch.setattr(files, "__file__", str(tmp_path / "installed" / "scanet" / "files.py"))
    project, below = tmp_path / "project", tmp_path / "project" / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert home() == below  # nothing looks like a project
    (project / "experiments").mkdir()
    (project / "pyproject.toml").touch()
    assert home() == project
    (tmp_path / "installed" / "experiments").mkdir(parents=True)
    (tmp_path / "installed" / "pyproject.toml").touch()
    assert home() == tmp_path / "installed"


def test_a_full_disk_is_a_sentence_whoever_says_it() -> None:
    report = OSError(errno.ENOSPC, "Can't close file (file write failed: time = ..., buf = 0x557da9aab8c0)")
    assert files.sentence(report) == "No space left on device: make room on the disk, and the same call goes on"


def test_a_notebook_shows_the_sentence_of_a_user_error() -> None:
    assert UserError("give more")._render_traceback_() == ["UserError: give more"]


HOLDER = """
import sys, time
from pathlib import Path
from scanet.files import alone
with alone(Path(sys.argv[1]), "it"):
    print("in", flush=True)
    time.sleep(600)
"""


def wait_for(path: Path, entered: Event) -> None:
    with alone(path, "it", wait=True):
        entered.set()


def test_two_processes_are_not_at_work_on_one_thing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And one that was killed is in nobody's way."""
    path = tmp_path / "deep" / "SSA-s0"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match=r"^another process is at work on SSA-s0: wait"), alone(path, "SSA-s0"):
            pytest.fail("both are in")
        with alone(path.with_name("SSA-s1"), "SSA-s1"):
            pass  # which is another thing
        waiting = Thread(target=wait_for, args=(path, entered := Event()))
        waiting.start()
        assert not entered.wait(0.3)
        other.kill()
        waiting.join()
    assert entered.is_set()
    assert "Waiting for another process that is at work on it." in capsys.readouterr().err
    assert not list(path.parent.iterdir())


def test_an_error_frees_what_a_process_was_alone_with(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), alone(tmp_path / "deep" / "it", "it"):
        raise Interrupted
    assert not list(tmp_path.iterdir())
    with alone(tmp_path / "deep" / "er" / "it", "it"):
        (tmp_path / "deep" / "kept").touch()
    assert list(tmp_path.rglob("*")) == [tmp_path / "deep", tmp_path / "deep" / "kept"]
    with alone(tmp_path / "it", "it"):
        pass
