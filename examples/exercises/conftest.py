"""The exercises are judged as they stand here or, with --solutions, as `examples/solutions/` has them."""

from __future__ import annotations

import importlib.util
import pathlib
from types import ModuleType

import pytest

HERE = pathlib.Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--solutions", action="store_true", help="judge examples/solutions in place of examples/exercises")


@pytest.fixture
def exercise(request: pytest.FixtureRequest) -> ModuleType:
    """The file that is judged: of test_lesson05.py it is lesson05.py."""
    folder = HERE.parent / "solutions" if request.config.getoption("--solutions") else HERE
    path = folder / request.path.name.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(f"{folder.name}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
