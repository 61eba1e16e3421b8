"""What an explainer returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minidl.array import Array


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of N pictures, where x is, and what they explain. Nothing in here is normalised or clipped.

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
