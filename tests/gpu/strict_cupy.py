"""A stand-in for CuPy that computes with NumPy but is as strict as the GPU, so that GPU code is tested on every machine.

Its array refuses to become a NumPy array implicitly and to meet one in an operator, a function or an index; only
`asarray`, `array`, `asnumpy` and `get` cross the border. Scalars of Python and NumPy may mix in, as they may with CuPy.
Reductions and single elements are 0-d arrays, not scalars. It has a choice of the functions that CuPy has, with CuPy's
arguments. It is stricter than CuPy in two places: NumPy functions do not dispatch to it, and a NumPy array is no index
(CuPy would copy it to the GPU unasked).

While a stream captures a CUDA graph, what would change an array is written down and not done: a new array holds NaN until the
graph is launched. As with CuPy, nothing can be read back then and cuBLAS cannot be called; stricter than CuPy, nothing can be
copied from the CPU, which the graph would do again from memory that is somebody else's by then, and memory must come from a
pool of the graph's own.
"""

from __future__ import annotations

import ctypes
import itertools
import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np

_REDUCTION = {"axis", "dtype", "out", "keepdims"}  # no `where`, no `initial`
_KEYWORDS = {
    "all": {"axis", "out", "keepdims"},
    "any": {"axis", "out", "keepdims"},
    "argmax": _REDUCTION,
    "argmin": _REDUCTION,
    "astype": {"order", "copy"},
    "max": {"axis", "out", "keepdims"},
    "mean": _REDUCTION,
    "min": {"axis", "out", "keepdims"},
    "prod": _REDUCTION,
    "std": _REDUCTION | {"ddof"},
    "sum": _REDUCTION,
    "var": _REDUCTION | {"ddof"},
}


_CUBLAS = {"matmul", "dot", "einsum", "tensordot", "outer"}


def _bare(x: Any) -> Any:
    """The NumPy array inside a stand-in array, also in lists and tuples; no other array may be there."""
    if isinstance(x, ndarray):
        return x._bare
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, list | tuple):
        return type(x)(_bare(item) for item in x)
    return x


def _dressed(result: Any) -> Any:
    if isinstance(result, np.ndarray | np.generic):
        array = object.__new__(ndarray)
        array._bare = np.asarray(result)
        return array
    return tuple(_dressed(item) for item in result) if isinstance(result, list | tuple) else result


def _arrays(x: Any) -> list[np.ndarray]:
    """All NumPy arrays in nested lists and tuples"""
    return [x] if isinstance(x, np.ndarray) else [a for item in x for a in _arrays(item)] if isinstance(x, list | tuple) else []


def _do(function: Callable[..., Any], *args: Any, changes: np.ndarray | None = None, **kwargs: Any) -> Any:
    """What the function gives of bare arguments, dressed; `changes`: the array that it changes in place"""
    captured = _streams()[-1].captured
    if captured is None:
        return _dressed(function(*args, **kwargs))
    if changes is not None:
        captured.append(lambda: function(*args, **kwargs))
        return _dressed(changes)
    result = _dressed(function(*args, **kwargs))
    fresh = [a._bare for a in (result if isinstance(result, tuple) else (result,)) if isinstance(a, ndarray)]
    inputs = _arrays([list(args), list(kwargs.values())])
    if not any(np.may_share_memory(a, b) for a in fresh for b in inputs):  # it is no view

        def again() -> None:
            results = function(*args, **kwargs)
            for a, value in zip(fresh, results if isinstance(results, tuple | list) else (results,), strict=True):
                a[...] = value

        if _memory.pool is None:
            raise RuntimeError("memory of the common pool is not the graph's own, and would serve others after the capture")
        captured.append(again)
        for a in fresh:
            a[...] = np.nan if a.dtype.kind == "f" else 0
    return result


def _not_captured(what: str, error: type[Exception] = RuntimeError) -> None:
    if _streams()[-1].captured is not None:
        raise error(f"the current stream is capturing: {what}")


