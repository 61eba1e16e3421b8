"""Trainings of several ranks, of which one is killed wherever it is, as often as you like:

    python -m tests.parallel.stopped --ranks 2 --kills 20

`kill -9` of a random rank at a random moment. All ranks must be gone within seconds; then the run is resumed, each time by
another number of ranks, until it is done. After each kill the folder must hold all epochs that were told to be finished.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
TRAIN = [str(ROOT / "examples" / "train.py"), "--limit", "64", "--epochs", "8", "--batch-size", "16", "--validation", "0.25"]
AT_ONCE = 20.0  # seconds, in which all are to be gone
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "NUMBA_NUM_THREADS": "1",
}


def mpiexec() -> str | None:
    """The one of this environment, or else of this machine."""
    own = pathlib.Path(sys.executable).parent / "mpiexec"
    return str(own) if own.exists() else shutil.which("mpiexec")


def command(ranks: int, *arguments: str) -> list[str]:
    return [str(mpiexec()), "-n", str(ranks), "--oversubscribe", sys.executable, *arguments]


def start(ranks: int, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(ranks, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )


def pids_of(process: subprocess.Popen[str]) -> list[int]:
    """Those of the ranks: the children of mpiexec, and theirs, that run Python."""
    children: dict[int, list[int]] = {}
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(status.parent.name))
    found, todo = list[int](), [process.pid]
    while todo:
        below = children.get(todo.pop(), [])
        todo += below
        found += [pid for pid in below if b"train.py" in _command_line(pid) and b"--oversubscribe" not in _command_line(pid)]
    return sorted(found)


def _command_line(pid: int) -> bytes:
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def gone(pids: list[int]) -> bool:
    """Whether these processes end, within a few seconds; a zombie has ended, and nobody has asked for its exit code yet."""
    for _ in range(50):
        if not any(b"train.py" in _command_line(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def finished_epochs(out: pathlib.Path) -> int:
    path = out / "metrics.jsonl"
    return len([json.loads(line) for line in path.read_text().splitlines()]) if path.exists() else 0


def _until(process: subprocess.Popen[str], epochs: int) -> str:
    """What is told until so many epochs more are finished."""
    told = ""
    while told.count("\nepoch ") < epochs and process.stdout is not None:
        line = process.stdout.readline()
        if not line:
            break
        told += line
    return told


def told_epochs(output: str) -> int:
    """The last epoch of which there is a line."""
    lines = [line for line in output.splitlines() if line.startswith("epoch ")]
    return int(lines[-1].split("/")[0].split()[1]) if lines else 0


def kill_and_resume(out: pathlib.Path, ranks: int, kills: int, rng: random.Random, seconds: float) -> int:
    """How often a rank was killed before the run was done; `seconds`: within which a kill comes, after some epochs."""
    killed, finished = 0, 0
    while killed < kills:
        number = ranks if killed % 2 == 0 else ranks + 1
        process = start(number, *TRAIN, "--out", str(out), *(["--resume"] if (out / "settings.json").exists() else []))
        told = _until(process, rng.randrange(4))
        time.sleep(rng.uniform(0, seconds))
        pids = pids_of(process)
        if pids and process.poll() is None:
            os.kill(rng.choice(pids), signal.SIGKILL)
            killed += 1
            began = time.monotonic()
            output, _ = process.communicate(timeout=AT_ONCE)
            seconds_to_end = time.monotonic() - began
            assert process.returncode != 0, output
            assert gone(pids), "a rank lives on"
        else:
            output, _ = process.communicate(timeout=600)
            seconds_to_end = 0.0
        now = finished_epochs(out)
        last = told_epochs(told + output)
        assert now >= max(finished, last), f"{now} epochs in the folder, {finished} before, {last} told"
        print(f"{killed} killed, {number} ranks, {now} epochs, gone after {seconds_to_end:.1f} s", flush=True)
        finished = now
        if process.returncode == 0:
            shutil.rmtree(out)
            finished = 0
    return killed


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--seconds", type=float, default=3.0, help="a kill comes within so many, after up to 3 epochs")
    p.add_argument("--seed", type=int, default=random.randrange(10**6))
    args = p.parse_args()
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        kill_and_resume(pathlib.Path(folder, "run"), args.ranks, args.kills, random.Random(args.seed), args.seconds)
    print(f"{args.kills} kills, 0 hangs, no finished epoch lost")


if __name__ == "__main__":
    main()
