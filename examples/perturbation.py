"""Change the image, and see what the net makes of it: what must go for it to lose its class, and what alone suffices.

    python examples/perturbation.py

takes the net of `examples/train.py` (and trains it first where it is not there) and some of its test images, learns two
masks for each, and draws into runs/perturbation

    masks.png  what meaningful perturbation deletes, the image without it, and how the probability of the class falls while
               the mask is learned; what extremal perturbation keeps, and the image with nothing else. Where even the
               image that is blurred all over keeps its class, there is nothing to find: its p stands above the mask
    areas.png  the same question for ever larger areas: the best 2.5%, 5%, 10% and 20% of the image to keep

Both masks are shown as evidence: dark red is what the net needs, be it deleted or kept. Your own image, and your own net:

    python examples/perturbation.py --image mole.jpg --target malignant
    python examples/perturbation.py --image cat.jpg dog.jpg --model resnet18 --weights resnet18.pth

With --study 50, nothing is drawn. The masks of the first 50 test images of each class that the net gets right (of all
classes together where there are more than two) are measured instead: how much they delete, what is left of the class, and,
for generated lesions, how much of the mask lies on the lesion.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib
import sys
import warnings
from typing import Any

import common
import numpy as np
import train as training

from minidl import evaluate, explain, inference, metrics
from minidl.array import Array, array_module, check_device, to_cpu
from minidl.data import Dataset
from minidl.explain import Explanation
from minidl.explain.meaningful import DELETIONS, SETTINGS
from minidl.nn import Module
from minidl.train import Settings, TrainedNet, load_run
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE
from minidl.view.maps import color_scale, draw
from minidl.view.names import literal

COLORS = color_scale(np.ones((1, 1, 1)))  # from 0 to 1
NOTHING = 0.005  # a mask that deletes less, and leaves the class, found nothing
ALL_OF_IT = {"blur": "all blurred", "constant": "all one colour", "noise": "all noise"}


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    return guard.guarded(lambda: study(args) if args.study else figures(args))


def figures(args: argparse.Namespace) -> None:
    """Learn the masks of some images, and draw them."""
    loaded, out = common.load(args, count=args.count), pathlib.Path(args.out)
    model, x, target = loaded.model, loaded.inputs(loaded.images), common.number_of(args.target, loaded.classes)
    how = settings_of(args)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "meaningful perturbation: the map is 0 everywhere")  # the image says so
        needed = explain.meaningful_perturbation(model, x, target, args.deletion, args.setting, **how)
    enough = explain.extremal_perturbation(model, x, target, **how)
    out.mkdir(parents=True, exist_ok=True)
    masks(out / "masks.png", loaded, x, needed, enough)
    print(f"{out / 'masks.png'}: what must go, and what suffices")
    areas(out / "areas.png", loaded, x, enough)
    print(f"{out / 'areas.png'}: what suffices, in ever larger areas")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What both methods are asked alike."""
    asked = {} if args.iterations is None else {"iterations": args.iterations}
    return {"progress": sys.stderr.isatty(), "batch_size": 64, **asked}


# ---- images


def masks(path: pathlib.Path, loaded: common.Loaded, x: Array, needed: Explanation, enough: Explanation) -> None:
    """One row for each image: it, what is deleted, what is left, the course of that; what is kept, and that alone."""
    N, without, only = len(x), deleted(x, needed), explain.keep(x, enough.map)
    gone_all = deleted(x, needed, everything=True)
    needed, enough = needed.to("cpu"), enough.to("cpu")
    c = needed.target
    before, after, alone, least = (probability(loaded.model, some, c) for some in (x, without, only, gone_all))
    without, only, images = to_cpu(without), to_cpu(only), loaded.shown
    fig = figure.new(12.6, 2.15 * N + 1.0, w_pad=0.05, h_pad=0.05, wspace=0.01, hspace=0)
    cells = fig.subplots(N, 7, width_ratios=(1, 1, 1, 1.35, 0.12, 1, 1), squeeze=False)
    for n, (plain, gone, rest, course, gap, kept, sufficient) in enumerate(cells):
        for ax in plain, gone, rest, gap, kept, sufficient:
            ax.set_axis_off()
        draw(plain, images[n])
        plain.set_title(f"{figure.name(loaded.classes[c[n]], 12)}, p {percent(before[n])}", fontsize=9, loc="left", pad=4)
        draw(gone, images[n], needed.map[n], COLORS)
        found = verdict(float(needed.map[n].mean()), before[n], after[n])
        gone.set_title(f"{found}\n{ALL_OF_IT[needed.params['deletion']]}: p {percent(least[n])}", fontsize=9, loc="left", pad=4)
        draw(rest, loaded.contract.to_image(without[n]))
        rest.set_title(f"without it, p {percent(after[n])}", fontsize=9, loc="left", pad=4)
        history(course, needed, n, last=n == N - 1)
        shades = draw(kept, images[n], enough.map[n], COLORS)
        holds = "suffice" if alone[n] >= enough.params["enough"] * before[n] else "keep most"
        kept.set_title(f"{100 * enough.params['chosen'][n]:g}% {holds}", fontsize=9, loc="left", pad=4)
        draw(sufficient, loaded.contract.to_image(only[n]))
        sufficient.set_title(f"these alone, p {percent(alone[n])}", fontsize=9, loc="left", pad=4)
    color_bar(fig, shades, cells)
    fig.suptitle(
        "Meaningful perturbation: the smallest region whose deletion loses the class.   "
        "Extremal perturbation: the smallest that keeps it",
        fontsize=11,
        fontweight="bold",
    )
    figure.save(fig, path)


