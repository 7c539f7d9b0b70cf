"""Publishing to Kafka: messages in parts, a bounded number on their way, one thread for the client, one wake of the loop per part.

Used by `bus`. Where one message fails for good the producer is given up with all that is on its way, and a new one is made: were
later messages of a key let through, order would be lost when the failed ones are published again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from citykit.bus.kafka.client import Client, ClientFault, Outgoing, Producer
from citykit.errors import Unavailable
from citykit.settings import KafkaSettings

_PARTS = 4
_PART_BYTES_MAX = 4_000_000
_CLOSE_S = 5.0


class Sender:
    """Made by `KafkaBus`. All calls to the client are made in its one thread."""

    def __init__(self, client: Client, settings: KafkaSettings) -> None:
        self._client = client
        self._settings = settings
        self._part_max = max(1, settings.in_flight // _PARTS)
        self._room = asyncio.Semaphore(_PARTS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-send")
        self._current: _Generation | None = None

    async def open(self) -> None:
        """Connects, so that the first message does not wait for it; raises ClientFault."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._generation)

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Returns once the brokers hold all of them.

        Raises:
            Unavailable: nothing or an unknown part was published.
        """
        parts: list[_Part] = []
        try:
            for chunk in self._chunks(messages):
                await self._room.acquire()
                part = _Part(chunk, self._room)
                parts.append(part)
                self._thread.submit(self._send, part)
                if any(part.failed for part in parts):
                    break
        finally:
            # Even where the caller is cancelled: what is on its way keeps its room until it has landed.
            done = [part.landed for part in parts]
        errors = [error for error in await asyncio.gather(*done) if error is not None]
        if errors:
            raise Unavailable(f"the message bus did not take the messages ({errors[0]}); publish them again")

    def _chunks(self, messages: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
        chunk: list[Outgoing] = []
        size = 0
        for message in messages:
            size += len(message.value)
            if chunk and (len(chunk) == self._part_max or size > _PART_BYTES_MAX):
                yield chunk
                chunk, size = [], len(message.value)
            chunk.append(message)
        if chunk:
            yield chunk

    def _send(self, part: _Part) -> None:
        try:
            generation = self._generation()
            generation.parts.add(part)
            part.generation = generation
            generation.producer.send(part.messages, part.done)
        except ClientFault as error:
            part.fail(error)

    def _generation(self) -> _Generation:
        self._retire()
        if self._current is None:
            self._current = _Generation(self._client.producer(self._settings), self._retire_soon)
        return self._current

    def _retire_soon(self) -> None:
        """Called in the client's thread, which must not end its own client."""
        with contextlib.suppress(RuntimeError):  # closing already
            self._thread.submit(self._retire)

    def _retire(self) -> None:
        if self._current is not None and self._current.broken:
            broken, self._current = self._current, None
            broken.end()

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=True)

    def _close(self) -> None:
        if self._current is not None:
            self._current.producer.close(_CLOSE_S)


class _Generation:
    """A producer and what is on its way with it."""

    def __init__(self, producer: Producer, retire_soon: Callable[[], None]) -> None:
        self.producer = producer
        self.parts: set[_Part] = set()
        self.broken = False
        self._retire_soon = retire_soon

    def spoil(self) -> None:
        """Something was not taken: nothing more goes this way, and what is on its way is given up."""
        if not self.broken:
            self.broken = True
            self._retire_soon()

    def end(self) -> None:
        self.producer.abandon()
        for part in list(self.parts):
            part.fail(ClientFault("given up with an earlier message"))


class _Part:
    """Messages that go together. `done` is called in the client's thread; `landed` resolves on the loop, once."""

    def __init__(self, messages: Sequence[Outgoing], room: asyncio.Semaphore) -> None:
        self._loop = asyncio.get_running_loop()
        self.messages = messages
        self.landed: asyncio.Future[Exception | None] = self._loop.create_future()
        self.generation: _Generation | None = None
        self.failed = False
        self._room = room
        self._missing = len(messages)
        self._ended = False
        self._lock = threading.Lock()

    def done(self, error: Exception | None) -> None:
        if error is not None:
            if self.generation is not None:
                self.generation.spoil()
            self.fail(error)
            return
        with self._lock:
            self._missing -= 1
            last = self._missing == 0
        if last:
            self._end(None)

    def fail(self, error: Exception) -> None:
        self.failed = True
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if self.generation is not None:
            self.generation.parts.discard(self)
        self._loop.call_soon_threadsafe(self._land, error)

    def _land(self, error: Exception | None) -> None:
        self._room.release()
        if not self.landed.done():
            self.landed.set_result(error)
