"""Which room may import which, which library lives where, and how short the way is from `backward` to a gradient."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import Tensor, kernels, ops
from minidl.ops.conv import Conv2d

ROOT = Path(minidl.__file__).parents[1]

# A room is a file or a folder of minidl, or the package models. It may import itself and the rooms on the right, and it does.
ARROWS = {
    "array": "",
    "bar": "",
    "contexts": "",
    "arguments": "array",
    "conduct": "array",
    "mixed": "contexts",
    "notebook": "",
    "parallel": "arguments array",
    "io": "array",
    "stable": "array",
    "kernels": "array contexts stable",
    "metrics": "arguments array bar notebook stable",
    "data": "arguments array bar",
    "inputs": "arguments array conduct mixed",
    "sharing": "array",
    "core": "array conduct contexts inputs kernels mixed sharing",
    "check": "arguments array core inputs",
    "ops": "arguments array contexts core kernels mixed parallel stable",
    "plain": "contexts kernels ops",
    "nn": "arguments array contexts core io ops",
    "analysis": "arguments array contexts core inputs nn notebook ops",
    "flow": "analysis arguments array core inputs kernels notebook ops",
    "optim": "arguments array core io kernels nn",
    "weights": "arguments array io nn",
    "inference": "arguments array bar contexts core data flow nn ops parallel",
    "view": "analysis arguments array bar contexts core flow io kernels metrics nn notebook ops",
    "explain": "analysis arguments array contexts core flow inference io nn notebook ops optim view",
    "attack": "arguments array contexts core inference metrics nn ops optim stable",
    "evaluate": "arguments array contexts core explain inference metrics nn notebook",
    "train": "analysis arguments array bar core data inference io kernels metrics mixed nn notebook ops optim parallel weights",
    "models": "arguments array core nn ops",
}

# Libraries beyond NumPy, and the only rooms that may import them.
LIBRARIES = {
    "cupy": "array",
    "matplotlib": "view",
    "ml_dtypes": "mixed",
    "mpi4py": "parallel",
    "numba": "kernels parallel",
    "PIL": "data view",
    "pooch": "data",
    "pydicom": "data",
    "safetensors": "io",
    "threadpoolctl": "kernels parallel",
    "torch": "",
    "tqdm": "bar",
}


def _rooms() -> Iterator[tuple[str, Path]]:
    """Every file with the room that it is in"""
    for path in sorted((ROOT / "minidl").rglob("*.py")):
        room = path.relative_to(ROOT / "minidl").parts[0].removesuffix(".py")
        if room != "__init__":  # that of minidl itself collects the public names
            yield room, path
    for path in sorted((ROOT / "models").rglob("*.py")):
        yield "models", path


def _imports(path: Path) -> Iterator[str]:
    """The full names of what a file imports: "numpy", "minidl.core.Tensor", "minidl.array.Array\""""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = [*package[: len(package) - node.level + 1]] if node.level else []
            source += node.module.split(".") if node.module else []
            yield from (".".join([*source, alias.name]) for alias in node.names)


def _room_of(name: str) -> str | None:
    """The room that an imported name comes from; None if it is none of ours"""
    first, _, rest = name.partition(".")
    if first == "models":
        return "models"
    if first != "minidl":
        return None
    room = rest.split(".")[0]
    if room not in ARROWS and room in minidl.LATER:  # `from minidl import cost`: analysis
        return minidl.LATER[room]
    return room if room in ARROWS else getattr(minidl, room).__module__.split(".")[1]  # `from minidl import Tensor`: core


def test_the_arrows_do_not_turn_back() -> None:
    tuple(TopologicalSorter({room: allowed.split() for room, allowed in ARROWS.items()}).static_order())


def test_rooms_import_along_the_arrows() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}: {room} may import {ARROWS[room] or 'no other room'}"
        for room, path in _rooms()
        for name in _imports(path)
        if _room_of(name) not in (None, room, *ARROWS[room].split())
    ]
    assert not wrong, "\n".join(wrong)


def test_every_arrow_is_used() -> None:
    used = {room: set[str]() for room in ARROWS}
    for room, path in _rooms():
        used[room] |= {other for name in _imports(path) if (other := _room_of(name)) not in (None, room)}
    assert {room: sorted(others) for room, others in used.items()} == {room: sorted(a.split()) for room, a in ARROWS.items()}


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for _, path in _rooms()}
    graph = {}
    for module, path in files.items():
        named = [(name, name.rpartition(".")[0]) for name in _imports(path)]
        graph[module] = {name if name in files else package for name, package in named} & files.keys() - {module}
    tuple(TopologicalSorter(graph).static_order())


def test_kernels_are_called_by_the_door() -> None:
    """`kernels.of(x)`, not one of the sets: of them, other rooms know the shapes alone."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for room, path in _rooms()
        for name in _imports(path)
        if room != "kernels" and name.startswith("minidl.kernels.") and not name.startswith("minidl.kernels.shapes.")
    ]
    assert not wrong, "\n".join(wrong)


def test_libraries_stay_in_their_rooms() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}, which only {LIBRARIES[name.split('.')[0]] or 'nobody'} may"
        for room, path in _rooms()
        for name in _imports(path)
        if room not in LIBRARIES.get(name.split(".")[0], room).split()
    ]
    assert not wrong, "\n".join(wrong)


# ---- how much happens between backward() and the gradients


def _loss() -> Tensor:
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> Tensor:
        return Tensor(rng.standard_normal(shape, dtype=np.float32), requires_grad=True)

    x = Tensor(rng.standard_normal((4, 3, 8, 8), dtype=np.float32))
    h = ops.conv2d(x, weight(6, 3, 3, 3), weight(6), padding=1)
    h = ops.relu(ops.batch_norm(h, weight(6), weight(6)))
    h = ops.flatten(ops.max_pool2d(h, 2))
    return ops.cross_entropy(ops.linear(h, weight(5, 6 * 4 * 4), weight(5)), np.array([0, 1, 2, 3]))


def _profile(run: Callable[[], None], seen: Callable[[FrameType], None]) -> None:
    """Call `seen` with the frame of each call, or resumption of a generator, inside the package while `run` runs."""
    package = str(ROOT / "minidl")

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(package):
            seen(frame)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("kernel", kernels.CHOICES)
def test_one_backward_takes_few_calls(kernel: str) -> None:
    with kernels.use(kernel):
        _loss().backward()  # compiles what is to be compiled
        loss, calls = _loss(), list[str]()
        _profile(loss.backward, lambda frame: calls.append(frame.f_code.co_qualname))
    assert {"Tensor.backward", "walk", "Conv2d.backward", "CrossEntropy.backward"} <= set(calls)
    assert len(calls) < 50, calls


@pytest.mark.parametrize("kernel", kernels.CHOICES)
def test_three_frames_from_backward_to_the_gradient_of_a_convolution(kernel: str) -> None:
    stacks: list[list[str]] = []

    def note(frame: FrameType) -> None:
        if frame.f_code is Conv2d.backward.__code__:
            stack = []
            caller: FrameType | None = frame
            while caller is not None and caller.f_code.co_filename.startswith(str(ROOT / "minidl")):
                stack.append(caller.f_code.co_qualname)
                caller = caller.f_back
            stacks.append(stack[::-1])

    with kernels.use(kernel):
        loss = _loss()
        _profile(loss.backward, note)
    assert stacks == [["Tensor.backward", "walk", "Conv2d.backward"]]
