"""The moving average of a model's weights, which is often better than the last of them, and changes less between epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from minidl.arguments import number
from minidl.array import Array, to_cpu
from minidl.io.named_arrays import compare, overwrite
from minidl.nn.module import Module, check_model


class WeightAverage:
    """a_k = (sum_j d^(k - j) w_j) / (sum_j d^(k - j)), j = 1, ..., k: the mean of the weights w_j after each step, which fade

    average = WeightAverage(model, 0.995)
    for x, labels in loader:
        ...
        optimizer.step()
        average.update()
    with average.applied():
        evaluate(model, validation)

    Over some 1 / (1 - d) steps. w_j are parameters and buffers alike, so that batch norm has the mean of its statistics. It is
    computed as a_k = a_(k-1) + (1 - d) / (1 - d^k) (w_k - a_(k-1)): the first average is the first weights.

    Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging", with fading weights; the correction of
    its beginning is that of Kingma and Ba 2015, "Adam", section 3. `torch.optim.swa_utils.AveragedModel` begins with the
    weights before the first step.

    Args:
        decay: d, in [0, 1); 0 is the last weights.

    Raises TypeError or ValueError for a decay that is none.
    """

    def __init__(self, model: Module, decay: float) -> None:
        check_model(model)
        self.model, self.decay = model, number(decay, "decay", "[0, 1)")
        self.steps = np.zeros(1, np.int64)
        self.arrays: dict[str, Array] = {name: a.copy() for name, a in model._state().items()}

    def update(self) -> None:
        """Count the weights as they are now. Raises ValueError where they have other names or shapes than those of before."""
        state = self.model._state()
        if (now := {name: a.shape for name, a in state.items()}) != (
            before := {name: a.shape for name, a in self.arrays.items()}
        ):
            raise ValueError(
                f"update(): the model has other parameters than the average, {_changes(before, now)}; make a new one"
            )
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay ** int(self.steps[0]))
        for name, w in state.items():
            average = self.arrays[name]
            if share < 1 and average.dtype.kind == "f":
                average += share * (w - average)
            else:
                average[...] = w  # of the first step; and a count has no mean

    @contextmanager
    def applied(self) -> Iterator[None]:
        """`with average.applied():` the model has the average for its weights; after it those of before.

        Raises ValueError before the first step.
        """
        if not self.steps[0]:
            raise ValueError("applied(): there is no average yet; call update() after each step of the optimiser")
        before = self.model.state_dict()
        try:
            self.model.load_state_dict(self.arrays)
            yield
        finally:
            self.model.load_state_dict(before)

    def weights(self) -> dict[str, Array]:
        """Copies of the averages, each of the shape of its parameter, as `model.state_dict()` names and holds them."""
        return {name: np.array(to_cpu(a)) for name, a in self.arrays.items()}

    def state_dict(self) -> dict[str, Array]:
        """Copies of all that it takes to go on: `steps`, (1,), and `weights.*`, the averages, each of the shape of its own."""
        return {"steps": self.steps.copy(), **{f"weights.{name}": a for name, a in self.weights().items()}}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on from `state`, a `state_dict()`, each entry of the shape that it has there.

        Raises ValueError that lists every entry that does not fit, TypeError for what is no mapping, both before any change.
        """
        self.check(state)
        for name, target in self._all().items():
            overwrite(target, state[name])

    def check(self, state: Mapping[str, Array]) -> None:
        """Look at `state`, `steps` and `weights.*`, each of the same shape as here, and change nothing.

        Raises ValueError that lists every entry that does not fit, TypeError for what is no mapping.
        """
        compare(self._all(), state, "state of WeightAverage")
        steps = to_cpu(state["steps"])
        if steps.dtype.kind == "b" or not 0 <= int(steps[0]) < 2**63:
            raise ValueError(f"steps: expected a count of at least 0, got {steps.dtype} {steps.tolist()}")

    def _all(self) -> dict[str, Array]:
        return {"steps": self.steps, **{f"weights.{name}": a for name, a in self.arrays.items()}}


def _changes(before: Mapping[str, tuple[int, ...]], now: Mapping[str, tuple[int, ...]]) -> str:
    name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
    return f"such as {name}: it was {before.get(name, 'not there')} and now is {now.get(name, 'not there')}"
