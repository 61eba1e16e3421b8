"""The training loop, from the first batch to the last file.

    model = models.resnet20(num_classes=10)
    fit(model, train_set, test_set, Settings(epochs=15), out="runs/mine")

trains with SGD and leaves in the folder `out`

    settings.json           what was asked for
    metrics.jsonl           one line an epoch, see `fit`
    checkpoint.safetensors  all that it takes to go on after the last finished epoch, see `minidl.train.checkpoint`
    model.safetensors       the weights, with the classes and the mean and std of the pictures in its metadata

Whatever ends the run (Ctrl-C, `kill -9`, a full disk, a loss that is not finite), the files of the last finished epoch stay,
and `fit(..., resume=True)` goes on from there to the same numbers, bit for bit, as if nothing had happened. One process at a
time works in the folder (`minidl.io.lock`), and it goes on with the settings and the pictures that it began with or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from tqdm import tqdm

from minidl import metrics, ops, weights
from minidl.analysis.nonfinite import count_nonfinite, first_nonfinite
from minidl.arguments import count, number, one_of, wrong
from minidl.array import DEVICES, Array, to_cpu
from minidl.contexts import contained
from minidl.core import Tensor, no_grad
from minidl.data import Augmentation, Compose, Dataset, Loader, Normalize, RandomCrop, RandomFlip
from minidl.inference.memory import batch_in_memory
from minidl.io import files, lock
from minidl.mixed import PRECISIONS, mixed
from minidl.nn import Module
from minidl.optim import SGD, Optimizer, Schedule, decay_groups, one_cycle
from minidl.train import checkpoint
from minidl.train.cuda_graph import CapturedGradients
from minidl.train.loss_scale import LossScale

Path = str | os.PathLike[str]
Row = dict[str, Any]  # one line of metrics.jsonl

FILES = ("settings.json", "checkpoint.safetensors", "model.safetensors", "metrics.jsonl")

FLIPS = {"none": (), "horizontal": ("horizontal",), "both": ("horizontal", "vertical")}
PLACES = ("root", "device", "cuda_graph")  # settings that say where, not what: they may change when a run is resumed


@dataclass(frozen=True)
class Settings:
    """All that a run can be told. Raises TypeError or ValueError for a value that cannot be."""

    epochs: int = 15
    batch_size: int = 128
    lr: float = 0.2  # the peak of the one-cycle schedule
    warmup: float = 0.3  # the share of the steps in which the learning rate rises to its peak
    weight_decay: float = 5e-4  # of weights; biases and batch norm do not decay
    crop: int = 4  # pixels that a picture is padded by before a window of its own size is cut out of it
    flip: str = "horizontal"
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"  # of the activations in training: "float16" or "bfloat16" is mixed precision, see `minidl.mixed`
    cuda_graph: bool = False  # each step as one CUDA graph, see `minidl.graph`: the same numbers, sooner

    # what is trained on what: `fit` writes these down and leaves them to its caller
    model: str = ""
    data: str = ""
    root: str = "data"
    size: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 1, "crop": 0, "seed": 0, "size": 1, "limit": 1}.items():
            if getattr(self, name) is not None or name not in ("size", "limit"):
                object.__setattr__(self, name, count(getattr(self, name), name, least))
        for name, interval in {"lr": "(0, inf)", "warmup": "[0, 1)", "weight_decay": "[0, inf)"}.items():
            object.__setattr__(self, name, number(getattr(self, name), name, interval))
        for name, choices in {"precision": PRECISIONS, "flip": FLIPS, "device": DEVICES}.items():
            one_of(getattr(self, name), name, choices)
        for name in ("model", "data", "root"):
            if not isinstance(getattr(self, name), str):
                wrong(TypeError, name, "a string", getattr(self, name))
        if not isinstance(self.cuda_graph, bool):
            wrong(TypeError, "cuda_graph", "True or False", self.cuda_graph)
        if self.cuda_graph and self.device != "gpu":
            raise ValueError(f"cuda_graph: it needs device 'gpu', got {self.device!r}")

    @staticmethod
    def of_run(out: Path) -> Settings:
        """The settings of the run in the folder `out`. Raises FileNotFoundError, and ValueError for a damaged file."""
        path = pathlib.Path(out, "settings.json")
        if not path.is_file():
            raise FileNotFoundError(f"nothing to resume in {out}: {path.name} is missing")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            _keys(found, "settings", [f.name for f in fields(Settings)])
            return Settings(**found)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged or of another version: {error}") from error

    def continues(self, run: Settings) -> None:
        """Raises ValueError that lists the settings in which this differs from the run that it is to continue."""
        _same_settings(run.what(), self.what())

    def what(self) -> dict[str, Any]:
        """Those that a resumed run keeps: all that say what is done, and not where."""
        return {name: value for name, value in asdict(self).items() if name not in PLACES}


def fit(
    model: Module,
    train_set: Dataset,
    test_set: Dataset,
    settings: Settings,
    out: Path,
    resume: bool = False,
    after_epoch: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Train `model`, in place, and return what metrics.jsonl holds; `after_epoch` is called with it after every epoch,
    and at the start of a run that is resumed, because what it made of the last epoch may be missing.

    A row has `epoch` (from 1), `lr` (at its last step), `train_loss` and `train_accuracy` (over the augmented batches as they
    were trained on), `test_loss`, `test_accuracy`, `test_balanced_accuracy` and, for two classes, `test_auc`, `seconds` and
    `images_per_second` (of training, without the test), and in float16 `loss_scale`. The test is in float32.

    Raises:
        FileExistsError: the folder holds a run already, and `resume` is False.
        FileNotFoundError: there is nothing to resume, or the checkpoint of a run that has results is gone.
        BlockingIOError: another process is at work in the folder; the message tells which.
        ValueError: settings, data and model do not go together, or with those of the run that is to be resumed; a
            file of that run is damaged. The model is as it was, but for its device.
        FloatingPointError: a loss is not finite; the message tells where that began.
        BatchMemoryError: a MemoryError; the message tells how much memory was held. What it held is free again.
        OSError: a file could not be written; those of the last finished epoch are as they were.
    """
    out = pathlib.Path(out)
    _check_data(train_set, test_set, settings)
    mean, std = train_set.mean_std()
    normalize = Normalize(mean, std)
    flips = [RandomFlip(axis=axis) for axis in FLIPS[settings.flip]]
    augment = Compose([RandomCrop(settings.crop, fill=mean), *flips, normalize])
    loader = Loader(train_set, settings.batch_size, augment=augment, seed=settings.seed, drop_last=True, device=settings.device)

    model.to(settings.device)
    optimizer = SGD(decay_groups(model, settings.weight_decay), settings.lr, momentum=0.9, nesterov=True)
    schedule = one_cycle(settings.lr, settings.epochs * len(loader), settings.warmup)
    scale = LossScale() if settings.precision == "float16" else None
    captured = CapturedGradients(model, ops.cross_entropy, scale) if settings.cuda_graph else None

    about = {"classes": train_set.classes, "mean": mean.tolist(), "std": std.tolist(), "pictures": len(train_set)}
    began = {"settings": settings.what(), "data": about, "digests": _digests(train_set, test_set)}
    # a loss that is not finite gets an error that says more than NumPy's warnings
    with lock.hold(out), np.errstate(all="ignore"):
        if resume:
            rows = _resume(out, model, optimizer, scale, settings, began, len(loader))
        else:
            rows = _begin(out, settings)
        if rows:
            after_epoch(rows)
        for epoch in range(len(rows), settings.epochs):
            with batch_in_memory(settings.batch_size):
                row = train_epoch(model, loader, optimizer, schedule, epoch, settings, scale, captured)
            row |= scores(model, test_set, normalize)
            _check_state(model, row)
            rows.append(row)
            facts = began | {"step": (epoch + 1) * len(loader), "rows": rows}
            facts |= {} if scale is None else {"loss_scale": scale.state_dict()}
            checkpoint.save(out / "checkpoint.safetensors", model, optimizer, facts)
            _publish(out, model, about, rows)
            print(_line(row, settings.epochs), flush=True)
            after_epoch(rows)
    return rows


