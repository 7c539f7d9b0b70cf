"""What the operator asks in a rollout, answered as the test says: invariants and freezes over mutual TLS, and Prometheus' API over HTTP."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from aiohttp import web
from google.protobuf.timestamp_pb2 import Timestamp

from city.operations.v1 import operations_service_pb2 as pb
from city.operations.v1.operations_service_pb2_grpc import (
    OperationsServiceServicer,
    add_OperationsServiceServicer_to_server,
)
from citykit.tls import peer_names
from infra.certificates import Issued, issue, new_authority
from infra.native import free_port

TOKEN = "a-token-of-the-operator"
DAYS = 1.0
BAD_QUERY = 'invalid parameter "query": 1:8: parse error: unexpected end of input'


@dataclass
class Programmable:
    """The knobs.

    Attributes:
        broken: (service, invariant) to its evidence; everything else holds.
        without: services that do not implement `city.operations.v1`.
        silent: services that do not answer.
        freezes: reason by service.
        values: what each query gives, by a word in it; a query of no such word gives `usual`. None: no series.
        bad: words that make a query wrong.
        queries: what was asked of Prometheus.
        callers: names of the certificates that came.
    """

    folder: Path
    services: tuple[str, ...]
    broken: dict[tuple[str, str], str] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    freezes: dict[str, str] = field(default_factory=dict)
    values: dict[str, float | None] = field(default_factory=dict)
    usual: float = 0.0
    bad: tuple[str, ...] = ("((",)
    queries: list[str] = field(default_factory=list)
    callers: set[str] = field(default_factory=set)
    grpc_port: int = 0
    http_port: int = 0

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def environment(self) -> dict[str, str]:
        """`CITY_*` of an operator that asks here."""
        addresses = ",".join(f"{name}=127.0.0.1:{self.grpc_port}" for name in self.services)
        return {
            "CITY_SERVICES_ADDRESSES": addresses,
            "CITY_SERVICES_CERTIFICATES": str(self.folder / "{service}"),
        }

    @property
    def token_file(self) -> Path:
        return self.folder / "token"


class _Operations(OperationsServiceServicer):
    def __init__(self, knobs: Programmable) -> None:
        self._knobs = knobs

    async def ListInvariants(self, request: pb.ListInvariantsRequest, context: Any) -> pb.ListInvariantsResponse:
        await self._admitted(request.service, context)
        evidence = {name: told for (service, name), told in self._knobs.broken.items() if service == request.service}
        now = Timestamp(seconds=int(time.time()) + 1)
        names = {"ledger-agrees", *evidence}
        found = [
            pb.Invariant(
                service=request.service,
                name=name,
                holds=name not in evidence,
                since=now,
                checked_at=now,
                evidence=evidence.get(name, "0 differences"),
            )
            for name in sorted(names)
        ]
        return pb.ListInvariantsResponse(invariants=found)

    async def GetFreeze(self, request: pb.GetFreezeRequest, context: Any) -> pb.GetFreezeResponse:
        await self._admitted(request.service, context)
        return pb.GetFreezeResponse(reason=self._knobs.freezes.get(request.service, ""))

    async def _admitted(self, service: str, context: Any) -> None:
        self._knobs.callers |= peer_names(context)
        if f"Bearer {TOKEN}" != dict(context.invocation_metadata()).get("authorization"):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        if service in self._knobs.silent:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        if service in self._knobs.without:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "none here")


@contextlib.asynccontextmanager
async def programmable(folder: Path, services: tuple[str, ...]) -> AsyncIterator[Programmable]:
    """Serves until the block ends, on the caller's event loop."""
    knobs = Programmable(folder, services)
    server_side = _write_certificates(knobs)
    (folder / "token").write_text(TOKEN + "\n", encoding="ascii")
    server = grpc.aio.server()
    add_OperationsServiceServicer_to_server(_Operations(knobs), server)
    knobs.grpc_port = server.add_secure_port("127.0.0.1:0", server_side)
    await server.start()
    runner = await _prometheus(knobs)
    try:
        yield knobs
    finally:
        await runner.cleanup()
        await server.stop(0)


def _write_certificates(knobs: Programmable) -> grpc.ServerCredentials:
    authority = new_authority("test", DAYS)
    for name in ("operator",):
        _write(knobs.folder / name, authority, issue(authority, name, DAYS, hosts=("localhost", "127.0.0.1")))
    shown = issue(authority, "services", DAYS, hosts=knobs.services)
    pairs = [(shown.key, shown.certificate)]
    return grpc.ssl_server_credentials(pairs, authority.certificate, require_client_auth=True)


def _write(folder: Path, authority: Issued, issued: Issued) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("tls.crt", issued.certificate), ("tls.key", issued.key), ("ca.crt", authority.certificate)):
        (folder / name).write_bytes(content)


async def _prometheus(knobs: Programmable) -> web.AppRunner:
    async def query(request: web.Request) -> web.Response:
        asked = str((await request.post())["query"])
        knobs.queries.append(asked)
        if any(word in asked for word in knobs.bad):
            return web.json_response({"status": "error", "errorType": "bad_data", "error": BAD_QUERY}, status=400)
        value = next((found for word, found in knobs.values.items() if word in asked), knobs.usual)
        result = [] if value is None else [{"metric": {}, "value": [time.time(), str(value)]}]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    application = web.Application()
    application.router.add_post("/api/v1/query", query)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    knobs.http_port = free_port()
    await web.TCPSite(runner, "127.0.0.1", knobs.http_port).start()
    return runner
