"""What the READMEs say is so: their Python runs and prints what they show, their commands run or are read to the end, their
links lead somewhere."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import pathlib
import pdb
import re
import shlex
import subprocess
import sys
import tomllib
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import minidl
import models
from minidl import OPS, nn
from minidl.check import adjoint_check, gradient_check
from tests.io.checkpoints.by_hand import entries, number, row, tensor, zipped
from tests.test_structure import ARROWS

ROOT = pathlib.Path(__file__).parents[1]
PATHS = [
    ROOT / "README.md",
    *(path for room in ("examples", "minidl", "models") for path in sorted((ROOT / room).rglob("README.md"))),
]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PATHS}
TEXT = TEXTS["README.md"]
EXAMPLES = ROOT / "examples"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


class Block(NamedTuple):
    """What stands between two fences, and the block without a language that follows at once."""

    readme: str
    language: str
    text: str
    output: str


def blocks(language: str) -> list[Block]:
    pattern = r"^```(\w*)\n(.*?)^```$(?:\n\n```\n(.*?)^```$)?"
    found = [
        Block(name, *m.groups("")) for name, text in TEXTS.items() for m in re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    ]
    return [block for block in found if block.language == language]


def names(values: list[Any]) -> list[str]:
    return [f"{k}-{value.readme}" for k, value in enumerate(values)]


# ---- Python

RECIPE = TEXTS["minidl/kernels/README.md"].split("## Add a kernel\n")[1].split("\n## ")[0]
# test_recipe.py follows what is to be written into files
PYTHON = [block for block in blocks("python") if not block.text.startswith("@case(") and block.text not in RECIPE]


def published(model: nn.Module, prefix: str = "", **beside: Any) -> bytes:
    """A file as PyTorch writes it: {"conv1.weight": ...}, or with `beside` {"state_dict": {...}, "best_prec1": 91}."""
    arrays = {f"{prefix}{n}": a for n, a in model.state_dict().items() if "num_batches" not in n}
    tensors = entries(**{n: tensor(row(n, a.size), 0, a.shape, [s // 4 for s in a.strides]) for n, a in arrays.items()})
    whole = entries(state_dict=tensors, **beside) if beside else tensors
    return zipped(whole, {n: a.tobytes() for n, a in arrays.items()})


def test_they_show_examples() -> None:
    assert [block.readme for block in PYTHON] == ["README.md"] * 3 + ["examples/README.md"] + ["minidl/README.md"] * 4 + [
        "models/README.md"
    ] * 3
    assert sum(bool(block.output) for block in PYTHON) == 6


@pytest.mark.parametrize("block", PYTHON, ids=names(PYTHON))
def test_an_example(
    block: Block, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "resnet20.th" in block.text:
        (tmp_path / "resnet20.th").write_bytes(published(models.resnet20(seed=5), "module.", best_prec1=number(91)))
    scope: dict[str, Any] = {"__name__": "readme"}
    if block.text.startswith("class Square(Op)"):  # the text says that it stands in that file
        scope |= vars(importlib.import_module("minidl.ops.elementwise"))
    monkeypatch.setattr(sys, "breakpointhook", lambda: None)
    before = set(OPS)
    try:
        exec(compile(block.text, block.readme, "exec"), scope)
    finally:
        for name in set(OPS) - before:
            del OPS[name]
    assert capsys.readouterr().out == block.output
    if "resnet20.th" in block.text:
        source, target = models.resnet20(seed=5).state_dict(), scope["model"].state_dict()
        assert np.allclose(target["conv1.weight"], source["conv1.weight"].sum(1, keepdims=True))
        assert np.array_equal(target["layer3.2.bn2.weight"], source["layer3.2.bn2.weight"])
    if "architecture(" in block.text:
        assert "layer4" in (tmp_path / "resnet34.svg").read_text(encoding="utf-8")
    if "square" in scope:
        for check in gradient_check, adjoint_check:
            check(scope["square"], [np.random.default_rng(0).normal(size=(2, 3))])


def test_the_session_of_the_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    """pdb reads the commands and answers what stands below each."""
    session = re.findall(r"\(Pdb\) (.*)\n((?:(?!\(Pdb\)|```).*\n)*)", TEXTS["minidl/README.md"])
    (code,) = (block.text for block in PYTHON if "breakpoint()" in block.text)
    commands, answers = "\n".join([command for command, _ in session] + ["where", "continue"]), io.StringIO()
    debugger = pdb.Pdb(stdin=io.StringIO(commands + "\n"), stdout=answers, readrc=False)
    monkeypatch.setattr(sys, "breakpointhook", lambda: debugger.set_trace(sys._getframe(1)))
    scope: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), scope)
    said = answers.getvalue().split("(Pdb) ")[1:]
    for (command, answer), got in zip(session, said, strict=False):
        assert got == answer or (not answer and not command.startswith("p ")), (command, got)
    stepped = said[[command for command, _ in session].index("step")]
    assert "--Call--" in stepped and "core.py" in stepped and "def backward(self, gy" in stepped
    frames = re.findall(r"\(\d+\)(\w+)\(", said[len(session)])
    assert frames[frames.index("backward") :] == ["backward", "walk", "backward", "conv2d_grad_w"]
    assert scope["w"].grad.shape == (4, 3, 3, 3)


# ---- commands


def commands(readme: str) -> list[str]:
    """Every command in a README, in blocks and inline, in order, without comments."""
    pattern = r"^```sh\n(.*?)^```$|(?<!`)`((?:python|\.venv/bin/)[^`\n]* [^`\n]*)`(?!`)"
    found = re.findall(pattern, TEXTS[readme], re.DOTALL | re.MULTILINE)
    lines = [line for shown, inline in found for line in (shown or inline).splitlines()]
    return [shlex.join(part) for line in lines for part in parts(shlex.split(line, comments=True))]


def parts(words: list[str]) -> list[list[str]]:
    """The commands of a line, split at &&."""
    ends = [k for k, word in enumerate(words) if word == "&&"]
    return [words[a:b] for a, b in zip([0, *(k + 1 for k in ends)], [*ends, len(words)], strict=True)]


FEW = "--limit 32 --epochs 1 --batch-size 16"
TINY = "--model resnet8 --rounds 1 --seconds 0.01"
FEW_IMAGES = (
    "python examples/train.py --data folder --root my_images --model resnet18 --weights resnet18.pth --size 64 "
    "--freeze conv1 bn1 layer1 --body-lr 0.1 --validation 0.15 --balance sample --select auc --patience 5 --optimizer adamw"
)
DECIDES = (
    "python examples/train.py --data folder --root my_images --size 32 --validation 0.3 --target bee --sensitivity 0.95 "
    "--out runs/bees"
)
SMALL = {  # what is run, with these settings in place of its own
    ".venv/bin/python examples/train.py": FEW,
    "python examples/train.py": FEW,
    "python examples/train.py --resume": FEW,
    "python examples/train.py --data folder --root my_images --size 32": "--epochs 1 --batch-size 4",
    FEW_IMAGES: "--model resnet8 --size 32 --epochs 2 --batch-size 4 --validation 0.5 --out runs/few",
    DECIDES: "--epochs 1 --batch-size 4 --sensitivity 0.5",
    "python examples/predict.py --run runs/bees my_images --csv bees.csv": "",
    "python examples/report.py --run runs/bees my_images/bee/0.png my_images/ant/0.png": "--samples 20",
    "python examples/report.py --run runs/lesions-resnet8 mole.jpg --target malignant": "--samples 20",
    "python examples/lessons/01_classification.py": "--quick",
    "python examples/lessons/01_classification.py --quick": "",
    "python examples/train.py --data folder --root my_images --groups '/([0-9]+)' --rotate 15 --zoom 0.1 --colour 0.2 0.2 "
    "--flip both --test-flips": "--epochs 1 --batch-size 4 --out runs/mine",
    "python examples/windows.py": "--limit 64 --epochs 1",
    "python examples/step.py": "--no-open --pixels 9",
    "python examples/step.py --no-open --text": "--pixels 0",
    "python examples/saliency.py": "--count 2 --masks 20",
    "python examples/saliency.py --run runs/folder-resnet8 --image mole.jpg": "--masks 20",
    "python examples/saliency.py --image mole.jpg --target malignant": "--masks 20",
    "python examples/saliency.py --image cat.jpg --model resnet50 --weights resnet50.pth": "--model resnet8 --size 32",
    "python examples/perturbation.py": "--count 1 --iterations 5",
    "python examples/perturbation.py --study 50": "--study 1 --iterations 5",
    "python examples/fooling.py": "--count 4",
    "python examples/robust.py": "--count 4 --eps 2 --steps 2 --candidates 1 --squares 2",
    "python examples/linearity.py": "--images 200 --epochs 1 --count 2",
    "python examples/architectures.py": "--nets googlenet",
    "python examples/factorisation.py": "--batch 1 --rounds 1 --pixels 9",
    "python examples/residual_or_plain.py": "--depths 20 --images 16 --epochs 1 --batch-size 8",
    "python examples/big_images.py": "--quick",
    "python -m tests.benchmarks.step": f"{TINY} --batch 2 --peers reference",
    "python -m tests.benchmarks.epoch": "--model resnet8 --images 64 --batch 16 --block 2",
    "python -m tests.benchmarks.big_images": "--train 16 --saliency 16",
    "python -m tests.benchmarks.ops": "--only relu --rounds 1 --seconds 0.01",
    "python -m tests.benchmarks.shares": "--model resnet8 --batch 4 --steps 1",
    "python -m tests.benchmarks.published": "--models inception_v3 --batch 2 --steps 1",
    "python -m tests.benchmarks.saliency": f"{TINY} --images 4",
    "python -m tests.benchmarks.saliency_224": "--models resnet18 --rounds 1 --seconds 0.01",
    "python -m tests.kernels.guarded --seconds 60": "--draws 1 --families loss",
    "python -m tests.train.stopped --interrupts 200 --kills 25 --pairs 20": "--interrupts 1 --kills 0 --pairs 0",
    "python -m tests.inference.askers --calls 100 --interrupts 200": "--calls 1 --interrupts 1",
    "python -m tests.io.checkpoints.fuzz --files 20000": "--files 20",
}
PARSED = {  # what its script's own parser reads to the end, and why it is not run
    "python examples/train.py --data cifar10 --model resnet20": "fetches CIFAR-10",
    "python examples/train.py --data csv --root scans.csv --window=-160,240 --lazy --validation 0.15": "wants scans",
    "python examples/train.py --data ham10000 --root FOLDER --size 72x96 --validation 0.15 --select auc --balance sample": (
        "wants HAM10000, which is fetched by hand"
    ),
    "python examples/train.py --data medmnist --root pneumoniamnist.npz --select auc": "wants MedMNIST, fetched by hand",
    "python examples/fooling.py --data cifar10 --run runs/cifar10-resnet20": "wants the net that takes an hour",
    "python examples/robust.py --data cifar10 --model resnet20 --weights resnet20.th --key state_dict --prefix module.": (
        "wants CIFAR-10 and published weights"
    ),
    "python examples/residual_or_plain.py --data cifar10": "fetches CIFAR-10",
    "python examples/dense_or_residual.py --data cifar10": "fetches CIFAR-10",
    "python examples/dense_or_residual.py": "a minute at the smallest",
    "python examples/ground_truth.py": "a net that has learnt too little shows nothing",
    "python examples/evidence.py": "a net that has learnt too little answers nothing rightly",
    "python examples/evidence.py --data ham10000 --root FOLDER": "wants HAM10000, which is fetched by hand",
    "python examples/ground_truth.py --full": "takes hours",
    "python examples/ground_truth.py --data ham10000 --root FOLDER": "wants HAM10000, which is fetched by hand",
    "python -m examples.lessons.book": "wants jupytext; tests/examples/test_lessons.py builds a part of it",
    "python -m examples.lessons.clock": "takes minutes; tests/examples/test_lessons.py times shorter ones",
    "python examples/big_images.py --size 1024": "takes minutes",
    "python examples/skin_cancer.py --root HAM10000 --weights resnet20-12fca82f.th --key state_dict --prefix module.": (
        "wants HAM10000 and published weights, which are fetched by hand"
    ),
    "python examples/transfer.py --root HAM10000 --weights resnet20-12fca82f.th --key state_dict --prefix module.": (
        "wants HAM10000 and published weights, which are fetched by hand"
    ),
    "python -m tests.benchmarks.parallel": "wants MPI",
    "python -m tests.parallel.equality --cifar10 data": "wants CIFAR-10 and MPI; tests/parallel/test_mpi.py asks smaller nets",
    "python examples/train.py --device gpu": "wants a GPU",
    "python examples/train.py --device gpu --precision float16": "wants a GPU",
    "python examples/fast_cifar.py --device gpu --cuda-graph": "wants a GPU",
    "python examples/ground_truth.py --full --device gpu": "wants a GPU",
    "python -m tests.benchmarks.gpu --root FOLDER_OF_CIFAR10": "wants a GPU",
    "python -m tests.benchmarks.gpu --root FOLDER_OF_CIFAR10 --quick": "wants a GPU",
    "python -m tests.benchmarks.gpu --rehearse": "takes minutes; tests/benchmarks/test_gpu.py runs its parts",
    "python -m tests.benchmarks.cifar_peer --root data --epochs 5 --seeds 8": "wants CIFAR-10 and PyTorch",
    "python -m tests.benchmarks.robust_peer --root data --weights resnet20.th --key state_dict --prefix module.": (
        "wants CIFAR-10 and PyTorch"
    ),
}
BY_OTHERS = {  # what another test or .ci/run runs, and where
    "mpiexec -n 4 python examples/train.py --data cifar10 --model resnet20": ("tests/parallel/test_mpi.py", "run(2, *SHORT"),
    "mpiexec -n 4 python examples/ground_truth.py --full": ("tests/parallel/test_mpi.py", '"ground_truth.py"), *asked'),
    "python -m tests.parallel.stopped --ranks 2 --kills 20": ("tests/parallel/test_mpi.py", "kill_and_resume(tmp_path"),
    "python -m tests.figures": ("tests/kernels/test_readable.py", "figures.main()"),
    ".venv/bin/pytest": (".ci/run", ".venv/bin/pytest\n"),
    ".venv/bin/ruff check .": (".ci/run", ".venv/bin/ruff check .\n"),
    ".venv/bin/ruff format .": (".ci/run", ".venv/bin/ruff format --check .\n"),
    ".venv/bin/mypy": (".ci/run", ".venv/bin/mypy\n"),
    ".ci/run": (".ci/run", "#!/usr/bin/env bash\n"),
    "python3 -m venv .venv": (".ci/run", "python3 -m venv .venv &&"),
    ".venv/bin/pip install -e .": (".ci/run", ".venv/bin/pip install -e . &&"),
}
OF_PYTEST = r"\.venv/bin/pytest .+|python -m pytest .+"
OF_PIP = r"\.venv/bin/pip install -e '\.\[(\w+)\]'"  # fetches packages: their names are looked up
ALL = list(dict.fromkeys(command for readme in TEXTS for command in commands(readme)))


def test_every_command_has_its_test() -> None:
    named = {*SMALL, *PARSED, *BY_OTHERS}
    assert len(named) == len(SMALL) + len(PARSED) + len(BY_OTHERS)
    rest = {command for command in ALL if not re.fullmatch(rf"{OF_PYTEST}|{OF_PIP}", command)}
    assert rest == named


def test_what_others_run() -> None:
    for path, text in BY_OTHERS.values():
        assert text in (ROOT / path).read_text(encoding="utf-8"), text
    for command in ALL:
        if extra := re.fullmatch(OF_PIP, command):
            assert extra[1] in PROJECT["project"]["optional-dependencies"]
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


class Parsed(Exception):  # noqa: N818 - it is no error
    """The parser of a script has read everything."""


def parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends with Parsed; a script whose parser refuses the command raises SystemExit."""
    words = shlex.split(command)[1:]
    name, arguments = (words[1], words[2:]) if words[0] == "-m" else (pathlib.Path(words[0]).stem, words[1:])
    read = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *given: Any) -> None:
        read(parser, *given)
        raise Parsed

    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    importlib.import_module(name).main()


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=[pytest.mark.oracle] if "PyTorch" in why else []) for c, why in PARSED.items()]
)
def test_a_command_is_read_to_the_end(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Parsed):
        parse(command, monkeypatch)


