"""Which families of calls the CUDA kernels are tested with, and which functions they are made of."""

from __future__ import annotations

import sys
from typing import Any

from tests.kernels import draws

CONV3X3 = tuple(draws.convolution_3x3(F) for F in (7, 9, 14))  # a thread has 4, 6 or 8 of them
ON_THE_CPU = draws.convolution_by_winograd, draws.convolution_of_few_pixels, draws.dense_block_by_winograd  # algorithms there
FAMILIES = (*CONV3X3, *(family for family in draws.FAMILIES if family not in ON_THE_CPU))
HALVES = (  # what mixed precision halves
    draws.matmuls,
    draws.convolution,
    *CONV3X3,
    draws.pooling,
    draws.channels,
    draws.elements,
    draws.norm,
    draws.group_norm,
    draws.dense_block,
    draws.random,
)


def functions(kind: str) -> dict[str, Any]:
    """All that @cuda.jit has made in the modules of the CUDA kernels, by name; kind: the class that says so"""
    modules = [module for name, module in sys.modules.items() if name.startswith("minidl.kernels.cuda.")]
    values = [value for module in modules for value in vars(module).values()]
    values += [kernel for value in values if isinstance(value, dict) for kernel in value.values()]
    return {name_of(kernel): kernel for kernel in values if type(kernel).__name__ == kind}


def name_of(kernel: Any) -> str:
    """Such as pool._max_pool2d"""
    return f"{kernel.py_func.__module__.rpartition('.')[2]}.{kernel.py_func.__qualname__}"
