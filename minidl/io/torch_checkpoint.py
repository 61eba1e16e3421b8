"""The checkpoints of PyTorch (.pth, .th, .pt), read without PyTorch and without running what they contain.

`torch.save` writes a pickle and the numbers of its tensors apart from each other. `torch_pickle` reads the pickle, in which
each tensor is a `StoredTensor`, a note of where its numbers lie; what it says is checked against the file before it is used.

Around the pickle there are two formats:

    zip     since PyTorch 1.6: an archive, nothing compressed, with the records NAME/data.pkl (the pickle), NAME/data/KEY
            (the numbers of one storage) and mostly NAME/byteorder ("little" or "big"), see `torch_zip`
    legacy  before: five pickles one behind the other (a magic number, 1001, facts about the machine, the content, a list of
            storage keys), then for each key 8 bytes with the count of its numbers, and the numbers, little-endian

A storage is a row of numbers of one type; a tensor is a window on it, x[i,j,...] = row[offset + i s0 + j s1 + ...], and
several tensors may share one. See torch/serialization.py and torch/_utils.py for the side that writes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minidl.array import Array
from minidl.io import file_kinds
from minidl.io.notes import Note, short, some
from minidl.io.number_types import itemsize, numbers
from minidl.io.torch_pickle import LARGEST, QUANTISED, Machine, Storage, StoredTensor, kind_of
from minidl.io.torch_zip import zip_records

MOST_COPIES = 1 << 20  # bytes of a tensor that repeats its numbers, if that makes it larger than the file
EXPECTED = "torch.save(model.state_dict(), path) writes what can be read"


def is_checkpoint(raw: bytes) -> bool:
    """Whether this looks like one of the formats, the tar files of PyTorch's first releases included."""
    return raw[:4] == b"PK\x03\x04" or file_kinds.is_legacy(raw) or file_kinds.is_first_tar(raw)


