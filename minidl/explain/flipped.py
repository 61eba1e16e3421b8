"""Any method on the image and its mirror image: the mean of both maps."""

from __future__ import annotations

from dataclasses import replace

from minidl.arguments import one_of
from minidl.array import Array, array_module
from minidl.explain.explanation import Explanation, explainer
from minidl.explain.saliency import saliency
from minidl.explain.smooth import Method, around, ask
from minidl.inference.batches import Progress, gather_runs, runs_in_batches, split_runs
from minidl.inference.flips import FLIPS
from minidl.inference.images import check_images
from minidl.inference.scores import Target
from minidl.nn import Module

AXES = {name: axes for name, axes in FLIPS.items() if name != "none"}


@explainer
def flipped(
    model: Module,
    x: Array,
    target: Target = None,
    method: Method = saliency,
    flips: str = "horizontal",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw, map = 1/n sum_F F(raw_F), F(map_F), those of the method at F(x): x (N,C,H,W) as it is, or mirrored and mirrored back

    Averaging over flips when a net is asked is as old as Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with
    deep convolutional neural networks", section 4.1. Class and score are those of the image as it is. Where left and right
    mean something (the heart, a side that is written on the image, a net that was trained without flips), the mirror image is
    of another patient, and the mean of the two maps says of neither what decided: compare them before.

    Args:
        method: as in `smooth`. flips: "horizontal" (n = 2: left and right change places), "vertical" (n = 2), "both" (n = 4).
        target, batch_size, progress: as in `saliency`.

    Raises TypeError and ValueError for an argument that cannot be, and what the method raises.
    """
    check_images(model, x, target)
    ways = AXES[one_of(flips, "flips", AXES)]
    plain = ask(method, model, x, target, batch_size)
    xp = array_module(x)
    map, raw = xp.zeros_like(plain.map), xp.zeros_like(plain.raw)
    for runs in runs_in_batches(len(x), len(ways), batch_size, progress, "flips"):
        images = xp.concatenate([xp.flip(x[part], ways[k]) for part, k in runs])
        e = ask(method, model, images, gather_runs(plain.target, runs), batch_size)
        for (part, k), some_map, some_raw in zip(runs, split_runs(e.map, runs), split_runs(e.raw, runs), strict=True):
            map[part] += xp.flip(some_map, [axis - 1 for axis in ways[k]]) / len(ways)
            raw[part] += xp.flip(some_raw, ways[k]) / len(ways)
    params = around(plain, "flipped") | {"flips": flips}
    return replace(plain, map=map, raw=raw, delta=None, history=[], params=params)
