"""Damaged and hostile files in all three formats: `python -m tests.io.checkpoints.fuzz --files 20000` reads as many, once.

Each file is a good one that has been mutated (bytes flipped, cut, spliced, instructions inserted, headers edited) or a random
pickle of a grammar in which the calls that would do harm are frequent. Nothing may run, only ValueError may be raised, no
message may be long, and time and memory stay within what the size of the file allows.
"""

import argparse
import codecs
import collections
import contextlib
import encodings.cp437  # noqa: F401 - by which zipfile decodes names: no import of a file's
import functools
import io
import json
import random
import struct
import sys
import time
import tracemalloc
import zipfile

import numpy as np
from safetensors.numpy import save as safetensors

from minidl.io import safetensors_file, torch_checkpoint, torch_pickle
from minidl.io.torch_checkpoint import Checkpoint
from minidl.io.torch_pickle import StoredTensor
from tests.io.checkpoints.by_hand import SIX, call, entries, legacy, name, number, row, several, tensor, text, zipped
from tests.io.checkpoints.make import FOLDER

SECONDS, SECONDS_PER_BYTE = 0.3, 20e-6  # of the processor, far above what is measured
BYTES, BYTES_PER_BYTE = 4 << 20, 300  # of memory
LONGEST = 2000  # letters of a message


def canary(*_):
    """What a hostile pickle would call."""
    raise AssertionError("the canary was called")


HARM = [  # calls that fail where they run, but only after the audit hook or the canary has told of them
    name("os.system") + several(text("false")) + b"R",
    call("builtins.eval", text("__import__('os').system('false')")),
    call("builtins.exec", text("import minidl_no_such_module")),
    call("tests.io.checkpoints.fuzz.canary"),
    call("subprocess.Popen", text("/nowhere/to/run")),
    call("builtins.open", text("/nowhere/to/write"), text("w")),
    call("importlib.import_module", text("minidl_no_such_module")),
    b"(" + text("false") + b"ios\nsystem\n",
    b"(" + name("os.system") + text("false") + b"o",
    text("os") + text("system") + b"\x93" + several(text("false")) + b"R",
    name("minidl_no_such_module.x"),
    name("os.system") + several(text("false")) + b"R" + b"}b",
]
PARTS = [b"N", b"\x88", b")", b"]", b"}", b"(", b"K\1", b"M\1\2", b"G" + struct.pack(">d", 1.5), number(2**70), b"U\3abc"]
PARTS += [b"\x8f", b"I12\n", b"L9L\n", b"S'x'\n", b"V\\u0041\n", b"F1.5\n", b"B\2\0\0\0ab", b"C\1a", b"\x96" + bytes(8)]
ENDS = [bytes([op]) for op in b"012aesutldRbQo\x81\x85\x86\x87\x90\x91\x92\x94\x97\x98"]
ENDS += [b"q\0", b"q\1", b"h\0", b"h\1", b"r\0\1\0\0", b"j\0\0\0\0", b"p3\n", b"g3\n", b"P0\n", b"\x82\1"]
WHOLES = [
    tensor(),
    row(),
    call("collections.OrderedDict"),
    call("torch.Size", b")"),
    call("torch.device", text("cuda"), number(0)),
]
WHOLES += [name(n) for n in (*torch_pickle.CALLS, *torch_pickle.UNREAD, "torch.float32", "torch.FloatStorage", "a.B")]


def value(draw, depth=0):
    """The instructions of a random value: every fifth does harm, some are of what Python would not build."""
    leaf = [PARTS[:4] + PARTS[6:], WHOLES, WHOLES[:5], HARM]
    if depth > 4 or draw.random() < 0.4:
        return draw.choice([part for part in draw.choice(leaf) if part[-1:] not in b"]}("] or [b"N"])
    inner = [value(draw, depth + 1) for _ in range(draw.randint(0, 4))]
    pairs = b"".join(text(draw.choice("abcde")) + v for v in inner)
    named = name(draw.choice([*torch_pickle.CALLS, *torch_pickle.UNREAD, "os.system", "a.B"]))
    return draw.choice([several(*inner), b"](" + b"".join(inner) + b"e", b"}(" + pairs + b"u", named + several(*inner) + b"R",
                        b"a".join([b"]", *inner]) + b"a" * bool(inner), b"}" + text("k") + several(*inner) + b"s"])  # fmt: skip


