"""Images that are larger than what a model was trained on: cut into tiles, or asked window by window."""

from __future__ import annotations

from minidl.arguments import Pair, count, pair
from minidl.array import Array, array_module, is_array
from minidl.contexts import contained
from minidl.core import no_grad
from minidl.inference.batches import Progress, runs_in_batches, split_runs
from minidl.inference.evaluation import evaluation_mode, logits_of
from minidl.inference.images import check_images
from minidl.nn import Module


def starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin along an axis of `size` pixels: 0, stride, 2 stride, ..., and size - window, flush with the border.

    All are integers of at least 1. Row i of the scores of a `sliding_window` belongs to the windows that begin at the i-th of
    these, for the height; columns likewise. Raises TypeError or ValueError for what cannot be, ValueError for a window larger
    than the image.
    """
    size, window, stride = count(size, "size"), count(window, "window"), count(stride, "stride")
    if window > size:
        raise ValueError(f"window: expected at most the {size} pixels of the image, got {window}")
    return [*range(0, size - window, stride), size - window]


def tiles(image: Array, size: int | Pair, stride: int | Pair | None = None) -> Array:
    """The windows of one image, row by row: (C,H,W) -> (T,C,h,w), with h, w = `size` and T of them, a copy.

    stride: from one to the next, in pixels; the size by default, so that they lie side by side. They begin where `starts` says:
    the last of each row and column is moved in, and no pixel is left out unless the stride is larger than the size. Raises
    TypeError for what is no array, or sizes that are no integers, ValueError for another shape, sizes that are too small, and
    those larger than the image.
    """
    if not is_array(image):
        raise TypeError(f"image: expected an array (C,H,W), got {type(image).__name__}")
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image: expected (C,H,W), none of these 0, got shape {image.shape}")
    (h, w), corners = _windows(image.shape[1:], size, stride, "size")
    return array_module(image).stack([image[:, top : top + h, left : left + w] for top, left in corners])


@contained
def sliding_window(
    model: Module,
    x: Array,
    window: int | Pair,
    stride: int | Pair | None = None,
    batch_size: int = 32,
    progress: Progress = False,
) -> Array:
    """scores[n,k,i,j] = logit k of the window that begins at row starts(H, ...)[i], column starts(W, ...)[j]: (N,K,h,w)

    x (N,C,H,W), of any size. The model answers to each window as to an image of its own, in evaluation mode, without a graph:
    the numbers are those of `predict(model, x[:, :, top : top + height, left : left + width])`, in the same batches to the bit.
    At most `batch_size` windows are in memory at a time. What an image says of class k: `scores.max((2, 3))[:, k]`.

    Args:
        window: height and width in pixels, those of the images that the model was trained on.
        stride: pixels from one window to the next, half a window by default, at least 1. The last one of each row and column is
            moved in, flush with the border, see `starts`. One larger than the window leaves pixels out.
        batch_size, progress: as in `explain.saliency`.

    Raises:
        ValueError: a window larger than the images.
        TypeError, ValueError: an argument that cannot be, named with what came and what was expected.
        MemoryError: `batch_size` windows at a time do not fit into memory; the message says what would.
    """
    check_images(model, x)
    h, w = pair(window, "window", 1)
    (h, w), corners = _windows(x.shape[2:], window, (max(1, h // 2), max(1, w // 2)) if stride is None else stride, "window")
    parts: list[list[Array]] = [[] for _ in corners]
    for runs in runs_in_batches(len(x), len(corners), batch_size, progress, "sliding window"):
        with evaluation_mode(model, batch_size), no_grad():
            crops = [x[part, :, corners[k][0] : corners[k][0] + h, corners[k][1] : corners[k][1] + w] for part, k in runs]
            logits = logits_of(model, array_module(x).concatenate(crops)).data
        for scores, (_, k) in zip(split_runs(logits, runs), runs, strict=True):
            parts[k].append(scores)
    xp = array_module(x)
    found = xp.stack([xp.concatenate(some) for some in parts], axis=2)  # (N,K,h w)
    return found.reshape(*found.shape[:2], len({top for top, _ in corners}), -1)


def _windows(shape: tuple[int, ...], window: int | Pair, stride: int | Pair | None, name: str) -> tuple[Pair, list[Pair]]:
    """The height and width of a window, and the corner of each, row by row"""
    h, w = pair(window, name, 1)
    down, right = (h, w) if stride is None else pair(stride, "stride", 1)
    if h > shape[0] or w > shape[1]:
        raise ValueError(f"{name}: {h}x{w} is larger than the image, which is {shape[0]}x{shape[1]}")
    return (h, w), [(top, left) for top in starts(shape[0], h, down) for left in starts(shape[1], w, right)]
