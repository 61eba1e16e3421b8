"""The training loop: what it leaves behind, whatever ends it, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from typing import ClassVar

import numpy as np
import pytest

from minidl import Tensor, kernels, nn, ops, weights
from minidl.data import Dataset, lesions
from minidl.inference import evaluate
from minidl.inference.memory import BatchMemoryError
from minidl.optim import one_cycle
from minidl.train import Contract, Row, Settings, fit, load_run
from tests.gpu import strict_cupy

SETTINGS = Settings(epochs=3, batch_size=16, lr=0.05, crop=2, flip="both")
FILES = ["checkpoint.safetensors", "metrics.jsonl", "model.safetensors", "settings.json"]
TIMES = ("seconds", "images_per_second")
ROOT = pathlib.Path(__file__).parents[2]
TRAIN, TEST = lesions(40, seed=0), lesions(21, seed=1)


class Net(nn.Module):
    """Small, with everything that has a state: batch norm, and dropout with its random generator."""

    def __init__(self, classes: int = 2, channels: int = 4, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.conv = nn.Conv2d(3, channels, 3, stride=2, rng=rng)
        self.bn = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.2, rng=np.random.default_rng(seed + 1))
        self.linear = nn.Linear(channels, classes, rng=rng)
        self.calls = 0
        self.name_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        y = self.last(ops.relu(self.bn(self.conv(x))))
        return self.linear(self.dropout(ops.global_avg_pool2d(y)))

    def last(self, y: Tensor) -> Tensor:
        return y


class BreaksAt(Net):
    """The same until, in training, it is called for the n-th time: it is interrupted, gives NaN, or waits to be killed."""

    def __init__(self, n: int, how: str) -> None:
        super().__init__()
        self.n, self.how = n, how

    def last(self, y: Tensor) -> Tensor:
        if self.training and self.calls == self.n:
            if self.how == "interrupt":
                raise KeyboardInterrupt
            if self.how == "wait":
                print("waiting", flush=True)
                time.sleep(60)
            return ops.log(y - 1e6)
        return y


def without_times(rows: list[Row]) -> list[Row]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def read(out: pathlib.Path) -> list[Row]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def contents(out: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def same_run(a: pathlib.Path, b: pathlib.Path) -> bool:
    """Same metrics but for the times, and the same weights and facts about the data, bit for bit."""
    (mine, about), (others, about_others) = (weights.load_arrays(out / "model.safetensors") for out in (a, b))
    same_weights = mine.keys() == others.keys() and all(mine[k].tobytes() == others[k].tobytes() for k in mine)
    return without_times(read(a)) == without_times(read(b)) and same_weights and about == about_others


def load_own(out: pathlib.Path) -> tuple[nn.Module, Contract]:
    net = load_run(out, {"Net": lambda num_classes, in_channels: Net(num_classes)})
    return net.model, net.contract


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    fit(Net(), TRAIN, SETTINGS, out, TEST)
    return out


# ---- what a run leaves


def test_files(whole: pathlib.Path) -> None:
    assert sorted(contents(whole)) == FILES
    assert Settings.of_run(whole) == SETTINGS
    assert json.loads((whole / "settings.json").read_text())["lr"] == 0.05


def test_rows(whole: pathlib.Path) -> None:
    rows = read(whole)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    schedule = one_cycle(0.05, total_steps=6)  # 40 images are two batches of 16, the rest is left out
    assert [row["lr"] for row in rows] == [schedule(1), schedule(3), schedule(5)]
    for row in rows:
        assert row["images_per_second"] == pytest.approx(32 / row["seconds"])
        assert 0 < row["train_loss"] < 5 and row["train_accuracy"] * 32 == round(row["train_accuracy"] * 32)


def test_the_last_row_is_that_of_the_weights(whole: pathlib.Path) -> None:
    model, contract = load_own(whole)
    assert contract.classes == ("benign", "malignant")
    loss, logits, labels = evaluate(model, TEST, SETTINGS.batch_size, contract.normalize)
    last = read(whole)[-1]
    assert last["validation_loss"] == loss and last["validation_accuracy"] == (logits.argmax(1) == labels).mean()
    right = [(logits.argmax(1) == labels)[labels == k].mean() for k in (0, 1)]
    assert last["validation_balanced_accuracy"] == pytest.approx(np.mean(right))
    score = logits[:, 1] - logits[:, 0]
    assert last["validation_auc"] == pytest.approx((score[labels == 1][:, None] > score[labels == 0]).mean())


def test_the_seed_decides(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    fit(Net(), TRAIN, SETTINGS, tmp_path / "again", TEST)
    assert same_run(whole, tmp_path / "again")
    fit(Net(), TRAIN, replace(SETTINGS, seed=1), tmp_path / "other", TEST)
    assert not same_run(whole, tmp_path / "other")


def test_it_learns(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)

    def light_or_dark(n: int) -> Dataset:
        labels = rng.integers(0, 2, n)
        noise = rng.integers(0, 100, (n, 3, 32, 32))
        return Dataset((noise + 100 * labels[:, None, None, None]).astype(np.uint8), labels, ("dark", "light"))

    rows = fit(Net(), light_or_dark(160), replace(SETTINGS, epochs=4), tmp_path / "run", light_or_dark(40))
    assert (
        rows[-1]["validation_accuracy"] == 1
        and rows[-1]["validation_auc"] == 1
        and rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    )


def test_the_auc_of_three_classes_is_the_mean_of_each_against_the_others(tmp_path: pathlib.Path) -> None:
    train, test = (Dataset(d.images, np.arange(len(d)) % 3, ("a", "b", "c")) for d in (TRAIN, TEST))
    rows = fit(Net(3), train, replace(SETTINGS, epochs=1), tmp_path / "run", test)
    net = load_run(tmp_path / "run", {"Net": lambda num_classes, in_channels: Net(num_classes)})
    _, logits, labels = evaluate(net.model, test, SETTINGS.batch_size, net.contract.normalize)
    p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    each = [(p[labels == k, k][:, None] > p[labels != k, k]).mean() for k in range(3)]
    assert rows[0]["validation_auc"] == pytest.approx(np.mean(each))


def test_after_epoch_sees_the_files_of_the_epoch(tmp_path: pathlib.Path) -> None:
    seen = []
    fit(Net(), TRAIN, SETTINGS, tmp_path / "run", TEST, after_epoch=lambda rows: seen.append(rows == read(tmp_path / "run")))
    assert seen == [True] * 3


def test_one_line_an_epoch_and_no_bar_without_a_terminal(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Net(), TRAIN, SETTINGS, tmp_path / "run", TEST)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    counts, epochs = lines[:2], lines[2:-2]
    n = np.bincount(TRAIN.labels)
    assert counts[0] == f"training: 40 images: 'benign' {n[0]}, 'malignant' {n[1]}" and counts[1].startswith(
        "validation: 21 images"
    )
    assert [line[:9] for line in epochs] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("always the largest class: " in line for line in epochs)
    assert [line.split(":")[0] for line in lines[-2:]] == ["temperature", "operating point"]
    assert "AUC" in printed.out and printed.err == ""


# ---- evaluation


@pytest.mark.parametrize("batch_size", [1, 4, 21, 100])
def test_evaluate(batch_size: int) -> None:
    model = Net().train()
    x = (TEST.images / np.float32(255)).astype(np.float32)
    logits = model.eval()(x).data
    model.train()
    loss, found, labels = evaluate(model, TEST, batch_size)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-6)
    assert labels is TEST.labels and model.training and model.calls == 0
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert loss == pytest.approx(-log_p[np.arange(21), labels].mean(), rel=1e-5)


# ---- interrupted and resumed


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6])
def test_resumed_after_an_interruption_at_any_step(whole: pathlib.Path, tmp_path: pathlib.Path, at: int) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(BreaksAt(at, "interrupt"), TRAIN, SETTINGS, out, TEST)
    finished = (at - 1) // 2  # epochs
    if finished:
        assert without_times(read(out)) == without_times(read(whole))[:finished]
        with open(out / "metrics.jsonl", "a") as file:  # as if it had been written by a program that was killed
            file.write('{"epoch": 2, "lr"')
    fit(Net(seed=9), TRAIN, SETTINGS, out, TEST, resume=True)  # the state comes from the checkpoint, if there is one
    if finished:
        assert same_run(whole, out) and sorted(contents(out)) == FILES
    else:
        assert [row["epoch"] for row in read(out)] == [1, 2, 3]


def test_killed_in_the_middle_of_an_epoch(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "run"
    run = f"from {__name__} import *; fit(BreaksAt(4, 'wait'), TRAIN, SETTINGS, {str(out)!r}, TEST)"
    command = [sys.executable, "-c", run]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert lines[2].startswith("epoch 1/3") and lines[3] == "waiting\n"
    assert without_times(read(out)) == without_times(read(whole))[:1] and sorted(contents(out)) == [".lock", *FILES]
    (out / f".checkpoint.safetensors.{process.pid}.tmp").write_bytes(b"killed while it wrote this")
    fit(Net(seed=9), TRAIN, SETTINGS, out, TEST, resume=True)
    assert same_run(whole, out) and sorted(contents(out)) == FILES


def test_killed_between_the_checkpoint_and_the_other_files(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("settings.json", "checkpoint.safetensors"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    rows = fit(Net(), TRAIN, SETTINGS, tmp_path, TEST, resume=True)
    assert same_run(whole, tmp_path) and rows == read(whole)


def test_a_run_is_not_written_over(whole: pathlib.Path) -> None:
    before = contents(whole)
    with pytest.raises(FileExistsError, match="holds a run already"):
        fit(Net(), TRAIN, SETTINGS, whole, TEST)
    assert contents(whole) == before


def test_other_settings_than_those_of_the_run(whole: pathlib.Path) -> None:
    before = contents(whole)
    with pytest.raises(ValueError, match=r"keeps its settings, but epochs was 3 and now is 5, lr was 0\.05 and now is 0\.1"):
        fit(Net(), TRAIN, replace(SETTINGS, epochs=5, lr=0.1), whole, TEST, resume=True)
    assert contents(whole) == before
    fit(Net(), TRAIN, replace(SETTINGS, root="elsewhere"), whole, TEST, resume=True)  # data may move


def test_other_images_than_those_of_the_run(whole: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="trained on other images"):
        fit(Net(), lesions(40, seed=7), SETTINGS, whole, TEST, resume=True)


def test_other_labels_or_another_test_set_than_those_of_the_run(whole: pathlib.Path) -> None:
    """Whose mean, std, number and classes are the same."""
    before, last = contents(whole), TEST.images.copy()
    last[-1, -1, -1, -1] ^= 1
    for train, test, differing in (
        (Dataset(TRAIN.images, 1 - TRAIN.labels, TRAIN.classes), TEST, "the training labels are others"),
        (TRAIN, Dataset(TEST.images, 1 - TEST.labels, TEST.classes), "the validation labels are others"),
        (TRAIN, Dataset(last, TEST.labels, TEST.classes), "the validation images are others"),
        (TRAIN.take(np.arange(40)[::-1]), TEST, "the training images are others; the training labels are others"),
        (TRAIN, TEST.take(np.arange(20)), "the validation images are others; the validation labels are others"),
    ):
        with pytest.raises(ValueError, match=f"trained on other images or labels: {differing}$"):
            fit(Net(), train, SETTINGS, whole, test, resume=True)
    renamed = [Dataset(d.images, d.labels, ("a", "b")) for d in (TRAIN, TEST)]
    with pytest.raises(ValueError, match=r"labels: classes was \['benign', 'malignant'\] and now is \['a', 'b'\]$"):
        fit(Net(), renamed[0], SETTINGS, whole, renamed[1], resume=True)
    assert contents(whole) == before


def test_settings_that_were_edited(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name, content in contents(whole).items():
        (tmp_path / name).write_bytes(content)
    edited = replace(SETTINGS, epochs=5, lr=0.3)
    (tmp_path / "settings.json").write_text(json.dumps(asdict(edited)))
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match=r"checkpoint\.safetensors: a resumed run keeps its settings, but epochs was 3 and now is 5"
    ):
        fit(Net(), TRAIN, edited, tmp_path, TEST, resume=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("left", [["metrics.jsonl"], ["model.safetensors"], ["model.safetensors", "metrics.jsonl"]])
def test_a_checkpoint_that_is_gone(whole: pathlib.Path, tmp_path: pathlib.Path, left: list[str]) -> None:
    for name in ["settings.json", *left]:
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    before = contents(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"checkpoint\.safetensors is missing, but {' and '.join(left)} are there"):
        fit(Net(), TRAIN, SETTINGS, tmp_path, TEST, resume=True)
    with pytest.raises(FileExistsError, match="holds a run already"):
        fit(Net(), TRAIN, SETTINGS, tmp_path, TEST)
    assert contents(tmp_path) == before


def test_settings_of_something_else_are_not_written_over(tmp_path: pathlib.Path) -> None:
    (tmp_path / "settings.json").write_text('{"editor.fontSize": 12}')
    with pytest.raises(FileExistsError, match=r"holds a settings\.json of something else, choose another folder"):
        fit(Net(), TRAIN, SETTINGS, tmp_path, TEST)
    assert contents(tmp_path) == {"settings.json": b'{"editor.fontSize": 12}'}


def test_files_of_others_stay(tmp_path: pathlib.Path) -> None:
    others = [".notes.1234.tmp", ".mine.tmp", f".checkpoint.safetensors.{os.getppid()}.tmp"]
    for name in others:
        (tmp_path / name).write_text(name)
    fit(Net(), TRAIN, replace(SETTINGS, epochs=1), tmp_path, TEST)
    fit(Net(), TRAIN, replace(SETTINGS, epochs=1), tmp_path, TEST, resume=True)
    assert sorted(contents(tmp_path)) == sorted([*FILES, *others])


def test_a_run_that_is_done_is_published_again(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What was made of the last epoch may be that of the one before."""
    for name, content in contents(whole).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "model.safetensors").write_text("")
    drawn: list[int] = []
    fit(Net(), TRAIN, SETTINGS, tmp_path, TEST, resume=True, after_epoch=lambda rows: drawn.append(len(rows)))
    assert drawn == [3] and sorted(contents(tmp_path)) == FILES and same_run(tmp_path, whole)


