"""What a trained net says of images, on a page for each: its answer, what speaks for it, and what that is worth.

    python examples/report.py --run runs/lesions-resnet8 mole.jpg --target malignant

asks the net of a training by `examples/train.py` about your files, and writes into runs/lesions-resnet8/report

    mole.html   the image, the probabilities, the decision at the operating point and how often that is right; three maps of
                what speaks for and against the suspicious class; what the net says without what speaks for it, with nothing
                else, and to a blank image; what it is worth, what the maps do not show, what the page must not be used for
    index.html  where there are several files: all of them, the most suspicious first

A page is one file of less than 1 MB that loads nothing, and prints. The suspicious class is that of the run's operating
point, or --target. The maps are of three methods that did well where the truth is known, see `examples/ground_truth.py`: LRP
covers the evidence best, Grad-CAM is lost when the net's weights are shuffled, and RISE, which changes the image and looks at
the answer, leaves dark what the net ignores. A file that cannot be read is named and skipped; the exit code then is 1.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import hashlib
import json
import math
import pathlib
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import common
import numpy as np
import train as training

from minidl import Tensor, cost, data, explain, no_grad, ops
from minidl.arguments import COLOURS, count, number, numbers
from minidl.array import Array, array_module, check_device, to_cpu
from minidl.bar import Bar
from minidl.data.reading import as_held
from minidl.flow.relevance import NoRuleError
from minidl.inference.evaluation import Answering
from minidl.io import files
from minidl.nn import Module
from minidl.train import Contract, Settings, TrainedNet, load_run
from minidl.train.decision import decide
from minidl.train.evaluation import check_settled
from minidl.view import report
from minidl.view.names import literal

EVIDENCE = 0.1  # the share of the image that is taken away, or kept
WORK = 1e11  # multiply-adds that RISE may take: some seconds on two cores
SAMPLES = 100, 1000  # of RISE, at least and at most
Change = tuple[str, str, Array]  # a title, what was done, and x (1,C,H,W)
OUTPUT = "margin"  # the score of the class less that of its strongest rival: what is above 0 speaks for, below 0 against


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`; 1 also where a file was skipped."""
    args = parser().parse_args(arguments)
    written: list[pathlib.Path] = []
    skipped: list[tuple[str, str]] = []
    code = guard.guarded(lambda: run(args, written, skipped), lambda: f"Stopped; pages written: {len(written)}.")
    return code or int(bool(skipped))


def run(args: argparse.Namespace, written: list[pathlib.Path], skipped: list[tuple[str, str]]) -> None:
    check_device(args.device)
    path = common.finished(pathlib.Path(args.run))
    folder, path = (path, path / "model.safetensors") if path.is_dir() else (path.parent, path)
    net = load_run(path, training.MODELS)
    check_settled(folder, net.contract, common.rows_of(folder))
    asked = Asked.of(TrainedNet(net.model.to(args.device), net.contract), args.target, args.samples)
    about, out = about_net(asked, path), pathlib.Path(args.out) if args.out else folder / "report"
    names, cases, start = page_names(args.files), list[tuple[str, report.Case]](), time.perf_counter()
    if out.is_dir():
        files.remove_leftovers(out, [*names, "index.html"])
    with Bar(total=len(names) * asked.samples, unit=" masks", disable=None) as bar:
        for number, (file, name) in enumerate(zip(args.files, names, strict=True)):
            before = number * asked.samples
            bar.set_postfix_str(literal(pathlib.Path(file).name))
            try:
                image = read(asked.net.contract, file)
            except (OSError, TypeError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error).removeprefix(file).lstrip(": ")
                bar.write(f"skipped {literal(file, 200)}: {literal(why, 300)}", file=sys.stderr)
                short = pathlib.Path(file).name  # a page that is passed on tells nothing about a disk
                skipped.append((short, why.replace(file, short)))
            else:
                case = ask(asked, image, lambda done, _, before=before: bar.update(before + done - bar.n))
                out.mkdir(parents=True, exist_ok=True)
                files.write(out / name, report.page(about, case, "index.html" if len(names) > 1 else None))
                cases.append((name, case))
                written.append(out / name)
            bar.update(before + asked.samples - bar.n)
    if not cases:
        return
    seconds = (time.perf_counter() - start) / len(cases)
    if len(names) > 1:
        files.write(out / "index.html", report.index(about, cases, skipped))
    told = f"{out / 'index.html'} lists {len(cases)} page{'s' * (len(cases) != 1)}" if len(names) > 1 else f"{written[0]}"
    print(f"{told}, {seconds:.1f} s a page")


def page_names(paths: list[str]) -> list[str]:
    """A name for the page of each file, all different, also where letters of both sizes are the same, and none the index's."""
    taken, names = {"index"}, []
    for path in paths:
        stem = re.sub(r"[^\w.-]+", "-", pathlib.Path(path).stem, flags=re.ASCII).strip("-.")[:80] or "image"
        name = next(n for n in (stem, *(f"{stem}-{k}" for k in range(2, len(paths) + 3))) if n.lower() not in taken)
        taken.add(name.lower())
        names.append(f"{name}.html")
    return names


