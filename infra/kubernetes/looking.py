"""A thread that looks at the API server again and again: what a controller is to a cluster, as small as a test needs it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from citykit.errors import EnvironmentFault
from infra.kubernetes.asking import Asking

EVERY_S = 0.5


class Looking:
    """Looks twice a second until it is stopped. A fault is told once, and looked past: the API server may be away or begin anew.

    Args:
        open_api: a client of the thread's own.
        look: may raise OSError and EnvironmentFault.
    """

    def __init__(self, name: str, open_api: Callable[[], Asking], look: Callable[[Asking], object]) -> None:
        self._open_api, self._look = open_api, look
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        api, told = self._open_api(), ""
        while not self._stopping.wait(EVERY_S):
            try:
                self._look(api)
            except OSError:
                continue
            except EnvironmentFault as fault:
                if fault.message != told:
                    told = fault.message
                    print(f"{self._thread.name}: {told}", file=sys.stderr, flush=True)
        api.close()
