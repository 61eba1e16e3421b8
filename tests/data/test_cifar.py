from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from minidl.data import Loader, cifar10, cifar100

TEN = "airplane automobile bird cat deer dog frog horse ship truck".split()


def write10(root: pathlib.Path, train: int = 4, test: int = 3) -> dict[str, np.ndarray]:
    """A small CIFAR-10 in the official layout; the records of each file."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")  # the official file ends in an empty line
    rng = np.random.default_rng(0)
    files = {}
    for name, n in [*((f"data_batch_{i}.bin", train) for i in range(1, 6)), ("test_batch.bin", test)]:
        files[name] = np.c_[rng.integers(0, 10, n), rng.integers(0, 256, (n, 3072))].astype(np.uint8)
        files[name].tofile(folder / name)
    return files


def write100(root: pathlib.Path, n: int = 5) -> dict[str, np.ndarray]:
    folder = root / "cifar-100-binary"
    folder.mkdir()
    (folder / "coarse_label_names.txt").write_text("".join(f"coarse_{i}\n" for i in range(20)))
    (folder / "fine_label_names.txt").write_text("".join(f"fine_{i}\n" for i in range(100)))
    rng = np.random.default_rng(0)
    files = {}
    for name in ("train.bin", "test.bin"):
        pixels = rng.integers(0, 256, (n, 3072))
        files[name] = np.c_[rng.integers(0, 20, n), rng.integers(0, 100, n), pixels].astype(np.uint8)
        files[name].tofile(folder / name)
    return files


def test_cifar10_round_trip(tmp_path: pathlib.Path) -> None:
    files = write10(tmp_path)
    train = cifar10(tmp_path)
    records = np.concatenate([files[f"data_batch_{i}.bin"] for i in range(1, 6)])
    assert train.images.shape == (20, 3, 32, 32)
    assert train.images.dtype == np.uint8
    assert train.images.flags.c_contiguous
    assert np.array_equal(train.labels, records[:, 0])
    assert train.images[7, 1, 5, 9] == records[7, 1 + 1024 + 5 * 32 + 9]  # green, row 5, column 9
    assert np.array_equal(train.images.reshape(20, -1), records[:, 1:])
    assert train.classes == tuple(TEN)
    test = cifar10(str(tmp_path), train=False)
    assert np.array_equal(test.images.reshape(3, -1), files["test_batch.bin"][:, 1:])
    assert (train.name, test.name) == ("CIFAR-10 train", "CIFAR-10 test")


@pytest.mark.parametrize(("labels", "column"), [("coarse", 0), ("fine", 1)])
def test_cifar100_round_trip(tmp_path: pathlib.Path, labels: str, column: int) -> None:
    files = write100(tmp_path)
    for train, name in ((True, "train.bin"), (False, "test.bin")):
        d = cifar100(tmp_path, train=train, labels=labels)
        assert np.array_equal(d.labels, files[name][:, column])
        assert np.array_equal(d.images.reshape(5, -1), files[name][:, 2:])
        assert len(d.classes) == (20, 100)[column]
        assert d.classes[3] == f"{labels}_3"


def test_cifar100_labels_argument(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"labels: expected one of \('fine', 'coarse'\), got 'both'"):
        cifar100(tmp_path, labels="both")


def test_missing_folder_says_how_to_get_it(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is missing\. Either pass download=True, or unpack https://.*tar.gz"):
        cifar10(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["data_batch_3.bin", "batches.meta.txt"])
def test_missing_file(tmp_path: pathlib.Path, name: str) -> None:
    write10(tmp_path)
    (tmp_path / "cifar-10-batches-bin" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing\. Move .* away and pass download=True"):
        cifar10(tmp_path, download=True)  # what lies there is not overwritten


@pytest.mark.parametrize(("change", "size"), [(-1, 4 * 3073 - 1), (1, 4 * 3073 + 1), (-4 * 3073, 0)])
def test_cut_off_file(tmp_path: pathlib.Path, change: int, size: int) -> None:
    write10(tmp_path)
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    with file.open("r+b") as f:
        f.truncate(4 * 3073 + change)
    with pytest.raises(ValueError, match=rf"data_batch_2.bin has {size} bytes, expected a whole number of records of 3073"):
        cifar10(tmp_path)
    assert len(cifar10(tmp_path, train=False)) == 3


def test_label_out_of_range(tmp_path: pathlib.Path) -> None:
    records = write10(tmp_path)["test_batch.bin"]
    records[2, 0] = 10
    records.tofile(tmp_path / "cifar-10-batches-bin" / "test_batch.bin")
    with pytest.raises(ValueError, match=r"test_batch.bin has the label 10 in record 2, expected 0\.\.9"):
        cifar10(tmp_path, train=False)


@pytest.mark.parametrize(("column", "value", "top"), [(0, 20, 19), (1, 100, 99)])
def test_both_label_bytes_of_cifar100_are_checked(tmp_path: pathlib.Path, column: int, value: int, top: int) -> None:
    records = write100(tmp_path)["train.bin"]
    records[4, column] = value
    records.tofile(tmp_path / "cifar-100-binary" / "train.bin")
    for labels in ("fine", "coarse"):
        with pytest.raises(ValueError, match=rf"label {value} in record 4, expected 0\.\.{top}"):
            cifar100(tmp_path, labels=labels)


def test_wrong_number_of_class_names(tmp_path: pathlib.Path) -> None:
    write10(tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "batches.meta.txt").write_bytes(b"airplane\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"batches.meta.txt lists 2 class names, expected 10"):
        cifar10(tmp_path)


REAL = os.environ.get("MINIDL_TEST_DATA", "")


@pytest.mark.skipif(not REAL, reason="MINIDL_TEST_DATA names no folder with cifar-10-batches-bin")
def test_real_images() -> None:
    train, test = cifar10(REAL), cifar10(REAL, train=False)
    assert train.classes == test.classes == tuple(TEN)
    assert len(train) == 50_000
    assert np.array_equal(np.bincount(train.labels), [5000] * 10)
    mean, std = train.mean_std()
    np.testing.assert_allclose(mean, np.array([125.3, 123.0, 113.9]) / 255, atol=0.01)  # the published figures
    np.testing.assert_allclose(std, np.array([63.0, 62.1, 66.7]) / 255, atol=0.01)
    # Planes in the right order and rows in the right order: neighbouring pixels of real images are alike.
    x = test.images[:500].astype(np.float32)
    assert np.abs(np.diff(x, axis=2)).mean() < 0.25 * x.std()
    assert np.abs(np.diff(x, axis=3)).mean() < 0.25 * x.std()
    batch, labels = next(iter(Loader(test, 128)))
    assert batch.shape == (128, 3, 32, 32)
    assert labels.max() <= 9
