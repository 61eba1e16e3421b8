"""Who asks a model, in whatever thread, and however the asking ends, leaves it as it was."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, evaluate, explain, kernels, nn, ops
from minidl.contexts import Block, Setting, contained
from minidl.core import no_grad, recording
from minidl.data import Dataset
from minidl.inference import evaluate as evaluate_loss
from minidl.inference.gradients import gradients_at
from minidl.mixed import half, mixed
from tests.attack.nets import ATTACKS
from tests.explain.nets import METHODS
from tests.inference import askers
from tests.inference.askers import ASKERS, bits, in_threads, interrupted, model_and_images, state

ROOT = Path(__file__).parents[2]


def in_another_thread(f: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(f()))
    thread.start()
    thread.join()
    return found[0]


# ---- evaluating() and frozen() hold for this model in this thread


def test_another_thread_sees_the_model_as_it_is() -> None:
    model, _ = model_and_images()
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]

    def modes() -> Any:
        return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]

    with model.evaluating() as same, model.frozen():
        assert same is model and modes() == ([False] * len(model.modules()), [False] * len(model.parameters()))
        assert in_another_thread(modes) == before
    assert modes() == before


def test_another_model_trains_inside() -> None:
    asked, other = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5)), nn.Sequential(nn.BatchNorm2d(2))
    x = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    with asked.evaluating(), asked.frozen():
        ops.sum(other.train()(x) ** 2).backward()
        asked(x)
        assert other.training and other[0].training
    assert (other[0].running_mean != 0).all() and (other[0].weight.grad != 0).any()
    assert (asked[0].running_mean == 0).all()


def test_a_part_of_a_model() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    with model[0].evaluating(), model[1].frozen():
        assert (model.training, model[0].training, model[1].training) == (True, False, True)
        assert [p.requires_grad for p in model.parameters()] == [True, True, False, False]


def test_blocks_may_be_nested_and_end_in_any_order() -> None:
    model = nn.Linear(2, 2)

    def held() -> Iterator[None]:
        with model.evaluating():
            yield

    first, second = held(), held()
    next(first)
    next(second)
    first.close()
    assert not model.training
    second.close()
    assert model.training
    with model.frozen(), model.frozen():
        with model.frozen():
            pass
        assert not model.weight.requires_grad
    assert model.weight.requires_grad


def test_the_state_itself_can_be_seen_and_set() -> None:
    model = nn.Linear(2, 2)
    with model.evaluating(), model.frozen():
        model.eval()  # which agrees
        model.weight.requires_grad = False
        assert vars(model)["training"] is False and vars(model.bias)["requires_grad"] is True
    assert not model.training and not model.weight.requires_grad and model.bias.requires_grad
    twin = copy.deepcopy(model)
    assert not twin.training and not twin.weight.requires_grad and twin.bias.requires_grad


def test_training_inside_is_refused_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2)).eval()
    model[1].train()
    with model[1].evaluating():
        with pytest.raises(
            RuntimeError, match=r"Sequential.train\(\): this thread is inside `with model.evaluating\(\):`.*leave"
        ):
            model.train()
        with pytest.raises(RuntimeError, match=r"BatchNorm2d.training = True: this thread"):
            model[1].training = True
        assert in_another_thread(lambda: model[0].train().training)
    assert not model.training and model[0].training and model[1].training
    with model.frozen(), pytest.raises(RuntimeError, match=r"requires_grad = True: this thread is inside `with model.frozen"):
        model[0].weight.requires_grad = True


def test_repr_shows_what_holds_in_this_thread() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    plain = repr(model)
    with model.evaluating(), model.frozen():
        assert repr(model) == f"evaluating and frozen, in this thread: {plain}"
        assert in_another_thread(lambda: repr(model)) == plain
        assert repr(model[0]).startswith("evaluating and frozen, in this thread: Linear(")
    with model.frozen():
        assert repr(model) == f"frozen, in this thread: {plain}"
        assert "frozen" in repr(model[0].weight)
    assert repr(model) == plain and "frozen" not in repr(model[0].weight)


def test_no_generator_holds_an_override_at_its_yield() -> None:
    model, x = model_and_images()
    before = state(model)
    running = gradients_at(model, lambda part, k: x[part], 3, np.zeros(2, np.int64), "logit", 1)
    for _ in range(3):
        next(running)
        assert state(model) == before


def test_progress_is_told_outside() -> None:
    model, x = model_and_images()
    before, told = state(model), []

    def progress(done: int, total: int) -> None:
        told.append(state(model) == before)

    for name in METHODS.keys() - {"evidence_maps"}:
        ask, settings = METHODS[name]
        ask(model, x, **settings, progress=progress)
    explain.meaningful_perturbation(model, x, iterations=2, stride=2, progress=progress)
    explain.extremal_perturbation(model, x, iterations=2, areas=(0.2, 0.5), levels=2, blur=2.0, progress=progress)
    for name in ("pgd", "universal"):
        ATTACKS[name](model, x, 1, progress=progress)
    evaluate.randomization(model, x, explain.saliency, progress=progress)
    assert len(told) > 10 and all(told)


# ---- settings, blocks, contained calls


def test_a_setting_is_that_of_the_innermost_block() -> None:
    setting = Setting("depth", 0)
    with Block(None, (setting, 1)):
        with Block("result", (setting, 2)) as result:
            assert setting.value == 2 and result == "result" and in_another_thread(lambda: setting.value) == 0
        assert setting.value == 1
    assert setting.value == 0
    block = Block(None, (setting, 3))
    with block:
        with block:
            assert setting.value == 3
        assert setting.value == 3
    assert setting.value == 0


def test_one_block_serves_several_threads() -> None:
    setting = Setting("depth", 0)
    block, inside, leave = Block(None, (setting, 1)), threading.Event(), threading.Event()

    def other() -> int:
        with block:
            inside.set()
            leave.wait(10)
        return setting.value

    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(other()))
    thread.start()
    inside.wait(10)
    with block:
        leave.set()
        thread.join()
        assert found == [0] and setting.value == 1
    assert setting.value == 0


def test_preparing_a_batch_sees_the_model_as_it_is() -> None:
    model, x = model_and_images()
    before, seen = state(model)[0], []

    def prepare(images: Any, rng: Any) -> Any:
        seen.append([m.training for m in model.modules()] == before)
        return images.astype(np.float32)

    evaluate_loss(model, Dataset((255 * x).astype(np.uint8), np.arange(2), ("a", "b", "c")), 1, prepare)
    assert seen == [True, True]


def test_a_contained_call_leaves_every_setting() -> None:
    @contained
    def interrupted_while_leaving() -> None:
        no_grad().__enter__()
        ops.unfused().__enter__()
        kernels.use("reference").__enter__()
        mixed("float16").__enter__()
        assert not recording() and not ops.fusing() and half() is not None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_while_leaving()
    assert recording() and ops.fusing() and half() is None
    assert kernels.of(np.zeros(1, np.float32)).__name__ == "minidl.kernels.compiled"


# ---- eight threads, and Ctrl-C


@pytest.mark.ci
def test_eight_threads_ask_one_model_beside_a_training() -> None:
    """In a process of its own, in which nothing but this has run: what is found here is found again."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.inference.askers", "--calls", "3", "--interrupts", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{3 * len(ASKERS)} calls of {len(ASKERS)} askers in 8 threads: 0 wrong" in done.stdout
    assert f"{len(ASKERS)} calls on a model in training: 0 wrong" in done.stdout


