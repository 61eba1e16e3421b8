import argparse
import collections
import datetime
import decimal
import enum
import functools
import io
import os
import pathlib
import pickle
import re
import struct
import sys
import time
import tracemalloc
import typing
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.io import torch_checkpoint, torch_pickle
from minidl.io.torch_checkpoint import Checkpoint, state_dict
from minidl.io.torch_pickle import StoredTensor
from tests.io.checkpoints.by_hand import (
    SIX,
    call,
    entries,
    legacy,
    name,
    number,
    numbers,
    pickled,
    row,
    several,
    tensor,
    text,
    zipped,
)
from tests.io.checkpoints.make import FOLDER, all_types, small_net

FILES = {name: (FOLDER / name).read_bytes() for name in ("small.pth", "small.th", "types.pth", "types.th")}


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


BOTH = pytest.mark.parametrize("written", [zipped, legacy])


# ---- what PyTorch wrote


@pytest.mark.parametrize("file", ["small.pth", "small.th"])
def test_a_checkpoint_of_a_small_net(file):
    content = Checkpoint(FILES[file]).content
    assert list(content) == ["state_dict", "best_prec1"] and content["best_prec1"] == 91.25
    state = state_dict(FILES[file], "state_dict")
    assert state.keys() == {f"module.{n}" for n in small_net()}
    assert all(same(state[f"module.{n}"], a) for n, a in small_net().items())


@pytest.mark.parametrize("file", ["types.pth", "types.th"])
def test_all_types_and_views(file):
    state = state_dict(FILES[file])
    assert state.keys() == all_types().keys()
    for n, a in all_types().items():
        assert same(state[n], a), n
        assert a.size == 0 or not state[n].flags.writeable
    assert np.shares_memory(state["shared"], state["float32"])


TORCH_TYPES = [*"float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 bool uint16 uint32 uint64".split()]


@st.composite
def views(draw, torch):
    """A tensor of any type, cut, transposed, and sometimes repeated; drawn bits, so that nan and inf occur."""
    dtype = getattr(torch, draw(st.sampled_from(TORCH_TYPES)))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    size = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype == torch.bool:
        raw = bytes(b & 1 for b in raw)
    x = torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
    if x.ndim:
        x = x[draw(st.integers(0, 2)) :: draw(st.integers(1, 2))]
        x = x.permute(*draw(st.permutations(range(x.ndim))))
    return x.expand(draw(st.integers(0, 3)), *x.shape) if draw(st.booleans()) else x


@pytest.mark.oracle
@settings(max_examples=80)
@given(st.data())
def test_what_pytorch_writes(data):
    torch = pytest.importorskip("torch", reason="torch writes the checkpoints of this test")
    tensors = dict(enumerate(data.draw(st.lists(views(torch), min_size=1, max_size=4))))
    wholes = {n: x for n, x in tensors.items() if x.ndim and 0 not in x.shape}
    tensors |= {n + 10: x[-1] for n, x in wholes.items()}  # shares the storage of the other
    tensors |= {n + 20: torch.nn.Parameter(x) for n, x in wholes.items() if x.is_floating_point()}
    content = {"state": {str(n): x for n, x in tensors.items()}, "epoch": 3, "lr": [0.1, (None, True)], "size": torch.Size([2])}
    file, zip_format = io.BytesIO(), data.draw(st.booleans())
    protocol = data.draw(st.sampled_from([2, 3, 4, 5]))
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zip_format)
    checkpoint = Checkpoint(file.getvalue())
    assert checkpoint.content | {"state": 0} == {"state": 0, "epoch": 3, "lr": [0.1, (None, True)], "size": (2,)}
    for n, x in tensors.items():
        came = checkpoint.array(checkpoint.content["state"][str(n)])
        expected = (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()
        assert came.dtype == expected.dtype and came.shape == expected.shape
        assert came.tobytes() == expected.tobytes() or np.array_equal(came, expected, equal_nan=True)


@pytest.mark.oracle
def test_a_training_checkpoint_of_pytorch():
    torch = pytest.importorskip("torch", reason="torch writes the checkpoint of this test")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [2, 4])
    net(torch.ones(2, 3, 5, 5)).sum().backward()
    optimiser.step()
    parts = {"model": net, "optimizer": optimiser, "lr_scheduler": schedule}
    for zip_format in (True, False):
        file = io.BytesIO()
        content = {n: p.state_dict() for n, p in parts.items()} | {"kinds": {1, 2}}
        torch.save(content, file, _use_new_zipfile_serialization=zip_format)
        checkpoint = Checkpoint(file.getvalue())
        assert checkpoint.content["lr_scheduler"]["milestones"] == {2: 1, 4: 1} and checkpoint.content["kinds"] == [1, 2]
        moment = checkpoint.array(checkpoint.content["optimizer"]["state"][0]["exp_avg"])
        assert np.array_equal(moment, optimiser.state_dict()["state"][0]["exp_avg"].numpy())
        state = state_dict(file.getvalue(), "model")
        assert all(np.array_equal(state[n], x.numpy()) for n, x in net.state_dict().items())
        torch.save(net, file := io.BytesIO(), _use_new_zipfile_serialization=zip_format)
        with pytest.raises(ValueError, match=r"holds a <a whole model of the class 'torch\.nn\..*Sequential', not read>"):
            state_dict(file.getvalue())


