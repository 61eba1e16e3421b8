"""A stand-in for CuPy that computes with NumPy but is as strict as the GPU, so that GPU code is tested on every machine.

Its array refuses to become a NumPy array implicitly and to meet one in an operator, a function or an index; only
`asarray`, `array`, `asnumpy` and `get` cross the border. Scalars of Python and NumPy may mix in, as they may with CuPy.
Reductions and single elements are 0-d arrays, not scalars. It has a choice of the functions that CuPy has, with CuPy's
arguments. It is stricter than CuPy in two places: NumPy functions do not dispatch to it, and a NumPy array is no index
(CuPy would copy it to the GPU unasked).
"""

from __future__ import annotations

import itertools
import operator
import threading
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

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


def _function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not set(kwargs) <= _KEYWORDS.get(name, set(kwargs)):
            raise TypeError(f"{name}() got keyword arguments that CuPy does not know: {sorted(kwargs)}")
        return _dressed(function(*_bare(args), **{key: _bare(value) for key, value in kwargs.items()}))

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
        return _dressed(ufunc(*_bare(inputs)))

    @property
    def base(self) -> ndarray | None:
        return None if self._bare.base is None else _dressed(np.asarray(self._bare.base))

    @property
    def T(self) -> ndarray:  # noqa: N802
        return _dressed(self._bare.T)

    def get(self) -> np.ndarray:
        return self._bare.copy()

    def item(self) -> Any:
        return self._bare.item()

    def __getitem__(self, index: Any) -> ndarray:
        return _dressed(self._bare[_bare(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._bare[_bare(index)] = _bare(value)

    def __len__(self) -> int:
        return len(self._bare)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._bare)

    def __int__(self) -> int:
        return int(self._bare)

    def __float__(self) -> float:
        return float(self._bare)

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


def _operator(function: Callable[[Any, Any], Any], reflected: bool = False, in_place: bool = False) -> Callable[..., Any]:
    def call(self: ndarray, other: Any) -> Any:
        if getattr(other, "__array_ufunc__", 0) is None:  # it wants its own operator to be called, as a Tensor does
            return NotImplemented
        a, b = (_bare(other), self._bare) if reflected else (self._bare, _bare(other))
        result = function(a, b)
        return self if in_place else _dressed(result)

    return call


for _name in "add sub mul truediv floordiv mod pow matmul and or xor rshift".split():
    _plain = getattr(operator, {"and": "and_", "or": "or_"}.get(_name, _name))
    setattr(ndarray, f"__{_name}__", _operator(_plain))
    setattr(ndarray, f"__r{_name}__", _operator(_plain, reflected=True))
    setattr(ndarray, f"__i{_name}__", _operator(getattr(operator, f"i{_name}"), in_place=True))
for _name in "lt le eq ne gt ge".split():
    setattr(ndarray, f"__{_name}__", _operator(getattr(operator, _name)))
for _name in "neg pos abs invert".split():
    setattr(ndarray, f"__{_name}__", lambda self, name=_name: _dressed(getattr(operator, name)(self._bare)))


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
        getattr(np, self.__name__).at(_bare(a), _bare(indices), _bare(b))


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
        self.queued.append("synchronize")


class _Streams(threading.local):
    def __init__(self) -> None:
        self.stack = [null]


def _streams() -> list[Stream]:
    """The streams that this thread has entered, the current one last"""
    return _local.stack  # type: ignore[no-any-return]


null = Stream(null=True)
_local = _Streams()


def _asarray(a: Any, dtype: Any = None) -> ndarray:
    if isinstance(a, ndarray) and dtype in (None, a.dtype):
        return a
    return _array(a, dtype)


def _array(a: Any, dtype: Any = None) -> ndarray:
    return _dressed(np.array(a._bare if isinstance(a, ndarray) else a, dtype))


def _clip(a: ndarray, a_min: Any, a_max: Any) -> ndarray:
    if a_min is None and a_max is None:
        raise ValueError("array_clip: must set either max or min")
    return _dressed(np.clip(_bare(a), _bare(a_min), _bare(a_max)))


def cupy(devices: int = 1) -> ModuleType:
    """A module to put into `sys.modules["cupy"]`, on a machine with so many GPUs."""
    module = ModuleType("cupy")
    for name in (
        "abs absolute add ceil cos divide equal exp expm1 floor floor_divide fmax fmin greater greater_equal isfinite isinf "
        "isnan less less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or maximum minimum multiply "
        "negative not_equal power remainder rint sign sin sqrt square subtract tanh true_divide"
    ).split():
        setattr(module, name, ufunc(name))
    for name in (
        "all allclose any arange argmax argmin argsort ascontiguousarray broadcast_to concatenate cumsum dot einsum empty "
        "empty_like expand_dims eye flip full full_like linspace matmul max mean meshgrid min moveaxis nonzero ones ones_like "
        "outer pad prod ravel repeat reshape roll sort squeeze stack std sum swapaxes take take_along_axis tensordot tile "
        "transpose tril triu unique var where zeros zeros_like"
    ).split():
        setattr(module, name, _function(name, getattr(np, name)))
    for name in "bool_ float16 float32 float64 int8 int16 int32 int64 uint8 inf nan pi newaxis dtype finfo result_type".split():
        setattr(module, name, getattr(np, name))
    runtime = SimpleNamespace(getDeviceCount=lambda: devices)
    for name, value in {
        "ndarray": ndarray,
        "asarray": _asarray,
        "array": _array,
        "asnumpy": lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a),
        "clip": _clip,
        "cuda": SimpleNamespace(runtime=runtime, Stream=Stream, get_current_stream=lambda: _streams()[-1]),
    }.items():
        setattr(module, name, value)
    return module
