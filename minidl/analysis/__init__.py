"""A net looked at without training it: who calls whom, what it costs, what it sees, and where it stops being finite."""

from minidl.analysis.calls import watch
from minidl.analysis.cost import Cost, cost
from minidl.analysis.nonfinite import count_nonfinite, first_nonfinite

__all__ = [
    "Cost",
    "cost",
    "count_nonfinite",
    "first_nonfinite",
    "watch",
]