@pytest.mark.oracle
def test_checksums_that_pytorch_was_told_to_leave_out():
    torch = pytest.importorskip("torch", reason="torch writes the checkpoint of this test")
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save({"a": torch.arange(3)}, file := io.BytesIO())
    finally:
        torch.serialization.set_crc32_options(before)
    assert state_dict(file.getvalue())["a"].tolist() == [0, 1, 2]


# ---- what older versions wrote


@BOTH
def test_pickles_by_hand_are_read(written):
    raw = written(entries(a=tensor(), b=tensor(offset=1, shape=(2,), strides=(4,)), n=number(-5), s=text("word")))
    state = state_dict(raw)
    assert state["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and state["b"].tolist() == [1, 5]
    assert state["n"] == -5 and state["s"] == "word"


@BOTH
def test_python_2_and_the_first_versions(written):
    """Byte strings for names, an OrderedDict as a list of pairs, tensors of the GPU, a parameter that is built."""
    first = call("torch._utils._rebuild_tensor", row(kind="torch.cuda.FloatStorage"), number(0), numbers([6]), numbers([1]))
    parameter = call("torch.nn.parameter.Parameter", first) + several(b"\x88", b"\x89", call("collections.OrderedDict")) + b"b"
    pairs = b"](](U\x06weight" + parameter + b"e](U\x01n" + number(3) + b"ee"
    assert state_dict(written(call("collections.OrderedDict", pairs)))["weight"].tolist() == SIX.tolist()


def test_a_view_of_a_storage_in_the_legacy_format():
    part = row(view=several(text("part"), number(2), number(4)))
    raw = legacy(entries(a=tensor(part, offset=1, shape=(3,), strides=(1,))))
    assert state_dict(raw)["a"].tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match="ends at number 5 of 4 that are stored"):
        state_dict(legacy(entries(a=tensor(part, offset=1, shape=(4,), strides=(1,)))))
    with pytest.raises(ValueError, match="storage '0': 6 numbers, expected 7"):
        beyond = row(view=several(text("part"), number(2), number(5)))
        state_dict(legacy(entries(a=tensor(beyond, shape=(1,), strides=(1,)))))


