"""Ask a net what part of an image decided, in fourteen ways, and see why the gradient of a probability is the wrong question.

    python examples/saliency.py

takes the net of `examples/train.py` (and trains it first where it is not there) and its test images, and draws into
runs/saliency

    saturation.png  the gradient of the score S_c of the predicted class c, beside that of its probability p_c
    methods.png     the methods beside each other: images down, methods across

Where a net is sure, dp/dx vanishes, for any image: with z = log p_c / (1 - p_c), the log-odds,

    dp_c = p_c (dS_c - sum_k p_k dS_k) = p_c (1 - p_c) dz

and p (1 - p) is 1/4 for an undecided net, but 1/1000 for one that is 99.9% sure. The score has no such end. Your own image,
and your own net (weights as safetensors or as PyTorch writes them):

    python examples/saliency.py --image mole.jpg --target malignant
    python examples/saliency.py --image cat.jpg dog.jpg --model resnet50 --weights resnet50.pth

--target asks for another class than the predicted one: for what speaks for malignant in a cancer that the net missed. An
image of another number of channels than 1, 3 or 4 is an array (C,H,W) in a file .npy.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib
import sys

import common
import numpy as np

from minidl import explain, inference, view
from minidl.array import Array, to_cpu
from minidl.explain import Explanation
from minidl.flow.relevance import NoRuleError
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE
from minidl.view.maps import color_scale, draw

SHOWN = (0.55, 0.8, 0.95, 0.99, 0.999)  # saturation.png shows the images for which the net is about as sure as this


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    out = pathlib.Path(args.out)

    def run() -> None:
        loaded = common.load(args, count=200)
        out.mkdir(parents=True, exist_ok=True)
        target = common.number_of(args.target, loaded.classes)
        saturation(out / "saturation.png", loaded, target)
        print(f"{out / 'saturation.png'}: the gradients of score and probability")
        methods(out / "methods.png", loaded, args, target)
        print(f"{out / 'methods.png'}: the methods beside each other")

    return guard.guarded(run)


# ---- why not the gradient of the probability


def saturation(path: pathlib.Path, loaded: common.Loaded, target: int | None) -> None:
    """Maps of dS/dx and dp/dx for some images, and the size of both for all images, by how sure the net is.

    Of images that nobody has generated there may be few: then they are those in which the first one fades away.
    """
    images = loaded.images if loaded.labels is not None else faded(loaded.images[0], loaded.contract.mean)
    x, images = loaded.inputs(images), loaded.contract.shown(images)
    of_score, of_p = (explain.saliency(loaded.model, x, target, output).to("cpu") for output in ("logit", "prob"))
    sure = log_odds(to_cpu(inference.predict(loaded.model, x)), of_score.target)  # (N,)
    wanted = np.log(SHOWN) - np.log1p(-np.array(SHOWN))
    if sure.max() < wanted[1]:  # as of a class that the net does not see
        wanted = np.linspace(sure.min(), sure.max(), len(SHOWN))
    shown = sorted({int(np.abs(sure - z).argmin()) for z in wanted}, key=sure.__getitem__)

    fig = figure.new(13, 5.3, w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0)
    left, right = fig.subfigures(1, 2, width_ratios=(2, 1))
    cells = left.subplots(3, len(SHOWN))
    for ax in cells.flat:
        ax.set_axis_off()
    for ax, i in zip(cells[0], shown, strict=False):
        draw(ax, images[i])
        ax.set_title(
            f"{figure.name(loaded.classes[of_score.target[i]], 16)}\np {percent(sure[i])}", fontsize=9, loc="left", pad=4
        )
    for row, maps, name in (cells[1], of_score.map, "|∂ score / ∂ x|"), (cells[2], of_p.map, "|∂ probability / ∂ x|"):
        colors = color_scale(maps[shown])
        for ax, i in zip(row, shown, strict=False):
            shades = draw(ax, images[i], maps[i], colors)
        bar = left.colorbar(shades, ax=list(row), shrink=0.85, aspect=14, extend="max")
        bar.outline.set_visible(False)
        bar.set_label(name, color=GREY)

    ax = right.subplots()
    p = 1 / (1 + np.exp(-sure))
    for maps, color, name in (of_score.raw, BLUE, "∂ score / ∂ x"), (of_p.raw, ORANGE, "∂ probability / ∂ x"):
        length = np.sqrt(np.square(maps, dtype=np.float64).sum((1, 2, 3)))
        seen = length > 0  # the others do not fit onto a logarithmic scale
        ax.semilogy(sure[seen], length[seen], "o", ms=3, alpha=0.6, color=color, label=name)
    typical = np.median(length / (p * (1 - p)))
    z = np.linspace(min(0.0, sure.min()), sure.max(), 100)
    ax.semilogy(z, typical * np.exp(-abs(z)) / (1 + np.exp(-abs(z))) ** 2, color=GREY, lw=1.2, label="p (1 − p), to scale")
    what = "all images" if loaded.labels is not None else "as the image fades"
    ax.set_title(f"length of the gradient, {what}", fontsize=10, loc="left")
    asked = "the predicted class" if target is None else figure.name(loaded.classes[target], 20)
    ax.set_xlabel(f"how sure: log p / (1 − p) of {asked}", color=GREY)
    ax.grid(color="#e6e6e6", lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=GREY, labelsize=9)
    ax.legend(frameon=False, fontsize=9)
    fig.suptitle(
        "The surer the net, the less its probability can still change, whatever decided", fontsize=11, fontweight="bold"
    )
    figure.save(fig, path)


def faded(image: Array, mean: Array, steps: int = 40) -> Array:
    """An image (C,H,W) in so many degrees of contrast, from a tenth of its own to its own: (steps,C,H,W) of the same type."""
    grey = np.asarray(mean)[:, None, None] * (255 if image.dtype == np.uint8 else 1)
    contrast = np.linspace(0.1, 1, steps)[:, None, None, None]
    images = grey + contrast * (image - grey)
    return (np.clip(np.rint(images), 0, 255) if image.dtype == np.uint8 else images).astype(image.dtype)


def log_odds(logits: Array, target: Array) -> Array:
    """log p / (1 - p) = S_c - log sum_{k != c} exp(S_k) of the classes `target` (N,), float64."""
    logits, row = logits.astype(np.float64), np.arange(len(target))
    others = logits.copy()
    others[row, target] = -np.inf
    top = others.max(1)
    odds: Array = logits[row, target] - top - np.log(np.exp(others - top[:, None]).sum(1))
    return odds


def percent(log_odds: float) -> str:
    """A probability, as in "p = 97%": with two digits more near 0 and 1, and never rounded to one of them."""
    p = 1 / (1 + np.exp(-log_odds))
    if min(p, 1 - p) < 0.0001:
        return "> 99.99%" if p > 0.5 else "< 0.01%"
    return f"= {p:.2%}" if min(p, 1 - p) < 0.01 else f"= {p:.0%}"


# ---- the methods


def methods(path: pathlib.Path, loaded: common.Loaded, args: argparse.Namespace, target: int | None) -> None:
    """One row for each of the first images, one column for each method, all of the logit of the class asked for."""
    images = loaded.images[: args.count]
    model, x = loaded.model, loaded.inputs(images)
    rest = loaded.images[args.count :][:50]  # the background of expected gradients, where there are further images
    bar = {"target": target, "progress": sys.stderr.isatty()}
    found: dict[str, Explanation] = {
        "gradient": explain.saliency(model, x, target),
        "gradient\nx input": explain.grad_times_input(model, x, target),
        "guided\nbackprop": explain.guided_backprop(model, x, target),
        "deconvnet": explain.deconvnet(model, x, target),
        "SmoothGrad": explain.smoothgrad(model, x, **bar),
        "VarGrad": explain.vargrad(model, x, **bar),
        "integrated\ngradients": explain.integrated_gradients(model, x, **bar),
    }
    if len(rest):
        found["expected\ngradients"] = explain.expected_gradients(model, x, loaded.inputs(rest), **bar)
    try:
        found["LRP"] = explain.lrp(model, x, target)
    except NoRuleError as error:  # such as a local response normalisation
        print(f"methods.png comes without LRP: {error}")
    found |= {
        "Grad-CAM": explain.grad_cam(model, x, target, args.layer),
        "guided\nGrad-CAM": explain.guided_grad_cam(model, x, target, args.layer),
        "Score-CAM": explain.score_cam(model, x, layer=args.layer, **bar),
        "occlusion": explain.occlusion(model, x, **bar),
        "RISE": explain.rise(model, x, samples=args.masks, **bar),
    }
    classes = to_cpu(found["gradient"].target)
    sure = log_odds(to_cpu(inference.predict(model, x)), classes)
    captions = [f"{figure.name(loaded.classes[c], 16)}\np {percent(z)}" for c, z in zip(classes, sure, strict=True)]
    asked = "What decided?" if target is None else f"What speaks for {figure.name(loaded.classes[target])}?"
    title = f"{asked} {len(found)} answers"
    view.comparison(path, loaded.shown[: args.count], {name: e.map for name, e in found.items()}, captions, title)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(p)
    common.add_target(p)
    p.add_argument("--count", type=int, default=4, help="how many images methods.png shows")
    p.add_argument("--layer", help="of Grad-CAM; by default the last one with spatial extent")
    p.add_argument("--masks", type=int, default=2000, help="of RISE; fewer are faster, and noisier")
    p.add_argument("--out", default="runs/saliency", help="the folder for the images")
    return p


if __name__ == "__main__":
    guard.script(main)
