"""Compiled kernels, kept on disk: one file for each function and the types that it was compiled for.

The file's name is a digest of all that the code depends on: the text of the kernels, what the function was compiled for, the
processor, Numba's version and settings. So no file ever has to be looked into for whether it still is right, and processes that
write one at the same time write the same. (Numba's own cache keeps the file of the function in mind, but not those of what it
calls; and it gives numbers to files, which two processes may give to different code.)

The contents begin with their digest: what was cut off or spoilt is compiled again and replaced. As any program, they should lie
where only those can write whom you trust.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import caching, config
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from minidl.kernels import sources

VERSIONS = 4  # of the kernels' text, of which a folder keeps the code
ABANDONED = 3600.0  # seconds after which nobody still writes a file
_CHECK = hashlib.sha256().digest_size
_told = False  # that nothing is kept


def kept(decorator: Any) -> Any:
    """The same decorator, `njit(...)` or `cuda.jit`, for functions whose compiled code is kept on disk.

    Warns once in a process, and computes on, where no folder can be written.
    """

    def decorate(function: Any) -> Any:
        dispatcher: Any = decorator(function)
        sources.version()  # a module that is loaded anew is seen here
        if hasattr(dispatcher, "enable_caching"):  # not in the simulator of CUDA, nor with NUMBA_DISABLE_JIT=1
            dispatcher._cache = _on_disk(_numbas_cache(dispatcher))(function)
        return dispatcher

    return decorate


def _numbas_cache(dispatcher: Any) -> Any:
    """The class that `dispatcher.enable_caching()` would make one of"""
    if isinstance(dispatcher, Dispatcher):
        return caching.FunctionCache
    from numba.cuda.dispatcher import CUDACache

    return CUDACache


@functools.cache
def _on_disk(numbas: Any) -> Any:
    """Numba's class of caches, which turns code into bytes and back, with files of ours"""

    class Implementation(numbas._impl_class):  # type: ignore[misc]
        _locator_classes = (_Locator,)

    class OnDisk(numbas):  # type: ignore[misc]
        _impl_class = Implementation

        def __init__(self, function: Any) -> None:
            super().__init__(function)
            self._cache_file = _Files(function)

        def load_overload(self, signature: Any, target: Any) -> Any:
            try:
                return super().load_overload(signature, target)
            except Exception:  # bytes of another Numba under the same version, say: compiled code is never worth an error
                return None

    return OnDisk


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Numba's question for one folder, to be answered before anything is compiled; `_Files` looks into more, and later"""

    def __init__(self, file: str) -> None:
        self._py_file = file

    @classmethod
    def from_function(cls, function: Any, file: str) -> _Locator:
        return cls(file)

    def get_cache_path(self) -> str:
        return str(folders()[0])

    def ensure_cache_path(self) -> None:
        pass

    def get_source_stamp(self) -> str:
        return ""

    def get_disambiguator(self) -> str:
        return ""


class _Files:
    """The files of one function"""

    def __init__(self, function: Any) -> None:
        self.name = function.__name__.strip("<>")
        self.function = function.__module__, function.__qualname__, function.__code__.co_firstlineno

    def load(self, key: Any) -> Any:
        """What was kept under Numba's key, or None"""
        name = self._file(key)
        for folder in folders() if name else ():
            with suppress(OSError):
                content = (folder / name).read_bytes()
                if hashlib.sha256(content[_CHECK:]).digest() == content[:_CHECK]:
                    with suppress(OSError):
                        os.utime(folder / name)  # `_clean` goes by the last use
                    return pickle.loads(content[_CHECK:])
        return None

    def save(self, key: Any, data: Any) -> None:
        """Into the first folder that can be written"""
        name = self._file(key)
        if not name:
            return
        content = dumps(data)
        content = hashlib.sha256(content).digest() + content
        failed = []
        for folder in folders():
            try:
                _write(folder / name, content)
            except OSError as error:
                failed.append(f"{folder} ({error.strerror or error})")
            else:
                _clean(folder, name.split("-")[0])
                return
        _tell(failed)

    def flush(self) -> None:
        pass

    def _file(self, key: Any) -> str:
        """ "" while it is not certain which text runs"""
        version = sources.version()
        if version is None:
            return ""
        versions = numba.__version__, llvmlite.__version__, np.__version__, sys.implementation.cache_tag
        whole = repr((version, versions, _settings(), self.function, key))
        return f"{version[:16]}-{self.name}-{hashlib.sha256(whole.encode()).hexdigest()[:32]}.nbc"


def _settings() -> dict[str, Any]:
    """Numba's settings, but for those that change no code, as checks of bounds do and how far it is optimised"""
    no_matter = "CACHE", "THREAD", "WARN", "PROFILE"
    return {name: value for name, value in vars(config).items() if name.isupper() and not any(n in name for n in no_matter)}


def folders() -> list[Path]:
    """Where code is looked for and kept, in this order: in NUMBA_CACHE_DIR alone if that is set, else beside the kernels, else
    in the user's folder of caches."""
    return _folders(config.CACHE_DIR)


@functools.cache
def _folders(chosen: str) -> list[Path]:
    own = caching._CacheLocator.get_suitable_cache_subpath(str(sources.HERE / "cache.py"))  # checkouts do not meet
    if chosen:
        return [Path(chosen).absolute() / own]
    home = Path(AppDirs("numba", appauthor=False).user_cache_dir)
    return [sources.HERE / "__pycache__", *([home / own] if home.is_absolute() else [])]  # it begins with ~ for who has no home


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all; not by `tempfile`, whose files other users cannot read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        with open(beside, "xb") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


@functools.cache  # once in a process
def _clean(folder: Path, version: str) -> None:
    """Delete the code of all but this and the latest other versions of the text, and what killed processes were writing."""
    used, files = dict[str, float](), list[tuple[str, Path]]()
    for path in folder.glob("*.nbc*"):
        with suppress(OSError):
            time_used = path.stat().st_mtime
            if path.suffix == ".nbc":
                files.append((path.name.split("-")[0], path))
                used[files[-1][0]] = max(time_used, used.get(files[-1][0], time_used))
            elif time.time() - time_used > ABANDONED:
                path.unlink()
    used.pop(version, None)
    keep = {version, *sorted(used, key=lambda other: used[other])[1 - VERSIONS :]}
    old = [path for other, path in files if other not in keep]
    if folder.parent == sources.HERE:
        old += folder.parent.glob("*/__pycache__/*.nb[ic]*")  # which Numba's own cache left
    for path in old:
        with suppress(OSError):
            path.unlink()


def _tell(failed: list[str]) -> None:
    global _told
    if not _told:
        _told = True
        warnings.warn(
            f"compiled kernels cannot be kept, so each start compiles them again: tried {', '.join(failed)}; "
            "NUMBA_CACHE_DIR in the environment may name another folder",
            stacklevel=2,
        )
