from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from reprise.data.store import FileStore


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name resolves and no socket connects, as on a machine without network."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the test has no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def real_store(tmp_path: Path) -> FileStore:
    """The data folder of this machine; nothing is downloaded."""
    folder = os.environ.get("REPRISE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("REPRISE_DATA names no folder with real data")
    return FileStore(Path(folder), cache_dir=tmp_path, download=False)
