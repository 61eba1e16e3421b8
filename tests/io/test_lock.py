"""A folder is held by one at a time, and by nobody when the holder is over."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import threading

import pytest

from minidl.io import lock

HOLD = """import os, sys, time
from minidl.io.lock import hold
with hold(sys.argv[1]):
    if sys.argv[2:] and os.fork() == 0:
        time.sleep(9)
    print('held', flush=True)
    time.sleep(9)
"""


def start(folder: pathlib.Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(folder), *more]
    process = subprocess.Popen(command, cwd=pathlib.Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_holds_it_and_a_kill_frees_it(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "a $ folder"
    with start(out) as process:
        with pytest.raises(BlockingIOError) as caught, lock.hold(out):
            pass
        message = str(caught.value)
        assert f"{out}: process {process.pid} on {socket.gethostname()} has been at work there since 20" in message
        assert "-c 'import os, sys, time from minidl.io.lock import hold with hold" in message and "\n" not in message
        process.kill()
    assert process.returncode == -signal.SIGKILL
    with lock.hold(out):
        assert json.loads((out / lock.NAME).read_text())["pid"] == os.getpid()
    assert not list(out.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_keep_it(tmp_path: pathlib.Path) -> None:
    with start(tmp_path, "fork") as process:
        process.kill()
        process.wait()
        with lock.hold(tmp_path):
            pass
        assert process.stdout is not None and not select.select([process.stdout], [], [], 0)[0]  # its child is still there


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_give_it_back(tmp_path: pathlib.Path) -> None:
    with lock.hold(tmp_path):
        leave = lock.hold(tmp_path / "inner")
        leave.__enter__()
        if (child := os.fork()) == 0:
            try:
                leave.__exit__(None, None, None)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert (tmp_path / "inner" / lock.NAME).exists()
        found: list[BaseException] = []
        thread = threading.Thread(target=lambda: found.append(_refused(tmp_path / "inner")))
        thread.start()
        thread.join()
        assert isinstance(found[0], BlockingIOError) and f"process {os.getpid()} " in str(found[0])
        leave.__exit__(None, None, None)


def _refused(folder: pathlib.Path) -> BaseException:
    try:
        with lock.hold(folder):
            return AssertionError("held twice")
    except BlockingIOError as error:
        return error


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: pathlib.Path) -> None:
    with lock.hold(tmp_path / "a" / "b"):
        pass
    assert not list(tmp_path.iterdir())
    with lock.hold(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").write_text("")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["file"]


def test_the_same_thread_may_hold_it_again(tmp_path: pathlib.Path) -> None:
    with lock.hold(tmp_path):
        with lock.hold(os.path.relpath(tmp_path)):
            pass
        assert (tmp_path / lock.NAME).exists()
    assert not list(tmp_path.iterdir())


def test_a_lock_file_that_is_left_or_damaged_is_none(tmp_path: pathlib.Path) -> None:
    for left in b"", b"\xff", b"[" * 100_000, b'{"pid": 1, "host": 3}':
        (tmp_path / lock.NAME).write_bytes(left)
        with lock.hold(tmp_path):
            assert json.loads((tmp_path / lock.NAME).read_text())["host"] == socket.gethostname()


@pytest.mark.skipif(sys.platform == "win32", reason="no file that is open can be removed")
def test_the_lock_of_a_file_that_was_removed_meanwhile_is_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by somebody who has just given the folder back."""
    take, taken = lock._lock, list[int]()

    def late(fd: int) -> None:
        if not taken:
            (tmp_path / lock.NAME).unlink()
        take(fd)
        taken.append(fd)

    monkeypatch.setattr(lock, "_lock", late)
    with lock.hold(tmp_path):
        assert len(taken) == 2 and json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()


def test_what_a_killed_holder_said_is_not_told_of_the_next(tmp_path: pathlib.Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    said = {"pid": ended.pid, "host": socket.gethostname(), "since": "2020-01-01 00:00:00", "command": "python"}
    with open(tmp_path / lock.NAME, "w") as file:
        file.write(json.dumps(said))
        file.flush()
        lock._lock(file.fileno())
        assert "another process is at work there, and has not said which" in str(_refused(tmp_path))


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def none(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock, "_lock", none)
    with pytest.warns(UserWarning, match=rf"this file system has no locks \({os.strerror(code)}\)"), lock.hold(tmp_path):
        pass


def test_a_folder_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), lock.hold(tmp_path / "file"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
