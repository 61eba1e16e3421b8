"""Every public docstring names its arrays and their shapes, all that it raises, and the paper that a method comes from.

What a function raises is read from its code: `raise`, the checks of `minidl.arguments`, and whatever is raised in an op that it
calls, or in a function or class that is not public itself. A docstring may leave a matter to another one, "what is raised is
as of `conv2d`", if that speaks of it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import minidl
import models
from minidl import (
    analysis,
    arguments,
    attack,
    check,
    data,
    evaluate,
    explain,
    flow,
    inference,
    kernels,
    metrics,
    nn,
    ops,
    optim,
    parallel,
    train,
    view,
    weights,
)
from minidl.core import Op
from minidl.evaluate import baselines
from minidl.inference.memory import BatchMemoryError
from minidl.nn import init

ROOT = str(Path(minidl.__file__).parents[1])
ROOMS = (
    *(minidl, ops, nn, init, optim, data, metrics, explain, attack, evaluate, baselines),
    *(analysis, flow, inference, parallel, train, view, check, weights, kernels, models),
)

# ---- what counts as said

SHAPE = re.compile(  # (N,C,H,W), (F,), "any shape"
    r"\((?=[^()]*\b[A-Z]\b)[\w\s.…+*/\-,]*,[\w\s.…+*/\-,]*\)|\b(?:any|the|same|its|whatever|their|one) shapes?\b"
    r"|\bshapes (?:broadcast|are)\b|\bscalar\b",
    re.IGNORECASE,
)
RAISES = re.compile(r"\b[Rr]aise[sd]?\b")
ERROR = re.compile(r"\b[A-Z]\w*Error\b")
SOURCE = re.compile(r'[A-Z]\w+[^"`]*\b(?:18|19|20)\d\d, "\w')  # Kingma and Ba 2015, "Adam"
TOLD_BY = re.compile(r"\b(?:(?:as|those|that)(?:\s+(?:in|of|for))?|in)\s+`([\w.]+)`")  # another docstring says it
SENTENCES = re.compile(r"(?<=[.;])\s+|\n\s*\n")

# ---- what must be said, and by whom

FROM_PAPERS = ("attack", "evaluate", "evaluate.baselines", "explain", "metrics", "models", "nn.init", "optim")  # whole rooms
METHODS = {  # and these of other rooms
    "minidl": "LossScale mixed",
    "data": "ColorJitter Cutout RandomCrop RandomFlip RandomRotation RandomZoom cifar10 cifar100 ham10000 medmnist",
    "nn": "BatchNorm2d Dropout GELU GlobalAvgPool2d LeakyReLU ReLU conv_norm dense_block",
    "ops": "batch_norm batch_norm_frozen batch_norm_frozen_relu batch_norm_relu dropout gelu global_avg_pool2d leaky_relu relu "
    "smooth_max_convolution",
}
OF_NO_PAPER = {
    "what a method returns": "attack.AttackResult attack.Linearity attack.RobustAccuracy evaluate.Curve evaluate.MaskScore "
    "evaluate.Randomization explain.Explanation metrics.Interval metrics.OperatingPoint metrics.PrecisionRecallCurve "
    "metrics.ROCCurve metrics.Reliability",
    "no method, but a tool": "explain.Head explain.delete explain.keep nn.init.generator optim.Optimizer optim.decay_groups",
    "nobody's": "metrics.accuracy metrics.confusion_matrix metrics.majority_accuracy metrics.recall_per_class optim.constant "
    "optim.step_decay",
    "our own": "evaluate.baselines.random evaluate.baselines.centre evaluate.baselines.intensity",
    "of a course, which its docstring names": "attack.fool",
}
IMPOSSIBLE = {  # errors that the code names and that never come out
    ("ops.flatten", "ValueError"): "the sizes that it asks for always multiply to those of x",
    ("train.fit", "TypeError"): "what a checkpoint's check raises becomes a ValueError of the checkpoint",
    ("parallel.begun", "RuntimeError"): "it asks `world` for what that has answered before",
    ("parallel.begun", "ValueError"): "likewise",
}
GROUND = ("minidl.array", "minidl.kernels", "minidl.contexts")  # what they raise, their callers have made impossible
EVERYBODY = {"AttributeError", "NotImplementedError"}  # a name that is not there, and a subclass that is not finished

CHECKS = {  # of minidl.arguments, and what they raise
    **dict.fromkeys(("count", "counts", "maps", "masks", "number", "numbers", "pair", "pairs"), ("TypeError", "ValueError")),
    **dict.fromkeys(("channels_first", "images", "one_of"), ("ValueError",)),
    **dict.fromkeys(("flag", "function", "generator", "mapping"), ("TypeError",)),
}


@dataclass(frozen=True)
class Public:
    """A function, a class, or a method of the class `owner`"""

    name: str
    thing: Any
    owner: type | None = None

    @property
    def doc(self) -> str:
        """Its docstring, and for a net also that of the family's file, which gives the paper and what all of them raise"""
        own = inspect.getdoc(self.thing) or ""
        return f"{own}\n{inspect.getmodule(self.thing).__doc__}" if own and self.name.startswith("models.") else own


