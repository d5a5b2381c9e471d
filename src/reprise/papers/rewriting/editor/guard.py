"""What is refused before any of the editor's code sees it: other hosts' names, other sites' pages, bodies without end.

A page of some other site, open in the same browser, can send requests to a server of this machine. It cannot hide its
``Origin``, and where it has its own name resolve to this machine (DNS rebinding), the ``Host`` has that name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAINED = 200_000_000  # bytes
PATIENCE = 60.0  # seconds in which a request must have arrived
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):  # noqa: N818 - an answer
    """A status code and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def answer(refused: Refused) -> JSONResponse:
    """A refusal as the page reads it; who sent too much, or met a defect, is told that the connection ends."""
    headers = {"connection": "close"} if refused.status in (408, 413, 500) else None
    return JSONResponse({"error": refused.sentence}, refused.status, headers)


class Guard:
    """Checks ``Host`` and ``Origin`` and adds headers that keep the page to itself.

    Args:
        app: what comes after.
        local: whether only names and addresses of this machine's loopback are good; else any address is, which is no
            name that somebody else could point here, and this machine's own name.
    """

    def __init__(self, app: ASGIApp, local: bool = True) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse or pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        sentence = self.objection(Headers(scope=scope))
        app = answer(Refused(403, sentence)) if sentence else self.app
        await app(scope, receive, guarded)

    def objection(self, headers: Headers) -> str | None:
        """Why a request is refused, if it is."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.known(_name(host)):
            return f"The editor does not answer to the host {host[:80]!r}: open it under the address that it printed."
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return f"Pages of {origin[:80]!r} may not use the editor."
        return None

    def known(self, name: str) -> bool:
        """Whether a host's name is one of this machine."""
        try:
            return ipaddress.ip_address(name).is_loopback or not self.local
        except ValueError:
            return name == "localhost" or (not self.local and name == socket.gethostname().lower())


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def body(request: Request, most: int) -> bytes:
    """A request's body of at most so many bytes.

    What is too long is read on for a while and thrown away, since who is still sending does not hear the answer.

    Raises:
        Refused: it is longer, or does not come to its end.
    """
    parts, length = [], 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                length += len(part)
                if length <= most:
                    parts.append(part)
                elif length > most + DRAINED:
                    break
    except TimeoutError as error:
        raise Refused(408, f"The request did not arrive within {PATIENCE:.0f} seconds.") from error
    if length > most:
        raise Refused(413, f"The request is too large: at most {most // 1_000_000} MB.")
    return b"".join(parts)
