"""Evidence of type `fabric.v1` and its trust file, made from docs/PROOFS.md alone: members, envelopes, blocks, attestations, from a seed.

Shares code with nobody; protobuf and DER are written by hand. Each piece can be made wrongly on purpose.
"""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.unit.verifier.bundlebytes import CITY, LOGS, b64, canonical, ed25519, p256, public, secret

CHANNEL = "city"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_BEGINS = datetime.datetime(2016, 1, 1, tzinfo=datetime.UTC)
_ENDS = datetime.datetime(2036, 1, 1, tzinfo=datetime.UTC)
_ATTRIBUTES = x509.ObjectIdentifier("1.2.3.4.5.6.7.8.1")
Key = ec.EllipticCurvePrivateKey | Ed25519PrivateKey
TIME = 1_478_563_200


# --- protobuf, by hand ----------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def proto(*fields: tuple[int, bytes | str | int]) -> bytes:
    """A message of (field number, value), in this order."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


# --- members --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """A certificate with its key."""

    msp: str
    pem: bytes
    key: Key

    @property
    def identity(self) -> bytes:
        return proto((1, self.msp), (2, self.pem))

    def sign(self, message: bytes, *, high: bool = False) -> bytes:
        """Low S, unless the high one is asked for; the same for the same message."""
        if isinstance(self.key, Ed25519PrivateKey):
            return self.key.sign(message)
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        low = min(s, ORDER - s)
        return encode_dss_signature(r, ORDER - low if high else low)


def _certificate(
    name: str, msp: str, key: Key, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None, *,
    unit: str = "", ca: bool = False, attributes: bytes = b"",
) -> x509.Certificate:  # fmt: skip
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, msp)]
    if unit:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, signing = issuer or (subject, key)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(key.public_key())
    builder = builder.serial_number(int.from_bytes(secret(1, name)[:8], "big")).not_valid_before(_BEGINS)
    builder = builder.not_valid_after(_ENDS).add_extension(x509.BasicConstraints(ca, None), critical=True)
    if attributes:
        builder = builder.add_extension(x509.UnrecognizedExtension(_ATTRIBUTES, attributes), critical=False)
    return builder.sign(signing, hashes.SHA256(), ecdsa_deterministic=True)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True)
class Authority:
    """An organisation's own, or one between it and its members."""

    msp: str
    seed: int
    between: bool = False

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey:
        return p256(self.seed, f"{self.msp} {name}")

    def root(self) -> x509.Certificate:
        return _certificate(f"ca.{self.msp}", self.msp, self._key("ca"), None, ca=True)

    def intermediate(self) -> x509.Certificate:
        issuer = self.root().subject, self._key("ca")
        return _certificate(f"between.{self.msp}", self.msp, self._key("between"), issuer, ca=True)

    def member(self, name: str, unit: str, *, service: str = "", edwards: bool = False, msp: str = "") -> Member:
        """A member; `msp` names another organisation than its own."""
        key: Key = ed25519(self.seed, f"{self.msp} {name}") if edwards else self._key(name)
        issuer = (
            (self.intermediate().subject, self._key("between"))
            if self.between
            else (self.root().subject, self._key("ca"))
        )
        attributes = canonical({"attrs": {"city.service": service}}) if service else b""
        made = _certificate(name, self.msp, key, issuer, unit=unit, attributes=attributes)
        return Member(msp or self.msp, _pem(made), key)

    def told(self, unit: str) -> dict[str, Any]:
        """As the trust file has it."""
        between = [_pem(self.intermediate()).decode()] if self.between else []
        return {"msp": self.msp, "roots": [_pem(self.root()).decode()], "intermediates": between, "unit": unit}


