"""HAM10000 from a small folder in its published layout."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minidl.data import ham10000
from minidl.data.ham10000 import DIAGNOSES, MASKS

KINDS = {"nv": 30, "mel": 12, "bcc": 6, "akiec": 4, "bkl": 5, "df": 5, "vasc": 1}  # lesions
SHOTS = 3  # images of every second lesion


def colour(number: int) -> tuple[int, int, int]:
    return 20 * (number % 12) + 10, 20 * (number // 12) + 10, 128


def site_of(number: int) -> str:
    return ("back", "unknown", "face", "", "lower extremity")[number % 5]


def write(
    root: pathlib.Path, metadata: str = "HAM10000_metadata.csv", separator: str = ",", sites: bool = False
) -> list[tuple[str, str, str]]:
    """An image of 60x45 (WxH) for each row, whose colour tells its number, with a lesion in its left half."""
    rows, lesion = [], 0
    for dx, count in KINDS.items():
        for _ in range(count):
            lesion += 1
            rows += [(f"HAM_{lesion:07}", f"ISIC_{1000 + len(rows) + k}", dx) for k in range(1 if lesion % 2 else SHOTS)]
    folders = [root / "HAM10000_images_part_1", root / "HAM10000_images_part_2", root / MASKS]
    for folder in folders:
        folder.mkdir(parents=True)
    for number, (_, name, _) in enumerate(rows):
        Image.new("RGB", (60, 45), colour(number)).save(folders[number % 2] / f"{name}.jpg", quality=95)
        mask = np.zeros((45, 60), np.uint8)
        mask[10:30, :30] = 255
        Image.fromarray(mask).save(folders[2] / f"{name}_segmentation.png")
    table = [("lesion_id", "image_id", "dx", "age"), *((*row, "50.0") for row in rows)]
    if sites:
        table = [(*line, site) for line, site in zip(table, ["localization", *map(site_of, range(len(rows)))], strict=True)]
    (root / metadata).write_text("".join(separator.join(line) + "\n" for line in table))
    return rows


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder: pathlib.Path = tmp_path_factory.mktemp("ham")
    write(folder)
    return folder


def numbers(images: np.ndarray) -> np.ndarray:
    """Which row each image is of, by its colour."""
    red, green = np.rint((images[:, :2].mean((2, 3), dtype=float) - 10) / 20).astype(int).T
    return red + 12 * green


def test_no_lesion_is_on_both_sides(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rows = write(tmp_path)
    train, test = (
        ham10000(root, size=(18, 24), labels="diagnosis"),
        ham10000(root, train=False, size=(18, 24), labels="diagnosis"),
    )
    which = [numbers(d.images) for d in (train, test)]
    assert sorted(np.concatenate(which)) == list(range(len(rows)))
    ids = [{rows[i][0] for i in w} for w in which]
    assert not ids[0] & ids[1]
    for dx, count in KINDS.items():
        assert sum(rows[i][2] == dx for i in which[1]) > 0 or count == 1
        assert len({rows[i][0] for i in which[1] if rows[i][2] == dx}) == round(0.2 * count)
    for d, w in zip((train, test), which, strict=True):
        assert [d.classes[k] for k in d.labels] == [rows[i][2] for i in w]
    other = ham10000(root, train=False, size=(18, 24), seed=1)
    assert set(numbers(other.images)) != set(which[1])
    again = ham10000(root, train=False, size=(18, 24))
    assert np.array_equal(numbers(again.images), which[1])


def test_images_masks_and_labels(root: pathlib.Path) -> None:
    told: list[tuple[int, int]] = []
    d = ham10000(root, size=(45, 60), test=0.5, progress=lambda done, total: told.append((done, total)))
    assert d.images.shape[1:] == (3, 45, 60) and d.classes == ("benign", "malignant") and d.name == "HAM10000 train"
    expected = np.zeros((45, 60), bool)
    expected[10:30, :30] = True
    assert (d.masks["lesion"] == expected).all()
    assert told == [(i + 1, len(d)) for i in range(len(d))]
    seven = ham10000(root, size=(45, 60), test=0.5, labels="diagnosis")
    assert np.array_equal(d.labels == 1, [DIAGNOSES[seven.classes[k]] for k in seven.labels])
    small = ham10000(root, size=(9, 12), test=0.5)
    assert (small.masks["lesion"] == expected[2::5, 2::5]).all()


def test_sites_of_the_body(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Beside malignancy or alone; what is unknown or empty is -1."""
    write(tmp_path, sites=True)
    both = ham10000(tmp_path, size=(18, 24), labels=("malignant", "localization"))
    plain, which = ham10000(root, size=(18, 24)), numbers(both.images)
    assert both.heads == ("malignant", "localization") and np.array_equal(both.labels["malignant"], plain.labels)
    assert both.classes == {"malignant": ("benign", "malignant"), "localization": ("back", "face", "lower extremity")}
    names = dict(enumerate(both.classes["localization"]))
    assert [names.get(k, "") for k in both.labels["localization"]] == [site_of(i).replace("unknown", "") for i in which]
    alone = ham10000(tmp_path, size=(18, 24), labels="localization")
    known = both.labels["localization"] >= 0
    assert np.array_equal(alone.images, both.images[known]) and np.array_equal(alone.groups, both.groups[known])
    with pytest.raises(ValueError, match=r"labels: the metadata in .* have no column localization, got lesion_id"):
        ham10000(root, labels="localization")


