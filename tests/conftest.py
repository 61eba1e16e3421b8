"""Settings of every test: hypothesis draws the same examples in each run, unless HYPOTHESIS_PROFILE=explore."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts its background jobs so, and a child would inherit it: the tests of Ctrl-C would wait forever
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = {  # a minute each: first of all, so that in the end no process waits for another
    "test_simulated_they_agree_with_the_reference",
    "test_graphs_on_the_stand_in",
    "test_agree_in_other_surroundings",
    "test_they_compile_for_every_gpu",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.name.split("[")[0] not in LONG)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """tell(line) prints the line at the end of the run, whichever process the test runs in."""
    return lambda line: record_property("told", line)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, line in report.user_properties:
            if name == "told":
                terminalreporter.write_line(line)
