"""Who submits from this process: one certificate and key for each service, from the settings. Used when the ledger is opened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from citykit.errors import PermissionDenied, SettingsError
from citykit.ledger.channel.renewal import Renewed
from citykit.ledger.fabric import EcdsaSigner, Ed25519Signer, Identity, Tls, read_identity
from citykit.ledger.fabric.errors import IdentityError
from citykit.ledger.fabric.identity import require_pair
from citykit.settings import FabricSettings

_MEMBERS_MAX = 100
Credentials = tuple[Identity, EcdsaSigner | Ed25519Signer]


def read_members(settings: FabricSettings) -> dict[str, Credentials]:
    """Name -> identity and signer, of each NAME.pem with its NAME.key.

    Raises:
        SettingsError: no folder, nobody in it, or a file that cannot be used; it names the file and never its content.
    """
    folder = Path(settings.members)
    if not settings.members or not folder.is_dir():
        raise SettingsError(
            "CITY_FABRIC_MEMBERS must name a folder with NAME.pem and NAME.key of each service that submits",
            field="CITY_FABRIC_MEMBERS",
        )
    found = sorted(path for path in folder.glob("*.pem") if path.with_suffix(".key").exists())
    if not 1 <= len(found) <= _MEMBERS_MAX:
        raise SettingsError(
            f"{folder} must hold 1 to {_MEMBERS_MAX} pairs NAME.pem and NAME.key, not {len(found)}",
            field="CITY_FABRIC_MEMBERS",
        )
    try:
        members = {path.stem: read_identity(settings.msp, path, path.with_suffix(".key")) for path in found}
    except IdentityError as error:
        raise SettingsError(str(error), field="CITY_FABRIC_MEMBERS") from None
    for path in found:
        _require_current(members[path.stem][0].certificate, path, "CITY_FABRIC_MEMBERS")
    return members


def watched_members(settings: FabricSettings) -> Renewed[dict[str, Credentials]]:
    """`read_members`, again when a member's files are replaced. Members that come later are not taken up. Raises SettingsError."""
    names = read_members(settings)
    folder = Path(settings.members)
    files = [folder / f"{name}{ending}" for name in names for ending in (".pem", ".key")]
    return Renewed(files, lambda: read_members(settings))


def watched_tls(settings: FabricSettings) -> Renewed[Tls | None]:
    """`read_tls`, again when its files are replaced. Raises SettingsError."""
    named = (settings.tls_ca, settings.tls_cert, settings.tls_key)
    return Renewed([Path(name) for name in named if name], lambda: _usable(read_tls(settings), settings))


def _require_current(certificate: bytes, path: Path, name: str) -> None:
    """Raises SettingsError where a certificate has run out or is not valid yet, by this machine's clock."""
    found, now = x509.load_pem_x509_certificate(certificate), datetime.now(UTC)
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    if not begins <= now <= ends:
        raise SettingsError(
            f"{name}: the certificate {path} is valid from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC, not now;"
            " have it renewed, and look at the clock",
            field=name,
        )


def _usable(tls: Tls | None, settings: FabricSettings) -> Tls | None:
    """TLS whose certificate and key fit, and that has not run out. Raises SettingsError."""
    if tls is None or tls.certificate is None or tls.key is None:
        return tls
    try:
        require_pair(tls.certificate, tls.key)
    except IdentityError as error:
        raise SettingsError(
            f"CITY_FABRIC_TLS_CERT and CITY_FABRIC_TLS_KEY: {error}", field="CITY_FABRIC_TLS_CERT"
        ) from None
    _require_current(tls.certificate, Path(settings.tls_cert), "CITY_FABRIC_TLS_CERT")
    return tls


def reader_name(settings: FabricSettings, members: Mapping[str, Credentials]) -> str:
    """The member that evaluates and reads blocks.

    Raises:
        SettingsError: the settings name one that is not there.
    """
    name = settings.reader or next(iter(members))
    if name not in members:
        raise SettingsError(
            f"CITY_FABRIC_READER is {name!r}; the members are {', '.join(members)}", field="CITY_FABRIC_READER"
        )
    return name


def credentials_of(members: Mapping[str, Credentials], submitter: str) -> Credentials:
    """What a submitter signs with.

    Raises:
        PermissionDenied: this process has no certificate of that name.
    """
    if submitter not in members:
        raise PermissionDenied(
            f"this process has no certificate of {submitter} and cannot submit for it; it has {', '.join(members)}",
            reason="no-certificate",
        )
    return members[submitter]


def read_tls(settings: FabricSettings) -> Tls | None:
    """TLS to the peer; None where the settings name no authority.

    Raises:
        SettingsError: a file that cannot be read, or only one of certificate and key.
    """
    if not settings.tls_ca:
        return None
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise SettingsError("CITY_FABRIC_TLS_CERT and CITY_FABRIC_TLS_KEY go together", field="CITY_FABRIC_TLS_KEY")
    return Tls(
        roots=_content(settings.tls_ca, "CITY_FABRIC_TLS_CA"),
        certificate=_content(settings.tls_cert, "CITY_FABRIC_TLS_CERT") if settings.tls_cert else None,
        key=_content(settings.tls_key, "CITY_FABRIC_TLS_KEY") if settings.tls_key else None,
        name=settings.tls_name,
    )


def _content(path: str, name: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{name}: {path} cannot be read: {error.strerror}", field=name) from None
