"""What the saliency map of one image costs in each of the ImageNet nets: 224x224 pixels, 299x299 for Inception-v3.

    python -m tests.benchmarks.saliency_224 [--models resnet50,vgg16] [--rounds 3]

The map is the gradient of the largest logit in the image, in evaluation mode and with frozen weights, which are drawn, not
trained. Each net runs in a process of its own. The table gives the median time of the maps, that of the very first one (which
compiles the kernels, or loads them from their cache), and the peak memory of the process, beside what the weights take of it.
"""

from __future__ import annotations

import argparse
import inspect
import statistics

from tqdm import tqdm

import models
from tests.benchmarks.duel import Worker, duel

NETS = [n for n in models.__all__ if inspect.signature(getattr(models, n)).parameters["num_classes"].default == 1000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(NETS), help="with commas; by default all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="per net and round")
    args = parser.parse_args()
    if unknown := [name for name in args.models.split(",") if name not in NETS]:
        parser.error(f"--models: expected some of {', '.join(NETS)}, got {', '.join(unknown)}")

    print(f"{'':14}{'pixels':>9}{'seconds':>9}{'first':>8}{'peak MiB':>10}{'weights MiB':>13}")
    for name in tqdm(args.models.split(","), leave=False, disable=None):
        size = 299 if name == "inception_v3" else 224
        worker = Worker("tests.benchmarks.minidl_steps")
        times, first = duel({name: (worker, (name, "saliency", 1, size))}, args.rounds, args.seconds)
        peak = worker.ask("peak")
        worker.close()
        weights = sum(p.data.nbytes for p in getattr(models, name)().parameters())
        cells = statistics.median(times[name]), first[name], peak / 2**20, weights / 2**20
        tqdm.write("{:14}{:>9}{:9.3f}{:8.2f}{:10,.0f}{:13,.0f}".format(name, f"{size}x{size}", *cells))


if __name__ == "__main__":
    main()
