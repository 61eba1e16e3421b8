"""The training loop, from the first batch to the last file.

    model = models.resnet20(num_classes=10)
    fit(model, train_set, Settings(epochs=15, validation=0.1, select="balanced_accuracy"), out="runs/mine")
    evaluate_run("runs/mine", {"ResNet": models.resnet20}, test_set)

trains, chooses an epoch by images that it holds out, and leaves in the folder `out`

    settings.json           what was asked for
    metrics.jsonl           one line an epoch, see `fit`
    checkpoint.safetensors  all that it takes to go on after the last finished epoch, see `minidl.train.checkpoint`
    model.safetensors       the weights of the chosen epoch, and what it takes to use them on a new file, see
                            `minidl.train.contract`; when all epochs are done, with temperature and decision, see
                            `minidl.train.decision`

Test images have no part in it: see `minidl.train.evaluation`.

The checkpoint is written before its epoch is validated, and again with the scores. Whatever ends the run (Ctrl-C, `kill -9`, a
full disk, a loss that is not finite, a validation for which there is no memory), the files of the last finished epoch stay,
and `fit(..., resume=True)` goes on from there to the same numbers, bit for bit, as if nothing had happened. One process at a
time works in the folder, see `minidl.io.lock`, and it goes on with the settings and images that it began with or not at all.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from minidl import metrics, parallel
from minidl.analysis.nonfinite import first_nonfinite
from minidl.arguments import count, flag, wrong
from minidl.array import Array, array_module, to_cpu, to_device
from minidl.core import Tensor, walk
from minidl.data import Dataset, Loader
from minidl.data.dataset import check_dataset
from minidl.inference.evaluation import evaluate
from minidl.inference.heads import UNKNOWN, slices
from minidl.inference.memory import batch_in_memory
from minidl.io import lock
from minidl.io.files import Path
from minidl.mixed import mixed
from minidl.nn.module import Module, check_model
from minidl.ops.sync import synchronized
from minidl.optim import SGD, AdamW, Optimizer, Schedule, WeightAverage, one_cycle
from minidl.parallel import ALONE, Communicator
from minidl.train.augmentation import augmentation
from minidl.train.balance import BalancedLoader, class_weights, counted, largest_shares
from minidl.train.contract import Contract
from minidl.train.cuda_graph import CapturedGradients
from minidl.train.data_parallel import Walk, check_ranks, go_on_together, loss_for, still_together, walk_for
from minidl.train.decision import DecisionRule, calibrated, chosen, suspicious, targets
from minidl.train.history import History
from minidl.train.load import check_answers
from minidl.train.loss import Loss, main_logits
from minidl.train.loss_scale import LossScale
from minidl.train.meter import Meter
from minidl.train.run import Run, digests_of, hold_out
from minidl.train.selection import PREFIX, Row, best_epoch, by_head, described, is_finished, scores, validated
from minidl.train.settings import Settings
from minidl.train.transfer import frozen_layers, parameter_groups, start_from, still


def fit(
    model: Module,
    train_set: Dataset,
    settings: Settings,
    out: Path,
    validation: Dataset | None = None,
    resume: bool = False,
    after_epoch: Callable[[list[Row]], None] = lambda rows: None,
    arguments: Mapping[str, Any] | None = None,
    world: Communicator | None = None,
) -> History:
    """Train `model`, in place, and return what metrics.jsonl holds. In the end it has the weights of the chosen epoch.

    `validation`: images to choose an epoch by, where `settings.validation` holds none out. `after_epoch` is called with the
    rows after every epoch, and at the start of a run that is resumed, because what it made of the last epoch may be missing.

    `settings.model`, or the name of the model's class, and `arguments` are what `load_run` builds the net by: those that the
    model was made with, without a seed; by default num_classes and in_channels.

    world: the ranks that train together, by default all that `mpiexec` has started. Each is called with the same arguments and
    takes its share of every batch, see `minidl.train.data_parallel`; the first one writes and prints, and all return the same.

    A row has `epoch` (from 1), `lr` (at its last step), `train_loss` and `train_accuracy` (over the augmented batches as they
    were trained on), `train_majority_accuracy` (what the largest class gets for every answer), with validation images
    `validation_loss`, `validation_accuracy`, `validation_majority_accuracy`, `validation_balanced_accuracy` and
    `validation_auc`, see `minidl.train.selection`, `seconds` and `images_per_second` (of training alone), and in float16
    `loss_scale`. The validation is in float32. With class weights `train_loss` is the weighted mean.

    Where the labels are of several heads, the model's logits are (N,K1+K2+...), these heads side by side in the order of the
    labels, as a last linear layer of so many outputs gives them. The loss is the sum over the heads of the mean over the images
    whose label is known. A row then tells each score of each head, such as `validation_malignancy_auc` and
    `train_malignancy_accuracy`, and beside them their means, by which `settings.select` chooses.

    Raises:
        FileExistsError: the folder holds a run already, and `resume` is False.
        FileNotFoundError: there is nothing to resume, or the checkpoint of a run that has results is gone.
        BlockingIOError: another process is at work in the folder; the message tells which.
        ValueError: settings, data and model do not go together, or with those of the run that is to be resumed; the model
            answers other than a logit for each class; a class has no images, or a head no known label; a file of that run, or
            of weights, is damaged. The model is as it was, but for its device, and for `settings.weights`.
        FloatingPointError: a loss is not finite; the message tells where that began.
        BatchMemoryError: a MemoryError; the message tells how much memory was held. What it held is free again.
        RuntimeError: several ranks were started and mpi4py is missing, or another rank has ended.
        OSError: a file could not be written; those of the last finished epoch are as they were.
    """
    world = parallel.world() if world is None else world
    check_model(model)
    check_dataset(train_set, "train_set")
    if validation is not None:
        check_dataset(validation, "validation")
    if not isinstance(settings, Settings):
        wrong(TypeError, "settings", "a minidl.train.Settings", settings)
    check_ranks(world, model, settings)
    resume = flag(resume, "resume")
    train_set, validation = hold_out(train_set, validation, settings)
    flips = settings.flip if settings.test_flips else "none"
    contract = Contract.of(train_set, settings.model or type(model).__name__, arguments, settings.page, flips)
    loader = (BalancedLoader if settings.balance == "sample" else Loader)(
        train_set,
        settings.batch_size,
        augment=augmentation(settings, contract),
        seed=settings.seed,
        drop_last=True,
        device=settings.device,
        share=(world.rank, world.size),
    )

    parameter_groups(model, settings)  # whose errors come before the weights
    begun = resume and pathlib.Path(out, "checkpoint.safetensors").exists()
    told = start_from(model, settings.weights, settings.key, settings.prefix) if settings.weights and not begun else []
    model.to(settings.device)
    check_answers(model, contract)
    groups = parameter_groups(model, settings)
    optimizer = AdamW(groups, settings.lr) if settings.optimizer == "adamw" else SGD(groups, settings.lr, 0.9, nesterov=True)
    schedule = one_cycle(settings.lr, settings.epochs * len(loader), settings.warmup)
    scale = LossScale() if settings.precision == "float16" else None
    weights = on_device(class_weights(train_set), settings.device) if settings.balance == "weights" else None
    loss = loss_for(world, model, weights, train_set.classes)
    walk_back = walk_for(world)
    captured = CapturedGradients(model, loss, scale) if settings.cuda_graph else None
    average = WeightAverage(model, settings.ema) if settings.ema else None

    sets = {"training": train_set} | ({} if validation is None else {"validation": validation})
    about = {"classes": train_set.classes, "mean": contract.mean, "std": contract.std}
    about |= {name: len(d) for name, d in sets.items()}
    steps, validates = len(loader), validation is not None
    run = Run(
        pathlib.Path(out), model, optimizer, scale, settings, contract, about, digests_of(sets), steps, validates, average
    )
    # a loss that is not finite gets an error that says more than NumPy's warnings
    with world.block(lock.hold, run.out), np.errstate(all="ignore"):
        world.agree(run.digests | {"the settings": json.dumps(settings.what())})

        def validate(rows: list[Row]) -> None:
            if validation is not None:
                with average.applied() if average is not None else nullcontext():
                    found = scores(model, validation, contract.normalize, settings.batch_size, flips, world)
                rows[-1] |= {f"{PREFIX}{name}": value for name, value in found.items()}
                world.first(run.save, rows)

        rows = world.first(run.resume if resume else run.begin)
        go_on_together(world, model, optimizer, scale, average)
        world.say(*(f"{name}: {counted(d)}" for name, d in sets.items()), *told)
        if rows and not run.is_scored(rows[-1]):
            validate(rows)
        if rows:
            world.first(after_epoch, rows)
        while not is_finished(rows, settings):
            with batch_in_memory(settings.batch_size), synchronized(world if settings.sync_batch_norm else ALONE):
                row = train_epoch(
                    model, loader, optimizer, schedule, len(rows), settings, scale, captured, loss, average, walk_back
                )
            still_together(world, model, average)
            rows.append(world.first(lambda row: row, row))
            world.first(run.save, rows)  # whatever becomes of the validation
            validate(rows)
            world.say(_line(rows[-1], settings.epochs, train_set.heads))
            world.first(after_epoch, rows)
        best = world.first(lambda: run.best)
        if settings.select != "last" and best is not None:
            model.load_state_dict(best)
            world.say(_chosen(rows, settings))
        elif average is not None:
            model.load_state_dict(average.weights())
        if validation is not None:
            contract = world.first(_determined, contract, model, validation, settings)
            world.first(run.settle, contract)
        elif targets(contract.classes, settings.target):
            world.say("operating point: none, for there are no validation images; the likeliest class decides")
    return History(rows)


def _determined(contract: Contract, model: Module, validation: Dataset, settings: Settings) -> Contract:
    """With the temperature and the decision of this model on the validation images, of several heads those of each."""
    _, logits, labels = evaluate(model, validation, settings.batch_size, contract.normalize, contract.test_flips)
    if not contract.heads:
        temperature, rule = _decided(logits, labels, contract.classes, settings.target, settings, "")
        return replace(contract, temperature=temperature, decision=rule, validation=len(labels))
    found = {}
    for head, known in by_head(logits, labels, contract.heads).items():
        classes = contract.heads[head]
        target = settings.target if settings.target in classes else ""
        found[head] = _decided(*known, classes, target, settings, f"{head}: ")
    temperatures, rules = ({head: pair[i] for head, pair in found.items()} for i in (0, 1))
    return replace(contract, temperature=temperatures, decision=rules, validation=len(validation))


def _decided(
    logits: Array, labels: Array, classes: Sequence[str], target: str, settings: Settings, name: str
) -> tuple[float, DecisionRule | None]:
    """Temperature and decision of one head, which are printed behind its `name`."""
    temperature, told = calibrated(logits, labels)
    print(f"{name}{told}", flush=True)
    if (number := suspicious(classes, target)) is None:
        return temperature, None
    p = metrics.probabilities(logits, temperature)
    wanted = settings.sensitivity if target == settings.target else None  # of another head's class
    rule, told = chosen(p, labels, classes, number, wanted)
    print(f"{name}{told}", flush=True)
    return temperature, rule


def train_epoch(
    model: Module,
    loader: Loader,
    optimizer: Optimizer,
    schedule: Schedule,
    epoch: int,
    settings: Settings,
    scale: LossScale | None = None,
    captured: CapturedGradients | None = None,
    loss: Loss | None = None,
    average: WeightAverage | None = None,
    walk_back: Walk = walk,
) -> Row:
    """One pass over the training images; `epoch` counts from 0. With a `scale`, steps whose gradients overflow are skipped;
    `average` counts the weights after each of the others. `captured` takes the place of forward, loss and backward; `loss` is
    by default `Loss(model)`. The layers of `settings.freeze` stay as they are. walk_back: of several ranks, see
    `minidl.train.data_parallel`.

    Raises FloatingPointError where a loss is not finite, TypeError or ValueError for an epoch that is no integer of at least 0,
    ValueError for a layer to freeze that the model has not.
    """
    check_model(model)
    model.train()
    dataset, stays = loader.dataset, frozen_layers(model, settings.freeze)
    loss = loss or Loss(model, classes=dataset.classes)
    epoch = count(epoch, "epoch", 0)
    loader.set_epoch(epoch)
    with Meter(epoch, settings.epochs, len(loader) * loader.batch_size, dataset.heads) as meter:
        for step, (x, labels) in enumerate(loader, start=epoch * len(loader)):
            labels = columns_of(labels)
            optimizer.lr = schedule(step)
            optimizer.zero_grad()
            with mixed(settings.precision), still(stays):
                y, logits = _forward(model, loss, x, labels, captured)
            right, known = _right(logits.data, labels, loss)  # on a GPU: queued before the loss is waited for
            value = y.item()
            if not math.isfinite(value):
                if captured is not None:  # once more with ops, to ask where it began
                    with mixed(settings.precision), still(stays):
                        y, _ = _forward(model, loss, x, labels)
                raise FloatingPointError(
                    f"the loss is {value} at step {step} (epoch {epoch + 1}, learning rate {optimizer.lr:.3g}). "
                    f"The first values that are not finite: {first_nonfinite(y)}. A smaller learning rate often helps"
                )
            told = loss.world.start_sum(np.array([value, len(x), *to_cpu(right), *to_cpu(known)], np.float64))
            if _backward(model, y, scale, captured, walk_back):
                optimizer.step()
                if average is not None:
                    average.update()
            value, images, *counts = told.wait()
            hits, of_known = np.array(counts, np.int64).reshape(2, -1)
            meter.add(float(value), hits, of_known, int(images))
    row = {"epoch": epoch + 1, "lr": optimizer.lr, **meter.row()}
    shares = largest_shares(loader)
    row["train_majority_accuracy"] = float(np.mean(list(shares.values())))
    row |= {f"train_{head}_majority_accuracy": shares[head] for head in dataset.heads}
    return row if scale is None else row | {"loss_scale": scale.scale}


def columns_of(labels: Any) -> Array:
    """Labels (N,) as they are; of several heads, name -> (N,), a column for each, (N,H)."""
    if not isinstance(labels, Mapping):
        return labels
    columns = list(labels.values())
    return array_module(columns[0]).stack(columns, 1)


def on_device(weights: Any, device: str) -> Any:
    """Class weights, or those of each head, where the model is."""
    if isinstance(weights, Mapping):
        return {head: to_device(a, device) for head, a in weights.items()}
    return to_device(weights, device)


def _right(logits: Array, labels: Array, loss: Loss) -> tuple[Array, Array]:
    """How many images each head classifies as they should be, of how many whose label is known, (H,) each."""
    xp = array_module(labels)
    heads = slices(loss.heads).values() if loss.heads else [slice(None)]
    answers = xp.stack([logits[:, columns].argmax(1) for columns in heads], 1)  # (N,H)
    labels = labels.reshape(answers.shape)
    return (answers == labels).sum(0), (labels != UNKNOWN).sum(0)


def _forward(
    model: Module, loss: Loss, x: Array, labels: Array, captured: CapturedGradients | None = None
) -> tuple[Tensor, Tensor]:
    """The loss () and the logits (N,K) of one batch; a captured step computes the gradients, too."""
    if captured is not None:
        value, logits = captured(x, labels)
        return Tensor(value), Tensor(logits)
    output = model(x)
    return loss(output, labels), main_logits(output)


def _backward(
    model: Module, loss: Tensor, scale: LossScale | None, captured: CapturedGradients | None, walk_back: Walk
) -> bool:
    """Put the gradients into every `p.grad`; False where one overflows, so that this step is to be left out."""
    if captured is not None:
        return scale is None or scale.unscale(model.parameters())
    if scale is not None:
        return scale.backward(loss, walk_back)
    for step in walk_back(loss, keep_graph=False, apart=False):
        del step  # or its arrays would live on through the next step
    return True


def _line(row: Row, epochs: int, heads: tuple[str, ...] = ()) -> str:
    epoch = f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}"
    told = []
    for head in heads or ("",):
        name, prefix = (f"{head} ", f"train_{head}_") if head else ("", "train_")
        told.append(f"{name}accuracy {row[f'{prefix}accuracy']:.1%}")
        told[-1] += f" (always the largest class: {row[f'{prefix}majority_accuracy']:.1%})"
    train = f"training loss {row['train_loss']:.3f}, {', '.join(told)}"
    if validated(row):
        train += f"; validation loss {row[f'{PREFIX}loss']:.3f}, {described(row, PREFIX, heads)}"
    return f"{epoch}  {train}; {row['images_per_second']:,.0f} images/s, {row['seconds']:.1f} s"


def _chosen(rows: list[Row], settings: Settings) -> str:
    best = best_epoch(rows, settings.select)
    assert best is not None
    early = f", which {len(rows) - 1 - best} more were no better than" if len(rows) < settings.epochs else ""
    name, value = settings.select.replace("_", " "), rows[best][f"{PREFIX}{settings.select}"]
    return f"the weights of epoch {best + 1} are kept{early}: validation {name} {value:.3f}"
