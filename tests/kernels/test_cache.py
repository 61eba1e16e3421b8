"""The cache of compiled kernels on disk: whoever writes there, and whatever happens to it, the code that runs is the text's."""

from __future__ import annotations

import os
import pkgutil
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

import numba
import numpy as np
import pytest
from numba import njit
from numba.core import config
from numba.core.dispatcher import Dispatcher

import minidl
from minidl.kernels import cache, compiled, sources
from minidl.kernels.cache import kept

ROOT = Path(minidl.__file__).parents[1]

# ---- in this process: a small kernel, of which each dispatcher starts without code, as those of a new process do


def _twice(x: Any) -> Any:
    return 2 * x


def _start(function: Any = _twice) -> Any:
    return kept(njit)(function)


def _loads(kernel: Any, x: Any = 3) -> bool:
    """Whether the code for x came from the disk; that it is right is made sure of."""
    assert kernel(x) == 2 * x
    hits, misses = (sum(counts.values()) for counts in (kernel.stats.cache_hits, kernel.stats.cache_misses))
    assert hits + misses == 1
    return hits == 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that files go into, which is not there yet"""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "chosen"))
    monkeypatch.setattr(cache, "_told", False)
    (folder,) = cache.folders()
    return folder


def test_code_is_kept(folder: Path) -> None:
    assert not _loads(_start())
    assert _loads(_start()) and not _loads(_start(), 3.0) and _loads(_start(), 3.0)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("keep", [0, 1, 31, 32, 33, -1, "garbage", "bit"])
def test_what_is_spoilt_is_compiled_again_and_replaced(folder: Path, keep: int | str) -> None:
    _loads(_start())
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    spoilt = {"garbage": os.urandom(len(whole)), "bit": whole[:-1] + bytes([whole[-1] ^ 1])}
    path.write_bytes(spoilt[keep] if isinstance(keep, str) else whole[:keep])
    path.chmod(0o444)
    assert not _loads(_start())
    assert _loads(_start()) and list(folder.iterdir()) == [path]


def test_bytes_that_make_no_code_are_compiled_again_and_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loads(_start())
    (path,) = folder.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(cache, "dumps", lambda data: b"not a pickle")  # whose digest is right
        cache._Files(_twice).save("key", None)
    (other,) = set(folder.iterdir()) - {path}
    shutil.copy(other, path)
    assert not _loads(_start()) and _loads(_start())


def test_code_of_another_text_or_other_settings_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loads(_start())
    for name, value, loads in (("BOUNDSCHECK", 1, False), ("OPT", 1, False), ("NUMBA_NUM_THREADS", 1, True)):
        with monkeypatch.context() as patch:
            patch.setattr(config, name, value)
            assert _loads(_start()) == loads, name
    with monkeypatch.context() as patch:
        patch.setattr(numba, "__version__", "1000")
        assert not _loads(_start())
    monkeypatch.setattr(sources, "_version", "0" * 64)
    assert not _loads(_start())


def test_kernels_of_one_name_are_not_taken_for_one_another(folder: Path) -> None:
    def scaled(by: int) -> Any:
        def kernel(x: Any) -> Any:
            return by * x

        return _start(kernel)

    for _ in range(2):
        assert [scaled(by)(5) for by in (2, 3)] == [10, 15]
    assert len(list(folder.iterdir())) == 2


def test_while_the_text_is_not_certain_nothing_is_kept_or_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loads(_start())
    monkeypatch.setattr(sources, "_version", None)
    assert not _loads(_start()) and not _loads(_start(), 3.0)
    assert len(list(folder.iterdir())) == 1


def test_where_nothing_can_be_written_it_computes_and_says_so_once(folder: Path) -> None:
    folder.parent.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be kept.*NUMBA_CACHE_DIR") as told:
        assert not _loads(_start())
    assert len(told) == 1 and str(folder) in str(told[0].message)
    assert not _loads(_start())  # a second warning would be an error


def test_on_a_full_disk_it_computes_and_leaves_nothing(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # a file that grows beyond is refused as on a full disk
    try:
        with pytest.warns(UserWarning, match="File too large"):
            assert not _loads(_start())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == []
    assert not _loads(_start()) and _loads(_start())


def test_old_versions_and_broken_writes_go_and_what_cannot_be_deleted_stays(folder: Path) -> None:
    folder.mkdir(parents=True)
    future = 2_000_000_000  # the clock has gone back since
    for k in range(6):
        for name in (f"{k}-a.nbc", f"{k}-b.nbc"):
            (folder / name).touch()
            os.utime(folder / name, (future + k, future + k))
    (folder / "x-a.nbc").mkdir()
    for name, time in (("0-a.nbc.12.tmp", 1000), ("0-a.nbc.34.tmp", future), ("other.txt", 1000)):
        (folder / name).touch()
        os.utime(folder / name, (time, time))
    _loads(_start())
    (own,) = folder.glob("*_twice*")
    stay = {"x-a.nbc", "0-a.nbc.34.tmp", "other.txt", own.name} | {f"{k}-{f}.nbc" for k in (3, 4, 5) for f in "ab"}
    assert {path.name for path in folder.iterdir()} == stay
    assert _loads(_start())


def test_what_is_used_is_not_old(folder: Path) -> None:
    _loads(_start())
    (path,) = folder.iterdir()
    os.utime(path, (1000, 1000))
    assert _loads(_start()) and path.stat().st_mtime > 1000


def _functions() -> Iterator[tuple[Dispatcher, CodeType]]:
    """Every compiled function, and the code in it"""
    for module in pkgutil.iter_modules(compiled.__path__, compiled.__name__ + "."):
        for function in vars(import_module(module.name)).values():
            codes = [function.py_func.__code__] if isinstance(function, Dispatcher) else []
            for code in codes:
                codes += [c for c in code.co_consts if isinstance(c, CodeType)]
                yield function, code


def test_nothing_compiled_comes_from_elsewhere_in_minidl() -> None:
    """Of text outside the kernels an edit would not be seen."""
    found = 0
    for function, code in _functions():
        for name in code.co_names:
            home = str(getattr(function.py_func.__globals__.get(name), "__module__", ""))
            assert not home.startswith("minidl.") or home.startswith("minidl.kernels."), (function, name)
            found += home.startswith("minidl.kernels.")
    assert found > 50


def test_every_kernel_is_kept_here() -> None:
    assert not [path for path in (ROOT / "minidl").rglob("*.py") if "cache=True" in path.read_text(encoding="utf-8")]
    assert type(compiled.elementwise._relu._cache).__qualname__ == "_on_disk.<locals>.OnDisk"


# ---- in others: a copy of minidl, with a kernel that calls a function in another file

CALLEE = "from numba import njit\n\n@njit\ndef callee(x):\n    return x + {}\n"
CALLER = """
from numba import njit
from minidl.kernels.cache import kept
from minidl.kernels.compiled.callee import callee

