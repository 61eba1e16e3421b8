"""The numbers that files hold, by PyTorch's names of their types; those that NumPy has not become float32, without loss.

A small float has a sign, E bits of exponent e and M bits of mantissa m:

    value = (-1)^sign 2^(e - bias) (1 + m/2^M)          for e = 0 it is (-1)^sign 2^(1 - bias) m/2^M

bfloat16 is the upper half of a float32. The types of 8 bits differ in E, M, bias and in which bits are no number
(https://arxiv.org/abs/2209.05433; the forms "fnuz", which have no infinity and no negative zero:
https://arxiv.org/abs/2206.02915;
e8m0, a power of two: the OCP Microscaling specification 1.0).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np

from minidl.array import Array

SAME = "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64 complex64 complex128".split()
WIDENED = {"bfloat16": "uint16", "complex32": "float16"}
BYTES = {  # of the types of 8 bits: (E, M, bias)
    "float8_e4m3fn": (4, 3, 7),
    "float8_e5m2": (5, 2, 15),
    "float8_e4m3fnuz": (4, 3, 8),
    "float8_e5m2fnuz": (5, 2, 16),
    "float8_e8m0fnu": (8, 0, 127),
}
NAMES = (*SAME, *WIDENED, *BYTES)


def itemsize(name: str) -> int:
    """Bytes of one number. Raises ValueError for a type that is not read."""
    if name in BYTES:
        return 1
    if name == "complex32":
        return 4
    if name not in NAMES:
        raise ValueError(f"numbers of the type {name}, which NumPy has not: convert them before they are saved, x.float()")
    return np.dtype(WIDENED.get(name, name)).itemsize


def numbers(raw: bytes | memoryview, name: str, order: Literal["<", ">"] = "<") -> Array:
    """All whole numbers of this type that `raw` holds, in the byte order of this machine, as a row that cannot be written.

    bfloat16 and the types of 8 bits become float32, complex32 becomes complex64; a bool is what is not 0. order: "<" where
    the lowest byte comes first, ">" where the highest does. Raises ValueError for a type that is not read.
    """
    raw = memoryview(raw)[: len(raw) // itemsize(name) * itemsize(name)]
    if name in BYTES:
        row = _values(name)[np.frombuffer(raw, np.uint8)]
    elif name == "bool":
        row = np.frombuffer(raw, np.uint8) != 0
    else:
        row = np.frombuffer(raw, np.dtype(WIDENED.get(name, name)).newbyteorder(order))
        row = row.astype(row.dtype.newbyteorder("="), copy=False)
        if name == "bfloat16":
            row = (row.astype(np.uint32) << 16).view(np.float32)
        elif name == "complex32":
            row = row.astype(np.float32).view(np.complex64)
    row.flags.writeable = False
    return row


@lru_cache
def _values(name: str) -> Array:
    """The 256 values of a type of 8 bits."""
    return np.array([_value(bits, name) for bits in range(256)], np.float32)


def _value(bits: int, name: str) -> float:
    E, M, bias = BYTES[name]
    sign, e, m = 1 - 2 * (bits >> E + M), bits >> M & (1 << E) - 1, bits & (1 << M) - 1
    if name == "float8_e8m0fnu":
        return math.nan if bits == 255 else 2.0 ** (bits - bias)
    if name.endswith("fnuz"):
        if bits == 128:
            return math.nan
    elif name == "float8_e4m3fn":
        if bits & 127 == 127:
            return math.nan
    elif e == 31:
        return math.nan if m else sign * math.inf
    return sign * (math.ldexp(1 + m / 2**M, e - bias) if e else math.ldexp(m / 2**M, 1 - bias))
