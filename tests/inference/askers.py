"""Everything that asks a model, on nets and images so small that hundreds of calls take seconds.

    python -m tests.inference.askers --calls 100 --interrupts 200

runs each of them 100 times in eight threads at once on one model, beside a training, and interrupts each 200 times at random
moments. Every answer has to be the one of a single thread, and the model as it was. A table tells how often what was done.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from minidl import Tensor, attack, cost, evaluate, explain, flow, inference, kernels, nn, ops, optim, trace, view
from minidl.array import Array
from minidl.contexts import contained
from minidl.core import recording
from minidl.data import Dataset
from minidl.mixed import half
from minidl.train import Contract, TrainedNet
from tests.attack.nets import ATTACKS
from tests.explain.nets import METHODS, Net

SIZE = 8
HANGS = 300.0  # seconds without an answer, after which the threads are said to wait for one another
Ask = Callable[[nn.Module, Array], Any]


def model_and_images() -> tuple[Net, Array]:
    """A net with a dropout, in training, one of its layers in evaluation and one of its parameters frozen, and images."""
    model = Net()
    model.drop = nn.Dropout(0.3, rng=np.random.default_rng(3))
    model.bn2.eval()
    model.conv1.weight.requires_grad = False
    return model, np.random.default_rng(1).uniform(0, 1, (2, 3, SIZE, SIZE)).astype(np.float32)


@contained  # what blocks of one's own need, if Ctrl-C is to come at any moment
def _pixel_flow(model: nn.Module, x: Array) -> Any:
    with model.evaluating(), model.frozen(), ops.unfused():
        image = Tensor(x[:1], requires_grad=True)
        return flow.pixel_flow(flow.BackwardPass(model(image)[0, 1]), image, (0, 1, 3, 4)).sums


@contained
def _trace(model: nn.Module, x: Array) -> Any:
    with model.evaluating(), model.frozen(), ops.unfused():
        return [record.gradient_norm for record in trace(model(Tensor(x[:1], requires_grad=True))[0, 1]).records]


@contained
def _stepper(model: nn.Module, x: Array) -> Any:
    with TemporaryDirectory() as folder, model.evaluating():
        return view.stepper(model, x[:1], path=Path(folder, "page.html")).read_text()


def _scores(model: nn.Module, x: Array) -> Any:
    images = (255 * x).astype(np.uint8)
    return inference.evaluate(model, Dataset(images, np.arange(len(x)), ("a", "b", "c")), prepare=lambda x, rng: x)


MAPS = np.random.default_rng(2).normal(size=(2, SIZE, SIZE))
CONTRACT = Contract("Net", {}, ("a", "b", "c"), 3, SIZE, SIZE, "uint8", (0, 255), (0.5,) * 3, (0.5,) * 3, temperature=2.0)
ASKERS: dict[str, Ask] = {
    **{name: partial(ask, **settings) for name, (ask, settings) in METHODS.items()},
    "meaningful_perturbation": partial(explain.meaningful_perturbation, iterations=3, stride=2),
    "extremal_perturbation": partial(explain.extremal_perturbation, iterations=3, areas=(0.2, 0.5), levels=2, blur=2.0),
    "predict": inference.predict,
    "probabilities": lambda model, x: TrainedNet(model, CONTRACT).probabilities(x, 1),
    "sliding_window": partial(inference.sliding_window, window=5, stride=2, batch_size=3),
    **{name: lambda model, x, attacked=attacked: attacked(model, x, 1) for name, attacked in ATTACKS.items()},
    "robust_accuracy": lambda model, x: attack.robust_accuracy(
        model, x, 1, norm="l2", eps=0.5, steps=2, candidates=2, squares=3, batch_size=1
    ),
    "class_image": lambda model, x: attack.class_image(model, x.shape[1:], 1, steps=3),
    "linearity": lambda model, x: attack.linearity(model, x[:1], count=5),
    "deletion": lambda model, x: evaluate.deletion(model, x, MAPS, steps=4),
    "insertion": lambda model, x: evaluate.insertion(model, x, MAPS, steps=4),
    "road": lambda model, x: evaluate.road(model, x, MAPS, shares=(0.3, 0.8)),
    "infidelity": lambda model, x: evaluate.infidelity(model, x, MAPS, samples=5),
    "max_sensitivity": lambda model, x: evaluate.max_sensitivity(model, x, explain.saliency, samples=2),
    "completeness": lambda model, x: evaluate.completeness(model, x, explain.integrated_gradients(model, x, steps=3).raw),
    "randomization": lambda model, x: evaluate.randomization(model, x, explain.saliency, every=3),
    "evaluate": _scores,
    "cost": lambda model, x: str(cost(model, x.shape[1:])),
    "pixel_flow": _pixel_flow,
    "trace": _trace,
    "stepper": _stepper,
}


def bits(answer: Any) -> Any:
    """An answer as something that compares: arrays as their bytes."""
    if isinstance(answer, np.ndarray | np.generic):
        return answer.shape, str(answer.dtype), answer.tobytes()
    if is_dataclass(answer):
        return [(f.name, bits(getattr(answer, f.name))) for f in fields(answer)]
    if isinstance(answer, dict):
        return [(key, bits(value)) for key, value in answer.items()]
    return [bits(item) for item in answer] if isinstance(answer, list | tuple) else answer


def state(model: nn.Module) -> Any:
    """All that a question has to leave as it was: the model's modes and numbers, and the settings of this thread."""
    parameters = [(p.requires_grad, p.grad is None, p.data.tobytes()) for p in model.parameters()]
    rngs = [str(rng.bit_generator.state) for rng in model.generators()]
    buffers = [a.tobytes() for _, a in model.named_buffers()]
    attributes = [sorted(vars(module).keys() - {"_named"}) for module in model.modules()]
    thread = recording(), ops.fusing(), half(), kernels.of(np.zeros(1, np.float32)).__name__, np.geterr(), repr(model)
    return [m.training for m in model.modules()], parameters, rngs, buffers, attributes, thread


