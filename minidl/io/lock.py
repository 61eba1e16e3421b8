"""A folder in which one process works at a time, however the others end.

    with hold("runs/mine"):
        ...

The operating system locks the file `.lock` in the folder, and gives the lock back when the process is over: a `kill -9` leaves
none behind. What the file says is for whoever comes second. On a file system of several machines the lock holds between them
if that file system passes it on, as NFS does; where a file system has no locks at all, a warning says so.
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

NAME = ".lock"
LONG = 200  # characters of a command


class _Held(NamedTuple):
    fd: int
    thread: int


_held: dict[str, _Held] = {}  # by the real path of the folder


@contextmanager
def hold(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Inside, no other process and no other thread holds `folder`; the same thread may hold it again.

    The folder is made if need be, and goes again if nothing is written into it. Raises BlockingIOError, an OSError, that says
    which process holds it, on which machine, since when and by which command; and OSError where the folder cannot be written.
    """
    path = pathlib.Path(os.path.realpath(folder))
    key, me = str(path), threading.get_ident()
    if key in _held and _held[key].thread == me:
        yield
        return
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        _held[key] = _Held(_open(path, folder), me)
        yield
    finally:
        if key in _held and _held[key].thread == me:  # no child that was forked inside
            with suppress(OSError):  # Windows removes no open file
                (path / NAME).unlink()
            os.close(_held.pop(key).fd)
        for p in made:
            with suppress(OSError):  # not empty
                p.rmdir()


def _open(path: pathlib.Path, called: str | os.PathLike[str]) -> int:
    """The locked file of the folder. Who holds it is written down microseconds after it is locked, and a child that was forked
    by a process that was killed gives its copy back as soon as it runs: so it is tried again for a while."""
    for patience in reversed(range(50)):
        path.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(path / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # who held the folder has just removed it
            continue
        try:
            _lock(fd)
            if not _is(fd, path / NAME):  # the file of somebody who has just removed it
                os.close(fd)
                continue
        except BlockingIOError:
            os.close(fd)
            holder = _holder(path / NAME)
            if holder is None and patience:
                time.sleep(0.01)
                continue
            holder = holder or "another process is at work there, and has not said which"
            raise BlockingIOError(f"{called}: {holder}; wait for its end, stop it, or choose another folder") from None
        except OSError as error:
            warnings.warn(
                f"{called}: this file system has no locks ({error.strerror}), so that nothing keeps a second process out; "
                "see to it that there is none",
                stacklevel=4,
            )
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # on a full disk nobody is told who holds it, but held it is
            os.ftruncate(fd, 0)
            os.write(fd, json.dumps(about | {"command": _short(shlex.join(sys.orig_argv))}).encode())
        return fd
    raise BlockingIOError(f"{called}: other processes begin and end work there all the time; choose another folder")


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        """Of one byte far behind the text, because nobody else can read what is locked."""
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(str(error)) from error
        os.lseek(fd, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is(fd: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: pathlib.Path) -> str | None:
    """Who holds the lock, or None where it is not said, or one who was killed."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        about = json.loads(path.read_text())
        since, command = about["since"], about["command"]
        if about["host"] != socket.gethostname() or is_alive(int(about["pid"])):
            return f"process {about['pid']} on {about['host']} has been at work there since {since} ({command})"
    return None


def is_alive(pid: int) -> bool:
    """Whether this machine has such a process, as far as one can tell; Windows does not say."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _short(command: str) -> str:
    command = " ".join(command.split())
    return command if len(command) <= LONG else f"{command[: LONG - 1]}…"


def _forget() -> None:
    """In a child that was forked: close its copies of the locked files, or it would keep the locks when its parent is gone."""
    for held in _held.values():
        with suppress(OSError):
            os.close(held.fd)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
