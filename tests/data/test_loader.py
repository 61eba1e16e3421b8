from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.data import Compose, Dataset, Loader, Normalize, RandomCrop, RandomFlip, loader
from tests.gpu import strict_cupy


def numbered(n: int) -> Dataset:
    """Image i holds the number i in every pixel."""
    images = np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None, None], (n, 2, 4, 4)).copy()
    return Dataset(images, np.arange(n, dtype=np.int64), tuple(map(str, range(n))))


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("minidl-loader")]


@given(
    n=st.integers(1, 40),
    batch_size=st.integers(1, 45),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    prefetch=st.integers(0, 3),
)
@settings(deadline=None)
def test_every_image_once(n: int, batch_size: int, shuffle: bool, drop_last: bool, prefetch: int) -> None:
    if drop_last and batch_size > n:
        with pytest.raises(ValueError, match="drop_last leaves no batch"):
            Loader(numbered(n), batch_size, drop_last=True)
        return
    loader = Loader(numbered(n), batch_size, shuffle, drop_last=drop_last, prefetch=prefetch)
    batches = list(loader)
    assert len(batches) == len(loader)
    for x, labels in batches:
        assert x.dtype == np.float32
        assert labels.dtype == np.int64
        assert x.shape == (len(labels), 2, 4, 4)
        assert x.flags.c_contiguous
        assert (x == labels[:, None, None, None]).all()
    sizes = [len(labels) for _, labels in batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert 0 < sizes[-1] <= batch_size
    seen = np.concatenate([labels for _, labels in batches]).tolist()
    assert len(set(seen)) == len(seen) == (n // batch_size * batch_size if drop_last else n)
    if not shuffle:
        assert seen == list(range(len(seen)))
    assert not threads()


def epoch_of(loader: Loader) -> np.ndarray:
    return np.concatenate([x for x, _ in loader])


def test_a_resumed_run_gets_the_same_batches() -> None:
    def make(prefetch: int = 2, seed: int = 3) -> Loader:
        data = Dataset(np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), np.uint8), np.zeros(50, np.int64), ("one",))
        return Loader(data, 16, augment=Compose([RandomCrop(2), RandomFlip()]), seed=seed, prefetch=prefetch)

    loader = make()
    epochs = [epoch_of(loader) for _ in range(3)]
    assert loader.epoch == 3
    assert not np.array_equal(epochs[0], epochs[1])
    resumed = make(prefetch=0)
    resumed.set_epoch(2)
    assert np.array_equal(epoch_of(resumed), epochs[2])
    resumed.epoch = 1
    next(iter(resumed))  # what an epoch gives does not depend on how far another one went
    resumed.epoch = 1
    assert np.array_equal(epoch_of(resumed), epochs[1])
    assert not np.array_equal(epoch_of(make(seed=4)), epochs[0])


def test_augmentation_of_a_batch_depends_on_its_number_alone() -> None:
    draws: list[float] = []

    def spy(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        draws.append(rng.random())
        return x

    list(Loader(numbered(20), 5, augment=spy, prefetch=0))
    first = draws.copy()
    draws.clear()
    list(Loader(numbered(11), 5, augment=spy, prefetch=0))
    assert draws == first[:3]
    assert len(set(first)) == 4


def test_uint8_is_scaled() -> None:
    data = Dataset(np.full((3, 1, 2, 2), 51, np.uint8), np.zeros(3, np.int64), ("one",))
    x, _ = next(iter(Loader(data, 3)))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, 0.2, rtol=1e-6)


