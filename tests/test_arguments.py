"""Every number that a public function, constructor or method takes: NumPy's count as Python's, and wrong ones are named.

The walk reads the signatures. What takes a number and has no row in `ROWS` makes it fail.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import math
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

import models
from minidl import (
    Parameter,
    Tensor,
    analysis,
    arguments,
    attack,
    data,
    explain,
    flow,
    kernels,
    metrics,
    nn,
    ops,
    optim,
    parallel,
    train,
)
from minidl.data.ham10000 import MASKS
from tests.gpu import strict_cupy

ROOMS = (
    "minidl minidl.ops minidl.nn minidl.nn.init minidl.optim minidl.data minidl.explain minidl.attack minidl.evaluate "
    "minidl.evaluate.baselines minidl.metrics minidl.view minidl.analysis minidl.flow minidl.inference minidl.parallel "
    "minidl.train minidl.check minidl.weights minidl.train.checkpoint minidl.train.cuda_graph minidl.mixed models"
).split()

pytestmark = pytest.mark.filterwarnings("ignore:.*the map is 0 everywhere")  # of small nets

RESULTS = (  # what minidl makes, and its users only read
    "analysis.Cost attack.Linearity train.Contract metrics.Interval metrics.OperatingPoint explain.Explanation "
    "data.LazyImages "
    "flow.Cell flow.Line flow.PixelFlow flow.Wire check.Difference check.Report flow.Trace view.Drawing view.Frame"
).split()
INNER = (  # what minidl itself calls; subclasses write it anew
    "optim.Optimizer optim.Optimizer.update optim.SGD.update optim.AdamW.update nn.BatchNorm2d.update_running_stats "
    "flow.Cell.largest data.LazyImages.take parallel.Communicator.end"
).split()
AXES = "ops.logsumexp ops.max ops.mean ops.sum".split()  # their only numbers are axes, which NumPy checks


# ---- small nets and images


def draw(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).random(shape, dtype=np.float32)


def net() -> nn.Module:
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, rng=rng),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(12, 3, rng=rng),
    )
    return model.eval()


def answering() -> nn.Module:
    """To images of any size"""
    return nn.Sequential(nn.Conv2d(2, 3, 1, rng=np.random.default_rng(0)), nn.GlobalAvgPool2d())


X, MAPS = draw(2, 2, 8, 8), draw(3, 8, 8)[:2]
MASK = MAPS > 0.5
V = np.ones(2, np.float32)


def explained(**more: Any) -> Callable[[], dict[str, Any]]:
    """Arguments of an explanation or an attack: their numbers are small"""
    return lambda: {"model": net(), "x": X, "batch_size": 3, **more}


def attacked(**more: Any) -> Callable[[], dict[str, Any]]:
    return explained(**{"y": 1, "mean": (0.5, 0.25), "std": (1.0, 0.5), **more})


def on_images(**more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"x": Tensor(X), **more}


def weights(**more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"rng": np.random.default_rng(0), **more}


def parameters() -> list[Parameter]:
    found = [Parameter(draw(2, 3)), Parameter(draw(4))]
    for p in found:
        p.grad = 1 - p.data
    return found


def passed() -> tuple[flow.BackwardPass, Tensor]:
    image, model = Tensor(X[:1], requires_grad=True), net()
    with model.frozen(), ops.unfused():
        return flow.BackwardPass(model(image)[0, 1]), image


def on_a_wire() -> dict[str, Any]:
    backward, image = passed()
    return {"backward_pass": backward, "wire": backward.uses[image][0], "index": (0, 1, 2, 3)}


def score() -> Tensor:
    with net().frozen() as model, ops.unfused():
        return model(Tensor(X[:1], requires_grad=True))[0, 1]


def dataset(n: int = 4) -> data.Dataset:
    return data.Dataset(draw(n, 2, 8, 8), np.arange(n) % 3, ("a", "b", "c"))


# ---- what is looked at of a result


def run(layer: nn.Module) -> Any:
    """A layer as it was made, its output in training, and its state after that"""
    made = plain(layer)
    return made, layer(X if not isinstance(layer, nn.Linear) else draw(3, 2)), layer


def averaged(average: optim.WeightAverage) -> Any:
    average.update()
    average.update()
    return average.state_dict()


def stepped(optimiser: optim.Optimizer) -> Any:
    optimiser.step()
    optimiser.step()
    return vars(optimiser), optimiser.params


def drawn_on(f: Any) -> Any:
    return (
        f,
        f(draw(3, 2, 8, 8), np.random.default_rng(0)),
        f((255 * draw(3, 2, 8, 8)).astype(np.uint8), np.random.default_rng(0)),
    )


def followed(schedule: Callable[[int], float]) -> Any:
    return [schedule(k) for k in range(5)], [schedule(k) for k in np.arange(5)]


def plain(value: Any) -> Any:
    """What can be compared bit for bit, types too"""
    if isinstance(value, Tensor):
        return plain(value.data)
    if isinstance(value, np.ndarray | np.generic):
        return type(value).__name__, str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, nn.Module):
        return plain(value.state_dict()), plain({k: v for k, v in vars(value).items() if isinstance(v, int | float | tuple)})
    if dataclasses.is_dataclass(value):
        return [plain(getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(plain, value)]
    return type(value).__name__, repr(value) if isinstance(value, int | float | str | None) else ""


# ---- a small call of everything


@dataclass
class Row:
    """A call with small settings, what is looked at of its result, and how far its numbers may go.

    signed: numbers of which every finite one will do, and counts that may be negative; infinite: which may be infinite;
    heavy: takes long, so that only wrong numbers are tried.
    """

    arguments: Callable[[], dict[str, Any]]
    then: Callable[[Any], Any] = lambda result: result
    signed: str = ""
    infinite: str = ""
    heavy: bool = False


CHANNELS = {"in_channels": 2, "out_channels": 4}
WINDOW = {"kernel_size": 2, "stride": 1, "padding": 1}
CONV = {"weight": Tensor(draw(2, 1, 3, 2)), "stride": 2, "padding": 1, "dilation": 1, "groups": 2}
NORM = {"gamma": Tensor(V), "beta": Tensor(V)}
FROZEN = {**NORM, "mean": V, "var": V}


def several(names: str, row: Row) -> dict[str, Row]:
    room, _, functions = names.partition(": ")
    return {f"{room}.{name}": row for name in functions.split()}


def shown_in_a_window(**more: Any) -> Row:
    given = {"images": X, "window": (0.5, 1.5), **more}
    return Row(lambda: {"path": FOLDER / "a.svg", **given}, signed="window", heavy=True)


ROWS: dict[str, Row] = {
    "train.LossScale": Row(lambda: {"scale": 4.0, "patience": 3}, vars),
    "flow.trace": Row(lambda: {"y": score(), "pixel": (0, 1, 2, 3)}, lambda t: t.arithmetic()),
    # ops
    "ops.adaptive_avg_pool2d": Row(on_images(output_size=3)),
    "ops.resize": Row(on_images(size=3)),
    **several("ops: avg_pool2d max_pool2d", Row(on_images(**WINDOW))),
    **several("ops: batch_norm batch_norm_relu", Row(on_images(**NORM))),
    **several("ops: batch_norm_frozen batch_norm_frozen_relu", Row(on_images(**FROZEN))),
    **several("ops: conv2d conv2d_relu", Row(on_images(**CONV))),
    "ops.broadcast_to": Row(on_images(shape=(3, 2, 2, 8, 8))),
    "ops.clip": Row(on_images(low=0.25, high=0.5), signed="low high", infinite="low high"),
    "ops.concat": Row(lambda: {"xs": [Tensor(X), Tensor(X)]}, signed="axis"),
    "ops.cross_entropy": Row(
        lambda: {"z": Tensor(draw(3, 4)), "labels": np.arange(3), "label_smoothing": 0.25, "ignore_index": 1},
        signed="ignore_index",
    ),
    "ops.dropout": Row(on_images(p=0.3, rng=np.random.default_rng(0)), lambda y: (y.dtype, y.shape)),
    "ops.flip": Row(on_images(axis=3), signed="axis"),
    "ops.group_norm": Row(lambda: {"x": Tensor(draw(2, 4, 3, 3)), "num_groups": 2, "eps": 0.1}),
    "ops.top_k_pool2d": Row(on_images(k=3)),
    "ops.gaussian_blur": Row(on_images(sigma=1.5, radius=2)),
    "ops.leaky_relu": Row(lambda: {"x": Tensor(X - 0.5), "negative_slope": 0.1}, signed="negative_slope"),
    **several("ops: softmax log_softmax", Row(lambda: {"z": Tensor(X), "axis": 1}, signed="axis")),
    "ops.pad": Row(on_images(widths=[(0, 0), (0, 1), (1, 0), (2, 1)], value=0.3), signed="value", infinite="value"),
    "ops.reshape": Row(on_images(shape=(2, 4, 32)), signed="shape"),
    "ops.smooth_max_convolution": Row(on_images(kernel=draw(3, 3, 2, 2), temperature=0.3)),
    "ops.split": Row(on_images(sizes=1, axis=1), signed="axis"),
    "ops.transpose": Row(on_images(axes=(0, 2, 3, 1)), signed="axes"),
    "ops.var": Row(on_images(correction=1)),
    # nn
    "analysis.cost": Row(lambda: {"model": net(), "input_shape": (2, 8, 8)}, str),
    "analysis.Cost.collapsed": Row(lambda: {"self": analysis.cost(net(), (2, 8, 8)), "depth": 1}, str),
    "nn.AdaptiveAvgPool2d": Row(lambda: {"output_size": 3}, run),
    **several("nn: AvgPool2d MaxPool2d", Row(lambda: {**WINDOW}, run)),
    "nn.BatchNorm2d": Row(lambda: {"num_features": 2}, run),
    "nn.GroupNorm": Row(lambda: {"num_groups": 1, "num_channels": 2}, run),
    "nn.TopKPool2d": Row(lambda: {"k": 3}, run),
    "nn.Conv2d": Row(weights(**CHANNELS, kernel_size=3, stride=2, padding=1, dilation=1, groups=2), run),
    "nn.Dropout": Row(weights(), run),
    "nn.LeakyReLU": Row(lambda: {}, run, signed="negative_slope"),
    "nn.Linear": Row(weights(in_features=2, out_features=3), run),
    **several("nn.init: he_normal he_uniform glorot_normal glorot_uniform fan_in_uniform", Row(weights(shape=(3, 2)))),
    "nn.init.orthogonal": Row(weights(shape=(3, 2), gain=1.5), signed="gain"),
    # parallel
    "parallel.Buckets": Row(
        lambda: {"world": parallel.ALONE, "kinds": {"a": ((2, 3), "float32"), "b": ((4,), "float32")}, "nbytes": 16},
        lambda buckets: list(buckets.wait().values()),
    ),
    "parallel.Communicator.map": Row(lambda: {"self": parallel.ALONE, "f": str, "n": 3}),
    # optim
    "optim.SGD": Row(lambda: {"params": parameters(), "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, stepped),
    "optim.AdamW": Row(lambda: {"params": parameters(), "lr": 0.1}, stepped),
    "optim.WeightAverage": Row(lambda: {"model": net(), "decay": 0.9}, averaged),
    "optim.decay_groups": Row(lambda: {"model": net(), "weight_decay": 0.1}),
    "optim.clip_gradients": Row(lambda: {"params": parameters(), "max_norm": 0.1}),
    "optim.constant": Row(lambda: {"lr": 0.1}, followed),
    "optim.step_decay": Row(lambda: {"lr": 0.1, "milestones": (1, 3), "gamma": 0.3}, followed),
    "optim.cosine": Row(lambda: {"lr": 0.1, "total_steps": 4, "warmup": 2}, followed),
    "optim.one_cycle": Row(lambda: {"max_lr": 0.1, "total_steps": 4}, followed),
    # data
    "data.Cutout": Row(lambda: {"size": 3, "fill": 0.3}, drawn_on, signed="fill"),
    "data.RandomCrop": Row(lambda: {"padding": 2, "fill": 0.3}, drawn_on, signed="fill"),
    "data.RandomFlip": Row(lambda: {}, drawn_on),
    "data.Normalize": Row(lambda: {"mean": (0.1, 0.2), "std": (0.3, 0.4)}, lambda f: f(draw(3, 2, 8, 8)), signed="mean"),
    "data.Loader": Row(lambda: {"dataset": dataset(), "batch_size": 3}, lambda loader: [*loader, loader.seed, loader.epoch]),
    "data.Loader.set_epoch": Row(lambda: {"self": data.Loader(dataset(), 2), "epoch": 3}),
    "data.Dataset.take": Row(lambda: {"self": dataset(), "indices": (0, 2)}),
    "data.Dataset.split": Row(lambda: {"self": dataset(12), "fractions": (0.5, 0.5), "seed": 1, "stratify": True}),
    "data.Dataset.folds": Row(lambda: {"self": dataset(12), "k": 2, "seed": 1}, list),
    "data.RandomRotation": Row(lambda: {"degrees": 20, "fill": 0.3}, drawn_on, signed="fill"),
    "data.RandomZoom": Row(lambda: {"scale": (0.5, 1.5), "fill": 0.3}, drawn_on, signed="fill"),
    "data.ColorJitter": Row(lambda: {"brightness": 0.3, "contrast": 0.2}, drawn_on),
    "data.Dataset": Row(
        lambda: {"images": draw(2, 3, 4, 4), "labels": np.array([0, 1]), "classes": ("a", "b"), "window": (-5.0, 200.0)},
        lambda found: found.window,
        signed="window",
    ),
    "data.csv": Row(lambda: READ | {"path": FOLDER / "set.csv"}, signed="window"),
    "data.ham10000": Row(lambda: {"root": FOLDER / "ham", "size": (4, 5), "test": 0.5}),
    "data.image_folder": Row(lambda: READ | {"root": FOLDER / "classes"}, signed="window"),
    "data.load_image": Row(lambda: READ | {"file": FOLDER / "classes" / "a" / "1.png"}, signed="window"),
    "data.read_image": Row(
        lambda: {"file": FOLDER / "classes" / "a" / "1.png", "channels": 3, "page": 0, "window": (-5.0, 200.0)}, signed="window"
    ),
    "data.spots": Row(lambda: {"n": 1, "size": 128, "diameter": 8, "first": 3}),
    "data.lesions": Row(lambda: {"n": 2, "mark": (0.5, 1.0), "evidence_channel": 1, "freckle": 0.5}),
    # explain
    **several(
        "explain: deconvnet flipped grad_cam grad_cam_plus_plus grad_times_input guided_backprop guided_grad_cam hires_cam "
        "layer_cam saliency score_cam",
        Row(explained(target=1)),
    ),
    "inference.predict": Row(explained()),
    "inference.sliding_window": Row(lambda: {"model": answering(), "x": X, "window": 5, "stride": 3, "batch_size": 3}),
    "inference.starts": Row(lambda: {"size": 8, "window": 5, "stride": 2}),
    "inference.tiles": Row(lambda: {"image": X[0], "size": 5, "stride": 3}),
    "explain.delete": Row(lambda: {"x": X, "map": MAPS, "deletion": "constant", "constant": 0.3}, signed="constant"),
    "explain.evidence_maps": Row(explained(sigma=1.0)),
    "explain.expected_gradients": Row(explained(target=1, background=X, samples=3)),
    "explain.extremal_perturbation": Row(
        explained(target=1, areas=(0.25, 0.5), step=2, sigma=3.0, levels=3, blur=2.0, iterations=2)
    ),
    "explain.integrated_gradients": Row(explained(target=1, baseline=0.3, steps=3), signed="baseline"),
    "explain.keep": Row(lambda: {"x": X, "map": MAPS, "levels": 3, "blur": 2.0}),
    "explain.kernel_shap": Row(explained(target=1, grid=2, baseline=0.3, samples=5), signed="baseline"),
    "explain.lime": Row(explained(target=1, grid=2, baseline=0.3, samples=5), signed="baseline"),
    "explain.meaningful_perturbation": Row(
        explained(
            target=1,
            deletion="constant",
            lambda1=0.01,
            lambda2=0.02,
            beta=3.0,
            constant=0.3,
            stride=2,
            sigma=1.0,
            jitter=2,
            iterations=2,
        ),
        signed="constant",
    ),
    "explain.occlusion": Row(explained(target=1, window=4, stride=2, baseline=0.3), signed="baseline"),
    "explain.rise": Row(explained(target=1, samples=3, grid=2, baseline=0.3), signed="baseline"),
    "explain.lrp": Row(explained(target=1, gamma=0.3, epsilon=0.01, bounds=(-1.0, 2.0)), signed="bounds"),
    **several("explain: smooth smoothgrad vargrad", Row(explained(target=1, samples=3))),
    # attack
    "attack.fgsm": Row(attacked(), signed="bounds mean"),
    "attack.pgd": Row(attacked(step_size=0.01, steps=2), signed="bounds mean"),
    "attack.apgd": Row(attacked(steps=3), signed="bounds mean"),
    "attack.square": Row(attacked(steps=3), signed="bounds mean"),
    "attack.carlini_wagner": Row(attacked(steps=2, searches=2), signed="bounds mean"),
    "attack.robust_accuracy": Row(attacked(steps=2, candidates=2, squares=2), signed="bounds mean"),
    "attack.deepfool": Row(attacked(steps=2, candidates=2), signed="bounds mean"),
    "attack.fool": Row(attacked(steps=2), signed="bounds mean"),
    "attack.universal": Row(attacked(epochs=2, steps=2), signed="bounds mean"),
    "attack.class_image": Row(
        lambda: {"model": net(), "shape": (2, 8, 8), "y": 1, "steps": 2, "mean": (0.5, 0.25), "std": (1.0, 0.5)},
        signed="bounds mean",
    ),
    "attack.linearity": Row(
        explained(x=X[:1], target=1, count=5, mean=(0.5, 0.25), std=(1.0, 0.5)), lambda found: plain(found), signed="mean"
    ),
    # evaluate
    "metrics.bootstrap": Row(lambda: {"values": draw(5), "resamples": 20}),
    "metrics.bootstrap_score": Row(
        lambda: {"score": metrics.accuracy, "answers": draw(20, 2), "labels": np.zeros(20, int), "resamples": 20}
    ),
    "metrics.operating_point": Row(
        lambda: {"scores": np.arange(4.0), "labels": np.array([0, 1, 0, 1]), "sensitivity": 0.5, "specificity": 0.25}
    ),
    "metrics.probabilities": Row(lambda: {"logits": draw(3, 2)}),
    **several(
        "metrics: expected_calibration_error reliability",
        Row(lambda: {"probabilities": draw(3, 1), "labels": np.array([0, 1, 0]), "bins": 3, "target": 1}),
    ),
    "evaluate.completeness": Row(explained(raw=X, baseline=0.3, target=1), signed="baseline"),
    **several("evaluate: deletion insertion", Row(explained(maps=MAPS, target=1, baseline=0.3, steps=4), signed="baseline")),
    "evaluate.road": Row(explained(maps=MAPS, target=1, shares=(0.25, 0.5))),
    "evaluate.infidelity": Row(explained(raw=X, target=1, baseline=0.3, samples=3), signed="baseline"),
    "evaluate.max_sensitivity": Row(explained(method=explain.saliency, target=1, samples=3)),
    "evaluate.pointing_game": Row(lambda: {"maps": MAPS, "masks": MASK, "tolerance": 0.2}),
    "evaluate.randomization": Row(lambda: {"model": net(), "x": X, "method": explain.saliency, "target": 1}),
    "evaluate.Randomization.passed": Row(
        lambda: {"self": importlib.import_module("minidl.evaluate").Randomization(("a",), draw(2, 2)), "limit": 0.5},
        signed="limit",
    ),
    "evaluate.baselines.random": Row(lambda: {"x": X}),
    # view, flow, train, the rest
    "view.accuracy_by_eps": Row(
        lambda: {"path": FOLDER / "eps.svg", "eps": (0.1, 0.2), "shares": {"a": [1.0, 0.5]}, "chance": 0.1},
        lambda none: (FOLDER / "eps.svg").read_bytes(),
    ),
    "view.overlays": shown_in_a_window(maps=MAPS),
    "view.comparison": shown_in_a_window(maps={"a": MAPS}),
    "view.gradient_images": shown_in_a_window(maps=MAPS, labels=[0, 1], probabilities=np.eye(2), classes="ab"),
    "view.images_of_classes": shown_in_a_window(captions="ab"),
    "view.fooled": Row(
        lambda: {
            **{"path": FOLDER / "a.svg", "original": X, "attacked": X, "before": np.eye(2), "after": np.eye(2)},
            **{"classes": "ab", "window": (0.5, 1.5)},
        },
        signed="window",
        heavy=True,
    ),
    "explain.Explanation.plot": Row(
        lambda: {
            "self": explain.Explanation(MAPS[:1], X[:1], np.zeros(1, int), np.ones(1)),
            **{"path": FOLDER / "plot.svg", "images": X[:1], "window": (0.5, 1.5)},
        },
        lambda none: (FOLDER / "plot.svg").read_bytes(),
        signed="window",
    ),
    "view.stepper": Row(
        lambda: {"model": net(), "x": X[0], "target": 1, "path": FOLDER / "page.html", "picks": [(1, 2)], "pixels": 2},
        lambda path: path.read_bytes(),
    ),
    "view.frame": Row(lambda: {"path": __file__, "height": 300}, lambda found: found._repr_html_()),
    "flow.arithmetic": Row(on_a_wire, lambda cell: (cell.index, cell.engine)),
    **several(
        "flow: pixel_flow strongest_path",
        Row(
            lambda: dict(zip(("backward_pass", "x", "index"), (*passed(), (0, 1, 2, 3)), strict=True)),
            lambda found: repr(found)[:200],
        ),
    ),
    "train.DecisionRule": Row(
        lambda: {"target": "b", "threshold": 0.25, "sensitivity": 0.9, "specificity": 0.5, "images": 8, "wanted": 0.875}
    ),
    "train.Settings": Row(
        lambda: {
            **{"size": 8, "channels": 3, "page": 1, "limit": 3, "patience": 2, "select": "auc", "window": (-5.0, 200.0)},
            **{"rotate": 20, "zoom": 0.25, "colour": (0.3, 0.2), "sensitivity": 0.5},
        },
        signed="window",
    ),
    "train.TrainedNet.logits": Row(
        lambda: {
            "self": train.TrainedNet(net(), train.Contract.of(dataset(), "net", {}, test_flips="both")),
            **{"x": X, "batch_size": 1},
        }
    ),
    "train.TrainedNet.probabilities": Row(lambda: {"self": trained(), "x": X, "batch_size": 3}),
    "train.train_epoch": Row(
        lambda: {
            "model": (model := net()),
            "loader": data.Loader(dataset(), 2),
            "optimizer": optim.SGD(model.parameters(), 0.1),
            "schedule": optim.constant(0.1),
            "epoch": 1,
            "settings": train.Settings(),
        },
        lambda row: {k: row[k] for k in ("epoch", "lr", "train_loss")},
    ),
    "train.scores": Row(
        lambda: {"model": net(), "dataset": dataset(), "prepare": lambda x, rng: x, "batch_size": 3},
        lambda row: row["loss"],
    ),
    "inference.evaluate": Row(lambda: {"model": net(), "dataset": dataset(), "batch_size": 3}),
    **several("check: adjoint_check gradient_check", Row(lambda: {"f": ops.exp, "inputs": [draw(2)]})),
    # models
    **several(f"models: {' '.join(models.__all__)}", Row(lambda: {}, heavy=True)),
    "models.densenet_bc": Row(lambda: {"depth": 10, "growth": 2, "dropout": 0.25}, signed="depth"),
    "models.googlenet": Row(lambda: {"dropout": 0.5}, heavy=True),
    "models.resnet8": Row(lambda: {}),
}


def trained() -> train.TrainedNet:
    contract = train.Contract("net", {}, ("a", "b", "c"), 2, 8, 8, "uint8", (0, 255), (0.5, 0.5), (1.0, 1.0), temperature=2.0)
    return train.TrainedNet(answering(), contract)


FOLDER = pathlib.Path()
READ = {"size": (4, 5), "channels": 3, "page": 0, "window": (-5.0, 200.0)}  # how files are read


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Images in the layouts that the readers take; and the plain kernels, so that nothing is compiled"""
    global FOLDER
    FOLDER = tmp_path_factory.mktemp("arguments")
    for folder in ("classes/a", "classes/b", "ham/HAM10000_images_1", f"ham/{MASKS}"):
        (FOLDER / folder).mkdir(parents=True)
    table = ["lesion_id,image_id,dx"]
    for i in range(4):
        image = Image.fromarray((255 * draw(6, 7)).astype(np.uint8))
        image.save(FOLDER / "classes" / "ab"[i % 2] / f"{i // 2 + 1}.png")
        image.save(FOLDER / "ham" / "HAM10000_images_1" / f"p{i}.jpg")
        image.save(FOLDER / "ham" / MASKS / f"p{i}_segmentation.png")
        table.append(f"l{i},p{i},nv")
    (FOLDER / "set.csv").write_text("file,label\nclasses/a/1.png,a\nclasses/b/1.png,b\n")
    (FOLDER / "ham" / "HAM10000_metadata.csv").write_text("\n".join(table) + "\n")
    with kernels.use("reference"):
        yield


