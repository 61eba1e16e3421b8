"""The examples import each other, as scripts in one folder do."""

import pathlib
import sys

import pytest

from minidl.train import scoring

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For intervals, of which most tests have no use."""
    monkeypatch.setattr(scoring, "RESAMPLES", 60)
    monkeypatch.setattr(scoring, "FEWEST", 60)
