"""README's "Add an op", followed to the letter in a copy of the repository, and what is left out or wrong found there."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RECIPE = (ROOT / "README.md").read_text(encoding="utf-8").split("## Add an op\n")[1].split("\n## ")[0]
CHECKS = "tests/ops/test_gradients.py tests/ops/test_push.py tests/analysis/test_facts.py tests/test_array_module.py".split()

pytestmark = pytest.mark.ci

LOOK = """
import pathlib, sys
import numpy as np
import minidl
from minidl import Tensor, check, explain, flow, nn, ops, trace, view

class Net(nn.Module):
    def __init__(self, square):
        rng = np.random.default_rng(0)
        self.conv, self.head, self.square = nn.Conv2d(2, 3, 3, padding=1, rng=rng), nn.Linear(3, 2, rng=rng), square

    def forward(self, x):
        return self.head(ops.global_avg_pool2d(self.square(ops.relu(self.conv(x)))))

rng, here = np.random.default_rng(1), pathlib.Path(sys.argv[1])
check.gradient_check(ops.square, [rng.normal(size=(2, 3))])
check.adjoint_check(ops.square, [rng.normal(size=(2, 3))])
own, plain = (Net(f).name_parameters().eval().to(dtype="float64") for f in (ops.square, lambda h: h * h))
x = rng.normal(size=(1, 2, 6, 6))
image = Tensor(x, requires_grad=True)
with own.frozen(), ops.unfused():
    score = own(image)[0, 1]
passed = flow.BackwardPass(score)
found = flow.pixel_flow(passed, image, (0, 1, 2, 3))
assert np.allclose(found.sums, found.derivative, rtol=1e-12) and found.derivative != 0
assert type(flow.ledger(passed)[-1].open).__name__ == "Square"  # nobody has said that it is piecewise linear
print(trace(score, pixel="strongest").arithmetic())
print(view.stepper(own, x, path=here / "page.html").read_text(encoding="utf-8"))
table = minidl.cost(own, (2, 6, 6))
print(table)
view.architecture(here / "net.svg", table)
assert "square" in (here / "net.svg").read_text(encoding="utf-8")
guided = [explain.guided_backprop(net, x.copy(), 1).raw for net in (own, plain)]
gradient = explain.saliency(own, x, 1).raw
assert np.allclose(*guided, rtol=1e-12) and not np.allclose(guided[0], gradient)
"""


def follow(folder: pathlib.Path, recipe: str = RECIPE) -> pathlib.Path:
    """A copy of the repository, each block of the recipe at the end of the file that was named last before it."""
    for part in ("minidl", "models", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    before = 0
    for block in re.finditer(r"```python\n(.*?)```", recipe, re.DOTALL):
        named = re.findall(r"`([\w/]+\.py)`", recipe[before : block.start()])
        append(folder / named[-1], block[1])
        before = block.end()
    for path in re.findall(r"Export the function in `(.*?)`", recipe):
        append(folder / path, "from minidl.ops.elementwise import square\n")
    return folder


def append(path: pathlib.Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n\n{text}")


def run(folder: pathlib.Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "MINIDL_KERNELS": "reference"}  # nothing is compiled anew
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


def run_tests(folder: pathlib.Path, which: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "-m", "pytest", "-n", "0", "-x", "-p", "no:cacheprovider", "-m", "not oracle", "-k", which, *CHECKS)


def test_it_needs_nothing_that_the_text_does_not_say(tmp_path: pathlib.Path) -> None:
    folder = follow(tmp_path)
    tests = run_tests(folder, "Square or case or table or room or arrows")
    assert tests.returncode == 0, tests.stdout
    assert " passed" in tests.stdout and int(re.findall(r"(\d+) passed", tests.stdout)[0]) > 20
    look = run(folder, "-c", LOOK, str(tmp_path))
    assert look.returncode == 0, look.stderr
    assert (
        "Square: gx = 2 x gy" in look.stdout and '"push":"ty = 2 x tx"' in look.stdout and '"forward":"y = x^2"' in look.stdout
    )
    assert "return (2 * self.x * gy,)" in look.stdout and "minidl/ops/elementwise.py:" in look.stdout
    row = next(line.split() for line in look.stdout.splitlines() if line.split()[:1] == ["Square"] and "(1,3,6,6)" in line)
    assert row == ["Square", "(1,3,6,6)", "3x3?", "1x1", "0", "?", "864"] and "at least 1,950" in look.stdout


BROKEN = {  # what is changed in the recipe, and the test that finds it, with what it says
    "a wrong push": ("return 2 * self.x * tx", "return 3 * self.x * tx", "push_with_reference", "push and backward of square"),
    "a wrong backward": ("(2 * self.x * gy,)", "(3 * self.x * gy,)", "gradient_with_reference", "the gradient of square"),
    "no case": ("@case(", "@st.composite\n#(", "every_op_has_a_case", "Extra items in the left set:\nE         'Square'"),
    "a case of another op": ("Case(ops.square", "Case(ops.exp", "push_with_reference", "assert 'Exp' == 'Square'"),
    "no export": ("Export the function in", "Say nothing in", "push_with_reference", "has no attribute 'square'"),
    "no formula": ('"""ty = 2 x tx"""', "", "stand_together", "of push and of backward are its formulas"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_or_left_out_turns_a_test_red(what: str, tmp_path: pathlib.Path) -> None:
    old, new, finder, message = BROKEN[what]
    assert RECIPE.count(old) == 1
    tests = run_tests(follow(tmp_path, RECIPE.replace(old, new)), finder if "has_a_case" in finder else f"{finder} and Square")
    assert tests.returncode == 1 and message in tests.stdout, tests.stdout[-3000:]


def test_without_push_it_trains_and_explains_and_the_stepper_says_what_to_write(tmp_path: pathlib.Path) -> None:
    push = re.search(r"    def push.*?\n\n", RECIPE, re.DOTALL)
    assert push is not None
    folder = follow(tmp_path, RECIPE.replace(push[0], ""))
    head, tail = LOOK.split("check.adjoint_check", 1)
    without = head + "\n".join(tail.split("\n")[1:])
    look = run(folder, "-c", without, str(tmp_path))
    assert look.returncode == 1 and "NotImplementedError: write push in class Square: ty = " in look.stderr
    explained = without[: without.index("image = Tensor")] + without[without.index("table = ") :]
    assert run(folder, "-c", explained, str(tmp_path)).returncode == 0