# ---- the walk over the signatures

COUNT, NUMBER, PAIR, COUNTS, NUMBERS, CLASS, PAIRS = "count", "number", "pair", "counts", "numbers", "class", "pairs"
KINDS = {  # of annotations, "| None" left out
    "int": COUNT,
    "float": NUMBER,
    "float | Array": NUMBER,
    "float | Array | str": NUMBER,
    "float | tuple[float, float]": NUMBER,
    "Fill": NUMBER,
    "int | Pair": PAIR,
    "int | tuple[int, int]": PAIR,
    "int | Sequence[int]": COUNT,
    "int | tuple[int, ...]": COUNT,
    "Sequence[int]": COUNTS,
    "Sequence[int] | Array": COUNTS,
    "tuple[int, ...]": COUNTS,
    "tuple[int, ...] | str": COUNTS,
    "tuple[int, int]": COUNTS,
    "tuple[int, int, int]": COUNTS,
    "Shape": COUNTS,
    "Index": COUNTS,
    "Bounds": NUMBERS,
    "Window": NUMBERS,
    "PerChannel": NUMBERS,
    "Sequence[float]": NUMBERS,
    "Sequence[float] | Array": NUMBERS,
    "tuple[float, float]": NUMBERS,
    "tuple[float, ...]": NUMBERS,
    "Target": CLASS,
    "int | Array": CLASS,
    "Sequence[tuple[int, int]]": PAIRS,
}
NUMERIC = re.compile(r"\b(int|float|Pair|Fill|Axis|Shape|Bounds|Target|PerChannel|Index|Window)\b")
OTHER = re.compile(r"^(Callable|Mapping|dict|list|Axis)\b")  # hold numbers or give them, and are none; axes: see AXES


