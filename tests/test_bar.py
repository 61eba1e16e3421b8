"""A bar that is interrupted leaves nothing locked."""

from __future__ import annotations

import io
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from tqdm import tqdm

from minidl.bar import Bar

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # tqdm's destructor on half a bar


def shown(kind: type[tqdm]) -> str:
    """What a bar writes that is opened, moved on, wiped away and closed."""
    file = io.StringIO()
    with kind(total=3, desc="work", file=file, mininterval=0, leave=False) as bar:
        bar.update(1)
        bar.refresh()
        bar.clear()
    return file.getvalue()


def interrupted(kind: type[tqdm], rng: random.Random) -> None:
    """Ctrl-C at a random moment of a bar, or just after it."""
    kind._instances.clear()  # those that were interrupted, until the garbage is collected
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 5e-4))
        shown(kind)
        time.sleep(1e-3)
    except KeyboardInterrupt:
        pass


def locked(kind: type[tqdm]) -> bool:
    """Whether another thread has to wait for the lock of the bars."""
    found = list[bool]()

    def ask() -> None:
        found.append(not kind.get_lock().acquire(blocking=False))
        if not found[0]:
            kind.get_lock().release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found[0]


def test_it_is_drawn_as_tqdm_draws() -> None:
    assert "work:  33%" in shown(Bar) and not locked(Bar)


@pytest.fixture
def alarms() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarms")
def test_no_interrupt_leaves_it_locked() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        interrupted(Bar, rng)
        assert not locked(Bar)


@pytest.mark.usefixtures("alarms")
def test_the_lock_of_tqdm_itself_is_left_held() -> None:
    """The reason for `Bar`. Where this fails tqdm has been mended, and `Bar` may go."""

    class Theirs(tqdm):
        monitor_interval = 0

    Theirs.set_lock(threading.RLock())
    rng = random.Random(0)
    for _ in range(20_000):
        interrupted(Theirs, rng)
        if locked(Theirs):
            return
    pytest.fail("no interrupt left it held")
