"""What the C library does with memory that is free again, where it is glibc."""

from __future__ import annotations

import sys

LARGE = 128 * 1024  # bytes; glibc's own threshold, before it adapts
M_MMAP_THRESHOLD = -3  # malloc.h


def give_back_promptly() -> bool:
    """Have blocks of LARGE and more come from the system one by one, and go back once they are free.

    glibc begins so, but takes the size of whatever such block was freed for its new threshold, up to
    32 MiB: from then on request bodies lie in one heap, between smaller things that live on, and it
    hardly shrinks any more. 512 MiB of bodies of all sizes came to 1.3 GiB, and 0.95 stayed; now they
    come to 0.6 and go. For a process of our own only. True if it was done; musl has nothing to be told.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, LARGE))