# ---- the net


@dataclass(frozen=True, eq=False)
class Asked:
    """A net, and what is asked of it.

    model: the net, with a logit for each of the `classes`, which are two for a net with one logit. target: the suspicious
    class, None where nobody said. samples: of RISE.
    """

    net: TrainedNet
    model: Module
    classes: tuple[str, ...]
    target: int | None
    samples: int

    @staticmethod
    def of(net: TrainedNet, target: str | None, samples: int | None) -> Asked:
        contract = net.contract
        one = len(net.classes) == 1
        classes = (f"not {net.classes[0]}", net.classes[0]) if one else net.classes
        model = Answering(net.model).eval() if one else net.model
        wanted = common.number_of(target, classes)
        if wanted is None:
            wanted = None if contract.decision is None else classes.index(contract.decision.target)
        if samples is None:
            work = cost(net.model, (contract.channels, contract.height, contract.width)).multiply_adds
            samples = int(np.clip(WORK / max(1, work), *SAMPLES))
        return Asked(net, model, classes, wanted, count(samples, "--samples"))

    def decide(self, p: Array) -> Array:
        """The classes (N,) that the contract's rule makes of probabilities (N,K)."""
        return decide(p, self.classes, self.net.contract.decision)


def about_net(asked: Asked, path: pathlib.Path) -> report.Net:
    """What is known of the net in the file `path`, and of its training from the files beside it."""
    contract, rule = asked.net.contract, asked.net.contract.decision
    facts = {"Net": f"{contract.architecture}, {sum(p.size for p in asked.net.model.parameters()):,} parameters"}
    if (path.parent / "settings.json").exists():
        settings = Settings.of_run(path.parent)
        facts["Trained on"] = settings.data
        if settings.data in ("folder", "csv", "medmnist"):
            facts["Trained on"] += f", {pathlib.Path(settings.root).name}"
    if contract.validation:
        facts["Probabilities"] = (
            f"calibrated on {contract.validation:,} validation images, temperature {contract.temperature:.3g}"
        )
    facts["Trained until"] = time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime)) + ", as its file says"
    facts["SHA-256 of the net"] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    point = None
    if rule is not None:
        numbers = rule.threshold, rule.sensitivity, rule.specificity, rule.images
        point = report.Point(asked.classes.index(rule.target), *numbers)
    size = contract.height, contract.width
    test, mirrored = test_of(path.parent, point is not None), contract.test_flips != "none"
    return report.Net(asked.classes, size, contract.channels, asked.target, point, test, facts, mirrored)


def test_of(folder: pathlib.Path, decides: bool) -> report.Test | None:
    """What the test of the run found, at the operating point where the net `decides`; None where there was none.

    Raises ValueError for a file that is damaged.
    """
    path = folder / "test.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names = ["auc", "accuracy", "majority_accuracy"]
        scores = {name: score_of(found, found.get("intervals", {}), name) for name in names if found.get(name) is not None}
        if decides and found.get("operating"):
            found_there, ends = found["operating"], found["intervals"]["operating"]
            names = [name for name in ("sensitivity", "specificity") if found_there[name] is not None]
            scores |= {name: score_of(found_there, ends, name) for name in names}
        return report.Test(count(found["images"], "images"), found.get("groups"), scores)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def score_of(scores: dict[str, Any], intervals: dict[str, Any], name: str) -> report.Score:
    ends = intervals.get(name)
    return report.Score(number(scores[name], name, "[0, 1]"), None if ends is None else tuple(numbers(ends, name, "[0, 1]", 2)))


# ---- a file


@dataclass(frozen=True, eq=False)
class Picture:
    """A file: its name and SHA-256, the size (H,W) of its image, that for the eye (C,h,w), and as the net takes it (C,H,W)."""

    name: str
    digest: str
    size: tuple[int, int]
    shown: Array
    image: Array


def read(contract: Contract, file: str) -> Picture:
    """Raises OSError, TypeError or ValueError where the net cannot take the file."""
    digest = hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()
    image = contract.image(file)
    channels = contract.channels if contract.channels in COLOURS else None
    pixels = data.read_image(file, channels, contract.page, contract.window)  # the same once more, at its own size
    h, w = pixels.shape[:2]
    scale = min(1.0, report.SIDE / max(h, w))
    own = as_held(pixels, (max(1, round(scale * h)), max(1, round(scale * w))))
    if image.dtype != own.dtype:
        own = own.astype(image.dtype) / np.float32(255)  # 8 bits among more
    return Picture(pathlib.Path(file).name, digest, (h, w), contract.shown(own), image)


# ---- the questions


def ask(asked: Asked, picture: Picture, progress: Callable[[int, int], None]) -> report.Case:
    """All that a page says of one image; progress(done, total) of the samples."""
    net, contract = asked.net, asked.net.contract
    x = net.inputs(picture.image[None])
    p = net.probabilities(x)  # of one logit both answers
    decision = int(asked.decide(p)[0])
    target = int(p[0].argmax()) if asked.target is None else asked.target
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*the map is 0 everywhere")  # the page says so
        maps = maps_of(asked, x, target, progress)
    changed = changes(x, maps[-1].values)
    answers = net.probabilities(array_module(x).concatenate([one for _, _, one in changed]))
    questions = [
        report.Question(title, words, contract.to_image(to_cpu(one)[0]), answer)
        for (title, words, one), answer in zip(changed, answers, strict=True)
    ]
    return report.Case(
        picture.name,
        picture.digest,
        picture.size,
        picture.shown,
        contract.shown(picture.image),
        p[0],
        decision,
        target,
        maps,
        questions,
        notes_on(asked, changed, answers, target),
    )


