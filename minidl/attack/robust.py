"""How often is a model right when somebody tries hard to make it wrong? Strong attacks in turn, and the worst they found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

from minidl.arguments import count, number
from minidl.array import Array, array_module, move
from minidl.attack.apgd import apgd
from minidl.attack.ball import Bounds, check_norm, sizes
from minidl.attack.carlini_wagner import carlini_wagner
from minidl.attack.common import PerChannel, check_bounds, inside, on_images
from minidl.attack.result import AttackResult
from minidl.attack.square import square
from minidl.contexts import contained
from minidl.inference.batches import Progress, reporting
from minidl.inference.evaluation import predict
from minidl.inference.images import check_images
from minidl.inference.scores import Target, exact_score, targets
from minidl.metrics import Interval, bootstrap
from minidl.nn import Module

WRONG_ALREADY = "no attack"


@dataclass(frozen=True, eq=False)
class RobustAccuracy:
    """The worst that several attacks found for every image, where x is.

    accuracy: the share of images that no attack broke, and its bootstrap interval.
    clean: the same of the images as they were.
    robust: (N,) bool, those of `accuracy`.
    attacks: the names of the attacks in their order, behind "no attack".
    broken_by: (N,) int64, by which of these, 0: it was wrong already; -1: by none.
    x: (N,C,H,W), the worst image: one that is answered wrongly or, where none is, that with the smallest margin.
    logits: (N,K), of x, from a forward pass after all attacks; the verdicts are theirs.
    y: (N,) int64, the labels.
    params: all settings, those that were left to their defaults too.
    """

    accuracy: Interval
    clean: Interval
    robust: Array
    attacks: tuple[str, ...]
    broken_by: Array
    x: Array
    logits: Array
    y: Array
    params: dict[str, Any] = field(default_factory=dict)

    def to(self, device: str) -> RobustAccuracy:
        """The same with all arrays on `device`, "cpu" or "gpu"."""
        numbers = {"accuracy": self.accuracy, "clean": self.clean}
        return replace(self, **{f.name: move(getattr(self, f.name), device) for f in fields(self) if f.name not in numbers})

    @property
    def counts(self) -> dict[str, int]:
        """How many images each attack broke of those that it was given, the ones wrong already first."""
        return {name: int((self.broken_by == k).sum()) for k, name in enumerate(self.attacks)}

    def __str__(self) -> str:
        N, norm, eps = len(self.robust), self.params["norm"], self.params["eps"]
        lines = [
            f"right under attack {self.accuracy}, without {self.clean}; {N} images, {norm} eps {eps:.4g}",
            *(f"{name:24} broke {n:5}" for name, n in self.counts.items()),
            f"{'none':24} broke {int(self.robust.sum()):5}",
        ]
        return "\n".join(lines)


@contained
def robust_accuracy(
    model: Module,
    x: Array,
    y: Target,
    eps: float = 8 / 255,
    bounds: Bounds = (0, 1),
    norm: str = "linf",
    steps: int = 100,
    candidates: int = 9,
    squares: int = 5000,
    level: float = 0.95,
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> RobustAccuracy:
    """mean over images of [the model answers y for every x' that an attack found in the ball of eps and in the bounds]

    The attacks, each on the images that still stand:

        apgd on the cross-entropy                                  `apgd` with output "logprob"
        apgd on the ratio of logits, towards each other class      with "dlr" and `candidates`
        Carlini and Wagner's, of which counts what is in the ball  `carlini_wagner`, with norm "l2" only
        squares at random                                          `square`

    This is AutoAttack with Carlini and Wagner's attack in the place of FAB: Croce and Hein 2020, "Reliable evaluation of
    adversarial robustness with an ensemble of diverse parameter-free attacks", section 6. It is an upper bound: another attack
    may break more.

    Args:
        x: images (N,C,H,W) in bounds.
        y: the labels, (N,) or one for all.
        steps, candidates: of `apgd`. 100 and 9 are AutoAttack's.
        squares: steps of `square`; 0: none.
        level: of the intervals, from `metrics.bootstrap`.
        seed: of all attacks.
        progress: False, True (a bar), or a function of (done, total), in steps of images.

    The other arguments are those of `pgd`, and so is what is raised: TypeError, ValueError, MemoryError.
    """
    check_norm(norm)
    eps, bounds, level = number(eps, "eps", "[0, inf)"), check_bounds(bounds), number(level, "level", "(0, 1)")
    steps, candidates = count(steps, "steps", 0), count(candidates, "candidates")
    squares, seed, batch_size = count(squares, "squares", 0), count(seed, "seed", 0), count(batch_size, "batch_size")
    net = on_images(model, x, mean, std)
    check_images(net, x, y, "y")
    if y is None:
        raise TypeError(
            "y: expected the labels, (N,) or one for all, got None; of how often an answer changes, pass the answers"
        )
    x = inside(x, bounds)
    xp, N = array_module(x), len(x)
    ball: dict[str, Any] = {"eps": eps, "norm": norm, "seed": seed}
    attacks: dict[str, tuple[int, Callable[..., AttackResult]]] = {  # steps, and what takes them
        "apgd, logprob": (steps, partial(apgd, steps=steps, output="logprob", **ball)),
        "apgd, dlr to a class": (steps * candidates, partial(apgd, steps=steps, candidates=candidates, **ball)),
    }
    if norm == "l2":
        attacks["carlini_wagner"] = (steps * SEARCHES, partial(carlini_wagner, steps=steps, searches=SEARCHES))
    if squares:
        attacks["square"] = (squares, partial(square, steps=squares, **ball))
    with reporting(N * sum(most for most, _ in attacks.values()), progress, "robust_accuracy") as advance:
        before = predict(net, x, batch_size)
        labels, worst = targets(before, y, "y"), x.copy()
        margin, by = exact_score(before, labels, "margin"), xp.zeros(N, "int64")  # of the worst, and who made it
        standing = before.argmax(1) == labels
        for k, (most, run) in enumerate(attacks.values(), 1):
            at, rest = xp.nonzero(standing)[0], N * most
            if len(at):
                tell = Share(advance, rest)
                found = run(net, x[at], labels[at], bounds=bounds, batch_size=batch_size, progress=tell)
                near = sizes(found.delta, norm).reshape(-1).astype("float64") <= eps
                less = exact_score(found.logits, labels[at], "margin")
                worse = near & ((less < margin[at]) | found.success)
                worst[at[worse]], margin[at[worse]], by[at[worse]] = found.x[worse], less[worse], k
                standing[at[near & found.success]] = False
                rest -= tell.done
            advance(rest)
        logits = predict(net, worst, batch_size)
    robust = logits.argmax(1) == labels
    params = {
        "method": "robust_accuracy",
        "eps": eps,
        "bounds": bounds,
        "norm": norm,
        "steps": steps,
        "candidates": candidates,
        "squares": squares,
        "level": level,
        "seed": seed,
    }
    return RobustAccuracy(
        bootstrap(robust, level=level),
        bootstrap(before.argmax(1) == labels, level=level),
        robust,
        (WRONG_ALREADY, *attacks),
        xp.where(robust, -1, by),
        worst,
        logits,
        labels,
        params,
    )


SEARCHES = 9  # of Carlini and Wagner's attack


class Share:
    """The progress of one attack as a part of the whole: all of `most`, whatever total it counts in itself."""

    def __init__(self, advance: Callable[[int], None], most: int) -> None:
        self.advance, self.most, self.done = advance, most, 0

    def __call__(self, done: int, total: int) -> None:
        now = self.most * done // total if total else 0
        self.advance(now - self.done)
        self.done = now
