"""How long one training step takes (forward, loss, backward, update), beside PyTorch where it is installed.

    python -m tests.benchmarks.step [--model resnet20] [--batch 128] [--rounds 7] [--json FILE]

Each contestant runs in a process of its own, in turns; the table gives the median of the rounds, the median of the ratios
round by round, the peak memory of the process and the time of the very first step (minidl: compilation, or its cache).
PyTorch runs three times: as it comes, in channels_last, and in channels_last with glibc told to keep freed memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
from pathlib import Path

from tests.benchmarks.duel import Worker, duel

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "268435456"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20", choices=("resnet8", "resnet20", "resnet56"))
    parser.add_argument("--batch", type=int, default=128, choices=(16, 32, 64, 128, 256, 512))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="per contestant and round")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    case = f"{args.model} {args.batch}"
    contestants = {"minidl": (Worker("tests.benchmarks.minidl_steps"), case)}
    if importlib.util.find_spec("torch"):
        peer = "tests.benchmarks.torch_steps"
        contestants["torch"] = (Worker(peer), case)
        contestants["torch, channels_last"] = (Worker(peer), f"{case} channels_last")
        contestants["torch, channels_last, tuned malloc"] = (Worker(peer, KEEP_MEMORY), f"{case} channels_last")
    first = {label: worker.ask("prepare", name) for label, (worker, name) in contestants.items()}
    times = duel(contestants, args.rounds, args.seconds)
    peak = {label: worker.ask("peak") / 2**20 for label, (worker, _) in contestants.items()}
    for worker, _ in contestants.values():
        worker.close()

    print(f"{case}: one training step, medians of {args.rounds} rounds on {platform.processor() or platform.machine()}")
    print(f"{'':36}{'ms':>8}{'minidl / it':>14}{'peak MiB':>10}{'first step s':>14}")
    rows = []
    for label, ts in times.items():
        ratio = statistics.median(a / b for a, b in zip(times["minidl"], ts, strict=True))
        rows.append({"name": label, "ms": statistics.median(ts) * 1e3, "ratio": ratio, "peak_mib": peak[label]})
        rows[-1]["first_s"] = first[label]
        print("{name:36}{ms:8.1f}{ratio:14.2f}{peak_mib:10.0f}{first_s:14.2f}".format(**rows[-1]))
    if args.json:
        args.json.write_text(json.dumps({"case": case, "rounds": args.rounds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
