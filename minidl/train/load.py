"""A trained net from the folder of its run, and the one way from a file to what it takes.

net = load_run("runs/lesions-resnet8", {"resnet8": models.resnet8})
p = net.probabilities(net.prepare("mole.jpg"))
print(net.classes[net.decide(p)[0]])
"""

from __future__ import annotations

import inspect
import os
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import metrics, weights
from minidl.arguments import mapping
from minidl.array import Array, to_device
from minidl.inference.evaluation import predict
from minidl.inference.heads import Head, Heads, width
from minidl.io.files import Path
from minidl.io.notes import cut, short, some
from minidl.nn import Module
from minidl.train.contract import Contract
from minidl.train.decision import decide


@dataclass(frozen=True, eq=False)
class TrainedNet:
    """A model in evaluation mode, and what it takes and answers."""

    model: Module
    contract: Contract

    @property
    def classes(self) -> Any:
        """The names of the classes, in the order of the logits; of a net with several heads, name -> these."""
        return self.contract.classes

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the heads, of a net with several."""
        return tuple(self.contract.heads)

    def head(self, name: str) -> TrainedNet:
        """The same net, asked by this head alone: its model answers logits (N,K_h), and all methods take it.

        Raises ValueError for a head that is not there.
        """
        contract = self.contract.head(name)
        return TrainedNet(Head(Heads(self.model, self.contract.classes), name).eval(), contract)

    def prepare(self, *sources: str | os.PathLike[str] | Array) -> Array:
        """N sources, files or arrays (H,W) or (H,W,C) as files hold them -> x (N,C,H,W), where the model is.

        The same bits as in the evaluation of its training. Raises FileNotFoundError, and TypeError or ValueError for what is no
        image of the kind that the net was trained on, and for none at all.
        """
        if not sources:
            raise ValueError("sources: expected at least one image, got none")
        return self.inputs(np.stack([self.contract.image(source) for source in sources]))

    def inputs(self, images: Array) -> Array:
        """The images (N,C,H,W), of the training's dtype -> x (N,C,H,W), where the model is."""
        return _beside(self.model, self.contract.normalize(images))

    def logits(self, x: Array, batch_size: int = 32) -> Array:
        """The net's answer to x (N,C,H,W), as `prepare` makes it: logits (N,K), of which the largest is the class.

        Where the net is asked by the mean over mirror images (`contract.test_flips`), they are that mean, as in its
        validation and its test; `minidl.explain` explains `model`, whose logits are those of x alone. Raises what
        `minidl.inference.predict` does.
        """
        return predict(self.model, x, batch_size, self.contract.test_flips)

    def probabilities(self, x: Array, batch_size: int = 32) -> Array:
        """softmax(logits / T) of images x (N,C,H,W), as `prepare` makes them: (N,K) float64 on the CPU.

        The logits are those of `logits`, and T is the temperature of the contract. Of several heads one is asked,
        `net.head(name)`. Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks".
        Raises what `minidl.inference.predict` does, and ValueError where a logit is not finite, and for several heads.
        """
        self._check_one_head()
        return metrics.probabilities(self.logits(x, batch_size), self.contract.temperature)

    def decide(self, p: Array) -> Array:
        """The class of each image, (N,) int64, of its probabilities p (N,K), as the contract's `DecisionRule` says.

        It is the rule's target where p_target >= threshold, else the likeliest of the other classes; without a rule, the
        likeliest class. Of equally likely ones it is the first. Raises ValueError for another shape, NaN, and rows that do not
        add up to 1, and several heads, TypeError for what is no array of floats.
        """
        self._check_one_head()
        return decide(p, self.classes, self.contract.decision)

    def _check_one_head(self) -> None:
        if self.heads:
            raise ValueError(f"the net has the heads {', '.join(self.heads)}: ask one of them, net.head({self.heads[0]!r})")


def load_run(path: Path, nets: Mapping[str, Callable[..., Module]]) -> TrainedNet:
    """The net that `fit` left in the folder `path`, or in that model.safetensors, on the cpu.

    nets: name -> what builds the net of that name, for no code is ever taken from a file.

    Raises FileNotFoundError where there is none, TypeError for `nets` that are no dictionary, and ValueError, in one sentence,
    where the file is damaged, old, of another format, of a net that is not in `nets`, or of other weights than its own.
    """
    path, nets = pathlib.Path(path), mapping(nets, "nets", "name -> what builds that net")
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.exists():
            raise FileNotFoundError(
                f"{path.parent} holds no trained net: {path.name} is missing, which a finished epoch leaves"
            )
    arrays, metadata = weights.load_arrays(path)
    try:
        contract = Contract.of_metadata(metadata)
        model = _built(nets, contract)
        _fill(model, arrays, contract)
        _check_logits(model, contract)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return TrainedNet(model.eval(), contract)


def _built(nets: Mapping[str, Callable[..., Module]], contract: Contract) -> Module:
    name, arguments = contract.architecture, dict(contract.arguments)
    if name not in nets:
        raise ValueError(
            f"its net is {short(name)}, which nets does not hold, but {some([short(n) for n in nets], 5) or 'none'}"
        )
    try:
        inspect.signature(nets[name]).bind(**arguments)
        return nets[name](**arguments)
    except (ArithmeticError, MemoryError, TypeError, ValueError) as error:
        raise ValueError(f"its net {short(name)} cannot be built with {cut(str(arguments))}: {error}") from error


def _fill(model: Module, arrays: Mapping[str, Array], contract: Contract) -> None:
    try:
        model.load_state_dict(arrays)
    except ValueError as error:
        what = cut("; ".join(line.strip() for line in str(error).splitlines()[1:]) or str(error))
        raise ValueError(f"its weights are not those of the {short(contract.architecture)} that it names: {what}") from error


def _check_logits(model: Module, contract: Contract) -> None:
    if "num_classes" in contract.arguments:  # whoever changes that, has other weights
        return
    if (K := _logits(model, contract)) != (expected := width(contract.classes)):
        raise ValueError(f"its net answers {K} logits for the {expected} classes that it names")


def check_answers(model: Module, contract: Contract) -> None:
    """Raises ValueError for a model that answers such images with other than a logit for each class, of all heads."""
    if (K := _logits(model, contract)) != (classes := width(contract.classes)):
        of_each = " and ".join(f"{len(names)} of {head}" for head, names in contract.heads.items())
        raise ValueError(
            f"model: expected {classes} logits, {of_each or 'one for each class'}, got {K}; build {type(model).__name__} for "
            f"{classes} classes, such as with num_classes={classes}"
        )


def _logits(model: Module, contract: Contract) -> int:
    """How many the model has for an image, a blank one, in evaluation mode."""
    blank = np.zeros((1, contract.channels, contract.height, contract.width), np.float32)
    return predict(model, _beside(model, blank)).shape[1]


def _beside(model: Module, x: Array) -> Array:
    """x where the model is."""
    return to_device(x, next((p.device for p in model.parameters()), "cpu"))
