"""Do the methods show what a net looks at? On images of which that is known.

    python examples/ground_truth.py

draws lesions whose every pixel is accounted for, trains small nets on them, asks each method what the nets look at, and
measures how much of the answer is true, in a few minutes on two cores. Then look into runs/ground_truth:

    scores.png      every method's scores with 95% intervals, beside those of chance and of maps that know nothing of the net
    maps.png        what the methods show of one image that two nets call malignant for different reasons
    results.json    all numbers
    scores/, M0-0/  what was measured, and the nets: the same command goes on from there

What the truth is, `truth_exhibits.py` tells: which images are shown to which nets, after it is made sure what these nets
rely on. --full does the same with 3 nets of each kind on 200 larger images, in some hours, or with --device gpu in some
minutes, or shared by several processes, `mpiexec -n 4 python examples/ground_truth.py --full`, with the same bits. With the
images of HAM10000, as they are published:

    python examples/ground_truth.py --data ham10000 --root FOLDER
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import hashlib
import pathlib
from collections.abc import Callable
from dataclasses import fields, replace
from inspect import signature
from typing import Any

import common
import numpy as np
import truth_report
from truth_exhibits import Exhibit, Plan, of_ham10000, of_lesions

from minidl import evaluate, explain, parallel, weights
from minidl.array import Array, check_device, device_of, to_cpu
from minidl.bar import Bar
from minidl.evaluate import baselines
from minidl.explain import Explanation
from minidl.inference.scores import Target
from minidl.io import files, lock
from minidl.nn import Module

# Each with its settings, if not the default ones. Of gradients the sizes count, of all other maps what is positive.
METHODS: dict[str, tuple[Callable[..., Explanation], dict[str, Any]]] = {
    "gradient": (explain.saliency, {}),
    "gradient of p": (explain.saliency, {"output": "prob"}),
    "gradient x input": (explain.grad_times_input, {"reduce": "sumabs"}),
    "SmoothGrad": (explain.smoothgrad, {}),
    "VarGrad": (explain.vargrad, {}),
    "integrated gradients": (explain.integrated_gradients, {"reduce": "sumabs"}),
    "expected gradients": (explain.expected_gradients, {"reduce": "sumabs"}),
    "guided backprop": (explain.guided_backprop, {}),
    "deconvnet": (explain.deconvnet, {}),
    "Grad-CAM": (explain.grad_cam, {}),
    "Grad-CAM, layer 2": (explain.grad_cam, {"layer": "layer2"}),
    "Grad-CAM++": (explain.grad_cam_plus_plus, {}),
    "HiResCAM": (explain.hires_cam, {}),
    "LayerCAM, layer 2": (explain.layer_cam, {"layer": "layer2"}),
    "Score-CAM": (explain.score_cam, {}),
    "guided Grad-CAM": (explain.guided_grad_cam, {}),
    "LRP": (explain.lrp, {}),
    "LRP, z+": (explain.lrp, {"rule": "zplus"}),
    "occlusion": (explain.occlusion, {}),
    "RISE": (explain.rise, {}),
    "KernelSHAP": (explain.kernel_shap, {}),
    "LIME": (explain.lime, {}),
    "meaningful mask": (explain.meaningful_perturbation, {}),
    "extremal mask": (explain.extremal_perturbation, {"areas": (0.02, 0.05), "iterations": 400}),
}
QUICKER: dict[str, dict[str, Any]] = {  # settings of the slow ones, without --full
    "RISE": {"samples": 500},
    "KernelSHAP": {"samples": 300},
    "LIME": {"samples": 300},
    "meaningful mask": {"iterations": 150},
    "extremal mask": {"areas": (0.05, 0.1), "iterations": 300},
}
BASELINES: dict[str, Callable[[Array], Array]] = {
    "random": baselines.random,
    "centre": baselines.centre,
    "Sobel": baselines.sobel,
    "intensity": baselines.intensity,
}
PLANS = {  # (--data, --full)
    ("lesions", False): Plan(size=32, images=32, nets=1, epochs=8),
    ("lesions", True): Plan(size=64, images=200, nets=3, epochs=18, lr=0.02),
    ("ham10000", False): Plan(size=72, images=64, nets=1, epochs=15),
    ("ham10000", True): Plan(size=72, images=200, nets=1, epochs=15),
}
TOLERANCE = 0.25  # of the pointing game, in radii
FEW = 8  # images for the checks by randomisation and of sums
SUMS = ("gradient x input", "integrated gradients", "KernelSHAP")  # they promise to add up, from the mean colour on
BATCH = {"cpu": 32, "gpu": 256}  # images at a time; a GPU takes as long for a few


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    args = parser().parse_args(arguments)
    out = pathlib.Path(args.out or f"runs/ground_truth{'-ham10000' if args.data == 'ham10000' else ''}{'-full' * args.full}")

    def locked() -> None:
        world = parallel.world()
        with world.block(lock.hold, out):
            world.first(files.remove_leftovers, out, ("results.json", "scores.png", "maps.png"))
            run(args, out)

    return guard.guarded(locked, lambda: "Stopped. The same command goes on from here.")


def run(args: argparse.Namespace, out: pathlib.Path) -> None:
    asked = {f.name: getattr(args, f.name) for f in fields(Plan) if getattr(args, f.name) is not None}
    plan = replace(PLANS[args.data, args.full], **asked)
    check_device(plan.device)
    world = parallel.world()
    if world.size > 1 and plan.device != "cpu":
        raise ValueError(f"--device: {world.size} ranks compute on CPUs alone, got {plan.device}; start one process for a GPU")
    nets, exhibits = (of_lesions if args.data == "lesions" else of_ham10000)(plan, out)
    for name, net in nets.items():
        world.say(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in net.scores.items()))
    methods = args.methods or [*METHODS, *BASELINES]
    asked_of = [(method, e) for method in methods for e in exhibits]
    with Bar(total=len(methods) * sum(len(e.x) for e in exhibits), unit=" maps", disable=None) as bar:

        def scores_of(i: int) -> dict[str, Array]:
            method, e = asked_of[i]
            bar.set_postfix_str(f"{method}, {e.name}")
            return at_hand(out / "scores", e, method, settings_of(method, args.full), bar)

        found = world.map(scores_of, len(asked_of))
    measured = {(method, e.name): scores for (method, e), scores in zip(asked_of, found, strict=True)}
    shown = {which: scores.pop("shown") for which, scores in measured.items()}
    results = truth_report.results(plan, nets, exhibits, methods, measured)
    world.first(truth_report.write, out, results, exhibits, shown)


def settings_of(method: str, full: bool) -> dict[str, Any]:
    settings = METHODS[method][1] if method in METHODS else {}
    return settings if full else settings | QUICKER.get(method, {})


def at_hand(folder: pathlib.Path, e: Exhibit, method: str, settings: dict[str, Any], bar: Any) -> dict[str, Array]:
    """`measure`, or what it found the last time that everything was the same."""
    state = [to_cpu(a).tobytes() for a in (*e.model.state_dict().values(), e.x, e.target, e.background, *e.masks.values())]
    same = hashlib.sha256(b"".join(state) + repr((method, settings, TOLERANCE)).encode()).hexdigest()
    path = folder / f"{e.name}, {method}.safetensors".replace(" ", "_")
    if path.exists():
        scores, about = weights.load_arrays(path)
        if about.get("of") == same:
            bar.update(len(e.x))
            return scores
    scores = measure(e, method, settings, bar)
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(folder, [path.name])
    weights.save_arrays(path, scores, {"of": same})
    return scores


def measure(e: Exhibit, method: str, settings: dict[str, Any], bar: Any) -> dict[str, Array]:
    """The scores (N,) of a method's maps of the images, chance beside; "shown", some maps; of few images "ruins", "gap"."""
    maps = maps_of(e, method, settings, bar)
    scores = {"shown": maps[: truth_report.SHOWN].astype(np.float32)}
    for name, mask in e.masks.items():
        for measure_name, found in {
            "pointing": evaluate.pointing_game(maps, mask, TOLERANCE),
            "mass": evaluate.mass_in_mask(maps, mask),
            "iou": evaluate.iou(maps, mask),
        }.items():
            scores[f"{measure_name} {name}"], scores[f"chance of {measure_name} {name}"] = found.value, found.chance
    for curve in evaluate.deletion, evaluate.insertion:
        scores[curve.__name__] = curve(e.model, e.x, maps, e.target, batch_size=batch_size(e)).auc
    if not e.group.startswith("mark"):
        scores["ruins"] = ruins(e, method, settings)
        if method in SUMS:
            scores["gap"] = gap(e, method, settings)
    return scores