# --- a channel ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Channel:
    """A channel of three organisations.

    Attributes:
        bft: four orderers that sign by number; else one.
        edwards: peers have Ed25519 keys.
        between: an authority stands between the city's root and its members.
    """

    seed: int = 1
    bft: bool = False
    edwards: bool = False
    between: bool = False
    kind: str = "fabric"

    def authority(self, msp: str) -> Authority:
        return Authority(msp, self.seed, self.between and msp == "CityMSP")

    def peer(self, msp: str) -> Member:
        return self.authority(msp).member(f"peer.{msp}", "peer", edwards=self.edwards)

    def client(self, service: str) -> Member:
        return self.authority("CityMSP").member(f"client {service}", "client", service=service)

    def orderer(self, number: int = 1) -> Member:
        return self.authority("OrdererMSP").member(f"orderer{number}", "orderer")

    def trust(self, *, attestations: int = 2) -> dict[str, Any]:
        """The `ledger` part of the trust file."""
        consenters = [
            {"number": number, "msp": "OrdererMSP", "certificate": self.orderer(number).pem.decode()}
            for number in ((1, 2, 3, 4) if self.bft else ())
        ]
        return {
            "type": "fabric.v1", "kind": self.kind, "channel": CHANNEL, "note": "an example",
            "organisations": [self.authority(msp).told("peer") for msp in ("AuditorMSP", "CityMSP", "UtilityMSP")],
            "orderers": [self.authority("OrdererMSP").told("orderer")], "consenters": consenters,
            "policy": {"endorsements": 2, "attestations": attestations, "orderers": 3 if self.bft else 1},
            "submitters": ["CityMSP"],
        }  # fmt: skip


@dataclass(frozen=True)
class Call:
    """An invocation. What is empty is as it should be.

    Attributes:
        creator: another submitter.
        endorsers: other peers than those of city and utility.
        asked: other bytes than were endorsed.
        named: another transaction id.
        answer, status, answering: another answer, or of another contract.
    """

    contract: str
    function: str
    submitter: str
    args: bytes
    channel: str = CHANNEL
    creator: Member | None = None
    endorsers: tuple[Member, ...] = ()
    asked: bytes = b""
    named: str = ""
    answer: bytes = b'{"result":null}'
    status: int = 200
    answering: str = ""
    kind: int = 3
    high: bool = False
    arguments: tuple[bytes, ...] = ()


def asked_of(call: Call) -> bytes:
    """The chaincode's proposal payload."""
    arguments = call.arguments or (call.function.encode(), call.args, b"request-1")
    called = proto(*((1, argument) for argument in arguments))
    spec = proto((1, 2), (2, proto((2, call.contract))), (3, called))
    return proto((1, proto((1, spec))))


def envelope_of(channel: Channel, call: Call) -> tuple[str, bytes]:
    """(transaction id, envelope)."""
    creator = call.creator or channel.client(call.submitter)
    nonce = secret(channel.seed, f"{call.contract}.{call.function} nonce")[:24]
    txid = sha256(nonce + creator.identity).hexdigest()
    extension = proto((2, proto((2, call.contract))))
    head = proto(
        (1, call.kind), (3, proto((1, TIME))), (4, call.channel), (5, call.named or txid), (7, extension)
    )  # fmt: skip
    by = proto((1, creator.identity), (2, nonce))
    asked = asked_of(call)
    answered = answered_of(
        sha256(head + by + asked).digest(), call.answer, call.answering or call.contract, call.status
    )
    endorsers = call.endorsers or (channel.peer("CityMSP"), channel.peer("UtilityMSP"))
    signed = [(2, endorsement(peer, answered, high=call.high)) for peer in endorsers]
    action = proto((1, call.asked or asked), (2, proto((1, answered), *signed)))
    transaction = proto((1, proto((1, by), (2, action))))
    payload = proto((1, proto((1, head), (2, by))), (2, transaction))
    return call.named or txid, proto((1, payload), (2, creator.sign(payload)))


def answered_of(hashed: bytes, answer: bytes, contract: str, status: int = 200) -> bytes:
    """A proposal response's payload."""
    action = proto((1, b""), (2, b""), (3, proto((1, status), (3, answer))), (4, proto((2, contract), (3, "1"))))
    return proto((1, hashed), (2, action))


def endorsement(peer: Member, answered: bytes, *, high: bool = False) -> bytes:
    return proto((1, peer.identity), (2, peer.sign(answered + peer.identity, high=high)))


