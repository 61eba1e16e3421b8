"""examples/predict.py: what the test of a run said of its images, it says of their files; and what it says of what is none."""

from __future__ import annotations

import csv
import pathlib
from typing import Any

import numpy as np
import predict
import pytest
import train as training
from PIL import Image

from minidl import data
from minidl.data import Dataset, lesions
from minidl.train import Settings, evaluate_run, fit

SIZE = 32


def write(dataset: Dataset, folder: pathlib.Path) -> None:
    for image, label, name in zip(dataset.images, dataset.labels, names_of(dataset), strict=True):
        (folder / dataset.classes[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / name)


def names_of(dataset: Dataset) -> list[str]:
    return [f"{dataset.classes[label]}/{n // 2:03d}_{n}.png" for n, label in enumerate(dataset.labels)]


class Trained:
    """A run on drawn lesions, and its 20 test images as files, two of each patient."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.run, self.images, self.table = folder / "run", folder / "images", folder / "list.csv"
        train_set, validation, test_set = (lesions(n, SIZE, seed=seed) for n, seed in ((64, 0), (32, 1), (20, 2)))
        settings = Settings(epochs=2, batch_size=16, lr=0.05, crop=0, model="resnet8", data="folder", sensitivity=0.6)
        fit(training.make("resnet8", 2, 3), train_set, settings, self.run, validation)
        write(test_set, self.images)
        classes = [test_set.classes[label] for label in test_set.labels]
        rows = [f"{name},{of},{n // 2}" for n, (name, of) in enumerate(zip(names_of(test_set), classes, strict=True))]
        self.table.write_text("\n".join(["file,label,group", *rows]) + "\n")
        self.test = data.csv(self.table, self.images)
        self.found = evaluate_run(self.run, training.MODELS, self.test)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("predict"))


def rows_of(path: pathlib.Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_files_are_told_what_their_test_said(
    trained: Trained, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = rows_of(trained.run / "predictions.csv")
    assert len(whole) == 20 and len({row["decision"] for row in whole.values()}) == 2
    out = tmp_path / "out.csv"
    table = ["--table", str(trained.table), "--root", str(trained.images)]
    assert predict.main(["--run", str(trained.run), *table, "--csv", str(out), "--batch-size", "3"]) == 0
    printed = capsys.readouterr().out
    files = tmp_path / "files.csv"
    asked = ["--run", str(trained.run), str(trained.images), "--groups", "/([0-9]+)_", "--csv", str(files)]
    assert predict.main(asked) == 0
    for found, root, known in (out, "", True), (files, f"{trained.images}/", False):
        again = rows_of(found)
        assert again.keys() == {f"{root}{name}" for name in whole}
        for name, row in whole.items():
            other = again[f"{root}{name}"]
            for column in "p_benign", "p_malignant":
                assert abs(float(row[column]) - float(other[column])) < 1e-5
            assert row["decision"] == other["decision"] and int(row["group"]) == int(other["group"])
            assert other["label"] == (row["label"] if known else "")
    sens, spec = (trained.found["operating"][name] for name in ("sensitivity", "specificity"))
    assert f"AUC {trained.found['auc']:.3f} [" in printed and "of 20 images the label is known" in printed
    assert (
        f"at the operating point of 'malignant': sensitivity {sens:.3f} [" in printed and f"specificity {spec:.3f} [" in printed
    )


def test_without_csv_a_table_is_printed(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main(["--run", str(trained.run), *map(str, sorted(trained.images.glob("*/00[01]_*.png")))]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "p_benign", "p_malignant", "decision"] and len(lines) == 4
    whole = rows_of(trained.run / "predictions.csv")
    for line in lines:
        file, _, p, decision = line.split()
        row = whole[str(pathlib.Path(file).relative_to(trained.images))]
        assert p == f"{float(row['p_malignant']):.3f}" and decision == row["decision"]


def broken(folder: pathlib.Path) -> dict[str, str]:
    """Files that are no image, and what is said of them."""
    page = Image.new("RGB", (SIZE, SIZE))
    page.save(folder / "two.tif", save_all=True, append_images=[page])
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    np.save(folder / "nan.npy", np.full((SIZE, SIZE, 3), np.nan, np.float32))
    (folder / "empty.jpg").touch()
    (folder / "report.dcm").write_bytes(bytes(128) + b"DICM")
    return {
        "two.tif": "two.tif holds 2 pages: pass page=0",
        "cut.png": "cut.png is no image that can be read",
        "nan.npy": "nan.npy holds NaN or infinity",
        "empty.jpg": "empty.jpg is empty, 0 bytes",
        "report.dcm": "report.dcm",
        "gone.png": "gone.png",
    }


def test_what_cannot_be_read_is_named_and_passed_over(
    trained: Trained, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = broken(tmp_path)
    good = str(next(trained.images.glob("benign/*.png")))
    out = tmp_path / "out.csv"
    names = [str(tmp_path / name) for name in said]
    assert predict.main(["--run", str(trained.run), names[0], good, *names[1:], "--csv", str(out)]) == 1
    printed = capsys.readouterr()
    errors = printed.err.splitlines()
    assert len(errors) == len(said) and list(rows_of(out)) == [good]
    for line, (name, message) in zip(errors, said.items(), strict=True):
        assert line.startswith("passed over: ") and message in line and str(tmp_path / name) in line
    assert f"1 images are in {out}, {len(said)} could not be read" in printed.out
    assert predict.main(["--run", str(trained.run), *names]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: none of the 6 images could be read"


@pytest.mark.oracle
def test_a_dicom_without_pixels(trained: Trained, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    pydicom = pytest.importorskip("pydicom")
    d = pydicom.Dataset()
    d.file_meta = pydicom.dataset.FileMetaDataset()
    d.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, pydicom.uid.generate_uid()
    d.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    assert predict.main(["--run", str(trained.run), str(tmp_path / "report.dcm")]) == 1
    told, ended = capsys.readouterr().err.splitlines()
    assert told.startswith("passed over: ") and "report.dcm" in told and ended == "error: none of the 1 images could be read"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([], "FILES: expected images or folders of images, or --table F.csv, got none"),
        (["EMPTY"], "EMPTY holds no image"),
        (["--table", "no.csv"], "no.csv is missing: expected a table with the columns file"),
        (["--table", "bad.csv"], "bad.csv: expected the column file, got a, b"),
        (["--table", "labels.csv", "--root", "IMAGES"], "labels.csv: benign/000_0.png has the label 'cat', expected one of"),
        (["--table", "splits.csv", "--root", "IMAGES"], "split: splits.csv has test, train: pass one of these, or 'all'"),
        (["--table", "splits.csv", "x.png"], "--table: it lists the images"),
        (["x.png", "--root", "IMAGES"], "--root, --split: they are for --table"),
        (["x.png", "--batch-size", "0"], "--batch-size: expected an integer of at least 1, got 0"),
        (["x.png", "--csv", "no/where.csv"], "--csv: expected a file in a folder that is there, got no/where.csv"),
        (["x.png", "--groups", "("], "groups: expected a regular expression"),
    ],
)  # fmt: skip
def test_errors_in_a_line(
    trained: Trained,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    name = str(next(trained.images.glob("benign/*.png")).relative_to(trained.images))
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "labels.csv").write_text(f"file,label\n{name},cat\n")
    other = str(next(trained.images.glob("malignant/*.png")).relative_to(trained.images))
    (tmp_path / "splits.csv").write_text(f"file,split\n{name},train\n{other},test\n")
    message = message.replace("benign/000_0.png", name)
    assert predict.main(["--run", str(trained.run), *(word.replace("IMAGES", str(trained.images)) for word in asked)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0]


def test_a_run_that_is_none(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict.main(["--run", str(tmp_path / "none"), "x.png"]) == 1
    assert "holds no finished training" in capsys.readouterr().err


def test_images_come_batch_by_batch(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, sizes = predict.TrainedNet.inputs, list[int]()
    net = predict.load_run(trained.run, training.MODELS)
    lines = [predict.Line(file, str(file)) for file in sorted(trained.images.glob("*/*.png"))]

    def counted(self: Any, images: Any) -> Any:
        sizes.append(len(images))
        return inputs(self, images)

    monkeypatch.setattr(predict.TrainedNet, "inputs", counted)
    found = predict.predicted(net, lines, 6, [])
    assert found is not None and len(found.names) == 20 and sizes == [6, 6, 6, 2]


def test_the_metadata_of_ham10000(trained: Trained, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "HAM10000_images_part_1"
    folder.mkdir()
    rows = ["lesion_id,image_id,dx,dx_type"]
    for n, (file, dx) in enumerate(zip(sorted(trained.images.glob("*/*.png")), ("nv", "mel", "bcc", "df"), strict=False)):
        Image.open(file).save(folder / f"ISIC_{n}.jpg")
        rows.append(f"HAM_{n // 2},ISIC_{n},{dx},histo")
    table, out = tmp_path / "HAM10000_metadata.csv", tmp_path / "out.csv"
    table.write_text("\n".join(rows) + "\n")
    assert predict.main(["--run", str(trained.run), "--table", str(table), "--root", str(tmp_path), "--csv", str(out)]) == 0
    found = rows_of(out)
    assert [row["label"] for row in found.values()] == ["benign", "malignant", "malignant", "benign"]
    assert list(found) == ["ISIC_0", "ISIC_1", "ISIC_2", "ISIC_3"] and found["ISIC_3"]["group"] == "HAM_1"
