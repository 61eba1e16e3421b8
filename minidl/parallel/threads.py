"""How many threads a rank computes in: the cores of its machine are shared among the ranks there."""

from __future__ import annotations

import os
import sys
from typing import Any


def share_of_cores(neighbours: Any) -> int:
    """The cores that the ranks of this machine may use, by these ranks: mpiexec may have bound each to some, or none to any.

    neighbours: mpi4py's communicator of the ranks of this machine.
    """
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return max(1, len(set().union(*neighbours.allgather(list(mine)))) // int(neighbours.Get_size()))


def limit(count: int) -> int:
    """Compute in so many threads from now on, in this process: compiled kernels, and NumPy's products of matrices.

    NUMBA_NUM_THREADS in the environment goes before. Returns how many there are. To be called early: once Numba has begun,
    only the thread that calls obeys.
    """
    import threadpoolctl

    if "NUMBA_NUM_THREADS" in os.environ:
        count = int(os.environ["NUMBA_NUM_THREADS"])
    elif "numba" in sys.modules:
        import numba

        count = min(count, numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(count)
    else:
        os.environ["NUMBA_NUM_THREADS"] = str(count)
    threadpoolctl.threadpool_limits(count, "blas")
    return count