def test_prefetch_is_bounded_and_runs_in_its_own_thread() -> None:
    made: list[str] = []

    def spy(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        made.append(threading.current_thread().name)
        return x

    iterator = iter(Loader(numbered(100), 1, augment=spy, prefetch=3))
    assert not made
    next(iterator)
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert len(made) == 4  # the one that was handed out and three ahead
    assert all(name.startswith("minidl-loader") for name in made)
    del iterator
    made.clear()
    next(iter(Loader(numbered(100), 1, augment=spy, prefetch=0)))
    assert made == [threading.current_thread().name]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_in_the_augmentation_arrives_with_its_traceback(prefetch: int) -> None:
    def broken_augmentation(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if 7 in x:
            raise ZeroDivisionError("image 7")
        return x

    loader = Loader(numbered(10), 2, shuffle=False, augment=broken_augmentation, prefetch=prefetch)
    got = []
    with pytest.raises(ZeroDivisionError, match="image 7") as caught:
        for _, labels in loader:
            got.append(labels.tolist())
    assert got == [[0, 1], [2, 3], [4, 5]]
    assert "broken_augmentation" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not threads()


def test_break_ends_the_thread() -> None:
    for _ in Loader(numbered(50), 1):
        assert threads()
        break
    assert not threads()


def test_break_drops_batches_that_have_not_begun() -> None:
    made: list[int] = []

    def slow(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        made.append(len(x))
        time.sleep(0.02)
        return x

    for _ in Loader(numbered(50), 1, augment=slow, prefetch=20):
        break
    assert len(made) < 20


def test_an_error_in_the_loop_ends_the_thread() -> None:
    def loop() -> None:
        for _ in Loader(numbered(50), 1):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        loop()
    assert not threads()


def test_garbage_collection_ends_the_thread() -> None:
    iterator = iter(Loader(numbered(50), 1))
    next(iterator)
    cycle: list[object] = [iterator]
    cycle.append(cycle)
    del iterator
    assert threads()
    del cycle
    gc.collect()
    assert not threads()


def test_collection_inside_the_thread_itself() -> None:
    """The collector may run in any thread, also in the one that the collected iterator would wait for."""
    dropped, collected = threading.Event(), threading.Event()

    def collect(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if 0 not in x and dropped.wait(5):
            gc.collect()
            collected.set()
        return x

    def leave_in_a_cycle() -> None:
        iterator = iter(Loader(numbered(4), 1, shuffle=False, augment=collect))
        next(iterator)
        cycle: list[object] = [iterator]
        cycle.append(cycle)

    gc.collect()
    gc.disable()
    try:
        leave_in_a_cycle()
        dropped.set()
        assert collected.wait(5)
    finally:
        gc.enable()
    for thread in threads():
        thread.join(5)
    assert not threads()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_leaves_no_hanging_thread() -> None:
    program = """
import numpy as np, time
from minidl.data import Dataset, Loader
def slow(x, rng):
    time.sleep(0.05)
    return x
data = Dataset(np.zeros((10000, 1, 2, 2), np.float32), np.zeros(10000, np.int64), ("one",))
for i, _ in enumerate(Loader(data, 1, augment=slow)):
    if i == 1:
        print("running", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dataset": [1, 2]}, TypeError, "dataset: expected a minidl.data.Dataset, got list"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer of at least 1, got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size: expected an integer of at least 1, got 2.0"),
        ({"seed": -1}, ValueError, "seed: expected an integer of at least 0, got -1"),
        ({"seed": None}, TypeError, "seed: expected an integer of at least 0, got None"),
        ({"prefetch": -1}, ValueError, "prefetch: expected an integer of at least 0, got -1"),
        ({"augment": "flip"}, TypeError, r"augment: expected a function f\(x, rng\), got 'flip'"),
        ({"batch_size": 11, "drop_last": True}, ValueError, "batch_size is 11, dataset has 10"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Loader(**{"dataset": numbered(10), "batch_size": 5, **arguments})


def test_bad_epoch() -> None:
    loader = Loader(numbered(3), 1)
    with pytest.raises(ValueError, match="epoch: expected an integer of at least 0, got -1"):
        loader.set_epoch(-1)
    loader.epoch = -1
    with pytest.raises(ValueError, match="epoch: expected an integer of at least 0, got -1"):
        iter(loader)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda x, rng: None, r"augment: expected it to return a batch \(5,C,H,W\), got NoneType"),
        (lambda x, rng: x[:3], r"got shape \(3, 2, 4, 4\)"),
        (lambda x, rng: x[0], r"got shape \(2, 4, 4\)"),
        (lambda x, rng: x.astype(np.int32), "augment: expected it to return images of uint8 or floats, got int32"),
    ],
)
def test_bad_augmentation(augment: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(Loader(numbered(5), 5, augment=augment))  # type: ignore[arg-type]


# ---- for a GPU, on the stand-in for CuPy


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = strict_cupy.cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    loader._stream.cache_clear()
    yield module
    loader._stream.cache_clear()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_on_the_gpu_the_same_batches(cupy: ModuleType, prefetch: int) -> None:
    data = Dataset(np.random.default_rng(0).integers(0, 256, (20, 3, 6, 6), np.uint8), np.arange(20) % 2, ("a", "b"))
    augment = Compose([RandomCrop(2, fill=0.5), RandomFlip(), Normalize([0.5] * 3, [0.25] * 3)])
    on_cpu, on_gpu = (Loader(data, 6, augment=augment, seed=3, prefetch=prefetch, device=d) for d in ("cpu", "gpu"))
    for _ in range(2):  # epochs
        for (x, labels), (gx, glabels) in zip(on_cpu, on_gpu, strict=True):
            assert isinstance(gx, cupy.ndarray) and isinstance(glabels, cupy.ndarray)
            assert (gx.dtype, glabels.dtype) == (np.float32, np.int64)
            np.testing.assert_array_equal(gx.get(), x)
            np.testing.assert_array_equal(glabels.get(), labels)
    x, _ = next(iter(Loader(data, 6, device="gpu", prefetch=prefetch)))  # not augmented
    assert float(x.max()) <= 1


def test_streams_wait_for_each_other(cupy: ModuleType) -> None:
    """Whoever takes a batch waits until it is there, and its memory waits for him to be done with it, however the loop ends."""
    entered: list[object] = []

    def augment(x: Any, rng: np.random.Generator) -> Any:
        assert isinstance(x, cupy.ndarray)
        entered.append(cupy.cuda.get_current_stream())
        return x

    taker = cupy.cuda.Stream(non_blocking=True)
    with taker:
        for i, _ in enumerate(Loader(numbered(40), 2, augment=augment, device="gpu")):
            (ready,) = (event for event in taker.queued[-1:] if event != "record")
            if i == 5:
                break
    (own,) = set(entered)
    assert own.non_blocking and own not in (taker, strict_cupy.null)
    assert ready.stream is own and own.queued[ready.place - 1] == "record"
    done = [event for event in own.queued if event != "record"]
    assert [event.stream for event in done] == [taker] * 6
    assert taker.queued == [x for event in done for x in (taker.queued[event.place - 2], "record")]
    assert not threads()


def test_without_a_gpu_the_loader_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    loader._stream.cache_clear()
    with pytest.raises(RuntimeError, match="device 'gpu' needs CuPy"):
        next(iter(Loader(numbered(4), 2, device="gpu")))
    with pytest.raises(ValueError, match=r"device: expected one of \('cpu', 'gpu'\), got 'tpu'"):
        Loader(numbered(4), 2, device="tpu")