def _functions(cls: type) -> Iterator[tuple[str, FunctionType]]:
    for name, value in vars(cls).items():
        f = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if isinstance(f, FunctionType):
            yield name, f


@cache
def public() -> dict[str, Public]:
    """By their names, as `ops.conv2d` and `nn.Module.to`; what several rooms offer, once. `forward` is told of by its class."""
    found: dict[int, Public] = {}
    for room in ROOMS:
        here = [name for name, value in vars(room).items() if getattr(value, "__module__", "") == room.__name__]
        short = room.__name__.removeprefix("minidl.")
        for name in getattr(room, "__all__", [name for name in here if not name.startswith("_")]):
            thing = getattr(room, name)
            if not isinstance(thing, type | FunctionType) or id(thing) in found:
                continue
            found[id(thing)] = Public(f"{short}.{name}", thing)
            for method, f in _functions(thing) if isinstance(thing, type) else ():
                if not method.startswith("_") and (method != "forward" or thing in (nn.Module, Op)):
                    found[id(f)] = Public(f"{short}.{name}.{method}", f, thing)
    return {p.name: p for p in found.values()}


@cache
def _exported() -> set[int]:
    return {id(inspect.unwrap(p.thing)) for p in public().values()}


# ---- what a function takes and raises


@cache
def _defined(path: str) -> dict[int, ast.FunctionDef]:
    """The functions of a file by their first line"""
    nodes = [node for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]
    return {min([n.lineno, *(d.lineno for d in n.decorator_list)]): n for n in nodes}


def _node(f: FunctionType) -> ast.FunctionDef | None:
    """None of one that a dataclass made"""
    path = f.__code__.co_filename
    return _defined(path).get(f.__code__.co_firstlineno) if path.startswith(ROOT) else None


def _own(cls: type, *names: str) -> list[FunctionType]:
    return [f for name, f in _functions(cls) if name in names]


def _bodies(p: Public) -> list[FunctionType]:
    """Whose arguments and errors the docstring tells of: of a class, what makes it and what calls it"""
    if isinstance(p.thing, type):
        return _own(p.thing, "__init__", "__post_init__", "__call__", "forward")
    return [inspect.unwrap(p.thing)]


def arrays(p: Public) -> list[str]:
    """The arguments that are arrays or tensors; "return" is one of them"""
    notes = {name: note for f in _bodies(p) for name, note in f.__annotations__.items()}
    notes |= vars(p.thing).get("__annotations__", {}) if is_dataclass(p.thing) else {}
    return [name for name, note in notes.items() if re.search(r"\b(?:Array|Tensor)\b", str(note)) and not name.startswith("_")]