@pytest.mark.parametrize(("metadata", "separator"), [("HAM10000_metadata", ","), ("HAM10000_metadata.tab", "\t")])
def test_other_forms_of_the_metadata(root: pathlib.Path, tmp_path: pathlib.Path, metadata: str, separator: str) -> None:
    write(tmp_path, metadata, separator)
    a, b = (ham10000(folder, train=False, size=(9, 12)) for folder in (root, tmp_path))
    assert np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": "dx"}, r"labels: expected one of \('malignant', 'diagnosis', 'localization'\), got 'dx'"),
        ({"labels": ("malignant", "dx")}, r"labels: expected one of .*, got 'dx'"),
        ({"labels": ()}, r"labels: expected one of .*, or several, got \(\)"),
        ({"labels": ("malignant", "malignant")}, r"labels: expected one of .*, or several, got"),
        ({"test": 0}, r"test: expected a number in \(0, 1\), got 0"),
        ({"test": 1.0}, r"test: expected a number in \(0, 1\), got 1.0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_arguments(root: pathlib.Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ham10000(root, **arguments)


def test_what_is_missing_or_damaged(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"HAM10000_metadata.csv is missing; get HAM10000 from https"):
        ham10000(tmp_path)
    rows = write(tmp_path)
    table = tmp_path / "HAM10000_metadata.csv"
    text = table.read_text()
    for wrong in (text.replace(",nv,", ",naevus,", 1), text.replace("image_id", "name"), text[:-40] + "\n"):
        table.write_text(wrong)
        with pytest.raises(ValueError, match=r"metadata.csv, line \d+: expected lesion_id, image_id, dx, with dx one of"):
            ham10000(tmp_path)
    table.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="lists no image"):
        ham10000(tmp_path)
    table.write_text(text)
    (tmp_path / MASKS / f"{rows[0][1]}_segmentation.png").unlink()
    sides = []
    for train in (True, False):
        try:
            ham10000(tmp_path, train, (9, 12))
        except FileNotFoundError as error:
            sides.append(str(error))
    assert len(sides) == 1 and f"the metadata list {rows[0][1]}, but there is no" in sides[0]
    (tmp_path / "HAM10000_images_part_1" / f"{rows[0][1]}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=f"there is no {rows[0][1]}.jpg, which is in no folder"):
        for train in (True, False):
            ham10000(tmp_path, train, (9, 12))
