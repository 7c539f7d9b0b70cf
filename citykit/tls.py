"""Mutual TLS between services: who one is stands in the certificate. Files are read again when they change. Used by `citykit.network`.

A folder holds `tls.crt`, `tls.key` and `ca.crt`, as cert-manager writes a Kubernetes secret. The certificate carries the service's name as a DNS
name (RFC 5280, 4.2.1.6); a caller knows the callee by it, whatever its address.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from citykit.errors import EnvironmentFault

FILES = ("tls.crt", "tls.key", "ca.crt")


@dataclass(frozen=True)
class Certificate:
    """One reading of a folder's files, PEM."""

    chain: bytes
    key: bytes
    authority: bytes


class CertificateFolder:
    """The certificate of one name, as its folder holds it now.

    Args:
        name: what the certificate must be for.

    Raises:
        EnvironmentFault: files missing or unreadable, an expired certificate, another's name, a foreign key or authority.
    """

    def __init__(self, folder: Path, name: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._folder = folder
        self._name = name
        self._now = now
        self._stamp = self._stamped()
        self.current = _read(folder)
        _check(self.current, folder, name, now())

    def fresh(self) -> Certificate:
        """The files as they are now, if they hold; the last that held otherwise (somebody is changing them, so it is looked at again)."""
        with contextlib.suppress(EnvironmentFault):
            stamp = self._stamped()
            if stamp != self._stamp:
                found = _read(self._folder)
                _check(found, self._folder, self._name, self._now())
                self._stamp, self.current = stamp, found
        return self.current

    def server_credentials(self) -> grpc.ServerCredentials:
        """Asks every caller for a certificate of the same authority; takes changed files at the next handshake."""

        served = self.fresh()

        def renewed() -> Any:
            nonlocal served
            before, served = served, self.fresh()
            return None if served is before else _configuration(served)

        return grpc.dynamic_ssl_server_credentials(_configuration(served), renewed, True)

    def _stamped(self) -> tuple[tuple[int, int], ...]:
        try:
            return tuple((stat.st_mtime_ns, stat.st_ino) for stat in ((self._folder / name).stat() for name in FILES))
        except OSError as error:
            raise _missing(self._folder, error) from error


def channel_credentials(found: Certificate) -> grpc.ChannelCredentials:
    """What a caller shows, and the authority it believes."""
    return grpc.ssl_channel_credentials(found.authority, found.key, found.chain)


def peer_names(context: Any) -> frozenset[str]:
    """The DNS names in the caller's certificate (its common name where it has none); empty without TLS."""
    found = context.auth_context()
    names = found.get("x509_subject_alternative_name") or found.get("x509_common_name") or ()
    return frozenset(name.decode(errors="replace") for name in names)


def explained(details: str) -> str | None:
    """What a failed handshake means and what to do; None where the text speaks of none."""
    for sign, meaning in _SIGNS.items():
        if sign in details:
            return meaning
    return None


_RENEW = "renew the certificates (`make up` does so for its own), then try again"
_SIGNS = {
    "certificate has expired": f"a certificate has expired: {_RENEW}",
    "certificate signature failure": f"the other side's certificate is of another authority: {_RENEW}",
    "CERTIFICATE_VERIFY_FAILED": f"the other side's certificate is of another authority or has expired: {_RENEW}",
    "WRONG_VERSION_NUMBER": "the other side speaks plain text where TLS is wanted: check CITY_SERVICES_ADDRESSES",
    "CERTIFICATE_REQUIRED": "the other side asks for a certificate: set CITY_SERVICES_CERTIFICATES",
    "Hostname Verification Check failed": "the certificate found there is for another service: check CITY_SERVICES_ADDRESSES",
    "Peer name": "the certificate found there is for another service: check CITY_SERVICES_ADDRESSES",
}


def _configuration(found: Certificate) -> Any:
    return grpc.ssl_server_certificate_configuration([(found.key, found.chain)], found.authority)


def _read(folder: Path) -> Certificate:
    try:
        return Certificate(*((folder / name).read_bytes() for name in FILES))
    except OSError as error:
        raise _missing(folder, error) from error


def _missing(folder: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"the certificate folder {folder} cannot be read ({error.strerror}); it must hold {', '.join(FILES)}."
        " `make up` makes them for its own parts; CITY_SERVICES_CERTIFICATES names the folder"
    )


def _check(found: Certificate, folder: Path, name: str, now: datetime) -> None:
    try:
        chain = x509.load_pem_x509_certificates(found.chain)
        authority = x509.load_pem_x509_certificate(found.authority)
        key = load_pem_private_key(found.key, None)
    except ValueError as error:
        raise EnvironmentFault(f"a file in {folder} is no PEM certificate or key ({error}); make them again") from error
    leaf = chain[0]
    if leaf.not_valid_after_utc <= now:
        raise EnvironmentFault(
            f"the certificate in {folder} expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; {_RENEW}"
        )
    if leaf.not_valid_before_utc > now:
        raise EnvironmentFault(f"the certificate in {folder} is not valid yet; check this machine's clock")
    if name not in _dns_names(leaf):
        raise EnvironmentFault(
            f"the certificate in {folder} is for {', '.join(_dns_names(leaf)) or 'nobody'}, not for {name};"
            " check CITY_SERVICES_CERTIFICATES"
        )
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise EnvironmentFault(f"tls.key in {folder} is not the key of tls.crt; make both again")
    _check_issuers([*chain, authority], folder)


def _check_issuers(chain: Sequence[x509.Certificate], folder: Path) -> None:
    try:
        for issued, issuer in pairwise(chain):
            issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        raise EnvironmentFault(f"tls.crt in {folder} was not issued by ca.crt beside it; {_RENEW}") from None


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return found.value.get_values_for_type(x509.DNSName)
