"""A real browser for the tests that need one; they are skipped with a reason where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# Debian's /usr/bin/chromium is a script around the first; not every shell passes on what playwright needs
PLACES = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for place in PLACES if (found := shutil.which(place))), None)


def needed() -> None:
    """Skip the module that says so where there is no browser, or nothing to drive it with."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)", allow_module_level=True)


@contextmanager
def launched() -> Iterator[Any]:
    """A browser, as playwright has it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
