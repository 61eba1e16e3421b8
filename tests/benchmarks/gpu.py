"""Training steps on the GPU beside PyTorch eager on the same device, and how far CPU and GPU agree.

    python -m tests.benchmarks.gpu [--rounds 7] [--seconds 1] [--json FILE]

PyTorch takes part where it is installed for CUDA. The figures: the time of a step (forward, loss, backward, update) as a median
of the rounds, its ratio to PyTorch's as a median of the ratios round by round, and the memory held on the device; each
contestant in a process of its own, in turns. Products are of float32 on both sides; CUPY_TF32=1 lets both round their factors
to TF32. Then the losses of the first steps from one seed on the CPU and twice on the GPU: the first two agree within rounding,
the last two bit for bit.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from minidl import kernels
from minidl.array import array_module, to_gpu
from tests.benchmarks import minidl_steps
from tests.benchmarks.duel import Contestants, Worker, duel

CASES = (("resnet20", 128), ("resnet20", 1024), ("densenet_bc100_12", 64), ("densenet_bc100_12", 512))
STEPS, BATCH = 5, 64  # of the comparison with the CPU


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="per contestant and round")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    try:
        x = to_gpu(np.zeros(1, np.float32))
        kernels.of(x)
    except RuntimeError as error:
        parser.exit(1, f"nothing to measure: {error}\n")
    runtime = array_module(x).cuda.runtime
    device = runtime.getDeviceProperties(0)["name"].decode()
    found: dict[str, Any] = {"device": device, "driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion()}

    found["steps"] = [row for name, batch in CASES for row in step(name, batch, args.rounds, args.seconds)]
    print(f"training steps on {device}: medians of {args.rounds} rounds")
    print(f"{'':40}{'ms':>8}{'minidl / it':>14}{'device MiB':>12}{'first step s':>14}")
    for row in found["steps"]:
        print("{name:40}{ms:8.2f}{ratio:14.2f}{device_mib:12.0f}{first_s:14.2f}".format(**row))

    found["agreement"] = [agreement(name) for name in ("resnet20", "densenet_bc100_12")]
    for row in found["agreement"]:
        runs = "have the same bits" if row["same_bits"] else "DIFFER"
        print(f"{row['name']}: CPU and GPU differ by at most {row['difference']:.1e} in {STEPS} losses; two GPU runs {runs}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


def step(name: str, batch: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each contestant"""
    work = name, "step", batch, 32
    contestants: Contestants = {"minidl": (Worker("tests.benchmarks.minidl_steps"), (*work, "gpu"))}
    if _torch_has_a_gpu():
        contestants["torch"] = (Worker("tests.benchmarks.torch_steps"), (*work, "", "", "cuda"))
        contestants["torch, channels_last"] = (Worker("tests.benchmarks.torch_steps"), (*work, "channels_last", "", "cuda"))
    times, first = duel(contestants, rounds, seconds)
    rows = []
    for label, ts in times.items():
        ratio = statistics.median(a / b for a, b in zip(times["minidl"], ts, strict=True))
        row = {"name": f"{name}, batch {batch}: {label}", "ms": statistics.median(ts) * 1e3, "ratio": ratio}
        rows.append({**row, "device_mib": contestants[label][0].ask("device memory") / 2**20, "first_s": first[label]})
    for worker, _ in contestants.values():
        worker.close()
    return rows


def _torch_has_a_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def agreement(name: str) -> dict[str, Any]:
    """Losses of the first steps from one seed, and by what part of itself a loss differs most"""
    cpu, gpu, again = (_losses(name, device) for device in ("cpu", "gpu", "gpu"))
    difference = max(abs(a - b) / abs(a) for a, b in zip(cpu, gpu, strict=True))
    return {"name": name, "cpu": cpu, "gpu": gpu, "difference": difference, "same_bits": gpu == again}


def _losses(name: str, device: str) -> list[float]:
    take_step = minidl_steps.setup(name, "step", BATCH, 32, device)
    return [take_step() for _ in range(STEPS)]


if __name__ == "__main__":
    main()
