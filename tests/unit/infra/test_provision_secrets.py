"""`city provision secrets`: what is missing is made once, what is due is renewed, what somebody supplied is checked and never changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from citykit.access import AccessCheck, KeySource, ServiceTokens, TokenVerifier, rules_of
from citykit.errors import (
    CityError,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from citykit.keys import service_token_seed
from citykit.ledger.devpeer.carried import unpack
from citykit.settings import CitySettings
from infra.certificates import issue, new_authority
from infra.provision import Found, needs, provision, remove
from infra.provision.checks import dns_names
from infra.provision.items import names
from infra.provision.wanted import GROUPS, PARTS
from services.commands.provision import HOLDERS
from services.registry import SERVICES
from tests.unit.infra.fake_secrets import MemorySecrets, wanted

ALL = {
    "city-authority", "city-root-key", "operator-token", "ledger-peer", "postgres-admin",
    *(f"{name}-tls" for name in (*SERVICES, *PARTS)),
    *(f"postgres-{name}" for name in HOLDERS), *(f"ledger-{name}" for name in HOLDERS),
}  # fmt: skip


@pytest.fixture(scope="module")
def first() -> Mapping[str, Found]:
    store = MemorySecrets()
    provision(store, wanted(), lambda line: None)
    return store.kept


@pytest.fixture
def store(first: Mapping[str, Found]) -> MemorySecrets:
    """A city that is provisioned."""
    made = MemorySecrets()
    for name, found in first.items():
        made.put(name, found.data, ours=True)
    return made


def later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def leaf(store: MemorySecrets, secret: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(store.data(secret)["tls.crt"])


# --- what is made -------------------------------------------------------------------------------------


def test_everything_missing_is_made_once_and_no_value_is_told() -> None:
    store, told = MemorySecrets(), list[str]()
    assert provision(store, wanted(), told.append) == len(ALL) == len(told)
    assert set(store.kept) == ALL
    before = {name: store.data(name) for name in store.kept}
    assert provision(store, wanted(), told.append) == 0
    assert {name: store.data(name) for name in store.kept} == before
    assert {line.removesuffix(" (missing)").removeprefix("made ") for line in told} == ALL


def test_certificates_are_of_one_authority_for_every_name_in_the_cluster(store: MemorySecrets) -> None:
    authority = leaf(store, "city-authority")
    for name in (*SERVICES, *PARTS):
        found = leaf(store, f"{name}-tls")
        found.verify_directly_issued_by(authority)
        assert found.subject.rfc4514_string() == f"CN={name}"
        assert set(dns_names(found)) == {
            name, "localhost", f"{name}.trial", f"{name}.trial.svc", f"{name}.trial.svc.cluster.local",
            f"*.{name}.trial.svc", f"*.{name}.trial.svc.cluster.local",
        }  # fmt: skip
        alternative = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(map(str, alternative.get_values_for_type(x509.IPAddress))) == ["127.0.0.1"]
        assert store.data(f"{name}-tls")["ca.crt"] == store.data("city-authority")["tls.crt"]
        assert b"BEGIN PRIVATE KEY" in store.data(f"{name}-tls")["tls.key"], "PKCS 8, as Kafka wants it"


def test_kafka_gets_key_and_certificate_in_one_file(store: MemorySecrets) -> None:
    kafka = store.data("kafka-tls")
    assert kafka["tls-combined.pem"] == kafka["tls.key"] + kafka["tls.crt"]
    load_pem_private_key(kafka["tls-combined.pem"], None)
    assert "tls-combined.pem" not in store.data("postgres-tls")


def test_keys_and_passwords_differ(store: MemorySecrets) -> None:
    passwords = [
        store.data(name)["password"] for name in store.kept if name.startswith("postgres-") and "tls" not in name
    ]
    assert len(set(passwords)) == len(passwords) == len(HOLDERS) + 1
    assert all(len(one) > 40 for one in passwords)
    assert len(store.data("city-root-key")["root"]) == 32


def test_a_service_gets_its_own_identity_on_the_ledger_and_no_other(store: MemorySecrets) -> None:
    files = unpack(store.data("ledger-peer")["identity.tar"])
    for name in HOLDERS:
        own = store.data(f"ledger-{name}")
        assert own["member.pem"] == files[f"organisations/CityMSP/members/{name}.pem"]
        assert own["client.key"] == files[f"tls/CityMSP-{name}.key"]
        assert own["ca.pem"] == files["tls/ca.pem"]
    assert {"ledger", "ledger.trial.svc", "localhost"} <= set(
        dns_names(x509.load_pem_x509_certificate(files["tls/peer.pem"]))
    )


def test_only_the_groups_asked_for_are_made() -> None:
    store = MemorySecrets()
    provision(store, wanted(groups=("root-key", "postgres")), lambda line: None)
    assert set(store.kept) == {"city-root-key", *(f"postgres-{name}" for name in ("admin", *HOLDERS))}
    with pytest.raises(FailedPrecondition, match="provision the group root-key too"):
        provision(MemorySecrets(), wanted(groups=("operator-token",)), lambda line: None)
    provision(store, wanted(groups=("operator-token",)), lambda line: None)
    assert "operator-token" in store.kept


# --- the operator's token -----------------------------------------------------------------------------


async def admitted(store: MemorySecrets, method: str, service: str) -> str:
    key = ServiceTokens(service_token_seed(store.data("city-root-key")["root"]), "metering").public_key
    keys = KeySource(lambda name: pytest.fail("no key of people is asked for"))
    check = AccessCheck(TokenVerifier(CitySettings(), keys, key), rules_of([service]))
    token = store.data("operator-token")["token"].decode()
    try:
        await check(f"/{service}/{method}", {"authorization": f"Bearer {token}"}, None)
    except CityError as error:
        return type(error).__name__
    return "admitted"


async def test_the_operators_token_asks_two_questions_and_nothing_else(store: MemorySecrets) -> None:
    from city.metering.v1 import metering_service_pb2  # noqa: F401, PLC0415 - its descriptor
    from city.operations.v1 import operations_service_pb2  # noqa: F401, PLC0415

    operations, metering = "city.operations.v1.OperationsService", "city.metering.v1.MeteringService"
    assert await admitted(store, "ListInvariants", operations) == "admitted"
    assert await admitted(store, "GetFreeze", operations) == "admitted"
    assert {await admitted(store, rule.rpartition("/")[2], metering) for rule in rules_of([metering])} <= {
        Unauthenticated.__name__, PermissionDenied.__name__,
    }  # fmt: skip


# --- renewal ------------------------------------------------------------------------------------------


def test_what_used_half_its_life_is_renewed_under_the_same_authority(store: MemorySecrets) -> None:
    before, told = {name: store.data(name) for name in store.kept}, list[str]()
    provision(store, wanted(now=later(190)), told.append)
    changed = {name for name in store.kept if store.data(name) != before[name]}
    assert changed == {name for name in ALL if name.endswith("-tls") or name.startswith("ledger-")}
    leaf(store, "metering-tls").verify_directly_issued_by(leaf(store, "city-authority"))
    assert "renewed metering-tls (half its life is used)" in told
    assert unpack(store.data("ledger-peer")["identity.tar"])["tls/ca.pem"] == before["ledger-metering"]["ca.pem"]


def test_the_token_is_renewed_at_half_its_life_and_with_the_root_key(store: MemorySecrets) -> None:
    def renewed(**changes: object) -> bool:
        before = store.data("operator-token")
        provision(store, wanted(groups=("operator-token",), **changes), lambda line: None)
        return store.data("operator-token") != before

    assert not renewed(now=later(199))
    assert renewed(now=later(201))
    store.put("city-root-key", {"root": bytes(32)})
    assert renewed(now=later(202))


def test_an_authority_gets_a_new_certificate_for_its_old_key(store: MemorySecrets) -> None:
    old = leaf(store, "metering-tls")
    provision(store, wanted(groups=("tls",), now=later(1_900)), lambda line: None)
    old.verify_directly_issued_by(leaf(store, "city-authority"))  # pods that still show the old one are believed
    assert store.data("metering-tls")["ca.crt"] == store.data("city-authority")["tls.crt"]


def test_a_new_host_and_a_key_that_is_missing_make_a_certificate_due(store: MemorySecrets) -> None:
    kafka = store.data("kafka-tls")
    store.put("kafka-tls", {key: kafka[key] for key in ("tls.crt", "tls.key", "ca.crt")}, ours=True)
    assert [(need.name, need.why) for need in needs(wanted(), store.kept)] == [("kafka-tls", "a key is missing")]
    due = {need.name: need.why for need in needs(wanted(hosts=("city.example",), groups=("tls",)), store.kept)}
    assert due["postgres-tls"] == "a host is missing"


# --- several at once ----------------------------------------------------------------------------------


def test_two_that_run_at_once_end_with_one_set_that_fits() -> None:
    def other(store: MemorySecrets) -> None:
        provision(store, wanted(), lambda line: None)

    store = MemorySecrets(other)
    provision(store, wanted(), lambda line: None)
    assert needs(wanted(), store.kept) == []
    for name in SERVICES:
        leaf(store, f"{name}-tls").verify_directly_issued_by(leaf(store, "city-authority"))


def test_an_endless_quarrel_is_given_up() -> None:
    def spoiler(store: MemorySecrets) -> None:
        store.kept.pop("postgres-admin", None)
        store.put("city-root-key", {"root": bytes(32)}, ours=True)
        store.kept.pop("operator-token", None)
        store.put("postgres-metering", {"password": b"theirs"})
        if "postgres-identity" in store.kept:
            store.kept.pop("postgres-identity")

    with pytest.raises(Unavailable, match="round after round"):
        provision(MemorySecrets(spoiler), wanted(groups=("postgres",)), lambda line: None)


# --- what somebody supplied ---------------------------------------------------------------------------

AUTHORITY = new_authority("the city's own", 30)


def supplied(name: str, changes: Mapping[str, bytes] | None = None, days: float = 30.0) -> dict[str, bytes]:
    made = issue(AUTHORITY, name, days)
    data = {"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": AUTHORITY.certificate}
    if name == "kafka":
        data["tls-combined.pem"] = made.key + made.certificate
    return {**data, **(changes or {})}


def test_supplied_secrets_are_used_and_never_changed() -> None:
    store = MemorySecrets()
    given = {
        "city-authority": {"tls.crt": AUTHORITY.certificate, "tls.key": AUTHORITY.key},
        "payments-tls": supplied("payments"),
        "city-root-key": {"root": b"r" * 32},
        "postgres-admin": {"password": b"chosen by the city's IT\n", "username": b"postgres"},
    }
    for name, data in given.items():
        store.put(name, data)
    provision(store, wanted(), lambda line: None)
    provision(store, wanted(now=later(20)), lambda line: None)
    assert {name: store.data(name) for name in given} == given
    leaf(store, "kafka-tls").verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY.certificate))


OTHER = new_authority("another", 30)
PAIR = issue(AUTHORITY, "payments", 30)
WRONG: list[tuple[str, dict[str, bytes], str]] = [
    ("city-root-key", {}, "key root: is missing or empty"),
    ("city-root-key", {"root": b"short"}, "key root: has 5 bytes, not 32"),
    ("postgres-metering", {"pasword": b"x"}, "key password: is missing"),
    ("postgres-metering", {"password": b"two\nlines"}, "key password: must be one line"),
    ("postgres-metering", {"password": b" \n"}, "key password: must be one line"),
    ("postgres-metering", {"password": b"\xff\xfe"}, "key password: must be one line"),
    ("city-authority", {"tls.crt": b"x", "tls.key": AUTHORITY.key}, "key tls.crt: is no PEM certificate"),
    ("city-authority", {"tls.crt": AUTHORITY.certificate, "tls.key": b"x"}, "key tls.key: is no PEM private key"),
    ("city-authority", {"tls.crt": AUTHORITY.certificate, "tls.key": OTHER.key}, "key tls.key: is not the key of tls.crt"),
    ("city-authority", {"tls.crt": PAIR.certificate, "tls.key": PAIR.key}, "is no certificate of an authority"),
    ("payments-tls", supplied("metering"), "is for metering, localhost, not for the DNS name payments"),
    ("payments-tls", {"tls.crt": PAIR.certificate, "tls.key": PAIR.key}, "key ca.crt: is missing"),
    ("payments-tls", supplied("payments", {"tls.key": OTHER.key}), "key tls.key: is not the key of tls.crt"),
    ("payments-tls", supplied("payments", {"ca.crt": OTHER.certificate}), "was not issued by ca.crt beside it"),
    ("payments-tls", supplied("payments", days=-0.001), "valid from"),
    ("payments-tls", supplied("payments"), "key ca.crt: is another authority than city-authority's"),
    ("kafka-tls", {**supplied("kafka"), "tls-combined.pem": b"x"}, "key tls-combined.pem: is not tls.key followed"),
    ("operator-token", {"token": b"x.y.z"}, "key token: is no JSON web token"),
    ("ledger-peer", {"identity.tar": b"x"}, "key identity.tar: the ledger's identities are no tar"),
    ("ledger-metering", {"member.pem": b"x"}, "key member.key: is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "message"), WRONG, ids=[f"{name} {told[:40]}" for name, _, told in WRONG])
def test_a_wrong_secret_is_refused_by_name_and_key_before_anything_changes(
    name: str, data: dict[str, bytes], message: str
) -> None:
    store = MemorySecrets()
    store.put(name, data)
    with pytest.raises(InvalidArgument, match=re.escape(message)) as refused:
        provision(store, wanted(), lambda line: None)
    assert f"the secret {name}, " in refused.value.message
    assert "Nothing was changed" in refused.value.message
    assert store.writes == 0
    assert b"PRIVATE" not in refused.value.message.encode()


def test_a_supplied_authority_that_has_run_out_is_refused() -> None:
    store = MemorySecrets()
    store.put("city-authority", {"tls.crt": AUTHORITY.certificate, "tls.key": AUTHORITY.key})
    with pytest.raises(InvalidArgument, match=r"city-authority, key tls\.crt: is valid from .*, not now"):
        provision(store, wanted(now=later(31)), lambda line: None)


def test_the_key_of_a_city_is_not_replaced_by_another(store: MemorySecrets) -> None:
    store.kept.pop("city-root-key")
    with pytest.raises(FailedPrecondition, match=r"city-root-key is gone.*Put it back from the backup"):
        provision(store, wanted(), lambda line: None)
    store.put("city-root-key", {}, ours=True)
    with pytest.raises(InvalidArgument, match="city-root-key, key root: is missing"):
        provision(store, wanted(), lambda line: None)


# --- certificates of cert-manager or the city's own authority -----------------------------------------


def existing() -> MemorySecrets:
    store = MemorySecrets()
    for name in (*SERVICES, *PARTS):
        store.put(f"{name}-tls", supplied(name))
    return store


def test_certificates_that_exist_are_checked_and_none_is_made() -> None:
    store, chosen = existing(), wanted(issue=False, groups=("tls",))
    assert provision(store, chosen, lambda line: None) == 0
    store.kept.pop("metering-tls")
    store.kept.pop("kafka-tls")
    with pytest.raises(FailedPrecondition, match=r"missing: metering-tls, kafka-tls\. Have cert-manager"):
        provision(store, chosen, lambda line: None)
    assert store.writes == 0


def test_certificates_of_two_authorities_are_refused() -> None:
    store, chosen = existing(), wanted(issue=False, groups=("tls",))
    made = issue(OTHER, "parking", 30)
    store.put("parking-tls", {"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": OTHER.certificate})
    with pytest.raises(InvalidArgument, match=r"parking-tls.*was not issued by ca\.crt of identity-tls"):
        provision(store, chosen, lambda line: None)
    store.put("parking-tls", supplied("parking", {"ca.crt": AUTHORITY.certificate + OTHER.certificate}))
    assert provision(store, chosen, lambda line: None) == 0


# --- the end ------------------------------------------------------------------------------------------


def test_only_what_was_made_here_is_removed(store: MemorySecrets) -> None:
    store.put("postgres-admin", {"password": b"theirs"})
    assert remove(store, wanted(), lambda line: None) == len(ALL) - 1
    assert set(store.kept) == {"postgres-admin"}


def test_the_names_looked_at_are_those_of_the_groups() -> None:
    assert set(names(wanted())) == ALL
    assert set(names(wanted(groups=()))) == {"operator-token", "city-root-key"}
    assert set(wanted().groups) == set(GROUPS)
