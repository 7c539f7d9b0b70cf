"""Ports of loopback that stay ours from the choice until the end, so that two test runs beside each other never choose the same.

Called by the control plane. A port that is only looked up may be taken before the program listens, or while it is restarted.
"""

from __future__ import annotations

import socket

from citykit.errors import EnvironmentFault
from infra.native import free_port

_TRIES = 100


class HeldPorts:
    """Ports of 127.0.0.1 held by sockets that are bound and never listen.

    Another `bind` without SO_REUSEADDR fails, so `free_port` of others passes them over; a program that sets SO_REUSEADDR, as Go's do, may
    listen there, since nobody listens yet (`socket(7)`: the option allows it unless a listening socket is bound).
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self) -> int:
        """A port.

        Raises:
            EnvironmentFault: none is free.
        """
        for _ in range(_TRIES):
            held = socket.socket()
            try:
                held.bind(("127.0.0.1", port := free_port()))
            except OSError:  # taken since
                held.close()
                continue
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._sockets.append(held)
            return port
        raise EnvironmentFault(f"no free port was found in {_TRIES} tries; stop what uses them")

    def release(self) -> None:
        for held in self._sockets:
            held.close()
        self._sockets.clear()
