"""Whether several ranks were started, which is asked of the environment: a plain `python` never loads MPI."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

from minidl.parallel import threads
from minidl.parallel.communicator import ALONE, Communicator

SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")  # set by Open MPI, MPICH and its kin, srun


@cache
def world() -> Communicator:
    """The communicator of all ranks, the first call of which begins MPI where `mpiexec` or `srun` has started several.

    MINIDL_MPI=0 in the environment lets each process be alone, MINIDL_MPI=1 begins MPI where nothing tells of ranks. Each rank
    computes in cores / ranks threads, of its machine, unless NUMBA_NUM_THREADS says another number.

    Raises RuntimeError where there are several ranks and mpi4py is missing or MPI sees one alone, as under an `srun` that does
    not tell it of the others; ValueError for another MINIDL_MPI.
    """
    asked = os.environ.get("MINIDL_MPI", "")
    if asked not in ("", "0", "1"):
        raise ValueError(f"MINIDL_MPI: expected 0 or 1, got {asked!r}")
    ranks = max((int(os.environ[name]) for name in SIZES if os.environ.get(name, "").isdecimal()), default=1)
    if asked == "0" or (asked != "1" and ranks == 1):
        return ALONE
    if find_spec("mpi4py") is None:
        raise RuntimeError(
            f"this process is one of {ranks} ranks, and mpi4py, by which these speak, is missing: pip install -e '.[mpi]', or "
            "on a cluster with an MPI of its own pip install mpi4py; MINIDL_MPI=0 lets each compute by itself"
        )
    from minidl.parallel.mpi import World

    found = World()
    if found.size < ranks:
        raise RuntimeError(
            f"this process is one of {ranks}, and MPI sees {found.size}: write srun --mpi=pmix, or another of srun --mpi=list "
            "that this MPI speaks; MINIDL_MPI=0 lets each compute by itself"
        )
    found.threads = threads.limit(found.threads)
    return found


def begun() -> Communicator:
    """`world()`, if somebody has asked for it, and else that of one process."""
    return world() if world.cache_info().currsize else ALONE
