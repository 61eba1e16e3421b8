"""Runs of `examples/train.py` that are stopped wherever they are, as often as you like:

    python -m tests.train.stopped --interrupts 200 --kills 25 --pairs 20

An interruption is a Ctrl-C at a random moment, every other time with a second one within 100 ms; a kill is `kill -9`. What is
stopped is resumed, and stopped again, until it is done. The run holds images out, draws as many of each class, keeps its best
epoch, ends by patience, and has a layer that stays as it is. After each stop every file is read: the checkpoint must
be, bit for bit, that of a run that nothing stopped after as many epochs, and no other file may be ahead of it or further behind
than an epoch. After Ctrl-C there must be one sentence and the exit code 130. In the end all files must be those of the run that
nothing stopped, and no others. A pair are two processes that begin in one folder at the same moment.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any

from minidl import weights

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "train.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
TINY = ["--limit", "48", "--epochs", "6", "--batch-size", "16", "--validation", "0.25", "--balance", "sample"]
TINY += ["--select", "auc", "--patience", "2", "--freeze", "conv1", "--body-lr", "0.5"]
SEEDS = (2, 1, 5, *range(6, 20))  # the first with which patience ends the run: that is a matter of the last bits
TIMES = ("seconds", "images_per_second")
IMAGES = ("curves.png", "roc.png", "calibration.png", "confusion.png", "card.md", "gradients.png")

LEFTOVER = re.compile(r"\.(.*)\.[0-9]+\.tmp")  # of a write that nothing could clean up after

State = dict[str, Any]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)


def rows_of(text: str) -> list[State]:
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in text.splitlines()]


def state(path: pathlib.Path) -> State:
    """What a safetensors file of a run holds, but for times."""
    arrays, words = weights.load_arrays(path)
    found: State = {name: a.tobytes() for name, a in arrays.items()}
    for name, text in words.items():
        found[f"metadata {name}"] = json.loads(text) if text[:1] in "[{" else text
    for row in found.get("metadata facts", {}).get("rows", []):
        for name in TIMES:
            del row[name]
    return found


def without_best(entries: State) -> State:
    return {name: value for name, value in entries.items() if not name.startswith("best.")}


class Whole:
    """A run that nothing stops, and its checkpoint and weights after each epoch."""

    def __init__(self, out: pathlib.Path) -> None:
        self.checkpoints: list[State] = []
        self.models: list[State] = []
        # until then Python itself starts, and answers Ctrl-C with a traceback or not at all
        self.begins = 3 * max(self._seconds_to_start() for _ in range(3))
        for seed in SEEDS:
            self.arguments = [*TINY, "--seed", str(seed)]
            begin = time.perf_counter()
            with start(*self.arguments, "--out", str(out)) as process:
                text, _ = process.communicate()
            assert process.returncode == 0, text
            self.seconds = time.perf_counter() - begin
            self.rows = rows_of((out / "metrics.jsonl").read_text())
            best = max(range(len(self.rows)), key=lambda i: self.rows[i]["validation_auc"])
            if 0 < best == len(self.rows) - 3 and len(self.rows) < 6:
                break
            shutil.rmtree(out)
        else:
            raise AssertionError("with none of the seeds patience ends the run after an epoch that is neither first nor last")
        self.made = {name: (out / name).read_bytes() for name in (*IMAGES, "test.json", "predictions.csv")}
        again = out.with_name("again")
        program = f"""import sys, shutil, pathlib; sys.path.insert(0, {str(SCRIPT.parent)!r})
import train
draw = train.view.curves
def curves(path, rows, title):
    for name in "checkpoint", "model":
        shutil.copy(path.with_name(f"{{name}}.safetensors"), path.with_name(f"{{name}}{{len(rows)}}"))
    draw(path, rows, title)
