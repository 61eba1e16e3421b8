"""A table of files, labels, groups and splits; MedMNIST's files."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minidl.data import UnreadableError, csv, medmnist

TABLE = """\
file,label,group,split,age
a.png,benign,p1,train,50
sub/b.png,malignant,p2,train,61
c.png,benign,p3,val,
d.png,malignant,p4,test,44
e.png,malignant,p1,train,50
"""
FILES = ("a.png", "sub/b.png", "c.png", "d.png", "e.png")


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "sub").mkdir()
    for value, name in enumerate(FILES):
        Image.fromarray(np.full((3, 4), 10 * value, np.uint8)).save(tmp_path / name)
    (tmp_path / "set.csv").write_text(TABLE)
    return tmp_path


def which(d: Any) -> list[int]:
    return (d.images[:, 0, 0, 0] // 10).tolist()


def test_a_table(root: pathlib.Path) -> None:
    d = csv(root / "set.csv", split="train")
    assert which(d) == [0, 1, 4] and d.classes == ("benign", "malignant") and d.labels.tolist() == [0, 1, 1]
    assert d.names is not None and d.names.tolist() == ["a.png", "sub/b.png", "e.png"]
    assert d.groups is not None and d.groups.tolist() == ["p1", "p2", "p1"]
    assert d.name == "set train" and d.images.shape == (3, 1, 3, 4)
    validation, test = (csv(root / "set.csv", split=split) for split in ("validation", "test"))
    assert (which(validation), which(test)) == ([2], [3])
    assert validation.classes == test.classes == d.classes and test.labels.tolist() == [1]
    assert which(csv(root / "set.csv", split="all")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_quotes_and_marks(root: pathlib.Path, separator: str) -> None:
    """As Excel writes them, too."""
    text = TABLE.replace("p3", '" p3 "').replace(",", separator).replace("\n", "\r\n")
    (root / "set.csv").write_bytes(text.encode("utf-8-sig"))
    d = csv(root / "set.csv", split="validation")
    assert d.groups is not None and d.groups.tolist() == ["p3"]


def test_other_columns(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (root / "t").mkdir()
    (root / "t" / "list.csv").write_text("grade,file\n10,a.png\n2,c.png\n")
    d = csv(root / "t" / "list.csv", root, labels="grade", size=(2, 2), channels=3)
    assert d.classes == ("2", "10") and d.labels.tolist() == [1, 0] and d.groups is None and d.images.shape == (2, 3, 2, 2)


def test_several_heads(root: pathlib.Path) -> None:
    (root / "set.csv").write_text("file,birads,density\na.png,2,\nc.png,,low\nd.png,4,high\n")
    d = csv(root / "set.csv", labels=["birads", "density"])
    assert d.classes == {"birads": ("2", "4"), "density": ("high", "low")}
    assert {head: values.tolist() for head, values in d.labels.items()} == {"birads": [0, -1, 1], "density": [-1, 1, 0]}


@pytest.mark.parametrize(
    ("old", "new", "asked", "message"),
    [
        ("d.png", "gone.png", {}, r"set.csv, line 5: .*gone.png is not there; root is the folder that files are given from"),
        ("d.png", "sub", {}, r"line 5: .*sub is not there"),
        ("test,", "later,", {}, r"line 5: split: expected train, validation or test, got 'later'"),
        ("test,", ",", {}, r"line 5: split: expected train, validation or test, got ''"),
        ("c.png,benign", "c.png,", {}, "line 4: expected a label, got nothing"),
        ("c.png,benign", ",benign", {}, "line 4: expected a file, got nothing"),
        ("p3", " ", {}, "line 4: expected a group, got nothing"),
        ("e.png", "./sub/../a.png", {}, r"line 6: ./sub/../a.png is listed in line 2 already"),
        ("p4", "p1", {}, "line 5: group 'p1' is in test, and in train in line 2: keep all images of a group in one split"),
        ("label", "labels", {}, "expected the column label, got file, labels, group, split, age"),
        ("age", "label", {}, "expected one column label, got 2"),
        (",50\n", "\n", {}, "line 2: expected 5 columns, as in its first line, got more or fewer"),
        (",50\n", ",50,7\n", {}, "line 2: expected 5 columns"),
        (TABLE, "", {}, "expected the column file, got an empty file"),
        (TABLE[26:], "", {}, "lists no image"),
        ("d.png,malignant,p4,test", "d.png,malignant,p4,val", {"split": "test"}, "lists no image of 'test'"),
        ("", "", {"split": None}, "split: .*set.csv has test, train, validation: pass one of these, or 'all'"),
        ("split", "part", {"split": "train"}, "split: .*set.csv has no column split, got 'train'"),
        ("", "", {"split": "val"}, r"split: expected one of \('train', 'validation', 'test', 'all'\), got 'val'"),
        ("", "", {"labels": []}, r"labels: expected the name of a column, or several, got \[\]"),
        ("a.png", '"a.png', {}, "is no table of text in UTF-8"),
    ],
)
def test_what_a_table_must_not_hold(root: pathlib.Path, old: str, new: str, asked: dict[str, Any], message: str) -> None:
    (root / "set.csv").write_text(TABLE.replace(old, new, 1) if old else TABLE)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        csv(root / "set.csv", **{"split": "train", **asked})
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(root: pathlib.Path) -> None:
    (root / "e.png").write_bytes(b"\x89PNG")
    with pytest.raises(UnreadableError, match=r"e.png is no image that can be read"):
        csv(root / "set.csv", split="train")
    with pytest.raises(FileNotFoundError, match=r"none.csv is missing: expected a table with the columns file, label"):
        csv(root / "none.csv")
    (root / "set.csv").write_bytes(b"file,label\n\xff.png,a\n")
    with pytest.raises(ValueError, match="is no table of text in UTF-8"):
        csv(root / "set.csv")


# ---- MedMNIST


def write(path: pathlib.Path, **other: Any) -> pathlib.Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, N in ("train", 6), ("val", 3), ("test", 2):
        arrays |= {
            f"{split}_images": rng.integers(0, 256, (N, 28, 28), np.uint8),
            f"{split}_labels": np.uint8(np.arange(N) % 2)[:, None],
        }
    np.savez(path, **{name: a for name, a in (arrays | other).items() if a is not None})
    return path


def test_medmnist(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "pneumoniamnist.npz")
    file = np.load(path)
    for split, key in ("train", "train"), ("validation", "val"), ("test", "test"):
        d = medmnist(path, split, ("normal", "pneumonia"))
        assert np.array_equal(d.images[:, 0], file[f"{key}_images"]) and d.images.shape[1:] == (1, 28, 28)
        assert np.array_equal(d.labels, file[f"{key}_labels"][:, 0]) and d.classes == ("normal", "pneumonia")
        assert d.name == f"pneumoniamnist {split}" and d.groups is None


def test_medmnist_in_colour(tmp_path: pathlib.Path) -> None:
    x = np.random.default_rng(1).integers(0, 256, (6, 28, 28, 3), np.uint8)
    d = medmnist(write(tmp_path / "x.npz", train_images=x, test_labels=np.uint8([[0], [4]])))
    assert np.array_equal(d.images, x.transpose(0, 3, 1, 2)) and d.classes == ("0", "1", "2", "3", "4")


def test_medmnist_of_several_labels(tmp_path: pathlib.Path) -> None:
    labels = {
        f"{split}_labels": np.random.default_rng(N).integers(0, 2, (N, 3), np.uint8)
        for split, N in (("train", 6), ("val", 3), ("test", 2))
    }
    d = medmnist(write(tmp_path / "x.npz", **labels), classes=["mass", "nodule", "hernia"])
    assert d.heads == ("mass", "nodule", "hernia") and d.classes["mass"] == ("no", "yes")
    assert np.array_equal(np.stack([d.labels[head] for head in d.heads], 1), labels["train_labels"])
    with pytest.raises(ValueError, match="classes: expected 3 different names, one for each head, got 'abc'"):
        medmnist(tmp_path / "x.npz", classes="abc")
    labels["val_labels"][0, 0] = 2
    with pytest.raises(ValueError, match="expected 0 and 1 where an image has 3 labels, got 2"):
        medmnist(write(tmp_path / "x.npz", **labels))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"train_images": None},
            "x.npz is no .npz file of MedMNIST: expected train_images in it, got train_labels, val_images",
        ),
        ({"val_labels": None}, "expected val_labels in it"),
        (
            {"train_images": np.zeros((6, 28, 28, 28), np.uint8)},
            r"train_images: expected .*, got \(6, 28, 28, 28\) uint8: volumes are not",
        ),
        ({"train_images": np.zeros((6, 28, 28))}, r"train_images: expected .* uint8, got \(6, 28, 28\) float64"),
        ({"train_images": np.zeros((5, 28, 28), np.uint8)}, "expected a row of train_labels for each of 5 images, got 6"),
        ({"train_labels": np.zeros((6, 1))}, r"train_labels: expected integers \(N,L\) of at least 0, got \(6, 1\) float64"),
        ({"train_labels": np.full((6, 1), -1)}, r"train_labels: expected integers \(N,L\) of at least 0"),
        ({"train_labels": np.array([{}] * 6)}, "is no .npz file of MedMNIST: Object arrays cannot be loaded"),
    ],
)
def test_other_files(tmp_path: pathlib.Path, other: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        medmnist(write(tmp_path / "x.npz", **other))


def test_damaged_files(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"split: expected one of .*'validation'.*, got 'val'"):
        medmnist(path, "val")
    with pytest.raises(ValueError, match="classes: expected 2 different names, one for each class, got "):
        medmnist(path, classes=("a", "a"))
    raw = path.read_bytes()
    for damaged in raw[: len(raw) // 2], b"", b"something", raw[:300] + bytes(50) + raw[350:]:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x.npz is no .npz file of MedMNIST"):
            medmnist(path)
    np.save(tmp_path / "y.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"is no \.npz file of MedMNIST"):
        medmnist(tmp_path / "y.npy")
    with pytest.raises(FileNotFoundError, match=r"z.npz is missing: get it from https://zenodo"):
        medmnist(tmp_path / "z.npz")