def test_class_names_that_are_no_text(tmp_path: pathlib.Path) -> None:
    """As Python reads names of files that are no UTF-8: the weights keep them."""
    names = ("caf\udce9", "$\\frac{$ \u202e\n")
    train, test = (Dataset(d.images, d.labels, names) for d in (TRAIN, TEST))
    fit(Net(), train, replace(SETTINGS, epochs=1, data="\udcff"), tmp_path, test)
    rows = fit(Net(), train, replace(SETTINGS, epochs=1, data="\udcff"), tmp_path, test, resume=True)
    assert load_own(tmp_path)[1].classes == names and rows == read(tmp_path)


def test_a_folder_that_is_at_work(tmp_path: pathlib.Path) -> None:
    """In after_epoch: the thread that trains may hold it again, nobody else."""
    found: list[str] = []

    def other(rows: list[Row]) -> None:
        def again() -> None:
            try:
                fit(Net(), TRAIN, SETTINGS, tmp_path, TEST, resume=True)
            except BlockingIOError as error:
                found.append(str(error))

        thread = threading.Thread(target=again)
        thread.start()
        thread.join()

    fit(Net(), TRAIN, replace(SETTINGS, epochs=1), tmp_path, TEST, after_epoch=other)
    assert len(found) == 1 and f"process {os.getpid()} on " in found[0] and sorted(contents(tmp_path)) == FILES


