"""What a proof bundle takes from the notary: batch proofs, evidence, devices' keys (docs/PROOFS.md, "Bundle"). Called by services' bundles."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio

from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit.edge import city_error
from citykit.errors import CityError, FailedPrecondition, NotFound
from citykit.onramp.devices import Key

FORMAT = "city.bundle.v1"
ENTRIES_MAX = 10_000
"""Entries of one log in one bundle: what one batch proof covers."""
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Proofs:
    """Asks the notary. `dial` is the service's own."""

    dial: Callable[[str], grpc.aio.Channel]

    async def log_part(self, log: str, commitments: Sequence[bytes]) -> tuple[list[int], Any]:
        """(place of each commitment in the order given, the bundle's `log` object that proves them all).

        Args:
            commitments: 1 to ENTRIES_MAX of 32 bytes.

        Raises:
            FailedPrecondition `not-anchored`: one is not under an anchored head yet. Unavailable: the notary is away.
        """
        request = notary.GetBatchProofRequest(log=log, commitments=commitments)
        try:
            answer = await NotaryServiceStub(self.dial("notary")).GetBatchProof(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _anchored_soon(city_error(error)) from None
        return list(answer.indexes), json.loads(answer.log_json)

    async def evidence(self, transaction: str) -> Any:
        """The ledger's evidence of a transaction.

        Raises:
            NotFound: no such transaction. Unavailable: the notary is away.
        """
        request = notary.GetEvidenceRequest(transaction=transaction)
        try:
            answer = await NotaryServiceStub(self.dial("notary")).GetEvidence(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise city_error(error) from None
        return json.loads(answer.json)

    async def device(self, device: str, keys: Sequence[Key]) -> dict[str, Any]:
        """An item of the bundle's `devices`."""
        return {"id": device, "keys": [await self._key(key) for key in keys]}

    async def _key(self, key: Key) -> dict[str, Any]:
        return {
            "key": key.public_key.hex(),
            "algorithm": key.algorithm,
            "from_sequence": key.from_sequence,
            "registered": await self.evidence(key.transaction),
        }


def package_part(index: int, content: bytes, salt: bytes) -> dict[str, Any]:
    """An item of the bundle's `packages`."""
    return {"index": index, "package": base64.b64encode(content).decode(), "salt": salt.hex()}


def _anchored_soon(error: CityError) -> CityError:
    if isinstance(error, NotFound | FailedPrecondition):
        return FailedPrecondition(
            "not everything this proves is under an anchored head yet; try again in a few seconds",
            reason="not-anchored",
            retry_after_s=2.0,
        )
    return error
