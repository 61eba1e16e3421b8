"""How much does a map change when the image hardly does?"""

from __future__ import annotations

import numpy as np

from minidl.arguments import count, flag, function, number
from minidl.array import Array, array_module, to_cpu
from minidl.contexts import contained
from minidl.evaluate.randomization import Method
from minidl.explain.explanation import Explanation
from minidl.inference.batches import Progress, gather_runs, runs_in_batches, split_runs
from minidl.inference.evaluation import classes_and_scores
from minidl.inference.images import check_images
from minidl.inference.scores import Target
from minidl.nn import Module


@contained
def max_sensitivity(
    model: Module,
    x: Array,
    method: Method,
    target: Target = None,
    radius: float = 0.02,
    normalize: bool = True,
    samples: int = 10,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Array:
    """y = max over e of |raw(x + e) - raw(x)| / |raw(x)|, each e_i uniform in [-radius, radius], (N,) float64 on the CPU

    raw is what `method` computes, of the class of x; |.| is the Euclidean norm. 0 for a method that does not look at the image;
    so a small value is no merit without a small infidelity. Yeh, Hsieh, Suggala, Inouye and Ravikumar 2019, "On the
    (in)fidelity and sensitivity of explanations", definition 3.1, estimated from `samples` draws, which find at most as much.

    Args:
        x: images (N,C,H,W) as in training.
        method: called as method(model, x, target=classes), such as `explain.saliency`.
        target: the class, one for all or one for each; None: the one that the model predicts for x.
        radius: of the box around x, in units of x.
        normalize: divide by |raw(x)|, where that is not 0; else y is in units of raw, as it is defined.
        samples: e for each image. All images share the draws.
        batch_size: images that `method` is called with at a time.
        seed: the same numbers on every device and for every batch_size.
        progress: False, True (a bar), or a function of (done, total), of the maps to make.

    Raises TypeError and ValueError for an argument that cannot be, and for a method that gives no finite `Explanation` of each
    image, MemoryError where a batch does not fit into memory.
    """
    check_images(model, x, target)
    function(method, "method", "f(model, x, target=...), such as explain.saliency")
    radius = number(radius, "radius", "(0, inf)")
    samples, seed, normalize = count(samples, "samples"), count(seed, "seed", 0), flag(normalize, "normalize")
    classes, _ = classes_and_scores(model, x, target, "logit", batch_size)
    xp, N = array_module(x), len(x)

    def moved(part: slice, k: int) -> Array:
        e = np.random.default_rng((seed, k)).uniform(-radius, radius, x.shape[1:])
        return x[part] + xp.asarray(e, x.dtype) if k else x[part]

    here, size, most = [np.empty(0)] * N, np.ones(N), np.zeros(N)
    for runs in runs_in_batches(N, samples + 1, batch_size, progress, "max-sensitivity"):
        x_moved = xp.concatenate([moved(part, k) for part, k in runs])
        raw = _raw(method(model, x_moved, target=to_cpu(gather_runs(classes, runs))), len(x_moved))
        for (part, k), found in zip(runs, split_runs(raw, runs), strict=True):
            for i, one in zip(range(part.start, part.stop), found, strict=True):
                if k == 0:
                    here[i], size[i] = one, np.linalg.norm(one)
                else:
                    most[i] = max(most[i], np.linalg.norm(one - here[i]))
    return most / np.where(size > 0, size, 1) if normalize else most


def _raw(found: Explanation, n: int) -> Array:
    """(n,-1) float64 on the CPU"""
    if not isinstance(found, Explanation):
        raise TypeError(f"method: expected it to return an Explanation, got {type(found).__name__}")
    if len(found.raw) != n:
        raise ValueError(f"method: expected an explanation of each of {n} images, got one of {len(found.raw)}")
    raw = to_cpu(found.raw).reshape(n, -1).astype(np.float64)
    if not np.isfinite(raw).all():
        raise ValueError("method: its explanation holds NaN or infinity")
    return raw
