"""Weights and other named arrays in safetensors files.

The format (https://huggingface.co/docs/safetensors): 8 bytes that give the length of a JSON header, the header with the
type, shape and place of every array and a `__metadata__` of strings, then the values. No code runs when a file is read.

The files written here carry a digest of all that they hold in their metadata, and a file that has one is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from minidl import files
from minidl.array import Array, is_array, to_cpu

if TYPE_CHECKING:
    from minidl.nn import Module

Path = str | os.PathLike[str]
DIGEST = "sha256"  # its key in the metadata


def save(model: Module, path: Path) -> None:
    """Write the parameters and buffers of `model`. On an error, such as a full disk, a previous file stays as it was."""
    save_arrays(path, model.state_dict(), {"model": type(model).__name__})


def load(model: Module, path: Path, strict: bool = True) -> tuple[list[str], list[str]]:
    """Read parameters and buffers into `model`, as `Module.load_state_dict` does: returns (missing, unexpected) names.

    Raises ValueError, and changes nothing, where the file is damaged or the weights are those of another model.
    """
    arrays, _ = load_arrays(path)
    try:
        return model.load_state_dict(arrays, strict)
    except ValueError as error:
        raise ValueError(f"{path}: holds the weights of another model than this one: {error}") from error


def save_arrays(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays of numbers, of any shape, and metadata of strings.

    The file appears as a whole or not at all: raises OSError with the reason, on a full disk for instance, and a previous
    file stays as it was.
    """
    content = {name: _checked(name, a) for name, a in arrays.items()}
    words = dict(metadata or {})
    for key, value in words.items():
        if not isinstance(key, str) or not isinstance(value, str) or key == DIGEST:
            raise TypeError(f"metadata: expected strings under names other than {DIGEST!r}, got {key!r}: {value!r}")
    raw = serialise(content, {**words, DIGEST: _digest(content, words)})
    try:
        files.write(path, raw)
    except OSError as error:
        reason = f"could not write {len(raw):,} bytes to {path}: {error.strerror}; what was there before is unchanged"
        raise OSError(error.errno, reason) from error


def load_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    Raises FileNotFoundError where there is none, and ValueError where it is damaged: cut short, no safetensors at all, or,
    if it was written here, changed anywhere.
    """
    with open(path, "rb") as file:
        raw = file.read()
    try:
        arrays = parse(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a safetensors file, got {len(raw):,} bytes that are damaged: {error}") from error
    metadata: dict[str, str] = header.get("__metadata__") or {}
    digest = metadata.pop(DIGEST, None)
    if digest is not None and digest != _digest(arrays, metadata):
        raise ValueError(f"{path}: damaged, its values are not those that were written (the {DIGEST} differs)")
    return arrays, metadata


def _checked(name: str, a: Array) -> Array:
    """The array as the format needs it: on the CPU, its values one behind the other and in the byte order of the machine."""
    if not is_array(a) or a.dtype.kind not in "fiub" or a.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected an array of numbers, got {a.dtype if is_array(a) else type(a).__name__}")
    return np.asarray(to_cpu(a), a.dtype.newbyteorder("="), order="C")


def _digest(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """sha256 of all names, types, shapes, values and metadata, whatever their order."""
    forms = [(name, arrays[name].dtype.str, arrays[name].shape) for name in sorted(arrays)]
    digest = hashlib.sha256(json.dumps([sorted(metadata.items()), forms]).encode())
    for name, _, _ in forms:
        digest.update(arrays[name].reshape(-1).view(np.uint8))
    return digest.hexdigest()
