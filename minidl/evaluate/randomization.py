"""The sanity check: a map that explains a model must change when the model is destroyed.

Adebayo et al. 2018, "Sanity checks for saliency maps", section 3: the layers lose what they learnt one after the other, from
the last to the first, and the map of each ruin is compared with that of the whole model. A map that stays alike shows the
image, as an edge detector does, and not the model.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from minidl import notebook
from minidl.arguments import count, function, number, one_of
from minidl.array import Array, array_module, device_of, to_cpu, to_device
from minidl.contexts import Block, contained
from minidl.core import Parameter, Tensor
from minidl.evaluate.similarity import rank_correlation, ssim
from minidl.explain.explanation import Explanation
from minidl.inference.batches import Progress, reporting
from minidl.inference.evaluation import classes_and_scores
from minidl.inference.images import check_images
from minidl.inference.scores import Target
from minidl.nn import Module
from minidl.nn.module import watchers

SIMILARITY: dict[str, Callable[[Array, Array], Array]] = {"rank": rank_correlation, "ssim": ssim}


class Method(Protocol):
    """Such as `explain.saliency`, or a function that calls it with other settings."""

    def __call__(self, model: Module, x: Array, *, target: Target) -> Explanation: ...


@dataclass(frozen=True, eq=False)
class Randomization:
    """How alike the maps stayed, on the CPU.

    layers: (L,) names of layers: each time that maps were compared, the one that was destroyed last.
    similarity: (N,L+1), to the maps of the whole model: 1 (with themselves), then after each of `layers`.
    """

    layers: tuple[str, ...]
    similarity: Array

    @property
    def alike(self) -> Array:
        """The mean similarity (N,) to the ruins: near 1 for a map of the image alone, near 0 for one of the model alone."""
        mean: Array = self.similarity[:, 1:].mean(1)
        return mean

    def _repr_html_(self) -> str:
        rows = zip(("none", *self.layers), map(notebook.number, self.similarity.mean(0).tolist()), strict=True)
        return notebook.table(["destroyed down to", "mean similarity"], rows)

    def passed(self, limit: float = 0.5) -> bool:
        """Whether the maps of the ruins are, on average, less like those of the model than `limit`.

        Raises TypeError or ValueError where that is no finite number.
        """
        return bool(self.alike.mean() < number(limit, "limit"))


@contained
def randomization(
    model: Module,
    x: Array,
    method: Method,
    target: Target = None,
    similarity: str = "rank",
    every: int = 1,
    seed: int = 0,
    progress: Progress = False,
) -> Randomization:
    """The maps that `method` makes of x while the model's layers are destroyed, from the last to the first, as `Randomization`.

    A layer is destroyed by shuffling the values of each of its parameters, so that their distribution stays; running statistics
    stay too. All this happens to a copy of the model. The class that is explained stays that of the whole model.

    Adebayo et al. 2018, "Sanity checks for saliency maps", section 3, where the layers get new random weights.

    Args:
        x: images (N,C,H,W) as in training.
        method: called as method(model, x, target=classes) with the copy, which it is to ask; sizes of its maps are compared, so
            that signs do not matter.
        target: the class, one for all or one for each; None: the one that the model predicts for x.
        similarity: "rank", Spearman's correlation, or "ssim".
        every: compare after every so many layers only, and after the last.
        progress: False, True (a bar), or a function of (done, total), of the maps to make.

    Raises TypeError and ValueError for an argument that cannot be, and for a method that asks another model than it is given,
    MemoryError where a batch does not fit into memory.
    """
    check_images(model, x, target)
    function(method, "method", "f(model, x, target=...), such as explain.saliency")
    one_of(similarity, "similarity", SIMILARITY)
    every, seed = count(every, "every"), count(seed, "seed", 0)
    classes = to_cpu(classes_and_scores(model, x, target, "logit")[0])

    def asked(name: str, x: Tensor) -> None:
        raise ValueError(
            "method: it asks the model itself, and not the one that it is called with, which is being destroyed; "
            "use its first argument"
        )

    def sizes() -> Array:
        with Block(None, (watchers, {id(module): ("", asked, None) for module in model.modules()})):
            made = method(ruin, x, target=classes).map
        return to_cpu(array_module(made).abs(made))

    ruin = _copy(model)
    layers = layers_of(ruin)[::-1]
    rng = np.random.default_rng(seed)
    stops = sorted({*range(every, len(layers), every), len(layers)})
    with reporting(len(stops) + 1, progress, "randomization") as advance:
        whole = sizes()
        advance(1)
        columns = [SIMILARITY[similarity](whole, whole)]
        for gone, (_, parameters) in enumerate(layers, start=1):
            for p in parameters:
                p.data = _shuffled(p.data, rng)
            if gone in stops:
                columns.append(SIMILARITY[similarity](whole, sizes()))
                advance(1)
    return Randomization(tuple(layers[stop - 1][0] for stop in stops), np.stack(columns, 1))


def layers_of(model: Module) -> list[tuple[str, list[Parameter]]]:
    """The modules that hold parameters themselves, by name and from the input on, as far as their definition follows it."""
    seen: set[int] = set()
    layers = []
    for name, module in model.named_modules():
        own = [v for v in vars(module).values() if isinstance(v, Parameter) and id(v) not in seen]
        seen.update(id(p) for p in own)
        if own:
            layers.append((name, own))
    return layers


def _copy(model: Module) -> Module:
    """Modules and parameters of its own, on the same arrays: the model itself may be asked meanwhile, by other threads too."""
    arrays = [p.data for p in model.parameters()] + [a for _, a in model.named_buffers()]
    return deepcopy(model, {id(a): a for a in arrays})


def _shuffled(values: Array, rng: np.random.Generator) -> Array:
    return to_device(rng.permutation(to_cpu(values).ravel()).reshape(values.shape), device_of(values))
