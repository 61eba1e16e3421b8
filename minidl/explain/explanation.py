"""What an explainer returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from html import escape
from typing import Any, ParamSpec

import numpy as np

from minidl import notebook, view
from minidl.array import Array, move, to_cpu
from minidl.contexts import contained
from minidl.inference.scores import asking, name_of
from minidl.io.files import Path
from minidl.view.alone import alone
from minidl.view.names import literal
from minidl.view.shares import fraction

P = ParamSpec("P")
SHOWN = 12  # maps that a notebook shows

NAMES = {  # of methods, for people, where it is not that of the function
    "grad_times_input": "gradient x input",
    "smoothgrad": "SmoothGrad",
    "vargrad": "VarGrad",
    "grad_cam": "Grad-CAM",
    "kernel_shap": "KernelSHAP",
    "lime": "LIME",
    "grad_cam_plus_plus": "Grad-CAM++",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "score_cam": "Score-CAM",
    "guided_grad_cam": "guided Grad-CAM",
    "lrp": "LRP",
    "smooth": "smoothed",
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
    logits: how many the model has, K, where a method of `minidl.explain` made this.
    """

    map: Array
    raw: Array
    target: Array
    score: Array
    delta: Array | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    logits: int | None = None

    def to(self, device: str) -> Explanation:
        """The same with all arrays on `device`, "cpu" or "gpu"."""
        return replace(self, **{f.name: move(getattr(self, f.name), device) for f in fields(self)})

    def plot(
        self,
        path: Path | None,
        images: Array,
        classes: Sequence[str] | None = None,
        title: str | None = None,
        window: tuple[float, float] | None = None,
        scale: str = "shared",
    ) -> view.Drawing:
        """Draw the maps beside and over their images: see `minidl.view.overlays`, also for `path`, `window` and `scale`.

        images: (N,C,H,W) as they were before normalising, integers or in [0, 1]. classes: the names of the model's classes.
        title: by default the method's name.
        """
        title = self.name if title is None else title
        return view.overlays(path, images, self.map, self.captions(classes), title, self.unit, window, scale)

    def _repr_html_(self) -> str:
        """The first maps, each with its class and score, and one colour bar."""
        N, shown = len(self.map), min(len(self.map), SHOWN)
        some = replace(self, target=self.target[:shown], score=self.score[:shown])
        drawing = alone(to_cpu(self.map[:shown]), some.captions(), self.name, self.unit)
        about = f"{self.name}: {N} map{'s' * (N != 1)} of {' x '.join(map(str, self.map.shape[1:]))} pixels"
        more = f", of which the first {shown} are shown" if shown < N else ""
        return f"<div>{notebook.image(drawing.png, about, drawing.width)}<br>{escape(about + more)}</div>"

    @property
    def name(self) -> str:
        """Of the method, and of the head where there are several, for people."""
        head, methods, params = self.params.get("head"), list[str](), self.params
        while params:  # of `smooth`, those of the method that it is around
            methods.append(str(params.get("method", "")))
            params = params.get("of", {})
        return " ".join(NAMES.get(m, m.replace("_", " ")) for m in methods) + (f" for {head}" if head else "")

    @property
    def unit(self) -> str:
        """What the colours of the maps stand for."""
        return f"{self.name}, of the {name_of(self.params['output'])}" if "output" in self.params else self.name

    def captions(self, classes: Sequence[str] | None = None) -> list[str]:
        """For each image, the class and its score. A probability is never rounded to 0 or 1: prob > 0.999.

        Of two names for one logit, the second is the answer that it speaks of.
        """
        known = classes[1:] if classes is not None and len(classes) == 2 and self.logits == 1 else classes
        names = [f"class {t}" if known is None else literal(known[t], 200) for t in to_cpu(self.target).tolist()]
        output = name_of(self.params.get("output", "score"))
        written = fraction if output in ("prob", "sigmoid") else "{:.3g}".format
        return [f"{name}\n{output} {written(score)}" for name, score in zip(names, to_cpu(self.score).tolist(), strict=True)]


def explainer(method: Callable[P, Explanation]) -> Callable[P, Explanation]:
    """What every method is: `contained`, its Explanation knows how many logits the model has, and a map of nothing warns."""

    @contained
    @wraps(method)
    def explained(*args: P.args, **kwargs: P.kwargs) -> Explanation:
        with asking() as asked:
            found = method(*args, **kwargs)
        if blank := np.flatnonzero(~to_cpu(found.map != 0).any((1, 2))).tolist():
            warnings.warn(f"{found.name}: the map is 0 everywhere for the images {blank[:10]}: nothing was found", stacklevel=3)
        return replace(found, logits=asked[0] if asked else found.logits)

    return explained
