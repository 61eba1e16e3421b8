"""HAM10000, dermoscopic images of 7,470 skin lesions, in the published layout.

Tschandl, Rosendahl and Kittler 2018, "The HAM10000 dataset", Scientific Data 5; the outlines of the lesions are those of
Tschandl et al. 2020, "Human-computer collaboration for skin cancer recognition", Nature Medicine 26.
https://doi.org/10.7910/DVN/DBW86T (CC BY-NC 4.0): unpack the archives into one folder, so that it holds

    HAM10000_metadata.csv                   lesion_id, image_id, dx, ...; as it comes, also without .csv, or .tab
    HAM10000_images_part_1/ISIC_*.jpg       one or more folders whose names begin with HAM10000_images
    HAM10000_segmentations_lesion_tschandl/ISIC_*_segmentation.png

Many lesions were photographed several times. All images of a lesion are on one side of the split, or the test would ask for
lesions that were seen in training.
"""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from minidl import arguments
from minidl.data.dataset import Dataset
from minidl.data.reading import load_image
from minidl.data.table import Line

DIAGNOSES = {  # what `dx` says, and whether it is malignant: akiec are carcinomas in situ and their precursors
    "akiec": True,
    "bcc": True,
    "bkl": False,
    "df": False,
    "mel": True,
    "nv": False,
    "vasc": False,
}
HEADS = ("malignant", "diagnosis", "localization")
UNKNOWN = {"", "unknown"}  # sites
METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
IMAGES = "HAM10000_images"
MASKS = "HAM10000_segmentations_lesion_tschandl"
SOURCE = "get HAM10000 from https://doi.org/10.7910/DVN/DBW86T and unpack its archives there"


