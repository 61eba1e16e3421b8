"""Large kernels taken apart: what it saves on paper, and what it saves on the clock.

    python examples/factorisation.py

compares, counted with `minidl.cost` and timed side by side, forward alone and forward with backward, in a minute or two:

- one 5x5 convolution and two of 3x3, which see the same 5x5 pixels with 18 weights a pair of channels instead of 25;
- one 3x3 and 1x3 with 3x1, 6 weights instead of 9 (Szegedy et al. 2016, sections 3.1 and 3.2);
- an Inception module as it was first thought of and the one whose 1x1 convolutions reduce the channels first (Szegedy et al.
  2015, figure 2), with the widths of inception3a;
- three ways to halve the grid (Szegedy et al. 2016, figures 9 and 10): convolve with stride beside a pooling; pool first, which
  is cheap but squeezes everything through few values, a "representational bottleneck"; pool last, "3x more computations".

runs/factorisation/table.md holds the table, figure.png the chart.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from minidl import Tensor, cost, no_grad
from minidl.analysis import Cost
from minidl.io import files
from minidl.nn import Conv2d, Module, ReLU, Sequential
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE
from models.googlenet import Inception, NaiveInception, Widths
from models.inception import InceptionB, PoolFirst, PoolLast

Make = Callable[[int, np.random.Generator], Module]  # (channels, generator) -> a module


def convolutions(*kernels: tuple[int, int]) -> Make:
    """Convolutions that keep channels and pixels, with a relu behind each."""

    def make(c: int, rng: np.random.Generator) -> Module:
        layers: list[Module] = []
        for kh, kw in kernels:
            layers += [Conv2d(c, c, (kh, kw), padding=(kh // 2, kw // 2), bias=False, rng=rng), ReLU()]
        return Sequential(*layers)

    return make


WIDTHS = Widths(64, 96, 128, 16, 32, 32)  # of inception3a


class Question(NamedTuple):
    """Ways to do the same; the first is what the others are measured against. channels, pixels: of the input."""

    title: str
    channels: int
    pixels: int
    ways: dict[str, Make]


QUESTIONS = (
    Question("5×5 as two 3×3", 64, 35, {"5×5": convolutions((5, 5)), "3×3, 3×3": convolutions((3, 3), (3, 3))}),
    Question("3×3 as 1×3 and 3×1", 64, 35, {"3×3": convolutions((3, 3)), "1×3, 3×1": convolutions((1, 3), (3, 1))}),
    Question(
        "Inception module, 3a", 192, 28,
        {
            "naive": lambda c, rng: NaiveInception(c, WIDTHS, 5, False, rng),
            "reduced": lambda c, rng: Inception(c, WIDTHS, 5, False, rng),
        },
    ),
    Question(
        "35×35 to 17×17", 288, 35,
        {"side by side": InceptionB, "pool first": PoolFirst, "pool last": PoolLast},
    ),
)  # fmt: skip


class Result(NamedTuple):
    """weights: of all convolutions; narrowest: see there; forward, both: median seconds, the second with backward."""

    weights: int
    multiply_adds: int
    narrowest: int
    c_out: int
    forward: float
    both: float


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="images a batch, by default 8")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed, by default 15")
    parser.add_argument("--pixels", type=int, help="the height and width of every input, instead of those of the papers")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/factorisation"), help="the folder for the results"
    )
    asked = parser.parse_args(arguments)
    for name, least in ("batch", 1), ("rounds", 1), ("pixels", 3):
        if (value := getattr(asked, name)) is not None and value < least:
            parser.error(f"--{name}: expected at least {least}, got {value}")
    stopped = "Stopped; nothing was written."

    def run() -> None:
        nonlocal stopped
        with tqdm(total=len(QUESTIONS) * (asked.rounds + 1), unit="round", leave=False, disable=None) as bar:
            results = {q.title: measure(q, asked.batch, asked.rounds, asked.pixels or q.pixels, bar) for q in QUESTIONS}
        text = table(results)
        stopped = "Stopped while the results were written."
        asked.out.mkdir(parents=True, exist_ok=True)
        files.write(asked.out / "table.md", text + "\n")
        draw(asked.out / "figure.png", results, f"{asked.batch} images, median of {asked.rounds}")
        print(f"{text}\n\nnow look at {asked.out / 'figure.png'}")

    return guard.guarded(run, lambda: stopped)


def measure(question: Question, batch: int, rounds: int, pixels: int, bar: tqdm) -> dict[str, Result]:
    """Count each way and time them in turns, so that whatever else the machine does meets all alike."""
    rng = np.random.default_rng(0)
    shape = question.channels, pixels, pixels
    ways = {name: make(question.channels, rng) for name, make in question.ways.items()}
    x = Tensor(rng.standard_normal((batch, *shape), np.float32), requires_grad=True)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for n in range(rounds + 1):
        for name, way in ways.items():
            measured = seconds(way, x)
            if n:  # the first round compiles the kernels
                times[name].append(measured)
        bar.update()
    results = {}
    for name, way in ways.items():
        counted = cost(way, shape)
        weights = sum(p.size for p in way.parameters() if p.ndim == 4)
        forward, both = (statistics.median(t) for t in zip(*times[name], strict=True))
        c_out = counted.rows[-1].shape[1]
        results[name] = Result(weights, counted.multiply_adds, narrowest(counted), c_out, forward, both)
    return results


def seconds(way: Module, x: Tensor) -> tuple[float, float]:
    """Of a forward pass alone, and of one with its backward pass to the input and the weights."""
    way.train()
    start = time.perf_counter()
    with no_grad():
        way(x)
    middle = time.perf_counter()
    y = way(x)
    y.backward(np.ones_like(y.data))
    end = time.perf_counter()
    x.grad = None
    for p in way.parameters():
        p.grad = None
    return middle - start, end - middle


def narrowest(counted: Cost) -> int:
    """How many values the smallest tensor has through which all ways from the input to the output pass, both included."""
    last = len(counted.rows) - 1
    smallest = math.prod(counted.input_shape)
    for gone, row in enumerate(counted.rows):
        reached = {-1}
        for i, other in enumerate(counted.rows):
            if i != gone and reached & set(other.inputs):
                reached.add(i)
        if last not in reached:
            smallest = min(smallest, math.prod(row.shape))
    return smallest


def table(results: dict[str, dict[str, Result]]) -> str:
    """As Markdown; the numbers in brackets are ratios to the first way of each question."""
    lines = [
        "| | | weights | multiply-adds | narrowest place | channels out | forward | forward and backward |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, ways in results.items():
        first = next(iter(ways.values()))
        for i, (name, r) in enumerate(ways.items()):
            cells = (
                title if i == 0 else "",
                name,
                f"{r.weights:,} ({r.weights / first.weights:.2f})",
                f"{r.multiply_adds / 1e6:,.1f} M ({r.multiply_adds / first.multiply_adds:.2f})",
                f"{r.narrowest:,} values",
                str(r.c_out),
                f"{1e3 * r.forward:.1f} ms ({r.forward / first.forward:.2f})",
                f"{1e3 * r.both:.1f} ms ({r.both / first.both:.2f})",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(path: pathlib.Path, results: dict[str, dict[str, Result]], title: str) -> None:
    """A panel for each question: multiply-adds and times as ratios to the first way."""
    fig = figure.new(12, 3.7, w_pad=0.1, h_pad=0.1)
    panels = fig.subplots(1, len(results), width_ratios=[0.6 + len(ways) for ways in results.values()])
    series = (
        ("multiply-adds, counted", BLUE, lambda r: r.multiply_adds),
        ("time, forward", ORANGE, lambda r: r.forward),
        ("time, forward and backward", GREY, lambda r: r.both),
    )
    for ax, (question, ways) in zip(panels, results.items(), strict=True):
        first = next(iter(ways.values()))
        for k, (label, color, value) in enumerate(series):
            heights = [value(r) / value(first) for r in ways.values()]
            at = [i + (k - 1) * 0.27 for i in range(len(ways))]
            ax.bar(at, heights, width=0.25, color=color, label=label if ax is panels[0] else None)
            for x, height in zip(at, heights, strict=True):
                ax.annotate(f"{height:.2f}", (x, height), (0, 2), textcoords="offset points", ha="center", fontsize=7.5)
        ax.axhline(1, color="#b0b0b0", lw=0.8, zorder=0)
        ax.set_ylim(0, 1.12 * max(value(r) / value(first) for _, _, value in series for r in ways.values()))
        ax.set_xticks(range(len(ways)), ways)
        ax.set_title(question, fontsize=10, loc="left")
        ax.tick_params(colors=GREY, labelsize=9, length=0)
        ax.tick_params(axis="x", labelcolor="black")
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ratio to the first", color=GREY)
    fig.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    fig.suptitle(f"Factorisation, counted and timed: {title}", fontsize=11, fontweight="bold")
    figure.save(fig, path)


if __name__ == "__main__":
    guard.script(main)