@dataclass
class Argument:
    """One parameter of a callable that is a number, or several"""

    where: str
    call: Callable[..., Any]
    name: str
    kind: str
    optional: bool


def public(room: str) -> Iterator[tuple[str, Any]]:
    module = importlib.import_module(room)
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if name[0] != "_" and getattr(value, "__module__", "") == room
    ]
    for name in names:
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield f"{room.removeprefix('minidl.')}.{name}", value
            if inspect.isclass(value) and value.__module__.startswith(("minidl", "models")):
                for method, function in vars(value).items():
                    if inspect.isfunction(function) and method[0] != "_":
                        yield f"{room.removeprefix('minidl.')}.{name}.{method}", function


def walk() -> list[Argument]:
    found: dict[tuple[Any, str], Argument] = {}
    for room in ROOMS[::-1]:  # the rooms before `minidl`, which has some of their names again
        for where, call in public(room):
            if where in (*RESULTS, *INNER, *AXES) or (inspect.isclass(call) and issubclass(call, Exception)):
                continue
            for p in inspect.signature(call).parameters.values():
                annotation = str(p.annotation)
                if NUMERIC.search(annotation) and not OTHER.search(annotation):
                    kind = KINDS[annotation.removesuffix(" | None")]  # an annotation that is not there is a new kind
                    optional = p.default is None or annotation == "Target"
                    found.setdefault((call, p.name), Argument(where, call, p.name, kind, optional))
    return list(found.values())


