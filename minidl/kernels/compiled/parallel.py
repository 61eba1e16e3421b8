"""A loop over tasks on all threads.

Numba copies a compiled function into those that call it, and puts three functions around the body of a `prange`: the long
bodies of the convolutions would be optimised and translated four times over, which takes seconds. Here there is one `prange`,
which calls any work by the address of its code.

Numba runs the loop on the first of these that it finds: Intel's TBB, OpenMP (all Linux machines), or a work queue of its own
(Macs without OpenMP). NUMBA_THREADING_LAYER=omp in the environment chooses. The work queue cannot serve two Python threads at
the same time: there they take turns.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import numba
from llvmlite import ir
from numba import njit, prange, types
from numba._dispatcher import compute_fingerprint
from numba.core import cgutils
from numba.extending import intrinsic

from minidl.kernels.cache import kept

SLOTS = 64  # what many small tasks are put into, since a call costs as much as some hundred numbers
_WORD = ir.IntType(64)
_ENTRY = ir.FunctionType(_WORD, [_WORD, _WORD])  # (i, where the arguments lie) -> 1 for an error, else 0
_addresses: dict[Any, int] = {}  # of the code of a function for arguments of some types
_turn: Any = threading.Lock()


def in_parallel(work: Any, count: int, *arguments: Any) -> None:
    """work(i, *arguments) for i = 0, ..., count - 1, on all threads; `work` is an njit function that returns nothing."""
    if count == 1:
        work(0, *arguments)
        return
    bare = list[Any]()  # tuples without their names, which lie in memory alike: names cost Numba a microsecond each
    for a in arguments:
        bare.append(tuple(a) if isinstance(a, tuple) else a)
    kind = work, *map(type, arguments), compute_fingerprint(tuple(bare))
    if kind not in _addresses:
        _addresses[kind] = _address(work, 0, *arguments)
    if _for_each not in _addresses:
        _addresses[_for_each] = _prepare_loop()
    with _turn:
        _start(_addresses[_for_each], _addresses[kind], count, *bare)


def _address(function: Any, *arguments: Any) -> int:
    """Where the code of `function` for arguments of these types lies, which is compiled or loaded."""
    signature = tuple(numba.typeof(a) for a in arguments)
    function.compile(signature)
    code = function.overloads[signature]
    return int(code.library.get_pointer_to_function(code.fndesc.llvm_func_name))


def _prepare_loop() -> int:
    """The address of the loop; and no more turns to take, where Numba's threads serve several of Python's."""
    global _turn
    with _turn:
        _for_each(0, 0, 0)  # with the first loop Numba chooses its threads
    if numba.threading_layer() != "workqueue":
        _turn = nullcontext()
    return _address(_for_each, 0, 0, 0)


@kept(njit(nogil=True))
def _start(loop, work, count, *arguments):
    if _hand_over(loop, work, count, arguments):
        raise IndexError("a kernel went beyond the end of an array")  # which is looked for with NUMBA_BOUNDSCHECK=1 alone


@kept(njit(parallel=True, nogil=True))
def _for_each(entry, count, arguments):
    errors = 0
    for i in prange(count):
        errors += _enter(entry, i, arguments)
    return errors


@intrinsic
def _enter(typing, entry, i, arguments):
    """entry(i, arguments)"""

    def code(context, b, signature, values):
        entry, i, arguments = values
        return b.call(b.inttoptr(entry, _ENTRY.as_pointer()), [i, arguments])

    return types.int64(types.int64, types.int64, types.int64), code


@intrinsic
def _hand_over(typing, loop, work, count, arguments):
    """Leave the arguments in memory; let `loop` call, for every i, an entry that reads them and calls work(i, *arguments)."""

    def code(context, b, signature, values):
        loop, work, count, arguments = values
        kinds = types.int64, *signature.args[3].types  # of i and the arguments
        packed = cgutils.pack_struct(b, [work, arguments])
        memory = cgutils.alloca_once_value(b, packed)

        entry = ir.Function(b.module, _ENTRY, b.module.get_unique_name("entry"))
        entry.linkage = "internal"
        inside = ir.IRBuilder(entry.append_basic_block())
        i, at = entry.args
        read = inside.load(inside.inttoptr(at, memory.type))
        function = context.call_conv.get_function_type(types.none, kinds).as_pointer()
        address = inside.inttoptr(inside.extract_value(read, 0), function)
        each = [inside.extract_value(read, (1, k)) for k in range(len(kinds) - 1)]
        status, _ = context.call_conv.call_function(inside, address, types.none, kinds, [i, *each])
        inside.ret(inside.zext(status.is_error, _WORD))

        kind = context.call_conv.get_function_type(types.int64, (types.int64,) * 3).as_pointer()
        numbers = b.ptrtoint(entry, _WORD), count, b.ptrtoint(memory, _WORD)
        status, errors = context.call_conv.call_function(b, b.inttoptr(loop, kind), types.int64, (types.int64,) * 3, numbers)
        return b.select(status.is_error, ir.Constant(_WORD, 1), errors)

    return types.int64(types.int64, types.int64, types.int64, arguments), code