def test_threads_that_ask_for_gradients_and_for_layers() -> None:
    asked, wrong = in_threads(["saliency", "grad_cam"], calls=20)
    assert asked == 40 and not wrong, "\n".join(wrong)


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # where Ctrl-C comes into a destructor
@pytest.mark.parametrize("name", ASKERS)
def test_interrupted_at_random_moments(name: str) -> None:
    came, wrong = interrupted(name, 20)
    assert came > 0 and not wrong, "\n".join(wrong)


def test_the_checks_see_what_is_altered(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(model: nn.Module, x: Any) -> Any:
        model.eval()
        time.sleep(0.01)
        model.train()

    monkeypatch.setitem(ASKERS, "careless", careless)
    _, wrong = in_threads(["careless"], calls=10)
    assert wrong
    _, wrong = interrupted("careless", 10)
    assert wrong


def test_a_thread_that_hangs_is_told_of_with_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    free, asked = threading.Event(), threading.current_thread()

    def waiting(model: nn.Module, x: Any) -> None:
        if threading.current_thread() is not asked:
            free.wait(60)

    monkeypatch.setitem(ASKERS, "waiting", waiting)
    monkeypatch.setattr(askers, "HANGS", 1.0)
    _, wrong = in_threads(["waiting"], calls=1)
    free.set()
    assert any(" hangs in threading.py:" in line and " < test_askers.py:" in line for line in wrong), wrong


def test_bits_tell_arrays_apart() -> None:
    assert bits({"a": [np.zeros(2)]}) == bits({"a": [np.zeros(2)]}) != bits({"a": [-np.zeros(2)]})
    assert isinstance(Tensor(np.zeros(2)), Tensor)