def ham10000(
    root: str | os.PathLike[str],
    train: bool = True,
    size: tuple[int, int] = (72, 96),
    labels: str | Sequence[str] = "malignant",
    test: float = 0.2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The training or the test images (N,3,H,W) uint8 in the folder `root`, in the order of the metadata.

    masks: "lesion", (N,H,W) bool, as dermatologists outlined it. names: image_id; groups: lesion_id.
    Tschandl, Rosendahl and Kittler 2018, "The HAM10000 dataset".

    Args:
        size: (H, W) to resize images and masks to (bilinear, with antialiasing); those published are 450x600.
        labels: "malignant", for the classes "benign" and "malignant"; "diagnosis", for the seven of `DIAGNOSES`; or
            "localization", for the sites of the body that the metadata name, sorted. Several make a set of several heads, where
            a site that is unknown is -1; of "localization" alone such images are left out.
        test: the share of lesions of each diagnosis that is kept for the test, between 0 and 1.
        seed: of the split, which depends on it and on the metadata alone.
        progress: called with (done, total) after each image.

    Raises:
        FileNotFoundError: there is no metadata, or an image or a mask that it lists is missing.
        ValueError: the metadata are not those of HAM10000, a file is damaged, or an argument cannot be.
        TypeError: size, test or seed are no numbers.
    """
    root = pathlib.Path(root)
    heads = [labels] if isinstance(labels, str) else list(labels)
    for name in heads:
        arguments.one_of(name, "labels", HEADS)
    if not heads or len(set(heads)) < len(heads):
        arguments.wrong(ValueError, "labels", f"one of {HEADS}, or several", labels)
    train = arguments.flag(train, "train")
    test, seed = arguments.number(test, "test", "(0, 1)"), arguments.count(seed, "seed", 0)
    H, W = arguments.counts(size, "size", length=2)
    rows = _rows(_metadata(root))
    classes = {head: _classes(rows, head, root) for head in heads}
    held_back = _test_lesions(rows, test, seed)
    rows = [row for row in rows if (row["lesion_id"] in held_back) != train]
    files = _files(root)
    images, lesion = np.empty((len(rows), 3, H, W), np.uint8), np.empty((len(rows), H, W), bool)
    for i, row in enumerate(rows):
        name = row["image_id"]
        mask = root / MASKS / f"{name}_segmentation.png"
        if name not in files or not mask.is_file():
            what = f"{name}.jpg, which is in no folder {root}/{IMAGES}*" if name not in files else str(mask)
            raise FileNotFoundError(f"the metadata list {name}, but there is no {what}; {SOURCE}")
        images[i] = load_image(files[name], (H, W), 3)
        lesion[i] = load_image(mask, (H, W), 1)[0] > 127
        if progress is not None:
            progress(i + 1, len(rows))
    numbers = {head: np.array([_number(row, head, names) for row in rows], np.int64) for head, names in classes.items()}
    ids, lesions = (np.array([row[column] for row in rows]) for column in ("image_id", "lesion_id"))
    name = f"HAM10000 {'train' if train else 'test'}"
    about = {"lesion": lesion}, name, ids, lesions
    if isinstance(labels, str) and (numbers[labels] >= 0).all():
        return Dataset(images, numbers[labels], classes[labels], *about)
    whole = Dataset(images, numbers, classes, *about)
    return whole.head(labels) if isinstance(labels, str) else whole


def _classes(rows: list[dict[str, str]], head: str, root: pathlib.Path) -> tuple[str, ...]:
    if head == "malignant":
        return "benign", "malignant"
    if head == "diagnosis":
        return tuple(DIAGNOSES)
    if "localization" not in rows[0]:
        raise ValueError(f"labels: the metadata in {root} have no column localization, got {', '.join(rows[0])}")
    return tuple(sorted({row[head] or "" for row in rows} - UNKNOWN))


def _number(row: dict[str, str], head: str, classes: tuple[str, ...]) -> int:
    """The class of an image, -1 where it is not known."""
    if head == "malignant":
        return int(DIAGNOSES[row["dx"]])
    name = row["dx" if head == "diagnosis" else head] or ""
    return -1 if name in UNKNOWN else classes.index(name)


def listed(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> list[Line]:
    """The images of the metadata in the file `path`, by image_id, with diagnosis and lesion, without reading one.

    root: the folder of the dataset, by default that of the file. Raises FileNotFoundError where an image is missing, and
    ValueError for other metadata.
    """
    path = pathlib.Path(path)
    folder = path.parent if root is None else pathlib.Path(root)
    rows, files = _rows(path), _files(folder)
    if missing := [row["image_id"] for row in rows if row["image_id"] not in files]:
        raise FileNotFoundError(
            f"{path} lists {missing[0]}, but there is no {missing[0]}.jpg in a folder {folder}/{IMAGES}*; pass the folder that "
            "holds these as root"
        )
    return [Line(files[name], name, row["dx"], row["lesion_id"]) for row in rows for name in [row["image_id"]]]


def _files(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """image_id -> its file"""
    return {path.stem: path for folder in sorted(root.glob(f"{IMAGES}*")) for path in folder.glob("*.jpg")}


def _metadata(root: pathlib.Path) -> pathlib.Path:
    found = [root / name for name in METADATA if (root / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{root / METADATA[0]} is missing; {SOURCE}")
    return found[0]


def _rows(path: pathlib.Path) -> list[dict[str, str]]:
    """The metadata, checked, one row an image."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        file.seek(0)
        rows = list(csv.DictReader(file, delimiter="\t" if "\t" in header else ","))
    needed = ("lesion_id", "image_id", "dx")
    for number, row in enumerate(rows, start=2):
        if not all(row.get(key) for key in needed) or row["dx"] not in DIAGNOSES:
            raise ValueError(
                f"{path}, line {number}: expected {', '.join(needed)}, with dx one of {', '.join(DIAGNOSES)}, got {row}"
            )
    if not rows:
        raise ValueError(f"{path} lists no image")
    return rows


def _test_lesions(rows: list[dict[str, str]], share: float, seed: int) -> set[str]:
    """That share of the lesions of each diagnosis, rounded, drawn at random."""
    rng = np.random.default_rng(seed)
    drawn: set[str] = set()
    for dx in DIAGNOSES:
        lesions = sorted({row["lesion_id"] for row in rows if row["dx"] == dx})
        drawn.update(rng.permutation(lesions)[: round(share * len(lesions))].tolist())
    return drawn
