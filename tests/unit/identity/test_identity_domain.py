"""Identity's rules: each limit on both sides, each refusal with its reason and field."""

from __future__ import annotations

from typing import Any

import pytest

from services.identity.domain import devices, oidc, people, receipts
from services.identity.domain.errors import IdentityError
from tests.unit.identity.entries import AT, entry, key

VOUCHER = {"algorithm": "EdDSA", "device": "m-1", "key": key("m-1"), "model": "m", "serial": "s"}
POINT = "04" + "ab" * 64


def reason(call: Any, *args: Any, **kwargs: Any) -> tuple[str, str]:
    with pytest.raises(IdentityError) as caught:
        call(*args, **kwargs)
    assert str(caught.value) == caught.value.message
    return caught.value.reason, caught.value.field


# --- devices ---------------------------------------------------------------------------------------


def test_a_voucher_names_device_key_model_and_serial() -> None:
    found = devices.voucher_of(VOUCHER)
    assert (found.device, found.key.hex(), found.algorithm, found.model, found.serial) == (
        "m-1", key("m-1"), "EdDSA", "m", "s",
    )  # fmt: skip
    assert len(devices.voucher_of({**VOUCHER, "algorithm": "ES256", "key": POINT}).key) == 65


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {**VOUCHER, "owner": "x"},
        {**VOUCHER, "model": ""},
        {**VOUCHER, "serial": 7},
        {**VOUCHER, "model": "m" * 201},
    ],
)
def test_a_voucher_of_another_form_is_refused(document: Any) -> None:
    assert reason(devices.voucher_of, document) == ("bad-voucher", "vouchers")


@pytest.mark.parametrize("name", ["", "M-1", "m_1", "m" * 65, "m 1", "m-1\n", 7, None])
def test_what_is_no_device_id(name: Any) -> None:
    assert reason(devices.require_device, name) == ("bad-device", "device")


def test_device_ids_may_be_long() -> None:
    assert devices.require_device("m" * 64) == "m" * 64


@pytest.mark.parametrize(
    ("text", "algorithm", "why"),
    [
        (key("a"), "none", "bad-algorithm"),
        (key("a"), ["EdDSA"], "bad-algorithm"),
        (key("a")[2:], "EdDSA", "bad-key"),
        (key("a").upper(), "EdDSA", "bad-key"),
        (7, "EdDSA", "bad-key"),
        ("zz" * 32, "EdDSA", "bad-key"),
        (POINT, "EdDSA", "bad-key"),
        (key("a"), "ES256", "bad-key"),
        ("02" + "ab" * 64, "ES256", "bad-key"),
    ],
)
def test_what_is_no_key(text: Any, algorithm: Any, why: str) -> None:
    assert reason(devices.require_key, text, algorithm)[0] == why


@pytest.mark.parametrize("number", [0, -1, 2**53, True, "1", None])
def test_what_is_no_sequence_number(number: Any) -> None:
    assert reason(devices.require_sequence, number, "from_sequence") == ("bad-sequence", "from_sequence")


def test_sequence_numbers_reach_what_json_carries() -> None:
    assert devices.require_sequence(2**53 - 1, "n") == 2**53 - 1
    assert devices.require_sequence(0, "n", 0) == 0


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([], "bad-count"),
        ([entry(f"m-{n}") for n in range(1_001)], "bad-count"),
        ([entry("m-1"), entry("m-2"), entry("m-1", key=key("x"))], "named-twice"),
        ([entry("m-1"), entry("m-2", key=key("m-1"))], "named-twice"),
        ([{**entry("m-1"), "owner": "x"}], "bad-device"),
        ([entry("M 1")], "bad-device"),
        ([entry("m-1", algorithm="none")], "bad-algorithm"),
        ([entry("m-1", from_sequence=0)], "bad-sequence"),
        ([entry("m-1", voucher="ab")], "bad-voucher"),
        ([entry("m-1", voucher=7)], "bad-voucher"),
        ([entry("m-1", from_time="2016-10-04")], "bad-time"),
        ([entry("m-1", from_time=0)], "bad-time"),
    ],
)
def test_a_registration_that_is_refused(entries: list[dict[str, Any]], why: str) -> None:
    assert reason(devices.registrations, entries)[0] == why


def test_a_registration_takes_a_thousand() -> None:
    wanted = [entry(f"m-{n}") for n in range(1_000)]
    assert devices.registrations(wanted) == wanted


