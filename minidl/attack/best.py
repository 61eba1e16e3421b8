"""What the strong attacks climb, and what they keep: of every image the first that succeeds, or the nearest to that.

The loss of an image is minus the score of its class y or, of a targeted attack, the score. To those of `explain.saliency`
comes the difference of logits ratio of Croce and Hein 2020, with S_1 >= S_2 >= ... the sorted logits:

dlr      (S_y - max_{k != y} S_k) / (S_1 - S_3)                       of an attack that leaves y
         (S_y - max_{k != y} S_k) / (S_1 - (S_3 + S_4) / 2)           of one that is to reach y

Unlike log p_y it keeps its gradient where the softmax is saturated, and it is the same for 2 S as for S. Of 3 classes S_1 - S_3
serves both, and of 2, which have no third logit, the margin S_y - S_k is taken as it is: steps of a fixed length need its
direction alone.
"""

from __future__ import annotations

from minidl.arguments import one_of
from minidl.array import Array, array_module
from minidl.attack.common import answers, reached, scores_of
from minidl.core import Tensor, gradients
from minidl.inference.evaluation import Answering, logits_of
from minidl.inference.scores import OUTPUTS, Output, decisions, exact_score, score
from minidl.nn import Module

LOSSES = (*OUTPUTS, "dlr")
LEAST = 1e-12  # in the place of S_1 - S_3 = 0


def check_output(output: Output) -> None:
    if not callable(output):
        one_of(output, "output", LOSSES)


def losses_of(logits: Tensor, classes: Array, targeted: bool, output: Output) -> Tensor:
    """(N,) of the model's own logits (N,K) and classes (N,)."""
    found = ratio(decisions(logits), classes, targeted) if output == "dlr" else scores_of(logits, classes, output)
    return found if targeted else -found


def ratio(logits: Tensor, classes: Array, targeted: bool) -> Tensor:
    """The difference of logits ratio (N,)."""
    margin, (N, K) = score(logits, classes, "margin"), logits.shape
    if K < 3:
        return margin
    xp = array_module(logits.data)
    order, at = (-logits.data).argsort(axis=1), xp.arange(N)
    first, third = logits[at, order[:, 0]], logits[at, order[:, 2]]
    if targeted and K > 3:
        third = 0.5 * (third + logits[at, order[:, 3]])
    return margin / (first - third + LEAST)


def loss_gradient(net: Answering, x: Array, classes: Array, targeted: bool, output: Output) -> tuple[Array, Array, Array]:
    """The logits (N,K) of one batch, two of a model with one; losses (N,); d loss / dx (N,C,H,W). In `evaluation_mode`."""
    image = Tensor(x, requires_grad=True)
    logits = logits_of(net.model, image)
    losses = losses_of(logits, classes, targeted, output)
    (gx,) = gradients(losses, [image], array_module(x).ones_like(losses.data), keep_graph=False)
    return decisions(logits).data, losses.data, gx


class Best:
    """The best images so far, x (N,C,H,W), of a batch: the first that succeed, or the nearest to that by margin.

    done: (N,) bool, those that succeed. They are not looked for any more.
    """

    def __init__(self, net: Module, x: Array, classes: Array, targeted: bool) -> None:
        self.x, self.classes, self.targeted = x.copy(), classes, targeted
        self.logits = answers(net, x)  # of x as it came
        self.distance = self.distances(self.logits, classes)
        self.done = reached(self.logits, classes, targeted)

    @property
    def todo(self) -> Array:
        """The numbers of the images that stand."""
        found: Array = array_module(self.x).nonzero(~self.done)[0]
        return found

    def distances(self, logits: Array, classes: Array) -> Array:
        """By how much (N,) the margin is on the wrong side; in float64, in which no two margins are the same by rounding."""
        margin = exact_score(logits, classes, "margin")
        return -margin if self.targeted else margin

    def see(self, at: Array, x: Array, logits: Array) -> Array:
        """Images x (n,C,H,W) of the numbers `at` (n,), none of which is done, and their logits. Which (n,) bool still stand."""
        distance, success = self.distances(logits, self.classes[at]), reached(logits, self.classes[at], self.targeted)
        better = success | (distance < self.distance[at])
        self.x[at[better]], self.distance[at[better]] = x[better], distance[better]
        self.done[at] = success
        return ~success


def put(whole: Array, at: Array, x: Array) -> Array:
    """`whole` (N,C,H,W) with the images x (n,C,H,W) at the numbers `at` (n,)."""
    found = whole.copy()
    found[at] = x
    return found
