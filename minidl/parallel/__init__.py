"""Several processes, the ranks, that compute as one: MPI by mpi4py, on one machine or on many.

    world = parallel.world()  # of one process, unless mpiexec or srun has started several
    total = world.sum(np.array([loss]))

`Communicator` is what one process says to itself, `mpi.World` what several say to each other: the same methods, so that who
calls them need not know. `Buckets` sum gradients while the next ones are being computed; those on GPUs go by `nccl`.
"""

from minidl.parallel.buckets import Buckets
from minidl.parallel.communicator import ALONE, Communicator, Sum
from minidl.parallel.launch import begun, world

__all__ = ["ALONE", "Buckets", "Communicator", "Sum", "begun", "world"]