class Checkpoint:
    """The content of a checkpoint: dictionaries, lists, tuples, strings and numbers, a `StoredTensor` for each tensor, and a
    `Note` for everything else. A set is the list of its items, torch.device and torch.layout are strings.

    Raises ValueError where the file is damaged or of another kind. Nothing that it asks for is run: see above.
    """

    def __init__(self, raw: bytes) -> None:
        self.big_endian = False
        self._rows: dict[tuple[str, str], Array] = {}  # by key and type
        if raw[:4] == b"PK\x03\x04":
            self.content, self.records = self._read_zip(raw)
        elif file_kinds.is_legacy(raw):
            self.content, self.records = self._read_legacy(raw)
        elif file_kinds.is_first_tar(raw):
            raise ValueError("the tar format of PyTorch's first releases; let a later PyTorch load it and save it again")
        else:
            raise ValueError(f"expected a PyTorch checkpoint, got {file_kinds.describe(raw)}")
        self._most = max(len(raw), MOST_COPIES)

    def _read_zip(self, raw: bytes) -> tuple[Any, dict[str, memoryview]]:
        records = zip_records(raw)
        (pickled,) = (name for name in records if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = bytes(records.get(folder + "byteorder", b"little")[:20])
        if order not in (b"little", b"big"):
            raise ValueError(f"byteorder: expected little or big, got {order!r}")
        self.big_endian = order == b"big"
        data = {name.removeprefix(folder + "data/"): r for name, r in records.items() if name.startswith(folder + "data/")}
        return Machine(io.BytesIO(records[pickled])).run(), data

    def _read_legacy(self, raw: bytes) -> tuple[Any, dict[str, memoryview]]:
        stream = io.BytesIO(raw)
        _, version, _ = (Machine(stream).run() for _ in range(3))
        if version != 1001:
            raise ValueError("another version of PyTorch's legacy format than 1001")
        machine = Machine(stream)
        content, keys = machine.run(), Machine(stream).run()
        if not isinstance(keys, list) or any(not isinstance(key, str) or key not in machine.storages for key in keys):
            raise ValueError("the list of its storages names others than its tensors do")
        at, records = stream.tell(), {}
        for key in keys:
            size = machine.storages[key].count * _size(machine.storages[key].dtype)
            records[key] = memoryview(raw)[at + 8 : at + 8 + size]
            if raw[at : at + 8] != machine.storages[key].count.to_bytes(8, "little") or len(records[key]) < size:
                raise ValueError(f"storage {short(key)}: cut short, or of another size than its tensors expect")
            at += 8 + size
        return content, records

    def array(self, tensor: StoredTensor) -> Array:
        """The numbers of a tensor, as a view on the bytes of the file that cannot be written.

        bfloat16 and the types of 8 bits become float32, see `number_types`. Raises ValueError where the tensor reaches beyond
        its storage, or the storage beyond the file, and for a type that NumPy has not.
        """
        row, shape = self._row(tensor.storage, tensor.dtype), tensor.shape
        if 0 in shape:
            if math.prod(n for n in shape if n) * row.itemsize >= LARGEST:
                raise ValueError(f"a tensor of shape {shape}, which is too large although it is empty")
            return np.empty(shape, row.dtype)
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(shape, tensor.strides, strict=True))
        if last >= len(row):
            raise ValueError(f"a tensor of shape {shape} ends at number {last + 1:,} of {len(row):,} that are stored")
        if math.prod(shape) * row.itemsize > self._most and math.prod(shape) > len(row):
            raise ValueError(f"a tensor of shape {shape} that repeats {len(row):,} numbers, larger than the whole file")
        strides = [stride * row.itemsize for stride in tensor.strides]
        return np.ndarray(shape, row.dtype, row, tensor.offset * row.itemsize, strides)

    def _row(self, storage: Storage, dtype: str) -> Array:
        """All numbers of a storage, in the byte order of this machine."""
        size = _size(storage.dtype)
        if storage.key not in self.records:
            raise ValueError(f"storage {short(storage.key)}: missing")
        if (storage.key, dtype) not in self._rows:
            self._rows[storage.key, dtype] = numbers(self.records[storage.key], dtype, ">" if self.big_endian else "<")
        if (storage.first + storage.count) * size > len(self.records[storage.key]):
            there = len(self.records[storage.key]) // size
            raise ValueError(f"storage {short(storage.key)}: {there:,} numbers, expected {storage.first + storage.count:,}")
        begin, end = (n * size // itemsize(dtype) for n in (storage.first, storage.first + storage.count))
        return self._rows[storage.key, dtype][begin:end]


def state_dict(raw: bytes, key: str | None = None) -> dict[str, Any]:
    """The arrays of a checkpoint by their names, or those of its entry `key`; entries that are no tensors stay what they are.

    key: dots lead into an entry within an entry, "model.state_dict", but an entry whose own name has dots comes first; ""
    means the tensors that lie in no entry. Raises ValueError where there is no such entry, where a key is needed to choose
    one, and for a tensor that is not read, such as a quantised one.
    """
    checkpoint = Checkpoint(raw)
    content = checkpoint.content
    if not isinstance(content, dict):
        raise ValueError(f"holds a {kind_of(content)}, expected a dictionary of tensors: {EXPECTED}")
    places = _places(content)
    choices = " or ".join(f"key={short(path)} ({n} tensors)" for path, n in [*places.items()][:5])
    state = content if key is None else _entry(content, key)
    if not isinstance(state, dict) or not _tensors(state):
        holds = some([f"{short(name)} ({kind_of(value)})" for name, value in content.items()]) or "nothing"
        advice = f": pass {choices}" if choices else f": {EXPECTED}"
        if key is not None:
            expected = "expected the name of an entry with tensors"
            raise ValueError(f"key={short(key)}: {expected}; the checkpoint holds {holds}{advice}")
        if not choices:
            raise ValueError(f"holds no tensors, it holds {holds}{advice}")
    entries = any(isinstance(value, dict) and _tensors(value) for value in content.values())
    if key is None and (entries or "" not in places):
        raise ValueError(f"the weights lie in an entry of their own: pass {choices}")
    resolved = {name: _resolved(checkpoint, name, value) for name, value in state.items()}
    others = {str(name): value for name, value in resolved.items() if not isinstance(name, str)}
    return others | {name: value for name, value in resolved.items() if isinstance(name, str)}


def _resolved(checkpoint: Checkpoint, name: Any, value: Any) -> Any:
    if not _is_tensor(value):
        return value
    if not isinstance(name, str):
        raise ValueError("expected a dictionary of tensors by name, got one with numbers for names")
    if isinstance(value, Note):
        raise ValueError(f"{short(name)}: {value.what}, which is not read: save {value.instead} in its place")
    try:
        return checkpoint.array(value)
    except ValueError as error:
        raise ValueError(f"{short(name)}: {error}") from error


def _places(content: dict[Any, Any]) -> dict[str, int]:
    """How many tensors lie in which entries, "" for `content` itself: up to 4 deep, and no more than 1000 of each depth."""
    found, seen, level = dict[str, int](), {id(content)}, [("", content)]
    for _ in range(4):
        deeper = []
        for path, entry in _entries_within(level, seen):
            found[path] = _tensors(entry)
            deeper.append((path + ".", entry))
        level = deeper[:1000]
    return {path: n for path, n in (found | {"": _tensors(content)}).items() if n}


def _entries_within(level: list[tuple[str, dict[Any, Any]]], seen: set[int]) -> Iterator[tuple[str, dict[Any, Any]]]:
    for path, outer in level:
        for name, entry in outer.items():
            if isinstance(entry, dict) and isinstance(name, str) and len(name) <= 80 and id(entry) not in seen:
                seen.add(id(entry))
                yield path + name, entry


def _entry(content: dict[Any, Any], key: str) -> Any:
    """What stands under `key`, where dots may lead into dictionaries; None if there is nothing."""
    if key == "" or key in content:
        return content[key] if key in content else content
    for end in (i for i, letter in enumerate(key) if letter == "."):
        if isinstance(inner := content.get(key[:end]), dict) and key[end + 1 :]:
            found = _entry(inner, key[end + 1 :])
            if found is not None:
                return found
    return None


def _size(dtype: str) -> int:
    """Bytes of one number of a storage."""
    quantised = {f"torch.{kind.lower()}": size for kind, size in QUANTISED.items()}
    return quantised[dtype] if dtype in quantised else itemsize(dtype)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, StoredTensor) or (isinstance(value, Note) and bool(value.instead))


def _tensors(entry: Mapping[Any, Any]) -> int:
    return sum(map(_is_tensor, entry.values()))
