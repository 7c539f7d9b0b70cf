"""Who signs, and how: transaction ids, low S, keys that Fabric takes, members from files, TLS files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils

from citykit.ledger.fabric import EcdsaSigner, Ed25519Signer, Identity, Tls, connect, read_identity, read_signer, wire
from citykit.ledger.fabric.errors import IdentityError
from citykit.ledger.fabric.identity import low_s
from tests.unit.ledger.fake_gateway import KEY, MEMBER, certificate, digest

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_a_transaction_id_is_the_hash_of_nonce_and_creator() -> None:
    identity = b"\x0a\x06OrgMSP\x12\x04cert"
    known = "90dc0b81ae0f98419cc55c7dbf33bf6230f89a819d7c53cdf504bbbd34019ada"
    assert wire.transaction_id(b"", b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert wire.transaction_id(b"a", b"bc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert wire.transaction_id(bytes(24), identity) == known


def test_a_serialized_identity_is_msp_id_and_certificate() -> None:
    pem = MEMBER.certificate
    size = len(pem)
    expected = b"\x0a\x07TestMSP\x12" + bytes([size & 0x7F | 0x80, size >> 7]) + pem
    assert MEMBER.serialized == expected


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_every_ecdsa_signature_has_a_low_s_and_holds(curve: ec.EllipticCurve) -> None:
    order = {
        "secp256r1": P256_ORDER,
        "secp384r1": int("f" * 48 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
    }
    key = ec.derive_private_key(11, curve)
    signer = EcdsaSigner(key)
    for number in range(40):
        message = number.to_bytes(4, "big")
        signature = signer.sign(message)
        assert utils.decode_dss_signature(signature)[1] <= order[curve.name] // 2
        key.public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))


def test_a_high_s_is_turned_and_a_low_one_left() -> None:
    low, high = utils.encode_dss_signature(5, 9), utils.encode_dss_signature(5, P256_ORDER - 9)
    assert low_s(high, "secp256r1") == low == low_s(low, "secp256r1")


def test_an_offline_ecdsa_signature_is_over_the_digest() -> None:
    signature = EcdsaSigner(KEY).sign_digest(digest(b"message"))
    KEY.public_key().verify(signature, b"message", ec.ECDSA(hashes.SHA256()))


def test_ed25519_signs_the_message_itself() -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    key.public_key().verify(Ed25519Signer(key).sign(b"message"), b"message")


def pem_of(key: object, password: bytes | None = None) -> bytes:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)  # type: ignore[attr-defined, no-any-return]


def test_keys_are_read_and_what_fabric_does_not_take_is_refused() -> None:
    assert isinstance(read_signer(pem_of(KEY)), EcdsaSigner)
    assert isinstance(read_signer(pem_of(KEY, b"secret"), b"secret"), EcdsaSigner)
    assert isinstance(read_signer(pem_of(ed25519.Ed25519PrivateKey.generate())), Ed25519Signer)
    with pytest.raises(IdentityError, match="P-256 or P-384, not secp521r1"):
        read_signer(pem_of(ec.derive_private_key(3, ec.SECP521R1())))
    with pytest.raises(IdentityError, match="not RSAPrivateKey"):
        read_signer(pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    for pem, password in ((b"none", None), (pem_of(KEY, b"secret"), b"wrong"), (pem_of(KEY, b"secret"), None)):
        with pytest.raises(IdentityError, match="cannot be read") as refused:
            read_signer(pem, password)
        assert "secret" not in str(refused.value)


def test_a_member_is_two_files_that_fit(tmp_path: Path) -> None:
    cert, key = tmp_path / "a.pem", tmp_path / "a.key"
    with pytest.raises(IdentityError, match=r"a\.pem cannot be read"):
        read_identity("TestMSP", cert, key)
    cert.write_bytes(MEMBER.certificate)
    key.write_bytes(pem_of(KEY))
    member, signer = read_identity("TestMSP", cert, key)
    assert (member, isinstance(signer, EcdsaSigner)) == (MEMBER, True)
    key.write_bytes(pem_of(ec.derive_private_key(8, ec.SECP256R1())))
    with pytest.raises(IdentityError, match="is not that of the certificate"):
        read_identity("TestMSP", cert, key)
    key.write_bytes(b"nothing")
    with pytest.raises(IdentityError, match=r"a\.key, .*: the private key cannot be read"):
        read_identity("TestMSP", cert, key)
    cert.write_bytes(b"nothing")
    with pytest.raises(IdentityError, match=r"a\.pem: .* no X\.509 PEM"):
        read_identity("TestMSP", cert, key)
    with pytest.raises(IdentityError, match="MSP"):
        Identity("", certificate())


def test_mutual_tls_needs_both_files() -> None:
    with pytest.raises(IdentityError, match="both a certificate and its key"):
        connect("127.0.0.1:1", tls=Tls(b"roots", certificate=certificate()))
    with pytest.raises(IdentityError, match="TLS certificate"):
        connect("127.0.0.1:1", tls=Tls(certificate(), certificate=b"nothing", key=pem_of(KEY)))
