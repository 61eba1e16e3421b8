"""What holds for one thread until a block or a call ends, whatever ends it.

A `Setting` is a value of this thread, such as whether ops record. `context` makes a `with` block out of a function, and
`contained` a call that leaves every setting as it found it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import _GeneratorContextManager
from contextvars import ContextVar, copy_context
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Setting(Generic[T]):
    """A value that blocks replace in the thread that they run in.

        entry = setting.enter(value)
        try: ...
        finally: setting.leave(entry)

    A block takes away what it brought and nothing else, so that blocks may end in any order, as those in generators do.
    `state()` is (the value of the innermost block or the default, the entries of all blocks around), one call of C.
    """

    state: Callable[[], tuple[T, tuple[tuple[T], ...]]]

    def __init__(self, name: str, default: T) -> None:
        self.name = name
        self.reset(default)

    @property
    def value(self) -> T:
        return self.state()[0]

    def enter(self, value: T) -> tuple[T]:
        entry = (value,)
        self._set((*self.state()[1], entry))
        return entry

    def leave(self, entry: tuple[T]) -> None:
        self._set(tuple([other for other in self.state()[1] if other is not entry]))

    def reset(self, default: T) -> None:
        """Another default, and no block around, in any thread."""
        self.default = default
        self._variable: ContextVar[tuple[T, tuple[tuple[T], ...]]] = ContextVar(self.name, default=(default, ()))
        self.state = self._variable.get

    def _set(self, entries: tuple[tuple[T], ...]) -> None:
        self._variable.set((entries[-1][0] if entries else self.default, entries))


class _Context(_GeneratorContextManager[T]):
    def __call__(self, function: F) -> F:
        """As a decorator. Raises TypeError for a generator, whose body would run when the block has long been left."""
        kinds = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
        if any(runs_later(function) for runs_later in kinds):
            raise TypeError(
                f"@{self.func.__name__}(...): {function.__name__} would run outside of it, after the call has returned; "
                f"write `with {self.func.__name__}(...):` inside"
            )
        return super().__call__(function)


def context(function: Callable[P, Iterator[T]]) -> Callable[P, _Context[T]]:
    """`contextlib.contextmanager`, of which a generator or a coroutine cannot be decorated in vain"""

    @wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> _Context[T]:
        return _Context(function, args, kwargs)  # type: ignore[arg-type]

    return made


def contained(function: Callable[P, T]) -> Callable[P, T]:
    """The function, after whose call every setting of this thread is as before, at whatever moment an error ended it.

    A `with` block alone does not promise that: Ctrl-C may come while it is being left. Here the settings are those of a
    copy of the thread's context, which Python gives up in one step.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return copy_context().run(function, *args, **kwargs)

    return call
