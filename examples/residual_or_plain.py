"""Why residual nets: plain nets get worse when they get deeper, and not because they overfit.

    python examples/residual_or_plain.py

trains plain and residual nets of 20 and 56 layers on 2,000 generated lesions, in a few minutes on two cores. The
experiment of the paper (He, Zhang, Ren and Sun 2016, figure 6) needs photographs and some ten minutes:

    python examples/residual_or_plain.py --data cifar10      # fetches 170 MB into data/, if it is not there

On the lesions, nets of 20 layers of either kind learn, and nets of 56 layers of either kind do not: so few steps show the
gradients at the start, but not what shortcuts do for training.

A net of 56 layers can do whatever one of 20 can: let its other layers pass on what they are given. So its error on the
images that it is *trained* on should not be larger. For plain nets it is; training does not find those weights. A block that
computes x + F(x) passes x on where F is small, and the deep net is no longer behind.

Gradients do not vanish in the deep plain net, as one might think: behind batch norm they grow, from layer to layer on the way
back (Yang et al. 2019, "A mean field theory of batch normalization"), so that the first layers are told hundreds of times more
loudly what to change than the last ones. The sum x + F(x) hands the gradient back as it is, whatever F makes of it.

In the folder of the run, by default runs/residual_or_plain-DATA, are then

    figure.png          errors of both kinds by epoch, training and test, and the norm of d loss / d w layer by layer before
                        the first step
    table.md            the same at the end
    plain56-0, ...      each net with its metrics, weights and checkpoint

Press Ctrl-C when you like: the same command goes on after the last finished epoch.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import pathlib
from collections.abc import Mapping, Sequence

import compare
import numpy as np

import models
from minidl import Tensor, ops
from minidl.array import Array, to_cpu, to_device
from minidl.data import Dataset, Normalize
from minidl.io import files
from minidl.nn import Module
from minidl.train import Row
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE

KINDS = {"plain": "plain", "residual": "resnet"}  # and how their constructors' names begin
DEPTHS = (20, 32, 44, 56, 110)
RECIPES: compare.Recipes = {  # for CIFAR-10 that of section 4.2, but for the number of steps, and so the schedule
    "lesions": {"limit": 2000, "epochs": 6, "batch_size": 32, "lr": 0.05, "weight_decay": 1e-4, "crop": 2, "flip": "both"},
    "cifar10": {"limit": 10_000, "epochs": 7, "batch_size": 128, "lr": 0.1, "weight_decay": 1e-4},
}

Norms = dict[str, list[Array]]  # net: for each seed the norms of its layers, input to output


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `compare.guarded`."""
    parser = compare.parser(__doc__, RECIPES)
    parser.add_argument("--depths", type=int, nargs="+", choices=DEPTHS, default=[20, 56], help="by default 20 and 56")
    asked = parser.parse_args(arguments)
    out = asked.out or pathlib.Path(f"runs/residual_or_plain-{asked.data}")

    def run() -> None:
        settings = compare.settings(asked, RECIPES)
        nets = {f"{kind}{depth}": getattr(models, f"{kind}{depth}") for kind in KINDS.values() for depth in asked.depths}
        dataset, rows = compare.train_all(nets, settings, asked.seeds, out)
        K, C = len(dataset.classes), dataset.images.shape[1]
        first = first_batch(dataset, settings.batch_size, settings.device)
        norms = {
            name: [gradient_norms(make(K, C, seed).to(settings.device), *first) for seed in asked.seeds]
            for name, make in nets.items()
        }
        lines = [line(name, make(K, C, 0), rows[name], norms[name]) for name, make in nets.items()]
        text = compare.table(HEAD, lines)
        files.write(out / "table.md", text)
        draw(out / "figure.png", rows, norms, asked.depths, f"{len(dataset):,} images of {settings.data}")
        print(f"{text}{compare.always(rows)}{verdict(rows, asked.depths)}; now look at {out / 'figure.png'}")

    return compare.guarded(run, out)


def first_batch(dataset: Dataset, batch_size: int, device: str = "cpu") -> tuple[Tensor, Array]:
    """The first images, normalised, and their labels, both on `device`."""
    x = Normalize(*dataset.mean_std())(dataset.images[:batch_size])
    return Tensor(to_device(x, device)), to_device(dataset.labels[:batch_size], device)


