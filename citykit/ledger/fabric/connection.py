"""One gRPC channel to a gateway peer, and how calls on it are bounded and repeated. Shared by every identity of a process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.gateway import gateway_pb2_grpc
from fabric_protos.peer import events_pb2_grpc

from citykit.ledger.fabric.errors import RETRIED, GatewayError, IdentityError, gateway_error

MESSAGE_MAX = 100 * 1024 * 1024
"""Bytes of one message, as peers set it."""
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    ("grpc.max_send_message_length", MESSAGE_MAX),
    ("grpc.keepalive_time_ms", 120_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
)


@dataclass(frozen=True)
class Tls:
    """TLS to the peer; with `certificate` and `key` mutual. All are PEM.

    Attributes:
        roots: certificates of the authorities that may have signed the peer's.
        name: the host name the peer's certificate must be for, where the address has another.
    """

    roots: bytes
    certificate: bytes | None = None
    key: bytes | None = None
    name: str = ""


@dataclass(frozen=True)
class Deadlines:
    """Seconds each step may take, with its retries; `doubt_s` is how long a commit is looked for after a submit without an answer."""

    evaluate_s: float = 10.0
    endorse_s: float = 20.0
    submit_s: float = 10.0
    commit_s: float = 60.0
    doubt_s: float = 5.0


@dataclass(frozen=True)
class Retry:
    """How a call that did not get through is sent again: the same bytes, after a pause that grows and is spread.

    Attributes:
        tries: most often a call is made.
        first_s, factor, longest_s: the pause before the second call, how it grows, and its limit.
    """

    tries: int = 10
    first_s: float = 0.05
    factor: float = 2.0
    longest_s: float = 1.0
    spread: random.Random = field(default_factory=random.Random, compare=False)

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        longest = min(self.longest_s, self.first_s * self.factor ** min(failures - 1, 32))
        return longest * (0.5 + self.spread.random() / 2)


class Connection:
    """The channel. Made by `connect`; closed by `close`, or as an async context.

    Args:
        in_flight_max: calls at once; more wait. A peer refuses calls beyond a limit of its own, 500 by default.
        tls_hash: hash of the TLS certificate shown now (`tls_hash_of`); empty where none is.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        deadlines: Deadlines | None = None,
        retry: Retry | None = None,
        in_flight_max: int = 400,
        tls_hash: Callable[[], bytes] = bytes,
    ) -> None:
        self.channel = channel
        self.deadlines = deadlines or Deadlines()
        self.retry = retry or Retry()
        self.tls_hash = tls_hash
        self.gateway = gateway_pb2_grpc.GatewayStub(channel)
        self.deliver = events_pb2_grpc.DeliverStub(channel)
        self._places = asyncio.Semaphore(in_flight_max)

    async def call(
        self,
        method: Callable[..., Awaitable[Any]],
        request: Any,
        kind: type[GatewayError],
        limit_s: float,
        transaction_id: str = "",
    ) -> Any:
        """One unary call, sent again with the same bytes while it does not get through, within `limit_s`.

        Raises:
            GatewayError: of `kind`. Its `repeated` says whether an earlier try may have got through unanswered.
        """
        clock = asyncio.get_running_loop().time
        async with self._places:
            end = clock() + limit_s
            for failures in range(1, self.retry.tries + 1):
                try:
                    return await method(request, timeout=max(0.001, end - clock()))
                except grpc.aio.AioRpcError as error:
                    fault = gateway_error(kind, error, transaction_id)
                    fault.repeated = failures > 1
                    pause_s = self.retry.pause_s(failures)
                    if fault.code not in RETRIED or failures == self.retry.tries or clock() + pause_s >= end:
                        raise fault from None
                await asyncio.sleep(pause_s)
        raise AssertionError("a retry makes at least one try")

    async def close(self) -> None:
        await self.channel.close(None)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


def connect(
    address: str,
    *,
    tls: Tls | None = None,
    deadlines: Deadlines | None = None,
    retry: Retry | None = None,
    in_flight_max: int = 400,
) -> Connection:
    """A connection to the peer at `address` (host:port); it is made at the first call.

    Args:
        tls: None: plain text, for a peer on this machine only.

    Raises:
        IdentityError: a TLS certificate or key that cannot be used.
    """
    channel = open_channel(address, tls)
    said = tls_hash_of(tls)
    return Connection(channel, deadlines=deadlines, retry=retry, in_flight_max=in_flight_max, tls_hash=lambda: said)


def open_channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    """The gRPC channel `connect` uses, for who makes a `Connection` over one of its own.

    Raises:
        IdentityError: a TLS certificate or key that cannot be used.
    """
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    credentials = _credentials(tls)
    options = _OPTIONS + ((("grpc.ssl_target_name_override", tls.name),) if tls.name else ())
    return grpc.aio.secure_channel(address, credentials, options=options)


def tls_hash_of(tls: Tls | None) -> bytes:
    """What a signed request for blocks names under mutual TLS: SHA-256 of the client certificate's DER; empty without one."""
    return _certificate_hash(tls.certificate) if tls is not None and tls.certificate is not None else b""


def _certificate_hash(certificate: bytes) -> bytes:
    """SHA-256 of a PEM certificate's DER.

    Raises:
        IdentityError: it is no certificate.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise IdentityError(f"the client's TLS certificate is no X.509 PEM: {error}") from None
    return sha256(found.public_bytes(Encoding.DER)).digest()


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.certificate is None) != (tls.key is None):
        raise IdentityError("mutual TLS needs both a certificate and its key")
    if tls.certificate is not None:
        _certificate_hash(tls.certificate)
    return grpc.ssl_channel_credentials(tls.roots, tls.key, tls.certificate)


async def stream(call: Any, kind: type[GatewayError]) -> AsyncGenerator[Any, None]:
    """The messages of a server's stream; a failure is of `kind`. The stream is cancelled when the reader leaves."""
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise gateway_error(kind, error) from None
    finally:
        call.cancel()
