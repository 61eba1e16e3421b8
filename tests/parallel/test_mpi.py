"""Ranks that mpiexec starts: the numbers of one rank, the same bits in every run, and an end of all when one ends."""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from importlib.util import find_spec

import pytest

from tests.parallel.equality import BATCHES, first_gradients, run, steps, twenty_losses
from tests.parallel.stopped import AT_ONCE, ROOT, TRAIN, gone, kill_and_resume, mpiexec, pids_of, start
from tests.train.stopped import TIMES, rows_of, state

pytestmark = [
    pytest.mark.ci,
    pytest.mark.oracle,  # of an environment that has MPI
    pytest.mark.skipif(find_spec("mpi4py") is None or mpiexec() is None, reason="mpi4py or mpiexec is missing"),
]
SHORT = [*TRAIN, "--epochs", "2"]


@pytest.mark.parametrize("net", ["resnet20", "densenet_bc16"])
def test_the_first_gradient_is_that_of_one_rank(net: str, tell: Callable[[str], None]) -> None:
    for dtype, batches in ("float64", (32,)), ("float32", BATCHES):
        found, ulps = first_gradients(dtype, batches, "--net", net)
        of_largest = (
            f"at most {max(found):.1e} of the largest, at least {min(found):.1e}; by one ulp of the weights {max(ulps):.1e}"
        )
        tell(f"{net}, {dtype}, 2 and 3 ranks: the first gradients differ by {of_largest}")
        assert max(found) < (1e-12 if dtype == "float64" else 1e-5)


def test_twenty_losses_differ_as_those_of_an_ulp(tell: Callable[[str], None]) -> None:
    by_ranks, by_ulp = twenty_losses("--net", "resnet8")
    tell(f"twenty losses of two ranks differ by {by_ranks:.1e}, of two runs whose weights differ by an ulp by {by_ulp:.1e}")
    assert by_ranks < 3 * by_ulp


def test_the_same_bits_in_every_run() -> None:
    first, again = (steps(3, "--net", "resnet8", "--steps", "3") for _ in range(2))
    assert {name: a.tobytes() for name, a in first.items()} == {name: a.tobytes() for name, a in again.items()}


