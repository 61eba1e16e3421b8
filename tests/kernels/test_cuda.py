"""The CUDA kernels without a GPU: names, who gets them, each thread simulated, each kernel compiled for five kinds of GPU."""

from __future__ import annotations

import inspect
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import kernels
from minidl.kernels import cuda, halves, reference
from minidl.kernels.cuda import conv, direct, elementwise, launch, loss, moments
from tests.gpu import strict_cupy
from tests.kernels import cuda_cases, draws
from tests.kernels.draws import Draw
from tests.kernels.test_agree import KERNELS

ROOT = Path(__file__).parents[2]


def test_same_names() -> None:
    assert set(cuda.__all__) == set(KERNELS)


@pytest.mark.parametrize("name", KERNELS)
def test_same_signatures_and_a_formula_each(name: str) -> None:
    ours, theirs = getattr(cuda, name), getattr(reference, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert any(sign in ours.__doc__ for sign in ("=", "<-", "sum"))


# ---- who gets them


def test_without_numba_cuda_or_a_device_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    x = sys.modules["cupy"].ones(3)
    with pytest.raises(RuntimeError, match=r"need numba-cuda, which is not installed: pip install -e '\.\[cuda12\]'"):
        kernels.of(x)
    monkeypatch.setattr(kernels, "find_spec", lambda name: True)
    monkeypatch.setattr("numba.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r'need a CUDA driver, .*`with minidl.kernels.use\("reference"\):`'):
        kernels.of(x)
    with kernels.use("reference"):
        assert kernels.of(x) is reference


def test_with_them_cupy_arrays_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    monkeypatch.setattr(kernels, "find_spec", lambda name: True)
    monkeypatch.setattr("numba.cuda.is_available", lambda: True)
    monkeypatch.setattr(kernels, "_cuda", kernels._cuda.__wrapped__)  # without its memory
    assert kernels.of(sys.modules["cupy"].ones(3)) is cuda
    assert kernels.of(sys.modules["cupy"].ones(3, np.float16)) is cuda
    assert kernels.of(np.ones(3, np.float16)) is halves


# ---- each thread simulated


def test_simulated_they_agree_with_the_reference(tell: Callable[[str], None]) -> None:
    """cuda_simulated.py, in a process of its own: Numba chooses its simulator once, when it is imported"""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", "-n", "0", "tests/kernels/cuda_simulated.py"]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    count = re.search(r"simulated: .*", done.stdout)
    assert count, done.stdout
    tell(count[0])


# ---- each kernel compiled

ARCHITECTURES = ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0))  # Turing, Ampere twice, Ada, Hopper


def _no_compiler() -> str:
    """Why nothing can be compiled here, or nothing"""
    if not find_spec("numba_cuda"):
        return "numba-cuda is not installed"
    from numba.cuda.cudadrv import nvvm

    try:
        nvvm.NVVM()
    except nvvm.NvvmSupportError as error:
        return f"numba-cuda finds no NVVM: {error}"
    return ""


