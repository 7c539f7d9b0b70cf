"""The trust file: the public keys a resident checks with."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from verifier.canonical import Failure, Unreadable, fields, unhex

_KEY = 32


@dataclass(frozen=True)
class Trust:
    """What is trusted.

    Attributes:
        endorsers: key id -> (organisation, key).
        orderers: key id -> key.
        logs: origin -> key.
        known: origin -> checkpoint notes kept from before.
    """

    city: str
    channel: str
    endorsers: dict[str, tuple[str, bytes]]
    orderers: dict[str, bytes]
    endorsements: int
    logs: dict[str, bytes]
    known: dict[str, list[str]]
    note: str


def key_id(key: bytes) -> str:
    """First 16 hex digits of SHA-256 of the key."""
    return sha256(key).hexdigest()[:16]


def read_trust(document: Any) -> Trust:
    """Reads the file.

    Raises:
        Unreadable: it is not a trust file.
    """
    try:
        return _read(document)
    except Failure as error:
        raise Unreadable(f"the trust file cannot be used: {error}") from None


def _read(document: Any) -> Trust:
    fields(document, "trust", format=str, city=str, ledger=dict, logs=list, witnesses=list, known=list)
    if document["format"] != "city.trust.v1":
        raise Failure("its format is not city.trust.v1")
    ledger = fields(
        document["ledger"], "trust.ledger", type=str, channel=str, endorsers=list, orderers=list, policy=dict, note=str
    )
    policy = fields(ledger["policy"], "trust.ledger.policy", endorsements=int)
    if ledger["type"] != "embedded.v1" or policy["endorsements"] < 1:
        raise Failure("only ledgers of type embedded.v1 with at least one endorsement can be checked")
    endorsers = [fields(item, "an endorser", organisation=str, key=str) for item in ledger["endorsers"]]
    orderers = [
        unhex(fields(item, "an orderer", key=str)["key"], _KEY, "an orderer's key") for item in ledger["orderers"]
    ]
    logs = [fields(item, "a log", origin=str, key=str) for item in document["logs"]]
    known: dict[str, list[str]] = {}
    for item in document["known"]:
        fields(item, "a known checkpoint", origin=str, checkpoint=str)
        known.setdefault(item["origin"], []).append(item["checkpoint"])
    keys = [(item["organisation"], unhex(item["key"], _KEY, "an endorser's key")) for item in endorsers]
    return Trust(
        city=document["city"],
        channel=ledger["channel"],
        endorsers={key_id(key): (organisation, key) for organisation, key in keys},
        orderers={key_id(key): key for key in orderers},
        endorsements=policy["endorsements"],
        logs={item["origin"]: unhex(item["key"], _KEY, "a log's key") for item in logs},
        known=known,
        note=ledger["note"],
    )
