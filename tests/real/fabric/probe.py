"""A chaincode for trying a network, over our own shim; one process an organisation: `python -m tests.real.fabric.probe [--places] FILE`.

FILE is JSON: package_id, address, variant, and the PEM files certificate, key, client_roots; or with `--places` what deployment wrote.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from citykit.ledger.chaincode import read_places
from citykit.ledger.fabric.shim import ChaincodeError, ChaincodeServer, ServerTls, Stub

Function = Callable[[Stub, list[str], str], Awaitable[bytes | None]]


async def put(stub: Stub, args: list[str], variant: str) -> bytes:
    stub.put(args[0], args[1].encode())
    stub.set_event("put", f"{args[0]}={args[1]}".encode())
    return b"done"


async def get(stub: Stub, args: list[str], variant: str) -> bytes | None:
    return await stub.get(args[0])


async def add(stub: Stub, args: list[str], variant: str) -> bytes:
    """Reads, adds, writes: two of these on one key in one block conflict."""
    value = int(await stub.get(args[0]) or b"0") + int(args[1])
    stub.put(args[0], str(value).encode())
    stub.set_event("add", f"{args[0]}={value}".encode())
    return str(value).encode()


async def who(stub: Stub, args: list[str], variant: str) -> bytes:
    return f"{stub.creator.msp_id}/{stub.creator.common_name}".encode()


async def differ(stub: Stub, args: list[str], variant: str) -> bytes:
    """Writes what depends on the process it runs in: a contract that is not the same everywhere."""
    stub.put(args[0], variant.encode())
    return variant.encode()


async def version(stub: Stub, args: list[str], variant: str) -> bytes:
    return variant.encode()


async def refuse(stub: Stub, args: list[str], variant: str) -> bytes:
    raise ChaincodeError("the probe refuses", status=400)


async def hide(stub: Stub, args: list[str], variant: str) -> bytes:
    """Private data: the value comes as transient data, so that it is in no transaction."""
    stub.put(args[1], stub.transient["value"], collection=args[0])
    return b"done"


async def reveal(stub: Stub, args: list[str], variant: str) -> bytes | None:
    return await stub.get(args[1], collection=args[0])


async def hidden_hash(stub: Stub, args: list[str], variant: str) -> bytes:
    return (await stub.private_hash(args[1], collection=args[0]) or b"").hex().encode()


async def slow(stub: Stub, args: list[str], variant: str) -> bytes:
    """Takes a while, so that a chaincode can be killed in the middle; says that it has begun by making a file."""
    Path(args[2]).touch()
    await asyncio.sleep(float(args[1]))
    return await put(stub, [args[0], "slow"], variant)


FUNCTIONS: dict[str, Function] = {
    one.__name__: one for one in (put, get, add, who, differ, version, refuse, hide, reveal, hidden_hash, slow)
}


def handler(variant: str) -> Callable[[Stub], Awaitable[bytes | None]]:
    async def handle(stub: Stub) -> bytes | None:
        name, *args = (argument.decode() for argument in stub.args)
        if name not in FUNCTIONS:
            raise ChaincodeError(f"no function {name}", status=404)
        return await FUNCTIONS[name](stub, args, variant)

    return handle


async def serve(servers: list[ChaincodeServer]) -> None:
    for server in servers:
        await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await asyncio.gather(*(server.stop() for server in servers))


def configured(config: dict[str, str]) -> ChaincodeServer:
    tls = ServerTls(Path(config["certificate"]), Path(config["key"]), Path(config["client_roots"]))
    return ChaincodeServer(config["package_id"], handler(config["variant"]), address=config["address"], tls=tls)


def placed(path: Path) -> list[ChaincodeServer]:
    """The probe under every name of a file of places; its variant is the package's version."""
    return [
        ChaincodeServer(
            place.chaincode_id,
            handler(place.chaincode_id.partition(":")[0].rpartition("_")[2]),
            address=place.address,
            tls=place.tls,
        )
        for place in read_places(path).values()
    ]


if __name__ == "__main__":
    file = Path(sys.argv[-1])
    found = placed(file) if "--places" in sys.argv else [configured(json.loads(file.read_text()))]
    asyncio.run(serve(found))
