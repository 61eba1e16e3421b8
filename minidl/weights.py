"""Weights and other named arrays: safetensors files are written and read, PyTorch's checkpoints are read.

The files written here carry two entries in their metadata: the number of their format, so that what a later minidl writes is
not misread, and a digest of all that they hold, which is checked. Files from elsewhere have neither. Safetensors are read by
`safetensors_file`, checkpoints of PyTorch by `torch_checkpoint`; weights that almost fit are the matter of `adapt`.

    format      since
    none        files from elsewhere, and those that were written before there were numbers: read as 1
    1           arrays and strings as they are, the digest over both
"""

from __future__ import annotations

import errno
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minidl.arguments import flag, mapping
from minidl.array import Array, is_array, to_cpu
from minidl.io import adapt, files, safetensors_file, torch_checkpoint
from minidl.io.files import Path
from minidl.io.notes import short, some
from minidl.nn.module import Module, check_model

DIGEST, FORMAT = "sha256", "minidl_format"  # keys in the metadata
NEWEST = 1  # format
ENDINGS = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt")  # of files of weights


def save(model: Module, path: Path) -> None:
    """Write the parameters and buffers of `model`. On an error, such as a full disk, a previous file stays as it was.

    Raises TypeError for what is no Module, and OSError where the file could not be written.
    """
    check_model(model)
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

    key: the entry of the checkpoint that holds the weights, such as "state_dict", where it holds more than those; dots lead
        into an entry within an entry, "model.state_dict"; "" means those that lie in no entry.
    prefix: what the names begin with in the file and not in the model, such as "module.".
    skip: one or several layers, such as "fc", which keep the values that they have: a head for other classes. Their names
        are among the missing ones that are returned.
    adapt_input: fit the first convolution to the model's number of input channels, so that a grey image gives what it gave
        before: w'[:,n] = (1/N) sum_c w[:,c], for one channel the sum, for N their mean, repeated and rescaled.
    strict: with False, names that are missing or unexpected are no error, as in `Module.load_state_dict`, unless all are.

    bfloat16 and floats of 8 bits are read as float32. Returns (missing, unexpected) names. Raises ValueError, and changes
    nothing, where the file is damaged or of another kind, and where the weights are those of another model, TypeError for
    what is no Module, or neither True nor False, OSError where the file cannot be read, or is a folder.
    """
    check_model(model)
    return fill(model, load_state(path, key=key, prefix=prefix), path, strict, skip=skip, adapt_input=adapt_input)


def fill(
    model: Module,
    state: Mapping[str, Any],
    path: Path,
    strict: bool = True,
    *,
    skip: str | Sequence[str] = (),
    adapt_input: bool = False,
) -> tuple[list[str], list[str]]:
    """Put the named arrays that `load_state` read from the file `path` into `model`.

    All else is as of `load`: raises ValueError, and changes nothing, where the weights are those of another model, and
    TypeError for `strict` or `adapt_input` that is neither True nor False.
    """
    strict, adapt_input, mine = flag(strict, "strict"), flag(adapt_input, "adapt_input"), model._state()
    layers = [skip] if isinstance(skip, str) else list(skip)
    came = adapt.joined(state, mine)
    try:
        state, left_out = adapt.without(came, mine, layers)
        state = adapt.count_from_zero(adapt.fit_input(state, mine) if adapt_input else state, mine)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    wanted = [name for name in mine if name not in left_out]
    if wanted and not any(name in came for name in wanted):
        names = f"it holds {_first(came)}, the model {_first(wanted)}"
        raise ValueError(f"{path}: holds no entry of this model{_advice(came, mine)}: {names}")
    try:
        missing, unexpected = model.load_state_dict(state, strict)
    except ValueError as error:
        what = f"holds the weights of another model than this one{_advice(state, mine)}"
        raise ValueError(f"{path}: {what}: {error}") from error
    return [name for name in mine if name in {*missing, *left_out}], unexpected


def load_state(path: Path, *, key: str | None = None, prefix: str = "") -> dict[str, Any]:
    """The named arrays, of any shape, in a file that `load` reads, without `prefix`; a `Note` for what is none.

    What it takes and raises is as of `load`.
    """
    raw = _read(path)
    try:
        if torch_checkpoint.is_checkpoint(raw):
            state = torch_checkpoint.state_dict(raw, key)
        elif key is None:
            state, _ = _parse(raw)
        else:
            raise ValueError(f"key={key!r}: a safetensors file holds the weights and no other entries")
        return adapt.strip(state, prefix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _advice(state: Mapping[str, Any], mine: Mapping[str, Array]) -> str:
    advice = "; ".join(adapt.advice(state, mine))
    return advice and f" ({advice})"


def _first(names: Iterable[str]) -> str:
    return some([short(name) for name in names], 3) or "nothing"


def save_arrays(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write named arrays of numbers, of any shape, and metadata of strings.

    The file appears as a whole or not at all: raises OSError with the reason, on a full disk for instance, and a previous
    file stays as it was. Raises TypeError for what are no arrays of numbers, or no strings.
    """
    content = {name: _checked(name, a) for name, a in mapping(arrays, "arrays", "name -> array").items()}
    words = {} if metadata is None else dict(mapping(metadata, "metadata", "name -> text"))
    for key, value in words.items():
        if not isinstance(key, str) or not isinstance(value, str) or key in (DIGEST, FORMAT):
            reserved = f"{DIGEST!r} and {FORMAT!r}"
            raise TypeError(f"metadata: expected strings under names other than {reserved}, got {key!r}: {value!r}")
    words[FORMAT] = str(NEWEST)
    raw = safetensors_file.serialize(content, {**words, DIGEST: _digest(content, words)})
    try:
        files.write(path, raw)
    except OSError as error:
        reason = f"could not write {len(raw):,} bytes to {path}: {error.strerror}; what was there before is unchanged"
        raise OSError(error.errno, reason) from error


def load_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays, of any shape, and the metadata of a safetensors file; bfloat16 and floats of 8 bits become float32.

    Raises FileNotFoundError where there is none, IsADirectoryError for a folder, and ValueError where it is damaged, cut short
    or another kind of file, where a newer minidl has written it, and, if it was written here, where anything has changed.
    """
    try:
        return _parse(_read(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    path = pathlib.Path(path)
    if path.is_dir():
        inside = some(sorted(p.name for p in path.iterdir() if p.suffix in ENDINGS), 3) or "none by its name"
        raise IsADirectoryError(errno.EISDIR, f"a folder, expected a file of weights; those in it are {inside}", str(path))
    return path.read_bytes()


def _parse(raw: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    arrays, metadata = safetensors_file.read(raw)
    number = metadata.get(FORMAT, "1")
    if not number.isdecimal() or not number.isascii() or int(number[:9]) < 1:
        raise ValueError(f"damaged, {FORMAT}: expected a whole number from 1 on, got {short(number)}")
    if int(number[:9]) > NEWEST:
        raise ValueError(f"written by a newer minidl: format {number[:9]}, this one reads up to {NEWEST}; install a newer one")
    digest = metadata.pop(DIGEST, None)
    if digest is not None and digest != _digest(arrays, metadata):
        raise ValueError(f"damaged, its values are not those that were written (the {DIGEST} differs)")
    metadata.pop(FORMAT, None)
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
        digest.update(arrays[name].reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
