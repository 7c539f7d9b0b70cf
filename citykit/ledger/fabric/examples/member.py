"""Reads who calls, and where, from a JSON file; shared by the examples beside it.

{"address": "127.0.0.1:7051", "channel": "notes", "msp_id": "Org1MSP", "certificate": "user.pem", "key": "user.key",
 "tls_roots": "ca.pem", "tls_certificate": "", "tls_key": "", "tls_name": ""}; paths are relative to the file, an empty one is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from citykit.ledger.fabric import Connection, Gateway, Identity, Tls, connect, read_identity
from citykit.ledger.fabric.identity import Signer


@dataclass(frozen=True)
class Member:
    """What the file says."""

    address: str
    channel: str
    identity: Identity
    signer: Signer
    tls: Tls | None

    def connect(self) -> Connection:
        return connect(self.address, tls=self.tls)

    def gateway(self, connection: Connection) -> Gateway:
        return Gateway(connection, self.channel, self.identity, self.signer)


def read_member(path: Path) -> Member:
    """Raises IdentityError where a file cannot be used."""
    said = json.loads(path.read_bytes())
    folder = path.parent
    identity, signer = read_identity(said["msp_id"], folder / said["certificate"], folder / said["key"])
    tls = None
    if said.get("tls_roots"):
        certificate, key = (
            (folder / said[name]).read_bytes() if said.get(name) else None for name in ("tls_certificate", "tls_key")
        )
        tls = Tls((folder / said["tls_roots"]).read_bytes(), certificate, key, said.get("tls_name", ""))
    return Member(said["address"], said["channel"], identity, signer, tls)
