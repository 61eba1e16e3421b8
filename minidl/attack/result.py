"""What an attack returns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from minidl.array import Array, move
from minidl.attack.ball import sizes


@dataclass(frozen=True, eq=False)
class AttackResult:
    """Attacked images, where x is, and what the model makes of them.

    x: (N,C,H,W), the attacked images, in bounds.
    delta: (N,C,H,W), attacked minus original, which is put back into bounds where a rounding has left them; of `universal`
        (1,C,H,W), the one that all images share.
    success: (N,) bool, whether the model answers something else than y or, of a targeted attack, y.
    y: (N,) int64, the class to leave or, of a targeted attack, to reach.
    before, logits: (N,K), of the original and of the attacked images.
    steps: (N,) int64, in how many steps an image moved.
    path: (T+1,N,C,H,W), the images at the start and after every step, where `keep_path` asked for it.
    params: all settings, those that were left to their defaults too.
    """

    x: Array
    delta: Array
    success: Array
    y: Array
    before: Array
    logits: Array
    steps: Array
    path: Array | None = None
    params: dict[str, Any] = field(default_factory=dict)

    def to(self, device: str) -> AttackResult:
        """The same with all arrays on `device`, "cpu" or "gpu"."""
        return replace(self, **{f.name: move(getattr(self, f.name), device) for f in fields(self)})

    @property
    def norms(self) -> dict[str, Array]:
        """How large delta is, in the units of the images: "linf", its largest value, and "l2", its length, (N,) each."""
        return {norm: sizes(self.delta, norm).reshape(-1) for norm in ("linf", "l2")}
