"""Lets simulated residents act as people do: logged in by password at identity, with a token of their own for each service."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from services.gateway.app.calls import Calls
from services.gateway.app.demo import DemoSessions


class Residents:
    """What `simulation.parkers` asks the city with."""

    def __init__(self, sessions: DemoSessions, calls: Calls) -> None:
        self._sessions = sessions
        self._calls = calls

    async def ask(self, login: str, service: str, rpc: str, request: Message) -> Any:
        """One call in the name of `resident:<login>`; of nobody where the login is empty.

        Raises:
            CityError: what the service said.
        """
        if not login:
            return await self._calls.ask(service, rpc, request)
        session = await self._sessions.open(f"resident:{login}")
        return await self._calls.ask(service, rpc, request, session.access_token)
