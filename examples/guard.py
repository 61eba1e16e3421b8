"""How an example ends: with 0; with 130 and a sentence after Ctrl-C, whenever that comes; with 1 and a line after an error.

Python raises KeyboardInterrupt wherever it is, and ends with a traceback where nobody expects that: while modules are imported,
in the middle of cleaning up after a first Ctrl-C, on the way out. So an example imports this module before all others, and from
then on the first Ctrl-C inside `guarded` is a KeyboardInterrupt as ever, which lets files, locks and threads be cleaned up.
Any other ends the process at once: as a kill does, which the files of a run survive. SIGTERM, which a cluster sends when time
is over, is as good as Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = signal.SIGINT, signal.SIGTERM
ENDED = (FloatingPointError, MemoryError, OSError, RuntimeError, ValueError)  # what can be told in a few words


def stopped() -> str:
    """What is said where there is no more to say."""
    return "Stopped."


_raises = False  # whether a Ctrl-C is a KeyboardInterrupt now
_came = False  # whether one was raised
_told = False  # whether it has been said that the example was stopped
_sentence = stopped


def guarded(run: Callable[[], None], sentence: Callable[[], str] = stopped) -> int:
    """The exit code of `run`; `sentence` is said where it was stopped, and may tell how to go on."""
    global _raises, _came, _told, _sentence
    before = _raises, _sentence
    _sentence, _came, _told = sentence, False, False
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text, and be printed all the same
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        _raises = True
        try:
            run()
        finally:
            _raises, _ = before
    except SystemExit:
        raise
    except BaseException as error:
        if _came or isinstance(error, KeyboardInterrupt):  # libraries in C++ make an error of their own of it
            _tell(lambda text: print(text, end="", flush=True))
            return _with_all_ranks(130)
        from_an_op = hasattr(error, "__notes__")  # so from the text of a model: the traceback tells where
        if from_an_op or not isinstance(error, ENDED):
            raise
        return _with_all_ranks(1, f"error: {error}")
    finally:
        _, _sentence = before
    return 0


def _with_all_ranks(code: int, told: str = "") -> int:
    """The exit code, where this is no rank of several: those would wait for this one, and end with it."""
    parallel = sys.modules.get("minidl.parallel")
    if parallel is not None:
        parallel.begun().end(code, told)
    elif told:
        print(told, file=sys.stderr)
    return code


def script(main: Callable[[], int]) -> NoReturn:
    """End the process with the exit code of `main`; what comes now is too late to stop anything."""
    code = main()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


# ---- processes that an example starts


@contextmanager
def children() -> Iterator[None]:
    """No process that is started inside sees a Ctrl-C, which a terminal sends to all: the one that started it ends it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """For a process of `multiprocessing` to call first: it would wait for work for ever when its parent is gone."""
    import multiprocessing
    import threading

    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


# ---- Ctrl-C


def _interrupted(number: int, frame: FrameType | None) -> None:
    global _raises, _came
    if _raises and not _imports(frame):
        _raises, _came = False, True
        raise KeyboardInterrupt
    _leave()


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported, which may take an exception for its own, or forget it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _tell(write: Callable[[str], object]) -> None:
    """What there is to say, once."""
    global _told
    if not _told:
        _told = True
        parallel = sys.modules.get("minidl.parallel")
        if parallel is None or parallel.begun().rank == 0:
            write(f"\n{_sentence()}\n")


def _leave() -> NoReturn:
    try:
        sys.stdout.flush()
    except Exception:  # it was interrupted while it was written to
        pass
    try:
        _tell(lambda text: os.write(1, text.encode(errors="backslashreplace")))
    finally:
        os._exit(130)


def _ignored(about: Any) -> None:
    """Of exceptions that Python cannot raise, in a destructor or a callback of C."""
    if issubclass(about.exc_type, KeyboardInterrupt):
        _leave()
    sys.__unraisablehook__(about)


def _is_the_script() -> bool:
    """Whether an example runs, and not a test or a child of an example."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return script is not None and os.path.dirname(os.path.abspath(script)) == os.path.dirname(os.path.abspath(__file__))


if _is_the_script() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else Ctrl-C is ignored: so be it
    for number in SIGNALS:
        signal.signal(number, _interrupted)
    sys.unraisablehook = _ignored
