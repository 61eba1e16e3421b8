import math

import numpy as np
import pytest

from minidl.io import number_types

# by hand: the largest number, the smallest normal and the smallest of all, 1, and -2, with their bits
LIMITS = {
    "float8_e4m3fn": {0x7E: 448, 0x08: 2**-6, 0x01: 2**-9, 0x38: 1, 0xC0: -2, 0x7F: math.nan, 0xFF: math.nan, 0x80: -0.0},
    "float8_e5m2": {
        0x7B: 57344,
        0x04: 2**-14,
        0x01: 2**-16,
        0x3C: 1,
        0xC0: -2,
        0x7C: math.inf,
        0xFC: -math.inf,
        0x7D: math.nan,
    },
    "float8_e4m3fnuz": {0x7F: 240, 0x08: 2**-7, 0x01: 2**-10, 0x40: 1, 0xC8: -2, 0x80: math.nan, 0x00: 0},
    "float8_e5m2fnuz": {0x7F: 57344, 0x04: 2**-15, 0x01: 2**-17, 0x40: 1, 0xC4: -2, 0x80: math.nan},
    "float8_e8m0fnu": {0x00: 2**-127, 0x7F: 1, 0xFE: 2**127, 0xFF: math.nan},
}


@pytest.mark.parametrize("name", number_types.BYTES)
def test_the_limits_of_floats_of_8_bits(name):
    bits, values = LIMITS[name].keys(), np.array([*LIMITS[name].values()], np.float32)
    came = number_types.numbers(bytes(bits), name)
    assert came.dtype == np.float32 and np.array_equal(came, values, equal_nan=True)
    assert np.array_equal(np.signbit(came[values == 0]), np.signbit(values[values == 0]))


@pytest.mark.parametrize("name", number_types.BYTES)
def test_every_float_of_8_bits(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    every = np.arange(256, dtype=np.uint8)
    expected = every.view(getattr(ml_dtypes, name)).astype(np.float32)
    assert np.array_equal(number_types.numbers(every.tobytes(), name), expected, equal_nan=True)


def test_bfloat16_and_complex_halves():
    upper = np.array([1, -2.5, 3e38, np.inf, -0.0, 1e-40], np.float32).view(np.uint32) & 0xFFFF0000
    stored = (upper >> 16).astype("<u2")
    assert np.array_equal(number_types.numbers(stored.tobytes(), "bfloat16").view(np.uint32), upper)
    assert np.array_equal(number_types.numbers(stored.astype(">u2").tobytes(), "bfloat16", ">").view(np.uint32), upper)
    halves = np.array([1.5, -2, 65504, 0], "<f2").tobytes()
    assert number_types.numbers(halves, "complex32").tolist() == [1.5 - 2j, 65504 + 0j]


def test_bools_are_0_or_1():
    came = number_types.numbers(bytes([0, 1, 2, 255]), "bool")
    assert came.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_a_rest_is_left_and_nothing_can_be_written():
    for name in number_types.NAMES:
        row = number_types.numbers(bytes(35), name)
        assert len(row) == 35 // number_types.itemsize(name) and not row.flags.writeable and row.dtype.isnative
    with pytest.raises(ValueError, match=r"numbers of the type torch\.bits8, which NumPy has not: convert them"):
        number_types.numbers(bytes(8), "torch.bits8")
