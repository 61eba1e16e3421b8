"""Two ranks of one thread beside one rank of two threads, what of a step is communication, and a model of more ranks.

    python -m tests.benchmarks.parallel

Both train the same net on the same batches, in turns, each in processes of its own; what is told are medians over all steps.
The sums of the gradients are timed as the step waits for them at its end, and alone, with nothing to hide behind; what the walk
hid is 1 - waited / alone. A rank that waits may wait for a slower one as well: on a machine with other work that is most of it.

The rest is a model, and the figure says so: on n ranks with a bandwidth of w bits a second the sum of S bytes takes
2 (n - 1) / n * 8 S / w seconds (so much does each rank send in a ring), of which the walk back hides as much as it
lasts. There is no latency in it, no straggler and no switch that several ranks share.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np

from tests.parallel.stopped import ENVIRONMENT, ROOT, command

RANKS = (1, 2, 4, 8, 16, 32, 64)
GIGABITS = (1, 10, 100)


def child(net: str, batch_size: int, steps: int) -> dict[str, Any]:
    """Seconds of each step, of its walk back and of its waiting, and of the same sums alone; on rank 0."""
    from minidl import parallel
    from minidl.core import Tensor
    from minidl.data import lesions
    from minidl.data.share import share_of
    from minidl.optim import SGD
    from minidl.train.data_parallel import loss_for, walk_for
    from tests.parallel.steps import NETS

    world = parallel.world()
    dataset = lesions(batch_size, seed=0)
    part = share_of(batch_size, world.rank, world.size)
    x, labels = dataset.images[part].astype(np.float32) / 255, dataset.labels[part]
    model = NETS[net](num_classes=2).train()
    optimizer = SGD(model.parameters(), 0.01, 0.9)
    loss, walk_back = loss_for(world, model, None, dataset.classes), walk_for(world)
    found: dict[str, list[float]] = {"step": [], "walk": [], "waited": [], "alone": []}
    nbytes = sum(p.data.nbytes for p in model.parameters())
    for _ in range(steps + 2):
        world.sum(np.zeros(1))
        began = time.perf_counter()
        optimizer.zero_grad()
        y = loss(model(Tensor(x)), labels)
        walks, waited = time.perf_counter(), getattr(world, "waited", 0.0)
        for step in walk_back(y, keep_graph=False, apart=False):
            del step
        walked = time.perf_counter()
        optimizer.step()
        found["step"].append(time.perf_counter() - began)
        found["walk"].append(walked - walks)
        found["waited"].append(getattr(world, "waited", 0.0) - waited)
        sums = [np.zeros(2**18, np.float32) for _ in range(max(1, nbytes // 2**20))]
        world.sum(np.zeros(1))
        began = time.perf_counter()
        for pending in [world.start_sum(a) for a in sums]:
            pending.wait()
        found["alone"].append(time.perf_counter() - began)
    return {name: seconds[2:] for name, seconds in found.items()} | {"nbytes": nbytes, "rank": world.rank}


def measured(ranks: int, threads: int, *arguments: str) -> dict[str, Any]:
    own = ["-m", "tests.benchmarks.parallel", "--child", *arguments]
    whole = command(ranks, *own) if ranks > 1 else [sys.executable, *own]
    around = ENVIRONMENT | {"NUMBA_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(whole, env=around, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def modelled(compute: float, walk: float, nbytes: int, ranks: int, gigabits: float) -> float:
    """Seconds of a step in which a rank computes for so many, `walk` of them on the way back."""
    transfer = 2 * (ranks - 1) / ranks * 8 * nbytes / (gigabits * 1e9)
    return compute + max(0.0, transfer - walk)


def draw(path: pathlib.Path, net: str, compute: float, walk: float, nbytes: int, batch_size: int) -> None:
    """Speed over one rank by the model: each rank with this batch, and all with one such batch together."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for axes, shared in zip(panels, (False, True), strict=True):
        for gigabits in GIGABITS:
            speeds = []
            for n in RANKS:
                part = n if shared else 1
                seconds = modelled(compute / part, walk / part, nbytes, n, gigabits)
                speeds.append((1 if shared else n) * compute / seconds)
            axes.plot(RANKS, speeds, marker="o", label=f"{gigabits} Gbit/s")
        axes.plot(RANKS, RANKS, color="0.7", linestyle="--", label="n times")
        axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="images a second, over one rank")
        axes.set_xticks(RANKS, [str(n) for n in RANKS])
        axes.set_yticks(RANKS, [str(n) for n in RANKS])
        axes.minorticks_off()
        axes.set_title(f"one batch of {batch_size}, shared" if shared else f"a batch of {batch_size} on each rank")
        axes.legend()
    figure.suptitle(
        f"A model, not a measurement: {net}, {compute * 1e3:.0f} ms of computing, {nbytes / 2**20:.1f} MiB of gradients"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--net", default="resnet20")
    p.add_argument("--batch-size", type=int, default=128)
    p.add_argument("--steps", type=int, default=10, help="of a round")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--out", default="runs/parallel.png", help="the figure of the model")
    p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        if (found := child(args.net, args.batch_size, args.steps))["rank"] == 0:
            print(json.dumps(found), flush=True)
        return
    arguments = ["--net", args.net, "--batch-size", str(args.batch_size), "--steps", str(args.steps)]
    contestants = {"1 rank x 1 thread": (1, 1), "1 rank x 2 threads": (1, 2), "2 ranks x 1 thread": (2, 1)}
    found: dict[str, dict[str, Any]] = {}
    load = [os.getloadavg()[0]]
    for _ in range(args.rounds):
        for name, (ranks, threads) in contestants.items():
            one = measured(ranks, threads, *arguments)
            so_far = found.setdefault(name, {"step": [], "walk": [], "waited": [], "alone": [], "nbytes": one["nbytes"]})
            for key in "step", "walk", "waited", "alone":
                so_far[key] += one[key]
            load.append(os.getloadavg()[0])
    medians = {name: {key: float(np.median(v)) for key, v in one.items()} for name, one in found.items()}
    steps = f"medians of {args.rounds * args.steps} steps in {args.rounds} rounds in turns"
    print(f"{args.net}, {args.batch_size} images, {steps}, {os.cpu_count()} cores, load {min(load):.1f} to {max(load):.1f}")
    print(f"{'':20} {'step':>8} {'walk':>8} {'waited':>8} {'share':>6} {'alone':>8} {'hidden':>7}")
    for name, one in medians.items():
        several = name.startswith("2")
        share, hidden = one["waited"] / one["step"], max(0.0, 1 - one["waited"] / max(one["alone"], 1e-9))
        of_sums = f"{1e3 * one['waited']:5.1f} ms {share:6.1%} {1e3 * one['alone']:5.1f} ms {hidden:7.0%}" if several else ""
        print(f"{name:20} {1e3 * one['step']:5.1f} ms {1e3 * one['walk']:5.1f} ms {of_sums}")
    ratio = medians["1 rank x 2 threads"]["step"] / medians["2 ranks x 1 thread"]["step"]
    print(f"2 ranks of 1 thread have {ratio:.2f} of the speed of 1 rank of 2 threads")
    one = medians["1 rank x 1 thread"]
    nbytes = found["1 rank x 1 thread"]["nbytes"]
    print("modelled, not measured: images a second over one rank, a batch on each")
    print(f"{'ranks':>8} " + " ".join(f"{g:>4} Gbit/s" for g in GIGABITS))
    for n in RANKS[1:]:
        speeds = [n * one["step"] / modelled(one["step"], one["walk"], nbytes, n, g) for g in GIGABITS]
        print(f"{n:8} " + " ".join(f"{speed:11.2f}" for speed in speeds))
    path = pathlib.Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(path, args.net, one["step"], one["walk"], nbytes, args.batch_size)
    print(f"now look at {path}")


if __name__ == "__main__":
    main()