ARGUMENTS = walk()


def test_everything_has_a_row_and_every_row_is_used(tell: Callable[[str], None]) -> None:
    places = {a.where for a in ARGUMENTS}
    assert places == ROWS.keys(), (places - ROWS.keys(), ROWS.keys() - places)
    tell(f"arguments: {len(ARGUMENTS)} public numbers, of {len(places)} functions, constructors and methods")


def value_of(a: Argument) -> Any:
    given = {p.name: p.default for p in inspect.signature(a.call).parameters.values()} | ROWS[a.where].arguments()
    value = given[a.name]
    assert value is not None and value is not inspect.Parameter.empty, f"the row of {a.where} lacks {a.name}"
    return value


def same_values(a: Argument) -> Iterator[tuple[Any, Any]]:
    """Numbers of NumPy and, for each, those of Python that mean the same"""
    v = value_of(a)
    if a.kind in (COUNT, PAIR, CLASS) and not isinstance(v, tuple):
        for dtype in np.int64, np.int32, np.uint8 if 0 <= v < 256 else np.int8 if v < 0 else np.uint32:
            yield dtype(v), v
        yield np.array(v), v
    if a.kind == NUMBER:
        yield from ((np.float64(v), v), (np.array(float(v)), v), (np.float32(v), float(np.float32(v))))
        if v == int(v):
            yield from ((np.int64(v), v), (int(v), v), (np.array(v, np.float32), v))
    if a.kind == PAIR:
        v, h = v if isinstance(v, tuple) else (v, v)
        yield from (((np.int64(v), np.array(h)), (v, h)), ([v, h], (v, h)))
    if a.kind == COUNTS:
        yield from ((tuple(map(np.int64, v)), v), (np.array(v), v), (list(v), v))
    if a.kind == NUMBERS:
        yield from ((tuple(map(np.float64, v)), v), (np.array(v, np.float64), v), ([np.array(x) for x in v], v))
        yield np.array(v, np.float32), tuple(map(float, np.array(v, np.float32)))
    if a.kind == PAIRS:
        yield [tuple(map(np.int64, p)) for p in v], v


