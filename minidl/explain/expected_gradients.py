"""Integrated gradients from many baselines: images of a background instead of one colour."""

from __future__ import annotations

import numpy as np

from minidl.arguments import count
from minidl.array import Array, array_module
from minidl.contexts import contained
from minidl.core import Tensor
from minidl.explain.explanation import Explanation
from minidl.inference.batches import Progress
from minidl.inference.evaluation import classes_and_scores, predict
from minidl.inference.gradients import gradients_at
from minidl.inference.images import check_images, check_reduce, over_channels
from minidl.inference.scores import Target, score
from minidl.nn import Module


@contained
def expected_gradients(
    model: Module,
    x: Array,
    background: Array,
    target: Target = None,
    output: str = "logit",
    reduce: str = "sum",
    samples: int = 100,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Explanation:
    """raw = E over x0 and a of (x - x0) * d score_c / d x at x0 + a (x - x0), x0 from the background, a uniform in (0, 1)

    Erion, Janizek, Sturmfels, Lundberg and Lee 2021, "Improving performance of deep learning models with axiomatic attribution
    priors and expected gradients". They sum to S(x) - E S(x0); what is missing from that is `delta`. Each image of the
    background is drawn as often as any other (if need be, once more), and one a from each n-th of (0, 1), which varies less
    than n draws would. All images share the draws, so that an image's map does not depend on those beside it.

    Args:
        background: (B,C,H,W), some typical images, as the model was trained on them.
        samples: n. seed: the same numbers on every device and for every batch_size.
        target, output, reduce, batch_size, progress: as in `saliency`; the class is that of x.

    Raises TypeError and ValueError for an argument that cannot be, and MemoryError, as `saliency` does.
    """
    check_images(model, x, target)
    check_images(model, background, images="background")
    if background.shape[1:] != x.shape[1:]:
        raise ValueError(f"background: expected images of {x.shape[1:]}, as x, got {background.shape[1:]}")
    samples, seed = count(samples, "samples"), count(seed, "seed", 0)
    check_reduce(reduce)
    rng, B = np.random.default_rng(seed), len(background)
    rounds = [rng.permutation(B) for _ in range(-(-samples // B))]
    which = np.concatenate(rounds)[:samples].tolist()  # of the background, for each draw
    a = ((rng.permutation(samples) + rng.random(samples)) / samples).tolist()
    classes, scores = classes_and_scores(model, x, target, output, batch_size)

    def point(part: slice, k: int) -> Array:
        start = background[which[k]]
        return start + a[k] * (x[part] - start)

    xp = array_module(x)
    raw = xp.zeros_like(x)
    for part, k, gx in gradients_at(model, point, samples, classes, output, batch_size, progress, "expected gradients"):
        raw[part] += (x[part] - background[which[k]]) * gx / samples
    drawn = Tensor(predict(model, background, batch_size)[which])  # (samples,K)
    expected = xp.stack([score(drawn, xp.broadcast_to(c, samples), output).data.mean() for c in classes])
    delta = scores - expected - raw.sum((1, 2, 3))
    params = {"method": "expected_gradients", "output": output, "reduce": reduce, "background": background.shape}
    return Explanation(
        over_channels(raw, reduce), raw, classes, scores, delta, params=params | {"samples": samples, "seed": seed}
    )
