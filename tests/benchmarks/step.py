"""How long one training step takes (forward, loss, backward, update), beside PyTorch where it is installed.

    python -m tests.benchmarks.step [--model resnet20] [--batch 128] [--what step] [--peers torch,reference] [--json FILE]

--what also takes "forward+backward" (no update) and "saliency" (d logit / d image of the batch, weights frozen). Each
contestant runs in a process of its own, in turns; the table gives the median of the rounds, the median of the ratios round by
round, the peak memory of the process and the time of the very first step (minidl: compilation, or its cache). Peers:

torch       PyTorch three times: as it comes, in channels_last, and in channels_last with glibc told to keep freed memory
compile     torch.compile
dezero      DeZero (pip install dezero), for training steps of the residual nets
reference   minidl's own plain NumPy text, the im2col of Chainer and the textbooks
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
from pathlib import Path
from typing import Any

from tests.benchmarks.duel import Worker, duel

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "268435456"}
MODELS = ("resnet8", "resnet20", "resnet56", "densenet40_12", "densenet_bc100_12", "vgg16", "resnet18")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20", choices=MODELS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="pixels of an image's side")
    parser.add_argument("--what", default="step", choices=("step", "forward+backward", "saliency"))
    parser.add_argument("--peers", default="torch", help="some of torch,compile,dezero,reference, with commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="per contestant and round")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    work = args.model, args.what, args.batch, args.size
    contestants: dict[str, tuple[Worker, tuple[Any, ...]]] = {"minidl": (Worker("tests.benchmarks.minidl_steps"), work)}
    peers = args.peers.split(",")
    if "reference" in peers:
        contestants["minidl, reference text"] = (Worker("tests.benchmarks.minidl_steps", {"MINIDL_KERNELS": "reference"}), work)
    if "dezero" in peers:
        contestants["DeZero"] = (Worker("tests.benchmarks.dezero_steps"), work)
    if importlib.util.find_spec("torch"):
        peer = "tests.benchmarks.torch_steps"
        if "torch" in peers:
            contestants["torch"] = (Worker(peer), (*work, "", ""))
            contestants["torch, channels_last"] = (Worker(peer), (*work, "channels_last", ""))
            contestants["torch, channels_last, tuned malloc"] = (Worker(peer, KEEP_MEMORY), (*work, "channels_last", ""))
        if "compile" in peers:
            contestants["torch.compile"] = (Worker(peer), (*work, "", "compiled"))
    times, first = duel(contestants, args.rounds, args.seconds)
    peak = {label: worker.ask("peak") / 2**20 for label, (worker, _) in contestants.items()}
    for worker, _ in contestants.values():
        worker.close()

    name = f"{args.model}, {args.what}, batch {args.batch}, {args.size}x{args.size}"
    print(f"{name}: medians of {args.rounds} rounds on {platform.processor() or platform.machine()}")
    print(f"{'':36}{'ms':>8}{'minidl / it':>14}{'peak MiB':>10}{'first step s':>14}")
    rows = []
    for label, ts in times.items():
        ratio = statistics.median(a / b for a, b in zip(times["minidl"], ts, strict=True))
        rows.append({"name": label, "ms": statistics.median(ts) * 1e3, "ratio": ratio, "peak_mib": peak[label]})
        rows[-1]["first_s"] = first[label]
        print("{name:36}{ms:8.1f}{ratio:14.2f}{peak_mib:10.0f}{first_s:14.2f}".format(**rows[-1]))
    if args.json:
        args.json.write_text(json.dumps({"case": name, "rounds": args.rounds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
