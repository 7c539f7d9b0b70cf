"""A gRPC channel that takes renewed certificates: whoever keeps a stub need not know. Made by `citykit.network`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

Shown = TypeVar("Shown")
_LOOK_S = 1.0
"""Between two looks at the files."""


class RenewingChannel(grpc.aio.Channel, Generic[Shown]):
    """Calls under way end on the channel they began on.

    Args:
        connect: makes a channel that shows a certificate.
        fresh: the certificate as its files hold it now.
    """

    def __init__(
        self,
        connect: Callable[[Shown], grpc.aio.Channel],
        fresh: Callable[[], Shown],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._fresh = fresh
        self._now = now
        self._shown = fresh()
        self._channel = connect(self._shown)
        self._old: list[grpc.aio.Channel] = []  # a few in a process's life: one at each renewal
        self._looked = now()

    def current(self) -> grpc.aio.Channel:
        """The channel for a new call."""
        now = self._now()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            if (found := self._fresh()) is not self._shown:
                self._old.append(self._channel)
                self._shown, self._channel = found, self._connect(found)
        return self._channel

    async def __aenter__(self) -> RenewingChannel[Shown]:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close(None)

    async def close(self, grace: float | None = None) -> None:
        for channel in (self._channel, *self._old):
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.current().channel_ready()

    def unary_unary(self, *method: Any, **serializers: Any) -> Any:
        return self._later("unary_unary", method, serializers)

    def unary_stream(self, *method: Any, **serializers: Any) -> Any:
        return self._later("unary_stream", method, serializers)

    def stream_unary(self, *method: Any, **serializers: Any) -> Any:
        return self._later("stream_unary", method, serializers)

    def stream_stream(self, *method: Any, **serializers: Any) -> Any:
        return self._later("stream_stream", method, serializers)

    def _later(self, kind: str, method: tuple[Any, ...], serializers: dict[str, Any]) -> Any:
        """What a stub calls: bound again only when the channel was replaced."""
        bound: tuple[grpc.aio.Channel | None, Any] = (None, None)

        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal bound
            channel = self.current()
            if bound[0] is not channel:
                bound = (channel, getattr(channel, kind)(*method, **serializers))
            return bound[1](*arguments, **options)

        return call
