"""`watch`, which sees every call of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from minidl.core import Tensor
from minidl.nn.module import Module
from minidl.ops.fused import unfused


@contextmanager
def watch(
    model: Module,
    before: Callable[[str, Tensor], None] | None = None,
    after: Callable[[str, Tensor], None] | None = None,
) -> Iterator[None]:
    """Inside, every call of a module in `model` calls `before(name, x)` and, when it is done, `after(name, y)`.

    `name` is the dotted one, "" for the model itself. Calls nest as the modules do, and so may `with watch(...)`. No ops are
    fused meanwhile (`ops.unfused`), for a fused op computes several modules and calls none.
    """

    def watched(name: str, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            if before is not None:
                before(name, x)
            y = forward(x)
            if after is not None:
                after(name, y)
            return y

        return call

    found = [(name, module, vars(module).get("forward")) for name, module in model.named_modules()]
    for name, module, _ in found:
        vars(module)["forward"] = watched(name, module.forward)  # stands before the method of the class
    try:
        with unfused():
            yield
    finally:
        for _, module, outer in found:
            del vars(module)["forward"]
            if outer is not None:  # somebody watches already
                vars(module)["forward"] = outer