def gradient_norms(model: Module, x: Tensor, labels: Array) -> Array:
    """The L2 norm of d loss / d w for the weight w of every layer, input to output."""
    ops.cross_entropy(model.train()(x), labels).backward()
    return np.array([np.linalg.norm(to_cpu(p.grad)) for p in model.parameters() if p.ndim > 1 and p.grad is not None])


HEAD = ("net", "parameters", "training loss", "training error", "test error", "gradient, layer 2 / last but one")


def line(name: str, model: Module, rows: Sequence[Sequence[Row]], norms: Sequence[Array]) -> list[str]:
    """A line of the table: means over the seeds, those of the metrics after the last epoch."""

    def end(key: str) -> float:
        return float(np.mean([r[-1][key] for r in rows]))

    errors = (f"{1 - end(key):.1%}" for key in ("train_accuracy", "validation_accuracy"))
    ratio = np.exp(np.mean([np.log(n[1] / n[-2]) for n in norms]))  # the first and the last layer have other shapes
    return [name, f"{compare.count(model):,}", f"{end('train_loss'):.3f}", *errors, f"{ratio:,.1f}"]


def verdict(rows: Mapping[str, list[list[Row]]], depths: Sequence[int]) -> str:
    """What depth did to the training error of either kind, in points."""
    few, many = min(depths), max(depths)

    def error(name: str) -> float:
        return float(np.mean([1 - r[-1]["train_accuracy"] for r in rows[name]]))

    changes = [f"{100 * (error(f'{k}{many}') - error(f'{k}{few}')):+.1f} points ({kind})" for kind, k in KINDS.items()]
    return f"training error with {many} layers instead of {few}: {', '.join(changes)}"


def draw(path: pathlib.Path, rows: Mapping[str, list[list[Row]]], norms: Norms, depths: Sequence[int], data: str) -> None:
    """Errors of the plain and of the residual nets on one scale, and gradient norms; one line a seed."""
    from matplotlib.ticker import MaxNLocator

    fig = figure.new(11, 3.9, w_pad=0.1, h_pad=0.08)
    plain, residual, layers = fig.subplots(1, 3, width_ratios=(3, 3, 3.4))
    residual.sharey(plain)
    few, many = min(depths), max(depths)
    color = {depth: ORANGE if depth == many else BLUE if depth == few else GREY for depth in depths}
    for ax, (kind, prefix) in zip((plain, residual), KINDS.items(), strict=True):
        for depth in depths:
            for r in rows[f"{prefix}{depth}"]:
                epochs = [row["epoch"] for row in r]
                for key, style in ("train_accuracy", "-"), ("validation_accuracy", ":"):
                    ax.plot(epochs, [100 * (1 - row[key]) for row in r], style, lw=1.8, color=color[depth])
                    ax.plot(epochs[-1:], [100 * (1 - r[-1][key])], "o", ms=4, color=color[depth])
        ax.set_title(f"{kind} nets", fontsize=10, loc="left")
        ax.set_ylabel("error (%)", color=GREY)
        ax.set_xlabel("epoch", color=GREY)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for depth in depths:
        plain.plot([], [], lw=1.8, color=color[depth], label=f"{depth} layers")
    for style, name in ("-", "training"), (":", "test"):
        plain.plot([], [], style, lw=1.8, color=GREY, label=name)
    plain.legend(frameon=False, fontsize=8.5)
    for kind, prefix in KINDS.items():
        for depth in depths:
            for n in norms[f"{prefix}{depth}"]:
                layers.plot(range(1, len(n) + 1), n, lw=1.8, color=color[depth], ls="--" if kind == "residual" else "-")
    for kind, style in ("plain", "-"), ("residual", "--"):
        layers.plot([], [], style, lw=1.8, color=GREY, label=kind)
    layers.legend(frameon=False, fontsize=8.5)
    layers.set_yscale("log")
    layers.set_title("before the first step: |d loss / d w|", fontsize=10, loc="left")
    layers.set_ylabel("L2 norm", color=GREY)
    layers.set_xlabel("layer, input to output", color=GREY)
    for ax in plain, residual, layers:
        ax.grid(color="#e6e6e6", lw=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=GREY, labelsize=9)
    fig.suptitle(f"{' and '.join(map(str, depths))} layers, plain and residual: {data}", fontsize=11, fontweight="bold")
    figure.save(fig, path)


if __name__ == "__main__":
    guard.script(main)
