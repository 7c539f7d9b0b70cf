"""The door into the gateway: `build(ctx)`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from citykit.service import Context, Service
from services.gateway.api.application import create_app
from services.gateway.api.parts import Parts
from services.gateway.app.backbone import Backbone
from services.gateway.app.calls import Calls
from services.gateway.app.check import Checker
from services.gateway.app.demo import DemoSessions
from services.gateway.app.live import Live, city_picture

PAGE = Path(__file__).parent / "page"
DEMO_LOGINS = "demo-logins.json"


def build(ctx: Context) -> Service:
    """The HTTP application over calls to the other services. Holds no state of its own."""
    calls = Calls(ctx.dial)
    checker = Checker(ctx.directory / "check")
    live = Live(partial(city_picture, calls, ctx.clock), ctx.settings.gateway.streams_max, ctx.log)
    demo = (
        DemoSessions(ctx.directory.parent / DEMO_LOGINS, calls, ctx.randomness)
        if ctx.settings.general.mode == "demo"
        else None
    )
    parts = Parts(
        general=ctx.settings.general,
        issuer=ctx.settings.identity.issuer or f"https://{ctx.settings.general.city}",
        settings=ctx.settings.gateway,
        clock=ctx.clock,
        calls=calls,
        checker=checker,
        live=live,
        backbone=Backbone(calls, alone=bool(ctx.settings.services.addresses)),
        demo=demo,
        key=ctx.key,
        randomness=ctx.randomness,
        log=ctx.log,
        page=PAGE,
    )

    async def start() -> None:
        checker.clear()

    return Service(name=ctx.name, start=start, stop=live.close, http=create_app(parts))
