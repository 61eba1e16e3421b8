"""Is a gradient right, and if not, what slipped? By differences of the values, and by the transpose."""

from minidl.check.adjoint import adjoint_check
from minidl.check.differences import Difference, GradientError
from minidl.check.gradient import Report, gradient_check

__all__ = ["Difference", "GradientError", "Report", "adjoint_check", "gradient_check"]
