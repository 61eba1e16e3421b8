"""What an explainer returns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from minidl import view
from minidl.array import Array, move, to_cpu

NAMES = {  # of methods, for people, where it is not that of the function
    "grad_times_input": "gradient x input",
    "smoothgrad": "SmoothGrad",
    "vargrad": "VarGrad",
    "grad_cam": "Grad-CAM",
    "rise": "RISE",
    "evidence_maps": "evidence",
}


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of N images, where x is, and what they explain. Nothing in here is normalised or clipped.

    map: (N,H,W), one number a pixel, as the method reduces its channels.
    raw: (N,C,H,W), signed, what the method computed before that; its docstring says if C, H, W are not those of x.
    target: (N,) int64, the class whose score is explained.
    score: (N,), the score of x itself, of the kind that `params["output"]` names.
    delta: (N,), for methods that promise a sum of contributions: what the score has and that sum lacks.
    history: one entry for every iteration of a method that iterates.
    params: all settings, those that were left to their defaults too.
    """

    map: Array
    raw: Array
    target: Array
    score: Array
    delta: Array | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)

    def to(self, device: str) -> Explanation:
        """The same with all arrays on `device`, "cpu" or "gpu"."""
        return replace(self, **{f.name: move(getattr(self, f.name), device) for f in fields(self)})

    def plot(
        self, path: str | os.PathLike[str], images: Array, classes: Sequence[str] | None = None, title: str | None = None
    ) -> None:
        """Draw the maps beside and over their images, as PNG: see `minidl.view.overlays`.

        images: (N,C,H,W) as they were before normalising, uint8 or in [0, 1]. classes: the names of the model's classes.
        title: by default the method's name.
        """
        view.overlays(path, images, self.map, self.captions(classes), self.name if title is None else title, self.unit)

    @property
    def name(self) -> str:
        """Of the method, and of the head where there are several, for people."""
        method, head = str(self.params.get("method", "")), self.params.get("head")
        return NAMES.get(method, method.replace("_", " ")) + (f" for {head}" if head else "")

    @property
    def unit(self) -> str:
        """What the colours of the maps stand for."""
        return f"{self.name}, of the {self.params['output']}" if "output" in self.params else self.name

    def captions(self, classes: Sequence[str] | None = None) -> list[str]:
        """For each image, the class and its score."""
        names = [f"class {t}" if classes is None else classes[t] for t in to_cpu(self.target).tolist()]
        output = self.params.get("output", "score")
        return [f"{name}\n{output} {score:.3g}" for name, score in zip(names, to_cpu(self.score).tolist(), strict=True)]
