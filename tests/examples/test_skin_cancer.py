"""examples/skin_cancer.py on drawn images in the layout of HAM10000."""

from __future__ import annotations

import csv
import json
import pathlib
from itertools import cycle

import pytest
import skin_cancer
from PIL import Image

from tests.examples.test_ground_truth import write_ham10000


@pytest.mark.ci
def test_the_mistakes_are_those_of_the_table(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "data", tmp_path / "run"
    root.mkdir()
    write_ham10000(root)
    table = root / "HAM10000_metadata.csv"
    lines = table.read_text().splitlines()
    malignant, benign = cycle(("mel", "bcc", "akiec")), cycle(("nv", "bkl", "df", "vasc"))
    for i, line in enumerate(lines[1:], start=1):
        head, _, dx = line.rpartition(",")
        swapped = i % 3 == 0  # so that there are mistakes
        lines[i] = f"{head},{next(malignant if (dx in ('mel', 'bcc')) != swapped else benign)}"
    table.write_text("\n".join(lines) + "\n")
    asked = ["--root", str(root), "--out", str(out), "--model", "resnet8", "--size", "24x32", "--epochs", "2", "1"]
    assert skin_cancer.main(asked) == 0
    told = capsys.readouterr().out
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    cancers = [row for row in rows if row["label"] == "malignant"]
    missed = sum(row["decision"] == "benign" for row in cancers)
    alarms = sum(row["decision"] == "malignant" for row in rows if row["label"] == "benign")
    for name, count, of_all in (
        ("missed", missed, f"{len(cancers)} cancers"),
        ("alarms", alarms, f"{len(rows) - len(cancers)} benign"),
    ):
        assert count > 0 and (out / f"{name}.png").exists()
        assert f"{out / name}.png: {count} of {of_all}" in told
    assert "as good as a dermatologist? This study does not tell" in told
    with Image.open(out / "evidence.png") as image:
        assert min(image.size) > 300
    scores = json.loads((out / "test.json").read_text())
    assert skin_cancer.main(asked) == 0  # nothing is trained or tested again
    assert "was tested already" in capsys.readouterr().out and json.loads((out / "test.json").read_text()) == scores
    assert skin_cancer.main([*asked, "--epochs", "3", "1"]) == 1
    assert "epochs was 2 and now is 3" in capsys.readouterr().err


def test_where_there_is_no_data(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert skin_cancer.main(["--root", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    assert "HAM10000_metadata.csv is missing" in capsys.readouterr().err
