"""The checkpoints of PyTorch (.pth, .th, .pt), read without PyTorch and without running what they contain.

`torch.save` writes a pickle and the numbers of its tensors apart from each other. A pickle is a program for a small stack
machine: "push this string, push that function, call it". Python's machine finds and calls any function of any module that a
pickle names, so that opening the file of a stranger hands the computer over. The machine here knows 40 of the instructions
and the names in four tables; whatever else a pickle asks for is an error. It imports nothing and calls nothing but its own
methods: a tensor becomes a `StoredTensor`, a note of where its numbers lie, and what the note says is checked against the
file before it is used. Steps are counted and lengths are those of bytes that are there, so that neither time nor memory can
be had by claiming much.

Around the pickle there are two formats:

    zip     since PyTorch 1.6: an archive, nothing compressed, with the records NAME/data.pkl (the pickle), NAME/data/KEY
            (the numbers of one storage) and mostly NAME/byteorder ("little" or "big")
    legacy  before: five pickles one behind the other (a magic number, 1001, facts about the machine, the content, a list of
            storage keys), then for each key 8 bytes with the count of its numbers, and the numbers, little-endian

A storage is a row of numbers of one type; a tensor is a window on it, x[i,j,...] = row[offset + i s0 + j s1 + ...], and
several tensors may share one. See torch/serialization.py and torch/_utils.py for the side that writes.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.array import Array

MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # the number that begins the legacy format
MOST_STEPS = 2_000_000  # of a pickle: some 50 for a tensor, 400,000 for the 7,000 of resnet1202
MOST_RECORDS = 100_000  # of an archive
MOST_COPIES = 1 << 20  # bytes of a tensor that repeats its numbers, if that makes it larger than the file
LARGEST = 1 << 48  # of a count, size, stride or offset

KINDS = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Byte": "uint8",
    "Bool": "bool",
}
STORAGES = {f"{room}.{kind}Storage": dtype for kind, dtype in KINDS.items() for room in ("torch", "torch.cuda")}
STORAGES |= {"torch.storage.UntypedStorage": "uint8", "torch.UntypedStorage": "uint8"}
DTYPES = {f"torch.{dtype}": dtype for dtype in [*KINDS.values(), "uint16", "uint32", "uint64"]}
CALLS = {  # what may be called, and the method of `_Machine` that stands in for it
    "collections.OrderedDict": "dictionary",
    "collections.Counter": "dictionary",
    "builtins.set": "single",  # stays the list of its items
    "__builtin__.set": "single",
    "torch.Size": "single",  # stays a tuple
    "torch.device": "single",  # stays a string
    "torch.nn.parameter.Parameter": "parameter",
    "torch._utils._rebuild_parameter": "parameter",
    "torch._utils._rebuild_parameter_with_state": "parameter",
    "torch._utils._rebuild_tensor": "tensor",
    "torch._utils._rebuild_tensor_v2": "tensor",
    "torch._utils._rebuild_tensor_v3": "tensor_of_type",
}


@dataclass(frozen=True)
class Storage:
    """A row of `count` numbers: those of the storage `key` from number `first` on."""

    key: str
    dtype: str  # of NumPy, or "bfloat16"
    count: int
    first: int = 0


@dataclass(frozen=True)
class StoredTensor:
    """x[i,j,...] = row[offset + i strides[0] + j strides[1] + ...], the row taken as numbers of type `dtype`"""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Global:
    """A name that stands in the tables above, and nothing else: not what the name means elsewhere."""

    name: str


def is_checkpoint(raw: bytes) -> bool:
    """Whether this looks like one of the formats, the tar files of PyTorch's first releases included."""
    return raw[:4] == b"PK\x03\x04" or _is_legacy(raw) or _is_tar(raw)