def maps_of(e: Exhibit, method: str, settings: dict[str, Any], bar: Any) -> Array:
    """(N,H,W), none below 0, on the CPU"""
    if method in BASELINES:
        bar.update(len(e.x))
        return BASELINES[method](e.x)
    parts, size = [], batch_size(e)
    for start in range(0, len(e.x), size):
        part = slice(start, start + size)
        parts.append(np.maximum(to_cpu(ask(e, e.model, method, settings, e.x[part], e.target[part]).map), 0))
        bar.update(len(parts[-1]))
    return np.concatenate(parts)


def ask(e: Exhibit, model: Module, method: str, settings: dict[str, Any], x: Array, target: Target) -> Explanation:
    function = METHODS[method][0]
    background = {"background": e.background} if "background" in signature(function).parameters else {}
    return function(model, x, target=target, batch_size=batch_size(e), **background, **settings)


def batch_size(e: Exhibit) -> int:
    return BATCH[device_of(e.x)]


def ruins(e: Exhibit, method: str, settings: dict[str, Any]) -> Array:
    """How much the maps of the first images stay the same as the net is destroyed; those of a baseline do not change."""
    if method in BASELINES:
        return np.ones(min(FEW, len(e.x)))

    def again(model: Module, x: Array, *, target: Target) -> Explanation:
        return ask(e, model, method, settings, x, target)

    return evaluate.randomization(e.model, e.x[:FEW], again, e.target[:FEW], every=4).alike


