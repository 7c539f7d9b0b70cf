"""Hears of changes through kopf and wakes the loop that looks. Started by `main`.

kopf watches, lists again after 410 and reconnects. It decides nothing: no handler writes, and it keeps no state in the resource.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import kopf

from citykit.errors import EnvironmentFault
from operators.city.kube import CITY, KINDS
from operators.city.manifests import APPLIED, OPERATOR

SERVER_TIMEOUT_S = 240
"""A watch ends in good order after so long and begins anew: one that died silently is not trusted longer."""
CLIENT_TIMEOUT_S = SERVER_TIMEOUT_S + 30
SILENT_S = 75.0
"""The server sends a bookmark every minute; a watch that is silent for longer is dead."""
CONNECT_S = 5.0
REQUEST_S = 10.0
BACKOFFS_S = (1, 1, 2, 3, 5)


class Waker:
    """Set by whoever hears of something, waited for by the loop.

    Attributes:
        heard: monotonic seconds of the first news since the last round; None: none.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.heard: float | None = None

    def wake(self) -> None:
        self.heard = self.heard if self.heard is not None else time.monotonic()
        self._event.set()

    async def wait(self, at_most_s: float) -> None:
        """Returns when woken, or when the time is up."""
        try:
            async with asyncio.timeout(at_most_s):
                await self._event.wait()
        except TimeoutError:
            return

    def taken(self) -> float | None:
        """Since when news waited (monotonic seconds); the next round begins."""
        heard, self.heard = self.heard, None
        self._event.clear()
        return heard


def settings() -> kopf.OperatorSettings:
    """No peering, no state in annotations, no events of kopf's own, every watch and call with a time-out."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.scanning.disabled = True  # neither CRDs nor namespaces need be readable
    found.watching.server_timeout = SERVER_TIMEOUT_S
    found.watching.client_timeout = CLIENT_TIMEOUT_S
    found.watching.connect_timeout = CONNECT_S
    found.watching.inactivity_timeout = SILENT_S
    found.networking.request_timeout = REQUEST_S
    found.networking.connect_timeout = CONNECT_S
    found.networking.error_backoffs = BACKOFFS_S
    return found


def registry(wake: Callable[[], None]) -> kopf.OperatorRegistry:
    """One handler: whatever happens to a City, or to the workloads and Jobs we applied, wakes the loop."""
    found = kopf.OperatorRegistry()

    async def heard(**_: Any) -> None:
        wake()

    kopf.on.event(*KINDS[CITY], registry=found)(heard)
    for kind in ("Deployment", "StatefulSet", "Job"):
        kopf.on.event(*KINDS[kind], labels={APPLIED: OPERATOR}, registry=found)(heard)
    kopf.on.login(registry=found)(_login)
    return found


def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """As lightkube does: the pod's service account, else the kubeconfig."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


async def watching(namespace: str, wake: Callable[[], None], stop: asyncio.Event) -> None:
    """Watches until `stop` is set or a signal ends the process.

    Raises:
        EnvironmentFault: kopf gave up.
    """
    logging.getLogger("kopf").setLevel(logging.CRITICAL)  # the Lease's loop tells of an API server that is away, once
    try:
        await kopf.operator(
            registry=registry(wake), settings=settings(), standalone=True, namespaces=[namespace], stop_flag=stop
        )
    except Exception as error:  # of many kinds, none of them documented
        raise EnvironmentFault(f"watching the City resources ended ({type(error).__name__}: {error})") from error
