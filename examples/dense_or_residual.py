"""What a dense net makes of as many parameters as a residual net has, and what that costs.

    python examples/dense_or_residual.py

trains a DenseNet-BC and a ResNet on 2,000 generated lesions, in a few minutes on two cores. With photographs, in ten or so:

    python examples/dense_or_residual.py --data cifar10      # fetches 170 MB into data/, if it is not there

Depth L and growth k of the dense net are chosen so that it has as many parameters as the residual net. Every layer of a dense
block reads the channels of all layers before it. Written op by op, each layer copies them (concatenation), normalises them and
rectifies them, and a training step keeps all three arrays for its way back: memory grows with the square of the depth. The
memory-saving variant (Pleiss et al. 2017) keeps the channels once, and computes the other arrays again when the way back needs
them. Here that is one op, `minidl/ops/dense.py`; inside `with minidl.ops.unfused():` the same net is computed op by op.

In the folder of the run, by default runs/dense_or_residual-DATA, are then

    figure.png          test accuracy by epoch; time and peak memory of a training step, each measured in a process of its own
    table.md            the same at the end
    resnet20-0, ...     each net with its metrics, weights and checkpoint

Press Ctrl-C when you like: the same command goes on after the last finished epoch.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import multiprocessing
import pathlib
import resource
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import cache, partial
from typing import NamedTuple

import compare
import numpy as np

import models
from minidl import Tensor, ops, optim
from minidl.array import Array, array_module, to_device
from minidl.bar import Bar
from minidl.io import files
from minidl.train import Row
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE

RESIDUAL = ("resnet8", "resnet20", "resnet32", "resnet44", "resnet56")
PAPERS_GROWTH = 12  # the smallest of table 2
RECIPES: compare.Recipes = {
    "lesions": {"limit": 2000, "epochs": 6, "batch_size": 32, "lr": 0.05, "weight_decay": 1e-4, "crop": 2, "flip": "both"},
    "cifar10": {"limit": 10_000, "epochs": 8, "batch_size": 128, "lr": 0.1, "weight_decay": 1e-4},
}


class Cost(NamedTuple):
    """Of one training step."""

    seconds: float
    before: int  # bytes that the process, or CuPy on the GPU, held at most before its first step
    peak: int  # and with it


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `compare.guarded`."""
    parser = compare.parser(__doc__, RECIPES)
    parser.add_argument("--resnet", choices=RESIDUAL, default="resnet20", help="the residual net; by default resnet20")
    asked = parser.parse_args(arguments)
    out = asked.out or pathlib.Path(f"runs/dense_or_residual-{asked.data}")

    def run() -> None:
        settings = compare.settings(asked, RECIPES)
        resnet = getattr(models, asked.resnet)
        depth, growth = match(compare.count(resnet()))
        nets = {asked.resnet: resnet, f"densenet_bc{depth}_{growth}": partial(models.densenet_bc, depth, growth)}
        dataset, rows = compare.train_all(nets, settings, asked.seeds, out)
        shape = settings.batch_size, *dataset.images.shape[1:]
        costs = measure(nets, shape, settings.device)
        K, C = len(dataset.classes), dataset.images.shape[1]
        sizes = {name: compare.count(make(K, C)) for name, make in nets.items()}
        text = table(sizes, rows, costs)
        files.write(out / "table.md", text)
        title = f"{' and '.join(nets)} on {len(dataset):,} images of {settings.data}"
        draw(out / "figure.png", rows, costs, title, settings.device)
        print(f"{text}{compare.always(rows)}Peak memory is that of a process that trains with batches "
              f"of {settings.batch_size}; now look at {out / 'figure.png'}")  # fmt: skip

    return compare.guarded(run, out)


def match(parameters: int) -> tuple[int, int]:
    """Depth L and growth k of a DenseNet-BC with so many parameters, within 2%, k as near as possible to `PAPERS_GROWTH`.

    Raises ValueError where no net of up to 100 layers comes so near.
    """
    depths = range(10, 101, 6)
    for growth in sorted(range(4, 33), key=lambda k: abs(k - PAPERS_GROWTH)):
        size = cache(lambda depth, growth=growth: compare.count(models.densenet_bc(depth, growth)))
        first = bisect_left(depths, parameters, key=size)  # that has at least as many
        for depth in depths[max(first - 1, 0) : first + 1]:
            if abs(size(depth) / parameters - 1) < 0.02:
                return depth, growth
    raise ValueError(f"parameters: no DenseNet-BC of up to 100 layers comes within 2% of {parameters}")


# ---- time and memory


Shape = tuple[int, int, int, int]  # of a batch (N,C,H,W)
Costs = dict[tuple[str, bool], Cost]  # (net, whether in fused ops)


def measure(nets: Mapping[str, compare.Maker], shape: Shape, device: str = "cpu") -> Costs:
    """The cost of a training step of each net, fused and op by op, in a new process each: what others held does not count."""
    costs = {}
    cases = [(name, fused) for name in nets for fused in (True, False)]
    for name, fused in Bar(cases, desc="time and memory", leave=False, disable=None):
        step_cost(nets[name], fused, (2, *shape[1:]), device, seconds=0)  # here, so that the process finds compiled kernels
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), guard.end_with_parent) as process:
            with guard.children():
                cost = process.submit(step_cost, nets[name], fused, shape, device)
            costs[name, fused] = cost.result()
    return costs


