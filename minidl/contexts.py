"""What holds for one thread until a block or a call ends, whatever ends it.

A `Setting` is a value of this thread, such as whether ops record. A `Block` replaces it: `with` statements and decorators such
as `no_grad()` are blocks. `contained` makes a call that leaves every setting as it found it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Setting(Generic[T]):
    """A value that blocks replace in the thread that they run in.

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

    def reset(self, default: T) -> None:
        """Another default, and no block around, in any thread."""
        self.default = default
        self.variable: ContextVar[tuple[T, tuple[tuple[T], ...]]] = ContextVar(self.name, default=(default, ()))
        self.state = self.variable.get

    def enter(self, entry: tuple[T]) -> None:
        self.variable.set((entry[0], (*self.state()[1], entry)))

    def leave(self, entry: tuple[T]) -> None:
        entries = tuple([other for other in self.state()[1] if other is not entry])
        self.variable.set((entries[-1][0] if entries else self.default, entries))


class Block(Generic[T]):
    """`with Block(result, (setting, value), ...) as result:` gives every setting its value in this thread, until it ends.

    As a decorator it does so for each call of a function. `name`: what it is called, if not as its first setting.
    """

    def __init__(self, result: T, *values: tuple[Setting[Any], Any], name: str = "") -> None:
        self.result, self.values, self.name = result, values, name or values[0][0].name
        self.entered: list[list[tuple[Setting[Any], tuple[Any]]]] = []  # one object may be entered several times

    def __enter__(self) -> T:
        entries = [(setting, (value,)) for setting, value in self.values]
        self.entered.append(entries)
        for setting, entry in entries:
            setting.enter(entry)
        return self.result

    def __exit__(self, *_: object) -> None:
        for setting, entry in self.entered.pop():
            setting.leave(entry)

    def __call__(self, function: F) -> F:
        """Raises TypeError for a generator or a coroutine, whose body would run when the block has long been left."""
        kinds = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
        if any(runs_later(function) for runs_later in kinds):
            raise TypeError(
                f"@{self.name}(...): {function.__name__} would run outside of it, after the call has returned; "
                f"write `with {self.name}(...):` inside"
            )

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with Block(self.result, *self.values):
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]


def contained(function: Callable[P, T]) -> Callable[P, T]:
    """The function, after whose call every setting of this thread is as before, at whatever moment an error ended it.

    A `with` block alone does not promise that: Ctrl-C may come while it is being left. Here the settings are those of a
    copy of the thread's context, which Python gives up in one step.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return copy_context().run(function, *args, **kwargs)

    return call
