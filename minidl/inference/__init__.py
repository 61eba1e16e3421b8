"""What explaining, attacking, measuring and training share: a model that is asked, batch by batch."""

from minidl.inference.evaluation import evaluate, predict

__all__ = [
    "evaluate",
    "predict",
]
