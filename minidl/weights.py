"""Weights and other named arrays: safetensors files are written and read, PyTorch's checkpoints are read.

Safetensors (https://huggingface.co/docs/safetensors) are 8 bytes that give the length of a JSON header, the header with the
type, shape and place of every array and a `__metadata__` of strings, then the values. No code runs when a file is read.

The files written here carry a digest of all that they hold in their metadata, and a file that has one is checked.
Checkpoints of PyTorch are the matter of `torch_checkpoint`, weights that almost fit of `adapt`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from minidl import adapt, files, torch_checkpoint
from minidl.array import Array, is_array, to_cpu

if TYPE_CHECKING:
    from minidl.nn import Module

Path = str | os.PathLike[str]
DIGEST = "sha256"  # its key in the metadata


def save(model: Module, path: Path) -> None:
    """Write the parameters and buffers of `model`. On an error, such as a full disk, a previous file stays as it was."""
    save_arrays(path, model.state_dict(), {"model": type(model).__name__})


def load(
    model: Module,
    path: Path,
    strict: bool = True,
    *,
    key: str | None = None,
    prefix: str = "",
    skip: str | Sequence[str] = (),
    adapt_input: bool = False,
) -> tuple[list[str], list[str]]:
    """Read parameters and buffers into `model` from a safetensors file or a PyTorch checkpoint (.pth, .th, .pt).

    The content of the file tells which it is. No code of a checkpoint is run, see `torch_checkpoint`. The options say in
    what the weights are not quite those of this model, and an error names the option that would help:

    key: the entry of the checkpoint that holds the weights, such as "state_dict", where it holds more than those.
    prefix: what the names begin with in the file and not in the model, such as "module.".
    skip: one or several layers, such as "fc", which keep the values that they have: a head for other classes. Their names
        are among the missing ones that are returned.
    adapt_input: fit the first convolution to the model's number of input channels, so that a grey picture gives what it gave
        before: w'[:,n] = (1/N) sum_c w[:,c], for one channel the sum, for N their mean, repeated and rescaled.
    strict: with False, names that are missing or unexpected are no error, as in `Module.load_state_dict`.

    Returns (missing, unexpected) names. Raises ValueError, and changes nothing, where the file is damaged or the weights are
    those of another model.
    """
    raw = _read(path)
    mine = model._state()
    layers = [skip] if isinstance(skip, str) else list(skip)
    try:
        if torch_checkpoint.is_checkpoint(raw):
            state = torch_checkpoint.state_dict(raw, key)
        elif key is None:
            state, _ = _parse(raw)
        else:
            raise ValueError(f"key={key!r}: a safetensors file holds the weights and no other entries")
        state, left_out = adapt.without(adapt.strip(state, prefix), mine, layers)
        state = adapt.count_from_zero(adapt.fit_input(state, mine) if adapt_input else state, mine)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        missing, unexpected = model.load_state_dict(state, strict)
    except ValueError as error:
        advice = "; ".join(adapt.advice(state, mine))
        what = f"holds the weights of another model than this one{advice and f' ({advice})'}"
        raise ValueError(f"{path}: {what}: {error}") from error
    return [name for name in mine if name in {*missing, *left_out}], unexpected


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
    try:
        return _parse(_read(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _parse(raw: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    try:
        arrays = parse(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a safetensors file, got {len(raw):,} bytes that are damaged: {error}") from error
    metadata: dict[str, str] = header.get("__metadata__") or {}
    digest = metadata.pop(DIGEST, None)
    if digest is not None and digest != _digest(arrays, metadata):
        raise ValueError(f"damaged, its values are not those that were written (the {DIGEST} differs)")
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
