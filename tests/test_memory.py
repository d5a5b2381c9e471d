"""Freed memory is kept, and the peak is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from reprise.memory import keep_freed_memory, peak_bytes


@pytest.mark.skipif(sys.platform == "win32", reason="the system does not tell")
def test_the_peak_is_in_bytes_and_grows_with_what_is_held():
    before = peak_bytes()
    held = np.ones(before + 2**24, dtype=np.uint8)  # more than everything so far
    assert peak_bytes() >= before + 2**24
    assert peak_bytes() < 3 * len(held)


def test_keeping_memory_twice_is_harmless():
    keep_freed_memory()
    keep_freed_memory()