@cache
def raised(p: Public) -> frozenset[str]:
    """The names of the errors that it raises"""
    found, seen = set[str](), set[FunctionType]()
    todo = [(f, p.thing if isinstance(p.thing, type) else p.owner) for f in _bodies(p)]
    while todo:
        f, owner = todo.pop()
        node = _node(f)
        if node is None or f in seen or f.__module__.startswith(GROUND):
            continue
        seen.add(f)
        for part in ast.walk(node):
            if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call):
                found.add(ast.unparse(part.exc.func).split(".")[-1])
            elif isinstance(part, ast.Call):
                called = inspect.unwrap(_called(part.func, f, owner))
                if called is arguments.wrong:
                    found.add(ast.unparse(part.args[0]))
                elif id(called) in _exported():
                    continue
                elif isinstance(called, FunctionType) and called.__module__ == arguments.__name__:
                    found |= {*CHECKS[called.__name__]}
                elif isinstance(called, FunctionType) and called.__module__.split(".")[0] in ("minidl", "models"):
                    todo.append((called, owner))
                elif isinstance(called, type):
                    todo += [(g, called) for g in _own(called, "__init__", *["forward"] * issubclass(called, Op))]
    return frozenset(error for error in found - EVERYBODY if (p.name, error) not in IMPOSSIBLE)


def _called(expression: ast.expr, f: FunctionType, owner: type | None) -> Any:
    """What a call calls, where a name tells that"""
    if isinstance(expression, ast.Call):  # ReLU()(x)
        return _called(expression.func, f, owner)
    if isinstance(expression, ast.Name):
        return f.__globals__.get(expression.id)
    if isinstance(expression, ast.Attribute):
        if isinstance(expression.value, ast.Name) and expression.value.id == "self" and owner is not None:
            return getattr(owner, expression.attr, None)
        module = _called(expression.value, f, owner)
        return getattr(module, expression.attr, None) if isinstance(module, ModuleType) else None
    return None


def needs_a_source(p: Public) -> bool:
    room, name = p.name.rsplit(".", 1)
    if p.owner is not None or p.name in " ".join(OF_NO_PAPER.values()).split():
        return False
    return room in FROM_PAPERS or name in METHODS.get(room, "").split()


# ---- what its docstring says


def _says(doc: str, here: Callable[[str], object], matter: str, seen: tuple[str, ...] = ()) -> bool:
    """Whether a docstring says it, or leaves it to one that does, in a sentence with the word for the matter"""
    if here(doc):
        return True
    sentences = [sentence for sentence in SENTENCES.split(doc) if re.search(matter, sentence, re.IGNORECASE)]
    names = [name for sentence in sentences for name in TOLD_BY.findall(sentence)]
    named = [q for q in public().values() if q.owner is None and any(f".{q.name}".endswith(f".{name}") for name in names)]
    return any(_says(q.doc, here, matter, (*seen, q.name)) for q in named if q.name not in seen)


def _names_a_shape(doc: str) -> bool:
    """What "raises ValueError where the shapes do not fit" does not"""
    before, _, _ = doc.partition("Raises:\n")
    return any(SHAPE.search(sentence) for sentence in SENTENCES.split(before) if not RAISES.search(sentence))


def _names_error(error: str, doc: str) -> bool:
    """The error, or one that it is a kind of"""
    ours = {e.__name__: e for e in (BatchMemoryError, data.UnreadableError)}
    kinds = ours.get(error) or getattr(builtins, error, None) or getattr(check, error)
    return any(kind.__name__ in ERROR.findall(doc) for kind in kinds.__mro__)


def faults(p: Public, doc: str) -> list[str]:
    """What is wrong with a docstring of it"""
    if not doc:
        return ["has no docstring"]
    found, taken = [], arrays(p)
    if taken and not _says(doc, _names_a_shape, "shape|argument"):
        found.append("names no shape")
    for name in taken:
        if name != "return" and not _says(doc, re.compile(rf"\b{name}\b").search, "argument"):
            found.append(f"does not tell of {name}")
    for error in sorted(raised(p)):
        if not RAISES.search(doc) or not _says(doc, partial(_names_error, error), "raise"):
            found.append(f"does not say when it raises {error}")
    if needs_a_source(p) and not _says(doc, SOURCE.search, "source"):
        found.append("names no source")
    return found


