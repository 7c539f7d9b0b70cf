"""A chaincode for notes, on the shim: `python notes_chaincode.py PACKAGE_ID HOST:PORT [CERTIFICATE KEY CLIENT_ROOTS]`.

Arguments of a transaction: `put ID TEXT`, `get ID`, `list PREFIX`, `remove ID`. Only who wrote a note may change or remove it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from citykit.ledger.fabric.shim import ChaincodeError, ChaincodeServer, ServerTls, SyncStub

LIST_MAX = 100


def notes(stub: SyncStub) -> bytes | None:
    """The handler: plain code; with `async def` and `Stub` the same calls are awaited."""
    function, *arguments = [argument.decode() for argument in stub.args]
    if function not in ACTS:
        raise ChaincodeError(f"no function {function}; there are {', '.join(ACTS)}", status=404)
    act, count = ACTS[function]
    if len(arguments) != count:
        raise ChaincodeError(f"{function} takes {count} arguments, not {len(arguments)}", status=400)
    return act(stub, *arguments)


def put(stub: SyncStub, note: str, text: str) -> None:
    require_author(stub, note)
    stub.put(note, json.dumps({"author": author(stub), "text": text}, sort_keys=True).encode())
    stub.set_event("note-put", note.encode())


def get(stub: SyncStub, note: str) -> bytes:
    found = stub.get(note)
    if found is None:
        raise ChaincodeError(f"no note {note}", status=404)
    return found


def list_notes(stub: SyncStub, prefix: str) -> bytes:
    """The first notes whose id starts with the prefix; what was seen is checked again when the transaction commits."""
    found = stub.range(prefix, prefix + "\U0010ffff").take(LIST_MAX)
    return json.dumps([entry.key for entry in found]).encode()


def remove(stub: SyncStub, note: str) -> None:
    require_author(stub, note)
    stub.delete(note)


def require_author(stub: SyncStub, note: str) -> None:
    before = stub.get(note)
    if before is not None and json.loads(before)["author"] != author(stub):
        raise ChaincodeError("only its author may change a note", status=403)


def author(stub: SyncStub) -> str:
    """The attribute `role` of the caller's certificate where it has one, else its name; with its organisation."""
    who = stub.creator
    return f"{who.msp_id}/{who.attribute('role') or who.common_name}"


ACTS: dict[str, tuple[Callable[..., bytes | None], int]] = {
    "put": (put, 2),
    "get": (get, 1),
    "list": (list_notes, 1),
    "remove": (remove, 1),
}


async def main(package_id: str, address: str, *files: str) -> None:
    """Serves until SIGTERM; transactions that run then end."""
    tls = ServerTls(*(Path(file) for file in files)) if files else None
    server = ChaincodeServer(package_id, notes, address=address, tls=tls)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    print(f"notes on port {await server.start()}", flush=True)
    await ended.wait()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