train.view.curves = curves
sys.exit(train.main({[*self.arguments, "--out", str(again)]!r}))"""
        subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        for n in range(1, len(self.rows) + 1):
            self.checkpoints.append(state(again / f"checkpoint{n}"))
            self.models.append(state(again / f"model{n}"))
        self.final = state(out / "model.safetensors")  # with its operating point
        assert self.weights(len(self.rows)) == {name: a for name, a in self.final.items() if not name.startswith("metadata ")}
        assert self.final["metadata contract"]["decision"]

    def weights(self, epochs: int) -> State:
        """Those of the best of the first epochs, which model.safetensors has."""
        return {name: a for name, a in self.models[epochs - 1].items() if not name.startswith("metadata ")}

    @staticmethod
    def _seconds_to_start() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import signal, contextlib"], check=True)
        return time.perf_counter() - begin

    def check(self, out: pathlib.Path) -> int:
        """How many epochs are done in the folder. Raises AssertionError, OSError or ValueError where it is not whole."""
        names = {path.name for path in out.iterdir()} if out.exists() else set()
        names -= {".lock", *(name for name in names if LEFTOVER.fullmatch(name))}
        if "settings.json" not in names:
            assert not names, names
            return 0
        json.loads((out / "settings.json").read_text())
        if "checkpoint.safetensors" not in names:
            assert not names & {"metrics.jsonl", "model.safetensors", "test.json", "predictions.csv", *IMAGES}, names
            return 0
        found = state(out / "checkpoint.safetensors")
        n = len(found["metadata facts"]["rows"])
        expected = self.checkpoints[n - 1]
        *_, last = found["metadata facts"]["rows"]
        if "validation_loss" not in last:  # stopped before its epoch was validated, or in that
            whole = expected["metadata facts"]["rows"][-1]
            last |= {name: value for name, value in whole.items() if name.startswith("validation_")}
            kept = {name.removeprefix("best."): a for name, a in found.items() if name.startswith("best.")}
            assert kept == (self.weights(n - 1) if n > 1 else {}), f"the best weights of {n - 1} epochs"
            found, expected = (without_best(entries) for entries in (found, expected))
        assert found == expected, f"the checkpoint after {n} epochs"
        allowed = range(max(n - 1, 0), n + 1)
        if "metrics.jsonl" in names:
            rows = rows_of((out / "metrics.jsonl").read_text())
            assert len(rows) in allowed and rows == self.rows[: len(rows)], "metrics.jsonl"
        else:
            assert n == 1
        if "model.safetensors" in names:
            model = state(out / "model.safetensors")
            ended = [self.final] if n == len(self.rows) else []
            assert model in [*ended, *(self.models[k - 1] for k in allowed if k)], "model.safetensors"
        else:
            assert n == 1
        return n

    def is_done(self, out: pathlib.Path) -> None:
        """Raises AssertionError where the finished run in the folder is not this one."""
        assert self.check(out) == len(self.rows)
        assert not [path for path in out.iterdir() if path.name.startswith(".")]
        assert rows_of((out / "metrics.jsonl").read_text()) == self.rows
        assert state(out / "model.safetensors") == self.final
        assert {name: (out / name).read_bytes() for name in self.made} == self.made


def stop(whole: Whole, out: pathlib.Path, rng: random.Random, kill: bool, twice: bool) -> int | None:
    """Begin or resume the run in `out` and stop it at a random moment; the epochs that are done, or None: it came too late."""
    resume = (out / "settings.json").exists()
    with start(*(["--resume"] if resume else whole.arguments), "--out", str(out)) as process:
        time.sleep(rng.uniform(whole.begins, 0.9 * whole.seconds))
        process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
        if twice:
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=120)
    assert "Traceback" not in text and "Error" not in text, text
    if process.returncode == 0:
        whole.is_done(out)
        return None
    if kill:
        assert process.returncode == -signal.SIGKILL, text
    else:
        assert process.returncode == 130, (process.returncode, text)
        said = text.splitlines()[-1]
        assert text.count("Stopped.") == 1 and said.startswith("Stopped."), text
        assert f"--resume --out {out}" in said or "epoch 1/" not in text, text
    return whole.check(out)


def finish(whole: Whole, out: pathlib.Path) -> None:
    """Resume the run in `out`, and let it end."""
    with start("--resume", "--out", str(out)) as process:
        text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    whole.is_done(out)


def stopped(whole: Whole, folder: pathlib.Path, rng: random.Random, times: int, kill: bool, tell: bool = False) -> Counter[int]:
    """So many stops, counted by the epochs that were done; each run is resumed and stopped until it has been through them."""
    ends, number = Counter[int](), 0
    while ends.total() < times:
        out = folder / f"{'killed' if kill else 'interrupted'}-{number}"
        done = stop(whole, out, rng, kill, twice=not kill and ends.total() % 2 == 1)
        if done is not None:
            ends[done] += 1
            if tell and ends.total() % 25 == 0:
                print(f"  {ends.total()}: {dict(sorted(ends.items()))}", flush=True)
        if done == len(whole.rows) or (ends.total() == times and (out / "settings.json").exists()):
            finish(whole, out)
        number += done in (None, len(whole.rows))
    return ends


def pair(whole: Whole, out: pathlib.Path) -> None:
    """Two processes begin in one folder: one trains, the other is told who does."""
    both = [start(*whole.arguments, "--out", str(out)) for _ in range(2)]
    texts = [process.communicate(timeout=120)[0] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], texts
    first, second = codes.index(0), codes.index(1)
    said = texts[second].strip()
    holds = f"error: {out}: process {both[first].pid} on "
    ended = f"error: {out} holds a run already"  # it came when the other one was done
    assert said.count("\n") == 0 and said.startswith((holds, ended)), said
    assert said.startswith(ended) or "examples/train.py" in said, said
    whole.is_done(out)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--interrupts", type=int, default=20)
    p.add_argument("--kills", type=int, default=5)
    p.add_argument("--pairs", type=int, default=2)
    p.add_argument("--seed", type=int, default=random.randrange(10**6))
    asked = p.parse_args()
    print(f"seed {asked.seed}", flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        whole = Whole(folder / "whole")
        print(f"a run that nothing stops takes {whole.seconds:.1f} s, stops come after {whole.begins:.2f} s", flush=True)
        for times, kill in (asked.interrupts, False), (asked.kills, True):
            ends = stopped(whole, folder, rng, times, kill, tell=True)
            print(f"{times} {'kills' if kill else 'interruptions'}, by epochs done: {dict(sorted(ends.items()))}", flush=True)
        for i in range(asked.pairs):
            pair(whole, folder / f"pair-{i}")
        print(f"{asked.pairs} pairs: one trained, the other was told which")


if __name__ == "__main__":
    main()
