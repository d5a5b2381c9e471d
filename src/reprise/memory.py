"""Memory that a step frees and the next one needs again, and the most that a process ever had."""

from __future__ import annotations

import ctypes
import sys

KIB = 1024
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt in malloc.h
LARGE = 2**30


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks below a gigabyte for the next allocation; without effect elsewhere.

    By default it hands large blocks back to the system, and every step then touches its tensors' pages anew, which on
    a processor can take longer than the arithmetic. The price is that a process stays as large as it once was.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(MMAP_THRESHOLD, LARGE)
    mallopt(TRIM_THRESHOLD, LARGE)


def peak_bytes() -> int:
    """The most memory that this process has held so far, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else KIB * most
