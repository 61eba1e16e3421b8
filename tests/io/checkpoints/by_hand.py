"""Checkpoints put together by hand, byte by byte: what PyTorch of any age would write, and what it never would.

`text`, `number`, `tensor`, `call`, ... give the instructions of a pickle; `zipped` and `legacy` make a file of them.
"""

import io
import pickle
import struct
import zipfile

import numpy as np


def text(s):
    return b"X" + struct.pack("<I", len(s.encode())) + s.encode()


def number(n):
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def several(*items):
    return b"(" + b"".join(items) + b"t"


def name(dotted):
    room, _, item = dotted.rpartition(".")
    return f"c{room}\n{item}\n".encode()


def call(f, *arguments):
    return name(f) + several(*arguments) + b"R"


def row(key="0", count=6, kind="torch.FloatStorage", view=b""):
    return several(text("storage"), name(kind), text(key), text("cpu"), number(count), view) + b"Q"


def numbers(values):
    return several(*map(number, values))


NO_GRADIENT_NO_HOOKS = b"\x89" + call("collections.OrderedDict")


def tensor(storage=None, offset=0, shape=(2, 3), strides=(3, 1), rest=NO_GRADIENT_NO_HOOKS):
    where = row() if storage is None else storage
    return call("torch._utils._rebuild_tensor_v2", where, number(offset), numbers(shape), numbers(strides), rest)


def entries(**values):
    return b"}(" + b"".join(text(k) + v for k, v in values.items()) + b"u"


def pickled(content):
    return b"\x80\x02" + content + b"."


SIX = np.arange(6, dtype=np.float32)


def zipped(content, storages=None, byteorder=b"little", compression=zipfile.ZIP_STORED, extra=()):
    """A file of the zip format. storages: the bytes of each; extra: names and contents of further records"""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(content))
        archive.writestr("archive/byteorder", byteorder)
        for key, raw in ({"0": SIX.tobytes()} if storages is None else storages).items():
            archive.writestr(f"archive/data/{key}", raw)
        for path, raw in extra:
            archive.writestr(path, raw)
    return file.getvalue()


def legacy(content, storages=None):
    """A file of the legacy format. storages: the count and the bytes of each"""
    storages = {"0": (6, SIX.tobytes())} if storages is None else storages
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    rows = b"".join(struct.pack("<q", count) + raw for count, raw in storages.values())
    return b"".join(pickle.dumps(x, 2) for x in head) + pickled(content) + pickle.dumps(sorted(storages), 2) + rows