def verdict(area: float, before: float, after: float) -> str:
    """What meaningful perturbation found, in words: the share that must go for p to fall below half, if there is one."""
    share = f"{100 * area:.0f}%" if area >= 0.01 else f"{100 * area:.1g}%"
    if after < before / 2:
        return f"{share} must go"
    return "nothing found to delete" if area < NOTHING else f"{share} deleted, not enough"


def history(ax: Any, e: Explanation, n: int, last: bool) -> None:
    """The probability of the class, and the share of the image that is deleted, over the iterations."""
    p = [100 * float(entry["score"][n]) for entry in e.history]
    share = [100 * float(entry["l1"][n]) / (e.params["lambda1"] * e.raw[n].size) for entry in e.history]
    ax.plot(p, color=BLUE, lw=1.4)
    ax.plot(share, color=ORANGE, lw=1.4)
    ax.set_ylim(-3, 103)
    ax.set_xlim(0, len(p))
    ax.set_yticks((0, 50, 100), ("0%", "50%", "100%"))
    ax.grid(color="#e6e6e6", lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=GREY, labelsize=8)
    ax.text(0.98, 0.97, "p of the class", color=BLUE, fontsize=8.5, ha="right", va="top", transform=ax.transAxes)
    ax.text(0.98, 0.85, "deleted", color=ORANGE, fontsize=8.5, ha="right", va="top", transform=ax.transAxes)
    if last:
        ax.set_xlabel("iteration", color=GREY, fontsize=9)
    else:
        ax.tick_params(labelbottom=False)


def areas(path: pathlib.Path, loaded: common.Loaded, x: Array, e: Explanation) -> None:
    """One row for each image, one column for each area: what is kept, with the probability of the class."""
    e = e.to("cpu")
    sizes, N, images = e.params["areas"], len(x), loaded.shown
    before = probability(loaded.model, x, e.target)
    fig = figure.new(1.75 * (len(sizes) + 1) + 1.0, 1.95 * N + 0.7, w_pad=0.05, h_pad=0.05, wspace=0, hspace=0)
    cells = fig.subplots(N, len(sizes) + 1, squeeze=False)
    for n, row in enumerate(cells):
        for ax in row:
            ax.set_axis_off()
        draw(row[0], images[n])
        row[0].set_title(
            f"{figure.name(loaded.classes[e.target[n]], 16)}\np {percent(before[n])}", fontsize=9, loc="left", pad=4
        )
        for a, (ax, size) in enumerate(zip(row[1:], sizes, strict=True)):
            shades = draw(ax, images[n], e.raw[n, a], COLORS)
            chosen = e.params["chosen"][n] == size
            ax.set_title(
                f"{100 * size:g}% kept{', chosen' if chosen else ''}\np {percent(before[n] * e.params['kept'][n, a])}",
                fontsize=9,
                loc="left",
                pad=4,
                fontweight="bold" if chosen else "normal",
            )
    color_bar(fig, shades, cells)
    fig.suptitle("Extremal perturbation: the best area of each size to keep", fontsize=11, fontweight="bold")
    figure.save(fig, path)


def color_bar(fig: Any, shades: Any, cells: Array) -> None:
    bar = fig.colorbar(shades, ax=cells, shrink=0.5, aspect=25, ticks=(0, 0.5, 1))
    bar.set_label("evidence: 1 must go, or be kept", color=GREY)
    bar.outline.set_visible(False)


def deleted(x: Array, e: Explanation, everything: bool = False) -> Array:
    """The images without what meaningful perturbation found, or with all of it deleted."""
    map = array_module(e.map).ones_like(e.map) if everything else e.map
    return explain.delete(x, map, e.params["deletion"], e.params["blur"], e.params["constant"], e.params["seed"])


