"""Settings of every test. Hypothesis draws the same examples in each run, unless HYPOTHESIS_PROFILE is `fresh` or `explore`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from typing import Any

import numba
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fresh", database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell starts its background jobs so, and a child would inherit it: the tests of Ctrl-C would wait forever
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = {  # first of all, so that in the end no process waits for another
    "test_simulated_they_agree_with_the_reference",
    "test_graphs_on_the_stand_in",
    "test_agree_in_other_surroundings",
    "test_a_mend_that_is_taken_back_is_found",
    "test_they_compile_for_every_gpu",
    "test_for_halves_they_compile_and_compute_in_float32",
}
WITHOUT_KERNELS = (
    "data",
    "io",
    "metrics",
    "test_weights",
    "test_images",
)
NOTHING_IS_SKIPPED = os.environ.get("MINIDL_ORACLES") == "all"  # .ci/run says so, where every oracle is installed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process begins with the first half, another with the second: that one compiles kernels, this one needs none."""
    early, kernels, rest = list[pytest.Item](), list[pytest.Item](), list[pytest.Item]()
    for item in items:
        names = (*item.path.parts, item.path.stem)
        light = item.name.split("[")[0] in LONG or any(name in names for name in WITHOUT_KERNELS)
        (early if light else kernels if "kernels" in names else rest).append(item)
    early.sort(key=lambda item: item.name.split("[")[0] not in LONG)
    half = max(0, len(items) // 2 - len(early))
    items[:] = [*early, *rest[:half], *kernels, *rest[half:]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Each of several processes computes in one thread: two would wait for one another. Kernels are tested in all threads."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS if "kernels" in item.path.parts else 1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _not_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _not_skipped((yield))


def _not_skipped(report: Any) -> Any:
    if NOTHING_IS_SKIPPED and report.skipped:
        report.outcome, report.longrepr = "failed", f"skipped, where every oracle should be there: {report.longrepr}"
    return report


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """tell(line) prints the line at the end of the run, whichever process the test runs in."""
    return lambda line: record_property("told", line)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, line in report.user_properties:
            if name == "told":
                terminalreporter.write_line(line)
