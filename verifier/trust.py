"""The trust file: the public keys a resident checks with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from verifier.canonical import Failure, Unreadable, fields, unhex
from verifier.embedded import EmbeddedLedger, read_embedded
from verifier.fabric_ledger import FabricLedger, read_fabric

_KEY = 32


@dataclass(frozen=True)
class Trust:
    """What is trusted.

    Attributes:
        logs: origin -> key.
        known: origin -> checkpoint notes kept from before.
    """

    city: str
    ledger: EmbeddedLedger | FabricLedger
    logs: dict[str, bytes]
    known: dict[str, list[str]]


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
    logs = [fields(item, "a log", origin=str, key=str) for item in document["logs"]]
    known: dict[str, list[str]] = {}
    for item in document["known"]:
        fields(item, "a known checkpoint", origin=str, checkpoint=str)
        known.setdefault(item["origin"], []).append(item["checkpoint"])
    return Trust(
        city=document["city"],
        ledger=_ledger(document["ledger"]),
        logs={item["origin"]: unhex(item["key"], _KEY, "a log's key") for item in logs},
        known=known,
    )


def _ledger(document: Any) -> EmbeddedLedger | FabricLedger:
    match document.get("type"):
        case "embedded.v1":
            return read_embedded(document)
        case "fabric.v1":
            return read_fabric(document)
        case other:
            raise Failure(f"only ledgers of type embedded.v1 and fabric.v1 can be checked, not {other}")
