"""Training: the settings, the loop, and the folder of a run, which whatever ends it leaves whole."""

from minidl.train.contract import Contract
from minidl.train.load import TrainedNet, load_run
from minidl.train.loop import fit, scores, train_epoch
from minidl.train.loss_scale import LossScale
from minidl.train.run import Row
from minidl.train.settings import FLIPS, Settings

__all__ = [
    "FLIPS",
    "Contract",
    "LossScale",
    "Row",
    "Settings",
    "TrainedNet",
    "fit",
    "load_run",
    "scores",
    "train_epoch",
]