def grammar(draw):
    """The instructions of a random pickle, of ones that fit together or of any"""
    if draw.random() < 0.7:
        return entries(a=tensor(), x=value(draw), y=value(draw))
    parts = [draw.choice(draw.choice([PARTS, PARTS, ENDS, WHOLES, HARM])) for _ in range(draw.randint(1, 60))]
    content = b"".join(parts)
    return draw.choice([content, several(content), entries(a=tensor(), x=content), b"](" + content + b"e"])


def good_files():
    """Their contents, by format"""
    metadata = {"by": "them", "sha256": "x"}
    arrays = {"a": np.arange(6.0).reshape(2, 3), "layer.weight": np.ones((2, 2), np.float16), "b": np.array(True)}
    content = entries(model=entries(a=tensor(), b=tensor(shape=(2,), strides=(1,))), args=HARM[0], epoch=number(3), x=WHOLES[4])
    files = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.*th"))}
    files |= {"hand.pth": zipped(content), "hand.th": legacy(content), "harm.pth": zipped(entries(w=tensor(), h=HARM[3]))}
    return files | {"a.safetensors": safetensors(arrays, metadata), "b.safetensors": safetensors({"a": SIX})}


def flip(draw, raw):
    for _ in range(draw.randint(1, 6)):
        raw[draw.randrange(len(raw))] = draw.randrange(256)


def cut(draw, raw):
    at = draw.randrange(len(raw))
    del raw[at : at + draw.choice([1, 2, 8, 100, len(raw)])]


def splice(draw, raw):
    at, start = draw.randrange(len(raw)), draw.randrange(len(raw))
    raw[at:at] = raw[start : start + draw.choice([1, 4, 30, 300])]


def insert(draw, raw):
    at = draw.randrange(len(raw))
    raw[at:at] = draw.choice(draw.choice([PARTS, ENDS, WHOLES, HARM]))


def numbers(draw, raw):
    """A field of 2, 4 or 8 bytes becomes small, large or negative: headers of archives, of safetensors, counts, lengths."""
    size = draw.choice([2, 4, 8])
    at = draw.randrange(max(1, len(raw) - size))
    near = [i for i in (raw.find(b"PK\1\2"), raw.find(b"PK\5\6"), raw.find(b"PK\3\4"), 0) if i >= 0]
    if draw.random() < 0.5:
        at = min(draw.choice(near) + draw.randrange(46), max(0, len(raw) - size))
    n = draw.choice([0, 1, 25, 1 << 15, len(raw), (1 << 31) - 1, (1 << 63) - 1, -1])
    raw[at : at + size] = n.to_bytes(9, "little", signed=True)[:size]


def header(draw, raw):
    """An entry of the header of a safetensors file becomes another."""
    if raw[8:9] != b"{":
        return numbers(draw, raw)
    size = int.from_bytes(raw[:8], "little")
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        entries = json.loads(raw[8 : 8 + size])
        entry = draw.choice([*entries.values()])
        strange = [0, -1, 2**53, [], [0], [1, 2, 3], [0, 2**60], "F32", "BF16", "F4", "x" * 5000, None, {}, 1.5, True]
        if isinstance(entry, dict):
            entry[draw.choice(["dtype", "shape", "data_offsets", "x"])] = draw.choice(strange)
        if draw.random() < 0.3:
            entries[draw.choice(["__metadata__", "a", "n" * 3000, "\ud800"])] = draw.choice(strange)
        new = json.dumps(entries).encode()
        raw[: 8 + size] = len(new).to_bytes(8, "little") + new


MUTATIONS = [flip, cut, splice, insert, numbers, header]


def mutated(draw, raw):
    """A good file after several mutations. Those of an archive are made in its records or to the whole of it."""
    raw = bytearray(raw)
    if raw[:2] == b"PK" and draw.random() < 0.7:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            records = {record: bytearray(archive.read(record)) for record in archive.namelist()}
        inner = records[draw.choice([n for n in records if n.endswith("pkl")] * 5 + [n for n in records if records[n]])]
        for _ in range(draw.randint(1, 4)):
            if inner:
                draw.choice(MUTATIONS)(draw, inner)
        with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
            for record, content in records.items():
                archive.writestr(record, bytes(content))
        return file.getvalue()
    for _ in range(draw.randint(1, 4)):
        if raw:
            draw.choice(MUTATIONS)(draw, raw)
    return bytes(raw)


def files(seed, count):
    """`count` hostile files, the same for the same seed"""
    draw, good = random.Random(seed), [*good_files().values()]
    for _ in range(count):
        if draw.random() < 0.3:
            yield draw.choice([zipped, legacy])(grammar(draw))
        else:
            yield mutated(draw, draw.choice(good))


