"""Sums of arrays on GPUs, by NCCL through CuPy: each rank computes on a GPU of its own.

A sum runs in a stream of its own. There it waits for the work that makes the array, and the work that wants the sum waits for
it, all of that on the GPU: the process goes on at once, and a bucket is summed while the walk goes on.
"""

from __future__ import annotations

import socket
from types import ModuleType
from typing import Any

from minidl.array import Array
from minidl.parallel.communicator import Communicator, Sum

VISIBLE = "CUDA_VISIBLE_DEVICES"  # which CuPy and numba-cuda read when they begin
MISSING = (
    "sums over several GPUs need NCCL, which this CuPy does not find: python -m cupyx.tools.install_library --library nccl "
    "--cuda 12.x, or start one process"
)


def own_gpu(local: int, visible: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for rank number `local` of its machine, from what it was: one of these, or the GPU of this number.

    A single one stays, as where Slurm has given each rank its own.
    """
    if visible is None:
        return str(local)
    names = visible.split(",")
    if len(names) == 1:
        return visible
    return names[local] if local < len(names) else ""


class GPUSums:
    """`start(a)` begins the sum of a over all ranks. All make theirs at once, each with its GPU being the current one.

    Raises RuntimeError where NCCL is missing, or two ranks have the same GPU.
    """

    def __init__(self, world: Communicator, xp: ModuleType) -> None:
        nccl = getattr(xp.cuda, "nccl", None)
        if nccl is None or not nccl.available:
            raise RuntimeError(MISSING)
        places = world.gather((socket.gethostname(), xp.cuda.Device().pci_bus_id))
        if len({*places}) < world.size:
            raise RuntimeError(
                f"{world.size} ranks have {len({*places})} GPUs; each needs its own: start as many ranks as there are"
            )
        self.xp, self.op, self.stream = xp, nccl.NCCL_SUM, xp.cuda.Stream(non_blocking=True)
        self.types = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}
        self.comm = nccl.NcclCommunicator(world.size, world.first(nccl.get_unique_id), world.rank)

    def start(self, a: Array) -> Sum:
        """Begin to replace a, C-contiguous and of any shape, by its sum. Raises TypeError for no float32 or float64."""
        if a.dtype.name not in self.types:
            raise TypeError(f"a: expected {' or '.join(self.types)} to sum over GPUs, got {a.dtype}")
        self.stream.wait_event(self.xp.cuda.get_current_stream().record())
        where: Any = a.data
        self.comm.allReduce(where.ptr, where.ptr, a.size, self.types[a.dtype.name], self.op, self.stream.ptr)
        return _Queued(a, self.xp, self.stream.record())


class _Queued(Sum):
    """A sum that its stream computes some time"""

    def __init__(self, a: Array, xp: ModuleType, done: Any) -> None:
        super().__init__(a)
        self.xp, self.done = xp, done

    def wait(self) -> Array:
        self.xp.cuda.get_current_stream().wait_event(self.done)
        return self.a
