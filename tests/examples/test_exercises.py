"""The exercises of the course: unsolved they are red and say what to write where, solved they are green; slips are named."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXERCISES, SOLUTIONS = ROOT / "examples" / "exercises", ROOT / "examples" / "solutions"


def judged(folder: pathlib.Path, report: pathlib.Path, *options: str) -> dict[str, dict[str, str]]:
    """What a child process finds: lesson -> test -> the text of its failure, "" where it passed."""
    words = [sys.executable, "-m", "pytest", str(folder), f"--junitxml={report}", *options]
    around = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=around, capture_output=True, text=True)
    assert report.exists(), done.stdout + done.stderr
    found: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        assert case.find("error") is None and case.find("skipped") is None, done.stdout
        failure = case.find("failure")
        text = "" if failure is None else f"{failure.get('message')}\n{failure.text}"
        lesson = re.findall(r"test_(lesson\d\d)", case.get("classname", ""))[0]
        found.setdefault(lesson, {})[case.get("name", "")] = text
    return found


def test_each_has_a_judge_and_a_solution() -> None:
    names = sorted(path.name for path in EXERCISES.glob("lesson*.py"))
    assert names and names == sorted(path.name for path in SOLUTIONS.glob("*.py"))
    assert names == sorted(path.name.removeprefix("test_") for path in EXERCISES.glob("test_*.py"))
    for name in names:
        text = (EXERCISES / name).read_text(encoding="utf-8")
        assert [int(n) for n in re.findall(r"^# Hint (\d):", text, re.MULTILINE)][:2] == [1, 2], name


@pytest.mark.ci
def test_unsolved_they_say_what_to_write_where(tmp_path: pathlib.Path) -> None:
    found = judged(EXERCISES, tmp_path / "report.xml")
    assert set(found) == {path.stem for path in SOLUTIONS.glob("*.py")}
    for lesson, tests in found.items():
        for name, text in tests.items():
            assert re.search(rf"NotImplementedError: write [\w.]+ in examples/exercises/{lesson}\.py: ", text), (name, text)


@pytest.mark.ci
def test_solved_they_are_green(tmp_path: pathlib.Path) -> None:
    found = judged(EXERCISES, tmp_path / "report.xml", "--solutions")
    assert set(found) == {path.stem for path in SOLUTIONS.glob("*.py")}
    assert not {text for tests in found.values() for text in tests.values()} - {""}


SLIPS = {  # lesson: what stands in the solution, what stands there by a slip, and what the judge says
    "lesson01": [
        ("(labels, answers), 1", "(answers, labels), 1", "rows and columns are exchanged"),
        ("np.add.at(matrix, (labels, answers), 1)", "matrix[labels, answers] += 1", "each pair is counted once"),
        ("return matrix", "return matrix / len(labels)", "these are shares"),
        ("return matrix", "pass", "returns nothing"),
    ],
    "lesson02": [
        ("return self.b * gy, self.a * gy", "return self.a * gy, self.b * gy", "it should be b gy"),
        ("return self.b * gy, self.a * gy", "return self.b, self.a", "gy is missing"),
        ("return ((1 - self.y**2) * gy,)", "return (1 - self.y**2) * gy", "it should be a tuple of 1"),
        ("return ((1 - self.y**2) * gy,)", "return ((1 - np.tanh(self.y)**2) * gy,)", "tanh was taken twice"),
    ],
}


@pytest.mark.ci
@pytest.mark.parametrize("k", range(4))
def test_a_slip_is_named(k: int, tmp_path: pathlib.Path) -> None:
    """The k-th slip of every lesson, judged together."""
    folder = tmp_path / "exercises"
    shutil.copytree(EXERCISES, folder, ignore=shutil.ignore_patterns("lesson*.py", "__pycache__"))
    for lesson, slips in SLIPS.items():
        right, wrong, _ = slips[k]
        text = (SOLUTIONS / f"{lesson}.py").read_text(encoding="utf-8")
        assert text.count(right) == 1, (lesson, right)
        (folder / f"{lesson}.py").write_text(text.replace(right, wrong), encoding="utf-8")
    found = judged(folder, tmp_path / "report.xml", "-k", " or ".join(SLIPS))
    for lesson, slips in SLIPS.items():
        texts = "\n".join(found[lesson].values())
        assert slips[k][2] in texts, (lesson, slips[k], texts)


def test_every_lesson_has_four_slips() -> None:
    assert set(SLIPS) == {path.stem for path in SOLUTIONS.glob("*.py")}
    assert {len(slips) for slips in SLIPS.values()} == {4}