def _function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not set(kwargs) <= _KEYWORDS.get(name, set(kwargs)):
            raise TypeError(f"{name}() got keyword arguments that CuPy does not know: {sorted(kwargs)}")
        if name in _CUBLAS:
            _not_captured("calling cuBLAS API during stream capture is currently unsupported", NotImplementedError)
        if name in ("tolist", "nonzero", "unique", "allclose"):
            _not_captured(f"{name} waits for the GPU")
        bare = {key: _bare(value) for key, value in kwargs.items()}
        changes = bare.get("out") if name not in ("fill", "sort") or function is np.sort else _bare(args[0])
        return _do(function, *_bare(args), changes=changes, **bare)

    call.__name__ = name
    return call


class ndarray:  # noqa: N801 - CuPy's name
    """Stands for an array on the GPU."""

    __array_priority__ = 100
    _bare: np.ndarray

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called with a CuPy array")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Called for numpy_scalar * array, which CuPy allows, and for numpy.exp(array) and numpy_array * array."""
        if method != "__call__" or kwargs or not any(isinstance(x, np.generic) for x in inputs):
            raise TypeError(f"numpy.{ufunc.__name__} was called with a CuPy array")
        return _do(ufunc, *_bare(inputs))

    @property
    def base(self) -> ndarray | None:
        return None if self._bare.base is None else _dressed(np.asarray(self._bare.base))

    @property
    def T(self) -> ndarray:  # noqa: N802
        return _dressed(self._bare.T)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._bare.ctypes.data)

    def get(self) -> np.ndarray:
        _not_captured("nothing can be copied to the CPU")
        return self._bare.copy()

    def item(self) -> Any:
        return self.get().item()

    def __getitem__(self, index: Any) -> ndarray:
        return _do(operator.getitem, self._bare, _bare(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        _do(operator.setitem, self._bare, _bare(index), _bare(value), changes=self._bare)

    def __len__(self) -> int:
        return len(self._bare)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __repr__(self) -> str:
        return repr(self._bare)

    __hash__ = None  # type: ignore[assignment]


for _name in ("shape", "ndim", "size", "dtype", "itemsize", "nbytes", "strides", "flags"):
    setattr(ndarray, _name, property(lambda self, name=_name: getattr(self._bare, name)))

for _name in (
    "all any argmax argmin argsort astype clip copy cumsum diagonal dot fill flatten max mean min nonzero prod ravel repeat "
    "reshape round sort squeeze std sum swapaxes take tolist transpose var view"
).split():
    setattr(ndarray, _name, _function(_name, getattr(np.ndarray, _name)))


def _matmul(a: Any, b: Any, out: Any = None) -> Any:
    """As cuBLAS multiplies halves: it adds up in float32 and rounds the sums"""
    wide = [x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype == np.float16 else x for x in (a, b)]
    y = np.matmul(*wide).astype(np.result_type(a, b), copy=False)
    if out is None:
        return y
    out[...] = y
    return out


def _operator(function: Callable[[Any, Any], Any], reflected: bool = False, in_place: bool = False) -> Callable[..., Any]:
    def call(self: ndarray, other: Any) -> Any:
        if getattr(other, "__array_ufunc__", 0) is None:  # it wants its own operator to be called, as a Tensor does
            return NotImplemented
        if "matmul" in function.__name__:
            _not_captured("calling cuBLAS API during stream capture is currently unsupported", NotImplementedError)
        a, b = (_bare(other), self._bare) if reflected else (self._bare, _bare(other))
        result = _do(function, a, b, changes=self._bare if in_place else None)
        return self if in_place else result

    return call


for _name in "add sub mul truediv floordiv mod pow matmul and or xor rshift".split():
    _plain = _matmul if _name == "matmul" else getattr(operator, {"and": "and_", "or": "or_"}.get(_name, _name))
    setattr(ndarray, f"__{_name}__", _operator(_plain))
    setattr(ndarray, f"__r{_name}__", _operator(_plain, reflected=True))
    setattr(ndarray, f"__i{_name}__", _operator(getattr(operator, f"i{_name}"), in_place=True))
for _name in "lt le eq ne gt ge".split():
    setattr(ndarray, f"__{_name}__", _operator(getattr(operator, _name)))
for _name in "neg pos abs invert".split():
    setattr(ndarray, f"__{_name}__", lambda self, name=_name: _do(getattr(operator, name), self._bare))


class ufunc:  # noqa: N801 - CuPy's name
    """An element-wise function; `at` where CuPy has it."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self.call = _function(name, getattr(np, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def at(self, a: ndarray, indices: Any, b: Any) -> None:
        if self.__name__ not in ("add", "subtract", "maximum", "minimum"):
            raise NotImplementedError(f"`{self.__name__}.at` is not supported yet")
        _do(getattr(np, self.__name__).at, _bare(a), _bare(indices), _bare(b), changes=_bare(a))


# ---- streams


class Event:
    """A point in the work of a stream: so many things had been queued there."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.place = stream, len(stream.queued)


class Stream:
    """Computes at once, and writes down what waits for what."""

    made = itertools.count()

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr, self.non_blocking = 0 if null else next(Stream.made) + 1, non_blocking
        self.queued: list[Any] = []  # events that this stream waits for, and "record"
        self.captured: list[Callable[[], Any]] | None = None

    def __enter__(self) -> Stream:
        _streams().append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        assert _streams().pop() is self

    def record(self) -> Event:
        self.queued.append("record")
        return Event(self)

    def wait_event(self, event: Event) -> None:
        self.queued.append(event)

    def synchronize(self) -> None:
        _not_captured("it cannot be waited for")
        self.queued.append("synchronize")

    def is_capturing(self) -> bool:
        return self.captured is not None

    def begin_capture(self) -> None:
        if not self.non_blocking:
            raise RuntimeError("cudaErrorStreamCaptureImplicit: a stream that waits for the default stream cannot be captured")
        self.captured = []

    def end_capture(self) -> Graph:
        assert self.captured is not None
        graph, self.captured = Graph(self.captured), None
        return graph


class Graph:
    """What was captured, to be done at each launch"""

    def __init__(self, calls: list[Callable[[], Any]]) -> None:
        self.calls = calls

    def launch(self, stream: Stream | None = None) -> None:
        for call in self.calls:
            call()


class MemoryPool:
    def total_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        pass

    def malloc(self, size: int) -> None:
        raise AssertionError("the stand-in has NumPy's memory")


class _Memory(threading.local):
    pool: MemoryPool | None = None  # None: the common one


_memory = _Memory()


@contextmanager
def _using_allocator(malloc: Callable[[int], None]) -> Iterator[None]:
    before, _memory.pool = _memory.pool, malloc.__self__  # type: ignore[attr-defined]
    try:
        yield
    finally:
        _memory.pool = before


class _Streams(threading.local):
    def __init__(self) -> None:
        self.stack = [null]


def _streams() -> list[Stream]:
    """The streams that this thread has entered, the current one last"""
    return _local.stack  # type: ignore[no-any-return]


null = Stream(null=True)
_local = _Streams()


# ---- several GPUs


class NcclCommunicator:
    """One of `size` threads that add up memory together. As with NCCL all must call alike, and nobody is told who has not."""

    together: ClassVar[dict[tuple[int, ...], dict[str, Any]]] = {}

    def __init__(self, size: int, identity: tuple[int, ...], rank: int) -> None:
        if not isinstance(identity, tuple) or not 0 <= rank < size:
            raise ValueError(f"ncclInvalidArgument: rank {rank} of {size}, {identity!r}")
        fresh = {"barrier": threading.Barrier(size, timeout=60), "calls": [None] * size}
        self.shared, self.rank = NcclCommunicator.together.setdefault(identity, fresh), rank
        self.shared["barrier"].wait()

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int) -> None:  # noqa: N802
        if op != nccl.NCCL_SUM or datatype not in _NCCL_TYPES or not stream:
            raise ValueError(
                f"the stand-in adds up floats in a stream of its own, got op {op}, type {datatype}, stream {stream}"
            )
        size = count * np.dtype(_NCCL_TYPES[datatype]).itemsize
        source, target = (
            np.frombuffer((ctypes.c_char * size).from_address(at), _NCCL_TYPES[datatype]) for at in (sendbuf, recvbuf)
        )
        self.shared["calls"][self.rank] = (count, datatype), source.copy()
        self.shared["barrier"].wait()
        if len({call for call, _ in self.shared["calls"]}) > 1:
            raise RuntimeError("the ranks do not sum the same: NCCL would hang, or add up what does not belong together")
        total = np.sum([values for _, values in self.shared["calls"]], axis=0, dtype=_NCCL_TYPES[datatype])
        self.shared["barrier"].wait()
        target[...] = total


_NCCL_TYPES = {7: np.float32, 8: np.float64}  # the numbers of nccl.h
nccl = SimpleNamespace(
    available=True,
    NCCL_SUM=0,
    NCCL_FLOAT32=7,
    NCCL_FLOAT64=8,
    NcclCommunicator=NcclCommunicator,
    get_unique_id=lambda: (next(_identities), 0, 1),
)
_identities = itertools.count()


def _asarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray) and dtype in (None, a.dtype):
        return a
    return _array(a, dtype)


