"""What the routes `/check` share: any bundle before the verifier, with the trust file of this server."""

from __future__ import annotations

from city.notary.v1 import notary_service_pb2 as notary
from services.gateway.api import models
from services.gateway.api.parts import Parts
from services.gateway.app.check import CAVEAT, COMMAND


async def checked(here: Parts, bundle: bytes) -> models.Check:
    """The verifier's steps about a bundle: a demonstration, since the server under check runs it."""
    trust = await here.calls.ask("notary", "GetTrust", notary.GetTrustRequest())
    found = await here.checker.check(bundle, trust.json.encode())
    steps = [models.CheckStep(step=step.step, ok=step.ok, detail=step.detail) for step in found.steps]
    return models.Check(ok=found.ok, steps=steps, caveat=CAVEAT, command=COMMAND)
