"""The first look at the brokers, by the plain means of the protocol, so that what is wrong can be told: address, TLS, certificates, credentials.

A client library only says that it cannot connect. Called by `open_kafka_bus` and `city bus topics`.
"""

from __future__ import annotations

import socket
import ssl
import struct
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from citykit.bus.kafka.client import ClientFault
from citykit.bus.kafka.connection import certificate_files, check_settings, servers
from citykit.bus.kafka.inspector import Inspector
from citykit.errors import EnvironmentFault
from citykit.settings import KafkaSettings

_API_VERSIONS, _CORRELATION = 18, 7
_ASK = struct.pack(">ihhih", 10, _API_VERSIONS, 0, _CORRELATION, -1)
"""ApiVersions request, version 0, without client id (Kafka protocol guide)."""
_TLS_ALERT = 0x15
_RENEW = "renew the certificates (`make up` does so for its own), then start again"


class _Refused(Exception):
    """This server cannot be used; the text says why and what to do."""


def preflight(settings: KafkaSettings) -> Inspector:
    """An inspector that has reached the brokers.

    Raises:
        SettingsError: a setting that is not allowed or is missing.
        EnvironmentFault: what is wrong with files, address, TLS or credentials, and what to do.
    """
    check_settings(settings)
    context = _context(settings)
    refusals = [refusal for server in servers(settings) if (refusal := _refusal(server, context, settings))]
    if len(refusals) == len(servers(settings)):
        raise EnvironmentFault(refusals[0])
    inspector = Inspector(settings)
    try:
        inspector.brokers(settings.start_s)
    except PermissionError as error:
        raise EnvironmentFault(
            f"the brokers at {settings.bootstrap} refuse the credentials of {settings.user or 'this certificate'} ({error});"
            " check CITY_KAFKA_USER and CITY_KAFKA_PASSWORD_FILE, or CITY_KAFKA_CERTIFICATES"
        ) from error
    except ClientFault as error:
        raise EnvironmentFault(
            f"the brokers at {settings.bootstrap} did not answer within {settings.start_s:.0f} s ({error});"
            " are they ready? `make up PARTS=kafka` waits until they are"
        ) from error
    return inspector


def _context(settings: KafkaSettings) -> ssl.SSLContext | None:
    if settings.security == "PLAINTEXT":
        return None
    files = certificate_files(settings)
    for path in (files["ca"], files.get("crt")):
        if path is not None:
            _check_dates(path)
    try:
        context = ssl.create_default_context(cafile=str(files["ca"]))
        if "crt" in files:
            context.load_cert_chain(files["crt"], files["key"])
    except (OSError, ssl.SSLError) as error:
        raise EnvironmentFault(
            f"the certificates in {settings.certificates} cannot be used ({error}); it must hold {_names(files)}"
        ) from error
    return context


def _names(files: dict[str, Path]) -> str:
    return ", ".join(path.name for path in files.values())


def _check_dates(path: Path) -> None:
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EnvironmentFault(
            f"{path} cannot be read as a certificate ({error}); check CITY_KAFKA_CERTIFICATES"
        ) from error
    now = datetime.now(UTC)
    for found in certificates:
        if found.not_valid_after_utc <= now:
            raise EnvironmentFault(f"{path} expired on {found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; {_RENEW}")
        if found.not_valid_before_utc > now:
            raise EnvironmentFault(f"{path} is not valid yet; check this machine's clock")


def _refusal(server: tuple[str, int], context: ssl.SSLContext | None, settings: KafkaSettings) -> str:
    """Why this server cannot be used; empty where it answers as a broker does."""
    where = f"{server[0]}:{server[1]}"
    try:
        with socket.create_connection(server, timeout=settings.request_s) as plain:
            if context is None:
                return _explain_plain(where, _ask(plain))
            with context.wrap_socket(plain, server_hostname=server[0]) as secure:
                return "" if _is_answer(_ask(secure)) else f"{where} does not speak Kafka; check CITY_KAFKA_BOOTSTRAP"
    except ssl.SSLCertVerificationError as error:
        return (
            f"the certificate of {where} does not hold: {error.verify_message}; if it expired, renew it there; if it is of"
            " another authority or host, check CITY_KAFKA_BOOTSTRAP and ca.crt in CITY_KAFKA_CERTIFICATES"
        )
    except ssl.SSLError as error:
        return _explain_tls(where, error)
    except ConnectionResetError:
        return _not_tls(where) if context else _not_plain(where)
    except OSError as error:
        return f"nobody answers at {where} ({error}); start the brokers (`make up PARTS=kafka`), or check CITY_KAFKA_BOOTSTRAP"


def _ask(connection: socket.socket) -> bytes:
    connection.sendall(_ASK)
    return connection.recv(8)


def _is_answer(found: bytes) -> bool:
    return len(found) == 8 and struct.unpack(">ii", found)[1] == _CORRELATION  # noqa: PLR2004 - length, correlation id


def _explain_plain(where: str, found: bytes) -> str:
    if _is_answer(found):
        return ""
    if not found or found[0] == _TLS_ALERT:
        return _not_plain(where)
    return f"{where} does not speak Kafka; check CITY_KAFKA_BOOTSTRAP"


def _not_plain(where: str) -> str:
    return f"{where} does not take plain text; set CITY_KAFKA_SECURITY=SSL (or SASL_SSL) and CITY_KAFKA_CERTIFICATES"


def _explain_tls(where: str, error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if "ALERT" in reason:
        return (
            f"{where} does not take our certificate ({reason}): it expired, is of another authority, or the port wants"
            f" another kind; {_RENEW}, or check CITY_KAFKA_SECURITY"
        )
    return _not_tls(where)


def _not_tls(where: str) -> str:
    return (
        f"{where} does not speak TLS; it is a plain-text port, and CITY_KAFKA_SECURITY says otherwise: check the port"
    )
