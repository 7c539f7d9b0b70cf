"""What services say of themselves over `city.operations.v1`: invariants and freezes. Called by `gates`.

Mutual TLS as the name `operator`, with a token of audience `operations`; both are files that may be renewed while we run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from city.operations.v1 import operations_service_pb2 as pb
from city.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from citykit.errors import CityError
from citykit.network import Network

NAME = "operator"
ANSWER_S = 3.0
_ABSENT = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)
"""A service that does not implement it has no invariant and no freeze."""
_SIGNS_MAX = 200


@dataclass(frozen=True)
class Said:
    """One service's answer.

    Attributes:
        broken: what does not hold, a sentence each.
        old: what was last looked at before the moment asked for.
        held: names of what holds.
        silent: why there is no answer; empty: there is one.
    """

    service: str
    held: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    silent: str = ""


class Services:
    """The services of the city, as far as `city.operations.v1` goes.

    Args:
        network: how they are reached.
        token: the file with the operator's token.
        callers: those of them that only call, so that there is nobody to ask.
    """

    def __init__(self, network: Network, token: Path, callers: Collection[str] = ()) -> None:
        self._network = network
        self._token = token
        self._callers = frozenset(callers)
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def invariants(self, services: Iterable[str], since: datetime) -> list[Said]:
        """Of each service; `since`: looks before it count as old."""
        return list(await asyncio.gather(*(self._invariants(name, since) for name in services)))

    async def freezes(self, services: Iterable[str]) -> dict[str, str]:
        """Reasons to leave a service alone. One that does not answer gives none: what is down must stay repairable."""
        names = list(services)
        found = await asyncio.gather(*map(self._freeze, names))
        return {name: reason for name, reason in zip(names, found, strict=True) if reason}

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close(None)

    async def _invariants(self, service: str, since: datetime) -> Said:
        if service in self._callers:
            return Said(service)
        try:
            request = pb.ListInvariantsRequest(service=service)
            request.not_before.FromDatetime(since)
            answer = await self._stub(service).ListInvariants(request, metadata=self._metadata(), timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            return Said(service) if error.code() in _ABSENT else Said(service, silent=_told(service, error))
        except CityError as error:
            return Said(service, silent=f"{service} cannot be asked: {error.message}")
        except OSError as error:
            return Said(service, silent=f"{service} cannot be asked: {self._token} cannot be read ({error.strerror})")
        return said(service, answer.invariants, since)

    async def _freeze(self, service: str) -> str:
        if service in self._callers:
            return ""
        try:
            request = pb.GetFreezeRequest(service=service)
            answer = await self._stub(service).GetFreeze(request, metadata=self._metadata(), timeout=ANSWER_S)
        except (grpc.aio.AioRpcError, CityError, OSError):
            return ""
        until = f" until {_time(answer.until):%Y-%m-%d %H:%M} UTC" if answer.HasField("until") else ""
        return f"{answer.reason}{until}" if answer.reason else ""

    def _stub(self, service: str) -> Any:
        if service not in self._channels:
            self._channels[service] = self._network.channel(NAME, service)
        return OperationsServiceStub(self._channels[service])

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token.read_text(encoding='ascii').strip()}"),)


def said(service: str, invariants: Iterable[pb.Invariant], since: datetime) -> Said:
    """What an answer comes to."""
    held: list[str] = []
    broken: list[str] = []
    old: list[str] = []
    for one in invariants:
        if not one.holds:
            broken.append(
                f"{one.name} of {one.service or service} is broken since {_time(one.since):%H:%M:%S} UTC: {one.evidence}"
            )
        elif _time(one.checked_at) < since:
            old.append(one.name)
        else:
            held.append(one.name)
    return Said(service, tuple(held), tuple(broken), tuple(old))


def default_addresses(services: Iterable[str]) -> Mapping[str, str]:
    """Where services are in a namespace of their own."""
    return {name: f"dns:///{name}:50051" for name in services}


def _time(stamp: Any) -> datetime:
    return datetime.fromtimestamp(stamp.seconds + stamp.nanos / 1e9, UTC)


def _told(service: str, error: grpc.aio.AioRpcError) -> str:
    return f"{service} does not say whether its invariants hold ({error.code().name}: {(error.details() or '')[:_SIGNS_MAX]})"
