"""A measure of each of N maps, and beside it what chance would score."""

from __future__ import annotations

from dataclasses import dataclass

from minidl import notebook
from minidl.array import Array
from minidl.metrics.intervals import bootstrap


@dataclass(frozen=True, eq=False)
class MaskScore:
    """value (N,), and chance (N,): the expected value of a map that knows nothing. Print it for both means."""

    value: Array
    chance: Array

    @property
    def enrichment(self) -> Array:
        """value / chance (N,): how many times better than chance; of mass in a mask, mass / area."""
        return self.value / self.chance

    def __str__(self) -> str:
        return f"{bootstrap(self.value)}, chance {self.chance.mean():.3f}, {len(self.value)} images"

    def _repr_html_(self) -> str:
        row = [f"{len(self.value):,}", str(bootstrap(self.value)), notebook.number(float(self.chance.mean()))]
        return notebook.table(["images", "mean [95% interval]", "chance"], [row], text=0)
