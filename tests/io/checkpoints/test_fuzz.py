"""See fuzz.py. What it asserts is shown to be noticed, on pickles that do harm and on readers that let them."""

import gc
import pickle
import time

import pytest

from minidl.io import torch_pickle
from tests.io.checkpoints import fuzz
from tests.io.checkpoints.by_hand import pickled


def test_hostile_pickles_would_be_noticed():
    """Where Python's machine runs them, the audit hook or the canary tells."""
    fuzz.install()
    for harm in fuzz.HARM:
        fuzz.watching = True
        try:
            pickle.loads(pickled(harm))
            error = None
        except BaseException as caught:
            error = caught
        finally:
            fuzz.watching = False
        assert fuzz.seen_events or "the canary was called" in str(error), harm
        fuzz.seen_events.clear()


@pytest.mark.ci
def test_hostile_files(tell):
    ends = fuzz.run(1000)
    assert ends["read"] > 50 and ends["refused"] > 500 and ends.total() == 1000
    tell(f"hostile files: {ends['read']} read, {ends['refused']} refused, nothing ran")


def test_time_that_is_taken_is_noticed(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.01)
    monkeypatch.setattr(fuzz, "read", lambda raw: sum(range(10**7)))
    with pytest.raises(AssertionError, match="s for 3 bytes"):
        fuzz.check(b"abc")
    monkeypatch.setattr(fuzz, "read", lambda raw: len(bytes(5 << 20)))
    with pytest.raises(AssertionError, match="bytes of memory for 3"):
        fuzz.check(b"abc", memory=True)


def test_small_bombs():
    for raw in fuzz.bombs(4000).values():
        fuzz.check(raw)


@pytest.mark.ci
def test_memory_of_bombs():
    for raw in fuzz.bombs(15_000).values():
        fuzz.check(raw, memory=True)


def seconds(raw):
    gc.collect()
    gc.disable()  # it looks at all objects of this process, time and again
    try:
        began = time.process_time()
        fuzz.check(raw)
        return time.process_time() - began
    finally:
        gc.enable()


@pytest.mark.ci
def test_the_effort_grows_as_the_file_does(tell):
    """Four times the bytes take four times as long; where the effort grew as their square, it would be sixteen times."""
    large = {title: raw for title, raw in fuzz.bombs(600_000).items() if "legacy" not in title}
    small = fuzz.bombs(150_000)
    slowest = max((grows(title, small[title], raw) / len(raw), title) for title, raw in large.items())
    tell(f"{len(large)} bombs; the slowest takes {slowest[0] * 1e6:.1f} µs for a byte: {slowest[1]}")


def grows(title, small, large):
    a, b = min(seconds(small) for _ in range(2)), seconds(large)
    for _ in range(2):  # garbage may have been collected meanwhile
        if b >= 6 * a + 0.3:
            b = min(b, seconds(large))
    assert b < 6 * a + 0.3, f"{title}: {a:.2f} s for {len(small):,} bytes, {b:.2f} s for {len(large):,}"
    return b


@pytest.mark.ci
def test_growth_is_noticed(monkeypatch):
    """Where numbers that collide may be names, as in a dictionary of Python."""
    monkeypatch.setattr(torch_pickle, "MOST_NUMBERS", 10**9)
    title = "integers that collide, zip"
    with pytest.raises(AssertionError, match=r"integers that collide, zip: .* s for "):
        grows(title, fuzz.bombs(200_000)[title], fuzz.bombs(800_000)[title])
