"""`with` blocks that are also decorators: contextlib's, which a generator is not given to."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import _GeneratorContextManager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


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
