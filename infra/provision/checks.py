"""Whether a secret holds what it must. Every refusal names the secret and the key in it, and never quotes a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from citykit.access import unverified
from citykit.errors import InvalidArgument, Unauthenticated
from citykit.keys import ROOT_BYTES

AUDIENCE = "operations"
Data = Mapping[str, bytes]


def wrong(secret: str, key: str, what: str) -> InvalidArgument:
    """The refusal of a secret."""
    return InvalidArgument(
        f"the secret {secret}, key {key}: {what}. Nothing was changed; mend the secret, or delete it to have it made",
        field=secret,
    )


def require_keys(secret: str, data: Data, keys: Sequence[str]) -> None:
    """Raises InvalidArgument naming the first key that is missing or empty."""
    for key in keys:
        if not data.get(key):
            raise wrong(secret, key, f"is missing or empty; the secret must hold {', '.join(keys)}")


def certificates(secret: str, key: str, data: Data) -> list[x509.Certificate]:
    """The PEM certificates under a key, one or more."""
    try:
        return x509.load_pem_x509_certificates(data[key])
    except ValueError:
        raise wrong(secret, key, "is no PEM certificate") from None


def check_pair(secret: str, data: Data, certificate: str, key: str) -> list[x509.Certificate]:
    """The certificates, whose first is the key's."""
    chain = certificates(secret, certificate, data)
    try:
        private = load_pem_private_key(data[key], None)
    except (ValueError, TypeError):
        raise wrong(secret, key, "is no PEM private key, or has a password") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != chain[0].public_key().public_bytes(*form):
        raise wrong(secret, key, f"is not the key of {certificate}")
    return chain


def check_current(secret: str, key: str, certificate: x509.Certificate, now: datetime) -> None:
    """That a certificate is valid now."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= now < ends:
        raise wrong(secret, key, f"is valid from {begins:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d %H:%M} UTC, not now")


def check_authority(secret: str, data: Data, now: datetime) -> None:
    """That a supplied authority can issue."""
    found = check_pair(secret, data, "tls.crt", "tls.key")[0]
    try:
        able = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        able = False
    if not able:
        raise wrong(secret, "tls.crt", "is no certificate of an authority (basic constraints CA:TRUE)")
    if not isinstance(found.public_key(), ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise wrong(secret, "tls.key", "must be an EC or RSA key")
    check_current(secret, "tls.crt", found, now)


def check_leaf(secret: str, name: str, data: Data) -> x509.Certificate:
    """That a TLS secret's files belong together and are for this name. Whether they are current is another question."""
    chain = check_pair(secret, data, "tls.crt", "tls.key")
    check_issued(secret, chain, certificates(secret, "ca.crt", data), "ca.crt beside it")
    if name not in dns_names(chain[0]):
        raise wrong(
            secret, "tls.crt", f"is for {', '.join(dns_names(chain[0])) or 'nobody'}, not for the DNS name {name}"
        )
    common = [str(one.value) for one in chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if common != [name]:
        raise wrong(secret, "tls.crt", f"must have the common name {name}, by which Kafka knows its holder")
    if "tls-combined.pem" in data:
        _check_combined(secret, data)
    return chain[0]


def check_issued(
    secret: str, chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], whose: str
) -> None:
    """That each certificate of a chain is the next one's issue, and the last that of one of the authorities."""
    for issued, issuers in zip(chain, [*([one] for one in chain[1:]), authorities], strict=True):
        if not any(_issued_by(issued, one) for one in issuers):
            raise wrong(secret, "tls.crt", f"was not issued by {whose}")


def _issued_by(issued: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        issued.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_combined(secret: str, data: Data) -> None:
    both = {"tls.crt": data["tls-combined.pem"], "tls.key": data["tls-combined.pem"]}
    try:
        found = check_pair(secret, both, "tls.crt", "tls.key")[0]
    except InvalidArgument:
        found = None
    if found is None or found != certificates(secret, "tls.crt", data)[0]:
        raise wrong(secret, "tls-combined.pem", "is not tls.key followed by tls.crt")


def dns_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names a certificate is for."""
    names = _alternative(certificate)
    return names.get_values_for_type(x509.DNSName) if names else []


def hosts(certificate: x509.Certificate) -> set[str]:
    """The DNS names and addresses a certificate is for."""
    names = _alternative(certificate)
    return {*dns_names(certificate), *(map(str, names.get_values_for_type(x509.IPAddress)) if names else ())}


def _alternative(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def check_password(secret: str, data: Data) -> None:
    """That a password is one line of text; white space around it is not part of it."""
    try:
        lines = data["password"].decode().strip().splitlines()
    except UnicodeDecodeError:
        lines = []
    if len(lines) != 1 or not lines[0].isprintable():
        raise wrong(secret, "password", "must be one line of text (UTF-8)")


def check_root(secret: str, data: Data) -> None:
    """That a root key has its length."""
    if len(data["root"]) != ROOT_BYTES:
        raise wrong(secret, "root", f"has {len(data['root'])} bytes, not {ROOT_BYTES}")


def claims_of(secret: str, data: Data) -> dict[str, int]:
    """When a token for operations was issued and when it expires, Unix seconds. Its signature is not looked at.

    Raises:
        InvalidArgument: no token, or one for another audience.
    """
    try:
        _, claims = unverified(data["token"].decode().strip())
        issued, ends = int(claims["iat"]), int(claims["exp"])
    except (Unauthenticated, ValueError, KeyError, TypeError):
        raise wrong(secret, "token", "is no JSON web token with iat and exp") from None
    audiences = claims.get("aud")
    if AUDIENCE not in (audiences if isinstance(audiences, list) else [audiences]):
        raise wrong(secret, "token", f"is not for the audience {AUDIENCE}")
    return {"iat": issued, "exp": ends}
