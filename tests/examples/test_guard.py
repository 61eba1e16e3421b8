"""However an example ends: Ctrl-C, or SIGTERM, is one sentence and the exit code 130, wherever it comes."""

from __future__ import annotations

import pathlib
import shutil
import signal
import subprocess
import sys
import time

import guard
import pytest

from minidl.io.lock import is_alive

SCRIPT = """from __future__ import annotations
import guard
import atexit, sys, time

stage = sys.argv[1]

def wait(here):
    if here == stage:
        print("here", flush=True)
        time.sleep(20)
        print("went on", flush=True)

class Dies:
    def __del__(self):
        wait("destructor")

def run():
    try:
        wait("work")
        try:
            wait("library")
        except KeyboardInterrupt:
            raise ValueError("Invalid affine transformation matrix") from None
        if stage == "module":
            import waits
        one = Dies()
        del one
        if stage == "cleanup":
            guard.signal.raise_signal(guard.signal.SIGINT)
    finally:
        try:
            wait("cleanup")
        except KeyboardInterrupt:
            print("interrupted again", flush=True)
        print("cleaned up", flush=True)

def main():
    wait("before")
    code = guard.guarded(run, lambda: "Stopped. Go on with x.")
    wait("told")
    atexit.register(wait, "end")
    return code

wait("import")
if __name__ == "__main__":
    guard.script(main)
"""


def start(folder: pathlib.Path, stage: str) -> subprocess.Popen[str]:
    """A script beside a copy of guard.py, which waits at that stage."""
    shutil.copy(guard.__file__, folder)
    (folder / "script.py").write_text(SCRIPT)
    (folder / "waits.py").write_text("import __main__\n__main__.wait('module')\n")
    command = [sys.executable, str(folder / "script.py"), stage]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(
    ("stage", "printed", "code"),
    [
        ("import", "here\n\nStopped.\n", 130),
        ("before", "here\n\nStopped.\n", 130),
        ("work", "here\ncleaned up\n\nStopped. Go on with x.\n", 130),
        ("library", "here\ncleaned up\n\nStopped. Go on with x.\n", 130),
        ("module", "here\n\nStopped. Go on with x.\n", 130),
        ("destructor", "here\n\nStopped. Go on with x.\n", 130),
        ("cleanup", "here\n\nStopped. Go on with x.\n", 130),
        ("told", "cleaned up\nhere\n\nStopped.\n", 130),
        ("end", "cleaned up\nhere\n", 0),
        ("none", "cleaned up\n", 0),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_wherever_it_comes(tmp_path: pathlib.Path, stage: str, printed: str, code: int, number: int) -> None:
    with start(tmp_path, stage) as process:
        assert process.stdout is not None
        text = ""
        while stage != "none" and not text.endswith("here\n"):
            text += process.stdout.readline()
        time.sleep(0.02)
        if stage != "none":
            process.send_signal(number)
        if stage == "end":  # which goes on
            time.sleep(0.05)
            assert process.poll() is None
            process.kill()
        text += process.stdout.read()
    assert text == printed
    assert process.returncode == (-signal.SIGKILL if stage == "end" else code)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no masks of signals here")
def test_children_do_not_see_ctrl_c() -> None:
    with guard.children():
        child = subprocess.Popen([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(20)"], stdout=-1)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"here\n"
        child.send_signal(signal.SIGINT)
        time.sleep(0.05)
        assert child.poll() is None
        child.kill()


POOL = """import guard, multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), guard.end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(20)
"""


@pytest.mark.ci
def test_a_child_ends_with_its_parent(tmp_path: pathlib.Path) -> None:
    shutil.copy(guard.__file__, tmp_path)
    (tmp_path / "script.py").write_text(POOL)
    with subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=-1, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert is_alive(child)
        process.kill()
        process.communicate(timeout=10)  # until nobody holds the other end


def test_errors_and_stops_inside_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    """Where guard.py is imported by something else, Ctrl-C is Python's own."""

    def stop() -> None:
        raise KeyboardInterrupt

    def fail() -> None:
        raise ValueError("caf\udce9 is no number")

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert guard.guarded(stop) == 130 and capsys.readouterr().out == "\nStopped.\n"
    assert guard.guarded(fail) == 1 and capsys.readouterr().err == "error: caf\\udce9 is no number\n"
    assert guard.guarded(lambda: print("\udce9")) == 0 and capsys.readouterr().out == "\\udce9\n"
    with pytest.raises(KeyError):
        guard.guarded(lambda: {}["a bug"])


def test_an_error_of_an_op_keeps_its_traceback() -> None:
    def fail() -> None:
        error = ValueError("shape")
        error.add_note("in a model")
        raise error

    with pytest.raises(ValueError, match="shape"):
        guard.guarded(fail)