def notes_on(asked: Asked, changed: list[Change], answers: Array, target: int) -> list[str]:
    """What has to be known to read the answers (n,K) to the changed images."""
    name = literal(asked.classes[target])
    notes = []
    if target in (int(asked.decide(answers[-1:])[0]), int(answers[-1].argmax())):
        notes.append(
            f"This net leans towards ‘{name}’ even for a blank image, so what it says of images that are painted over tells "
            "little."
        )
    if len(changed) == 1:
        notes.append(f"RISE finds no place that speaks for ‘{name}’, so nothing can be taken away.")
    return notes


def maps_of(asked: Asked, x: Array, target: int, progress: Callable[[int, int], None]) -> list[report.Map]:
    """Of the image x (1,C,H,W); that of RISE last."""
    model, how = asked.model, {"target": target, "output": OUTPUT}
    try:
        fine = explain.lrp(model, x, reduce="sum", **how)
        words = "It shares the score out, layer by layer, down to the pixels. It is the finest of the three."
    except NoRuleError:  # such as a local response normalisation
        fine = explain.integrated_gradients(model, x, reduce="sum", **how)
        words = (
            "It adds up, pixel by pixel, what the way from a blank image to this one changes. LRP knows no rule for this net."
        )
    cam = explain.grad_cam(model, x, **how)
    h, w = cam.raw.shape[2:]
    with no_grad():
        signed = ops.resize(Tensor(cam.raw), x.shape[2:]).data[:, 0]  # both signs, where its map has what is above 0
    seen = explain.rise(model, x, samples=asked.samples, progress=progress, **how)
    return [
        report.Map(fine.name, to_cpu(fine.map)[0], words),
        report.Map(cam.name, to_cpu(signed)[0], f"It weighs what the last layers see, in {w} × {h} cells."),
        report.Map(
            seen.name,
            to_cpu(seen.map)[0],
            f"It covers random parts of the image, {asked.samples:,} times, and looks at the answer. Its cells are a seventh "
            "of the image wide and high.",
        ),
    ]


def changes(x: Array, values: Array) -> list[Change]:
    """What is asked besides, the blank image last. values (H,W): the map whose evidence that is.

    0 is the mean colour of the training images, to which RISE turns what it covers.
    """
    pixels = max(1, round(EVIDENCE * values.size))
    order = values.ravel().argsort(kind="stable")[::-1]
    evidence = order[: min(pixels, int((values > 0).sum()))]
    found = [("A blank image", "The mean colour of the training images, and nothing else.", 0 * x)]
    if not len(evidence):
        return found
    part = f"{100 * len(evidence) / values.size:.2g}% of the image"
    others = np.abs(values.ravel())
    others[evidence] = np.inf
    elsewhere = others.argsort(kind="stable")[: len(evidence)]
    m, least = soft(evidence, values.shape), soft(elsewhere, values.shape)
    most = f"The {part} that RISE colours most strongly for it, painted over in the mean colour."
    return [
        ("Without what speaks for it", most, delete(x, m)),
        ("That alone", "The same places, and all else painted over.", delete(x, 1 - m)),
        ("Without something else", f"For comparison: {part} painted over where RISE is palest.", delete(x, least)),
        *found,
    ]


def delete(x: Array, map: Array) -> Array:
    return explain.delete(x, map[None], "constant", constant=0.0)


def soft(places: Array, shape: tuple[int, int]) -> Array:
    """A mask (H,W), 1 at these places of the flat image and 0 elsewhere, with soft edges, so that they are no evidence."""
    mask = np.zeros(shape, np.float32)
    mask.ravel()[places] = 1
    sigma = max(1.0, max(shape) / 64)
    radius = tuple(min(math.ceil(3 * sigma), side - 1) for side in shape)
    with no_grad():
        return ops.gaussian_blur(Tensor(mask[None, None]), sigma, radius).data[0, 0]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="+", metavar="FILE", help="images, as the net was trained on them")
    p.add_argument("--run", default="runs/lesions-resnet8", metavar="FOLDER",
                   help="that of a training by examples/train.py; the default one is trained if need be")  # fmt: skip
    p.add_argument("--target", metavar="CLASS", help="the name or the number of the suspicious class; by default that of the "
                   "run's operating point, or else for each image the one that the net predicts")  # fmt: skip
    p.add_argument("--samples", type=int, help="of RISE, by default as many as take some seconds, 100 to 1,000")
    p.add_argument("--out", metavar="FOLDER", help="where the pages go; by default the folder report in that of the run")
    common.add_device(p)
    return p


if __name__ == "__main__":
    guard.script(main)
