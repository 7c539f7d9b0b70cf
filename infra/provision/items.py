"""Each secret of a city: its keys, what it must hold, when it is due again, and how it is made. Decides; writes nothing.

A secret somebody supplied is checked and never made again; one of ours is made again when it is due.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from joserfc import jwt
from joserfc.errors import JoseError

from citykit.access import ACCEPTED, SERVICES_ISSUER, mint, signing_key
from citykit.errors import CityError, FailedPrecondition, InvalidArgument
from citykit.keys import ROOT_BYTES, service_token_seed
from citykit.ledger.devpeer.carried import made, pack, unpack
from infra.certificates import Issued, fresh, issue, new_authority
from infra.provision import checks
from infra.provision.wanted import (
    AUTHORITY,
    AUTHORITY_DAYS,
    LEAF_DAYS,
    PARTS,
    PEER,
    ROOT_KEY,
    TOKEN,
    TOKEN_DAYS,
    Change,
    Found,
    Wanted,
)

OPAQUE, TLS = "Opaque", "kubernetes.io/tls"
MISSING, HALF = "missing", "half its life is used"
MEMBER = ("member.pem", "member.key", "ca.pem", "client.pem", "client.key")
_COMBINED = "tls-combined.pem"
_DAY_S = 86_400
Data = dict[str, bytes]


@dataclass(frozen=True)
class City:
    """What is wanted and what is there."""

    wanted: Wanted
    found: Mapping[str, Found]

    def data(self, name: str) -> Mapping[str, bytes] | None:
        """What a secret holds; None while it is not there."""
        found = self.found.get(name)
        return found.data if found else None


@dataclass(frozen=True)
class Item:
    """A secret of the city.

    Attributes:
        check: raises InvalidArgument where what it holds is wrong.
        due: why one of ours is made again; empty: it is not.
        make: its content; None while a secret it is made from is not there.
        grows: made again where ours lacks a key: nothing is lost with what it held.
    """

    name: str
    keys: tuple[str, ...]
    check: Callable[[City, Found], None]
    make: Callable[[City], Data | None]
    due: Callable[[City, Found], str] = lambda city, found: ""
    kind: str = OPAQUE
    grows: bool = False


@dataclass(frozen=True)
class Need:
    """A secret that is to be made, and why."""

    item: Item = field(repr=False)
    why: str

    @property
    def name(self) -> str:
        return self.item.name

    def change(self, city: City) -> Change | None:
        """What to write; None while a secret it is made from is not there."""
        data = self.item.make(city)
        if data is None:
            return None
        return Change(self.name, self.item.kind, data, self.why, city.found.get(self.name))


def items(wanted: Wanted) -> list[Item]:
    """The secrets of the groups that are wanted, each after those it is made from."""
    groups: dict[str, Callable[[Wanted], list[Item]]] = {
        "tls": _tls, "root-key": _root, "postgres": _postgres, "ledger": _ledger, "operator-token": _token,
    }  # fmt: skip
    return [item for name, make in groups.items() if name in wanted.groups for item in make(wanted)]


def names(wanted: Wanted) -> list[str]:
    """The secrets to look at, a token before the key it is signed with: who finds a token finds the key that was there before it."""
    return list(dict.fromkeys([TOKEN, *(item.name for item in items(wanted)), ROOT_KEY]))


def needs(wanted: Wanted, found: Mapping[str, Found]) -> list[Need]:
    """What is to be made, after everything that is there was checked.

    Raises:
        InvalidArgument: a secret that is wrong; names it and the key.
        FailedPrecondition: certificates are missing that are not issued here; names them all. The root key of a city that had one is gone.
    """
    city = City(wanted, found)
    if "root-key" in wanted.groups and ROOT_KEY not in found and TOKEN in found and found[TOKEN].ours:
        raise FailedPrecondition(
            f"{ROOT_KEY} is gone, and the city had one: with another key its logs, names and tokens would not be its own any more."
            f" Put it back from the backup; only for a new city delete {TOKEN} too"
        )
    wanted_items = items(wanted)
    told = [Need(item, why) for item in wanted_items if (why := _why(city, item))]
    absent = [need.name for need in told if need.item.kind == TLS and not wanted.issue]
    if absent:
        raise FailedPrecondition(
            f"certificates are to be supplied, and these secrets are missing: {', '.join(absent)}. Have cert-manager or"
            " your own authority make them (tls.crt, tls.key, ca.crt), or provision with --tls-mode provision"
        )
    if not wanted.issue:
        _check_one_authority(city, [item.name for item in wanted_items if item.kind == TLS])
    return told


def _why(city: City, item: Item) -> str:
    found = city.found.get(item.name)
    if found is None:
        return MISSING
    if item.grows and found.ours and not all(found.data.get(key) for key in item.keys):
        return "a key is missing"
    checks.require_keys(item.name, found.data, item.keys)
    item.check(city, found)
    return item.due(city, found) if found.ours else ""


# --- certificates -------------------------------------------------------------------------------------


def _tls(wanted: Wanted) -> list[Item]:
    keys = ("tls.crt", "tls.key")
    authority = Item(AUTHORITY, keys, _check_authority, _make_authority, _authority_due, TLS)
    leaves = [_leaf(name) for name in (*wanted.services, *PARTS)]
    return [authority, *leaves] if wanted.issue else leaves


def _leaf(name: str) -> Item:
    keys = ("tls.crt", "tls.key", "ca.crt", *((_COMBINED,) if name == "kafka" else ()))
    return Item(
        f"{name}-tls",
        keys,
        partial(_check_leaf, name),
        partial(_make_leaf, name),
        partial(_leaf_due, name),
        TLS,
        grows=True,
    )


def _check_authority(city: City, found: Found) -> None:
    checks.check_pair(AUTHORITY, found.data, "tls.crt", "tls.key")
    if not found.ours:
        checks.check_authority(AUTHORITY, found.data, city.wanted.now)


def _make_authority(city: City) -> Data:
    kept = city.data(AUTHORITY) or {}
    name = f"{city.wanted.namespace} city authority"
    authority = new_authority(name, AUTHORITY_DAYS, kept.get("tls.key", b""), city.wanted.now)
    return {"tls.crt": authority.certificate, "tls.key": authority.key}


def _authority_due(city: City, found: Found) -> str:
    return "" if fresh(found.data["tls.crt"], city.wanted.now) else HALF


def _check_leaf(name: str, city: City, found: Found) -> None:
    secret = f"{name}-tls"
    leaf = checks.check_leaf(secret, name, found.data)
    if found.ours:
        return
    checks.check_current(secret, "tls.crt", leaf, city.wanted.now)
    authority = city.data(AUTHORITY)
    if city.wanted.issue and (authority is None or authority["tls.crt"].strip() != found.data["ca.crt"].strip()):
        raise checks.wrong(
            secret,
            "ca.crt",
            f"is another authority than {AUTHORITY}'s, with which the others are issued; supply {AUTHORITY} or all",
        )


def _make_leaf(name: str, city: City) -> Data | None:
    authority = city.data(AUTHORITY)
    if authority is None:
        return None
    signer = Issued(authority["tls.crt"], authority["tls.key"])
    leaf = issue(signer, name, LEAF_DAYS, city.wanted.hosts_of(name), city.wanted.now)
    data = {"tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": authority["tls.crt"]}
    return {**data, _COMBINED: leaf.key + leaf.certificate} if name == "kafka" else data


def _leaf_due(name: str, city: City, found: Found) -> str:
    authority = city.data(AUTHORITY)
    if authority is not None and authority["tls.crt"] != found.data["ca.crt"]:
        return "the authority changed"
    if not fresh(found.data["tls.crt"], city.wanted.now):
        return HALF
    leaf = checks.certificates(f"{name}-tls", "tls.crt", found.data)[0]
    return "" if checks.hosts(leaf).issuperset(city.wanted.hosts_of(name)) else "a host is missing"


def _check_one_authority(city: City, secrets_of: Sequence[str]) -> None:
    """Services believe the authority beside their own certificate, so each must have issued the others'."""
    first = secrets_of[0] if secrets_of else ""
    for other in secrets_of[1:]:
        for issued, believed in ((other, first), (first, other)):
            chain = checks.certificates(issued, "tls.crt", city.found[issued].data)
            authorities = checks.certificates(believed, "ca.crt", city.found[believed].data)
            checks.check_issued(issued, chain, authorities, f"ca.crt of {believed}, so the two cannot speak")


