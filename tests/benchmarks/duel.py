"""Side-by-side timing: every contestant in a worker process of its own, run in turns.

In one process the idle thread pools of two libraries spin and spoil each other's timings; and on a noisy machine only figures
that were taken in turns can be compared. A worker is a module with a function `setup(*case)` that returns the step to time.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


class Worker:
    """A process that serves the cases of a module."""

    def __init__(self, module: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.duel", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def ask(self, *question: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
            if line.startswith("!"):
                raise RuntimeError(json.loads(line[1:]))
        raise RuntimeError(f"the worker for {self.process.args} died")

    def close(self) -> None:
        self.process.communicate()


def serve(module: str) -> None:
    if os.environ.get("MINIDL_TEST_DEVICE") == "stand-in":
        from tests.gpu import strict_cupy

        sys.modules["cupy"] = strict_cupy.cupy()
    contestant = importlib.import_module(module)
    setup: Callable[..., Callable[[], Any]] = contestant.setup
    step: Callable[[], Any] = lambda: None  # noqa: E731
    for line in sys.stdin:
        answer: Any = None
        try:
            match json.loads(line):
                case ["prepare", *case]:
                    step = lambda: None  # noqa: E731 - lets go of what the case before held
                    step = setup(*case)
                    start = time.perf_counter()
                    step()
                    answer = time.perf_counter() - start
                    step()
                case ["time", seconds]:
                    times: list[float] = []
                    while not times or sum(times) < seconds:
                        start = time.perf_counter()
                        step()
                        times.append(time.perf_counter() - start)
                    answer = statistics.median(times)
                case ["peak"]:
                    answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
                case ["device memory"]:
                    answer = contestant.device_memory()
        except Exception as error:
            print("!" + json.dumps(f"{type(error).__name__}: {error}"), flush=True)
            continue
        print("@" + json.dumps(answer), flush=True)


Contestants = dict[str, tuple[Worker, tuple[Any, ...]]]  # label: (worker, case)


def duel(workers: Contestants, rounds: int, seconds: float) -> tuple[dict[str, list[float]], dict[str, float]]:
    """For each contestant the median step time of each round, in seconds, and the time of its very first step."""
    first = {label: worker.ask("prepare", *case) for label, (worker, case) in workers.items()}
    return in_turns(workers, rounds, seconds), first


def in_turns(workers: Contestants, rounds: int, seconds: float) -> dict[str, list[float]]:
    """The median step time of each round, of contestants that are prepared"""
    times: dict[str, list[float]] = {label: [] for label in workers}
    for _ in range(rounds):
        for label, (worker, _case) in workers.items():
            times[label].append(worker.ask("time", seconds))
            time.sleep(0.02)  # until the thread pools are quiet
    return times


if __name__ == "__main__":
    serve(sys.argv[1])
