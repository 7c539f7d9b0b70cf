"""How the services of a city reach each other: over one Unix socket in one process, or each at its own address with mutual TLS.

Chosen by the composition root (`services.world`), used by `citykit.run`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio

from citykit.access import SERVICES_ISSUER
from citykit.edge import MESSAGE_MAX_BYTES, Check
from citykit.errors import EnvironmentFault, PermissionDenied, SettingsError, Unauthenticated
from citykit.renewing import RenewingChannel
from citykit.settings import ServicesSettings
from citykit.tls import Certificate, CertificateFolder, channel_credentials, peer_names

OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
)
_RECONNECT = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1_000))
"""A service that was killed is back within seconds; waiting longer than it takes helps nobody."""
_TARGET = re.compile(r"(dns|ipv4|ipv6):")
"""How a name begins that stands for several addresses (gRPC's name syntax)."""
_LOOK_UP = (("grpc.dns_min_time_between_resolutions_ms", 1_000),)
"""gRPC's own 30 s are longer than a pod takes to be replaced."""
_PING_MS, _PING_ANSWER_MS = 30_000, 10_000
"""A machine that vanished closes no connection; only silence tells."""
_ALIVE = (("grpc.keepalive_time_ms", _PING_MS), ("grpc.keepalive_timeout_ms", _PING_ANSWER_MS))
_PINGED = (("grpc.http2.min_ping_interval_without_data_ms", _PING_MS // 3),)
"""What a server bears of its callers; by itself it ends a connection that pings more often than each five minutes."""


def server_options(settings: ServicesSettings) -> tuple[tuple[str, int], ...]:
    """gRPC options of a server. With a connection age, callers connect anew from time to time and so spread over new replicas."""
    options = (*OPTIONS, *_PINGED, ("grpc.so_reuseport", 0))
    if not settings.connection_age_s:
        return options
    aged = (
        ("grpc.max_connection_age_ms", settings.connection_age_s),
        ("grpc.max_connection_age_grace_ms", settings.connection_grace_s),
    )
    return (*options, *((name, max(1, round(1_000 * seconds))) for name, seconds in aged))


class Network(Protocol):
    """Where a process listens and how it reaches services."""

    def checks(self) -> Sequence[Check]:
        """What looks at each call before its token is read."""

    def listen(self, server: grpc.aio.Server, services: Collection[str]) -> None:
        """Makes the server serve where callers look for these services.

        Raises:
            EnvironmentFault: the address cannot be had.
        """

    def channel(self, caller: str, service: str, interceptors: Sequence[Any] = ()) -> grpc.aio.Channel:
        """A channel to a service. The owner closes it."""


class SocketNetwork:
    """Every service on one Unix socket, which the owner of the state directory alone can reach."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.target = f"unix:{path}"

    def checks(self) -> Sequence[Check]:
        return ()

    def listen(self, server: grpc.aio.Server, services: Collection[str]) -> None:
        self._path.unlink(missing_ok=True)
        server.add_insecure_port(self.target)

    def channel(self, caller: str, service: str, interceptors: Sequence[Any] = ()) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.target, options=OPTIONS, interceptors=list(interceptors))


class TlsNetwork:
    """Each service at an address of its own; both sides show certificates.

    Args:
        addresses: service to `host:port`, or to a name of several addresses (`dns:///host:port`), over which calls are spread.
        certificates: the folder of a name's certificate.
        callers: names besides the services' that may call.
        listen: `host:port` to serve at; empty: the service's own address.
        wait: whether calls to such names wait, within their time limits, while nobody is there.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        certificates: Callable[[str], Path],
        callers: Collection[str] = (),
        listen: str = "",
        *,
        wait: bool = False,
    ) -> None:
        self._addresses = addresses
        self._listen = listen
        self._balanced = (*_LOOK_UP, ("grpc.service_config", _service_config(wait=wait)))
        self._certificates = certificates
        self._known = frozenset((*addresses, *callers))
        self._folders: dict[str, CertificateFolder] = {}

    def checks(self) -> Sequence[Check]:
        return (PeerCheck(self._known),)

    def listen(self, server: grpc.aio.Server, services: Collection[str]) -> None:
        for service in services:
            address = self._listen or self.address(service)
            if _TARGET.match(address):
                raise SettingsError(
                    f"{service} cannot listen at {address}, which is where others look for it;"
                    " set CITY_SERVICES_LISTEN to a host:port of this machine, such as 0.0.0.0:50051",
                    field="CITY_SERVICES_LISTEN",
                )
            try:
                server.add_secure_port(address, self._folder(service).server_credentials())
            except RuntimeError as error:
                raise EnvironmentFault(
                    f"{service} cannot listen at {address}; another process may do so already."
                    " Stop it, or change CITY_SERVICES_LISTEN or CITY_SERVICES_ADDRESSES"
                ) from error

    def channel(self, caller: str, service: str, interceptors: Sequence[Any] = ()) -> grpc.aio.Channel:
        folder, address = self._folder(caller), self.address(service)
        balanced = self._balanced if _TARGET.match(address) else ()
        options = (*OPTIONS, *_RECONNECT, *_ALIVE, *balanced, ("grpc.ssl_target_name_override", service))

        def connect(found: Certificate) -> grpc.aio.Channel:
            credentials = channel_credentials(found)
            return grpc.aio.secure_channel(address, credentials, options=options, interceptors=list(interceptors))

        return RenewingChannel(connect, folder.fresh)

    def address(self, service: str) -> str:
        """Where a service is called: `host:port` or a name of several.

        Raises:
            SettingsError: the service has none.
        """
        if service not in self._addresses:
            raise SettingsError(
                f"no address is known for the service {service}; add {service}=host:port to CITY_SERVICES_ADDRESSES",
                field="CITY_SERVICES_ADDRESSES",
            )
        return self._addresses[service]

    def _folder(self, name: str) -> CertificateFolder:
        if name not in self._folders:
            self._folders[name] = CertificateFolder(self._certificates(name), name)
        return self._folders[name]


def tls_network(settings: ServicesSettings) -> TlsNetwork:
    """The network the settings describe.

    Raises:
        SettingsError: addresses or certificates are not said, or an address is none.
    """
    if not settings.certificates:
        raise SettingsError(
            "services in processes of their own speak TLS with each other only: set CITY_SERVICES_CERTIFICATES to a folder with"
            " tls.crt, tls.key and ca.crt; {service} in it stands for the service's name",
            field="CITY_SERVICES_CERTIFICATES",
        )
    callers = [name for name in settings.callers.split(",") if name]
    return TlsNetwork(
        read_addresses(settings.addresses),
        lambda name: Path(settings.certificates.replace("{service}", name)),
        callers,
        read_listen(settings.listen),
        wait=bool(settings.wait),
    )


def _service_config(*, wait: bool) -> str:
    """How calls to a name of several addresses go: to each in turn (gRPC's service config)."""
    every = {"name": [{}], "waitForReady": True}
    return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [every] if wait else []})