# --- keys and passwords -------------------------------------------------------------------------------


def _root(wanted: Wanted) -> list[Item]:
    def check(city: City, found: Found) -> None:
        checks.check_root(ROOT_KEY, found.data)

    return [Item(ROOT_KEY, ("root",), check, lambda city: {"root": secrets.token_bytes(ROOT_BYTES)})]


def _postgres(wanted: Wanted) -> list[Item]:
    return [_password(f"postgres-{name}") for name in ("admin", *wanted.holders)]


def _password(name: str) -> Item:
    def check(city: City, found: Found) -> None:
        checks.check_password(name, found.data)

    return Item(name, ("password",), check, lambda city: {"password": secrets.token_urlsafe(32).encode()})


# --- the development peer -----------------------------------------------------------------------------


def _ledger(wanted: Wanted) -> list[Item]:
    identity = Item(PEER, ("identity.tar",), _check_identity, _make_identity, _identity_due)
    return [identity, *(_member(name) for name in wanted.holders)]


def _check_identity(city: City, found: Found) -> None:
    try:
        files = unpack(found.data["identity.tar"])
    except CityError as error:
        raise checks.wrong(PEER, "identity.tar", error.message) from None
    absent = [name for name in city.wanted.holders if not found.ours and not _member_files(city, files, name)]
    if absent:
        raise checks.wrong(PEER, "identity.tar", f"holds no identity of {', '.join(absent)}")


