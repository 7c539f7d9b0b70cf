"""The notary's gRPC edge: proto in, app, proto out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from city.notary.v1 import notary_service_pb2 as pb
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceServicer
from citykit.canonical import encode
from citykit.errors import InvalidArgument
from services.notary.app import LogHead, Notary
from services.notary.check import check_logs

_HASH_BYTES = 32


class NotaryApi(NotaryServiceServicer):
    """The servicer."""

    def __init__(self, app: Notary, state: Path) -> None:
        self._app = app
        self._state = state

    async def ListLogs(self, request: pb.ListLogsRequest, context: Any) -> pb.ListLogsResponse:
        return pb.ListLogsResponse(heads=map(_head, self._app.heads()))

    async def GetHead(self, request: pb.GetHeadRequest, context: Any) -> pb.GetHeadResponse:
        return pb.GetHeadResponse(head=_head(self._app.head(request.log)))

    async def WatchHeads(self, request: pb.WatchHeadsRequest, context: Any) -> AsyncIterator[pb.WatchHeadsResponse]:
        async for heads in self._app.watch():
            yield pb.WatchHeadsResponse(heads=map(_head, heads))

    async def GetInclusionProof(
        self, request: pb.GetInclusionProofRequest, context: Any
    ) -> pb.GetInclusionProofResponse:
        size, path, checkpoint = await self._app.inclusion(request.log, request.index, request.size)
        return pb.GetInclusionProofResponse(index=request.index, size=size, hashes=path, checkpoint=checkpoint)

    async def GetBatchProof(self, request: pb.GetBatchProofRequest, context: Any) -> pb.GetBatchProofResponse:
        if any(len(commitment) != _HASH_BYTES for commitment in request.commitments):
            raise InvalidArgument("a commitment has 32 bytes", field="commitments")
        indexes, part = await self._app.batch(request.log, list(request.commitments))
        return pb.GetBatchProofResponse(indexes=indexes, log_json=encode(part).decode())

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Any
    ) -> pb.GetConsistencyProofResponse:
        size, proof, checkpoint = await self._app.consistency(request.log, request.from_size, request.to_size)
        return pb.GetConsistencyProofResponse(
            from_size=request.from_size, to_size=size, hashes=proof, checkpoint=checkpoint
        )

    async def GetTile(self, request: pb.GetTileRequest, context: Any) -> pb.GetTileResponse:
        content, immutable = await asyncio.to_thread(self._app.tile, request.log, request.path)
        return pb.GetTileResponse(content=content, immutable=immutable)

    async def GetEvidence(self, request: pb.GetEvidenceRequest, context: Any) -> pb.GetEvidenceResponse:
        return pb.GetEvidenceResponse(json=encode(await self._app.evidence(request.transaction)).decode())

    async def CheckLogs(self, request: pb.CheckLogsRequest, context: Any) -> pb.CheckLogsResponse:
        result = await asyncio.to_thread(check_logs, self._state)
        findings = [pb.Finding(log=item.log, where=item.where, what=item.what) for item in result.findings]
        return pb.CheckLogsResponse(findings=findings, entries_checked=result.entries)

    async def GetTrust(self, request: pb.GetTrustRequest, context: Any) -> pb.GetTrustResponse:
        return pb.GetTrustResponse(json=encode(self._app.trust()).decode())


def _head(head: LogHead) -> pb.Head:
    message = pb.Head(log=head.log, origin=head.origin, size=head.size, checkpoint=head.checkpoint)
    if head.anchor is not None:
        message.anchored_size = head.anchor.size
        message.anchored_root = head.anchor.root
        message.anchor_transaction = head.anchor.transaction
        message.anchored_at.seconds = head.anchor.at
    return message
