"""The chaincode every scenario speaks to, on our shim; its Node and Go twins lie in tests/real/conformance. All arguments are text.

put KEY VALUE, get KEY, add KEY AMOUNT, delete KEY, many PREFIX COUNT, manyValues PREFIX COUNT
range START END, page START END SIZE BOOKMARK, history KEY
emit NAME PAYLOAD KEY, refuse MESSAGE, call CHAINCODE FUNCTION ARGUMENT...
putPrivate COLLECTION KEY (value in transient `value`), getPrivate, privateHash, rangePrivate COLLECTION START END
attribute NAME, transient NAME, setPolicy KEY (policy in transient `policy`, base64)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

from citykit.ledger.fabric.shim import ChaincodeError, Response, Stub


async def scenario(stub: Stub) -> Response | bytes | None:
    """The handler."""
    function, *arguments = [item.decode() for item in stub.args]
    if function == "call":
        return await stub.invoke(arguments[0], [item.encode() for item in arguments[1:]])
    found = _FUNCTIONS.get(function)
    if found is None:
        raise ChaincodeError(f"no function {function}", status=404)
    return await found(stub, *arguments)


async def _put(stub: Stub, key: str, value: str) -> bytes:
    stub.put(key, value.encode())
    return value.encode()


async def _get(stub: Stub, key: str) -> bytes:
    value = await stub.get(key)
    if value is None:
        raise ChaincodeError(f"no value under {key}", status=404)
    return value


async def _add(stub: Stub, key: str, amount: str) -> bytes:
    total = int(await stub.get(key) or b"0") + int(amount)
    stub.put(key, str(total).encode())
    return str(total).encode()


async def _delete(stub: Stub, key: str) -> None:
    stub.delete(key)


async def _many(stub: Stub, prefix: str, count: str) -> bytes:
    for number in range(int(count)):
        stub.put(f"{prefix}{number:04}", str(number).encode())
    return count.encode()


async def _many_values(stub: Stub, prefix: str, count: str) -> bytes:
    values = await stub.get_many([f"{prefix}{number:04}" for number in range(int(count))])
    return _json([(value or b"").decode() for value in values])


async def _range(stub: Stub, start: str, end: str) -> bytes:
    return _json([[entry.key, entry.value.decode()] async for entry in stub.range(start, end)])


async def _page(stub: Stub, start: str, end: str, size: str, bookmark: str) -> bytes:
    page = await stub.range_page(start, end, page_size=int(size), bookmark=bookmark)
    entries = [[entry.key, entry.value.decode()] for entry in page.entries]
    return _json({"entries": entries, "bookmark": page.bookmark})


async def _history(stub: Stub, key: str) -> bytes:
    return _json([[item.txid, item.value.decode(), item.deleted] async for item in stub.history(key)])


async def _emit(stub: Stub, name: str, payload: str, key: str) -> None:
    stub.put(key, payload.encode())
    stub.set_event(name, payload.encode())


async def _refuse(stub: Stub, message: str) -> Response:
    return Response(400, message)


async def _put_private(stub: Stub, collection: str, key: str) -> None:
    stub.put(key, stub.transient["value"], collection=collection)


async def _get_private(stub: Stub, collection: str, key: str) -> bytes:
    return await stub.get(key, collection=collection) or b""


async def _private_hash(stub: Stub, collection: str, key: str) -> bytes:
    return (await stub.private_hash(key, collection=collection) or b"").hex().encode()


async def _range_private(stub: Stub, collection: str, start: str, end: str) -> bytes:
    return _json([[entry.key, entry.value.decode()] async for entry in stub.range(start, end, collection=collection)])


async def _attribute(stub: Stub, name: str) -> bytes:
    return stub.creator.attributes.get(name, "").encode()


async def _transient(stub: Stub, name: str) -> bytes:
    return stub.transient.get(name, b"")


async def _set_policy(stub: Stub, key: str) -> None:
    stub.set_validation_parameter(key, base64.b64decode(stub.transient["policy"]))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


_FUNCTIONS: dict[str, Callable[..., Awaitable[Response | bytes | None]]] = {
    "put": _put,
    "get": _get,
    "add": _add,
    "delete": _delete,
    "many": _many,
    "manyValues": _many_values,
    "range": _range,
    "page": _page,
    "history": _history,
    "emit": _emit,
    "refuse": _refuse,
    "putPrivate": _put_private,
    "getPrivate": _get_private,
    "privateHash": _private_hash,
    "rangePrivate": _range_private,
    "attribute": _attribute,
    "transient": _transient,
    "setPolicy": _set_policy,
}