def _make_identity(city: City) -> Data:
    kept = city.data(PEER)
    before = unpack(kept["identity.tar"]) if kept and kept.get("identity.tar") else None
    return {"identity.tar": pack(_identities(city, before))}


def _identity_due(city: City, found: Found) -> str:
    before = unpack(found.data["identity.tar"])
    return "" if _identities(city, before) == before else "half the life of an identity is used, or one is missing"


def _identities(city: City, before: Data | None) -> Data:
    wanted = city.wanted
    if wanted.specification is None:
        raise InvalidArgument("the group ledger needs the specification of the peer")
    try:
        return made(wanted.specification, wanted.now, before)
    except FailedPrecondition as error:
        raise checks.wrong(PEER, "identity.tar", error.message) from None


def _member(name: str) -> Item:
    secret = f"ledger-{name}"

    def check(city: City, found: Found) -> None:
        for certificate, key in (("member.pem", "member.key"), ("client.pem", "client.key")):
            first = checks.check_pair(secret, found.data, certificate, key)[0]
            if not found.ours:
                checks.check_current(secret, certificate, first, city.wanted.now)
        checks.certificates(secret, "ca.pem", found.data)

    def make(city: City) -> Data | None:
        kept = city.data(PEER)
        return _member_files(city, unpack(kept["identity.tar"]), name) if kept else None

    def due(city: City, found: Found) -> str:
        given = make(city)
        return "" if given is None or given == dict(found.data) else f"{PEER} changed"

    return Item(secret, MEMBER, check, make, due, grows=True)


def _member_files(city: City, files: Data, name: str) -> Data | None:
    """A member's own part of the identities; None where it is not in them."""
    if city.wanted.specification is None:
        return None
    msp = city.wanted.specification.organisations[0]
    member, client = f"organisations/{msp}/members/{name}", f"tls/{msp}-{name}"
    paths = (f"{member}.pem", f"{member}.key", "tls/ca.pem", f"{client}.pem", f"{client}.key")
    if not all(path in files for path in paths):
        return None
    return {key: files[path] for key, path in zip(MEMBER, paths, strict=True)}


# --- the operator's token -----------------------------------------------------------------------------


def _token(wanted: Wanted) -> list[Item]:
    return [Item(TOKEN, ("token",), _check_token, _make_token, _token_due)]


def _check_token(city: City, found: Found) -> None:
    ends = checks.claims_of(TOKEN, found.data)["exp"]
    if not found.ours and ends <= city.wanted.now.timestamp():
        raise checks.wrong(TOKEN, "token", "has expired")


def _make_token(city: City) -> Data | None:
    """Admits `city.operations.v1` alone (the audience), and only where the caller shows the certificate of `operator` too."""
    root = city.data(ROOT_KEY)
    if root is None:
        return None
    now = int(city.wanted.now.timestamp())
    claims = {
        "iss": SERVICES_ISSUER,
        "sub": "service:operator",
        "aud": checks.AUDIENCE,
        "roles": ["service"],
        "iat": now,
        "exp": now + round(TOKEN_DAYS * _DAY_S),
    }
    return {"token": mint(signing_key(service_token_seed(root["root"])), claims).encode()}


def _token_due(city: City, found: Found) -> str:
    times, root = checks.claims_of(TOKEN, found.data), city.data(ROOT_KEY)
    if city.wanted.now.timestamp() >= (times["iat"] + times["exp"]) / 2:
        return HALF
    try:
        if root is not None:
            key = signing_key(service_token_seed(root["root"]))
            jwt.decode(found.data["token"].decode(), key, algorithms=list(ACCEPTED))
    except (JoseError, ValueError):
        return "the root key changed"
    return ""