def train_epoch(
    model: Module,
    loader: Loader,
    optimizer: Optimizer,
    schedule: Schedule,
    epoch: int,
    settings: Settings,
    scale: LossScale | None = None,
    captured: CapturedGradients | None = None,
) -> Row:
    """One pass over the training pictures; `epoch` counts from 0. With a `scale`, steps whose gradients overflow are skipped;
    `captured` takes the place of forward, loss and backward.

    Raises FloatingPointError where a loss is not finite, TypeError or ValueError for an epoch that is no integer of at least 0.
    """
    model.train()
    epoch = count(epoch, "epoch", 0)
    loader.set_epoch(epoch)
    images, loss_sum, hits, start = 0, 0.0, 0, time.perf_counter()
    with _bar(f"epoch {epoch + 1}/{settings.epochs}", len(loader) * loader.batch_size) as bar:
        for step, (x, labels) in enumerate(loader, start=epoch * len(loader)):
            optimizer.lr = schedule(step)
            optimizer.zero_grad()
            with mixed(settings.precision):
                if captured is not None:
                    loss, logits = map(Tensor, captured(x, labels))
                else:
                    logits = model(x)
                    loss = ops.cross_entropy(logits, labels)
            right = (logits.data.argmax(1) == labels).sum()  # on a GPU: queued before the loss is waited for
            if not math.isfinite(loss.item()):
                loss = loss if captured is None else ops.cross_entropy(model(x), labels)  # with ops, to ask where it began
                raise FloatingPointError(
                    f"the loss is {loss.item()} at step {step} (epoch {epoch + 1}, learning rate {optimizer.lr:.3g}). "
                    f"The first values that are not finite: {first_nonfinite(loss)}. A smaller learning rate often helps"
                )
            if captured is None and scale is None:
                loss.backward()
            if scale is None or (scale.backward(loss) if captured is None else scale.unscale(model.parameters())):
                optimizer.step()

            images += len(x)
            loss_sum += loss.item() * len(x)
            hits += int(right)
            seconds = time.perf_counter() - start
            left = tqdm.format_interval(((settings.epochs - epoch) * bar.total - images) * seconds / images)
            so_far = f"loss {loss_sum / images:.3f}, accuracy {hits / images:.1%}, {images / seconds:,.0f} images/s"
            bar.set_postfix_str(f"{so_far}, {left} to the end", refresh=False)
            bar.update(len(x))
    return {
        "epoch": epoch + 1,
        "lr": optimizer.lr,
        "train_loss": loss_sum / images,
        "train_accuracy": hits / images,
        "seconds": seconds,
        "images_per_second": images / seconds,
        **({} if scale is None else {"loss_scale": scale.scale}),
    }


