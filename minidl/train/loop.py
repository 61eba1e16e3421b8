"""The training loop, from the first batch to the last file.

    model = models.resnet20(num_classes=10)
    fit(model, train_set, test_set, Settings(epochs=15), out="runs/mine")

trains with SGD and leaves in the folder `out`

    settings.json           what was asked for
    metrics.jsonl           one line an epoch, see `fit`
    checkpoint.safetensors  all that it takes to go on after the last finished epoch, see `minidl.train.checkpoint`
    model.safetensors       the weights, with the classes and the mean and std of the images in its metadata

Whatever ends the run (Ctrl-C, `kill -9`, a full disk, a loss that is not finite), the files of the last finished epoch stay,
and `fit(..., resume=True)` goes on from there to the same numbers, bit for bit, as if nothing had happened. One process at a
time works in the folder, see `minidl.io.lock`, and it goes on with the settings and images that it began with or not at all.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable

import numpy as np

from minidl import metrics, ops
from minidl.analysis.nonfinite import first_nonfinite
from minidl.arguments import count
from minidl.array import Array
from minidl.core import Tensor
from minidl.data import Augmentation, Compose, Dataset, Loader, Normalize, RandomCrop, RandomFlip
from minidl.inference.evaluation import evaluate
from minidl.inference.memory import batch_in_memory
from minidl.io import lock
from minidl.io.files import Path
from minidl.mixed import mixed
from minidl.nn import Module
from minidl.optim import SGD, Optimizer, Schedule, decay_groups, one_cycle
from minidl.train.cuda_graph import CapturedGradients
from minidl.train.loss_scale import LossScale
from minidl.train.meter import Meter
from minidl.train.run import Row, Run, check_data, digests_of
from minidl.train.settings import FLIPS, Settings


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
    check_data(train_set, test_set, settings)
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

    about = {"classes": train_set.classes, "mean": mean.tolist(), "std": std.tolist(), "images": len(train_set)}
    digests = digests_of(train_set, test_set)
    run = Run(pathlib.Path(out), model, optimizer, scale, settings, about, digests, len(loader))
    # a loss that is not finite gets an error that says more than NumPy's warnings
    with lock.hold(run.out), np.errstate(all="ignore"):
        rows = run.resume() if resume else run.begin()
        if rows:
            after_epoch(rows)
        for epoch in range(len(rows), settings.epochs):
            with batch_in_memory(settings.batch_size):
                row = train_epoch(model, loader, optimizer, schedule, epoch, settings, scale, captured)
            rows.append(row | scores(model, test_set, normalize))
            run.save(rows)
            print(_line(rows[-1], settings.epochs), flush=True)
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
    """One pass over the training images; `epoch` counts from 0. With a `scale`, steps whose gradients overflow are skipped;
    `captured` takes the place of forward, loss and backward.

    Raises FloatingPointError where a loss is not finite, TypeError or ValueError for an epoch that is no integer of at least 0.
    """
    model.train()
    epoch = count(epoch, "epoch", 0)
    loader.set_epoch(epoch)
    with Meter(epoch, settings.epochs, len(loader) * loader.batch_size) as meter:
        for step, (x, labels) in enumerate(loader, start=epoch * len(loader)):
            optimizer.lr = schedule(step)
            optimizer.zero_grad()
            with mixed(settings.precision):
                loss, logits = _forward(model, x, labels, captured)
            right = (logits.data.argmax(1) == labels).sum()  # on a GPU: queued before the loss is waited for
            value = loss.item()
            if not math.isfinite(value):
                if captured is not None:  # once more with ops, to ask where it began
                    with mixed(settings.precision):
                        loss, _ = _forward(model, x, labels)
                raise FloatingPointError(
                    f"the loss is {value} at step {step} (epoch {epoch + 1}, learning rate {optimizer.lr:.3g}). "
                    f"The first values that are not finite: {first_nonfinite(loss)}. A smaller learning rate often helps"
                )
            if _backward(model, loss, scale, captured):
                optimizer.step()
            meter.add(value, int(right), len(x))
    row = {"epoch": epoch + 1, "lr": optimizer.lr, **meter.row()}
    return row if scale is None else row | {"loss_scale": scale.scale}


def _forward(model: Module, x: Array, labels: Array, captured: CapturedGradients | None = None) -> tuple[Tensor, Tensor]:
    """The loss () and the logits (N,K) of one batch; a captured step computes the gradients, too."""
    if captured is not None:
        loss, logits = captured(x, labels)
        return Tensor(loss), Tensor(logits)
    y = model(x)
    return ops.cross_entropy(y, labels), y


def _backward(model: Module, loss: Tensor, scale: LossScale | None, captured: CapturedGradients | None) -> bool:
    """Put the gradients into every `p.grad`; False where one overflows, so that this step is to be left out."""
    if captured is not None:
        return scale is None or scale.unscale(model.parameters())
    if scale is not None:
        return scale.backward(loss)
    loss.backward()
    return True


def scores(model: Module, dataset: Dataset, prepare: Augmentation) -> Row:
    """How good the model is on the images of `dataset`, as `fit` writes it down; `prepare` normalises them."""
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


def _line(row: Row, epochs: int) -> str:
    epoch = f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}"
    train = f"training loss {row['train_loss']:.3f}, accuracy {row['train_accuracy']:.1%}"
    test = f"test loss {row['test_loss']:.3f}, accuracy {row['test_accuracy']:.1%}"
    test += f", balanced {row['test_balanced_accuracy']:.1%}" + (f", AUC {row['test_auc']:.3f}" if "test_auc" in row else "")
    return f"{epoch}  {train}; {test}; {row['images_per_second']:,.0f} images/s, {row['seconds']:.1f} s"
