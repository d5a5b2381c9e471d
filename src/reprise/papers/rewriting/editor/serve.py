"""Running the editor's server until it is interrupted."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import webbrowser

import uvicorn

from reprise.errors import UserError
from reprise.papers.rewriting.editable import Editable
from reprise.papers.rewriting.editor.app import make_app


def serve(editable: Editable, host: str, port: int, show: bool) -> None:
    """Listen, say where, open a browser if that is wanted, and stay.

    Raises:
        UserError: the address cannot be listened on.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"the editor cannot listen on {host}, port {port} ({error.strerror}): choose another port=."
        ) from error
    name, port = listener.getsockname()[:2]
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
    local = ipaddress.ip_address(name).is_loopback
    print(f"{editable.title}: edit it at {address} (Ctrl-C ends the editor)", flush=True)
    if not local:
        print("Anybody who can reach this machine can use the editor now.", flush=True)
    if show:
        webbrowser.open(address)
    config = uvicorn.Config(make_app(editable, local), log_level="warning", timeout_graceful_shutdown=1)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
