"""The examples of the README run, and print what it says."""

from __future__ import annotations

import io
import pathlib
import pdb
import re
import sys

import numpy as np
import pytest

import models
from minidl import OPS, nn
from minidl.check import adjoint_check, gradient_check
from tests.io.checkpoints.by_hand import entries, number, row, tensor, zipped

README = pathlib.Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
ALONE, RECIPE = TEXT.split("## Add an op\n")
PYTHON = r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?"
BLOCKS = re.findall(PYTHON, ALONE, re.DOTALL) + re.findall(PYTHON, RECIPE, re.DOTALL)[:1]  # the rest of it needs more around


def published(model: nn.Module) -> bytes:
    """The layout of the published CIFAR ResNets: {"state_dict": {"module.conv1.weight": ...}, "best_prec1": 91}"""
    arrays = {f"module.{n}": a for n, a in model.state_dict().items() if "num_batches" not in n}
    tensors = {n: tensor(row(n, a.size), 0, a.shape, [s // 4 for s in a.strides]) for n, a in arrays.items()}
    return zipped(entries(state_dict=entries(**tensors), best_prec1=number(91)), {n: a.tobytes() for n, a in arrays.items()})


def test_it_shows_examples() -> None:
    assert len(BLOCKS) == 5 and sum(bool(output) for _, output in BLOCKS) == 2


@pytest.mark.parametrize(("code", "output"), BLOCKS)
def test_an_example(
    code: str, output: str, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "resnet20.th" in code:
        (tmp_path / "resnet20.th").write_bytes(published(models.resnet20(seed=5)))
    scope: dict[str, object] = {"__name__": "readme"}
    monkeypatch.setattr(sys, "breakpointhook", lambda: None)
    before = set(OPS)
    try:
        exec(compile(code, "README.md", "exec"), scope)
    finally:
        for name in set(OPS) - before:
            del OPS[name]
    assert capsys.readouterr().out == output
    if "resnet20.th" in code:
        source, target = models.resnet20(seed=5).state_dict(), scope["model"].state_dict()  # type: ignore[attr-defined]
        assert np.allclose(target["conv1.weight"], source["conv1.weight"].sum(1, keepdims=True))
        assert np.array_equal(target["layer3.2.bn2.weight"], source["layer3.2.bn2.weight"])
    if "square" in scope:
        for check in gradient_check, adjoint_check:
            check(scope["square"], [np.random.default_rng(0).normal(size=(2, 3))])  # type: ignore[arg-type]


def test_the_session_of_the_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    """pdb reads the commands and answers what stands below each."""
    session = re.findall(r"\(Pdb\) (.*)\n((?:(?!\(Pdb\)|```).*\n)*)", TEXT)
    (code,) = (code for code, _ in BLOCKS if "breakpoint()" in code)
    commands, answers = "\n".join([command for command, _ in session] + ["where", "continue"]), io.StringIO()
    debugger = pdb.Pdb(stdin=io.StringIO(commands + "\n"), stdout=answers, readrc=False)
    monkeypatch.setattr(sys, "breakpointhook", lambda: debugger.set_trace(sys._getframe(1)))
    scope: dict[str, object] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), scope)
    said = answers.getvalue().split("(Pdb) ")[1:]
    for (command, answer), got in zip(session, said, strict=False):
        assert got == answer or (not answer and not command.startswith("p ")), (command, got)
    frames = re.findall(r"\(\d+\)(\w+)\(", said[len(session)])
    assert frames[frames.index("backward") :] == ["backward", "walk", "backward", "conv2d_grad_w"]
    assert scope["w"].grad.shape == (4, 3, 3, 3)  # type: ignore[attr-defined]


def test_its_pictures_and_files_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert 0 < (README.parent / path).stat().st_size < 300_000
    for path in re.findall(r"`((?:minidl|models|examples|tests)/[\w/.]*)`", TEXT):
        assert (README.parent / path).exists(), path


def test_ci_runs_both_commands_word_for_word_and_first() -> None:
    run = (README.parent / ".ci" / "run").read_text(encoding="utf-8")
    first = "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/python examples/train.py"
    second = '.venv/bin/pip install -e ".[test]" && .venv/bin/pytest'
    lines = [line for line in run.splitlines() if ".venv/bin/" in line]
    assert lines[:2] == [first, second] and TEXT.count(f"```\n{first}\n```") == TEXT.count(f"```\n{second}\n```") == 1
