"""A few steps of training, on however many ranks there are; the first gradients and all losses go into a file.

    mpiexec -n 2 python -m tests.parallel.steps --net resnet20 --dtype float64 --steps 20 --sync --out two.npz

--ulp changes every number of the first weight by one unit in the last place. --cifar10 ROOT takes the first training images of
CIFAR-10 instead of generated ones.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import models
from minidl import parallel
from minidl.core import Tensor
from minidl.data import Compose, Dataset, Loader, Normalize, RandomCrop, RandomFlip, cifar10, lesions
from minidl.nn import Module
from minidl.ops.sync import synchronized
from minidl.optim import SGD
from minidl.train.data_parallel import loss_for, walk_for

IMAGES = 128
NETS: dict[str, Any] = {
    "resnet8": models.resnet8,
    "resnet20": models.resnet20,
    "densenet_bc16": lambda num_classes: models.densenet_bc(16, 12, num_classes=num_classes),
    "densenet_bc100": models.densenet_bc100_12,
}


def run(net: str, dtype: str, steps: int, sync: bool, ulp: bool, dataset: Dataset, batch_size: int) -> dict[str, Any]:
    """The loss of each step, (steps,), and by name the gradients of the first one."""
    world = parallel.world()
    model: Module = NETS[net](num_classes=len(dataset.classes)).train()
    if ulp:
        first = model.parameters()[0].data
        first[...] = np.nextafter(first, np.inf)
    model.to(dtype=np.dtype(dtype))
    optimizer = SGD(model.parameters(), 0.05, 0.9)
    loss, walk_back = loss_for(world, model, None, dataset.classes), walk_for(world)
    mean, std = dataset.mean_std()
    augment = Compose([RandomCrop(4, fill=mean), RandomFlip(), Normalize(mean, std)])
    share = world.rank, world.size
    loader = Loader(dataset, batch_size, augment=augment, seed=1, drop_last=True, share=share)
    losses, first_gradients = list[float](), dict[str, Any]()
    while len(losses) < steps:
        for x, labels in loader:
            optimizer.zero_grad()
            with synchronized(world if sync else parallel.ALONE):
                y = loss(model(Tensor(x.astype(dtype))), labels)
            losses.append(float(world.sum(np.array([y.item()]))[0]))
            for step in walk_back(y, keep_graph=False, apart=False):
                del step
            first_gradients = first_gradients or {n: p.grad.copy() for n, p in model.named_parameters() if p.grad is not None}
            optimizer.step()
            if len(losses) == steps:
                break
    return {"losses": np.array(losses), **first_gradients}


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--net", choices=NETS, required=True)
    p.add_argument("--dtype", default="float32")
    p.add_argument("--steps", type=int, default=1)
    p.add_argument("--sync", action="store_true")
    p.add_argument("--ulp", action="store_true")
    p.add_argument("--cifar10", metavar="ROOT")
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--out", required=True)
    args = p.parse_args()
    dataset = cifar10(args.cifar10).take(range(IMAGES)) if args.cifar10 else lesions(IMAGES, seed=0)
    found = run(args.net, args.dtype, args.steps, args.sync, args.ulp, dataset, args.batch_size)
    if parallel.world().rank == 0:
        np.savez(args.out, **found)


if __name__ == "__main__":
    main()
