"""A pickle of PyTorch, read without running what it contains.

A pickle is a program for a small stack machine: "push this string, push that function, call it". Python's machine finds and
calls any function of any module that a pickle names, so that opening the file of a stranger hands the computer over. The
machine here imports nothing and calls nothing but its own methods, for the names in one table. A tensor becomes a
`StoredTensor`, a note of where its numbers lie. Whatever else is named, called or built, an argparse.Namespace beside the
weights for instance, becomes a `Note` of its name.

Time and memory are bounded by the size of the file, whatever a pickle claims: every step takes its bytes from the file, what a
step copies is counted, equal strings are one object, the memo is a list, and no name of a dictionary has a hash that could be
chosen, see `Machine.put`.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass
from typing import Any

from minidl.io.notes import Note, cut, kind, short
from minidl.io.number_types import NAMES

MOST_STEPS = 2_000_000  # of a pickle, and one more for every 2 bytes of the file: some 50 for a tensor
MOST_NUMBERS = 1000  # as names of one dictionary, those that count on from 0 aside
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
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
QUANTISED = {"QInt8": 1, "QUInt8": 1, "QInt32": 4, "QUInt4x2": 1, "QUInt2x4": 1}  # and the bytes of one number
STORAGES = {f"{room}.{kind}Storage": dtype for kind, dtype in KINDS.items() for room in ("torch", "torch.cuda")}
STORAGES |= {f"{room}.{kind}Storage": f"torch.{kind.lower()}" for kind in QUANTISED for room in ("torch", "torch.cuda")}
STORAGES |= {"torch.storage.UntypedStorage": "uint8", "torch.UntypedStorage": "uint8"}
DTYPES = {f"torch.{dtype}": dtype for dtype in NAMES}
CALLS = {  # what may be called, and the method of `Machine` that stands in for it
    "collections.OrderedDict": "dictionary",
    "collections.Counter": "dictionary",
    "collections.defaultdict": "default_dictionary",
    "builtins.set": "items",
    "builtins.frozenset": "items",
    "builtins.complex": "complex",
    "builtins.bytes": "bytes",
    "builtins.bytearray": "bytes",
    "_codecs.encode": "bytes",
    "torch.Size": "sizes",
    "torch.device": "device",
    "torch.serialization._get_layout": "layout",
    "torch.nn.parameter.Parameter": "parameter",
    "torch._utils._rebuild_parameter": "parameter",
    "torch._utils._rebuild_parameter_with_state": "parameter",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "parameter",
    "torch._utils._rebuild_tensor": "tensor",
    "torch._utils._rebuild_tensor_v2": "tensor",
    "torch._utils._rebuild_tensor_v3": "tensor_of_type",
    "torch._tensor._rebuild_from_type": "tensor_of_class",
    "torch._tensor._rebuild_from_type_v2": "tensor_of_class",
}
UNREAD = {  # what else gives a tensor, and what to do about it
    "torch._utils._rebuild_qtensor": ("a quantised tensor", "x.dequantize()"),
    "torch._utils._rebuild_sparse_tensor": ("a sparse tensor", "x.to_dense()"),
    "torch._utils._rebuild_sparse_csr_tensor": ("a sparse tensor", "x.to_dense()"),
    "torch._utils._rebuild_nested_tensor": ("a nested tensor", "x.to_padded_tensor(0)"),
    "torch.nested._internal.nested_tensor._rebuild_njt": ("a nested tensor", "x.to_padded_tensor(0)"),
    "torch._utils._rebuild_meta_tensor_no_storage": ("a tensor on the device meta", "a tensor with numbers"),
    "torch._utils._rebuild_wrapper_subclass": ("a tensor of a class of its own", "a plain tensor"),
    "torch._utils._rebuild_device_tensor_from_numpy": ("a tensor of another device", "x.cpu()"),
    "torch._utils._rebuild_xla_tensor": ("a tensor of another device", "x.cpu()"),
}
FIRST_NAMES_IT = ("copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__", "copy_reg._reconstructor")
ENCODINGS = ("latin1", "latin-1")  # of bytes in pickles of Python 2


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

    what: str


_UNSET = object()


class Machine:
    """Runs one pickle of a stream: see pickletools.py of Python for the instructions."""

    def __init__(self, stream: io.BytesIO) -> None:
        self.stream = stream
        self.size = len(stream.getbuffer())
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: list[Any] = []
        self.storages: dict[str, Storage] = {}  # by key
        self.same: dict[str | bytes, Any] = {}  # the first of all equal strings, which are then compared at a glance
        self.chosen: dict[int, tuple[dict[Any, Any], int]] = {}  # how many chosen numbers are names, by id of the dictionary
        self.steps = self.copied = 0

    def run(self) -> Any:
        """What the pickle describes; the stream then stands behind it. Raises ValueError for all that is not expected."""
        start = self.stream.tell()
        try:
            for instruction, argument, _ in pickletools.genops(self.stream):
                self.steps += 1
                if self.steps > MOST_STEPS + self.size // 2:
                    raise ValueError(f"more than {MOST_STEPS + self.size // 2:,} steps")
                self.step(instruction.name, argument)
            if len(self.stack) != 1:
                raise ValueError(f"ends with {len(self.stack)} values, expected 1")
        # the last two: of a string with a strange escape, and of a float that is too large
        except (ValueError, IndexError, TypeError, DeprecationWarning, OverflowError) as error:
            place = f"in the pickle at byte {start:,}, step {self.steps:,}"
            raise ValueError(f"damaged, or no checkpoint of tensors: {cut(str(error))} ({place})") from error
        return self.stack[0]

    def copy(self, n: int) -> None:
        """Count what a call copies. A pickle that was written holds it once, so that the file is larger."""
        self.copied += n
        if self.copied > self.size:
            raise ValueError(f"more than {self.size:,} items that are copied")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "BININT1" | "BININT" | "BININT2" | "LONG1" | "LONG4" | "INT" | "LONG" | "BINFLOAT" | "FLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "UNICODE":
                stack.append(self.same.setdefault(argument, argument))
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.put_memo(argument)
            case "MEMOIZE":
                self.put_memo(len(self.memo))
            case "BINGET" | "LONG_BINGET" | "GET":
                item = self.memo[argument] if 0 <= argument < len(self.memo) else _UNSET
                if item is _UNSET:
                    raise ValueError(f"entry {argument} of the memo is used and not set")
                stack.append(item)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "MARK":
                self.marks.append(len(stack))
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(name[-1])
                if len(stack) < n:
                    raise ValueError(f"a tuple of {n} values, there are {len(stack)}")
                stack[-n:] = [tuple(stack[-n:])]
            case "TUPLE":
                stack.append(tuple(self.since_mark()))
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "LIST" | "FROZENSET":
                stack.append(self.since_mark())
            case "APPEND":
                self.extend([stack.pop()])
            case "APPENDS" | "ADDITEMS":
                self.extend(self.since_mark())
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = self.since_mark()
                stack.append({})
                self.put(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self.put([key, value])
            case "SETITEMS":
                self.put(self.since_mark())
            case "GLOBAL":
                stack.append(_named(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                item, room = stack.pop(), stack.pop()
                stack.append(_named(f"{_of(room, str)[:100]}.{_of(item, str)[:100]}"))
            case "REDUCE" | "NEWOBJ":  # f(*arguments), a class's __new__(*arguments)
                arguments, f = stack.pop(), stack.pop()
                stack.append(self.call(f, _of(arguments, tuple)))
            case "NEWOBJ_EX":
                _, _, f = stack.pop(), stack.pop(), stack.pop()
                stack.append(Note(_of(f, Note | Global).what))
            case "OBJ":
                f, *_ = self.since_mark()
                stack.append(Note(_of(f, Note | Global).what))
            case "INST":
                self.since_mark()
                stack.append(Note(argument.replace(" ", ".")))
            case "BUILD":  # sets attributes, which are not needed: the versions of layers, hooks
                state = stack.pop()
                built = _of(stack[-1], dict | StoredTensor | Note)
                if isinstance(built, Note) and isinstance(state, dict) and {"_parameters", "_modules"} <= state.keys():
                    built.what = f"a whole model of the class {short(built.what)}"
            case "BINPERSID":
                stack.append(self.persistent(_of(stack.pop(), tuple)))
            case "BINSTRING" | "SHORT_BINSTRING" | "STRING":
                item = _string_of_python_2(argument)
                stack.append(self.same.setdefault(item, item))
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
                item = bytes(argument)
                stack.append(self.same.setdefault(item, item))
            case "POP":
                if self.marks and self.marks[-1] == len(stack):
                    self.marks.pop()
                else:
                    stack.pop()
            case "POP_MARK":
                self.since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:  # EXT1, PERSID, NEXT_BUFFER, ...
                raise ValueError(f"the instruction {name}, which points at what is not in the file")

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def put_memo(self, index: int) -> None:
        """Entries are numbered as they come, so that none has a larger number than there are bytes before it."""
        if not 0 <= index <= self.stream.tell():
            raise ValueError("an entry of the memo with a number that is too large")
        self.memo += [_UNSET] * (index + 1 - len(self.memo))
        self.memo[index] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        target = _of(self.stack[-1], list | Note)
        if isinstance(target, list):
            target += items

    def put(self, items: list[Any]) -> None:
        """Names and values, in turns, into the dictionary on top of the stack.

        The hash of a string cannot be chosen, that of a number or a tuple can: 100,000 with the same one cost seconds. So a
        dictionary has no more than MOST_NUMBERS of these for names; further ones become notes, which are hashed by their
        place in memory. Numbers that count on from 0 are not chosen: below the size of its table, no two fall together.
        """
        target = _of(self.stack[-1], dict | Note)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(target, dict):
                target[key if isinstance(key, str) else self.name(key, target)] = value

    def name(self, key: Any, target: dict[Any, Any]) -> Any:
        if key is None or isinstance(key, bool | bytes | Global | Note):
            return key
        if type(key) is int and 0 <= key < len(target) + 1000:
            return key
        if not _is_small(key) and not (type(key) is tuple and len(key) <= 8 and all(map(_is_small, key))):
            return Note(f"a {kind_of(key)} as a name")
        _, n = self.chosen.get(id(target), (target, 0))
        self.chosen[id(target)] = target, n + 1
        return key if n < MOST_NUMBERS else Note(f"a {kind_of(key)} as a name")

    # ---- what stands in for the functions that a checkpoint calls

    def call(self, f: Any, arguments: tuple[Any, ...]) -> Any:
        name = _of(f, Global | Note).what
        if name in UNREAD:
            return Note(*UNREAD[name])
        if isinstance(f, Note):
            of_class = name in FIRST_NAMES_IT or name.endswith("multiarray._reconstruct")
            named = arguments[0] if of_class and arguments and isinstance(arguments[0], Global | Note) else f
            return Note(named.what)
        if name not in CALLS:
            raise ValueError(f"a call of {name}")
        if len(arguments) > 8:
            raise ValueError(f"a call of {name} with {len(arguments):,} arguments")
        try:
            return getattr(self, CALLS[name])(*arguments)
        except TypeError as error:
            raise ValueError(f"a call of {name} with {len(arguments)} arguments, not those that it takes") from error

    def dictionary(self, items: Any = ()) -> dict[Any, Any]:
        """OrderedDict(), or with a list of pairs, as Python 2 writes it; Counter(dictionary)."""
        if isinstance(items, dict):
            return items
        self.copy(len(_of(items, list | tuple)))
        self.stack.append({})
        for pair in items:
            key, value = _of(pair, list | tuple)
            self.put([key, value])
        return self.stack.pop()

    def default_dictionary(self, _: Any = None) -> dict[Any, Any]:
        return {}

    def items(self, items: Any = ()) -> Any:
        return _of(items, list | tuple)

    def sizes(self, sizes: Any = ()) -> Any:
        return _of(sizes, tuple)

    def complex(self, re: Any, im: Any) -> complex:
        return complex(_of(re, int | float), _of(im, int | float))

    def bytes(self, content: Any = b"", encoding: Any = "latin1") -> Any:
        """bytes and a bytearray, which Python 2 writes as a string of the characters of latin-1."""
        if isinstance(content, str) and encoding in ENCODINGS:
            self.copy(len(content))
            content = content.encode("latin-1")
        return self.same.setdefault(_of(content, bytes), content)

    def device(self, kind: Any, index: Any = None) -> str:
        """torch.device("cuda", 0) is "cuda:0"."""
        name: str = _of(kind, str)[:80]
        return name if index is None else f"{name}:{_count(index)}"

    def layout(self, name: Any) -> Any:
        return _of(name, str)

    def parameter(self, data: Any, *_: Any) -> Any:
        """A parameter, with or without requires_grad, hooks and a state, is its tensor."""
        return _of(data, StoredTensor | Note)

    def persistent(self, words: tuple[Any, ...]) -> Any:
        """("storage", type, key, device, count), in the legacy format also the (key, first, count) of a view or None; and
        ("module", class, file, source), which older versions write with a whole model."""
        word, *rest = words[:8]
        if word == "module" and rest:
            return _of(rest[0], Note | Global)
        if word != "storage" or not 4 <= len(rest) <= 5:
            raise ValueError(f"a {short(word)} with {len(rest)} facts, expected a storage")
        view = rest[4] if len(rest) > 4 else None
        of_type, key, _, count = rest[:4]
        name = _of(of_type, Global | Note).what
        if isinstance(of_type, Global) and name not in STORAGES:
            raise ValueError(f"a storage of {name}")
        whole = Storage(_of(key, str), STORAGES.get(name, name), _count(count))
        if self.storages.setdefault(whole.key, whole) != whole:
            raise ValueError(f"storage {short(key)}: of two types or sizes")
        if view is None:
            return whole
        _, first, count = _of(view, tuple)
        return Storage(whole.key, whole.dtype, _count(count), _count(first))

    def tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, grad: Any = None, hooks: Any = None, metadata: Any = None
    ) -> StoredTensor | Note:
        """metadata: set where values are stored negated or conjugated"""
        if metadata:
            return Note("a tensor stored negated or conjugated", "x.resolve_conj().resolve_neg()")
        storage, shape, strides = _of(storage, Storage), _of(shape, tuple), _of(strides, tuple)
        if len(shape) != len(strides) or len(shape) > 32:
            raise ValueError(f"a tensor of {len(shape)} sizes and {len(strides)} strides, expected as many and at most 32")
        sizes, steps = tuple(map(_count, shape)), tuple(map(_count, strides))
        return StoredTensor(storage, storage.dtype, _count(offset), sizes, steps)

    def tensor_of_type(
        self, storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
    ) -> StoredTensor | Note:
        """A tensor of a type that has no storages of its own: those are bytes."""
        tensor = self.tensor(storage, offset, shape, strides, grad, hooks, metadata)
        if isinstance(tensor, Note):
            return tensor
        name = _of(dtype, Global | Note).what
        return StoredTensor(tensor.storage, DTYPES.get(name, name), tensor.offset, tensor.shape, tensor.strides)

    def tensor_of_class(self, f: Any, of_class: Any, arguments: Any, state: Any = None) -> Any:
        """f(*arguments), a tensor that is then given another class, or attributes."""
        if CALLS.get(_of(f, Global | Note).what) == "tensor_of_class":
            raise ValueError("a tensor of a class of a class")
        tensor = self.call(f, _of(arguments, tuple))
        if isinstance(tensor, Note) and not tensor.instead:
            return Note(f"a tensor of the class {_of(of_class, Global | Note).what}", "a plain tensor")
        return tensor


def _named(name: str) -> Global | Note:
    if name.startswith("__builtin__."):  # of Python 2
        name = name.replace("__builtin__", "builtins", 1)
    name = cut(name, 200)
    return Global(name) if name in CALLS or name in UNREAD or name in STORAGES or name in DTYPES else Note(name)


def _of(value: Any, kinds: Any) -> Any:
    if not isinstance(value, kinds):
        expected = " or ".join(k.__name__ for k in getattr(kinds, "__args__", (kinds,)))
        raise ValueError(f"a {kind_of(value)} in the place of a {expected}")
    return value


def _is_small(key: Any) -> bool:
    """Whether this is a plain value whose hash costs little."""
    return key is None or isinstance(key, str | bytes | float | complex) or (isinstance(key, int) and key.bit_length() <= 128)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LARGEST:
        raise ValueError(f"a count, size, stride or offset: expected a whole number in [0, 2^48), got a {kind_of(value)}")
    return value


def _string_of_python_2(argument: str) -> str | bytes:
    """Its strings are bytes. As PyTorch does, they are read as UTF-8 where they are that."""
    raw = argument.encode("latin-1")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def kind_of(value: Any) -> str:
    return "tensor" if isinstance(value, StoredTensor) else kind(value)