def wrong_values(a: Argument) -> Iterator[tuple[Any, type[Exception]]]:
    row, v = ROWS[a.where], value_of(a)
    below = -100 if a.name in row.signed.split() else -1
    if a.kind in (COUNT, PAIR):
        yield from ((x, TypeError) for x in (True, np.True_, 1.5, 2.0, np.float64(2), np.array(2.0), math.nan, math.inf, "1"))
        if a.name != "ignore_index":  # any integer may stand for what is not known
            yield below, ValueError
    if a.kind == PAIR:
        yield from (((1, 1, 1), ValueError), ((1, True), TypeError), ((1, 2.0), TypeError), ((1, -1), ValueError))
    if a.kind == NUMBER:
        yield from ((x, TypeError) for x in (True, np.True_, np.array("1"), 1j))
        yield "1", ValueError if (a.where, a.name) == ("explain.occlusion", "baseline") else TypeError  # as "blur" is one
        yield from ((x, ValueError) for x in (math.nan, np.float32(math.nan)))
        if a.name not in row.infinite.split():
            yield from ((x, ValueError) for x in (math.inf, -math.inf, np.array(math.inf), 10**400))
        if a.name not in row.signed.split():
            yield -1, ValueError
    if a.kind in (COUNTS, NUMBERS):
        yield "12", ValueError if a.name == "pixel" else TypeError  # "strongest" is a string, too
        yield from ((x, TypeError) for x in (1.5, (True, *v[1:]), ("1", *v[1:]), (None, *v[1:]), np.array(1)))
    if a.kind == COUNTS:
        yield from (((2.0, *v[1:]), TypeError), ((below, *v[1:]), IndexError if a.name == "indices" else ValueError))
    if a.kind == NUMBERS:
        yield from (((math.nan, *v[1:]), ValueError), ((*v[:-1], math.inf), ValueError))
        if a.name not in row.signed.split():
            yield (*v[:-1], -1.0), ValueError
    if a.kind == CLASS:
        yield from ((x, TypeError) for x in (True, 1.5, 1.0, "1", math.nan))
        yield from ((x, ValueError) for x in (-1, 3))
    if a.kind == PAIRS:
        yield from (([(1, 2.0)], TypeError), ([(True, 1)], TypeError), ([(1, -1)], ValueError))
    if not a.optional:
        yield None, TypeError


