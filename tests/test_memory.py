"""Freed memory is kept, and the peak is known."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from reprise.memory import keep_freed_memory, peak_bytes

resource = pytest.importorskip("resource", reason="the system does not tell")


def test_the_peak_is_in_bytes_and_grows_with_what_is_held():
    before = peak_bytes()
    held = np.ones(before + 2**24, dtype=np.uint8)  # more than everything so far
    assert peak_bytes() >= before + 2**24
    assert peak_bytes() < 3 * len(held)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_memory_that_was_freed_is_there_without_asking_the_system():
    """Touching new pages is a fault each; touching kept ones is none."""
    keep_freed_memory()
    keep_freed_memory()  # twice is harmless
    first, again = faults_of_a_block(), faults_of_a_block()
    assert again <= first / 4


def faults_of_a_block() -> int:
    """Page faults of making 64 MiB, touching all of it and giving it back."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**26, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