def scores(model: Module, dataset: Dataset, prepare: Augmentation) -> Row:
    """How good the model is on the pictures of `dataset`, as `fit` writes it down; `prepare` normalises them."""
    loss, logits, labels = evaluate(model, dataset, prepare=prepare)
    if math.isnan(loss):  # some logits are, and have no accuracy
        return {"test_loss": loss}
    row = {
        "test_loss": loss,
        "test_accuracy": metrics.accuracy(logits, labels),
        "test_balanced_accuracy": metrics.balanced_accuracy(logits, labels),
    }
    if logits.shape[1] == 2 and 0 < labels.mean() < 1 and math.isfinite(loss):
        row["test_auc"] = metrics.auc(logits[:, 1] - logits[:, 0], labels)
    return row


@contained
@no_grad()
def evaluate(
    model: Module, dataset: Dataset, batch_size: int = 250, prepare: Augmentation | None = None
) -> tuple[float, Array, Array]:
    """Mean cross-entropy, logits (N,K) and labels (N,), in the order of `dataset`, with the model in evaluation mode.

    prepare: f(x, rng) -> x as in `minidl.data.augment`, for instance `Normalize`. Loss and arrays are on the CPU. Raises
    MemoryError where a batch does not fit into memory.
    """
    device, total, parts = model.parameters()[0].device, 0.0, []
    with model.evaluating(), batch_in_memory(batch_size):
        for x, labels in Loader(dataset, batch_size, shuffle=False, augment=prepare, device=device):
            logits = model(x)
            total += ops.cross_entropy(logits, labels).item() * len(x)
            parts.append(to_cpu(logits.data))
    return total / len(dataset), np.concatenate(parts), dataset.labels