def outcome(a: Argument, value: Any) -> Any:
    row = ROWS[a.where]
    return plain(row.then(a.call(**{**row.arguments(), a.name: value})))


@pytest.mark.parametrize("where", sorted(ROWS))
def test_a_number_of_numpy_is_one_of_python(where: str) -> None:
    """The same bits of the same types, whatever kind of number was passed"""
    if ROWS[where].heavy:
        return
    for a in ARGUMENTS:
        if a.where == where:
            for numpys, pythons in same_values(a):
                assert outcome(a, numpys) == outcome(a, pythons), f"{where}: {a.name}={numpys!r} is not {pythons!r}"


@pytest.mark.parametrize("where", sorted(ROWS))
def test_a_wrong_number_is_named(where: str) -> None:
    for a in ARGUMENTS:
        if a.where == where:
            for value, error in wrong_values(a):
                with pytest.raises(error) as caught:
                    outcome(a, value)
                axis = "|axis" if a.name in ROWS[where].signed.split() else ""  # NumPy's error for one that is not there
                assert re.match(rf"{a.name}(\[\d\])*: {axis}", str(caught.value)), (
                    f"{where}: {a.name}={value!r} says {caught.value}"
                )


# ---- the checks themselves


@pytest.mark.parametrize("like", ["int", "float32", "float64", "float16", "bfloat16", "longdouble"])
def test_a_number_comes_back_as_pythons(like: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy := strict_cupy.cupy())
    kind: Any = (
        int if like == "int" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if like == "bfloat16" else like).type
    )
    for value in (kind(3), np.array(kind(3)), cupy.asarray(np.array(3.0, "float32"))):
        found = arguments.number(value, "x", "[3, 4)")
        assert type(found) is float and found == 3.0