def test_big_endian():
    big = SIX.astype(">f4").tobytes()
    state = state_dict(zipped(entries(a=tensor()), {"0": big}, byteorder=b"big"))
    assert state["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and state["a"].dtype == np.dtype("float32")
    half = struct.pack(">2H", 0x3F80, 0xC020)
    raw = zipped(entries(a=tensor(row(count=2, kind="torch.BFloat16Storage"), 0, (2,), (1,))), {"0": half}, byteorder=b"big")
    assert state_dict(raw)["a"].tolist() == [1, -2.5]
    with pytest.raises(ValueError, match="byteorder: expected little or big, got b'middle'"):
        state_dict(zipped(entries(a=tensor()), byteorder=b"middle"))


# ---- which entry


@BOTH
def test_the_entry_with_the_weights(written):
    raw = written(entries(model=entries(a=tensor()), ema=entries(a=tensor()), epoch=number(3), best=tensor()))
    with pytest.raises(ValueError, match=r"entry of their own: pass key='model' \(1 tensors\) or key='ema' \(1 tensors\)"):
        state_dict(raw)
    assert state_dict(raw, "ema").keys() == {"a"}
    for key in ("epoch", "net"):
        with pytest.raises(ValueError, match=rf"key='{key}': expected .* holds 'model' \(dict\), .*'best' \(tensor\)"):
            state_dict(raw, key)
    with pytest.raises(ValueError, match="holds a tensor, expected a dictionary of tensors"):
        state_dict(written(tensor()))
    with pytest.raises(ValueError, match="with numbers for names"):
        state_dict(written(b"}" + number(3) + tensor() + b"s"))


@BOTH
def test_an_entry_within_an_entry(written):
    weights_of = {n: entries(**{n: tensor()}) for n in "abcde"}
    outer = entries(model=entries(net=weights_of["a"], optimizer=entries(x=number(1))), epoch=number(3))
    with pytest.raises(ValueError, match=r"in an entry of their own: pass key='model\.net' \(1 tensors\)$"):
        state_dict(written(outer))
    assert state_dict(written(outer), "model.net").keys() == {"a"}
    for key in ("model", "model.", "model.net.a", "model.net.", ".", "model.x", "net"):
        with pytest.raises(ValueError, match=rf"key='{key}': expected .*, 'epoch' \(int\): pass key='model\.net' \(1"):
            state_dict(written(outer), key)
    both = b"}(" + text("model.net") + weights_of["b"] + text("model") + entries(net=weights_of["a"]) + b"u"
    assert state_dict(written(both), "model.net").keys() == {"b"}  # its own name comes first
    dotted = b"}(" + text("v1.0") + entries(**{"ema.net": weights_of["c"]}) + b"u"
    assert state_dict(written(dotted), "v1.0.ema.net").keys() == {"c"}


@BOTH
def test_tensors_beside_entries(written):
    raw = written(entries(a=tensor(), ema=entries(b=tensor(), c=tensor())))
    with pytest.raises(ValueError, match=r"pass key='ema' \(2 tensors\) or key='' \(1 tensors\)"):
        state_dict(raw)
    assert list(state_dict(raw, "")) == ["a", "ema"] and state_dict(raw, "ema").keys() == {"b", "c"}
    deeper = written(entries(a=tensor(), optimizer=entries(state=entries(b=tensor()))))
    assert list(state_dict(deeper)) == ["a", "optimizer"] and state_dict(deeper, "optimizer.state").keys() == {"b"}
    with pytest.raises(ValueError, match=r"holds no tensors, it holds 'epoch' \(int\), 'name' \(str\): torch"):
        state_dict(written(entries(epoch=number(3), name=text("x")), {}))
    with pytest.raises(ValueError, match="holds no tensors, it holds nothing"):
        state_dict(written(b"}", {}))


# ---- what is not read


class Colour(enum.Enum):
    RED = 1


class Config:
    def __init__(self):
        self.width = {"a": [1, 2]}


class Table(dict):
    """Of a class of its own, with names and values"""


class Row(typing.NamedTuple):
    a: int


def endless():
    items = [1]
    items.append((items, {"again": items}))
    return items


SIDE = {  # what stands beside the weights, and how it is told
    "namespace": (argparse.Namespace(lr=0.1, layers=[1, 2]), "<argparse.Namespace, not read>"),
    "config": (Config(), f"<{__name__}.Config, not read>"),
    "enum": (Colour.RED, f"<{__name__}.Colour, not read>"),
    "function": (os.path.join, "<posixpath.join, not read>"),
    "class": (Config, f"<{__name__}.Config, not read>"),
    "method": ("abc".upper, "<builtins.getattr, not read>"),
    "partial": (functools.partial(print, 1), "<functools.partial, not read>"),
    "array": (np.arange(3), ", not read>"),
    "float64": (np.float64(1.5), ".scalar, not read>"),
    "float32": (np.float32(1.5), ".scalar, not read>"),
    "dtype": (np.dtype("f4"), "<numpy.dtype, not read>"),
    "generator": (np.random.default_rng(1), "<numpy.random._pickle.__generator_ctor, not read>"),
    "time": (datetime.datetime(2024, 1, 2), "<datetime.datetime, not read>"),
    "delta": (datetime.timedelta(1), "<datetime.timedelta, not read>"),
    "decimal": (decimal.Decimal("1.5"), "<decimal.Decimal, not read>"),
    "path": (pathlib.PurePosixPath("/tmp/x"), "<pathlib.PurePosixPath, not read>"),
    "deque": (collections.deque([1, 2]), "<collections.deque, not read>"),
    "table": (Table(a=1, b=2), f"<{__name__}.Table, not read>"),
    "row": (Row(1), f"<{__name__}.Row, not read>"),
    "slice": (slice(1, 2), "<builtins.slice, not read>"),
    "range": (range(3), "range, not read>"),
    "error": (KeyError("x"), ".KeyError, not read>"),
    "object": (object(), "<builtins.object, not read>"),
    "pattern": (re.compile("a+"), "<re._compile, not read>"),
    "of a set": ({frozenset([1]): 2}, "{<a list as a name, not read>: 2}"),
    "of tuples": ({(1, "a"): 2, ((1, 2), 3): 4}, "{(1, 'a'): 2, <a tuple as a name, not read>: 4}"),
    "of enums": ({Colour.RED: 2}, f"{{<{__name__}.Colour, not read>: 2}}"),
    "of everything": ({1.5: 1, None: 2, b"b": 3, 2**70: 5, True: 6}, repr({1.5: 1, None: 2, b"b": 3, 2**70: 5, True: 6})),
    "counted": (collections.defaultdict(list, a=[1]), "{'a': [1]}"),
    "frozen": (frozenset([7]), "[7]"),
    "bytes": ([b"", b"abc", bytes(range(128, 256)), bytearray(b"xy")], repr([b"", b"abc", bytes(range(128, 256)), b"xy"])),
    "complex": (1 - 2j, "(1-2j)"),
    "numbers": ([10**1000, -(2**62), 0.1, float("inf")], repr([10**1000, -(2**62), 0.1, float("inf")])),
    "strings": (["ü", "\ud800", "\U0001f600", "a\\n\n"], repr(["ü", "\ud800", "\U0001f600", "a\\n\n"])),
    "endless": (endless(), "[1, ([...], {'again': [...]})]"),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("side", SIDE)
def test_what_stands_beside_the_weights(side, protocol):
    value, told = SIDE[side]
    raw = zipped(b"}(" + text("side") + beside(value, protocol) + text("net") + entries(w=tensor()) + b"u")
    assert state_dict(raw, "net")["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    came = repr(Checkpoint(raw).content["side"])
    if protocol < 2 and came != told:  # written as copyreg._reconstructor(class, base, state), and the like
        assert came.endswith("not read>") or side in ("bytes", "of everything")
    else:
        assert came == told or came.endswith(told)
    among_them = b"}(" + text("side") + beside(value, protocol) + text("w") + tensor() + b"u"
    assert list(state_dict(zipped(among_them))) == ["side", "w"]


def beside(value, protocol):
    """Its pickle, to stand within another one: without the end"""
    return pickle.dumps(value, protocol)[:-1]


def test_devices():
    for kind, index, told in [("cuda", [number(0)], "cuda:0"), ("cpu", [], "cpu"), ("mps", [b"N"], "mps")]:
        assert Checkpoint(zipped(call("torch.device", text(kind), *index), {})).content == told


def test_strings_of_python_2():
    """Bytes that are UTF-8 are a string, others stay what they are."""
    utf8, latin = "Gewicht ü".encode(), "Gewicht ü".encode("latin-1")
    raw = b"](" + b"".join(b"U" + bytes([len(s)]) + s for s in (b"weight", utf8, latin)) + b"e"
    assert Checkpoint(zipped(raw, {})).content == ["weight", "Gewicht ü", latin]


@BOTH
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (call("torch._utils._rebuild_sparse_tensor", b"N"), r"'w': a sparse tensor, which is not read: save x\.to_dense\(\)"),
        (call("torch._utils._rebuild_qtensor", b"N"), r"'w': a quantised tensor, which is not read: save x\.dequantize\(\)"),
        (call("torch._utils._rebuild_parameter", call("torch._utils._rebuild_qtensor")), "'w': a quantised tensor"),
        (call("torch._utils._rebuild_meta_tensor_no_storage", b"N"), "'w': a tensor on the device meta"),
        (tensor(rest=b"\x89" + b"}" + entries(neg=b"\x88")), "'w': a tensor stored negated or conjugated, which is not read"),
        (tensor(row(kind="torch.QInt8Storage", count=24)), r"'w': numbers of the type torch\.qint8, which NumPy has not"),
        (tensor(row(kind="torch.NewStorage")), r"numbers of the type torch\.NewStorage, which NumPy has not"),
        (call("torch._tensor._rebuild_from_type_v2", name("a.f"), name("a.B"), b")", b"}"), r"'w': a tensor of the class a\.B"),
    ],
)
def test_tensors_that_are_not_read(written, content, message):
    count, key = 24 if b"QInt8" in content else 6, "1" if b"Storage" in content else "0"
    storages = {"0": (count, SIX.tobytes())} | {key: (6, SIX.tobytes())} if key == "1" else None
    if written is zipped and storages:
        storages = {k: raw for k, (_, raw) in storages.items()}
    with pytest.raises(ValueError, match=message) as error:
        state_dict(written(entries(w=content, a=tensor(row(key))), storages))
    assert "damaged" not in str(error.value)


def test_names_of_tensors():
    with pytest.raises(ValueError, match="with numbers for names"):
        state_dict(zipped(b"}(" + number(3) + tensor() + text("a") + tensor() + b"u"))
    state = state_dict(zipped(b"}(" + number(3) + b"N" + b"N" + text("x") + text("a") + tensor() + b"u"))
    assert list(state) == ["3", "None", "a"]
    assert state_dict(zipped(b"}(" + text("3") + tensor() + number(3) + b"Nu"))["3"].shape == (2, 3)


# ---- hostile pickles: each is first shown to work where Python's own machine runs it


def attacks(path):
    """Pickles that make a file at `path`, if anything of theirs runs."""
    code = f"open({str(path)!r}, 'w').close()"
    shell, file = text(f"touch '{path}'"), [text(str(path)), text("uint8"), text("w+"), number(0), number(1)]
    parts = {
        "system": name("os.system") + several(shell) + b"R",
        "posix": name("posix.system") + several(shell) + b"R",
        "eval": call("builtins.eval", text(code)),
        "exec": call("builtins.exec", text(code)),
        "Python 2": call("__builtin__.eval", text(code)),
        "getattr": call("builtins.getattr", call("builtins.__import__", text("os")), text("system")) + several(shell) + b"R",
        "stack global": text("os") + text("system") + b"\x93" + several(shell) + b"R",
        "instance": b"(" + shell + b"ios\nsystem\n",
        "object": b"(" + name("os.system") + shell + b"o",
        "new object": name("numpy.memmap") + several(*file) + b"\x81",
        "partial": call("functools.partial", name("os.system"), shell) + b")R",
        "by way of torch": call("torch.serialization.os.system", shell),
        "a dotted way": text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93",
        "copyreg": call("copyreg.__newobj__", name("numpy.memmap"), *file),
        "state": name("os.system") + several(shell) + b"R" + b"}" + text("x") + b"Ns" + b"b",
        "code object": call("types.FunctionType", call("builtins.compile", text(code), text("c"), text("exec")), b"}") + b")R",
    }
    parts["nested"] = entries(state_dict=entries(a=several(b"]" + parts["system"] + b"a")))
    parts["among tensors"] = entries(a=tensor(), b=parts["eval"], c=tensor())
    parts["in a tensor"] = call("torch._utils._rebuild_tensor_v2", parts["system"], number(0), numbers([1]), numbers([1]))
    parts["in a storage"] = several(text("storage"), name("torch.FloatStorage"), parts["eval"], text("cpu"), number(6)) + b"Q"
    parts["as hooks"] = tensor(rest=b"\x89" + parts["eval"])
    parts["as a state"] = call("collections.OrderedDict") + parts["eval"] + b"b"
    parts["thrown away"] = parts["system"] + b"0}"
    parts["in pairs"] = call("collections.OrderedDict", b"](](" + text("a") + parts["eval"] + b"ee")
    return parts


IN_THE_PLACE_OF_A_TENSOR = {"among tensors", "in a tensor", "in a storage", "as hooks"}
NOT_WITHOUT_TORCH = {"by way of torch", "a dotted way", "among tensors", "in a tensor", "in a storage", "as hooks"}


@BOTH
@pytest.mark.parametrize("attack", list(attacks("")))
def test_nothing_runs(written, attack, tmp_path):
    path = tmp_path / "ran"
    content = attacks(path)[attack]
    if attack not in NOT_WITHOUT_TORCH:  # Python runs it
        try:
            pickle.loads(pickled(content))
        except (pickle.UnpicklingError, TypeError, AttributeError):
            pass  # after the deed
        assert path.exists()
        path.unlink()
    try:
        Checkpoint(written(content, {}))
    except ValueError as error:
        assert attack in IN_THE_PLACE_OF_A_TENSOR and "not read> in the place of a" in str(error)
    else:
        raw = written(entries(before=content, a=tensor(), after=content))
        assert state_dict(raw, "")["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert os.listdir(tmp_path) == []


def test_every_pickle_of_the_legacy_format_is_read_so(tmp_path):
    hostile, good = pickled(attacks(tmp_path / "ran")["eval"]), legacy(entries(a=tensor()))
    stream = io.BytesIO(good)
    for _ in range(4):
        torch_pickle.Machine(stream).run()
        with pytest.raises(ValueError):
            Checkpoint(good[: stream.tell()] + hostile)
    assert os.listdir(tmp_path) == []


@BOTH
def test_nothing_is_imported(written, tmp_path, monkeypatch):
    (tmp_path / "spoilt_module.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = name("spoilt_module.anything")
    assert repr(Checkpoint(written(content, {})).content) == "<spoilt_module.anything, not read>"
    assert not (tmp_path / "ran").exists()
    with pytest.raises(AttributeError):
        pickle.loads(pickled(content))
    assert (tmp_path / "ran").exists()
    del sys.modules["spoilt_module"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x82\x01", "the instruction EXT1"),
        (b"P0\n", "the instruction PERSID"),
        (b"I1x2\n", "damaged"),
        (b"S'\\q'\n", "damaged"),
        (b"\x8b\xff\xff\xff\x7f" + bytes(9), "damaged"),
        (b"X\xff\xff\xff\xffab", "damaged"),
        (b"\x8d" + b"\xff" * 7 + b"\x7f", "damaged"),
        (b"B\xff\xff\xff\xff", "damaged"),
        (b"h\x07", "entry 7 of the memo is used and not set"),
        (b"0", "pop from empty list"),
        (b"1", "pop from empty list"),
        (b"2", "index out of range"),
        (b"(o", "not enough values"),
        (b"N" + number(2**70) + b"r\xff\xff\xff\x7f", "an entry of the memo with a number that is too large"),
        (b"R", "pop from empty list"),
        (b"t", "pop from empty list"),
        (b"}N", "ends with 2 values, expected 1"),
        (b")" + text("x") + b"R", "a str in the place of a tuple"),
        (text("collections.OrderedDict") + b")R", "a str in the place of a Global"),
        (name("torch.FloatStorage") + b")R", "a call of torch.FloatStorage"),
        (name("torch.float32") + b")\x81", "a call of torch.float32"),
        (b"](NNe)b", "a list in the place of a dict"),
        (text("a") + b"}b", "a str in the place of a dict"),
        (b"}(Nu", "damaged"),
        (b"}" + number(1) + b"a", "a dict in the place of a list"),
        (call("collections.OrderedDict", text("abc")), "a str in the place of"),
        (call("collections.OrderedDict", number(10**9)), "damaged"),
        (call("collections.OrderedDict", b")", b")"), "damaged"),
        (call("torch.Size", number(10**15)), "an? int in the place of"),
        (call("torch.nn.parameter.Parameter", b"}"), "a dict in the place of a StoredTensor"),
        (
            call("torch._utils._rebuild_tensor_v2", text("0")),
            "a call of .*v2 with 1 arguments, not those that it takes",
        ),
        (tensor(text("0")), "a str in the place of a Storage"),
        (tensor(shape=(2,)), "1 sizes and 2 strides"),
        (tensor(shape=(1,) * 33, strides=(1,) * 33), "33 sizes"),
        (tensor(shape=(2, -3)), "whole number in"),
        (tensor(strides=(-3, 1)), "whole number in"),
        (tensor(offset=-1), "whole number in"),
        (tensor(shape=(2**63, 1)), "whole number in"),
        (tensor(shape=(2**900, 1)), "whole number in"),
        (tensor(row(count=-6)), "whole number in"),
        (tensor(row(count=2**62)), "whole number in"),
        (tensor(row(kind="torch.float32")), "a storage of torch.float32"),
        (several(text("module"), number(1)) + b"Q", "a int in the place of a Note or Global"),
        (several(text("model"), name("torch.Size"), text("0"), text("cpu"), number(1)) + b"Q", "a 'model' with 4 facts"),
        (several(text("storage"), name("torch.FloatStorage")) + b"Q", "a 'storage' with 1 facts"),
        (call("torch.device", text("cuda"), text("0")), "whole number in"),
        (call("builtins.complex", number(10**400), number(1)), "damaged"),
        (call("_codecs.encode", number(1), text("latin1")), "a int in the place of a bytes"),
        (several(tensor(), tensor(row(count=7))), "storage '0': of two types or sizes"),
        (several(tensor(), tensor(row(kind="torch.IntStorage"))), "storage '0': of two types or sizes"),
    ],
)
@BOTH
def test_pickles_that_ask_for_what_is_not_there(written, content, message):
    with pytest.raises(ValueError, match=f"in the pickle|{message}") as caught:
        Checkpoint(written(content))
    assert caught.match(message)


@BOTH
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor(shape=(2, 4)), r"a tensor of shape \(2, 4\) ends at number 7 of 6 that are stored"),
        (tensor(strides=(4, 1)), "ends at number 7 of 6"),
        (tensor(offset=1), "ends at number 7 of 6"),
        (tensor(shape=(2**47, 1)), "of 6 that are stored"),
        (tensor(shape=(2**40, 2**40), strides=(0, 0)), "larger than the whole file"),
        (tensor(shape=(2**30,), strides=(0,)), "repeats 6 numbers, larger than the whole file"),
        (tensor(row(key="1")), "storage '1': missing|names others|storage '0'"),
        (tensor(row(key="../../../etc/passwd")), "storage '../../../etc/passwd': missing|names others"),
        (tensor(row(count=7), offset=1), "6 numbers, expected 7|cut short, or of another size"),
        (tensor(row(count=2**47), shape=(2**47,), strides=(1,)), "6 numbers, expected|cut short, or of another size"),
        (tensor(shape=(0, 2**47, 2**47), strides=(1, 1, 1)), "too large although it is empty"),
    ],
)
def test_tensors_that_claim_what_is_not_there(written, content, message):
    with pytest.raises(ValueError, match=message):
        state_dict(written(entries(a=content)))