def test_a_command_that_its_script_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        parse("python examples/train.py --device tpu", monkeypatch)


def run(words: list[str], folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    around = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "MINIDL_LESSONS": str(folder)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=around, capture_output=True, text=True)


@pytest.mark.ci
@pytest.mark.parametrize("readme", TEXTS)
def test_commands_one_after_the_other(readme: str, tmp_path: pathlib.Path) -> None:
    """As a reader types them, in one folder: what one has written, the next may need."""
    rng = np.random.default_rng(0)
    for name in "cat.jpg", "mole.jpg", *(f"my_images/{kind}/{k}.png" for kind in ("ant", "bee") for k in range(8)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
    for name in "resnet50.pth", "resnet18.pth":
        (tmp_path / name).write_bytes(published(models.resnet8(seed=5)))
    for command in dict.fromkeys(command for command in commands(readme) if command in SMALL):
        words = [*shlex.split(command)[1:], *shlex.split(SMALL[command])]
        if words[0].startswith("examples/"):
            words[0] = str(ROOT / words[0])
        done = run(words, tmp_path)
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
        if command == "python examples/train.py":
            (log,) = (block.text for block in blocks("") if "epoch 8/8" in block.text)
            assert {shape(line) for line in log.splitlines()[1:9]} <= {shape(line) for line in done.stdout.splitlines()}


def shape(line: str) -> str:
    """A line with # for every number."""
    return re.sub(r"\d[\d,.]*", "#", line)


@pytest.mark.ci
@pytest.mark.parametrize("command", [command for command in ALL if re.fullmatch(OF_PYTEST, command)])
def test_a_command_of_pytest(command: str) -> None:
    """The tests are collected, not run."""
    words = shlex.split(command.replace(".venv/bin/pytest", "python -m pytest"))[1:]
    done = run([*words, "--collect-only", *([] if "tests/" in command else ["tests/test_recipe.py"])], ROOT)
    assert done.returncode in (0, 5), done.stdout  # 5: no such tests there
    for mark in re.findall(r"-m (?!pytest)(\w+)", command):
        assert any(line.startswith(f"{mark}:") for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"])


def test_ci_runs_both_commands_word_for_word_and_first() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    first = "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/python examples/train.py"
    second = '.venv/bin/pip install -e ".[test]" && .venv/bin/pytest'
    lines = [line for line in script.splitlines() if ".venv/bin/" in line]
    assert lines[:2] == [first, second] and TEXT.count(f"```sh\n{first}\n```") == TEXT.count(f"```sh\n{second}\n```") == 1


# ---- text


def test_one_page() -> None:
    assert len(TEXT.splitlines()) <= 150


def headings(text: str) -> set[str]:
    """Where a link may lead to in a text: its headings, as GitHub spells them."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)}


@pytest.mark.parametrize("readme", TEXTS)
def test_links_and_images(readme: str) -> None:
    folder = (ROOT / readme).parent
    for mark, target in re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", TEXTS[readme]):
        path, _, heading = target.partition("#")
        if path.startswith("https:"):
            continue
        there = folder / path if path else ROOT / readme
        assert there.exists(), target
        assert not heading or heading in headings(there.read_text(encoding="utf-8")), target
        assert not mark or 0 < there.stat().st_size < 300_000, target


@pytest.mark.parametrize("readme", TEXTS)
def test_files_that_are_named(readme: str) -> None:
    folder = (ROOT / readme).parent
    for name in re.findall(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)`", TEXTS[readme]):
        near = (folder, ROOT, EXAMPLES, folder / "compiled")
        assert name.split("/")[0] in ("runs", "data") or any((place / name).exists() for place in near), name


def resolve(name: str) -> object:
    """The object of a dotted name. Raises AttributeError where there is none."""
    found: Any = minidl
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("readme", TEXTS)
def test_names_that_are_said(readme: str) -> None:
    for name in re.findall(r"`(minidl(?:\.\w+)+)", TEXTS[readme]):
        resolve(name)


def table(heading: str) -> list[list[str]]:
    """The rows of the table below a heading of minidl/README.md, without the first two."""
    section = TEXTS["minidl/README.md"].split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]


def test_rooms_stand_below_what_they_import() -> None:
    rows = {name: k for k, (rooms, _) in enumerate(table("Rooms")) for name in re.findall(r"`(\w+)(?:\.py|/)`", rooms)}
    assert set(rows) == set(ARROWS) - {"models"}
    for room, k in rows.items():
        assert all(rows[other] <= k for other in ARROWS[room].split()), room


def test_the_glossary_says_where() -> None:
    glossary = table("Glossary")
    assert len(glossary) > 15 and all(re.search(r"`minidl\.", where) for _, _, where in glossary)