def test_a_count_comes_back_as_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy := strict_cupy.cupy())

    class Size(enum.IntEnum):
        SMALL = 3

    for value in (3, np.int8(3), np.uint64(3), np.array(3), Size.SMALL, cupy.asarray(np.array(3))):
        assert type(arguments.count(value, "n")) is int and arguments.count(value, "n") == 3
        assert arguments.pair(value, "n") == arguments.pair((value, value), "n") == (3, 3)
        assert all(type(n) is int for n in arguments.pair([value, value], "n"))
    assert arguments.counts(np.array([1, 2]), "n") == (1, 2) and arguments.counts((), "n") == ()
    assert arguments.count(-2, "axis", None) == -2


def test_the_ends_of_an_interval() -> None:
    inside = {"[0, 1]": (0, 0.5, 1), "[0, 1)": (0, 0.5), "(0, 1]": (0.5, 1), "(0, 1)": (0.5,), "[-inf, inf]": (-math.inf, 0)}
    for interval, good in inside.items():
        for x in good:
            assert arguments.number(x, "x", interval) == x
        for x in {-0.1, 0, 0.5, 1, 1.1, math.nan} - set(good) if interval != "[-inf, inf]" else {math.nan}:
            with pytest.raises(ValueError, match=rf"x: expected a number in {re.escape(interval)}, got {x!r}"):
                arguments.number(x, "x", interval)