def gap(e: Exhibit, method: str, settings: dict[str, Any]) -> Array:
    """What the contributions lack or have too much, as a share of the change of the score that they are to add up to."""
    x, target = e.x[:FEW], e.target[:FEW]
    raw = ask(e, e.model, method, settings, x, target).raw
    missing = evaluate.completeness(e.model, x, raw, target=target)
    return np.abs(to_cpu(missing / (raw.sum((1, 2, 3)) - missing)))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    amount = p.add_mutually_exclusive_group()
    amount.add_argument("--quick", action="store_true", help="a few minutes; this is the default")
    amount.add_argument("--full", action="store_true", help="larger images, more of them, and more nets: some hours")
    p.add_argument("--data", choices=("lesions", "ham10000"), default="lesions")
    p.add_argument("--root", help="the folder that holds HAM10000; by default data")
    p.add_argument("--methods", nargs="+", choices=[*METHODS, *BASELINES], metavar="NAME", help="only these, by name")
    p.add_argument("--size", type=int, help="pixels: generated images are SIZE high and wide, those of HAM10000 SIZE high")
    p.add_argument("--channels", type=int, choices=(1, 3, 4), help="of generated images: grey, colour, or near infrared too")
    p.add_argument("--images", type=int, help="that the methods are tried on")
    p.add_argument("--nets", type=int, help="of each kind, from different initial weights")
    p.add_argument("--train", type=int, help="generated images to train on")
    p.add_argument("--epochs", type=int)
    p.add_argument("--lr", type=float, help="the highest learning rate; generated images larger than 32 want less than 0.05")
    p.add_argument("--confident", type=float, help="only images to which the net gives its answer with this probability")
    common.add_device(p)
    p.add_argument("--out", help="the folder of this run; by default runs/ground_truth, with -ham10000 or -full behind it")
    return p


if __name__ == "__main__":
    guard.script(main)
