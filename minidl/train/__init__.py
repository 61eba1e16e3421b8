"""Training: the settings, the loop, and the folder of a run, which whatever ends it leaves whole."""

from minidl.train.contract import Contract
from minidl.train.decision import DecisionRule
from minidl.train.evaluation import evaluate_run
from minidl.train.history import History
from minidl.train.load import TrainedNet, load_run
from minidl.train.loop import fit, train_epoch
from minidl.train.loss_scale import LossScale
from minidl.train.selection import Row, is_finished, scores
from minidl.train.settings import FLIPS, Settings
from minidl.train.transfer import start_from

__all__ = [
    "FLIPS",
    "Contract",
    "DecisionRule",
    "History",
    "LossScale",
    "Row",
    "Settings",
    "TrainedNet",
    "evaluate_run",
    "fit",
    "is_finished",
    "load_run",
    "scores",
    "start_from",
    "train_epoch",
]