def test_messages() -> None:
    with pytest.raises(TypeError, match=r"samples: expected an integer of at least 1, got 1\.5"):
        arguments.count(1.5, "samples")
    with pytest.raises(ValueError, match=r"p: expected a number in \[0, 1\), got np\.float64\(1\.0\)"):
        arguments.number(np.float64(1), "p", "[0, 1)")
    with pytest.raises(ValueError, match=r"lr: expected a finite number, got -inf"):
        arguments.number(-math.inf, "lr")
    with pytest.raises(TypeError, match=r"betas: expected 2 numbers in \[0, 1\), got 0\.9"):
        arguments.numbers(0.9, "betas", "[0, 1)", 2)
    with pytest.raises(TypeError, match=r"betas\[1\]: expected a number in \[0, 1\), got 'a'"):
        optim.AdamW(parameters(), 0.1, betas=(0.9, "a"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"stride: expected an integer of at least 1, or a pair of them, got \(1, 2\.0\)"):
        arguments.pair((1, 2.0), "stride")
    with pytest.raises(TypeError, match=r"n: expected an integer of at least 1, got np\.timedelta64"):
        arguments.count(np.timedelta64(3), "n")
    with pytest.raises(ValueError, match=r"norm: expected one of \('linf', 'l2'\), got \['l2'\]"):
        arguments.one_of(["l2"], "norm", ("linf", "l2"))  # type: ignore[arg-type]


# ---- float64 numbers beside float32 arrays


def test_statistics_stay_float32() -> None:
    norm = nn.BatchNorm2d(2, eps=np.float64(1e-5), momentum=np.float64(0.1))
    with kernels.use("reference"):
        assert norm(X).dtype == norm.relu(Tensor(X)).dtype == np.float32
    assert norm.running_mean.dtype == norm.running_var.dtype == np.float32


@pytest.mark.parametrize("kernel", kernels.CHOICES)
def test_attacks_of_every_size_from_linspace(kernel: str) -> None:
    with kernels.use(kernel):
        for eps in np.linspace(0, 0.1, 4):
            for found in attack.fgsm(net(), X, 1, eps), attack.pgd(net(), X, 1, eps, steps=2, norm="l2", step_size=eps / 2):
                assert found.x.dtype == found.delta.dtype == np.float32
                assert (found.norms["linf" if found.params["method"] == "fgsm" else "l2"] <= eps).all()
