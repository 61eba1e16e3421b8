"""What does each answer of one net rest on? A net with two heads, and maps for each, where it is known what they should show.

    python examples/evidence.py

draws lesions of which half have a freckle beside them, malignant or not, and trains one net to answer both questions, in two
minutes on two cores. Each answer has evidence of its own, planted in a place of its own. Methods are then asked about one head
and about the other, in the same images, and judged by where the highest pixel of the map is: on the place of the head that was
asked, on that of the other head, or on neither. Then look into runs/evidence:

    evidence.png   images, and over them the maps of both heads, with the planted places outlined
    evidence.json  all numbers
    net/           the net: the same command goes on from there

The style is that of the evidence hotspots of Jamaludin, Kadir and Zisserman 2017, "SpineNet: automated classification and
evidence visualization in spinal MRIs". With the images of HAM10000, as they are published, the heads are malignancy and the
site of the body, and the only place that is known is the lesion's outline:

    python examples/evidence.py --data ham10000 --root FOLDER
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import common
import numpy as np
import train as training

from minidl import data, evaluate, explain, metrics, train
from minidl.array import Array, check_device, to_cpu
from minidl.bar import Bar
from minidl.data import Dataset
from minidl.evaluate import baselines
from minidl.explain import Explanation
from minidl.inference.heads import width
from minidl.io import files, lock
from minidl.nn import Module
from minidl.train import Settings, TrainedNet
from minidl.view import figure
from minidl.view.maps import color_scale, draw
from minidl.view.names import literal

BATCH = 32  # images at a time


def spinenet(model: Module, x: Array, target: Array, batch_size: int) -> Explanation:
    """The gradient's largest size over the channels, smoothed by a Gaussian."""
    return explain.evidence_maps(model, x, {"": target}, batch_size=batch_size)[""]


# Of gradients the sizes count, of all other maps what is positive.
METHODS: dict[str, Callable[..., Explanation]] = {
    "SpineNet's style": spinenet,
    "gradient": explain.saliency,
    "gradient x input": partial(explain.grad_times_input, reduce="sumabs"),
    "SmoothGrad": explain.smoothgrad,
    "integrated gradients": partial(explain.integrated_gradients, reduce="sumabs"),
    "guided backprop": explain.guided_backprop,
    "Grad-CAM": explain.grad_cam,
    "Grad-CAM++": explain.grad_cam_plus_plus,
    "HiResCAM": explain.hires_cam,
    "LayerCAM": explain.layer_cam,
    "guided Grad-CAM": explain.guided_grad_cam,
    "LRP": explain.lrp,
    "occlusion": explain.occlusion,
    "meaningful mask": partial(explain.meaningful_perturbation, iterations=150),
    "extremal mask": partial(explain.extremal_perturbation, areas=(0.05, 0.1), iterations=300),
}
SLOW = ("meaningful mask", "extremal mask")  # minutes, so that they are to be asked for
BASELINES: dict[str, Callable[[Array], Array]] = {
    "random": baselines.random,
    "centre": baselines.centre,
    "intensity": baselines.intensity,
}
SHOWN = ("SpineNet's style", "Grad-CAM", "LRP")  # in the figure
ROWS = 4  # images of the figure
TRAIN, TEST, TRUTH = 0, 1, 1000  # the seeds of generated images


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    size: int  # the height of an image, in pixels
    images: int  # that the methods are asked about
    epochs: int
    train: int = 8000  # generated images
    model: str = "resnet8"
    lr: float = 0.05
    root: str = "data"
    device: str = "cpu"


PLANS = {"lesions": Plan(size=32, images=100, epochs=10), "ham10000": Plan(size=48, images=200, epochs=6)}


class Task(NamedTuple):
    """Images that a net answers rightly, and where the evidence for each of its heads is; None where nobody knows."""

    net: TrainedNet
    images: Dataset
    places: dict[str, str | None]  # head: the name of a mask


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    out = pathlib.Path(args.out or f"runs/evidence{'-ham10000' if args.data == 'ham10000' else ''}")

    def locked() -> None:
        with lock.hold(out):
            files.remove_leftovers(out, ("evidence.json", "evidence.png"))
            run(args, out)

    return guard.guarded(locked, lambda: "Stopped. The same command goes on from here.")


def run(args: argparse.Namespace, out: pathlib.Path) -> None:
    asked = {name: value for name in ("size", "images", "epochs", "train", "root", "device") if (value := getattr(args, name))}
    plan = replace(PLANS[args.data], **asked)
    check_device(plan.device)
    task = (lesions if args.data == "lesions" else ham10000)(plan, out / "net")
    methods = args.methods or [name for name in (*METHODS, *BASELINES) if name not in SLOW]
    maps = all_maps(task, methods)
    found = results(task, methods, maps)
    files.write(out / "evidence.json", json.dumps(found, indent=2) + "\n")
    print(table(found))
    shown = [method for method in SHOWN if method in methods] or methods[: len(SHOWN)]
    draw_evidence(out / "evidence.png", task, {key: a[:ROWS] for key, a in maps.items()}, shown)
    print(f"now look at {out / 'evidence.png'} and {out / 'evidence.json'}")