class Checkpoint:
    """The content of a checkpoint: dictionaries, lists, tuples, strings and numbers, with a `StoredTensor` for each tensor.

    Raises ValueError where the file is damaged, where it holds anything else, a whole model for instance, and where it asks
    for anything to be run. Nothing is: see above.
    """

    def __init__(self, raw: bytes) -> None:
        self.big_endian = False
        self._rows: dict[tuple[str, str], Array] = {}  # by key and type
        if raw[:4] == b"PK\x03\x04":
            self.content, self.records = self._read_zip(raw)
        elif _is_legacy(raw):
            self.content, self.records = self._read_legacy(raw)
        elif _is_tar(raw):
            raise ValueError("the tar format of PyTorch's first releases; let a later PyTorch load it and save it again")
        else:
            raise ValueError(f"expected a PyTorch checkpoint, got {len(raw):,} bytes that begin with {raw[:8]!r}")
        self._most = max(len(raw), MOST_COPIES)

    def _read_zip(self, raw: bytes) -> tuple[Any, dict[str, memoryview]]:
        records = _zip_records(raw)
        names = [name for name in records if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(f"a zip archive with {len(names)} records data.pkl, expected 1: no PyTorch checkpoint")
        folder = names[0].removesuffix("data.pkl")
        if folder + "constants.pkl" in records:
            raise ValueError("a TorchScript program, expected a checkpoint: torch.save(model.state_dict(), path) writes one")
        order = bytes(records.get(folder + "byteorder", b"little"))
        if order not in (b"little", b"big"):
            raise ValueError(f"byteorder: expected little or big, got {order[:20]!r}")
        self.big_endian = order == b"big"
        data = {name.removeprefix(folder + "data/"): r for name, r in records.items() if name.startswith(folder + "data/")}
        return _Machine(io.BytesIO(records[names[0]])).run(), data

    def _read_legacy(self, raw: bytes) -> tuple[Any, dict[str, memoryview]]:
        stream = io.BytesIO(raw)
        _, version, _ = (_Machine(stream).run() for _ in range(3))
        if version != 1001:
            raise ValueError("another version of PyTorch's legacy format than 1001")
        machine = _Machine(stream)
        content, keys = machine.run(), _Machine(stream).run()
        if not isinstance(keys, list) or any(not isinstance(key, str) or key not in machine.storages for key in keys):
            raise ValueError("the list of its storages names others than its tensors do")
        at, records = stream.tell(), {}
        for key in keys:
            size = machine.storages[key].count * _itemsize(machine.storages[key].dtype)
            records[key] = memoryview(raw)[at + 8 : at + 8 + size]
            if raw[at : at + 8] != machine.storages[key].count.to_bytes(8, "little") or len(records[key]) < size:
                raise ValueError(f"storage {_short(key)}: cut short, or of another size than its tensors expect")
            at += 8 + size
        return content, records

    def array(self, tensor: StoredTensor) -> Array:
        """The numbers of a tensor, as a view on the bytes of the file that cannot be written; bfloat16 becomes float32.

        Raises ValueError where the tensor reaches beyond its storage, or the storage beyond the file.
        """
        row, shape = self._row(tensor.storage, tensor.dtype), tensor.shape
        if 0 in shape:
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
        if (storage.key, dtype) not in self._rows:
            if storage.key not in self.records:
                raise ValueError(f"storage {_short(storage.key)}: missing")
            record = self.records[storage.key]
            stored = np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder(">" if self.big_endian else "<")
            row = np.frombuffer(record, stored, len(record) // stored.itemsize)
            row = row.astype(stored.newbyteorder("="), copy=False)
            if dtype == "bfloat16":
                row = (row.astype(np.uint32) << 16).view(np.float32)  # the upper half of a float32
                row.flags.writeable = False
            self._rows[storage.key, dtype] = row
        size = _itemsize(storage.dtype)
        if (storage.first + storage.count) * size > len(self.records[storage.key]):
            there = len(self.records[storage.key]) // size
            raise ValueError(f"storage {_short(storage.key)}: {there:,} numbers, expected {storage.first + storage.count:,}")
        begin, end = (n * size // _itemsize(dtype) for n in (storage.first, storage.first + storage.count))
        return self._rows[storage.key, dtype][begin:end]


def state_dict(raw: bytes, key: str | None = None) -> dict[str, Any]:
    """The arrays of a checkpoint by their names, or those of its entry `key`; entries that are no tensors stay what they are.

    Raises ValueError where there is no such entry, and where a key is needed to choose one.
    """
    checkpoint = Checkpoint(raw)
    state = checkpoint.content
    if not isinstance(state, dict):
        raise ValueError(f"holds a {_kind(state)}, expected a dictionary of tensors")
    inner = [name for name, value in state.items() if isinstance(value, dict) and _tensors(value)]
    if key is not None:
        if not isinstance(state.get(key), dict) or not _tensors(state[key]):
            holds = ", ".join(f"{_short(name)} ({_kind(value)})" for name, value in list(state.items())[:10])
            raise ValueError(f"key={key!r}: expected the name of an entry with tensors; the checkpoint holds {holds}")
        state = state[key]
    elif inner:
        choices = " or ".join(f"key={_short(name)} ({_tensors(state[name])} tensors)" for name in inner[:5])
        raise ValueError(f"the weights lie in an entry of their own: pass {choices}")
    if any(not isinstance(name, str) for name in state):
        raise ValueError("expected a dictionary of tensors by name, got one with numbers for names")
    return {name: checkpoint.array(v) if isinstance(v, StoredTensor) else v for name, v in state.items()}


class _Machine:
    """Runs one pickle of a stream: see pickletools.py of Python for the instructions."""

    def __init__(self, stream: io.BytesIO) -> None:
        self.stream = stream
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}  # by key
        self.steps = 0

    def run(self) -> Any:
        """What the pickle describes; the stream then stands behind it. Raises ValueError for all that is not expected."""
        start = self.stream.tell()
        try:
            for instruction, argument, _ in pickletools.genops(self.stream):
                self.spend(1)
                self.step(instruction.name, argument)
            (content,) = self.stack
        except (ValueError, IndexError, TypeError, DeprecationWarning) as error:  # the last of a string with a strange escape
            place = f"in the pickle at byte {start:,}, step {self.steps:,}"
            raise ValueError(f"damaged, or no checkpoint of tensors: {error} ({place})") from error
        return content

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS:,} steps")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise ValueError(f"entry {argument} of the memo is used and not set")
                stack.append(self.memo[argument])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(name[-1])
                stack.append(tuple(stack.pop() for _ in range(n))[::-1])
            case "TUPLE":
                stack.append(tuple(self.since_mark()))
            case "MARK":
                self.marks.append(len(stack))
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                self.top(list).append(item)
            case "APPENDS" | "ADDITEMS":
                items = self.since_mark()
                self.top(list).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self.top(dict)[_name(key)] = value
            case "SETITEMS":
                items = self.since_mark()
                self.top(dict).update((_name(key), v) for key, v in zip(items[::2], items[1::2], strict=True))
            case "GLOBAL":
                stack.append(_known(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                item, room = stack.pop(), stack.pop()
                stack.append(_known(f"{_of(room, str)}.{_of(item, str)}"))
            case "REDUCE" | "NEWOBJ":  # f(*arguments), a class's __new__(*arguments)
                arguments, f = _of(stack.pop(), tuple), _of(stack.pop(), Global)
                if f.name not in CALLS:
                    raise ValueError(f"a call of {f.name}")
                stack.append(getattr(self, CALLS[f.name])(*arguments))
            case "BUILD":  # sets attributes, which are not needed: the versions of layers, hooks
                stack.pop()
                self.top(dict | StoredTensor)
            case "BINPERSID":
                stack.append(self.storage(*_of(stack.pop(), tuple)))
            case _:
                raise ValueError(f"the instruction {name}, which no checkpoint of tensors needs")

    def top(self, kind: Any) -> Any:
        return _of(self.stack[-1], kind)

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    # ---- what stands in for the functions that a checkpoint calls

    def dictionary(self, items: Any = ()) -> dict[Any, Any]:
        """OrderedDict(), or with a list of pairs, as Python 2 writes it."""
        self.spend(len(items))
        pairs = items.items() if isinstance(items, dict) else (_of(pair, list | tuple) for pair in items)
        return {_name(key): value for key, value in pairs}

    def single(self, value: Any) -> Any:
        return _of(value, list | tuple | str)

    def parameter(self, data: Any, *_: Any) -> StoredTensor:
        tensor: StoredTensor = _of(data, StoredTensor)
        return tensor

    def storage(self, word: Any, kind: Any, key: Any, _: Any, count: Any, view: Any = None) -> Storage:
        """("storage", type, key, device, count), in the legacy format also the (key, first, count) of a view or None."""
        dtype = STORAGES.get(_of(kind, Global).name)
        if word != "storage" or dtype is None:
            raise ValueError(f"a {_short(word)} of {kind.name}, expected a storage")
        whole = Storage(_of(key, str), dtype, _count(count))
        if self.storages.setdefault(whole.key, whole) != whole:
            raise ValueError(f"storage {_short(key)}: of two types or sizes")
        if view is None:
            return whole
        _, first, count = _of(view, tuple)
        return Storage(whole.key, dtype, _count(count), _count(first))

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> StoredTensor:
        """rest: requires_grad, hooks and metadata, the last where values are stored negated or conjugated"""
        if len(rest) > 2 and rest[2]:
            raise ValueError("a tensor that is stored negated or conjugated")
        storage, shape, strides = _of(storage, Storage), _of(shape, tuple), _of(strides, tuple)
        if len(shape) != len(strides) or len(shape) > 32:
            raise ValueError(f"a tensor of {len(shape)} sizes and {len(strides)} strides, expected as many and at most 32")
        sizes, steps = tuple(map(_count, shape)), tuple(map(_count, strides))
        return StoredTensor(storage, storage.dtype, _count(offset), sizes, steps)

    def tensor_of_type(
        self, storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *metadata: Any
    ) -> StoredTensor:
        """A tensor of a type that has no storages of its own: those are bytes."""
        tensor = self.tensor(storage, offset, shape, strides, grad, hooks, *metadata)
        if _of(dtype, Global).name not in DTYPES:
            raise ValueError(f"a tensor of type {dtype.name}")
        return StoredTensor(tensor.storage, DTYPES[dtype.name], tensor.offset, tensor.shape, tensor.strides)


def _known(name: str) -> Global:
    if name not in CALLS and name not in STORAGES and name not in DTYPES:
        expected = "only tensors, numbers, strings, dictionaries and lists of these, as torch.save(model.state_dict()) writes"
        raise ValueError(f"asks for {_short(name)}, expected {expected}")
    return Global(name)


def _of(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {_kind(value)} in the place of a {getattr(kind, '__name__', kind)}")
    return value


def _name(key: Any) -> str | int:
    """A key of a dictionary: strings, and numbers that cannot be chosen to have all the same hash."""
    if isinstance(key, str) or (isinstance(key, int) and key.bit_length() <= 60):
        return key
    raise ValueError(f"a {_kind(key)} as the name of an entry")


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(f"a count, size, stride or offset: expected a whole number in [0, 2^48), got a {_kind(value)}")
    return value


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _tensors(entry: Mapping[Any, Any]) -> int:
    return sum(isinstance(value, StoredTensor) for value in entry.values())


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, StoredTensor) else type(value).__name__


def _short(name: Any) -> str:
    """For messages: a name in quotes, its first 80 characters."""
    return repr(name[:80]) if isinstance(name, str) else _kind(name)


def _is_legacy(raw: bytes) -> bool:
    return raw[:1] == b"\x80" and MAGIC in raw[:24]  # behind the version of the pickle, and its length from version 4 on


def _is_tar(raw: bytes) -> bool:
    return raw[257:262] == b"ustar"


def _zip_records(raw: bytes) -> dict[str, memoryview]:
    """The records of an archive by name, as slices of it; nothing is unpacked, and no name reaches a file system.

    Raises ValueError unless every record lies whole, uncompressed and only once within the archive and has its checksum.
    """
    if raw.count(b"PK\x01\x02") > MOST_RECORDS:
        raise ValueError(f"a zip archive of more than {MOST_RECORDS:,} records")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OverflowError, struct.error) as error:
        raise ValueError(f"a zip archive that is damaged or cut short: {error}") from error
    if sum(entry.file_size for entry in entries) > len(raw):
        raise ValueError(f"a zip archive of {len(raw):,} bytes whose records claim more: compressed, lying, or overlapping")
    records: dict[str, memoryview] = {}
    for entry in entries:
        name, at = entry.filename, entry.header_offset
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise ValueError(f"{_short(name)}: compressed or encrypted, which no checkpoint is")
        if name in records:
            raise ValueError(f"{_short(name)}: twice in the archive")
        if raw[at : at + 4] != b"PK\x03\x04" or at + 30 > len(raw):
            raise ValueError(f"{_short(name)}: no record at byte {at:,}")
        lengths = struct.unpack_from("<HH", raw, at + 26)  # of the name and of what is put before the content to align it
        content = memoryview(raw)[at + 30 + sum(lengths) :][: entry.file_size]
        if len(content) < entry.file_size:
            raise ValueError(f"{_short(name)}: cut short")
        if entry.CRC not in (0, zlib.crc32(content)):  # 0 where PyTorch was told to save the time
            raise ValueError(f"{_short(name)}: damaged, its checksum differs")
        records[name] = content
    return records