def _check_data(train_set: Dataset, test_set: Dataset, settings: Settings) -> None:
    if settings.batch_size > len(train_set):
        raise ValueError(f"batch_size: {settings.batch_size} is more than the {len(train_set)} training pictures")
    if train_set.classes != test_set.classes:
        raise ValueError(f"train_set has the classes {train_set.classes}, test_set {test_set.classes}")
    if train_set.images.shape[1:] != test_set.images.shape[1:]:
        raise ValueError(
            f"train_set has pictures of {train_set.images.shape[1:]} (C,H,W), test_set of {test_set.images.shape[1:]}"
        )


def _digests(train_set: Dataset, test_set: Dataset) -> dict[str, str]:
    """Of all pictures and labels, in their order. BLAKE2b takes 0.2 s for the 184 MB of CIFAR-10, on a CPU of any kind."""
    arrays = {f"{of} {name}": getattr(d, name) for of, d in (("training", train_set), ("test", test_set))
              for name in ("images", "labels")}  # fmt: skip
    digests = {}
    for name, a in arrays.items():
        digest = hashlib.blake2b(f"{a.dtype.str} {a.shape}".encode(), digest_size=32)
        whole: Array = np.ascontiguousarray(a)
        digest.update(whole.reshape(-1).view(np.uint8))
        digests[name] = digest.hexdigest()
    return digests


def _begin(out: pathlib.Path, settings: Settings) -> list[Row]:
    if any((out / name).exists() for name in FILES[1:]):
        raise FileExistsError(f"{out} holds a run already: resume it, delete it, or choose another folder for this one")
    if (out / "settings.json").exists():
        try:
            Settings.of_run(out)  # of a run that ended in its first epoch
        except (OSError, ValueError) as error:
            raise FileExistsError(f"{out} holds a settings.json of something else, choose another folder: {error}") from error
    files.remove_leftovers(out, FILES)
    files.write(out / "settings.json", json.dumps(asdict(settings), indent=2) + "\n")
    return []


def _resume(
    out: pathlib.Path,
    model: Module,
    optimizer: Optimizer,
    scale: LossScale | None,
    settings: Settings,
    began: Row,
    steps: int,
) -> list[Row]:
    """The rows of the run in `out`; everything is in its state, or as it was where an error is raised."""
    settings.continues(Settings.of_run(out))
    path = out / "checkpoint.safetensors"
    files.remove_leftovers(out, FILES)
    if not path.exists():  # ended in its first epoch
        if left := [name for name in FILES[2:] if (out / name).exists()]:
            raise FileNotFoundError(f"nothing to resume in {out}: {path.name} is missing, but {' and '.join(left)} are there; "
                                    "put it back, or choose another folder to begin anew")  # fmt: skip
        return []

    def check(facts: Row) -> None:
        names = [*began, "step", "rows", *([] if scale is None else ["loss_scale"])]
        _keys(facts, "facts", names)
        _same_settings(facts["settings"], began["settings"])
        _same_pictures(out, facts, began)
        _check_rows(facts["rows"], settings, scale is not None)
        if facts["step"] != (expected := len(facts["rows"]) * steps) or type(facts["step"]) is not int:
            wrong(ValueError, "step", f"{expected} after {len(facts['rows'])} epochs", facts["step"])
        if scale is not None:
            LossScale().load_state_dict(facts["loss_scale"])

    facts = checkpoint.load(path, model, optimizer, check)
    if scale is not None:
        scale.load_state_dict(facts["loss_scale"])
    rows: list[Row] = facts["rows"]
    _publish(out, model, began["data"], rows)  # the run may have ended between the checkpoint and these
    return rows


def _keys(found: Any, name: str, expected: list[str]) -> None:
    """Raises ValueError unless `found` is a dict with these keys and no others."""
    if not isinstance(found, dict):
        wrong(ValueError, name, f"a mapping of {', '.join(expected)}", found)
    if differing := [f"{key} is missing" for key in expected if key not in found] + [
        f"{key!r} is unknown" for key in found if key not in expected
    ]:
        raise ValueError(f"{name}: {', '.join(differing)}")


