"""`city provision secrets | database | registrar`: what a city needs in a cluster and no chart may hold.

The chart's hooks run the first two before the pods start, and they may run at any time; `registrar` comes after, in a pod of identity. Secrets that
somebody supplied are checked and never changed; no value is ever printed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from citykit.errors import InvalidArgument
from citykit.settings import read_settings
from services.registry import SERVICES, WITHOUT_PARTS

HOLDERS = tuple(name for name in SERVICES if name not in WITHOUT_PARTS)
_GROUPS = ("tls", "root-key", "postgres", "ledger", "operator-token")
_LEDGER = "ledger"
_PENDING = 1
_PASSWORD_BYTES = 4_096


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("provision", help="secrets in a cluster, roles and schemas in its database")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    _add_secrets(acts.add_parser("secrets", help="make what is missing, renew what is due, check what was supplied"))
    _add_database(acts.add_parser("database", help="the database, and a role and schema for each service"))
    registrar = acts.add_parser("registrar", help="the first person, who makes all others; run where identity runs")
    registrar.add_argument(
        "--login", required=True, help="lower-case letters, digits and hyphens; the password comes on standard input"
    )
    registrar.set_defaults(run=_registrar)


def _add_secrets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--namespace", default="", help="of the city (default: the pod's own)")
    parser.add_argument("--only", default=",".join(_GROUPS), help=f"comma-separated, of {', '.join(_GROUPS)}")
    parser.add_argument(
        "--tls-mode", choices=("provision", "existing"), default="provision",
        help="existing: certificates come from cert-manager or your own authority and are only checked",
    )  # fmt: skip
    parser.add_argument(
        "--hosts", default="", help="further DNS names and addresses in every certificate, comma-separated"
    )
    parser.add_argument(
        "--cluster-domain", default="cluster.local", help="of the cluster's DNS (default cluster.local)"
    )
    act = parser.add_mutually_exclusive_group()
    act.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 where something is missing or due"
    )
    act.add_argument(
        "--remove", action="store_true",
        help="delete those that were made here; what a kept volume holds cannot be used without them",
    )  # fmt: skip
    parser.set_defaults(run=_secrets)


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--admin", default="postgres", help="the administrator's role (default postgres)")
    parser.add_argument("--admin-password-file", type=Path, required=True, metavar="FILE", help="its password")
    parser.add_argument(
        "--passwords", type=Path, required=True, metavar="DIR", help="with a file SERVICE/password for each service"
    )
    parser.add_argument("--service", action="append", choices=HOLDERS, help="only this one; may come again")
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long the server may take to answer (default 120)",
    )
    parser.set_defaults(run=_database)


def _secrets(arguments: argparse.Namespace) -> int:
    from infra.provision import needs, provision, remove  # noqa: PLC0415 - no other command needs a cluster
    from infra.provision.cluster import cluster_secrets  # noqa: PLC0415
    from infra.provision.items import names  # noqa: PLC0415

    store = cluster_secrets(arguments.namespace)
    wanted = wanted_of(arguments, store.namespace)
    if arguments.remove:
        print(f"{remove(store, wanted, print)} secrets removed")
        return 0
    if arguments.check:
        found = needs(wanted, store.read(names(wanted)))
        for need in found:
            print(f"{need.name}: {need.why}")
        return _PENDING if found else 0
    print(f"{provision(store, wanted, print)} secrets written; the others are as they must be")
    return 0


def wanted_of(arguments: argparse.Namespace, namespace: str) -> Any:
    """The `infra.provision.Wanted` that the arguments say.

    Raises:
        InvalidArgument: an unknown group.
    """
    from infra.provision import Wanted  # noqa: PLC0415 - see _secrets

    wanted = Wanted(
        namespace=namespace,
        services=SERVICES,
        holders=HOLDERS,
        groups=_groups(arguments.only),
        issue=arguments.tls_mode == "provision",
        hosts=_listed(arguments.hosts),
        domain=arguments.cluster_domain,
    )
    return (
        replace(wanted, specification=_specification(wanted.hosts_of(_LEDGER))) if _LEDGER in wanted.groups else wanted
    )


def _specification(hosts: Sequence[str]) -> Any:
    from citykit.ledger.chaincode.convention import chaincode_name  # noqa: PLC0415
    from services.commands.devpeer import city_specification  # noqa: PLC0415 - loads every contract
    from services.registry import contracts  # noqa: PLC0415

    anywhere = {chaincode_name(one): "127.0.0.1:0" for one in contracts()}  # identities name no port
    return replace(city_specification(anywhere, read_settings(os.environ)), hosts=(_LEDGER, *hosts))


def _groups(text: str) -> tuple[str, ...]:
    groups = _listed(text)
    for name in groups:
        if name not in _GROUPS:
            raise InvalidArgument(f"--only {name!r} is not known; there are {', '.join(_GROUPS)}", field="--only")
    return groups


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _database(arguments: argparse.Namespace) -> int:
    from infra.postgres.roles import Admin, provision, until_ready  # noqa: PLC0415 - only here

    chosen = read_settings(os.environ).postgres
    admin = Admin(
        port=chosen.port,
        passwords=arguments.passwords,
        host=chosen.host,
        root=Path(chosen.tls_root) if chosen.tls_root else None,
        database=chosen.database,
        user=arguments.admin,
        password_file=arguments.admin_password_file,
    )
    services = tuple(arguments.service or HOLDERS)
    until_ready(admin, services, arguments.wait)
    provision(admin, services)
    print(f"database {admin.database} at {admin.host}: roles and schemas of {', '.join(services)}")
    return 0


def _registrar(arguments: argparse.Namespace) -> int:
    from citykit.keys import read_root_key  # noqa: PLC0415 - only here
    from citykit.network import tls_network  # noqa: PLC0415
    from services.commands.registrar import make_registrar, read_password  # noqa: PLC0415

    settings = read_settings(os.environ).services
    password = read_password(sys.stdin.read(_PASSWORD_BYTES))
    key = read_root_key(Path(settings.root_key_file))
    asyncio.run(make_registrar(tls_network(settings), key, arguments.login, password))
    print(f"{arguments.login} is a registrar, and makes the others on the city's page")
    return 0
