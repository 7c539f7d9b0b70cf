"""One answer a request id: what a mutation's mark stands for, and that a retry is told the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import MetaData

from city.identity.v1 import identity_service_pb2 as pb
from citykit import access
from citykit.access import Principal
from citykit.errors import InvalidArgument, RequestReused
from citykit.once import Once
from citykit.settings import StoreSettings
from citykit.store.sqlite import SqliteStore, open_sqlite


@contextmanager
def calling(subject: str) -> Iterator[None]:
    """As the interceptor has it during a call."""
    token = access._CALLER.set(Principal(subject, frozenset({"resident"}), "identity", "https://test"))
    try:
        yield
    finally:
        access._CALLER.reset(token)


def asked(subject: str = "", request_id: str = "r-1", confirm: str = "ada") -> Once[pb.EraseMeResponse]:
    request = pb.EraseMeRequest(request_id=request_id, confirm_login=confirm)
    if not subject:
        return Once.of(request, pb.EraseMeResponse)
    with calling(subject):
        return Once.of(request, pb.EraseMeResponse)


def opened(folder: Path) -> SqliteStore:
    (folder / "migrations").mkdir()
    return open_sqlite(folder / "once.db", MetaData(), folder / "migrations", StoreSettings())


def test_a_mark_is_of_the_content_and_of_the_person_but_not_of_the_service() -> None:
    assert asked().mark == asked().mark == asked("service:demo").mark == asked("service:gateway").mark
    assert len({asked(confirm="bob").mark, asked().mark, asked("ada-1").mark, asked("bob-1").mark}) == 4
    assert asked().rpc == "EraseMe"
    with pytest.raises(InvalidArgument, match="request_id"):
        asked(request_id="")


async def test_a_retry_is_told_the_same_and_nobody_else_is_told_anything(tmp_path: Path) -> None:
    store, answer = opened(tmp_path), pb.EraseMeResponse(receipt_json="done")
    assert await asked("ada-1").asked(store) is None
    await store.write(lambda unit: asked("ada-1").keep(unit, answer))
    assert await asked("ada-1").asked(store) == answer
    for other in (asked("bob-1"), asked("ada-1", confirm="bob"), asked("service:demo")):
        with pytest.raises(RequestReused):
            await other.asked(store)
    await store.close()
