"""A training's test takes its time over intervals."""

from __future__ import annotations

import pytest

from minidl.train import scoring


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For intervals, of which most tests have no use."""
    monkeypatch.setattr(scoring, "RESAMPLES", 60)
    monkeypatch.setattr(scoring, "FEWEST", 60)