def read(raw):
    """Everything that can be read of a file; the number of its tensors"""
    if not torch_checkpoint.is_checkpoint(raw):
        return len(safetensors_file.read(raw)[0])
    checkpoint = Checkpoint(raw)
    repr(checkpoint.content) if depth(checkpoint.content) < 100 else None
    found = [v for v in walk(checkpoint.content) if isinstance(v, StoredTensor)]
    for x in found:
        with contextlib.suppress(ValueError):
            checkpoint.array(x).shape  # noqa: B018
    torch_checkpoint.state_dict(raw)
    return len(found)


def walk(content):
    seen, todo = set(), [content]
    while todo:
        value = todo.pop()
        if id(value) not in seen:
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
            yield value


def depth(content):
    """At most how deep; without recursion, and a bound for what contains itself"""
    return sum(isinstance(value, dict | list | tuple) for value in walk(content))


FORBIDDEN = ("os.", "subprocess.", "shutil.", "socket.", "ctypes.", "exec", "compile", "marshal.", "pickle.")
watching = False
seen_events: list[tuple[str, str]] = []


def watch(event, arguments):
    """An audit hook: whatever happens while a file is read and is none of reading's business"""
    if watching and (event.startswith(FORBIDDEN) or event == "import" or (event == "open" and arguments[1] not in ("r", "rb"))):
        seen_events.append((event, str(arguments)[:200]))


@functools.cache
def install():
    """Once, because a hook stays until Python ends."""
    sys.addaudithook(watch)


def check(raw, memory=False):
    """Read a file and assert what the top of this page says. Returns how it ended: the kind of the error, or "read"."""
    global watching
    if memory:
        tracemalloc.start()
    began, watching = time.process_time(), True
    try:
        ended = "read" if read(raw) >= 0 else ""
    except ValueError as error:
        ended, message = "refused", str(error)
        assert message and len(message) < LONGEST, message
        assert "\n" not in message, message
    finally:
        watching = False
        seconds = time.process_time() - began
        if memory:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert not seen_events, seen_events
    if memory:
        assert peak <= BYTES + BYTES_PER_BYTE * len(raw), f"{peak:,} bytes of memory for {len(raw):,}"
    else:
        assert seconds <= SECONDS + SECONDS_PER_BYTE * len(raw), f"{seconds:.2f} s for {len(raw):,} bytes"
    return ended


def run(count, seed=0):
    """Check `count` files, every tenth for its memory. Returns how many ended how; raises AssertionError with the file."""
    install()
    for codec in ("raw_unicode_escape", "cp437", "latin-1", "utf-8"):
        codecs.lookup(codec)  # Python imports them when they are first used
    for raw in good_files().values():
        with contextlib.suppress(ValueError):
            read(raw)
    ends = collections.Counter()
    for i, raw in enumerate(files(seed, count)):
        try:
            ends[check(raw, memory=i % 10 == 9)] += 1
        except BaseException as error:
            raise AssertionError(f"file {i} of seed {seed}: {type(error).__name__}: {error}\n{raw[:3000]!r}") from error
    return ends


# ---- files that ask for time or memory


