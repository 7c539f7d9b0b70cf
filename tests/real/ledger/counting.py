"""Serves the contract Counter at several addresses, one an organisation: `python -m tests.real.ledger.counting CONFIG`.

CONFIG is a JSON list of {package_id, address, certificate, key, client_roots}.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from citykit.ledger.chaincode.runner import ContractRunner
from citykit.ledger.fabric.shim import ChaincodeServer, ServerTls
from citykit.testing.counter import Counter


async def main(config: Path) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    servers = [_server(one) for one in json.loads(config.read_bytes())]
    for server in servers:
        await server.start()
    await ended.wait()
    for server in servers:
        await server.stop()


def _server(one: dict[str, str]) -> ChaincodeServer:
    tls = ServerTls(Path(one["certificate"]), Path(one["key"]), Path(one["client_roots"]))
    return ChaincodeServer(one["package_id"], ContractRunner(Counter()), address=one["address"], tls=tls)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
