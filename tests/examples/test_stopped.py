"""A few of the stops of `tests/train/stopped.py`, which stops runs as often as you like."""

from __future__ import annotations

import pathlib
import random

import pytest

from tests.train import stopped


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> stopped.Whole:
    return stopped.Whole(tmp_path_factory.mktemp("runs") / "whole")


@pytest.mark.ci
@pytest.mark.parametrize(("times", "kill"), [(8, False), (4, True)])
def test_stopped_wherever_it_is(whole: stopped.Whole, tmp_path: pathlib.Path, times: int, kill: bool) -> None:
    ends = stopped.stopped(whole, tmp_path, random.Random(times), times, kill)
    assert ends.total() == times


@pytest.mark.ci
def test_two_at_once(whole: stopped.Whole, tmp_path: pathlib.Path) -> None:
    for i in range(2):
        stopped.pair(whole, tmp_path / str(i))
