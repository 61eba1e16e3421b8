"""Threads that wait without spinning.

Numba runs `prange` on OpenMP where it finds it, and GNU's OpenMP lets a thread that waits for the others burn its processor
for milliseconds first. As soon as anything else runs on the machine (a browser, a second training, the loader of this one),
the spinning threads take the time of those they wait for: on two cores beside one busy process, a training step of ResNet-20
took 1,400 ms with spinning threads and 330 ms without.
"""

from __future__ import annotations

import os

SPINS = "GOMP_SPINCOUNT"


def wait_quietly() -> None:
    """Load GNU's OpenMP with a short spin, unless the environment says how to wait. Later is too late: it reads it once."""
    if SPINS in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return
    os.environ[SPINS] = "2000"  # a few microseconds
    try:
        import numba.np.ufunc.omppool  # noqa: F401 - loads the library
    except ImportError:
        pass  # no OpenMP on this machine: Numba takes TBB or its own work queue, and neither spins
    finally:
        del os.environ[SPINS]
