"""Mean loss, accuracy and rate of the images that an epoch has trained on so far, and a bar that shows them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from minidl.array import Array
from minidl.bar import Bar

FORMAT = "{desc} {percentage:3.0f}% {bar:20} {remaining} left{postfix}"


class Meter:
    """Inside `with Meter(epoch, epochs, images, heads) as meter:` a bar on stderr, where that is a terminal.

    epoch: from 0. images: of an epoch. heads: their names; none where there is but one.
    """

    def __init__(self, epoch: int, epochs: int, images: int, heads: Sequence[str] = ()) -> None:
        self.total, self.heads = images, heads
        self.images, self.loss_sum, self.seconds = 0, 0.0, 0.0
        self.hits, self.known = np.zeros((2, max(1, len(heads))), np.int64)
        self.epochs_left, self.start = epochs - epoch, time.perf_counter()
        self.bar = Bar(total=images, desc=f"epoch {epoch + 1}/{epochs}", leave=False, disable=None, bar_format=FORMAT)

    def add(self, loss: float, hits: Array, known: Array, images: int) -> None:
        """One batch: its mean loss, and, by head, how many images were classified as they should be of how many, (H,) each."""
        self.images += images
        self.loss_sum += loss * images
        self.hits += hits
        self.known += known
        self.seconds = time.perf_counter() - self.start
        left = (self.epochs_left * self.total - self.images) * self.seconds / self.images
        loss, accuracy, rate = self.loss_sum / self.images, self.accuracies().mean(), self.images / self.seconds
        so_far = f"loss {loss:.3f}, accuracy {accuracy:.1%}, {rate:,.0f} images/s"
        self.bar.set_postfix_str(f"{so_far}, {Bar.format_interval(left)} to the end", refresh=False)
        self.bar.update(images)

    def accuracies(self) -> Array:
        """(H,): of a head of which no label has come, 0."""
        return self.hits / np.maximum(self.known, 1)

    def row(self) -> dict[str, Any]:
        """What a row of metrics.jsonl holds of it."""
        accuracies = self.accuracies()
        return {
            "train_loss": self.loss_sum / self.images,
            "train_accuracy": float(accuracies.mean()),
            **{f"train_{head}_accuracy": float(a) for head, a in zip(self.heads, accuracies, strict=False)},
            "seconds": self.seconds,
            "images_per_second": self.images / self.seconds,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
