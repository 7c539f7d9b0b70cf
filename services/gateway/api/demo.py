"""POST /demo/session: a token for the dashboard without a login page. In a demo only."""

from __future__ import annotations

import time

from fastapi import APIRouter

from citykit.errors import PermissionDenied
from services.gateway.api import bodies, models
from services.gateway.api.parameters import Here

router = APIRouter(tags=["demo"])


@router.post("/demo/session")
async def open_demo_session(here: Here, login: bodies.DemoLogin) -> models.DemoSession:
    """Gives the page a token as one of the demo's people, for instance `resident:ada`. Refused outside a demo (403)."""
    if here.demo is None:
        raise PermissionDenied("this city is no demo; sign in at /oidc/authorize", reason="not-a-demo")
    session = await here.demo.open(login.as_)
    return models.DemoSession(
        access_token=session.access_token, expires_in_s=max(0, int(session.expires_at - time.time()))
    )
