"""What `import minidl` offers, and that its version is said the same way everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import minidl

ROOT = Path(minidl.__file__).parents[1]


def fresh(code: str) -> str:
    """What the code prints in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def test_every_public_name_is_there_after_the_import() -> None:
    code = "import minidl; print([name for name in minidl.__all__ if not hasattr(minidl, name) or name not in dir(minidl)])"
    assert fresh(code) == "[]"
    with pytest.raises(AttributeError, match="module 'minidl' has no attribute 'explains'"):
        minidl.__getattr__("explains")


def test_the_import_loads_neither_numba_nor_matplotlib() -> None:
    assert fresh("import minidl, sys; print({'numba', 'matplotlib', 'PIL', 'tqdm'} & set(sys.modules))") == "set()"


def test_one_version() -> None:
    version = minidl.__version__
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version  # type: ignore[index]
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]


def test_types_are_for_everybody() -> None:
    assert (ROOT / "minidl/py.typed").exists() and (ROOT / "models/py.typed").exists()


def test_the_oldest_versions_are_those_that_ci_tries() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = dict(dependency.split(">=") for dependency in project["dependencies"])
    tried = re.findall(r"^(\w+)==([\d.]+)$", (ROOT / ".ci/lowest.txt").read_text(), re.M)
    assert {name: f"{version}.0" if version.count(".") < 2 else version for name, version in allowed.items()} == dict(tried)