def step_cost(make: compare.Maker, fused: bool, shape: Shape, device: str = "cpu", seconds: float = 3) -> Cost:
    """The median of the steps that fit into so many seconds, and the memory of this process, or what it took of the GPU's."""
    rng, K = np.random.default_rng(0), 10
    model, drawn = make(K, shape[1], 0).to(device), (rng.standard_normal(shape, dtype=np.float32), rng.integers(0, K, shape[0]))
    x, labels = (to_device(a, device) for a in drawn)
    optimizer = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def step(x: Array, labels: Array) -> None:
        optimizer.zero_grad()
        ops.cross_entropy(model(Tensor(x)), labels).backward()
        optimizer.step()
        if device == "gpu":  # which has only been told what to do
            array_module(x).cuda.get_current_stream().synchronize()

    with nullcontext() if fused else ops.unfused():
        step(x[:2], labels[:2])  # loads the kernels
        before, times = peak_memory(x), list[float]()
        while len(times) < 3 or sum(times) < seconds:
            start = time.perf_counter()
            step(x, labels)
            times.append(time.perf_counter() - start)
    return Cost(statistics.median(times), before, peak_memory(x))


def peak_memory(x: Array) -> int:
    """Bytes that this process has held at most; where x is on the GPU, those that CuPy holds there, and does not give back."""
    if array_module(x) is not np:
        return int(array_module(x).get_default_memory_pool().total_bytes())
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage also counts what the parent held when it started this process
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# ---- what people look at

HOW = {True: "fused, recomputes", False: "op by op, keeps"}
HEAD = ("net", "parameters", "training error", "test error", "ms a step", "op by op", "peak MiB", "op by op")


def table(sizes: Mapping[str, int], rows: Mapping[str, list[list[Row]]], costs: Costs) -> str:
    """A line for each net: errors after the last epoch, means over the seeds; what a step costs, fused and op by op."""
    lines = []
    for name, size in sizes.items():
        errors = (1 - np.mean([r[-1][key] for r in rows[name]]) for key in ("train_accuracy", "validation_accuracy"))
        times = (f"{costs[name, fused].seconds * 1e3:,.0f}" for fused in HOW)
        peaks = (f"{costs[name, fused].peak / 2**20:,.0f}" for fused in HOW)
        lines.append([name, f"{size:,}", *(f"{error:.1%}" for error in errors), *times, *peaks])
    return compare.table(HEAD, lines)


def draw(path: pathlib.Path, rows: Mapping[str, list[list[Row]]], costs: Costs, title: str, device: str = "cpu") -> None:
    """Accuracy by epoch, one line a seed; bars for time and memory of a step."""
    from matplotlib.ticker import MaxNLocator

    fig = figure.new(11, 3.6, w_pad=0.1, h_pad=0.08)
    accuracy, seconds, memory = fig.subplots(1, 3, width_ratios=(3.4, 3, 3))
    color = dict(zip(rows, (BLUE, ORANGE), strict=True))
    for name, runs in rows.items():
        for r in runs:
            for key, style in ("train_accuracy", ":"), ("validation_accuracy", "-"):
                accuracy.plot([row["epoch"] for row in r], [100 * row[key] for row in r], style, lw=1.8, color=color[name])
        accuracy.plot([], [], lw=1.8, color=color[name], label=name)
    for style, name in ("-", "test"), (":", "training"):
        accuracy.plot([], [], style, lw=1.8, color=GREY, label=name)
    accuracy.legend(frameon=False, fontsize=8.5)
    accuracy.set_title("accuracy (%)", fontsize=10, loc="left")
    accuracy.set_xlabel("epoch", color=GREY)
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    accuracy.grid(color="#e6e6e6", lw=0.8)

    names = [f"{name}\n{HOW[fused]}" for name, fused in costs]
    colors = [color[name] for name, _ in costs]
    ms = [cost.seconds * 1e3 for cost in costs.values()]
    where = "of the process" if device == "cpu" else "on the GPU"
    before, peak = ([cost[i] / 2**20 for cost in costs.values()] for i in (1, 2))
    seconds.barh(names, ms, 0.62, color=colors)
    memory.barh(names, peak, 0.62, color=colors)
    memory.barh(names, before, 0.62, color="#bdbdbd", label="before the first step")
    for ax, values, name in (seconds, ms, "time of a training step (ms)"), (memory, peak, f"peak memory {where} (MiB)"):
        for i, value in enumerate(values):
            ax.text(value, i, f" {value:,.0f}", va="center", fontsize=9)
        ax.set_title(name, fontsize=10, loc="left")
        ax.set_xlim(0, 1.2 * max(values))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.invert_yaxis()
        ax.set_axisbelow(True)
        ax.grid(axis="x", color="#e6e6e6", lw=0.8)
    memory.set_yticks([])
    memory.legend(frameon=False, fontsize=8.5, loc="upper right")
    for ax in accuracy, seconds, memory:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=GREY, labelsize=9)
    seconds.tick_params(axis="y", length=0, colors="black", labelsize=8.5)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)


if __name__ == "__main__":
    guard.script(main)