def test_every_public_docstring_tells_shapes_errors_and_sources() -> None:
    wrong = [f"{p.name}: {', '.join(found)}" for p in public().values() if (found := faults(p, p.doc))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "pattern", "fault"),
    [
        ("ops.conv2d", SHAPE, "names no shape"),
        ("nn.Linear", SHAPE, "names no shape"),
        ("explain.Explanation", SHAPE, "names no shape"),
        ("metrics.auc", r"\bscores\b", "does not tell of scores"),
        ("ops.sum", RAISES, "does not say when it raises ValueError"),  # by an op
        ("ops.conv2d", "TypeError", "does not say when it raises TypeError"),  # by a check of an argument
        ("nn.Dropout", "TypeError", "does not say when it raises TypeError"),  # in a constructor, by a function beside it
        ("explain.vargrad", "`smoothgrad`", "does not say when it raises ValueError"),  # who tells of it
        ("explain.saliency", "MemoryError", "does not say when it raises BatchMemoryError"),
        ("models.vgg16", "TypeError", "does not say when it raises TypeError"),
        ("data.Cutout", SOURCE, "names no source"),
        ("nn.GELU", "`ops.gelu`", "names no source"),
        ("models.resnet50", SOURCE, "names no source"),
        ("evaluate.ssim", r"\b2004\b", "names no source"),
    ],
)
def test_what_is_taken_away_is_missed(name: str, pattern: str | re.Pattern[str], fault: str) -> None:
    p = public()[name]
    assert fault not in faults(p, p.doc)
    assert fault in faults(p, re.sub(pattern, "", p.doc))


def test_one_without_a_docstring_is_found() -> None:
    assert faults(public()["nn.Module.to"], "") == ["has no docstring"]


def test_the_exceptions_are_needed() -> None:
    methods = [f"{room}.{name}" for room, names in METHODS.items() for name in names.split()]
    without = " ".join(OF_NO_PAPER.values()).split()
    assert not [name for name in (*methods, *without, *(name for name, _ in IMPOSSIBLE)) if name not in public()]
    assert not [name for name in methods if name.rsplit(".", 1)[0] in FROM_PAPERS]
    assert not [name for name in without if name.rsplit(".", 1)[0] not in FROM_PAPERS or SOURCE.search(public()[name].doc)]


def _docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def _is_there(name: str) -> bool:
    """Whether minidl, or a room of it, holds that"""
    thing: Any = minidl
    for part in name.removeprefix("minidl.").split("."):
        try:
            thing = import_module(f"{thing.__name__}.{part}")
        except ImportError:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
    return True


def test_what_a_docstring_points_to_is_there() -> None:
    rooms = "|".join(sorted(p.stem for p in Path(minidl.__file__).parent.iterdir() if not p.stem.startswith("_")))
    pointer = re.compile(rf"`(minidl\.\w+(?:\.\w+)*|(?:{rooms})(?:\.\w+)+)")
    files = [path for room in ("minidl", "models") for path in Path(ROOT, room).rglob("*.py")]
    named = {(path.name, name) for path in files for doc in _docstrings(path) for name in pointer.findall(doc)}
    assert ("curves.py", "explain.saliency") in named and not _is_there("explain.saliencies")
    assert not [f"{file}: `{name}`" for file, name in sorted(named) if not _is_there(name)]


def test_the_formula_stands_first() -> None:
    """Of every op, and of what changes parameters, gradients or learning rates"""
    tools = {"ops.fusing", "ops.unfused", "optim.Optimizer", "optim.decay_groups"}
    named = [p for p in public().values() if p.name.startswith(("ops.", "optim.")) and p.owner is None and p.name not in tools]
    formula = re.compile(r"=|->|<-|\^")
    assert not [p.name for p in named if not formula.search(p.doc.partition("\n")[0])]
