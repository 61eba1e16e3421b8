"""Safetensors (https://huggingface.co/docs/safetensors), and saying what is wrong with a file that cannot be read.

    8 bytes     N, the length of the header, little-endian
    N bytes     the header, JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
                "__metadata__": {"any": "strings"}}
    the rest    the values of one array behind those of another, without gaps, each from `begin` to `end` of the rest

Nothing in such a file can run. A file is read only if every byte of it is accounted for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from safetensors.numpy import save

from minidl.array import Array
from minidl.io import file_kinds
from minidl.io.notes import cut, kind, short
from minidl.io.number_types import itemsize, numbers

METADATA = "__metadata__"
MOST_AXES = 64
TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
OTHERS = ("F4", "F6_E2M3", "F6_E3M2")  # of the format, of less than a byte each


def read(raw: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays by name, and the metadata. bfloat16 and the floats of 8 bits become float32, which holds their values.

    Raises ValueError, in one sentence, for another kind of file, a damaged one, and for a type that is not read.
    """
    if not file_kinds.is_safetensors(raw):
        raise ValueError(f"expected a safetensors file, got {file_kinds.describe(raw)}")
    try:
        header, values = _header(raw)
        metadata = _metadata(header.pop(METADATA, None))
        places = sorted((_place(entry, name), name) for name, entry in header.items())
        at = 0
        for (begin, end), name in places:
            if begin != at:
                raise ValueError(f"{short(name)} begins at byte {begin:,} of the values, expected {at:,}")
            at = end
        if at != len(values):
            raise ValueError(f"the header tells of {at:,} bytes of values, there are {len(values):,}")
    except (ValueError, RecursionError) as error:
        reason = "the header is nested without end" if isinstance(error, RecursionError) else cut(str(error))
        raise ValueError(f"expected a safetensors file, got {len(raw):,} bytes that are damaged: {reason}") from error
    arrays = {name: _array(values, header[name], name) for _, name in places}
    return {name: arrays[name] for name in header}, metadata


def _header(raw: bytes) -> tuple[dict[str, Any], memoryview]:
    size = int.from_bytes(raw[:8], "little")
    if size > len(raw) - 8:
        raise ValueError(f"cut short, a header of {size:,} bytes is announced")
    header = json.loads(raw[8 : 8 + size].decode(), object_pairs_hook=_once)
    return _dictionary(header, "the header"), memoryview(raw)[8 + size :]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name stands twice in the header")
    return entries


def _metadata(metadata: Any) -> dict[str, str]:
    if metadata is None:
        return {}
    for key, value in _dictionary(metadata, METADATA).items():
        if not isinstance(value, str):
            raise ValueError(f"{METADATA}: {short(key)}: expected a string, got {kind(value)}")
    return dict(metadata)


def _place(entry: Any, name: str) -> tuple[int, int]:
    """Where the values of an array lie. Raises ValueError unless they are as many as its shape tells."""
    if not {"dtype", "shape", "data_offsets"} <= _dictionary(entry, short(name)).keys():
        raise ValueError(f"{short(name)}: expected dtype, shape and data_offsets")
    if not isinstance(entry["dtype"], str):
        raise ValueError(f"{short(name)}: dtype: expected a string, got {kind(entry['dtype'])}")
    shape, offsets = (_counts(entry[key], f"{short(name)}: {key}") for key in ("shape", "data_offsets"))
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{short(name)}: data_offsets: expected a begin and an end")
    if entry["dtype"] in TYPES:
        size, there = math.prod(shape) * itemsize(TYPES[entry["dtype"]]), offsets[1] - offsets[0]
        if size != there:
            raise ValueError(f"{short(name)}: {there:,} bytes, expected {size:,} for shape {tuple(shape)}")
    return offsets[0], offsets[1]


def _array(values: memoryview, entry: dict[str, Any], name: str) -> Array:
    if entry["dtype"] not in TYPES:
        why = "which NumPy has not" if entry["dtype"] in OTHERS else "damaged or newer than this reader"
        known = "convert it to F32 where the file was written"
        raise ValueError(f"{short(name)}: numbers of the type {short(entry['dtype'])}, {why}: {known}")
    begin, end = entry["data_offsets"]
    return numbers(values[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"]).copy()


def _dictionary(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected an object, got {kind(value)}")
    return value


def _counts(value: Any, what: str) -> list[int]:
    if not isinstance(value, list) or len(value) > MOST_AXES:
        raise ValueError(f"{what}: expected a list of at most {MOST_AXES} numbers")
    if any(type(n) is not int or not 0 <= n < 1 << 48 for n in value):
        raise ValueError(f"{what}: expected whole numbers in [0, 2^48)")
    return value


def serialize(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file that holds these arrays, of NumPy, and these strings."""
    return save(dict(arrays), dict(metadata))
