"""examples/sets.py: what --data reads, with each of its options; and a training of each kind, resumed."""

from __future__ import annotations

import csv as tables
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import sets
import train as example
from PIL import Image

from minidl.data import LazyImages
from minidl.train import Settings, load_run
from tests.data.test_ham10000 import write as write_ham10000
from tests.data.test_table import write as write_medmnist

FEW = ["--epochs", "1", "--batch-size", "4"]


def images(root: pathlib.Path, patients: int = 10, bits: int = 8, seed: int = 0) -> list[str]:
    """Two classes, two images of each patient: ROOT/CLASS/PATIENT_SIDE.png"""
    rng, names = np.random.default_rng(seed), []
    for k in range(patients):
        for side in "left", "right":
            name = f"{('sick', 'well')[k % 2]}/{k:04}_{side}.png"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 2**bits, (12, 16)).astype(np.uint16 if bits > 8 else np.uint8)
            Image.fromarray(pixels).save(root / name)
            names.append(name)
    return names


def table(root: pathlib.Path, split: tuple[str, ...] = ()) -> pathlib.Path:
    """Of the images above, patients as groups; `split`: one for each patient in turn."""
    names, path = images(root), root / "set.csv"
    with open(path, "w", newline="") as file:
        rows = tables.writer(file)
        rows.writerow(["file", "label", "group", *(["split"] if split else [])])
        for name in names:
            patient = int(name.split("/")[1][:4])
            rows.writerow([name, name.split("/")[0], f"p{patient}", *([split[patient // 2 % len(split)]] if split else [])])
    return path


def asked(data: str, root: pathlib.Path, **more: Any) -> sets.Sets:
    return sets.load(Settings(data=data, root=str(root), **more))


# ---- folders


def test_groups_of_a_folder_stay_together(tmp_path: pathlib.Path) -> None:
    images(tmp_path)
    train, test, none = asked("folder", tmp_path, groups="/([0-9]+)_")
    assert none is None and len(train) == 16 and len(test) == 4
    assert train.groups is not None and test.groups is not None
    assert not {*train.groups} & {*test.groups} and sorted({*train.groups, *test.groups}) == [f"{k:04}" for k in range(10)]
    alone = asked("folder", tmp_path)
    assert alone.train.groups is None and len(alone.test) == 4


def test_folders_that_somebody_has_split(tmp_path: pathlib.Path) -> None:
    for seed, part in enumerate(("train", "val", "test")):
        images(tmp_path / part, 4, seed=seed)
    train, test, validation = asked("folder", tmp_path)
    assert validation is not None and [d.name for d in (train, test, validation)] == ["train", "test", "val"]
    assert [len(d) for d in (train, test, validation)] == [8, 8, 8]
    with pytest.raises(ValueError, match=r"train and test: 4 groups \(0000, 0001, 0002, \.\.\.\) are in both: keep all images"):
        asked("folder", tmp_path, groups="/([0-9]+)_")
    with pytest.raises(ValueError, match=r"--validation 0\.2: .* has 8 validation images of its own, which are taken; leave"):
        asked("folder", tmp_path, validation=0.2)
    (tmp_path / "val/well/copy.png").write_bytes((tmp_path / "train/sick/0000_left.png").read_bytes())
    with pytest.raises(ValueError, match=r"train and val: .*sick/0000_left.png and .*val/well/copy.png hold the same bytes"):
        asked("folder", tmp_path)


def test_a_file_that_is_in_a_folder_twice(tmp_path: pathlib.Path) -> None:
    images(tmp_path)
    for k in range(8):
        (tmp_path / f"well/copy{k}.png").write_bytes((tmp_path / "sick/0000_left.png").read_bytes())
    with pytest.raises(ValueError, match="hold the same bytes"):
        asked("folder", tmp_path)


def test_a_window_and_images_on_disk(tmp_path: pathlib.Path) -> None:
    images(tmp_path, bits=12)
    held, lazy = (asked("folder", tmp_path, window=(1000, 3000), lazy=lazy) for lazy in (False, True))
    assert isinstance(lazy.train.images, LazyImages) and held.train.window == lazy.test.window == (1000.0, 3000.0)
    for a, b in zip(held[:2], lazy[:2], strict=True):
        assert a is not None and b is not None
        np.testing.assert_array_equal(a.images, b.images[:])
    assert (held.train.images == 0).mean() > 0.2 and (held.train.images == 1).mean() > 0.2
    assert asked("folder", tmp_path).train.images.max() < 0.07  # 12 of 16 bits


# ---- tables, HAM10000, MedMNIST


def test_a_table_without_splits(tmp_path: pathlib.Path) -> None:
    train, test, none = asked("csv", table(tmp_path), size=(6, 8))
    assert none is None and len(train) == 16 and train.images.shape[1:] == (1, 6, 8)
    assert train.groups is not None and test.groups is not None and not {*train.groups} & {*test.groups}


def test_a_table_with_splits(tmp_path: pathlib.Path) -> None:
    path = table(tmp_path, ("train", "val", "test", "train"))
    train, test, validation = asked("csv", path, channels=3)
    assert validation is not None and [len(d) for d in (train, test, validation)] == [12, 4, 4]
    assert train.classes == validation.classes == ("sick", "well") and train.images.shape[1] == 3
    with pytest.raises(ValueError, match=r"--validation 0\.1: .*set\.csv has 4 validation images of its own"):
        asked("csv", path, validation=0.1)
    table(tmp_path, ("train", "val"))
    with pytest.raises(ValueError, match=r"set\.csv: expected lines of the splits train and test, got none of test"):
        asked("csv", path)
    table(tmp_path, ("train", "test"))
    (tmp_path / "well/0003_left.png").write_bytes((tmp_path / "sick/0000_left.png").read_bytes())
    with pytest.raises(ValueError, match=r"set train and set test: .*0000_left.png and .*0003_left.png hold the same bytes"):
        asked("csv", path)


def test_ham10000(tmp_path: pathlib.Path) -> None:
    write_ham10000(tmp_path)
    train, test, none = asked("ham10000", tmp_path, size=(9, 12))
    assert none is None and train.classes == ("benign", "malignant") and train.images.shape[1:] == (3, 9, 12)
    assert train.groups is not None and test.groups is not None and not {*train.groups} & {*test.groups}
    few = asked("ham10000", tmp_path, size=8, limit=20).train
    assert len(few) == 20 and set(few.labels) == {0, 1} and few.images.shape[2:] == (8, 8)  # the metadata are sorted


def test_medmnist(tmp_path: pathlib.Path) -> None:
    train, test, validation = asked("medmnist", write_medmnist(tmp_path / "m.npz"))
    assert validation is not None and [len(d) for d in (train, test, validation)] == [6, 2, 3]
    with pytest.raises(ValueError, match=r"--validation 0\.3: .*m\.npz has 3 validation images of its own"):
        asked("medmnist", tmp_path / "m.npz", validation=0.3)


# ---- what says nothing to the data


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ("lesions", {"window": (40, 400)}, "--window 40,400: it is for --data folder and csv alone, not for lesions"),
        ("cifar10", {"lazy": True}, "--lazy: it is for --data folder and csv alone, not for cifar10"),
        ("csv", {"groups": "x"}, "--groups x: it is for --data folder alone, not for csv"),
        ("medmnist", {"page": 0}, "--page 0: it is for --data folder and csv alone, not for medmnist"),
        ("ham10000", {"channels": 1}, "--channels 1: it is for --data folder and csv alone, not for ham10000"),
        ("medmnist", {"size": 64}, "--size 64: a file of medmnist has one size; get that of another, such as 64"),
        ("cifar100", {"size": (12, 20)}, "--size 12x20: the images of cifar100 are 32x32"),
        ("lesions", {"root": "x"}, "--root x: lesions are drawn, and read from no folder; leave it out, or write --data"),
        ("lesions", {"size": (32, 48)}, "--size 32x48: lesions are drawn square, such as --size 48"),
        ("moles", {}, "data: expected one of .*'medmnist'.*, got 'moles'"),
    ],
)
def test_options_that_say_nothing(data: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sets.load(Settings(data=data, **more))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window", "40"], "expected LOW,HIGH, such as 40,400, got '40'"),
        (["--window", "a,b"], "expected LOW,HIGH"),
        (["--zoom", "1,2,3"], "expected LOW,HIGH"),
    ],
)
def test_words_that_are_no_numbers(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.parser().parse_args(words)
    assert message in capsys.readouterr().err


# ---- trained, and resumed with what settings.json says


def test_a_run_remembers_how_its_files_are_read(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    images(tmp_path / "mine", bits=12)
    out = tmp_path / "run"
    words = ["--data", "folder", "--root", str(tmp_path / "mine"), "--window", "1000,3000", "--groups", "/([0-9]+)_", "--lazy"]
    words += ["--rotate", "15", "--zoom", "0.8,1.2", "--colour", "0.2", "0.1", "--flip", "both", "--crop", "1", "--test-flips"]
    assert example.main([*words, *FEW, "--out", str(out)]) == 0, capsys.readouterr().err
    kept = json.loads((out / "settings.json").read_text())
    assert kept["window"] == [1000, 3000] and kept["groups"] == "/([0-9]+)_" and kept["lazy"] is True
    assert kept["zoom"] == [0.8, 1.2] and kept["colour"] == [0.2, 0.1] and kept["rotate"] == 15 and kept["crop"] == 1
    contract = load_run(out, example.MODELS).contract
    assert contract.window == (1000, 3000) and contract.test_flips == "both" and contract.levels == 65535
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.suffix == ".png" or p.name == "metrics.jsonl"}
    assert example.main(["--resume", "--out", str(out)]) == 0, capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in before} == before
    assert example.main(["--resume", "--out", str(out), "--window", "1000,2000"]) == 1
    assert "window was [1000.0, 3000.0] and now is [1000.0, 2000.0]" in capsys.readouterr().err


@pytest.mark.ci
@pytest.mark.parametrize("data", ["csv", "ham10000", "medmnist"])
def test_a_training_of_each_kind(data: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, more = tmp_path / "mine", ["--select", "auc"]
    if data == "csv":
        root = table(root, ("train", "val", "test", "train"))
    elif data == "ham10000":
        write_ham10000(root)
        more = ["--size", "16x20", "--validation", "0.3", "--select", "auc"]
    else:
        root = write_medmnist(tmp_path / "m.npz")
    words = ["--data", data, "--root", str(root), *more, *FEW, "--out", str(tmp_path / "run")]
    assert example.main(words) == 0, capsys.readouterr().err
    assert example.main(["--resume", "--out", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "validation: " in printed and "at the operating point of" in printed and "always the largest class: " in printed
    size = {"csv": (12, 16), "ham10000": (16, 20), "medmnist": (28, 28)}[data]
    contract = load_run(tmp_path / "run", example.MODELS).contract
    assert (contract.height, contract.width) == size
