"""`city token --as WHO`: prints an access token for one of the demo's people, to try the HTTP API with."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path
from typing import Any

from citykit.errors import EnvironmentFault, FailedPrecondition, NotFound, Unavailable
from citykit.ids import system_randomness
from citykit.keys import derive_key
from citykit.settings import CitySettings, read_settings
from citykit.store.driver import rows
from citykit.store.places import reading
from services.gateway.main import DEMO_LOGINS
from services.identity.app.people import GATEWAY
from services.identity.app.tokens import Bearer, Issuer
from services.identity.domain.people import pairwise_subject

CLIENT = "city-token"


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("token", help="an access token of one of the demo's people")
    parser.add_argument(
        "--as", dest="who", required=True, metavar="WHO", help="resident:ada, contractor:NAME or staff:ROLE"
    )
    parser.add_argument("--state", type=Path, default=Path(".city"), help="state directory of the city")
    parser.add_argument("--json", action="store_true", help="one JSON document with the seconds it lives")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = read_settings(os.environ)
    token, life_s = demo_token(arguments.state, arguments.who, settings)
    if arguments.json:
        print(json.dumps({"access_token": token, "expires_in": life_s, "token_type": "Bearer"}))
    else:
        print(token)
    return 0


def demo_token(state: Path, who: str, settings: CitySettings) -> tuple[str, int]:
    """(token for the gateway, seconds it lives), minted with the keys in the state directory; the city may run meanwhile.

    Raises:
        FailedPrecondition: no demo. EnvironmentFault: no city there. NotFound: no such demo login. Unavailable: not made yet.
    """
    if settings.general.mode != "demo":
        raise FailedPrecondition(
            f"`city token` speaks for the people of a demo, and CITY_GENERAL_MODE is {settings.general.mode}:"
            " log in at the city's login page instead"
        )
    login = _login(state, who)
    person, roles = _person(state, login)
    root = (state / "keys" / "root").read_bytes()
    issuer = Issuer(settings, derive_key(root, "identity", "token-signing"), system_randomness)
    subject = pairwise_subject(derive_key(root, "identity", "pairwise"), person, GATEWAY)
    bearer = Bearer(subject, GATEWAY, roles, CLIENT)
    return issuer.access_token(bearer, token=issuer.new_token_id(), life_s=issuer.life_s), issuer.life_s


def _login(state: Path, who: str) -> str:
    path = state / DEMO_LOGINS
    if not path.exists():
        raise EnvironmentFault(
            f"{state} holds no demo: `city token` needs the logins a demo makes."
            " Start one with `make run`, or name its directory with --state"
        )
    logins = json.loads(path.read_text(encoding="utf-8"))
    if who not in logins:
        raise NotFound(f"nobody in this demo is {who!r}; there are {', '.join(sorted(logins))}", field="--as")
    return str(logins[who]["login"])


def _person(state: Path, login: str) -> tuple[str, tuple[str, ...]]:
    with contextlib.suppress(NotFound), reading(state, "identity") as connection:
        for id_, roles in rows(connection, "SELECT id, roles FROM people WHERE login = ?", (login,)):
            return str(id_), tuple(str(roles).split(","))
    raise Unavailable(
        "the demo has not made its people yet, or this one is erased; try again when the dashboard answers"
    )