def bombs(n):
    """Files of some `n` bytes, whose effort grows faster than they do where it is not bounded, by name"""
    big = b"X" + struct.pack("<I", n) + b"a" * n
    two = big + b"q\0" + big + b"q\1"
    many = b"(" + b"N" * n + b"tq\0"
    integers = b"}(" + b"".join(b"\x8a\x08" + struct.pack("<q", k) + b"N" for k in colliding(n // 11)) + b"u"
    chosen = b"}(" + b"".join(b"\x8a\x08" + struct.pack("<q", k << 40) + b"N" for k in range(1000)) + b"uq\0"
    model = name("a.B") + b")\x81" + entries(_parameters=b"N", _modules=b"N") + b"q\0"
    pairs = b"](" + (b"](" + text("a") + b"Ne") * (n // 10) + b"eq\0"
    harm = name("os.system") + b"q\1"
    storage = b"(" + text("storage") + b"q\2" + name("torch.FloatStorage") + b"q\3h\0N" + number(6) + b"q\4tQ"
    contents = {
        "values": b"N" * n,
        "dictionaries": b"}" * n,
        "lists": b"]" * n,
        "marks": b"(" * n,
        "marks and tuples": b"(t" * (n // 2),
        "deep tuples": b")" + b"\x85" * n,
        "deep lists": b"]" * (n // 2) + b"a" * (n // 2 - 1),
        "doubled tuples": b")" + b"2\x86" * (n // 2),
        "copies of the top": b"N" + b"2" * n,
        "memo, one by one": b"N" + b"\x94" * n,
        "memo, colliding": b"N" + b"".join(b"r" + struct.pack("<I", (k << 14) % 2**32) for k in range(n // 5)),
        "integers that collide": integers,
        "tuples of integers": integers.replace(b"N\x8a", b"N\x86N\x8a"),
        "floats": b"}(" + b"".join(b"G" + struct.pack(">d", float(k << 40)) + b"N" for k in range(n // 10)) + b"u",
        "a dictionary of chosen numbers, again": chosen + (name("collections.Counter") + b"(h\0tR") * (n // 30),
        "a large integer": b"\x8b" + struct.pack("<i", n) + b"\x7f" * n,
        "a large integer as a name": b"\x8b" + struct.pack("<i", n) + b"\x7f" * n + b"q\0}(" + b"h\0N" * (n // 3) + b"u",
        "an integer of many digits": b"L" + b"9" * n + b"L\n",
        "integers of many digits": (b"I" + b"9" * 4000 + b"\n") * (n // 4000),
        "equal strings as names": two + b"}q\2(h\0Nu" + b"h\1Ns" * (n // 4),
        "equal strings in dictionaries": two + b"}h\0Nsh\1Ns" * (n // 9),
        "equal bytes": two.replace(b"X", b"B") + b"}h\0Nsh\1Ns" * (n // 9),
        "long names of functions": two + b"h\0h\1\x93" * (n // 5),
        "bytes, again and again": big + b"q\0" + text("latin1") + b"q\1c_codecs\nencode\nq\2" + b"h\2(h\0h\1tR" * (n // 8),
        "keys of storages": two + storage + b"(h\2h\3h\1Nh\4tQ" * (n // 12),
        "many arguments": many + harm + b"h\1h\0R" * (n // 5),
        "many arguments of a parameter": b"("
        + harm
        + many[1:]
        + name("torch.nn.parameter.Parameter")
        + b"q\1"
        + b"h\1h\0R" * (n // 5),
        "many facts": many + b"h\0Q" * (n // 3),
        "names of tuples of strings": big + b"q\0}q\1(" + b"h\0h\0h\0\x87N" * (n // 8) + b"u",
        "lists, copied": pairs + (name("collections.OrderedDict") + b"(h\0tR") * (n // 40),
        "a model that is built again": model + b"h\0b" * (n // 3),
        "entries in entries": b"}q\0" + b"".join(text(f"{k}") + b"h\0s" for k in range(n // 10)),
        "a dictionary in itself": b"}q\0" + text("a") + b"h\0s" + text("w") + tensor() + b"s",
    }
    files = {f"{title}, zip": zipped(content) for title, content in contents.items()}
    files |= {f"{title}, legacy": legacy(content) for title, content in contents.items()}
    names = b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % k for k in range(n // 50)) + b"}"
    shape = b'{"a":{"dtype":"F32","shape":[' + b",".join([b"9" * 4000] * (n // 4000)) + b'],"data_offsets":[0,0]}}'
    headers = {"many arrays": names, "large shape": shape, "nested": b'{"a":' + b"[" * n, "spaces": b"{" + b" " * n + b"}"}
    return files | {f"{title}, safetensors": len(raw).to_bytes(8, "little") + raw for title, raw in headers.items()}


def colliding(count):
    """Whole numbers that as names of one dictionary of Python cost the more the more there are.

    A dictionary looks for a name k at i = k, then at 5i + 1 + (k >> 5), ... modulo the size of its table, with 5 more bits
    shifted away each time, and in the end at 5i + 1 for ever. Most of the numbers fill the places from 0 on in that order;
    the others are those that come upon these only, and then have half of them or more before them.
    """
    size, fill = 1 << (3 * count // 2).bit_length(), 3 * count // 4
    rank, i = np.full(size, -1), 0  # of the places that are filled
    for n in range(fill):
        rank[i], i = n, (5 * i + 1) % size
    k = np.arange(size, 64 * size)
    i, left, good = k % size, k, np.ones(k.shape, bool)
    while left.any():
        good &= rank[i] >= 0
        left = left >> 5
        i = (5 * i + 1 + left) % size
    good &= (rank[i] >= 0) & (rank[i] < fill // 2)
    return [*np.flatnonzero(rank >= 0).tolist(), *k[good][: count - fill].tolist()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    ends = run(arguments.files, arguments.seed)
    told = ", ".join(f"{n:,} {end}" for end, n in ends.items())
    print(f"{sum(ends.values()):,} files in {time.perf_counter() - began:.0f} s: {told}; nothing ran")


if __name__ == "__main__":
    main()
