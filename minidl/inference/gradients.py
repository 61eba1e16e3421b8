"""The gradient of a score in the pixels: of one batch, of many images, and at many points near each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

from minidl.array import Array, array_module
from minidl.core import Tensor, walk
from minidl.flow.relu_rules import Rule, plain
from minidl.inference.batches import Progress, batches, gather_runs, of_part, runs_in_batches, split_runs
from minidl.inference.evaluation import evaluation_mode, logits_of
from minidl.inference.scores import Output, Target, score, targets
from minidl.nn import Module
from minidl.ops import unfused


def input_gradient(model: Module, x: Array, target: Target, output: Output, rule: Rule = plain) -> tuple[Array, Array, Array]:
    """d score / d x (N,C,H,W) of one batch, and target (N,) and score (N,); inside `evaluation_mode`.

    No image's score depends on another image, so that one walk from their sum serves all; `rule` acts on its steps.
    """
    image = Tensor(x, requires_grad=True)
    logits = logits_of(model, image)
    classes = targets(logits.data, target)
    scores = score(logits, classes, output)
    xp, leaves = array_module(x), dict[Tensor, Array]()
    for step in walk(scores, xp.ones_like(scores.data), leaves=leaves, keep_graph=False, apart=False):
        rule(step)
        del step  # or its arrays would live on through the next step
    return leaves[image], classes, scores.data


def input_gradients(
    model: Module,
    x: Array,
    target: Target,
    output: Output,
    batch_size: int,
    progress: Progress = False,
    name: str = "",
    rule: Rule = plain,
) -> tuple[Array, Array, Array]:
    """`input_gradient` of any number of images, `batch_size` at a time."""
    parts = []
    for part in batches(len(x), batch_size, progress, name):
        with evaluation_mode(model, batch_size), nullcontext() if rule is plain else unfused():  # rules meet single ops
            parts.append(input_gradient(model, x[part], of_part(target, part), output, rule))
    gx, classes, scores = (array_module(x).concatenate(arrays) for arrays in zip(*parts, strict=True))
    return gx, classes, scores


def gradients_at(
    model: Module,
    point: Callable[[slice, int], Array],
    samples: int,
    classes: Array,
    output: Output,
    batch_size: int,
    progress: Progress = False,
    name: str = "",
) -> Iterator[tuple[slice, int, Array]]:
    """(part, k, d score / d x at point(part, k)), (n,C,H,W), for all images, n of them in a part, and each k of the samples.

    The score is that of classes (N,). Of each image k counts up.
    """
    xp = array_module(classes)
    for runs in runs_in_batches(len(classes), samples, batch_size, progress, name):
        points = [point(part, k) for part, k in runs]
        x = points[0] if len(points) == 1 else xp.concatenate(points)
        del points
        with evaluation_mode(model, batch_size):
            gx, _, _ = input_gradient(model, x, gather_runs(classes, runs), output)
        yield from ((part, k, g) for (part, k), g in zip(runs, split_runs(gx, runs), strict=True))
