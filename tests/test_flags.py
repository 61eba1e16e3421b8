"""Every bool that a public function takes is True or False: "no" and "test" would count as true, and do so unseen.

The walk reads the signatures. What takes a bool and has a row neither here nor in `test_arguments` makes it fail.
"""

import inspect

import numpy as np
import pytest

import models
from minidl import Tensor, data, ops, train, weights
from tests import test_arguments
from tests.test_arguments import ROOMS, X, files, net, public  # noqa: F401  (files is a fixture)


def saved():
    weights.save(net(), path := test_arguments.FOLDER / "weights.safetensors")
    return path


ROWS = {where: row.arguments for where, row in test_arguments.ROWS.items()} | {
    "minidl.Tensor": lambda: {"data": X},
    **dict.fromkeys(("ops.logsumexp", "ops.max", "ops.mean", "ops.sum"), lambda: {"x": Tensor(X)}),
    "nn.Module.load_state_dict": lambda: {"self": net(), "state": {}},
    "nn.Module.train": lambda: {"self": net()},
    **dict.fromkeys(("data.cifar10", "data.cifar100"), lambda: {"root": test_arguments.FOLDER}),
    "train.fit": lambda: {
        **{"model": net(), "train_set": test_arguments.dataset(), "settings": train.Settings()},
        "out": test_arguments.FOLDER / "run",
    },
    "weights.fill": lambda: {"model": net(), "state": {}, "path": "a file"},
    "weights.load": lambda: {"model": net(), "path": saved()},
    "train.Settings": lambda: {},
}
KEEPS = {"keep_graph", "apart"}  # whether memory is kept: the numbers are the same
WRONG = ["no", "test", 1, 0.0, None, [True], np.array([True])]


def flags():
    seen = set()
    for room in ROOMS[::-1]:
        for where, call in public(room):
            if inspect.isclass(call) and issubclass(call, Exception):
                continue
            for p in inspect.signature(call).parameters.values():
                if str(p.annotation) == "bool" and p.name not in KEEPS and (call, p.name) not in seen:
                    seen.add((call, p.name))
                    yield pytest.param(where, call, p.name, id=f"{where} {p.name}")


@pytest.mark.parametrize(("where", "call", "name"), list(flags()))
def test_only_true_and_false(where, call, name):
    for value in WRONG:
        with pytest.raises(TypeError, match=rf"^{name}: expected True or False, got "):
            call(**{**ROWS[where](), name: value})


@pytest.mark.parametrize("value", [True, False])
def test_those_of_numpy_count(value):
    for same in (np.bool_(value), np.array(value)):
        assert ops.sum(Tensor(X), 1, same).ndim == ops.sum(Tensor(X), 1, value).ndim
        assert net().train(same).training is value
        assert data.Loader(test_arguments.dataset(), 2, same).shuffle is value
        assert train.Settings(lazy=same).lazy is value


def test_a_test_set_is_not_asked_for_by_its_name(tmp_path):
    """train="test" counted as true, so that the training images came"""
    with pytest.raises(TypeError, match=r"^train: expected True or False, got 'test'$"):
        data.cifar10(tmp_path, "test")


def test_a_model_is_not_trained_by_a_word():
    with pytest.raises(TypeError, match=r"^mode: expected True or False, got 'eval'$"):
        net().train("eval")
    with pytest.raises(TypeError, match=r"^training: expected True or False, got 'no'$"):
        net().training = "no"
    with pytest.raises(TypeError, match=r"^aux: expected True or False, got 10$"):
        models.inception_v3(10, aux=10)
