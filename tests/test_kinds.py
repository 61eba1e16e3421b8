"""Models, sets, generators and functions: what is another thing is named in one sentence, wherever one is asked for.

The walk reads the signatures. What takes one of these and has a row neither here nor in `test_arguments` makes it fail.
"""

import inspect

import numpy as np
import pytest

import models
from minidl import Tensor, explain, inference, metrics, nn, ops, optim, train
from tests import test_arguments
from tests.test_arguments import ROOMS, X, files, net, public, trained  # noqa: F401  (files is a fixture)

ROWS = {where: row.arguments for where, row in test_arguments.ROWS.items()} | {
    "analysis.watch": dict,
    "data.check_disjoint": dict,
    "explain.Head": lambda: {"name": "a"},
    "nn.init.generator": dict,
    "inference.Heads": lambda: {"classes": {"a": ["b", "c"]}},
    "ops.recompute": dict,
    "train.evaluate_run": lambda: {"folder": test_arguments.FOLDER, "nets": {}},
    "train.fit": lambda: {
        **{"model": net(), "train_set": test_arguments.dataset(), "settings": train.Settings()},
        "out": test_arguments.FOLDER / "run",
    },
    **dict.fromkeys(("weights.load", "weights.save"), lambda: {"path": test_arguments.FOLDER / "a.safetensors"}),
}
BY_MINIDL = (  # takes what minidl made, or says it in its own words
    "train.cuda_graph.CapturedGradients train.checkpoint.save train.checkpoint.load train.start_from train.TrainedNet "
    "weights.fill nn.ModuleList.append nn.Sequential"
).split()
WRONG = {
    "Module": [None, "resnet20", models.resnet20, nn.ReLU, [net()], test_arguments.net, trained()],
    "Dataset": [None, "cifar10", (X, np.arange(2)), [test_arguments.dataset()]],
    "np.random.Generator": [None, 0, "seed", np.random.RandomState(0), np.random],
    "Method": [None, "saliency", ["a"]],
    "Callable[..., Tensor]": [None, "exp", Tensor(X)],
    "inits.Init": [None, "he_normal", X],
}
EXPECTED = {
    "Module": "a minidl.nn.Module",
    "Dataset": "a minidl.data.Dataset",
    "np.random.Generator": "a numpy.random.Generator",
    "Method": "a function ",
    "Callable[..., Tensor]": "a function ",
    "inits.Init": "a function ",
}


def asked_for():
    seen = set()
    for room in ROOMS[::-1]:
        for where, call in public(room):
            if where in BY_MINIDL or (inspect.isclass(call) and issubclass(call, Exception)):
                continue
            for p in inspect.signature(call).parameters.values():
                kind = str(p.annotation).removesuffix(" | None")
                if kind in EXPECTED and (call, p.name) not in seen:
                    seen.add((call, p.name))
                    yield pytest.param(where, call, p, kind, id=f"{where} {p.name}")


@pytest.mark.parametrize(("where", "call", "p", "kind"), list(asked_for()))
def test_what_is_another_thing_is_named(where, call, p, kind):
    for value in WRONG[kind]:
        if value is None and str(p.annotation).endswith(" | None"):
            continue
        with pytest.raises(TypeError, match=rf"^{p.name}: expected {EXPECTED[kind]}.*, got "):
            if p.kind is p.VAR_POSITIONAL:
                call(value)
            else:
                call(**{**ROWS[where](), p.name: value})


def test_what_to_write_instead():
    with pytest.raises(TypeError, match=r"^model: expected a minidl.nn.Module, got TrainedNet; write model.model$"):
        explain.saliency(trained(), X)
    with pytest.raises(TypeError, match=r"^model: .*, got resnet20, a function; pass the net that it makes, or a Module whose"):
        inference.predict(models.resnet20, X)
    with pytest.raises(TypeError, match=r"^x: expected an array of floats, .*, got Tensor; write x.data$"):
        explain.saliency(net(), Tensor(X))
    with pytest.raises(TypeError, match=r"^params: expected parameters, got the Sequential; write model.parameters\(\)$"):
        optim.clip_gradients(net(), 1.0)


def test_nothing_in_the_place_of_an_input():
    for op in ops.relu, ops.conv2d, net():
        with pytest.raises(TypeError, match="expected a Tensor, an array or numbers, got None"):
            op(None, X) if op is ops.conv2d else op(None)


def test_a_score_is_a_function():
    with pytest.raises(TypeError, match=r"^score: expected a function f\(answers, labels\) -> number, .*, got 'auc'$"):
        metrics.bootstrap_score("auc", np.eye(4)[:, :2], np.array([0, 1, 0, 1]))
