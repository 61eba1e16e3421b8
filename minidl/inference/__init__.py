"""What explaining, attacking, measuring and training share: a model that is asked, batch by batch."""

from minidl.inference.evaluation import evaluate, predict
from minidl.inference.heads import Heads
from minidl.inference.sliding import sliding_window, starts, tiles

__all__ = [
    "Heads",
    "evaluate",
    "predict",
    "sliding_window",
    "starts",
    "tiles",
]
