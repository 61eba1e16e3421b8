"""How long each op takes for typical shapes, beside PyTorch where it is installed.

    python -m tests.benchmarks.ops [--only TEXT] [--rounds 5] [--json FILE]

GFLOP/s (convolutions; two operations for a multiplication and an addition) and GB/s (all others, forward and backward, for
the arrays that must be read or written) stand beside what this machine reached in the same run: the best convolution of all,
and a copy of 128 MiB. Each contestant runs in a process of its own, in turns; times and ratios are medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
from pathlib import Path

from tests.benchmarks.duel import Worker, duel
from tests.benchmarks.shapes import CONVOLUTIONS, IMAGES, PASSES, SWEEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only rows whose name holds this text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="per contestant and round")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    work = {(name, what): c.flops / 1e9 for name, c in CONVOLUTIONS.items() for what in PASSES}
    traffic = {(name, op): n * 4 * math.prod(s) / 1e9 for op, n in SWEEPS.items() for name, s in IMAGES.items()}
    mine = Worker("tests.benchmarks.minidl_ops")
    peer = Worker("tests.benchmarks.torch_ops") if importlib.util.find_spec("torch") else None
    rows = []
    print(f"{'':38}{'ms':>9}{'GFLOP/s':>9}{'GB/s':>7}{'torch ms':>10}{'ratio':>7}")
    for case in [*work, *traffic]:
        if args.only not in (name := f"{case[0]} {case[1]}"):
            continue
        contestants = {"minidl": (mine, case)} | ({"torch": (peer, case)} if peer else {})
        times, _ = duel(contestants, args.rounds, args.seconds)
        ms = {label: statistics.median(ts) * 1e3 for label, ts in times.items()}
        ratio = statistics.median(a / b for a, b in zip(times["minidl"], times.get("torch", times["minidl"]), strict=True))
        row = {"name": name, "ms": ms["minidl"], "torch_ms": ms.get("torch"), "ratio": ratio if peer else None}
        row["gflops"] = work[case] / ms["minidl"] * 1e3 if case in work else None
        row["gbytes"] = traffic[case] / ms["minidl"] * 1e3 if case in traffic else None
        rows.append(row)
        cells = [f"{row[k]:.{d}f}" if row[k] is not None else "" for k, d in (("gflops", 0), ("gbytes", 1), ("torch_ms", 2))]
        print(
            f"{name:38}{row['ms']:9.2f}{cells[0]:>9}{cells[1]:>7}{cells[2]:>10}" + (f"{ratio:7.2f}" if peer else ""), flush=True
        )
    copy = statistics.median(duel({"copy": (mine, ("copy", ""))}, args.rounds, args.seconds)[0]["copy"])
    best = max((row["gflops"] for row in rows if row["gflops"] is not None), default=math.nan)
    print(f"this machine: {best:.0f} GFLOP/s in the best convolution, {2 * 2**27 / 1e9 / copy:.1f} GB/s in a copy of 128 MiB")
    for worker in (mine, peer):
        if worker:
            worker.close()
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
