"""What the nets of published weights take to be tuned: seconds and memory of one training step, and of one without a graph.

    python -m tests.benchmarks.published

Each net in a process of its own, at the size of image that its weights are of, with batch norm in training and SGD; the first
step compiles and is not counted. The peak is that of the process, what Python and Numba take included. Where the memory of the
machine does not hold a batch, one of half as many follows.
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import time

import numpy as np

import models
from minidl import Tensor, no_grad, optim
from minidl.train.loss import Loss

NO_MEMORY = 3  # the exit code
SIDES = {"resnet50": 224, "densenet121": 224, "inception_v3": 299}


def run(name: str, side: int, batch: int, steps: int) -> None:
    model = getattr(models, name)(2)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(batch, 3, side, side)).astype(np.float32), rng.integers(0, 2, batch)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss, seconds = Loss(model), []  # auxiliary heads included
    for _ in range(steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(model(Tensor(x)), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    with model.evaluating(), no_grad():
        model(Tensor(x))
        start = time.perf_counter()
        model(Tensor(x))
        answer = time.perf_counter() - start
    print(f"| {name} | {side} | {batch} | {min(seconds[1:]):.1f} | {answer:.1f} | {peak:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIDES, default=list(SIDES), metavar="NAME")
    parser.add_argument("--side", type=int, help="height and width of the images; by default that of the weights")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="of which the fastest counts")
    parser.add_argument("--only", choices=SIDES, help="in this process")
    asked = parser.parse_args()
    if asked.only:
        try:
            run(asked.only, asked.side or SIDES[asked.only], asked.batch, asked.steps)
        except MemoryError:
            sys.exit(NO_MEMORY)
        return
    print("| net | side | batch | s a training step | s an answer | MiB at most |\n|---|---|---|---|---|---|", flush=True)
    for name in asked.models:
        batch, done = asked.batch, 1
        while batch and done:
            words = ["--only", name, "--batch", str(batch), "--steps", str(asked.steps)]
            words += ["--side", str(asked.side)] if asked.side else []
            done = subprocess.run([sys.executable, "-m", "tests.benchmarks.published", *words], check=False).returncode
            if done not in (0, NO_MEMORY, -signal.SIGKILL):
                sys.exit(done)
            batch //= 2
        if done:
            print(f"| {name} | {asked.side or SIDES[name]} | 1 | does not fit | | |", flush=True)


if __name__ == "__main__":
    main()
