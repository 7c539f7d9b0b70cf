"""Who of several operators acts: the one that holds the Lease. kopf's peering is no leader election: two may act at once under it.

The holder renews every 5 s and stops acting 10 s after the beginning of its last renewal that succeeded. Another takes the Lease only after it saw
it unchanged for 15 s by its own clock. A call ends within 4 s (`kube.TIMEOUT_S`), so what the old holder began has ended before; besides, every
status is written onto the version that was read. Started by `main`; `act.Fenced` asks `require` before every write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

from citykit.errors import AlreadyExists, CityError, Conflict, NotFound, Unavailable
from citykit.telemetry import logger
from operators.city.kube import MANAGER, Api, Object, api_version

LEASE_S = 15
RENEW_S = 5.0
ACT_S = 10.0
LOOK_S = 2.0
"""Between two looks of one that does not hold it."""


class NotLeading(Unavailable):
    """Another operator leads, or may: nothing was written."""

    default_reason = "not-leading"


class Lease:
    """One process's share in the Lease.

    Args:
        identity: who we are; the same after a restart in the same pod, so that such a restart waits for nobody.
        monotonic: seconds that never go back.
    """

    def __init__(self, api: Api, identity: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._identity = identity
        self._monotonic = monotonic
        self._until = float("-inf")
        self._seen: tuple[str, float] = ("", float("-inf"))
        self._told = False
        self._silent_since: float | None = None
        self.holder = ""
        self.answered = monotonic()
        self.changed = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether we may act now."""
        return self._monotonic() < self._until

    def require(self) -> None:
        """Raises: NotLeading."""
        if not self.held:
            raise NotLeading(
                f"the operator {self.holder or 'nobody'} holds the Lease {MANAGER}, not {self._identity}; only its holder acts"
            )

    async def run(self) -> None:
        """Takes and renews for as long as the process runs; gives it back at the end."""
        try:
            while True:
                renewed = await self.once()
                await asyncio.sleep(RENEW_S if renewed and self.held else LOOK_S)
        finally:
            with contextlib.suppress(CityError, asyncio.CancelledError):
                await asyncio.shield(self.release())

    async def once(self) -> bool:
        """One look, and whatever follows from it. False: no answer; nothing changes then, and what is held runs out by itself."""
        begun, renewed = self._monotonic(), True
        try:
            await self._once(begun)
        except (Conflict, AlreadyExists, NotFound):
            pass  # somebody was faster; look again
        except Unavailable as error:
            renewed = False
            if self._silent_since is None:
                logger("operator").warning("lease-unanswered", extra={"fields": {"why": error.message}})
                self._silent_since = begun
        if renewed:
            self.answered, self._silent_since = self._monotonic(), None
        self._tell()
        return renewed

    def _tell(self) -> None:
        """Says so when we began or ceased to lead, also when the time just ran out."""
        if self.held != self._told:
            self._told = self.held
            logger("operator").info(
                "leading" if self._told else "not-leading", extra={"fields": {"holder": self.holder}}
            )
            self.changed.set()

    async def _once(self, begun: float) -> None:
        found = await self._api.get("Lease", MANAGER)
        if found is None:
            await self._api.create(self._lease(1))
            self._take(begun)
            return
        spec = found.get("spec") or {}
        self.holder = str(spec.get("holderIdentity") or "")
        version = str(found["metadata"].get("resourceVersion", ""))
        if version != self._seen[0]:
            self._seen = (version, begun)
        ours = self.holder == self._identity
        if ours or not self.holder or begun - self._seen[1] >= LEASE_S:
            await self._api.replace(self._lease(int(spec.get("leaseTransitions", 0)) + (not ours), found))
            self._take(begun)
        else:
            self._until = float("-inf")

    def _take(self, begun: float) -> None:
        self.holder = self._identity
        self._until = begun + ACT_S

    async def release(self) -> None:
        """Lets another begin at once. Nothing where we do not hold it."""
        if not self.held:
            return
        self._until = float("-inf")
        found = await self._api.get("Lease", MANAGER)
        if found is not None and (found.get("spec") or {}).get("holderIdentity") == self._identity:
            found["spec"]["holderIdentity"] = ""
            await self._api.replace({**found, "kind": "Lease", "apiVersion": api_version("Lease")})

    def _lease(self, transitions: int, found: Object | None = None) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        taken = (found or {}).get("spec", {}).get("acquireTime")
        same = found is not None and found["spec"].get("holderIdentity") == self._identity
        metadata = {"name": MANAGER} if found is None else found["metadata"]
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_S,
            "acquireTime": taken if same and taken else now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
        return {"apiVersion": api_version("Lease"), "kind": "Lease", "metadata": metadata, "spec": spec}


def own_identity() -> str:
    """The pod's name in a cluster; outside the host's and the process's, as several may run there."""
    host = socket.gethostname()
    return host if "KUBERNETES_SERVICE_HOST" in os.environ else f"{host}-{os.getpid()}"
