"""Mean loss, accuracy and rate of the images that an epoch has trained on so far, and a bar that shows them."""

from __future__ import annotations

import time
from typing import Any, Self

from tqdm import tqdm

BAR = "{desc} {percentage:3.0f}% {bar:20} {remaining} left{postfix}"


class Meter:
    """Inside `with Meter(epoch, epochs, images) as meter:` a bar on stderr, where that is a terminal; `epoch` counts from 0."""

    def __init__(self, epoch: int, epochs: int, images: int) -> None:
        self.total = images  # of an epoch
        self.images, self.loss_sum, self.hits, self.seconds = 0, 0.0, 0, 0.0
        self.epochs_left, self.start = epochs - epoch, time.perf_counter()
        self.bar = tqdm(total=images, desc=f"epoch {epoch + 1}/{epochs}", leave=False, disable=None, bar_format=BAR)

    def add(self, loss: float, hits: int, images: int) -> None:
        """One batch: its mean loss, and how many of its images were classified as they should be."""
        self.images += images
        self.loss_sum += loss * images
        self.hits += hits
        self.seconds = time.perf_counter() - self.start
        left = (self.epochs_left * self.total - self.images) * self.seconds / self.images
        loss, accuracy, rate = self.loss_sum / self.images, self.hits / self.images, self.images / self.seconds
        so_far = f"loss {loss:.3f}, accuracy {accuracy:.1%}, {rate:,.0f} images/s"
        self.bar.set_postfix_str(f"{so_far}, {tqdm.format_interval(left)} to the end", refresh=False)
        self.bar.update(images)

    def row(self) -> dict[str, Any]:
        """What a row of metrics.jsonl holds of it."""
        return {
            "train_loss": self.loss_sum / self.images,
            "train_accuracy": self.hits / self.images,
            "seconds": self.seconds,
            "images_per_second": self.images / self.seconds,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