def test_keys_follow_each_other_until_the_device_ends() -> None:
    first = devices.registered(entry("m-1"), "t-1")
    second = devices.rotated("m-1", first, key("next"), "EdDSA", 2, "t-2")
    assert [(item["from_sequence"], item["transaction"]) for item in second["keys"]] == [(1, "t-1"), (2, "t-2")]
    assert len(first["keys"]) == 1
    assert reason(devices.rotated, "m-1", second, key("third"), "EdDSA", 2, "t") == (
        "sequence-not-rising",
        "from_sequence",
    )
    ended = devices.revoked("m-1", second, AT, 7, "lost")
    assert (ended["keys"], ended["revoked"]) == (second["keys"], {"at": AT, "last_sequence": 7, "reason": "lost"})
    assert devices.in_service("m-1", second) == second
    assert reason(devices.in_service, "m-1", ended) == ("revoked", "device")
    assert reason(devices.in_service, "m-1", None) == ("unknown-device", "device")
    assert reason(devices.in_service, "key/ab", {}) == ("bad-device", "device")


def test_a_device_has_had_a_hundred_keys_at_most() -> None:
    state = devices.registered(entry("m-1"), "t")
    for number in range(2, 101):
        state = devices.rotated("m-1", state, key(str(number)), "EdDSA", number, "t")
    assert reason(devices.rotated, "m-1", state, key("101"), "EdDSA", 101, "t") == ("too-many-keys", "device")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"reason": "  "}, "bad-reason"),
        ({"reason": "r" * 201}, "bad-reason"),
        ({"last_sequence": -1}, "bad-sequence"),
        ({"at": "now"}, "bad-time"),
    ],
)
def test_a_revocation_that_is_refused(change: dict[str, Any], why: str) -> None:
    given = {"at": AT, "last_sequence": 1, "reason": "lost", **change}
    assert reason(devices.revoked, "m-1", devices.registered(entry("m-1"), "t"), **given)[0] == why


def test_what_is_signed_says_what_it_is() -> None:
    assert devices.voucher_message(b"{}") == b"city.voucher.v1\n{}"
    assert devices.rotation_message(b"{}") == b"city.device-rotation.v1\n{}"


# --- people ----------------------------------------------------------------------------------------

PERSON: dict[str, Any] = {
    "login": "ada", "display_name": "Ada", "roles": frozenset({"resident"}), "password": "p" * 12,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"login": "a"}, "bad-login"),
        ({"login": "a" * 41}, "bad-login"),
        ({"login": "Ada"}, "bad-login"),
        ({"display_name": ""}, "bad-name"),
        ({"display_name": "n" * 201}, "bad-name"),
        ({"display_name": "a\nb"}, "bad-name"),
        ({"roles": frozenset()}, "bad-roles"),
        ({"roles": frozenset({"service"})}, "bad-roles"),
        ({"roles": frozenset({"resident", "unspecified"})}, "bad-roles"),
        ({"password": "p" * 11}, "bad-password"),
        ({"password": "p" * 1_025}, "bad-password"),
    ],
)
def test_a_person_that_is_refused(change: dict[str, Any], why: str) -> None:
    assert reason(people.require_person, **{**PERSON, **change}) == (why, next(iter(change)))


@pytest.mark.parametrize(
    "change", [{}, {"password": ""}, {"password": "p" * 1_024}, {"roles": frozenset(people.ROLES)}]
)
def test_a_person_that_is_taken(change: dict[str, Any]) -> None:
    people.require_person(**{**PERSON, **change})
    assert people.require_login("ada") == "ada"


def test_a_password_is_hashed_as_its_cost_says() -> None:
    """RFC 7914, section 12: N=1024, r=8, p=16 gives fdbabe1c9d34...; its first 32 bytes."""
    cost = people.Cost(1_024, 8, 16)
    assert people.password_hash("password", b"NaCl", cost).hex() == (
        "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
    )
    assert people.cost_of(str(cost)) == cost
    assert str(people.Cost()) == "scrypt:16384:8:1"
    for text in ("", "scrypt:1:2", "argon2:1:2:3"):
        with pytest.raises(ValueError):
            people.cost_of(text)


def test_a_purpose_is_said() -> None:
    assert people.require_purpose("p" * 500) == "p" * 500
    assert reason(people.require_purpose, " ") == ("bad-purpose", "purpose")
    assert reason(people.require_purpose, "p" * 501, "reason") == ("bad-reason", "reason")


