"""Generated skin lesions, about which everything is known: what to learn, and where the evidence for it is.

Both classes hold a lesion, at a random place and of random size, and a distractor, a smooth freckle apart from it that
says nothing about the class. A malignant lesion has an irregular border and a dark nucleus off its centre; a benign one
has a smooth border, and a centred nucleus or none. Everything else (skin, light, sizes, colours, depths) varies in the
same way in both. The two images of a matched pair share all of it and differ in malignancy alone, so that the pixels in
which they differ are the evidence.

On demand only some have the freckle, and whether they do is a second question, with evidence of its own. Some may hold a
confounder, too: a mark of a surgeon's pen or a ruler, apart from both, that has nothing to do with malignancy, but can be made
to occur with it. And each can be drawn again without its lesion, freckle or mark, and nothing
else changed, which tells what a net relies on.

`scene` says what varies, `marks` what a mark looks like, and `render` makes an image of it all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from minidl.arguments import count, flag, number, numbers, wrong
from minidl.array import Array
from minidl.data.dataset import Dataset
from minidl.data.lesions.render import ABSORBANCE, render
from minidl.data.lesions.scene import sample

__all__ = ["CLASSES", "lesions"]

CLASSES = ("benign", "malignant")
FRECKLE = ("absent", "present")
PARTS = ("lesion", "distractor", "mark")


def lesions(
    n: int,
    size: int = 32,
    channels: int = 3,
    seed: int = 0,
    flip: bool = False,
    mark: Sequence[float] | None = None,
    evidence_channel: int | None = None,
    without: Collection[str] = (),
    freckle: float | None = None,
) -> Dataset:
    """`n` generated images (n,channels,size,size) uint8, labels 0 "benign" and 1 "malignant" in turn, and masks.

    Image i depends on (seed, i) alone, not on n; processors that round differently may differ in a grey level here and
    there. With `flip` it is the other one of its matched pair: the same in everything but malignancy. The masks,
    (n,size,size) bool:

    - "lesion": inside the border of this image's lesion. Its radius is 4.5 to 6.5 pixels, in larger images 4% to 8%
      of the side, which is 0.5% to 2% of the area;
    - "distractor": inside the freckle's border; it and its soft edge are disjoint from the lesion's;
    - "evidence": the pixels that differ between the two images of the pair;
    - "mark", with `mark` only: where there is ink, in none of the others;
    - "freckle", with `freckle` only: the freckle with its soft edge, the pixels that would differ without it.

    Args:
        size: height and width, at least 32.
        channels: 1 (grey), 3 (RGB) or 4 (RGB and near infrared).
        mark: the probabilities that a benign and that a malignant image has a mark: (0.5, 0.5) says nothing about the class,
            (0.05, 0.95) nearly everything. Marks of the same image are the same whatever the probabilities.
        evidence_channel: the one channel, from 0, in which a malignant lesion looks malignant; the others show its benign
            twin, and "lesion" is what lies inside either border. None: all channels do.
        without: what is left out, of "lesion", "distractor" and "mark", with all else as before; its mask is empty.
        freckle: the probability that an image has a freckle, whatever else it has. Then there are two heads, "malignancy" with
            the classes from above and "freckle" with "absent" and "present", and the evidence of each is planted in a place
            of its own. None: all have one.

    Raises:
        TypeError, ValueError: n < 1, size < 32, channels none of these, seed < 0, or no integer; `mark` no two
            probabilities, `freckle` none, `evidence_channel` no channel, or another name in `without`.
    """
    n, size, channels, seed = count(n, "n"), count(size, "size", 32), count(channels, "channels"), count(seed, "seed", 0)
    if channels not in ABSORBANCE:
        wrong(ValueError, "channels", "1, 3 or 4", channels)
    if evidence_channel is not None:
        evidence_channel = count(evidence_channel, "evidence_channel", 0)
        if evidence_channel >= channels:
            wrong(ValueError, "evidence_channel", f"less than channels, {channels}", evidence_channel)
    if isinstance(without, str) or not set(without) <= set(PARTS):
        wrong(ValueError, "without", f"a collection of names out of {PARTS}", without)
    probability, flip = _probabilities(mark), flag(flip, "flip")
    with_freckle = 1.0 if freckle is None else number(freckle, "freckle", "[0, 1]")

    images = np.empty((n, channels, size, size), np.uint8)
    lesion, distractor, evidence, inked, edged = (np.empty((n, size, size), bool) for _ in range(5))
    labels = (np.arange(n, dtype=np.int64) + flip) % 2
    step = max(1, 2**17 // size**2)  # images at a time, few enough to stay in the cache
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        scene = sample(seed, range(part.start, part.stop), size, channels, probability[labels[part]], without, with_freckle)
        benign, border_benign = render(scene, malignant=False)
        other, border_other = render(scene, malignant=True)
        if evidence_channel is not None:
            hidden = np.arange(channels)[:, None, None] != evidence_channel
            other, border_other = np.where(hidden, benign, other), border_other | border_benign
        malignant = labels[part, None, None] == 1
        images[part] = np.where(malignant[:, None], other, benign)
        lesion[part] = np.where(malignant, border_other, border_benign)
        distractor[part] = scene.freckle > 0.5
        evidence[part] = (benign != other).any(1)
        inked[part] = scene.ink > 0
        edged[part] = scene.freckle > 0
    masks = {"lesion": lesion, "distractor": distractor, "evidence": evidence}
    if mark is not None:
        masks["mark"] = inked
    name = f"lesions {size}x{size}"
    if freckle is None:
        return Dataset(images, labels, CLASSES, masks, name=name)
    heads = {"malignancy": labels, "freckle": edged.any((1, 2)).astype(np.int64)}
    return Dataset(images, heads, {"malignancy": CLASSES, "freckle": FRECKLE}, masks | {"freckle": edged}, name=name)


def _probabilities(mark: Sequence[float] | None) -> Array:
    """(2,) of a mark, by class"""
    return np.zeros(2) if mark is None else np.asarray(numbers(mark, "mark", "[0, 1]", 2))