def _array(a: Any, dtype: Any = None) -> ndarray:
    if not isinstance(a, ndarray):
        _not_captured("nothing can be copied from the CPU")
    return _do(np.array, a._bare if isinstance(a, ndarray) else a, dtype)


def _clip(a: ndarray, a_min: Any, a_max: Any) -> ndarray:
    if a_min is None and a_max is None:
        raise ValueError("array_clip: must set either max or min")
    return _do(np.clip, _bare(a), _bare(a_min), _bare(a_max))


def cupy(devices: int = 1) -> ModuleType:
    """A module to put into `sys.modules["cupy"]`, on a machine with so many GPUs."""
    module = ModuleType("cupy")
    for name in (
        "abs absolute add arctanh ceil cos divide equal exp expm1 floor floor_divide fmax fmin greater greater_equal isfinite "
        "isinf isnan less less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or maximum minimum "
        "multiply negative nextafter not_equal power remainder rint sign sin sqrt square subtract tanh true_divide"
    ).split():
        setattr(module, name, ufunc(name))
    for name in (
        "all allclose any arange argmax argmin argsort ascontiguousarray broadcast_to concatenate cumsum dot einsum empty "
        "empty_like expand_dims eye flip full full_like linspace max mean meshgrid min moveaxis nonzero ones ones_like "
        "outer pad prod ravel repeat reshape roll sort squeeze stack std sum swapaxes take take_along_axis tensordot tile "
        "transpose tril triu unique var where zeros zeros_like"
    ).split():
        setattr(module, name, _function(name, getattr(np, name)))
    for name in "bool_ float16 float32 float64 int8 int16 int32 int64 uint8 inf nan pi newaxis dtype finfo result_type".split():
        setattr(module, name, getattr(np, name))
    runtime = SimpleNamespace(
        getDeviceCount=lambda: devices,
        getDevice=lambda: 0,
        getDeviceProperties=lambda device: {"name": b"no GPU, but a stand-in for CuPy"},
        driverGetVersion=lambda: 0,
        runtimeGetVersion=lambda: 0,
        deviceSynchronize=lambda: _not_captured("it cannot be waited for"),
    )
    for name, value in {
        "ndarray": ndarray,
        "asarray": _asarray,
        "array": _array,
        "asnumpy": lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a),
        "clip": _clip,
        "get_default_memory_pool": lambda: MemoryPool(),
        "matmul": _function("matmul", _matmul),
        "cuda": SimpleNamespace(
            runtime=runtime,
            Stream=Stream,
            get_current_stream=lambda: _streams()[-1],
            MemoryPool=MemoryPool,
            using_allocator=_using_allocator,
            device=SimpleNamespace(get_cublas_handle=lambda: 1),
            Device=lambda: SimpleNamespace(pci_bus_id=f"0000:{threading.get_ident()}"),  # each thread has a GPU of its own
            nccl=nccl,
        ),
    }.items():
        setattr(module, name, value)
    return module