def read_listen(text: str) -> str:
    """`host:port`, or nothing.

    Raises:
        SettingsError: of another form.
    """
    host, _, port = text.rpartition(":")
    if text and (not host or _TARGET.match(text) or not port.isdigit()):
        raise SettingsError(
            f"CITY_SERVICES_LISTEN must be host:port of this machine, such as 0.0.0.0:50051, not {text!r}",
            field="CITY_SERVICES_LISTEN",
        )
    return text


def read_addresses(text: str) -> dict[str, str]:
    """`identity=host:port,notary=dns:///host:port,...` as a mapping.

    Raises:
        SettingsError: an entry of another form.
    """
    found: dict[str, str] = {}
    for entry in filter(None, text.split(",")):
        name, _, address = entry.partition("=")
        host, _, port = address.rpartition(":")
        if not (name and host and port.isdigit()):
            raise SettingsError(
                f"{entry!r} in CITY_SERVICES_ADDRESSES is not of the form name=host:port or name=dns:///host:port",
                field="CITY_SERVICES_ADDRESSES",
            )
        found[name] = address
    return found


class PeerCheck:
    """Lets only known services call, each under its own name: the certificate says it, and a service's token must say the same."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known

    async def __call__(self, method: str, metadata: Mapping[str, Any], context: Any) -> None:
        claimed = _claimed_service(str(metadata.get("authorization", "")))
        names = peer_names(context) & self._known
        if not names:
            raise Unauthenticated(
                "the caller's certificate names no service of this city; add it to CITY_SERVICES_CALLERS if it should call",
                reason="certificate-unknown",
            )
        if claimed is not None and claimed not in names:
            raise PermissionDenied(
                f"the certificate is {', '.join(sorted(names))}'s, but the token says it is {claimed}; each service shows its own",
                reason="certificate-of-another",
            )


@lru_cache(maxsize=4_096)
def _claimed_service(bearer: str) -> str | None:
    """The service a token says it is of, before its signature is looked at; None for people and where there is none."""
    parts = bearer.removeprefix("Bearer ").split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        if claims["iss"] != SERVICES_ISSUER:
            return None
        return str(claims["sub"]).removeprefix("service:")
    except (ValueError, KeyError, IndexError, TypeError):
        return None  # no token, or one that the access check refuses
