"""The containers: modules whose children are attributes named "0", "1", ..."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self, overload

from minidl.core import Tensor
from minidl.nn.fused import in_sequence
from minidl.nn.module import Module


class ModuleList(Module):
    """Modules under the names "0", "1", ...: to index and to loop over. Raises TypeError for what is no module."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Self:
        """Put a module behind the last one. Raises TypeError for what is none."""
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: expected Modules, got {type(module).__name__}")
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return len(list(self.named_children()))

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Module | Self:
        """One module, or a container of the same kind with those of a slice."""
        found = list(self)[index]
        if isinstance(found, Module):
            return found
        part = type(self)()
        for module in found:
            part.append(module)
        return part


class Sequential(ModuleList):
    """y = f_last(... f_1(f_0(x))): each module is given what the one before it returned, of whatever shape.

    A convolution is computed together with the batch norm and the relu behind it (see `nn.fused`), unless `ops.unfused()`.
    Raises TypeError for what is no module.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Tensor) -> Tensor:
        return in_sequence(x, list(self))