def _same_settings(old: Row, new: Row) -> None:
    _keys(old, "settings", list(new))
    if conflicts := [f"{name} was {old[name]!r} and now is {value!r}" for name, value in new.items() if old[name] != value]:
        raise ValueError(f"a resumed run keeps its settings, but {', '.join(conflicts)}")


def _same_pictures(out: pathlib.Path, facts: Row, began: Row) -> None:
    """Raises ValueError that tells what differs: the classes, the pictures, or what they are called."""
    _keys(facts["data"], "data", list(began["data"]))
    _keys(facts["digests"], "digests", list(began["digests"]))
    differing = [f"the {name} are others" for name, digest in began["digests"].items() if facts["digests"][name] != digest]
    if not differing:
        old, new = facts["data"], json.loads(json.dumps(began["data"]))
        differing = [f"{name} was {old[name]} and now is {value}" for name, value in new.items() if old[name] != value]
    if differing:
        raise ValueError(f"{out} was trained on other pictures or labels: {'; '.join(differing)}")


RANGES = {  # of the numbers in a row, but for its epoch
    "lr": "[0, inf)", "train_loss": "[0, inf)", "train_accuracy": "[0, 1]", "seconds": "[0, inf)",
    "images_per_second": "[0, inf)", "test_loss": "[0, inf)", "test_accuracy": "[0, 1]", "test_balanced_accuracy": "[0, 1]",
}  # fmt: skip


def _check_rows(rows: Any, settings: Settings, scaled: bool) -> None:
    if not isinstance(rows, list) or not 1 <= len(rows) <= settings.epochs:
        came = f"{len(rows)}" if isinstance(rows, list) else repr(rows)
        raise ValueError(f"rows: expected 1 to {settings.epochs}, one for each epoch, got {came}")
    for i, row in enumerate(rows):
        ranges = RANGES | ({"loss_scale": "[1, inf)"} if scaled else {})
        if isinstance(row, dict) and "test_auc" in row:  # of two classes that both come
            ranges |= {"test_auc": "[0, 1]"}
        _keys(row, f"rows[{i}]", ["epoch", *ranges])
        if count(row["epoch"], f"rows[{i}].epoch") != i + 1:
            wrong(ValueError, f"rows[{i}].epoch", str(i + 1), row["epoch"])
        for name, interval in ranges.items():
            number(row[name], f"rows[{i}].{name}", interval)


def _publish(out: pathlib.Path, model: Module, about: Row, rows: list[Row]) -> None:
    """Write what the checkpoint holds into files that are easier to use; metrics.jsonl last, so that its rows have weights."""
    weights.save_arrays(out / "model.safetensors", model.state_dict(), {"data": json.dumps(about)})
    files.write(out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _check_state(model: Module, row: Row) -> None:
    """Nothing that is not finite gets into a checkpoint."""
    bad = [name for name, a in model.state_dict().items() if count_nonfinite(a)]
    if bad or not math.isfinite(row["test_loss"]):
        raise FloatingPointError(
            f"after epoch {row['epoch']}, the test loss is {row['test_loss']}; not finite: {', '.join(bad) or 'no parameter'}"
        )


def _bar(description: str, total: int) -> Any:
    """A progress bar on stderr where that is a terminal, else nothing."""
    form = "{desc} {percentage:3.0f}% {bar:20} {remaining} left{postfix}"
    return tqdm(total=total, desc=description, leave=False, disable=None, bar_format=form)


def _line(row: Row, epochs: int) -> str:
    epoch = f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}"
    train = f"training loss {row['train_loss']:.3f}, accuracy {row['train_accuracy']:.1%}"
    test = f"test loss {row['test_loss']:.3f}, accuracy {row['test_accuracy']:.1%}"
    test += f", balanced {row['test_balanced_accuracy']:.1%}" + (f", AUC {row['test_auc']:.3f}" if "test_auc" in row else "")
    return f"{epoch}  {train}; {test}; {row['images_per_second']:,.0f} images/s, {row['seconds']:.1f} s"