def test_a_checkpoint_of_another_model(whole: pathlib.Path) -> None:
    before = contents(whole)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is of another model") as caught:
        fit(Net(channels=5), TRAIN, SETTINGS, whole, TEST, resume=True)
    assert "conv.weight: (4, 3, 3, 3) float32, expected (5, 3, 3, 3) float32" in str(caught.value)
    with pytest.raises(ValueError, match="1 random generators, the model has 0"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), TRAIN, SETTINGS, whole, TEST, resume=True)
    assert contents(whole) == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "weights"])
def test_a_damaged_checkpoint(whole: pathlib.Path, tmp_path: pathlib.Path, damage: str) -> None:
    for name, content in contents(whole).items():
        (tmp_path / name).write_bytes(content)
    raw = bytearray((whole / "checkpoint.safetensors").read_bytes())
    if damage == "cut":
        raw = raw[:-100]
    elif damage == "flipped":
        raw[-100] ^= 1
    else:
        raw = bytearray((whole / "model.safetensors").read_bytes())
    (tmp_path / "checkpoint.safetensors").write_bytes(raw)
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors.*(damaged|is no checkpoint of a training)"):
        fit(Net(), TRAIN, SETTINGS, tmp_path, TEST, resume=True)


def test_nothing_to_resume(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing to resume in .*settings\.json is missing"):
        fit(Net(), TRAIN, SETTINGS, tmp_path / "none", TEST, resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"epochs": 3, "speed": 9}', '{"epochs": -1}'])
def test_damaged_settings(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        Settings.of_run(tmp_path)


# ---- stopped


def test_a_loss_that_is_not_finite(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(FloatingPointError) as caught:
        fit(BreaksAt(4, "nan"), TRAIN, SETTINGS, out, TEST)  # filterwarnings=error: and NumPy says nothing on the way
    message = str(caught.value)
    assert "the loss is nan at step 3 (epoch 2, learning rate" in message
    assert "the output after layer bn of <Log of" in message and "test_train.py" in message and "in last" in message
    assert without_times(read(out)) == without_times(read(whole))[:1]
    fit(Net(), TRAIN, SETTINGS, out, TEST, resume=True)
    assert same_run(whole, out)


def test_a_learning_rate_that_is_far_too_large(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FloatingPointError, match=r"the (loss|validation loss) is (nan|inf)"):
        fit(Net(), TRAIN, replace(SETTINGS, lr=1e30, warmup=0), tmp_path / "run", TEST)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_validation_loss_that_is_nan(tmp_path: pathlib.Path) -> None:
    """Is what the error tells of, and not the metrics, which refuse logits of NaN."""

    class NotInEvaluation(Net):
        def last(self, y: Tensor) -> Tensor:
            return y if self.training else y * np.nan

    with pytest.raises(FloatingPointError, match="after epoch 1, the validation loss is nan"):
        fit(NotInEvaluation(), TRAIN, SETTINGS, tmp_path / "run", TEST)


def test_no_state_that_is_not_finite_is_kept(tmp_path: pathlib.Path) -> None:
    class Hides(Net):
        """Its loss stays finite while a buffer does not."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", np.zeros(2, np.float32))

        def last(self, y: Tensor) -> Tensor:
            if self.calls == 4:
                self.seen = np.array([1, np.inf], np.float32)
            return y

    with pytest.raises(FloatingPointError, match=r"after epoch 2, .*not finite: seen"):
        fit(Hides(), TRAIN, SETTINGS, tmp_path / "run", TEST)
    assert len(read(tmp_path / "run")) == 1


def test_a_disk_that_fills_up(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """No file may be larger than 1,000 bytes once the first epoch is done; then there is room again."""
    out, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(rows: list[Row]) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.raises(OSError, match=r"could not write .*checkpoint\.safetensors: .*what was there before is unchanged"):
            fit(Net(), TRAIN, SETTINGS, out, TEST, after_epoch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(contents(out)) == FILES and len(read(out)) == 1
    fit(Net(), TRAIN, SETTINGS, out, TEST, resume=True)
    assert same_run(whole, out)


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_test_that_fails_loses_no_epoch(
    whole: pathlib.Path, tmp_path: pathlib.Path, epoch: int, error: type[BaseException]
) -> None:
    class FailsInEvaluation(Net):
        after = 2 * epoch  # steps

        def last(self, y: Tensor) -> Tensor:
            if not self.training and self.calls == self.after and y.shape[0] > 1:  # which the blank image is not
                raise error
            return y

    expected = BatchMemoryError if error is MemoryError else error
    message = "a batch of 16 does not fit in memory: .*Take a smaller batch_size, such as 8" if error is MemoryError else None
    with pytest.raises(expected, match=message):
        fit(FailsInEvaluation(), TRAIN, SETTINGS, tmp_path, TEST)
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert len(read(tmp_path)) == epoch - 1 if epoch > 1 else not (tmp_path / "metrics.jsonl").exists()
    before, again = contents(tmp_path), FailsInEvaluation()
    again.after = 0
    with pytest.raises(expected, match=message):
        fit(again, TRAIN, SETTINGS, tmp_path, TEST, resume=True)
    assert contents(tmp_path) == before
    net = Net(seed=9)
    drawn: list[int] = []
    fit(net, TRAIN, SETTINGS, tmp_path, TEST, resume=True, after_epoch=lambda rows: drawn.append(len(rows)))
    assert same_run(whole, tmp_path) and sorted(contents(tmp_path)) == FILES
    assert net.calls == 2 * (3 - epoch) and drawn == list(range(epoch, 4))  # no step is done twice


def test_the_test_takes_no_more_at_a_time_than_the_training(tmp_path: pathlib.Path) -> None:
    class Notes(Net):
        seen: ClassVar[set[tuple[bool, int]]] = set()

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add((self.training, len(x)))
            return super().forward(x)

    fit(Notes(), TRAIN, replace(SETTINGS, epochs=1), tmp_path, TEST)
    assert Notes.seen == {(True, 16), (False, 16), (False, 5), (False, 1)}  # the last is the blank image of the beginning


@pytest.mark.ci
@pytest.mark.parametrize(("size", "batch_size", "images"), [(32, 128, 512), (256, 1, 40)])
def test_the_test_takes_no_more_memory_than_the_training(
    size: int, batch_size: int, images: int, tmp_path: pathlib.Path
) -> None:
    """The process's largest memory before and after the first test, which comes after 4 steps of training or more."""
    script = f"""if True:
        import resource
        import models
        from minidl.data import lesions
        from minidl.train import Settings, fit, loop
        peak, scores = [], loop.scores
        def measured(*arguments):
            for after in False, True:
                row = scores(*arguments) if after else None
                peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            return row
        loop.scores = measured
        d = lesions({images}, {size})
        settings = Settings(epochs=1, batch_size={batch_size})
        fit(models.resnet20(2), d, settings, {str(tmp_path)!r}, d)
        print(*peak)"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    before, after = map(int, done.stdout.splitlines()[-1].split())
    assert after < 1.2 * before, f"{before / 1024:.0f} MiB, {after / 1024:.0f} with the test"


@pytest.mark.parametrize(("size", "most"), [(16, 250), (32, 250), (64, 62), (256, 3), (512, 1)])
def test_large_images_are_evaluated_a_few_at_a_time(size: int, most: int) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            self.linear, self.most = nn.Linear(3, 2), 0

        def forward(self, x: Tensor) -> Tensor:
            self.most = max(self.most, len(x))
            return self.linear(ops.global_avg_pool2d(x))

    model, n = Mean(), min(most + 1, 251)
    evaluate(model, Dataset(np.zeros((n, 3, size, size), np.uint8), np.zeros(n, np.int64), ("only", "none")))
    assert model.most == most


# ---- refused before anything is written


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": math.nan}, r"lr: expected a number in \(0, inf\), got nan"),
        ({"lr": math.inf}, r"lr: expected a number in \(0, inf\), got inf"),
        ({"lr": -0.1}, r"got -0\.1"),
        ({"lr": 0.0}, r"lr: expected a number in \(0, inf\), got 0\.0"),
        ({"weight_decay": -1.0}, r"weight_decay: expected a number in \[0, inf\), got -1\.0"),
        ({"warmup": 1.0}, r"warmup: expected a number in \[0, 1\), got 1\.0"),
        ({"epochs": 0}, "epochs: expected an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        ({"limit": 0}, "limit: expected an integer of at least 1, got 0"),
        ({"crop": -1}, "crop: expected an integer of at least 0, got -1"),
        ({"flip": "diagonal"}, r"flip: expected one of \('none', 'horizontal', 'both'\), got 'diagonal'"),
        ({"cuda_graph": True}, "cuda_graph: it needs device 'gpu', got 'cpu'"),
        ({"device": "tpu"}, r"device: expected one of \('cpu', 'gpu'\), got 'tpu'"),
    ],
)
def test_settings_that_cannot_be(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)  # type: ignore[arg-type]


def test_settings_of_another_type() -> None:
    with pytest.raises(TypeError, match=r"epochs: expected an integer of at least 1, got 1\.5"):
        Settings(epochs=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"lr: expected a number in \(0, inf\), got 'fast'"):
        Settings(lr="fast")  # type: ignore[arg-type]


def test_data_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="batch_size: 64 is more than the 40 training images"):
        fit(Net(), TRAIN, replace(SETTINGS, batch_size=64), out, TEST)
    with pytest.raises(ValueError, match=r"validation: expected the classes \('benign', 'malignant'\), got \('a', 'b'\)"):
        fit(Net(), TRAIN, SETTINGS, out, Dataset(TEST.images, TEST.labels, ("a", "b")))
    with pytest.raises(ValueError, match=r"images of \(3, 32, 32\) \(C,H,W\), validation of \(3, 33, 33\)"):
        fit(Net(), TRAIN, SETTINGS, out, lesions(4, size=33))
    assert not out.exists()


# ---- on the GPU, or what stands for it


def test_the_gpu_gives_the_numbers_of_the_cpu(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kernels.use("reference"):
        on_cpu = fit(Net(), TRAIN, SETTINGS, tmp_path / "cpu", TEST)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        model, settings = Net(), replace(SETTINGS, device="gpu")
        on_gpu = fit(model, TRAIN, settings, tmp_path / "gpu", TEST)
        assert {p.device for p in model.parameters()} == {"gpu"}
        assert fit(Net(), TRAIN, SETTINGS, tmp_path / "gpu", TEST, resume=True) == on_gpu  # it may go on elsewhere
    for a, b in zip(without_times(on_cpu), without_times(on_gpu), strict=True):
        assert b == pytest.approx(a, rel=1e-4)
