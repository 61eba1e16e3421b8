"""The numbers of several ranks beside those of one, of the nets that people train, on CIFAR-10:

    python -m tests.parallel.equality --cifar10 data

With synchronised batch norm the first gradients, in float64 and float32, and the losses of twenty steps. Beside them stands
what becomes of one rank when every number of the first weight changes in its last place.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from tests.parallel.stopped import ENVIRONMENT, ROOT, command

Gradients = dict[str, Any]
BATCHES = 20, 27, 32, 48


def run(ranks: int, *arguments: str, code: int = 0, **environment: str) -> str:
    """What the ranks print, or one process without MPI; they end with this exit code, or for 1 with any but 0."""
    whole = command(ranks, *arguments) if ranks > 1 else [sys.executable, *arguments]
    done = subprocess.run(whole, env=ENVIRONMENT | environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == code or (code and done.returncode), done.stdout + done.stderr
    return done.stdout + done.stderr


def steps(ranks: int, *arguments: str) -> Gradients:
    """What `tests.parallel.steps` finds."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "found.npz")
        run(ranks, "-m", "tests.parallel.steps", *arguments, "--out", str(out))
        with np.load(out) as found:
            return dict(found)


def difference(a: Gradients, b: Gradients) -> float:
    """Of the first gradients, the largest, as a share of the largest gradient."""
    names = a.keys() - {"losses"}
    return max(float(abs(a[n] - b[n]).max()) for n in names) / max(float(abs(a[n]).max()) for n in names)


def first_gradients(dtype: str, batches: tuple[int, ...], *asked: str) -> tuple[list[float], list[float]]:
    """How much those of 2 and of 3 ranks, and those of an ulp, differ from those of one rank, in several batch sizes.

    Forward ranks have the bits of one. Had they not, a relu whose input is close to 0 would open or shut now and then, as it
    does where weights differ in the last place: that is worth some 1e-4.
    """
    by_ranks, by_ulp = list[float](), list[float]()
    for batch in map(str, batches):
        of = *asked, "--dtype", dtype, "--batch-size", batch
        one = steps(1, *of)
        by_ulp.append(difference(one, steps(1, *of, "--ulp")))
        by_ranks += [difference(one, steps(ranks, *of, "--sync")) for ranks in (2, 3)]
    return by_ranks, by_ulp


def twenty_losses(*asked: str) -> tuple[float, float]:
    """How much, at most, those of two ranks and those of an ulp differ from those of one rank."""
    of = *asked, "--steps", "20"
    one, ulp, two = steps(1, *of), steps(1, *of, "--ulp"), steps(2, *of, "--sync")
    by_ranks, by_ulp = (float(abs(one["losses"] - other["losses"]).max()) for other in (two, ulp))
    return by_ranks, by_ulp


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cifar10", metavar="ROOT", required=True, help="the folder that holds cifar-10-batches-bin")
    p.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="how many images; by default %(default)s")
    p.add_argument("--nets", nargs="+", default=["resnet20", "densenet_bc100"])
    args = p.parse_args()
    for net in args.nets:
        asked = "--net", net, "--cifar10", args.cifar10
        for dtype in "float64", "float32":
            by_ranks, by_ulp = first_gradients(dtype, tuple(args.batches), *asked)
            spread = f"{min(by_ranks):.1e} to {max(by_ranks):.1e}"
            print(
                f"{net}, {dtype}, first gradients: 2 and 3 ranks {spread} of the largest, an ulp {max(by_ulp):.1e}", flush=True
            )
        by_ranks, ulp = twenty_losses(*asked)
        print(f"{net}, float32, twenty losses: 2 ranks {by_ranks:.1e}, an ulp {ulp:.1e}", flush=True)


if __name__ == "__main__":
    main()