def _launches(
    monkeypatch: pytest.MonkeyPatch, families: Sequence[draws.Family], types: Sequence[type]
) -> dict[tuple[str, str], tuple[Any, tuple[Any, ...], str]]:
    """Every kernel with the types and the layout of what it is started with, by name and float type: nothing is started"""
    found: dict[tuple[str, str], tuple[Any, tuple[Any, ...], str]] = {}

    def note(kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], *args: Any) -> None:
        dtypes = [a.dtype for a in args if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
        smallest = min(dtypes, key=lambda dtype: dtype.itemsize).name
        types, layout = tuple(launch._type(np, a) for a in args), "".join(launch._letters(np, a) for a in args)
        found.setdefault((cuda_cases.name_of(kernel), smallest), (kernel, types, layout))

    monkeypatch.setattr(conv, "gemm", np.matmul)
    monkeypatch.setattr(direct, "_places", lambda xp, *form: np.zeros(form[-1], np.int32))
    for module in (launch, loss, moments, direct):
        monkeypatch.setattr(module, "launch_blocks", note)

    @given(data=st.data())
    @settings(max_examples=20)
    def call(data: st.DataObject) -> None:
        draw = Draw(data, types, small=True)
        for family in families:
            for kernel, args, *_ in family(draw):
                with np.errstate(all="ignore"):  # the results are what memory held
                    getattr(cuda, kernel)(*args)

    call()
    return found


def _ptx(monkeypatch: pytest.MonkeyPatch, kernel: Any, types: tuple[Any, ...], layout: str, cc: tuple[int, int]) -> str:
    # Numba asks the device of which kind it is when one kernel calls another function: there is none, so we say it
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: SimpleNamespace(compute_capability=cc))
    ptx, _ = numba.cuda.compile_ptx(kernel.py_func, types, cc=cc)
    assert f".target sm_{cc[0]}{cc[1]}" in ptx and ".visible .entry" in ptx
    assert not re.search(r"\b(atom|red)\.", ptx), f"{kernel}: an atomic operation, whose order changes from run to run"
    sizes = [int(size) // 8 for size in re.findall(r"\.param \.[a-z]+(\d+)", ptx.partition(".entry")[2].partition("{")[0])]
    assert sizes == [struct.calcsize(letter) for letter in _expanded(layout)], f"{kernel}: reads its arguments elsewhere"
    assert ".extern .func" not in ptx, f"{kernel}: calls what has to be linked, and Numba keeps nothing of that kind on disk"
    return ptx


def _expanded(layout: str) -> str:
    """2qf -> qqf"""
    return re.sub(r"(\d+)([a-zA-Z?])", lambda m: int(m[1]) * m[2], layout)


@pytest.mark.oracle
def test_what_is_compiled_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if reason := _no_compiler():
        pytest.skip(reason)
    from numba.cuda.dispatcher import CUDACache, _Kernel

    device = SimpleNamespace(compute_capability=(8, 0))  # there is none, so we say of which kind it is
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
    monkeypatch.setattr("numba.cuda.cudadrv.devices.get_context", lambda number=None: SimpleNamespace(device=device))
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kernel, types = elementwise._relu_grad, (numba.float32[::1],) * 3
    compiled = _Kernel(kernel.py_func, types, **kernel.targetoptions)
    assert isinstance(kernel._cache, CUDACache)
    kernel._cache.save_overload(types, compiled)
    assert len(list(tmp_path.rglob("*-_relu_grad-*.nbc"))) == 1
    loaded = type(kernel._cache)(kernel.py_func).load_overload(types, kernel.targetctx)
    assert loaded._codelibrary.get_asm_str() == compiled._codelibrary.get_asm_str()


@pytest.mark.oracle
def test_they_compile_for_every_gpu(monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]) -> None:
    if reason := _no_compiler():
        pytest.skip(reason)
    found = cuda_cases.functions("CUDADispatcher")
    compiled = {name for name, kernel in found.items() if not kernel.targetoptions.get("device")}
    launches = _launches(monkeypatch, cuda_cases.FAMILIES, (np.float32, np.float64))
    assert {name for name, dtype in launches if dtype == "float32"} == compiled
    single = {name for name in compiled if name.startswith("direct_loops.")}  # float64 takes the columns of windows.py
    assert {name for name, dtype in launches if dtype == "float64"} == compiled - single
    for cc in ARCHITECTURES:
        for (name, dtype), (kernel, types, layout) in launches.items():
            if dtype == "float64" and cc not in (ARCHITECTURES[0], ARCHITECTURES[-1]):
                continue
            ptx = _ptx(monkeypatch, kernel, types, layout, cc)
            if dtype == "float32":
                assert ".f64" not in ptx, f"{name}: float64 within float32, slow on most GPUs"
    tell(f"compiled to PTX: {len(compiled)} of {len(compiled)} CUDA functions, sm_75 to sm_90")


@pytest.mark.oracle
def test_for_halves_they_compile_and_compute_in_float32(monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]) -> None:
    if reason := _no_compiler():
        pytest.skip(reason)
    single = {name for name, _ in _launches(monkeypatch, cuda_cases.HALVES, (np.float32,))}
    launches = _launches(monkeypatch, cuda_cases.HALVES, (np.float16,))
    found = {name: launched for (name, dtype), launched in launches.items() if dtype == "float16"}
    of_sums = {"moments._merge", "moments._add_up", "direct_loops.add_up"}  # which see sums of float32 only
    of_sums |= {"group_norm._of_groups", "group_norm._of_channels"}
    assert found.keys() == single - of_sums
    for cc in ARCHITECTURES:
        for name, (kernel, types, layout) in found.items():
            ptx = _ptx(monkeypatch, kernel, types, layout, cc)
            assert not re.search(r"\b(add|sub|mul|fma|mad|div|sqrt)\.[a-z.]*f16", ptx), f"{name} computes in float16"
            assert ".f64" not in ptx, f"{name}: float64, slow on most GPUs"
    tell(f"compiled to PTX for float16: {len(found)} CUDA functions, sm_75 to sm_90")
