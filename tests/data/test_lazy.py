"""Images that are left on disk: the bits of those in memory, without the memory."""

from __future__ import annotations

import pathlib
import threading
import tracemalloc
import warnings

import numpy as np
import pytest
from PIL import Image

from minidl.data import Compose, Dataset, LazyImages, Loader, RandomCrop, RandomFlip, csv, image_folder


def fill(root: pathlib.Path, dtype: type = np.uint8, N: int = 12, size: tuple[int, ...] = (9, 7)) -> None:
    rng = np.random.default_rng(0)
    for i in range(N):
        file = root / "ab"[i % 2] / f"{i:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        deep = dtype == np.uint16 and i % 3 == 0  # 8 and 16 bits mixed
        Image.fromarray(rng.integers(0, 2**16 if deep else 256, size, np.uint16 if deep else np.uint8)).save(file)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_the_same_bits(tmp_path: pathlib.Path, dtype: type, prefetch: int) -> None:
    fill(tmp_path, dtype)
    held, lazy = (image_folder(tmp_path, size=(8, 8), groups="([0-9]+)", lazy=lazy) for lazy in (False, True))
    assert isinstance(lazy.images, LazyImages) and isinstance(held.images, np.ndarray)
    assert (
        lazy.images.shape == held.images.shape
        and lazy.images.dtype == held.images.dtype
        and lazy.images.size == held.images.size
    )
    assert np.array_equal(lazy.labels, held.labels) and np.array_equal(lazy.names, held.names)  # type: ignore[arg-type]
    for index in 3, np.int64(-1), slice(2, 9, 3), [7, 1, 7], np.array([0]), slice(0):
        assert np.array_equal(lazy.images[index], held.images[index])
    assert (lazy.images.min(), lazy.images.max()) == (held.images.min(), held.images.max())
    assert all(np.array_equal(a, b) for a, b in zip(lazy.mean_std(), held.mean_std(), strict=True))
    augment = Compose([RandomCrop(2), RandomFlip()])
    batches = [list(Loader(d, 5, augment=augment, seed=3, prefetch=prefetch)) for d in (held, lazy)]
    for (x, labels), (lazy_x, lazy_labels) in zip(*batches, strict=True):
        assert x.dtype == lazy_x.dtype and np.array_equal(x, lazy_x) and np.array_equal(labels, lazy_labels)
    for a, b in zip(held.split((0.5, 0.5)), lazy.split((0.5, 0.5)), strict=True):
        assert isinstance(b.images, LazyImages) and np.array_equal(a.images, b.images[:]) and np.array_equal(a.groups, b.groups)  # type: ignore[arg-type]
    assert repr(lazy) == repr(held)
    assert not [t for t in threading.enumerate() if t.name.startswith("minidl-loader")]


def test_of_a_table(tmp_path: pathlib.Path) -> None:
    fill(tmp_path)
    (tmp_path / "set.csv").write_text("file,label\na/000.png,x\nb/003.png,y\na/002.png,x\n")
    held, lazy = (csv(tmp_path / "set.csv", lazy=lazy) for lazy in (False, True))
    assert np.array_equal(held.images, lazy.images[:])


def test_what_is_wrong_is_said_at_the_start(tmp_path: pathlib.Path) -> None:
    fill(tmp_path)
    (tmp_path / "a" / "000.png").write_bytes(b"\x89PNG")
    with pytest.warns(UserWarning, match=r"passed over in .*1 \(a/000.png\), is no image"):
        assert len(image_folder(tmp_path, lazy=True)) == 11
    Image.new("L", (3, 3)).save(tmp_path / "a" / "002.png")
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"004.png is 9x7 \(HxW\), .*002.png is 3x3; pass size"):
        warnings.simplefilter("ignore")
        image_folder(tmp_path, lazy=True)


def test_files_that_change_later(tmp_path: pathlib.Path) -> None:
    fill(tmp_path)
    d = image_folder(tmp_path, lazy=True)
    file = tmp_path / "b" / "003.png"
    Image.new("RGB", (7, 9)).save(file)
    with pytest.raises(
        ValueError, match=r"b/003.png has changed since it was first read: expected \(1, 9, 7\) uint8, got \(3, 9, 7\)"
    ):
        list(Loader(d, 4))
    Image.fromarray(np.zeros((9, 7), np.uint16)).save(file)
    with pytest.raises(ValueError, match=r"has changed since .* got \(1, 9, 7\) float32"):
        list(Loader(d, 4))
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"b/003.png is empty"):
        list(Loader(d, 4))
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"b/003\.png"):
        list(Loader(d, 4))


def test_a_pixel_cannot_be_asked_for(tmp_path: pathlib.Path) -> None:
    fill(tmp_path)
    images = image_folder(tmp_path, lazy=True).images
    for index in (0, 1), np.zeros((2, 2), int):
        with pytest.raises(IndexError):
            images[index]
    with pytest.raises(IndexError):
        images[12]


def test_memory(tmp_path: pathlib.Path) -> None:
    """Of a batch and of those made ahead, not of the set: 60 images of 0.75 MiB."""
    (tmp_path / "a").mkdir()
    for i in range(60):
        np.save(tmp_path / "a" / f"{i}.npy", np.full((512, 512, 3), i, np.uint8))

    def peak(lazy: bool) -> float:
        tracemalloc.start()
        d: Dataset = image_folder(tmp_path, lazy=lazy)
        for x, _ in Loader(d, 2, prefetch=1):
            assert x.shape == (2, 3, 512, 512)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found / 2**20

    assert peak(lazy=True) < 32 < 45 < peak(lazy=False)
