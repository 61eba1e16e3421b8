"""`watch`, which sees every call of a module."""

from __future__ import annotations

from minidl.contexts import Block
from minidl.nn.module import Module, Told, check_model, watchers
from minidl.ops.fused import fuse


def watch(model: Module, before: Told | None = None, after: Told | None = None) -> Block[None]:
    """Inside, every call of a module in `model` calls `before(name, x)` and, when it is done, `after(name, y)`.

    `name` is the dotted one, "" for the model itself. Calls nest as the modules do, and so may `with watch(...)`. Only calls in
    this thread count. No ops are fused meanwhile (`ops.unfused`), for a fused op computes several modules and calls none.
    Raises TypeError for what is no Module.
    """
    check_model(model)
    told = {id(module): (name, before, after) for name, module in model.named_modules()}
    return Block(None, (watchers, told), (fuse, False), name="watch")