def der(number: int, previous: bytes, data: bytes) -> bytes:
    integer = number.to_bytes(number.bit_length() // 8 + 1, "big")
    body = bytes([2, len(integer)]) + integer + bytes([4, 32]) + previous + bytes([4, 32]) + data
    return bytes([0x30, len(body)]) + body


def signature_of(channel: Channel, number: int, data: bytes, orderers: tuple[Member | int, ...] = ()) -> dict[str, Any]:
    """Orderers' signatures; a number signs as a consenter, a member by name."""
    metadata, signed = proto((1, proto((1, 0)))), []
    for orderer in orderers or ((1, 2, 4) if channel.bft else (channel.orderer(),)):
        if isinstance(orderer, int):
            said = proto((1, orderer), (2, b"n" * 24))
            member, names = channel.orderer(orderer), {"header": "", "identifier": b64(said)}
        else:
            said = proto((1, orderer.identity), (2, b"n" * 24))
            member, names = orderer, {"header": b64(said), "identifier": ""}
        message = metadata + said + der(number, bytes(32), data)
        signed.append({**names, "signature": b64(member.sign(message))})
    return {"metadata": b64(metadata), "signatures": signed}


def attestation_of(
    envelope: bytes, peers: tuple[Member, ...], *, code: int = 0, contract: str = "qscc", status: int = 200
) -> dict[str, Any]:
    processed = proto((1, envelope), *(((2, code),) if code else ()))
    answered = answered_of(b"h" * 32, processed, contract, status)
    return {
        "payload": b64(answered),
        "endorsements": [
            {"endorser": b64(peer.identity), "signature": b64(peer.sign(answered + peer.identity))} for peer in peers
        ],
    }


def block_of(
    channel: Channel, envelopes: list[bytes], index: int, txid: str, orderers: tuple[Member | int, ...] = ()
) -> dict[str, Any]:
    """Evidence of the transaction at `index` of a block of these envelopes."""
    data = sha256(b"".join(envelopes)).digest()
    return {
        "type": "fabric.v1", "transaction": txid, "index": index, "code": "VALID",
        "header": {"number": 300, "previous": bytes(32).hex(), "data": data.hex()},
        "envelopes": [b64(item) for item in envelopes], "signature": signature_of(channel, 300, data, orderers),
        "attestations": [attestation_of(envelopes[index], (channel.peer("CityMSP"), channel.peer("AuditorMSP")))],
    }  # fmt: skip


def evidence_of(channel: Channel, call: Call) -> dict[str, Any]:
    """Evidence of a call in the middle of a block of three."""
    txid, envelope = envelope_of(channel, call)
    others = [envelope_of(channel, Call("others", f"f{n}", "metering", b"{}"))[1] for n in (1, 2)]
    return block_of(channel, [others[0], envelope, others[1]], 1, txid)


def evidence(seed: int, contract: str, function: str, submitter: str, args: dict[str, Any]) -> dict[str, Any]:
    """In the place of `bundlebytes.evidence`."""
    return evidence_of(Channel(seed), Call(contract, function, submitter, canonical(args)))


def trust_file(channel: Channel, **more: Any) -> dict[str, Any]:
    """In the place of `bundlebytes.trust`."""
    key = {log: public(ed25519(channel.seed, f"{CITY}/{log}")).hex() for log in LOGS}
    return {
        "format": "city.trust.v1", "city": CITY, "witnesses": [], "known": [], "ledger": channel.trust(**more),
        "logs": [{"origin": f"{CITY}/{log}", "key": key[log]} for log in LOGS],
    }  # fmt: skip


def recorded(bundle: Any) -> bytes:
    """The arguments by which the head of a bundle's one log is recorded."""
    size, root = bundle["log"]["checkpoint"].split("\n")[1:3]
    origin, head = bundle["log"]["origin"], base64.b64decode(root).hex()
    return canonical({"heads": [{"origin": origin, "proof": [], "root": head, "size": int(size)}]})


def anchored(bundle: Any, channel: Channel, /, **how: Any) -> Any:
    """A copy of a bundle of one log, anchored on this channel; `how` changes the call (`Call`)."""
    call = replace(Call("anchors", "record", "notary", recorded(bundle)), **how)
    return {**bundle, "log": {**bundle["log"], "anchor": evidence_of(channel, call)}}
