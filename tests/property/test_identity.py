"""Properties of identity: a device's keys only move forward whatever is asked; subjects cannot be linked; PKCE binds."""

from __future__ import annotations

import base64
import hashlib
import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.identity.domain import devices, oidc
from services.identity.domain.errors import IdentityError
from services.identity.domain.people import pairwise_subject
from tests.unit.identity.entries import AT, entry, key

VERIFIER = st.text(string.ascii_letters + string.digits + "-._~", min_size=43, max_size=128)
STEP = st.one_of(st.tuples(st.just("rotate"), st.integers(-2, 60)), st.tuples(st.just("revoke"), st.integers(-2, 60)))


@given(st.lists(STEP, max_size=30))
def test_keys_move_forward_and_an_end_is_final(steps: list[tuple[str, int]]) -> None:
    state = devices.registered(entry("m-1"), "t")
    for number, (what, sequence) in enumerate(steps):
        before = state
        try:
            known = devices.in_service("m-1", state)
            if what == "rotate":
                state = devices.rotated("m-1", known, key(str(number)), "EdDSA", sequence, f"t-{number}")
            else:
                state = devices.revoked("m-1", known, AT, sequence, "lost")
        except IdentityError:
            assert state == before
        starts = [item["from_sequence"] for item in state["keys"]]
        assert starts == sorted(set(starts))
        assert starts[0] == 1
        assert state["keys"][: len(before["keys"])] == before["keys"]
        assert before["revoked"] is None or state == before


@given(st.binary(min_size=32, max_size=32), st.sets(st.text(max_size=20), min_size=2, max_size=20))
def test_no_two_people_and_no_two_services_share_a_subject(secret: bytes, names: set[str]) -> None:
    subjects = [pairwise_subject(secret, f"person-{n}", f"a{a}") for n in range(3) for a in range(len(names))]
    assert len(set(subjects)) == len(subjects)


@given(VERIFIER, VERIFIER)
def test_only_the_verifier_fits_its_challenge(mine: str, other: str) -> None:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(mine.encode()).digest()).rstrip(b"=").decode()
    assert oidc.challenge_fits(mine, challenge)
    assert oidc.challenge_fits(other, challenge) == (mine == other)


@given(st.text(max_size=80))
def test_a_redirect_leads_only_to_the_app(redirect: str) -> None:
    clients = oidc.clients_of("")
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    asked: dict[str, Any] = {"client_id": "city-app", "challenge": challenge, "method": "S256", "nonce": ""}
    for text in (redirect, f"http://127.0.0.1:{redirect}/callback", f"http://127.0.0.1:80{redirect}"):
        try:
            oidc.require_authorization(clients, redirect_uri=text, **asked)
        except IdentityError:
            continue
        assert text.startswith(("http://127.0.0.1:", "http://[::1]:", "city.provable.app:/"))
        assert text.endswith("/callback")
        assert text.count("/") in (1, 3)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
    )
)
def test_no_voucher_breaks_the_reader(document: Any) -> None:
    try:
        devices.voucher_of(document)
    except IdentityError as error:
        assert error.reason == "bad-voucher"
    else:
        raise AssertionError("a voucher without its fields was taken")
