"""What the HTTP application is built with. Made by `main.build`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from citykit.clock import Clock
from citykit.ids import Randomness
from citykit.settings import GatewaySettings, GeneralSettings
from services.gateway.app.backbone import Backbone
from services.gateway.app.calls import Calls
from services.gateway.app.check import Checker
from services.gateway.app.demo import DemoSessions
from services.gateway.app.live import Live


@dataclass(frozen=True)
class Parts:
    """The gateway's own parts.

    Attributes:
        backbone: what the city runs on.
        demo: sessions without a login page; None outside a demo.
        key: derives a secret key by purpose.
    """

    general: GeneralSettings
    issuer: str
    settings: GatewaySettings
    clock: Clock
    calls: Calls
    checker: Checker
    live: Live
    backbone: Backbone
    demo: DemoSessions | None
    key: Callable[[str], bytes]
    randomness: Randomness
    log: logging.LoggerAdapter[logging.Logger]
    page: Path
