"""Fixtures that several tests of rewriting share: a small generator, an editor that serves it, a page's session."""

from __future__ import annotations

import time

import pytest
from studio import Tab, new_client, small

from reprise.papers.rewriting.session import Progress, RewriteSession


@pytest.fixture(scope="module")
def editable():
    return small()


@pytest.fixture(scope="module")
def client(editable):
    """Of one server for all tests: whatever it is sent, it stays up."""
    with new_client(editable, most=4) as client:
        yield client


@pytest.fixture
def tab(client):
    return Tab(client)


@pytest.fixture
def endless(monkeypatch):
    """Execute goes on until it is cancelled."""

    def execute(session, name, watch):
        while True:
            watch(Progress("working", 1, 2))
            time.sleep(0.01)

    monkeypatch.setattr(RewriteSession, "execute", execute)
