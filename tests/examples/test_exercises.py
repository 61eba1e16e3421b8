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
        ("return ((1 - self.y**2) * gy,)", "return (1 - self.y**2) * gy", "it should be a tuple of 1"),
        ("return ((1 - self.y**2) * gy,)", "return ((1 - np.tanh(self.y)**2) * gy,)", "tanh was taken twice"),
        ("return gy, gy.sum(axis=0)", "return gy, gy", "so add them up"),
    ],
    "lesson03": [
        ("+= cols[:, u, v]", "= cols[:, u, v]", "write += in place of ="),
        ("+= cols[:, u, v]", "+= cols[:, kh - 1 - u, kw - 1 - v]", "the windows are turned around"),
        ('"fcuv,fij->cuvij", w, gy', '"fcuv,fij->cuvij", w[:, :, ::-1, ::-1], gy', "the kernel was turned around"),
        ('"fcuv,fij->cuvij", w, gy', '"fcuv,fij->cuvij", w, 1 + 0 * gy', "gy is missing"),
    ],
    "lesson04": [
        ("(gy - gy.mean(axis=0) - x_hat * (gy * x_hat).mean(axis=0))", "gy", "only the direct way"),
        (" - x_hat * (gy * x_hat).mean(axis=0)", "", "the way through the variance is missing"),
        ("gamma / std * (", "1 / std * (", "gamma is missing"),
        ("gy - gy.mean(axis=0)", "gy", "the way through the mean is missing"),
    ],
    "lesson05": [
        ("layer.k**2 + 1", "layer.k**2", "the biases are missing"),
        ("layer.k**2 + 1", "layer.k + 1", "k in place of k^2"),
        ("j *= layer.s", "j = 1", "the strides are missing"),
        ("(layer.k - 1) * j\n        j *= layer.s", "(layer.k - 1) * j * layer.s\n        j *= layer.s", "j grew too early"),
    ],
    "lesson06": [
        ("np.concatenate(xs, axis=1)", "np.concatenate(xs[::-1], axis=1)", "in the opposite order"),
        ("tuple(np.split(gy, np.cumsum(self.sizes)[:-1], axis=1))", "(gy,) * len(self.sizes)", "gets all of gy"),
        (
            "tuple(np.split(gy, np.cumsum(self.sizes)[:-1], axis=1))",
            "tuple(gy[:, :n] for n in self.sizes)",
            "the first channels",
        ),
        ("tuple(np.split", "list(np.split", "it should be a tuple of 3"),
    ],
    "lesson07": [
        (
            "y = ops.relu(ops.conv2d(x, row, padding=(0, border)))",
            "y = ops.conv2d(x, row, padding=(0, border))",
            "relu between",
        ),
        ("padding=(0, border)", "padding=(border, 0)", "the answer has the shape"),
        (
            "return ops.relu(ops.conv2d(y, column, padding=(border, 0)))",
            "return ops.conv2d(y, column, padding=(border, 0))",
            "last relu",
        ),
        ("border = row.shape[3] // 2", "border = 0", "without a border the image shrinks"),
    ],
    "lesson08": [
        ("ops.relu(branch + x)", "ops.relu(branch)", "x is not added"),
        ("ops.relu(branch + x)", "branch + x", "the last relu is missing"),
        ("ops.relu(branch + x)", "ops.relu(branch) + x", "stands before the sum"),
        (
            "ops.conv2d(ops.relu(ops.conv2d(x, w1, padding=1)), w2",
            "ops.conv2d(ops.conv2d(x, w1, padding=1), w2",
            "relu between",
        ),
    ],
    "lesson09": [
        ("ops.conv2d(ops.relu(x), w", "ops.conv2d(x, w", "the relu before each convolution is missing"),
        ("ops.concat([x, ops", "ops.concat([ops.relu(x), ops", "relu(x) is handed on"),
        ("[x, ops.conv2d(ops.relu(x), w, padding=1)]", "[ops.conv2d(ops.relu(x), w, padding=1), x]", "they come last"),
        ("ops.conv2d(ops.relu(x), w, padding=1)", "ops.relu(ops.conv2d(x, w, padding=1))", "behind the convolution"),
    ],
    "lesson10": [
        ('"lr": factor * lr}', '"lr": factor}', "it should be factor * lr"),
        ('{"params": body, "lr": factor * lr}, ', "", "the body is in no group"),
        ("return p - lr * v, v", "return p + lr * v, v", "uphill"),
        ("v = momentum * v + g", "v = momentum * v + (1 - momentum) * g", "a running mean"),
    ],
    "lesson11": [
        ("w.sum(axis=1, keepdims=True) / channels", "w.sum(axis=1, keepdims=True)", "so divide by N"),
        ("w.sum(axis=1, keepdims=True)", "w.mean(axis=1, keepdims=True)", "the mean over the old channels"),
        ("w.sum(axis=1, keepdims=True)", "w[:, :1]", "the old first channel alone"),
        (
            "np.repeat(w.sum(axis=1, keepdims=True) / channels, channels, axis=1)",
            "w.sum(axis=1, keepdims=True) / channels",
            "repeat it",
        ),
    ],
    "lesson12": [
        ("[:, -k:]", "[:, :k]", "the k smallest were taken"),
        (".mean(axis=1), gx", ".sum(axis=1), gx", "the sum of the largest"),
        ("gy[:, None] / k", "gy[:, None]", "a mean shares its gradient out"),
        ("gy[:, None] / k", "1 / k", "gy is missing"),
    ],
    "lesson13": [
        ("p[c] * (np.eye(len(p))[c] - p)", "np.eye(len(p))[c] - p", "p_c is missing before the bracket"),
        ("(np.eye(len(p))[c] - p)", "(p - np.eye(len(p))[c])", "the sign is turned around"),
        ("(np.eye(len(p))[c] - p)", "-p", "the own score is missing"),
        ("np.exp(scores - scores.max())", "np.exp(scores)", "NaN or infinity"),
    ],
    "lesson14": [
        ("return found if x[c, i, j] > 0 else 0.0", "return found", "the gate of the relu is missing"),
        ("a, b = i + 1 - u, j + 1 - v", "a, b = i - 1 + u, j - 1 + v", "the kernel is turned around"),
        ("w[f, c, u, v] * gy[f, a, b]", "w[f, c, u, v]", "gy is missing"),
        ("if 0 <= a < gy.shape[1] and 0 <= b < gy.shape[2]:", "if a < gy.shape[1] and b < gy.shape[2]:", "-1 is the last row"),
    ],
    "lesson15": [
        ("np.abs(gradients(ops.sum(picked), [leaf])[0])", "gradients(ops.sum(picked), [leaf])[0]", "the size is missing"),
        (".max(1)", ".sum(1)", "the sum over the channels"),
        ("ops.sum(picked)", "ops.sum(scores)", "all classes' scores together"),
        ("scores.data.argmax(1)", "scores.data.argmin(1)", "the smallest score was taken"),
    ],
    "lesson16": [
        ("(dy**2).sum() + (dx**2).sum()", "(dy**2).sum()", "only the differences down: those across"),
        ("g[1:] += 2 * dy\n    g[:-1] -= 2 * dy", "g[1:] -= 2 * dy\n    g[:-1] += 2 * dy", "furthest off"),
        (
            "    g[:-1] -= 2 * dy\n    g[:, 1:] += 2 * dx\n    g[:, :-1] -= 2 * dx\n",
            "    g[:, 1:] += 2 * dx\n",
            "only the second cell",
        ),
        ("dx**2).sum()), g", "dx**2).sum()), g / 2", "the 2 of the square is missing"),
    ],
    "lesson17": [
        ("np.clip(x + step_size", "np.clip(x - step_size", "down the gradient"),
        (" / np.linalg.norm(g.ravel())", "", "divide by |g|"),
        (
            "np.clip(x + step_size * g / np.linalg.norm(g.ravel()), 0, 1)",
            "x + step_size * g / np.linalg.norm(g.ravel())",
            "clip it",
        ),
        ("g / np.linalg.norm(g.ravel())", "np.sign(g)", "the step of lesson 18"),
    ],
    "lesson18": [
        ("np.clip(x + eps", "np.clip(x - eps", "down the loss"),
        ("np.sign(gradients(loss, [leaf])[0])", "gradients(loss, [leaf])[0]", "the sign is missing"),
        (
            "np.clip(x + eps * np.sign(gradients(loss, [leaf])[0]), 0, 1)",
            "x + eps * np.sign(gradients(loss, [leaf])[0])",
            "clip them",
        ),
        ("eps * np.sign", "np.sign", "eps is missing"),
    ],
    "lesson19": [
        ("hits.mean()", "hits.sum()", "divide by the number of images"),
        ("maps.max(axis=(1, 2), keepdims=True)", "maps.max()", "divided by 0"),
        ("maps.max(axis=(1, 2), keepdims=True)", "maps.min(axis=(1, 2), keepdims=True)", "the lowest pixel was taken"),
        ("float(masks.mean())", "1 / masks[0].size", "not one pixel"),
    ],
    "lesson20": [
        ("[:, -k:]", "[:, :k]", "the k lowest scores were taken"),
        ("return 1 - float", "return float", "the share of right answers"),
        ("[:, -k:]", "[:, -1:]", "k is not used"),
        (".any(axis=1).mean())", ".any(axis=1).sum())", "it should be"),
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
