"""Fresh random draws of the compiled kernels against the reference, between guard zones.

    python -m tests.kernels.guarded --seconds 60

draws calls of all families of draws.py until the time is up, from a seed that it prints. A process of its own runs the kernels.
There every array that a kernel is given, its scratch included, ends at a page of memory that cannot be touched, and in the
second run of the call begins behind one. What is read or written outside ends that process; hypothesis then shrinks the call
as it shrinks wrong results, with a new process for each try.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import math
import mmap
import os
import pickle
import secrets
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from minidl.kernels import compiled
from minidl.kernels.compiled import conv
from tests.kernels import draws

ROOT = Path(__file__).parents[2]
SHRINKING = 20  # s; where processes die, each try costs one or two
PAGE, NO_ACCESS = mmap.PAGESIZE, 0  # PROT_NONE of mman.h
OF_A_TURN = settings(
    max_examples=50,
    database=None,
    deadline=None,
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
FAMILIES = {family.__name__: family for family in draws.FAMILIES}


# ---- memory between guard zones


class Zone:
    """Memory between two pages that cannot be touched, used again for each array that fits"""

    def __init__(self, size: int) -> None:
        self.size = -(-size // PAGE) * PAGE
        self.memory = mmap.mmap(-1, self.size + 2 * PAGE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory)) + PAGE
        libc = ctypes.CDLL(None, use_errno=True)
        for page in (self.start - PAGE, self.start + self.size):
            if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")

    def array(self, like: np.ndarray, at_the_end: bool) -> np.ndarray:
        """A copy of a contiguous array, up to the last byte of the zone or from the first one on"""
        offset = PAGE + (self.size - like.nbytes if at_the_end else 0)
        copy = np.frombuffer(self.memory, like.dtype, like.size, offset).reshape(like.shape)
        copy[...] = like
        return copy


class Guards:
    """In the place of `in_parallel`: the work gets its arrays between guard zones, and they are copied back afterwards."""

    def __init__(self) -> None:
        self.zones, self.at_the_end, self.in_parallel = list[Zone](), True, conv.direct.in_parallel

    def run(self, work: Any, count: int, *arguments: Any) -> None:
        moved = dict[tuple[int, Any], tuple[np.ndarray, np.ndarray]]()  # the same array stays one

        def move(a: Any) -> Any:
            if isinstance(a, tuple):  # a plan, whose tables are arrays
                return type(a)(*map(move, a)) if hasattr(a, "_fields") else tuple(map(move, a))
            if not isinstance(a, np.ndarray) or a.size == 0:
                return a
            assert a.flags.c_contiguous, f"{work.py_func.__qualname__} is given an array with strides {a.strides} for {a.shape}"
            key = a.ctypes.data, (a.shape, a.dtype.str)
            if key not in moved:
                moved[key] = a, self._zone(len(moved), a.nbytes).array(a, self.at_the_end)
            return moved[key][1]

        self.in_parallel(work, count, *map(move, arguments))
        for a, copy in moved.values():
            if a.flags.writeable:
                a[...] = copy

    def _zone(self, k: int, size: int) -> Zone:
        if k == len(self.zones):
            self.zones.append(Zone(size))
        if self.zones[k].size < size:
            self.zones[k] = Zone(2 * size)
        return self.zones[k]

    def __getattr__(self, name: str) -> Any:
        """The kernel `name`, at one end of the zones and, when it is called next, at the other"""
        self.at_the_end = not self.at_the_end
        return getattr(compiled, name)


def serve() -> None:
    """Read draws and say of each whether the kernels agree with the reference; and before each call, which it is."""
    kernels = Guards()
    for name, module in list(sys.modules.items()):
        if name.startswith("minidl.kernels.compiled") and hasattr(module, "in_parallel"):
            module.in_parallel = kernels.run  # type: ignore[attr-defined]
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever prints does not answer
    while True:
        try:
            family, picked = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        wrong = ""
        try:
            draw = Again(picked)
            for k, call in enumerate(FAMILIES[family](draw)):
                answers.write(pickle.dumps(k))
                draws.agree(call, kernels, draw.eps)  # type: ignore[arg-type]
        except Exception:
            wrong = traceback.format_exc()
        answers.write(pickle.dumps(wrong))


class Noted(draws.Draw):
    """Keeps what it picks, so that another process can draw the same"""

    def __init__(self, data: st.DataObject) -> None:
        self.picked = list[Any]()
        super().__init__(data)

    def pick(self, strategy: st.SearchStrategy[Any]) -> Any:
        self.picked.append(super().pick(strategy))
        return self.picked[-1]


class Again(draws.Draw):
    """Picks what another draw has picked"""

    def __init__(self, picked: list[Any]) -> None:
        self.picked = iter(picked)
        super().__init__(None)  # type: ignore[arg-type]

    def pick(self, strategy: st.SearchStrategy[Any]) -> Any:
        return next(self.picked)


# ---- the process that draws


class Server:
    """The process that runs the kernels; a new one after each that died"""

    process: subprocess.Popen[bytes] | None = None

    def check(self, family: str, draw: Noted, calls: list[draws.Call]) -> None:
        if self.process is None:
            command = [sys.executable, "-c", "from tests.kernels.guarded import serve; serve()"]
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stdout is not None
        pickle.dump((family, draw.picked), self.process.stdin)
        self.process.stdin.flush()
        answer: Any = 0
        while isinstance(answer, int):
            begun = answer
            try:
                answer = pickle.load(self.process.stdout)
            except EOFError:
                died, self.process = self.process.wait(), None
                what = signal.Signals(-died).name if died < 0 else f"exit code {died}"
                raise AssertionError(
                    f"{calls[begun]!r} touched memory outside its arrays: the process ended by {what}"
                ) from None
        if answer:
            raise AssertionError(answer)


class Found:
    """What went wrong with which draw: after SHRINKING seconds no other is tried, and the smallest found so far is reported."""

    def __init__(self) -> None:
        self.errors, self.since = dict[str, AssertionError](), math.inf

    def note(self, draw: Noted, check: Callable[[], None]) -> None:
        key = repr(draw.picked)
        if time.monotonic() > self.since + SHRINKING:
            if key in self.errors:
                raise self.errors[key]
            return
        try:
            check()
        except AssertionError as error:
            self.errors[key], self.since = error, min(self.since, time.monotonic())
            raise


def draw_until(end: float, first_seed: int, most: int, families: list[str], server: Server) -> tuple[Counter[str], int]:
    """Draws of all families in turn, `most` in all -> how many calls of each kernel, how many draws; raises what is wrong."""
    counts, number, found = Counter[str](), 0, Found()

    def test_of(name: str) -> Callable[[], None]:
        @settings(OF_A_TURN)
        @given(data=st.data())
        def test(data: st.DataObject) -> None:
            nonlocal number
            draw = Noted(data)
            calls = FAMILIES[name](draw)
            found.note(draw, lambda: server.check(name, draw, calls))
            number += 1
            counts.update(call.name for call in calls)

        return test

    for turn in itertools.count():
        if time.monotonic() >= end or number >= most:
            return counts, number
        seed(first_seed + turn)(test_of(families[turn % len(families)]))()
    raise AssertionError("never here")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fresh draws of the compiled kernels, between guard zones")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--draws", type=int, default=sys.maxsize, help="stop after so many")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    began, server = time.monotonic(), Server()
    try:
        counts, number = draw_until(began + asked.seconds, asked.seed, asked.draws, asked.families, server)
    except AssertionError:
        traceback.print_exc()
        sys.exit(f"wrong: repeat it with --seed {asked.seed} --families {' '.join(asked.families)}")
    for name, count in sorted(counts.items()):
        print(f"{count:8,d}  {name}")
    print(f"{number:,d} draws between guard zones in {time.monotonic() - began:.0f} s, {counts.total():,d} calls: none wrong")


if __name__ == "__main__":
    main()
