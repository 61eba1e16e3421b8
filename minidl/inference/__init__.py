"""What explaining, attacking, measuring and training share: a model that is asked, batch by batch."""

from minidl.inference.evaluation import evaluate, predict
from minidl.inference.sliding import sliding_window, starts, tiles

__all__ = [
    "evaluate",
    "predict",
    "sliding_window",
    "starts",
    "tiles",
]