def probability(model: Module, x: Array, target: Array) -> Array:
    """Of the class `target` (N,) in the images x: (N,). Class and probability are on the CPU."""
    picked: Array = metrics.probabilities(inference.predict(model, x))[np.arange(len(x)), target]
    return picked


def percent(p: float) -> str:
    return "> 99.9%" if p > 0.999 else "< 0.1%" if p < 0.001 else f"= {p:.1%}"


# ---- the study


def study(args: argparse.Namespace) -> None:
    """Measure the masks of many images, and print a table."""
    check_device(args.device)
    folder = common.finished(pathlib.Path(args.run))
    settings = Settings.of_run(folder)
    net = load_run(folder, training.MODELS)
    model, classes = net.model.to(args.device), net.classes
    test_set = training.load(settings).test
    first = test_set.take(np.arange(min(len(test_set), 40 * args.study)))
    right = to_cpu(inference.predict(model, net.inputs(first.images[:]), 256).argmax(1)) == first.labels
    each = range(len(classes)) if len(classes) == 2 else [None]
    for k in each:
        wanted = right if k is None else right & (first.labels == k)
        name = "all classes" if k is None else literal(classes[k])
        if not wanted.any():
            print(f"\n{settings.model} on {test_set.name}, {name}: no test image that the net gets right")
            continue
        chosen = first.take(np.flatnonzero(wanted)[: args.study])
        print(f"\n{settings.model} on {test_set.name}, {name}: {len(chosen)} test images that the net gets right")
        measure(net, chosen, args.deletion, settings_of(args))


def measure(net: TrainedNet, chosen: Dataset, deletion: str, how: dict[str, Any]) -> None:
    model, x, y = net.model, net.inputs(chosen.images), chosen.labels
    everything = explain.delete(x, array_module(x).ones((len(x), *x.shape[2:]), x.dtype), deletion)
    print(f"  deleting everything ({deletion}) takes p below 10% on {(probability(model, everything, y) < 0.1).mean():.0%}")
    for setting in SETTINGS:
        e = explain.meaningful_perturbation(model, x, y, deletion, setting, **how)
        p, area = probability(model, deleted(x, e), y), to_cpu(e.map.mean((1, 2)))
        low, small = p < 0.1, area <= 0.25
        print(f"  meaningful, {setting}: p {np.median(probability(model, x, y)):.3f} -> {np.median(p):.3f} (medians), "
              f"{area.mean():.1%} of the image deleted; p below 10% on {low.mean():.0%} of the images, "
              f"at most a quarter deleted on {small.mean():.0%}, both on {(low & small).mean():.0%}")  # fmt: skip
        on_lesion(e.map, chosen)
    e = explain.extremal_perturbation(model, x, y, areas=[0.1], **how)
    p, e = probability(model, explain.keep(x, e.map), y), e.to("cpu")
    print(f"  extremal, 10%: kept {e.map.mean():.1%} of the image, p -> {np.median(p):.3f} (median), "
          f"above 90% of what it was on {(e.params['kept'][:, 0] >= 0.9).mean():.0%}")  # fmt: skip
    on_lesion(e.map, chosen)


def on_lesion(maps: Array, chosen: Dataset) -> None:
    """How much of the map lies on the lesion, compared with a map of the centre, on the same images."""
    if "lesion" not in chosen.masks:
        return
    lesion = chosen.masks["lesion"]
    mass = evaluate.mass_in_mask(maps, lesion)
    centre = evaluate.mass_in_mask(evaluate.baselines.centre(chosen.images), lesion)
    difference = metrics.bootstrap(mass.value - centre.value)
    verdict = "better" if difference.low > 0 else "worse" if difference.high < 0 else "no different"
    print(f"    mass on the lesion {metrics.bootstrap(mass.value)}, of the centre {metrics.bootstrap(centre.value)}, "
          f"of a uniform map {mass.chance.mean():.3f}; difference from the centre {difference}: {verdict}")  # fmt: skip


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(p)
    common.add_target(p)
    p.add_argument("--count", type=int, default=4, help="how many generated lesions to look at")
    p.add_argument("--deletion", choices=DELETIONS, default="blur", help="what meaningful perturbation does")
    p.add_argument("--setting", choices=SETTINGS, default="localisation", help="the weights of its loss")
    p.add_argument("--iterations", type=int, help="of both methods; by default as published, 300 and 800")
    p.add_argument("--study", type=int, metavar="N", help="measure the masks of N images of --run instead")
    p.add_argument("--out", default="runs/perturbation", help="the folder for the images")
    return p


if __name__ == "__main__":
    guard.script(main)