# ---- nets and images


def lesions(plan: Plan, out: pathlib.Path) -> Task:
    """Both heads have a place: the lesion, with all that would differ were it of the other class, and the freckle."""
    draw_lesions = partial(data.lesions, size=plan.size, freckle=0.5)
    settings = Settings(plan.epochs, batch_size=64, lr=plan.lr, crop=2, flip="both", model=plan.model, size=plan.size,
                        data="lesions, half with a freckle", limit=plan.train, device=plan.device)  # fmt: skip
    net = trained(out, settings, lambda: draw_lesions(plan.train, seed=TRAIN), lambda: draw_lesions(1000, seed=TEST))
    d = draw_lesions(4 * plan.images, seed=TRUTH)
    right = answered(net, d) & (d.labels["freckle"] == 1)
    d = replace(d, masks={"lesion": d.masks["lesion"] | d.masks["evidence"], "freckle": d.masks["freckle"]})
    return Task(net, few(d, right, plan.images), {"malignancy": "lesion", "freckle": "freckle"})


def ham10000(plan: Plan, out: pathlib.Path) -> Task:
    """The place of malignancy is the lesion; what a net sees of the site of the body, nobody knows."""

    def read(is_train: bool) -> Dataset:
        with Bar(desc=f"HAM10000, {'training' if is_train else 'test'} images", unit="", leave=False, disable=None) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            labels = ("malignant", "localization")
            return data.ham10000(plan.root, is_train, (plan.size, plan.size * 4 // 3), labels, progress=progress)

    settings = Settings(plan.epochs, batch_size=64, lr=plan.lr, crop=4, flip="both", model=plan.model,
                        size=(plan.size, plan.size * 4 // 3), data="HAM10000, malignancy and site", device=plan.device,
                        root=plan.root)  # fmt: skip
    test = read(False)
    net = trained(out, settings, lambda: read(True), lambda: test)
    order = np.random.default_rng(TRUTH).permutation(len(test))
    shuffled = test.take(order)
    right = answered(net, shuffled) & shuffled.masks["lesion"].any((1, 2))
    return Task(net, few(shuffled, right, plan.images), {"malignant": "lesion", "localization": None})


def trained(
    out: pathlib.Path, settings: Settings, train_set: Callable[[], Dataset], test_set: Callable[[], Dataset]
) -> TrainedNet:
    """The net that was trained in the folder `out`; where that is not finished it is done, or gone on with."""
    begun = (out / "settings.json").exists()
    if begun:
        settings.continues(Settings.of_run(out))
    if not (out / "test.json").exists():
        first = train_set()
        arguments = training.arguments_of(settings.model, width(first.classes), first.images.shape[1])
        model = training.MODELS[settings.model](**arguments, seed=settings.seed)
        train.fit(model, first, settings, out, resume=begun, arguments=arguments)
        train.evaluate_run(out, training.MODELS, test_set(), settings.device)
    net = train.load_run(out, training.MODELS)
    net.model.to(settings.device)
    found = json.loads((out / "test.json").read_text(encoding="utf-8"))
    for head, row in found["heads"].items():
        print(f"{head}: {train.selection.described(row)}, on {row['images']:,} test images")
    return net


def answered(net: TrainedNet, d: Dataset) -> Array:
    """(N,): whether the label of each head is known, and the net's answer."""
    right = np.ones(len(d), bool)
    for head in net.heads:
        p = net.head(head).probabilities(net.inputs(d.images), 100)
        right &= p.argmax(1) == d.labels[head]
    return right


def few(d: Dataset, admitted: Array, count: int) -> Dataset:
    """The first `count` of those that are admitted (N,). Raises ValueError where none is."""
    which = np.flatnonzero(admitted)[:count]
    if not len(which):
        raise ValueError(f"{d.name}: of {len(d)} images the net answers none rightly for both heads; try more --epochs")
    print(f"{admitted.sum():,} of {len(d):,} images are answered rightly by both heads, {len(which)} are taken")
    return d.take(which)


# ---- maps, and where they point


def all_maps(task: Task, methods: Sequence[str]) -> dict[tuple[str, str], Array]:
    """(method, head) -> (N,H,W), none below 0: the maps of the class that each head answers."""
    net, d, maps = task.net, task.images, {}
    x = net.inputs(d.images)
    with Bar(total=len(methods) * len(net.heads) * len(d), unit=" maps", disable=None) as bar:
        for method in methods:
            for head in net.heads:
                bar.set_postfix_str(f"{method}, {head}")
                if method in BASELINES:
                    maps[method, head] = BASELINES[method](d.images)
                    bar.update(len(d))
                    continue
                model, parts = net.head(head).model, []
                for start in range(0, len(d), BATCH):
                    part = slice(start, start + BATCH)
                    found = METHODS[method](model, x[part], target=d.labels[head][part], batch_size=BATCH)
                    parts.append(np.maximum(to_cpu(found.map), 0))
                    bar.update(len(parts[-1]))
                maps[method, head] = np.concatenate(parts)
    return maps


def judged(maps: Array, places: Mapping[str, Array], groups: Array | None = None) -> dict[str, Any]:
    """Of maps (N,H,W) the share whose highest pixel is on each of the places, name -> (N,H,W), with its interval and chance."""
    found = {}
    for name, place in places.items():
        score = evaluate.pointing_game(maps, place)
        found[name] = metrics.bootstrap(score.value, groups)._asdict() | {"chance": float(score.chance.mean())}
    return found


def results(task: Task, methods: Sequence[str], maps: Mapping[tuple[str, str], Array]) -> dict[str, Any]:
    """Everything that was found, ready for JSON: by method, head, and the head whose place it is."""
    d = task.images
    places = {head: d.masks[name] for head, name in task.places.items() if name is not None}
    found = {method: {head: judged(maps[method, head], places, d.groups) for head in task.places} for method in methods}
    return {"images": len(d), "places": task.places, "methods": found}


def table(found: Mapping[str, Any]) -> str:
    """A line a method: of the maps of each head, the share that points at its own place, and at those of others."""
    first = next(iter(found["methods"].values()))
    columns = [(head, place) for head, of_places in first.items() for place in of_places]
    titles = [f"{literal(head)}: on its place" if head == place else f"on that of {literal(place)}" for head, place in columns]
    rows = [["highest pixel", *titles]]
    for method, of_heads in found["methods"].items():
        rows.append([method, *(percent(of_heads[head][place]) for head, place in columns)])
    rows.append(["chance", *(f"{first[head][place]['chance']:.1%}" for head, place in columns)])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def percent(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"


# ---- the figure


def draw_evidence(
    path: pathlib.Path, task: Task, maps: Mapping[tuple[str, str], Array], methods: Sequence[str], title: str = ""
) -> None:
    """A row an image: it, and for each method the maps of the heads side by side. Places are outlined: the head's own solid."""
    d, heads = task.images, list(task.places)
    N = min(ROWS, len(d))
    H, W = d.images.shape[2:]
    cell, gap = (1.5 * W / H, 1.5), 0.12
    columns = 1 + len(methods) * len(heads)
    fig = figure.new(columns * cell[0] + 1.2, N * (cell[1] + 0.3) + 1.3, w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    ratios = [1.0]
    for _ in methods:
        ratios += [gap, *[1.0] * len(heads)]
    cells = fig.subplots(N, len(ratios), width_ratios=ratios, squeeze=False)
    for ax in cells.flat:
        ax.set_axis_off()
    images = task.net.contract.shown(d.images[:N])
    for n, row in enumerate(cells):
        draw(row[0], images[n])
        outline(row[0], d, task.places, n)
        said = [f"{head}: {d.classes[head][d.labels[head][n]]}" for head in heads]
        row[0].set_title("\n".join(figure.name(text, 24) for text in said), fontsize=8.5, loc="left", pad=3)
        for m, method in enumerate(methods):
            for h, head in enumerate(heads):
                ax = row[2 + m * (len(heads) + 1) + h]
                values = maps[method, head][n : n + 1]
                draw(ax, images[n], values[0], color_scale(values))
                outline(ax, d, task.places, n, head)
                if n == 0:
                    name = f"{method}\n" if h == 0 else "\n"
                    ax.set_title(f"{name}{figure.name(head, 18)}", fontsize=8.5, loc="left", pad=3)
    text = title or f"One net, {len(heads)} answers: the evidence for each, by its own maps"
    fig.suptitle(f"{text}\n(solid: the place of the head that is asked; dotted: that of another; a scale for each map)",
                 fontsize=10)  # fmt: skip
    figure.save(fig, path)


def outline(ax: Any, d: Dataset, places: Mapping[str, str | None], n: int, head: str = "") -> None:
    """Thin lines around the places in image n: dotted where they are not those of the head that is asked."""
    for other, name in places.items():
        if name is not None and d.masks[name][n].any():
            color, style = ("white", "-") if not head else ("black", "-" if other == head else ":")
            ax.contour(d.masks[name][n], [0.5], colors=color, linewidths=0.9, linestyles=style)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", choices=PLANS, default="lesions")
    p.add_argument("--root", help="the folder that holds HAM10000; by default data")
    names = ", ".join((*METHODS, *BASELINES))
    p.add_argument("--methods", nargs="+", choices=[*METHODS, *BASELINES], metavar="NAME",
                   help=f"only these, out of {names}; by default all but {' and '.join(SLOW)}, which take minutes")  # fmt: skip
    p.add_argument("--size", type=int, help="pixels: generated images are SIZE high and wide, those of HAM10000 SIZE high")
    p.add_argument("--images", type=int, help="that the methods are asked about")
    p.add_argument("--train", type=int, help="generated images to train on")
    p.add_argument("--epochs", type=int)
    common.add_device(p)
    p.add_argument("--out", help="the folder of this run; by default runs/evidence, with -ham10000 behind it")
    return p


if __name__ == "__main__":
    guard.script(main)
