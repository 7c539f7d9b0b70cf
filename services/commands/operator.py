"""`city operator`: rolls the city of a namespace out; `city operator uninstall` takes it away again, for the chart's pre-delete hook."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any

from citykit import telemetry
from citykit.loop import run_to_end
from citykit.settings import read_settings

CERTIFICATES = Path("/etc/city/tls/operator")
TOKEN = Path("/etc/city/operator/token")
WAIT_S = 120.0


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("operator", help="roll a city out in a Kubernetes namespace")
    parser.add_argument("--namespace", default="", metavar="NS", help="default: the pod's, or the kubeconfig's")
    parser.add_argument("--identity", default="", metavar="NAME", help="in the Lease; default: the pod's name")
    parser.add_argument(
        "--certificates", type=Path, default=CERTIFICATES, metavar="FOLDER", help="tls.crt and tls.key of the webhook"
    )
    parser.add_argument("--token", type=Path, default=TOKEN, metavar="FILE", help="token to ask the services with")
    parser.add_argument("--webhook-port", type=int, default=9443, metavar="PORT", help="0: no webhook")
    parser.set_defaults(run=run)
    parts = parser.add_subparsers(metavar="ACTION")
    remove = parts.add_parser("uninstall", help="delete the City and what the operator applied; volumes stay")
    remove.add_argument(
        "--namespace", default=argparse.SUPPRESS, metavar="NS", help="default: the pod's, or the kubeconfig's"
    )
    remove.add_argument("--wait", type=float, default=WAIT_S, metavar="SECONDS", help="for the operator to do it")
    remove.set_defaults(run=run_uninstall)


def run(arguments: argparse.Namespace) -> int:
    """Until SIGTERM or Ctrl-C.

    Raises:
        EnvironmentFault: no cluster, no City resource in it, no port, or an API server that stays away.
    """
    from operators.city.main import Options, serve  # noqa: PLC0415 - its libraries are the operator's alone

    settings = read_settings(os.environ)
    telemetry.configure(settings.telemetry, "operator")
    options = Options(
        namespace=arguments.namespace,
        identity=arguments.identity,
        certificates=arguments.certificates,
        token=arguments.token,
        webhook_port=arguments.webhook_port,
    )
    run_to_end(serve(settings, options))
    return 0


def run_uninstall(arguments: argparse.Namespace) -> int:
    """Ends when nothing is left but volumes and the resource's definition.

    Raises:
        EnvironmentFault: no cluster. Unavailable: it does not answer. PermissionDenied: the role lacks something.
    """
    from operators.city.finalize import uninstall  # noqa: PLC0415 - as above
    from operators.city.kube import connected  # noqa: PLC0415 - as above

    async def remove() -> None:
        async with connected(arguments.namespace) as api:
            await uninstall(api, arguments.wait, lambda line: print(line, flush=True))

    asyncio.run(remove())
    return 0