@kept(njit)
def caller(x):
    return callee(x)
"""
CALL = """
from minidl.kernels.compiled.caller import caller
print(caller(40), sum(caller.stats.cache_hits.values()))
"""


class Copy:
    """A copy of minidl for processes of its own, with no home, and no cache but in its tree"""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kernels = folder, folder / "tree" / "minidl" / "kernels"
        shutil.copytree(ROOT / "minidl", folder / "tree" / "minidl", ignore=shutil.ignore_patterns("__pycache__"))
        (self.kernels / "compiled" / "caller.py").write_text(CALLER)
        self.edit(1)

    def edit(self, number: int) -> None:
        """Callee(x) is x + number from now on, in a file of the same size and time"""
        path = self.kernels / "compiled" / "callee.py"
        path.write_text(CALLEE.format(number))
        os.utime(path, (315532800, 315532800))  # 1980, as in wheels

    def start(self, code: str = CALL, nobody: bool = False, path: str = "tree", **environment: str) -> subprocess.Popen[str]:
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_", "PYTHON"))}
        # without bytecode: Python itself would take a file of the same size and time for the old one
        paths = f"{self.folder / path}{os.pathsep}{Path(numba.__file__).parents[1]}"
        bare |= {"PYTHONPATH": paths, "HOME": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1"}
        user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if nobody else {}
        command, pipe = [sys.executable, "-W", "error", "-W", "default:compiled kernels", "-c", code], subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=bare | environment, stdout=pipe, stderr=pipe, text=True, **user
        )  # fmt: skip

    def run(self, code: str = CALL, **how: Any) -> tuple[str, str]:
        process = self.start(code, **how)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out.strip(), err


@pytest.fixture
def copy() -> Iterator[Copy]:
    """In a folder that other users may enter, which `tmp_path` is not"""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        yield Copy(Path(folder))


def _close(copy: Copy) -> None:
    """Nobody, root included, can make a folder where there is a file."""
    (copy.kernels / "__pycache__").write_text("")


def test_without_a_folder_to_write_to_a_program_runs_and_is_told_once(copy: Copy) -> None:
    _close(copy)
    out, err = copy.run(CALL + "caller(1.5)")
    assert out == "41 0"
    assert err.count("compiled kernels cannot be kept") == 1 and str(copy.kernels / "__pycache__") in err and "/dev/null" in err


@pytest.mark.parametrize(
    "place",
    ["NUMBA_CACHE_DIR", pytest.param("XDG_CACHE_HOME", marks=pytest.mark.ci), pytest.param("tree", marks=pytest.mark.ci)],
)
def test_after_an_edit_of_what_a_kernel_calls_the_new_code_runs(copy: Copy, place: str) -> None:
    environment = {} if place == "tree" else {place: str(copy.folder / "elsewhere")}
    if place == "XDG_CACHE_HOME":
        _close(copy)
    for number, hits in [(1, 0), (2, 0)] + [(2, 1), (1, 1)] * (place != "NUMBA_CACHE_DIR"):  # which is in the plain suite
        copy.edit(number)
        assert copy.run(**environment) == (f"{40 + number} {hits}", "")
    kept = copy.kernels / "__pycache__" if place == "tree" else copy.folder / "elsewhere"
    assert len(list(kept.rglob("*-caller-*.nbc"))) == 2


TOGETHER = """
import numpy as np
from minidl.kernels import compiled
x = np.linspace(-1, 1, 99)
print(*[compiled.relu(x.astype(t)).sum() for t in {}])
"""


@pytest.mark.ci
def test_two_processes_start_together_from_a_cold_cache(copy: Copy) -> None:
    """Each compiling first what the other compiles last"""
    x, orders = np.linspace(-1, 1, 99), (["float32", "float64"], ["float64", "float32"])
    for _ in range(8):
        both = [copy.start(TOGETHER.format(order), PYTHONDONTWRITEBYTECODE="") for order in orders]
        for process, order in zip(both, orders, strict=True):
            out, err = process.communicate(timeout=300)
            assert (process.returncode, err) == (0, "")
            assert out.split() == [str(compiled.relu(x.astype(t)).sum()) for t in order]
        found = list((copy.kernels / "__pycache__").glob("*.nbc*"))
        assert len(found) == 2 and all("-_relu-" in path.name and path.suffix == ".nbc" for path in found)
        for path in found:
            path.unlink()


@pytest.mark.ci
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_on_a_tree_of_root(copy: Copy) -> None:
    try:
        copy.run("", nobody=True)
    except PermissionError:
        pytest.skip(f"nobody else may run {sys.executable}")
    own = {"XDG_CACHE_HOME": str(copy.folder / "of nobody")}
    (copy.folder / "of nobody").mkdir()
    os.chown(copy.folder / "of nobody", 65534, 65534)
    assert copy.run() == ("41 0", "")
    assert copy.run(nobody=True) == ("41 1", "")  # what root has compiled
    copy.edit(2)
    assert copy.run(nobody=True, **own) == ("42 0", "")
    assert copy.run(nobody=True, **own) == ("42 1", "")
    assert copy.run() == ("42 0", "")
    copy.edit(3)
    assert copy.run() == ("43 0", "")
    for path in (copy.kernels / "__pycache__").iterdir():
        path.write_bytes(b"")  # root was killed on a full disk, say
    assert copy.run(nobody=True, **own) == ("43 0", "")
    assert copy.run(nobody=True, **own) == ("43 1", "")
    for path in (copy.kernels / "__pycache__").iterdir():
        path.chmod(0o600)
    assert copy.run(nobody=True, **own) == ("43 1", "")


@pytest.mark.ci
def test_killed_while_it_writes(copy: Copy) -> None:
    killed = copy.start("import os, signal\nos.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n" + CALL)
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    (left,) = copy.kernels.rglob("*.tmp")
    os.utime(left, (1000, 1000))
    assert copy.run() == ("41 0", "") and not left.exists()
    assert copy.run() == ("41 1", "")


@pytest.mark.ci
def test_an_edit_while_a_program_runs(copy: Copy) -> None:
    """It goes on with what it has, and keeps nothing under the name of the new text, nor of the old."""
    edit = f"import pathlib; pathlib.Path({str(copy.kernels / 'compiled' / 'callee.py')!r}).write_text('')\n"
    assert copy.run("from minidl.kernels.compiled.caller import caller\n" + edit + CALL) == ("41 0", "")
    assert not list(copy.kernels.rglob("*.nbc"))


@pytest.mark.ci
def test_from_an_archive(copy: Copy) -> None:
    for number, hits in ((1, 0), (1, 1), (2, 0), (2, 1)):
        copy.edit(number)
        with zipfile.ZipFile(copy.folder / "minidl.zip", "w") as archive:
            for file in (copy.folder / "tree").rglob("*.py"):
                archive.writestr(zipfile.ZipInfo(str(file.relative_to(copy.folder / "tree"))), file.read_bytes())
        how = {"path": "minidl.zip", "XDG_CACHE_HOME": str(copy.folder / "home")}
        assert copy.run(**how) == (f"{40 + number} {hits}", "")


@pytest.mark.ci
def test_what_numba_itself_left_is_deleted(copy: Copy) -> None:
    ends = "nbi", "1.nbc"
    old = [copy.kernels / room / "__pycache__" / f"pool.max-5.py311.{end}" for room in ("compiled", "cuda") for end in ends]
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert copy.run() == ("41 0", "") and not any(path.exists() for path in old)
