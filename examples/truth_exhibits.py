"""Trained nets, and images of which it is known what these nets see in them: what `ground_truth.py` tries the methods on.

Two kinds of nets learn generated lesions. M0 sees an ink mark in half of all images; M1 in 95% of malignant and 5% of benign
ones, and learns that ink is malignant. A third kind learns HAM10000, whose truth is only what dermatologists outlined.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import common
import numpy as np
import train as training

import models
from minidl import data, inference, parallel, train
from minidl.array import Array, to_cpu
from minidl.bar import Bar
from minidl.data import Dataset
from minidl.nn import Module
from minidl.train import Settings, TrainedNet

MARKS = {"M0": (0.5, 0.5), "M1": (0.05, 0.95)}  # how often benign and malignant images have one
CANDIDATES = 6  # for each image that is wanted, so many are drawn
TRAIN, TEST, TRUTH, MARKED = 0, 1, 1000, 2000  # the seeds of images


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    size: int  # of images, in pixels: their height
    images: int  # that the methods are tried on; half as many with marks, which two nets see
    nets: int  # of each kind, from different initial weights
    epochs: int
    lr: float = 0.05  # the highest
    train: int = 8000  # generated images
    channels: int = 3
    confident: float = 0.9  # a net that is less sure is not asked
    root: str = "data"  # the folder of HAM10000
    device: str = "cpu"  # where nets are trained and looked at

    def place(self) -> dict[str, Any]:
        """The settings of a training that say where it is done: on a GPU, each step as one CUDA graph."""
        return {"device": self.device, "cuda_graph": self.device == "gpu"}


@dataclass(frozen=True, eq=False)
class Exhibit:
    """Images for one net, which has the same right answer to all of them and good reasons for it."""

    name: str
    group: str  # exhibits of the same group differ in nothing but the net
    model: Module
    x: Array  # (N,C,H,W), as the net takes them, and where it is
    images: Array  # (N,C,H,W) uint8
    numbers: Array  # (N,) which images these are
    target: Array  # (N,) the class that the net answers
    masks: dict[str, Array]  # (N,H,W) each
    background: Array  # (B,C,H,W), other images, as x


@dataclass(frozen=True, eq=False)
class Net:
    trained: TrainedNet
    scores: dict[str, float]  # on the test images

    @property
    def model(self) -> Module:
        return self.trained.model

    def inputs(self, images: Array) -> Array:
        """Images (N,C,H,W) uint8 as the net takes them, the same bits wherever it is."""
        return self.trained.inputs(images)

    def probability(self, d: Dataset, target: Array) -> Array:
        """(N,) of the class `target` (N,)"""
        logits = to_cpu(inference.predict(self.model, self.inputs(d.images), 100))
        p = np.exp(logits - logits.max(1, keepdims=True))
        chosen: Array = p[np.arange(len(p)), target] / p.sum(1)
        return chosen


# ---- generated lesions


def of_lesions(plan: Plan, out: pathlib.Path) -> tuple[dict[str, Net], list[Exhibit]]:
    """For each initial weight an M0 before evidence and lesions, and an M0 and an M1 before marks."""
    nets, exhibits = {}, []
    wanted = [(kind, number) for number in range(plan.nets) for kind in MARKS]
    parallel.world().map(lambda i: lesion_net(plan, out, *wanted[i]).scores, len(wanted))  # each by one rank; all load them now
    for number in range(plan.nets):
        m0, m1 = (nets.setdefault(f"{kind}-{number}", lesion_net(plan, out, kind, number)) for kind in MARKS)
        exhibits.append(before_evidence(plan, m0, number))
        exhibits += before_marks(plan, m0, m1, number)
    return nets, exhibits


def lesion_net(plan: Plan, out: pathlib.Path, kind: str, number: int) -> Net:
    settings = Settings(plan.epochs, batch_size=64, lr=plan.lr, crop=max(2, plan.size // 16), flip="both", seed=number,
                        model="resnet8", data=f"lesions {kind}, {plan.channels} channels", size=plan.size, limit=plan.train,
                        **plan.place())  # fmt: skip
    train_set = partial(data.lesions, plan.train, plan.size, plan.channels, seed=TRAIN, mark=MARKS[kind])
    test = partial(data.lesions, 1000, plan.size, plan.channels, seed=TEST, mark=MARKS["M0"])
    return trained(out / f"{kind}-{number}", settings, train_set, test)


def before_evidence(plan: Plan, net: Net, number: int) -> Exhibit:
    """Images to which the answer is right and sure, for the evidence and for nothing else:

    it turns round when malignancy alone is changed; without the lesion it is no longer sure; and without the freckle, or
    without the mark where there is one, it stays.
    """
    draw = partial(data.lesions, CANDIDATES * plan.images, plan.size, plan.channels, seed=TRUTH, mark=MARKS["M0"])
    d = draw()
    p, other, no_lesion, no_freckle, no_mark = (
        net.probability(changed, d.labels)
        for changed in (d, draw(flip=True), *(draw(without=[part]) for part in ("lesion", "distractor", "mark")))
    )
    admitted = (p > plan.confident) & (other < 0.5) & (no_lesion < plan.confident) & (no_freckle > 0.5) & (no_mark > 0.5)
    return exhibit(plan, f"evidence M0-{number}", f"evidence {number}", net, d, admitted, ("evidence", "lesion"))


def before_marks(plan: Plan, m0: Net, m1: Net, number: int) -> list[Exhibit]:
    """Malignant images with a mark that both nets call malignant and are sure, M0 for the lesion, M1 for the mark:

    without the mark M0's answer stays and M1's turns round, and were the lesion benign M0's would turn round.
    """
    plan = replace(plan, images=-(-plan.images // 2))
    draw = partial(data.lesions, 4 * CANDIDATES * plan.images, plan.size, plan.channels, seed=MARKED, mark=(1, 1))
    d, no_mark, other = draw(), draw(without=["mark"]), draw(flip=True)
    admitted = d.labels == 1
    for net in m0, m1:
        admitted &= net.probability(d, d.labels) > plan.confident
    admitted &= (m0.probability(no_mark, d.labels) > 0.5) & (m0.probability(other, d.labels) < 0.5)
    admitted &= m1.probability(no_mark, d.labels) < 0.5
    return [exhibit(plan, f"mark {kind}-{number}", f"mark {number}", net, d, admitted, ("mark", "lesion"))
            for kind, net in (("M0", m0), ("M1", m1))]  # fmt: skip


def exhibit(plan: Plan, name: str, group: str, net: Net, d: Dataset, admitted: Array, masks: tuple[str, ...]) -> Exhibit:
    """Images of `d` out of those that are `admitted` (N,). Raises ValueError where none is."""
    if not admitted.any():
        raise ValueError(f"{name}: of {len(d)} images, none passes the test of what the net relies on; try more --epochs")
    which = evenly(admitted, d.labels, plan.images)
    few = d.take(which)
    parallel.world().say(
        f"{name}: {admitted.sum()} of {len(d)} images pass, {len(which)} are taken, {few.labels.mean():.0%} malignant"
    )
    background = net.inputs(d.take(np.flatnonzero(~np.isin(np.arange(len(d)), which))[:50]).images)
    return Exhibit(name, group, net.model, net.inputs(few.images), few.images, which, few.labels,
                   {m: few.masks[m] for m in masks}, background)  # fmt: skip


# ---- HAM10000


def of_ham10000(plan: Plan, out: pathlib.Path) -> tuple[dict[str, Net], list[Exhibit]]:
    """Nets that tell benign from malignant, before images that they are right and sure about: the truth is the outline."""

    def ham10000(is_train: bool) -> Dataset:
        with Bar(desc=f"HAM10000, {'training' if is_train else 'test'} images", unit="", leave=False) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return data.ham10000(plan.root, is_train, (plan.size, plan.size * 4 // 3), progress=progress)

    test = ham10000(False)
    nets, exhibits = {}, []

    def net_of(number: int) -> Net:
        settings = Settings(plan.epochs, batch_size=64, lr=plan.lr, crop=max(2, plan.size // 12), flip="both", seed=number,
                            model="resnet20", data="HAM10000, balanced", size=plan.size, **plan.place())  # fmt: skip
        return trained(out / f"H-{number}", settings, lambda: balanced(ham10000(True)), lambda: test)

    parallel.world().map(lambda number: net_of(number).scores, plan.nets)  # each by one rank; all load them now
    for number in range(plan.nets):
        net = nets[f"H-{number}"] = net_of(number)
        few = test.take(np.random.default_rng(TRUTH).permutation(len(test))[: 2 * CANDIDATES * plan.images])
        admitted = net.probability(few, few.labels) > plan.confident
        exhibits.append(exhibit(plan, f"outline H-{number}", f"outline {number}", net, few, admitted, ("lesion",)))
    return nets, exhibits


def balanced(d: Dataset, seed: int = 0) -> Dataset:
    """As many images of each class as there are of the most frequent one: those of the others several times."""
    rng = np.random.default_rng(seed)
    most = np.bincount(d.labels).max()
    picks = [np.resize(rng.permutation(np.flatnonzero(d.labels == k)), most) for k in range(len(d.classes))]
    return d.take(np.concatenate(picks))


def evenly(admitted: Array, labels: Array, count: int) -> Array:
    """The first `count` of those `admitted` (N,), as many of each class as of the others while there are some."""
    which = np.flatnonzero(admitted)
    place = np.empty(len(which), np.int64)  # among those of its class
    for k in np.unique(labels[which]):
        place[labels[which] == k] = np.arange((labels[which] == k).sum())
    return np.sort(which[np.argsort(place, kind="stable")[:count]])


# ---- training

SCORES = ("loss", "accuracy", "majority_accuracy", "balanced_accuracy", "auc")


def trained(out: pathlib.Path, settings: Settings, train_set: Callable[[], Dataset], test_set: Callable[[], Dataset]) -> Net:
    """The net that was trained in the folder `out`; where that is not finished it is done, or gone on with."""
    begun = (out / "checkpoint.safetensors").exists()
    if begun:
        settings.continues(Settings.of_run(out))
    rows = common.rows_of(out) if begun else []
    if not train.is_finished(rows, settings) or not (out / "test.json").exists():
        print(f"{out}: {settings.model} learns {settings.data}")
        first = train_set()
        C = first.images.shape[1]
        model = getattr(models, settings.model)(num_classes=len(first.classes), in_channels=C, seed=settings.seed)
        train.fit(model, first, settings, out, resume=begun, world=parallel.ALONE)
        train.evaluate_run(out, training.MODELS, test_set(), settings.device)
    net = train.load_run(out, training.MODELS)
    net.model.to(settings.device)
    found = json.loads((out / "test.json").read_text(encoding="utf-8"))
    scores = {
        name: found[name] for name in ("loss", "accuracy", "majority_accuracy", "balanced_accuracy", "auc") if name in found
    }
    return Net(net, scores)