def test_an_audience_is_a_name() -> None:
    assert people.require_audience("metering") == "metering"
    for text in ("", "1st", "Metering", "m" * 41, "a b"):
        assert reason(people.require_audience, text, "recipient") == ("bad-recipient", "recipient")


def test_a_subject_depends_on_key_person_and_audience() -> None:
    base = people.pairwise_subject(b"k" * 32, "person-1", "metering")
    others = {
        people.pairwise_subject(b"k" * 32, "person-1", "notary"),
        people.pairwise_subject(b"k" * 32, "person-2", "metering"),
        people.pairwise_subject(b"l" * 32, "person-1", "metering"),
    }
    assert len({base, *others}) == 4
    assert len(base) == 40
    assert base == people.pairwise_subject(b"k" * 32, "person-1", "metering")


# --- logins ----------------------------------------------------------------------------------------

CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
CLIENTS = oidc.clients_of("https://city.example/")
ASKED: dict[str, Any] = {
    "clients": CLIENTS, "client_id": "city-app", "redirect_uri": "http://127.0.0.1:49152/callback", "challenge": CHALLENGE,
    "method": "S256", "nonce": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("client", "redirect"),
    [
        ("city-app", "http://127.0.0.1:49152/callback"),
        ("city-app", "http://[::1]:8000/callback"),
        ("city-app", "city.provable.app:/callback"),
        ("dashboard", "/"),
        ("dashboard", "https://city.example/"),
    ],
)
def test_a_redirect_that_is_taken(client: str, redirect: str) -> None:
    found = oidc.require_authorization(**{**ASKED, "client_id": client, "redirect_uri": redirect})
    assert found.id == client


@pytest.mark.parametrize(
    "redirect",
    [
        "", "http://127.0.0.1/callback", "http://127.0.0.1:49152/callback?x=1", "http://127.0.0.1:49152/other",
        "https://127.0.0.1:49152/callback", "http://127.0.0.1.evil.example:1/callback", "http://localhost:1/callback",
        "http://127.0.0.1:*/callback", "http://127.0.0.1:99999/callback", "http://user@127.0.0.1:1/callback",
        "http://127.0.0.1:01/callback", "city.provable.app:/callback/", "/",
    ],
)  # fmt: skip
def test_a_redirect_that_is_refused(redirect: str) -> None:
    assert reason(oidc.require_authorization, **{**ASKED, "redirect_uri": redirect}) == ("bad-redirect", "redirect_uri")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"client_id": "x"}, "unknown-client"),
        ({"challenge": CHALLENGE[1:]}, "bad-challenge"),
        ({"challenge": CHALLENGE + "="}, "bad-challenge"),
        ({"method": "plain"}, "bad-challenge"),
        ({"method": ""}, "bad-challenge"),
        ({"nonce": "n" * 501}, "bad-nonce"),
    ],
)
def test_an_authorization_that_is_refused(change: dict[str, Any], why: str) -> None:
    assert reason(oidc.require_authorization, **{**ASKED, **change})[0] == why


def test_without_a_public_address_the_page_is_its_own() -> None:
    assert oidc.clients_of("")["dashboard"].redirects == ("/",)


def test_the_proof_of_rfc_7636_appendix_b() -> None:
    assert oidc.challenge_fits("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", CHALLENGE)
    assert not oidc.challenge_fits("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl", CHALLENGE)
    assert not oidc.challenge_fits("short", CHALLENGE)
    assert not oidc.challenge_fits("x" * 129, CHALLENGE)


# --- receipts --------------------------------------------------------------------------------------


def test_a_withdrawal_changes_what_happened_and_when() -> None:
    given = receipts.consent_receipt("c-1", "s-1", "advice", "forecasting", "provable.city/demo", AT)
    ended = receipts.withdrawal_receipt(given, "2016-10-05T00:00:00Z")
    assert (given["event_type"], given["event_time"]) == ("given", AT)
    assert {name for name in given if given[name] != ended[name]} == {"event_type", "event_time"}


def test_an_erasure_receipt_says_who_was_told() -> None:
    found = receipts.erasure_receipt(["metering", "gateway"], "provable.city/demo", AT)
    assert (found["told"], found["at"]) == (["gateway", "metering"], AT)