def test_a_little_may_be_repeated():
    assert state_dict(zipped(entries(a=tensor(shape=(3, 4), strides=(0, 1)))))["a"].tolist() == [[0, 1, 2, 3]] * 3


# ---- effort: neither steps nor memory can be had by claiming them


def traced(raw):
    """The ValueError and the most bytes that were reserved on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as caught:
            state_dict(raw)
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@BOTH
def test_claims_reserve_nothing(written):
    for content in (
        tensor(shape=(2**30,), strides=(0,)),
        tensor(row(count=2**40), shape=(2**40,), strides=(1,)),
        b"X\xff\xff\xff\x7f",
        b"\x8e\xff\xff\xff\xff\x0f\0\0\0",
        b"Nr\xff\xff\xff\xff0",
    ):
        _, peak = traced(written(entries(a=content)))
        assert peak < 1 << 20


def test_the_steps_of_a_pickle_are_counted(monkeypatch):
    monkeypatch.setattr(torch_pickle, "MOST_STEPS", 1000)
    with pytest.raises(ValueError, match=r"more than \d\d,\d\d\d steps"):
        Checkpoint(legacy(b"N" * 50_000))


@BOTH
def test_a_list_that_is_copied_again_and_again(written):
    """100 dictionaries of a list of 20,000 pairs: a step each for the machine of Python, 2,000,000 entries."""
    pairs = b"](" + (b"](" + text("a") + b"Ne") * 20_000 + b"eq\0"
    again = b"(h\0tR"
    raw = written(b"](" + pairs + (name("collections.OrderedDict") + again) * 100 + b"e")
    with pytest.raises(ValueError, match=r"more than \d\d\d,\d\d\d items that are copied"):
        Checkpoint(raw)


@BOTH
def test_tuples_of_tuples_double_nothing(written):
    """40 tuples, each twice the one before: whoever walks them visits 2^40."""
    content = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(40))
    assert isinstance(Checkpoint(written(content, {})).content, tuple)
    assert repr(Checkpoint(written(b"}" + content + b"Ns", {})).content) == "{<a tuple as a name, not read>: None}"
    with pytest.raises(ValueError, match="holds a tuple, expected a dictionary of tensors"):
        state_dict(written(content, {}))


@BOTH
def test_depth(written):
    with pytest.raises(ValueError, match="holds a tuple"):
        state_dict(written(b")" + b"\x85" * 200_000, {}))
    with pytest.raises(ValueError, match="holds a list"):
        state_dict(written(b"]q\0h\0a", {}))  # contains itself


@BOTH
def test_classes_of_classes(written):
    """A tensor that is given a class by a function that gives a tensor a class, ... 5000 deep"""
    f, content = name("torch._tensor._rebuild_from_type_v2"), b")"
    for _ in range(5000):
        content = several(f, name("a.B"), content, b"}")
    with pytest.raises(ValueError, match="a tensor of a class of a class"):
        Checkpoint(written(f + content + b"R"))


# ---- archives


def edited(raw, old, new):
    assert raw.count(old) == 1 and len(old) == len(new)
    return raw.replace(old, new)


def test_compressed_records_are_refused():
    bomb = zipped(entries(a=tensor(row(count=2**24), 0, (2**24,), (1,))), {"0": bytes(2**26)}, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    message, peak = traced(bomb)
    assert "compressed or encrypted, which no checkpoint is" in message and peak < 1 << 20
    with pytest.raises(ValueError, match=r"compressed or encrypted, which no checkpoint is: unpack it"):
        Checkpoint(zipped(entries(a=tensor()), compression=zipfile.ZIP_LZMA, extra=[("more", os.urandom(999))]))


def central(raw, name):
    """The place of the entry of `name` in the directory of an archive"""
    return raw.index(name, raw.index(b"PK\x01\x02")) - 46


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (8, 1, "compressed or encrypted"),
        (10, 8, "compressed or encrypted"),
        (16, 77, "its checksum differs"),
        (20, 25, "'archive/data/0': of two sizes"),
        (24, 25, "'archive/data/0': of two sizes"),
        (24, 2**32 - 2, "records claim more"),
        (42, 3, "no record at byte 3"),
        (42, 2**31, "no record at byte|damaged"),
    ],
)
def test_directories_that_lie(at, value, message):
    raw = bytearray(zipped(entries(a=tensor())))
    struct.pack_into("<H" if at < 16 else "<I", raw, central(raw, b"archive/data/0") + at, value)
    with pytest.raises(ValueError, match=message):
        Checkpoint(bytes(raw))


def test_records_that_overlap():
    raw = bytearray(zipped(entries(a=tensor()), {"0": SIX.tobytes(), "1": bytes(3000), "2": bytes(3000)}))
    place = central(raw, b"archive/data/1")
    for key in (b"archive/data/2", b"archive/data/0"):
        raw[central(raw, key) + 16 : central(raw, key) + 28] = raw[place + 16 : place + 28]  # checksum and sizes
        raw[central(raw, key) + 42 : central(raw, key) + 46] = raw[place + 42 : place + 46]  # where
    with pytest.raises(ValueError, match="lying, or overlapping"):
        Checkpoint(bytes(raw))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_of_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = entries(a=tensor())
    for extra, message in [
        ([("archive/data/0", b"twice")], "'archive/data/0': twice in the archive"),
        ([("other/data.pkl", pickled(b"}"))], r"a zip archive of files \(.*, and 1 more\), no checkpoint of PyTorch"),
        ([("archive/constants.pkl", pickled(b")"))], "a TorchScript program"),
    ]:
        with pytest.raises(ValueError, match=message):
            Checkpoint(zipped(good, extra=extra))
    tricks = [("../../outside", b"x"), ("/etc/outside", b"x"), ("archive/data/../../../outside", b"x"), ("C:\\outside", b"x")]
    assert state_dict(zipped(good, extra=tricks)).keys() == {"a"}
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="storage '0': missing"):
        state_dict(zipped(good, {}))
    with pytest.raises(ValueError, match=r"a zip archive of files \('archive/date\.pkl'"):
        Checkpoint(zipped(good).replace(b"data.pkl", b"date.pkl"))
    with pytest.raises(ValueError, match="more than 100,000 records"):
        Checkpoint(zipped(good) + b"PK\x01\x02" * 100_001)


def test_what_is_no_checkpoint():
    for raw in (b"", b"PK", b"\x80\x02}.", b"hello", bytes(9)):
        assert not torch_checkpoint.is_checkpoint(raw)
        with pytest.raises(ValueError, match=r"expected a PyTorch checkpoint, got (a|9 bytes)"):
            Checkpoint(raw)
    tar = b"sys_info".ljust(257, b"\0") + b"ustar" + bytes(250)
    assert torch_checkpoint.is_checkpoint(tar)
    with pytest.raises(ValueError, match="the tar format of PyTorch's first releases"):
        Checkpoint(tar)
    with pytest.raises(ValueError, match="another version of PyTorch's legacy format than 1001"):
        Checkpoint(edited(legacy(b"}"), b"M\xe9\x03.", b"M\xe8\x03."))
    with pytest.raises(ValueError, match="names others than its tensors do"):
        Checkpoint(legacy(b"}"))


# ---- damage


def resolved(raw):
    """All tensors of a checkpoint, wherever the first levels of dictionaries hold them"""
    checkpoint = Checkpoint(raw)
    outer = checkpoint.content if isinstance(checkpoint.content, dict) else {}
    inner = [v for value in outer.values() if isinstance(value, dict) for v in value.values()]
    return [checkpoint.array(v) for v in [*outer.values(), *inner] if isinstance(v, StoredTensor)]


@pytest.mark.parametrize("file", FILES)
def test_every_cut_is_noticed(file):
    for size in range(len(FILES[file])):
        with pytest.raises(ValueError):
            resolved(FILES[file][:size])


@pytest.mark.parametrize("file", ["small.pth", "types.pth"])
def test_every_flipped_number_of_an_archive_is_noticed(file):
    raw = FILES[file]
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        places = [i.header_offset for i in archive.infolist() if "/data" in i.filename and i.file_size]
    for place in places:
        start = place + 30 + sum(struct.unpack_from("<HH", raw, place + 26))
        with pytest.raises(ValueError, match="damaged, its checksum differs"):
            resolved(raw[:start] + bytes([raw[start] ^ 1]) + raw[start + 1 :])


kinds = st.sampled_from(["flip", "set", "cut", "insert", "double"])
edits = st.tuples(kinds, st.integers(0, 5000), st.binary(min_size=1, max_size=9))


def damaged(raw, what, at, new):
    at %= len(raw)
    if what == "flip":
        return raw[:at] + bytes([raw[at] ^ (new[0] or 1)]) + raw[at + 1 :]
    if what == "set":
        return raw[:at] + new + raw[at + len(new) :]
    if what == "cut":
        return raw[:at] + raw[at + new[0] :]
    return raw[:at] + (new if what == "insert" else raw[at : at + 50]) + raw[at:]


def without_checksums(raw):
    """An archive whose directory holds no checksums, so that damage reaches the pickle"""
    raw = bytearray(raw)
    at = raw.find(b"PK\x01\x02")
    while at >= 0:
        raw[at + 16 : at + 20] = bytes(4)
        at = raw.find(b"PK\x01\x02", at + 1)
    return bytes(raw)


BARE = FILES | {n: without_checksums(raw) for n, raw in FILES.items() if n.endswith(".pth")}


def test_archives_without_checksums_are_read():
    assert len(resolved(BARE["types.pth"])) == len(all_types())


@settings(max_examples=1000)
@given(st.sampled_from([FILES, BARE]), st.sampled_from([*FILES]), st.lists(edits, min_size=1, max_size=4))
def test_damage_gives_a_value_error_or_arrays(files, file, several_edits):
    raw = files[file]
    for edit in several_edits:
        raw = damaged(raw, *edit)
    tracemalloc.start()
    began = time.thread_time()
    try:
        arrays = resolved(raw)
    except ValueError as error:
        assert str(error)
    else:
        assert all(a.size * a.itemsize <= torch_checkpoint.MOST_COPIES for a in arrays)
        assert sum(float(np.asarray(a, np.float64).size) for a in arrays) < 1e7
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20 << 20 and time.thread_time() - began < 5