def test_a_training_that_is_resumed_by_another_number_of_ranks(tmp_path: pathlib.Path) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    run(2, *SHORT, "--out", str(whole))
    assert sorted(path.name for path in whole.iterdir() if path.name.startswith(".")) == []
    text = run(2, "-c", INTERRUPTED.replace("OUT", str(out)), code=1)
    assert "rank 1 of 2" in text and "after the first epoch" in text
    assert len(rows_of((out / "metrics.jsonl").read_text())) == 1
    for ranks in 1, 3:  # as many epochs are left, whoever does them; the sums are added up in another order
        other = shutil.copytree(out, tmp_path / f"by {ranks}")
        assert "epoch 2/2" in run(ranks, *SHORT, "--out", str(other), "--resume")
        rows = [rows_of((folder / "metrics.jsonl").read_text()) for folder in (other, whole)]
        assert rows[0][0] == rows[1][0] and len(rows[0]) == 2 and rows[0][1] != rows[1][1]
    resumed = run(2, *SHORT, "--out", str(out), "--resume")
    assert "epoch 2/2" in resumed and "epoch 1/2" not in resumed
    assert state(out / "checkpoint.safetensors") == state(whole / "checkpoint.safetensors")
    settings = json.loads((out / "settings.json").read_text())
    assert not settings["sync_batch_norm"]
    run(3, *SHORT, "--out", str(tmp_path / "third"), "--sync-batch-norm")
    one = run(1, *SHORT, "--out", str(tmp_path / "one"))
    assert "2 ranks" in resumed and "ranks" not in one
    three, alone = (json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("third", "one"))
    assert three["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-3)
    assert three.keys() == alone.keys() and set(TIMES) <= three.keys()


INTERRUPTED = f"""
import sys
sys.path.insert(0, {str(ROOT / "examples")!r})
import train as training
from minidl import parallel
from minidl.train import loop
before = loop.train_epoch
def train_epoch(model, loader, optimizer, schedule, epoch, *more):
    if epoch == 1 and parallel.world().rank == 1:
        raise ArithmeticError("after the first epoch")
    return before(model, loader, optimizer, schedule, epoch, *more)
loop.train_epoch = train_epoch
training.main({SHORT[1:]!r} + ["--out", "OUT"])
"""


def test_data_that_differ_are_found_at_the_start(tmp_path: pathlib.Path) -> None:
    text = run(2, "-c", OTHER_DATA.replace("OUT", str(tmp_path / "run")), code=1)
    assert (
        re.search("(training|validation) images: expected the same on all ranks, got .* on rank 1", text)
        and text.count("expected the same") == 1
    )
    assert "epoch 1" not in text


OTHER_DATA = f"""
import sys
sys.path.insert(0, {str(ROOT / "examples")!r})
import train as training
from minidl import parallel
load = training.load
def other(settings):
    train_set, *sets = load(settings)
    train_set.images[0, 0, 0, 0] += parallel.world().rank
    return train_set, *sets
training.load = other
sys.exit(training.main({SHORT[1:]!r} + ["--out", "OUT"]))
"""


def test_a_wrong_setting_is_told_once(tmp_path: pathlib.Path) -> None:
    text = run(3, *TRAIN[:1], "--limit", "8", "--batch-size", "16", "--out", str(tmp_path / "run"), code=1)
    assert text.count("batch_size: 16 is more than the 8 training images") == 1 and "rank 0 of 3" in text


def test_each_rank_sees_a_gpu_of_its_own() -> None:
    ask = "import minidl, os\nw = minidl.parallel.world()\nw.say(str(w.gather(os.environ['CUDA_VISIBLE_DEVICES'])))"
    assert "['4', '7']" in run(2, "-c", ask, CUDA_VISIBLE_DEVICES="4,7")


def test_ranks_that_do_not_see_each_other_do_not_train_alone() -> None:
    """As under an `srun` that does not tell MPI of the others."""
    text = run(1, "-c", "import minidl\nminidl.parallel.world()", code=1, SLURM_STEP_NUM_TASKS="2")
    assert "this process is one of 2, and MPI sees 1: write srun --mpi=pmix" in text


def test_a_rank_that_leaves_too_soon_is_missed() -> None:
    began = time.monotonic()
    text = run(2, "-c", "import sys, minidl\nw = minidl.parallel.world()\nw.rank == 1 and sys.exit(0)\nw.gather(0)", code=1)
    assert "rank 1 of 2 has ended, and rank 0 waits for it" in text and time.monotonic() - began < 2 * AT_ONCE


def test_ctrl_c_ends_all_ranks(tmp_path: pathlib.Path) -> None:
    process = start(2, *TRAIN, "--epochs", "500", "--out", str(tmp_path / "run"))
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("epoch"))
    pids = pids_of(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=AT_ONCE)  # Open MPI's mpiexec hands on nothing that ranks tell from now on
    assert process.returncode != 0 and (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert len(pids) == 2
    assert gone(pids)


def test_a_killed_rank_ends_all(tmp_path: pathlib.Path) -> None:
    assert kill_and_resume(tmp_path / "run", 2, 2, random.Random(os.getpid()), 1.0) == 2


def test_the_maps_are_judged_by_ranks_as_by_one_process(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    from tests.examples.test_ground_truth import write_ham10000

    root = tmp_path / "data"
    root.mkdir()
    write_ham10000(root)
    asked = ["--data", "ham10000", "--root", str(root), "--epochs", "6", "--images", "4", "--size", "24", "--confident", "0.5"]
    asked += ["--methods", "gradient", "SmoothGrad", "Sobel"]
    scores = []
    for ranks in 1, 2:
        out = tmp_path / f"{ranks} ranks"
        told = run(ranks, str(ROOT / "examples" / "ground_truth.py"), *asked, "--out", str(out))
        assert told.count("now look at") == 1
        scores.append({path.name: state(path) for path in (out / "scores").iterdir()})
        assert (out / "results.json").exists()
    assert scores[0] == scores[1] and len(scores[0]) == 3


def test_a_task_that_fails_ends_all() -> None:
    text = run(3, "-c", "import minidl\nminidl.parallel.world().map(lambda i: 1 / (i - 3), 6)", code=1)
    assert "ZeroDivisionError" in text and " of 3 on " in text
