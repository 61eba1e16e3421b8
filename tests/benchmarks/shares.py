"""Which kernels the time of a training step goes to: each is called through a clock.

    python -m tests.benchmarks.shares [--model resnet20] [--batch 128] [--steps 5]

One thread, and its processor time, so that a busy machine changes little; the rest is Python and what NumPy does.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from typing import Any

os.environ["NUMBA_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from minidl.kernels import compiled
from tests.benchmarks import minidl_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    spent = Counter[str]()
    for name in compiled.__all__:
        setattr(compiled, name, _timed(name, getattr(compiled, name), spent))
    step = minidl_steps.setup(args.model, "step", args.batch, 32)
    step()  # compiles
    spent.clear()
    began = time.process_time()
    for _ in range(args.steps):
        step()
    total = time.process_time() - began
    spent["the rest"] = total - sum(spent.values())  # type: ignore[assignment]
    print(f"{args.model}, batch {args.batch}: {total / args.steps * 1e3:.0f} ms of one processor a step")
    for name, seconds in spent.most_common():
        print(f"{seconds / total:8.1%}  {name}")


def _timed(name: str, kernel: Any, spent: Counter[str]) -> Any:
    def call(*args: Any) -> Any:
        began = time.process_time()
        result = kernel(*args)
        spent[name] += time.process_time() - began  # type: ignore[assignment]
        return result

    return call


if __name__ == "__main__":
    main()