def trained(steps: int, model: Net | None = None) -> list[bytes]:
    """What so many steps make of a net's parameters and statistics."""
    model = Net(seed=7) if model is None else model
    rng, optimizer = np.random.default_rng(0), optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(steps):
        assert model.training and model.bn1.training
        optimizer.zero_grad()
        x = rng.normal(size=(4, 3, SIZE, SIZE)).astype(np.float32)
        ops.cross_entropy(model(x), rng.integers(0, 3, 4)).backward()
        optimizer.step()
    return [a.tobytes() for a in model.state_dict().values()]


def where(thread: threading.Thread) -> str:
    """The lines that a thread stands in, the innermost first."""
    frame, lines = sys._current_frames().get(thread.ident or 0), list[str]()
    while frame is not None:
        lines.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        frame = frame.f_back
    return f"in {' < '.join(lines)}"


def in_threads(names: list[str], calls: int, threads: int = 8, on_the_trained: bool = False) -> tuple[int, list[str]]:
    """Ask one model everything at once, each `calls` times, beside a training; how often, and what went wrong.

    on_the_trained: it is the model itself that is trained meanwhile. Then its answers change, and what counts is the training.
    """
    model, x = model_and_images()
    if on_the_trained:
        model = Net(seed=7)
    single, before, wrong, asked = {name: bits(ASKERS[name](model, x)) for name in names}, state(model), list[str](), []
    work = iter([name for _ in range(calls) for name in names])
    lock, done = threading.Lock(), threading.Event()

    def ask() -> None:
        own = state(model) if not on_the_trained else None
        while True:
            with lock:
                name = next(work, None)
            if name is None:
                break
            try:
                same = bits(ASKERS[name](model, x)) == single[name] or on_the_trained
                if not same or (own is not None and state(model) != own):
                    wrong.append(
                        f"{name}: {'the model is not as it was' if same else 'another answer than that of one thread'}"
                    )
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}")
            asked.append(name)

    steps, interval = 5, sys.getswitchinterval()
    alone = trained(steps)

    def train() -> None:
        while not done.is_set():
            if trained(steps, model if on_the_trained else None) != alone:
                wrong.append("a training beside them ends with other numbers")
            if on_the_trained or not any(worker.is_alive() for worker in workers):
                done.set()

    workers = [threading.Thread(target=ask, name=f"asker {i}", daemon=True) for i in range(threads)]
    running = [*workers, threading.Thread(target=train, name="training", daemon=True)]
    sys.setswitchinterval(1e-5)  # a thread gives way in the middle of everything
    for thread in running:
        thread.start()
    seen, since = 0, time.monotonic()
    while (stuck := [thread for thread in running if thread.is_alive()]) and time.monotonic() - since < HANGS:
        stuck[0].join(0.1)
        if len(asked) > seen:
            seen, since = len(asked), time.monotonic()
    sys.setswitchinterval(interval)
    if stuck:
        return len(asked), [*wrong, *(f"{thread.name} hangs {where(thread)}" for thread in stuck)]
    if not on_the_trained and state(model) != before:
        wrong.append("in the end the model is not as it was")
    return len(asked), wrong


def interrupted(name: str, times: int, seed: int = 0) -> tuple[int, list[str]]:
    """Ctrl-C at so many random moments of a call; how often it came in time, and what was not as before.

    The exceptions are kept, as a notebook keeps the last ones: what waits for them to be forgotten would never be mended.
    """
    model, x = model_and_images()
    ask, rng, kept, wrong, came = ASKERS[name], random.Random(seed), list[BaseException](), list[str](), 0
    answer, took = bits(ask(model, x)), list[float]()
    for _ in range(3):  # one of them may have met the collection of garbage, which takes longer than the call
        start = time.perf_counter()
        ask(model, x)
        took.append(time.perf_counter() - start)
    seconds, before = min(took), state(model)
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(times):
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.random() * seconds))
                ask(model, x)
                signal.setitimer(signal.ITIMER_REAL, 0)
                time.sleep(1e-6)  # for one that is on its way
            except KeyboardInterrupt as error:
                kept.append(error)
                came += 1
            if state(model) != before:
                wrong.append(f"{name}: the model or a setting is not as it was")
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    if bits(ask(model, x)) != answer:
        wrong.append(f"{name}: another answer than before")
    return came, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100, help="of each asker, shared by eight threads")
    parser.add_argument("--interrupts", type=int, default=200, help="of each asker")
    parser.add_argument("--only", nargs="+", choices=ASKERS, default=list(ASKERS))
    asked = parser.parse_args()
    start = time.perf_counter()
    calls, wrong = in_threads(asked.only, asked.calls)
    print(f"{calls} calls of {len(asked.only)} askers in 8 threads: {len(wrong)} wrong, {time.perf_counter() - start:.0f} s")
    calls, more = in_threads(asked.only, max(1, asked.calls // 10), on_the_trained=True)
    print(f"{calls} calls on a model in training: {len(more)} wrong")
    wrong += more
    for name in asked.only if asked.interrupts else ():
        came, more = interrupted(name, asked.interrupts)
        print(f"{name:25} {came:4} of {asked.interrupts} interrupts came in time: {len(more)} wrong", flush=True)
        wrong += more
    for line, group in itertools.groupby(sorted(wrong)):
        print(f"{len(list(group))} x {line}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
