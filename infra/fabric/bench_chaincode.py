"""What the bench of the ledger runs on the peers: `plain`, our shim alone, and `bench`, a contract as the city's are.

`python -m infra.fabric.bench_chaincode --places FILE` serves both for one organisation.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from citykit.ledger.chaincode import read_places, serve
from citykit.ledger.fabric.shim import ChaincodeServer, Stub
from infra.fabric.bench_contract import Bench

PLAIN = "plain"


async def put(stub: Stub) -> bytes:
    """The same on the shim alone: arguments put, key, value."""
    _, key, value = stub.args
    stub.put(key.decode(), value)
    return b"ok"


async def main(places: Path) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    found = read_places(places)
    alone = found.pop(PLAIN)
    plain = ChaincodeServer(alone.chaincode_id, put, address=alone.address, tls=alone.tls)
    async with serve([Bench()], found):
        await plain.start()
        await stopped.wait()
        await plain.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[sys.argv.index("--places") + 1])))
