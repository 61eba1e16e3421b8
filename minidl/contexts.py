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
    `state()` is (the value of the innermost block or the default, (value, block) of all blocks around), one call of C.
    """

    state: Callable[[], tuple[T, tuple[tuple[T, object], ...]]]

    def __init__(self, name: str, default: T) -> None:
        self.name = name
        self.reset(default)

    @property
    def value(self) -> T:
        return self.state()[0]

    def reset(self, default: T) -> None:
        """Another default, and no block around, in any thread."""
        self.default = default
        self.variable: ContextVar[tuple[T, tuple[tuple[T, object], ...]]] = ContextVar(self.name, default=(default, ()))
        self.state = self.variable.get

    def enter(self, value: T, block: object) -> None:
        self.variable.set((value, (*self.state()[1], (value, block))))

    def leave(self, block: object) -> None:
        """Without the innermost entry of this block, which may have been entered several times, by other threads too."""
        entries = list(self.state()[1])
        last = max((i for i, (_, entered) in enumerate(entries) if entered is block), default=None)
        if last is not None:
            del entries[last]
        self.variable.set((entries[-1][0] if entries else self.default, tuple(entries)))

    def holds(self, thing: object) -> bool:
        """Of a setting whose values are dictionaries by id: whether a block around is about this thing."""
        return any(id(thing) in things for things, _ in self.state()[1])  # type: ignore[operator]


class Block(Generic[T]):
    """`with Block(result, (setting, value), ...) as result:` gives every setting its value in this thread, until it ends.

    As a decorator it does so for each call of a function. `name`: what it is called, if not as its first setting.
    """

    def __init__(self, result: T, *values: tuple[Setting[Any], Any], name: str = "") -> None:
        self.result, self.values, self.name = result, values, name or values[0][0].name

    def __enter__(self) -> T:
        for setting, value in self.values:
            setting.enter(value, self)
        return self.result

    def __exit__(self, *_: object) -> None:
        for setting, _ in self.values:
            setting.leave(self)

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
            with self:
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
