"""The convention of contracts on a Fabric channel: every form that is written is read back, and others are refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from citykit.ledger.chaincode import convention
from citykit.ledger.chaincode.convention import ConventionError, Fault, Invocation
from citykit.ledger.rules import RESERVED


def test_calls_are_read_back() -> None:
    arguments = convention.invocation_arguments("add", {"b": 1, "a": "é"}, "r1")
    assert arguments == [b"add", '{"a":"é","b":1}'.encode(), b"r1"]
    invocation = convention.parse_invocation(arguments)
    assert (invocation.function, invocation.request_id) == ("add", "r1")
    assert convention.parse_args(invocation) == {"a": "é", "b": 1}
    assert convention.invocation_arguments("look", {})[2] == b""


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: convention.parse_invocation([b"add", b"{}"]), "3 arguments"),
        (lambda: convention.parse_invocation([b"\xff", b"{}", b""]), "UTF-8"),
        (lambda: convention.parse_args(Invocation("f", b"[]", "")), "JSON object"),
        (lambda: convention.parse_args(Invocation("f", b'{"a": 1}', "")), "canonical"),
        (lambda: convention.parse_args(Invocation("f", b"\xff", "")), "canonical"),
        (lambda: convention.parse_answer(b"{}"), "an answer is"),
        (lambda: convention.parse_answer(b'{"repeated":1}'), "an answer is"),
        (lambda: convention.parse_answer(b'{"other":1,"result":1}'), "an answer is"),
        (lambda: convention.parse_events(b"{}"), "a list"),
        (lambda: convention.parse_events(b'[["name"]]'), "name, object"),
        (lambda: convention.parse_events(b'[["name",1]]'), "name, object"),
        (lambda: convention.repeated_by(b"[]", Invocation("f", b"{}", "r")), "request mark"),
        (lambda: convention.repeated_by(b"{", Invocation("f", b"{}", "r")), "request mark"),
        (lambda: convention.submitter_name({}, ""), "common name"),
        (lambda: convention.submitter_name({"city.service": "a/b"}, "x"), "slash"),
    ],
)
def test_what_does_not_follow_the_convention_is_refused(read: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConventionError, match=message):
        read()


def test_answers_marks_and_events_are_read_back() -> None:
    first, other = Invocation("f", b'{"a":1}', "r"), Invocation("f", b'{"a":2}', "r")
    mark = convention.request_mark(first, "t1")
    assert convention.repeated_by(mark, first) == "t1"
    assert convention.repeated_by(mark, other) is None
    assert convention.parse_answer(convention.answer_payload([1, None])) == convention.Answer([1, None])
    assert convention.parse_answer(convention.repeated_payload("t1")).repeated == "t1"
    events = [("b", {"x": 1}), ("a", {})]
    assert convention.parse_events(convention.events_payload(events)) == events


def test_marks_of_different_requests_never_share_a_key() -> None:
    assert convention.request_key("a", "b/c") != convention.request_key("b", "a/c")
    assert convention.request_key("a", "b") == "~request/a/b"
    assert convention.submitter_name({"city.service": "notary"}, "peer0") == "notary"
    assert convention.submitter_name({}, "peer0") == "peer0"
    assert convention.submitter_name({}, "notary", "UtilityMSP") == "UtilityMSP.notary"
    assert convention.submitter_name({"city.service": "notary"}, "x", "AMSP", "AMSP") == "notary"


def test_faults_are_read_back_also_through_a_gateway() -> None:
    fault = Fault(409, "request-reused", 'take a "new" id, é')
    text = convention.fault_message(fault)
    assert convention.parse_fault(409, text) == fault
    assert convention.relayed_fault(f"chaincode response 409, {text}") == fault
    assert convention.relayed_fault("failed to connect") is None
    for foreign in ("no JSON", "[1]", '{"code":"a"}', "\ud800"):
        assert convention.parse_fault(500, foreign) == Fault(500, "contract-failed", foreign)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [("", ""), ("a", "b"), ("a/", "a0"), ("\ud7ff", "\ue000"), ("a\U0010ffff", "b"), ("\U0010ffff", ""), ("~", "\x7f")],
)
def test_a_prefix_ends_where_the_next_begins(prefix: str, end: str) -> None:
    assert convention.prefix_end(prefix) == end


def test_ranges_hold_exactly_the_keys_under_a_prefix_and_no_mark() -> None:
    choose = random.Random(1)
    alphabet = ["a", "/", "~", "r", "\x7f", "é", "\ud7ff", "\ue000", "\U0010ffff"]
    words = sorted(
        {"".join(choose.choices(alphabet, k=choose.randint(0, 4))) for _ in range(300)} | {"~request/a", "~request0"}
    )
    for prefix in [*words, RESERVED, "~req"]:
        ranges = convention.prefix_ranges(prefix)
        found = [word for start, end in ranges for word in words if start <= word and (word < end or not end)]
        assert found == [word for word in words if word.startswith(prefix) and not word.startswith(RESERVED)]
