"""How the services of a city reach each other: over one Unix socket in one process, or each at its own address with mutual TLS.

Chosen by the composition root (`services.world`), used by `citykit.run`.
"""

from __future__ import annotations

import base64
import json
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
        addresses: service to `host:port`.
        certificates: the folder of a name's certificate.
        callers: names besides the services' that may call.
    """

    def __init__(
        self, addresses: Mapping[str, str], certificates: Callable[[str], Path], callers: Collection[str] = ()
    ) -> None:
        self._addresses = addresses
        self._certificates = certificates
        self._known = frozenset((*addresses, *callers))
        self._folders: dict[str, CertificateFolder] = {}

    def checks(self) -> Sequence[Check]:
        return (PeerCheck(self._known),)

    def listen(self, server: grpc.aio.Server, services: Collection[str]) -> None:
        for service in services:
            address = self.address(service)
            try:
                server.add_secure_port(address, self._folder(service).server_credentials())
            except RuntimeError as error:
                raise EnvironmentFault(
                    f"{service} cannot listen at {address}; another process may do so already."
                    " Stop it, or change CITY_SERVICES_ADDRESSES"
                ) from error

    def channel(self, caller: str, service: str, interceptors: Sequence[Any] = ()) -> grpc.aio.Channel:
        folder, address = self._folder(caller), self.address(service)
        options = (*OPTIONS, *_RECONNECT, ("grpc.ssl_target_name_override", service))

        def connect(found: Certificate) -> grpc.aio.Channel:
            credentials = channel_credentials(found)
            return grpc.aio.secure_channel(address, credentials, options=options, interceptors=list(interceptors))

        return RenewingChannel(connect, folder.fresh)

    def address(self, service: str) -> str:
        """`host:port`.

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
    )


def read_addresses(text: str) -> dict[str, str]:
    """`identity=host:port,...` as a mapping.

    Raises:
        SettingsError: an entry of another form.
    """
    found: dict[str, str] = {}
    for entry in filter(None, text.split(",")):
        name, _, address = entry.partition("=")
        host, _, port = address.rpartition(":")
        if not (name and host and port.isdigit()):
            raise SettingsError(
                f"{entry!r} in CITY_SERVICES_ADDRESSES is not of the form name=host:port",
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
