"""The simulated lock: what it opens for, offline, and what it refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from citykit import canonical
from citykit.package import (
    ENTRY,
    EXIT,
    NO_PREVIOUS,
    UNLOCK,
    Es256Signer,
    Reading,
    package_hash,
    parse_package,
    sign_package,
)
from simulation.device import device_signer
from simulation.lock import REASONS, Lock, Opened, Refused

NOW = 1_478_595_600
PARKING, STRANGER = Es256Signer.from_seed(b"parking"), Es256Signer.from_seed(b"stranger")
KID = "0123456789abcdef"


def lock(folder: Path, **more: Any) -> Lock:
    return Lock("lock-1", device_signer(7, "lock-1"), {KID: PARKING.public_key}, folder / "lock.json", **more)


def claims(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "iss": "provable.city/demo", "aud": "lock-1", "sub": "reservation-1", "jti": str(number), "act": "entry", "lot": "lot",
        "bay": "bay-1", "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 900, **changes,
    }  # fmt: skip


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jws(
    body: Any, signer: Es256Signer = PARKING, encode: Callable[[Any], bytes] = canonical.encode, **header: Any
) -> str:
    head = canonical.encode({"alg": "ES256", "kid": KID, "typ": "city-access+jwt", **header})
    signed = f"{text(head)}.{text(encode(body))}"
    return f"{signed}.{text(signer.sign(signed.encode()))}"


def test_it_opens_once_and_says_so_in_signed_packages(tmp_path: Path) -> None:
    barrier = lock(tmp_path)
    assert barrier.decide(jws(claims()), NOW) == Opened(1, "entry")
    assert barrier.decide(jws(claims()), NOW) == Refused("replayed")
    assert barrier.decide(jws(claims(2, act="exit")), NOW + 5) == Opened(2, "exit")
    first, second = map(parse_package, barrier.waiting())
    assert (first.measure, first.readings, first.previous) == (ENTRY, (Reading(NOW, 1),), NO_PREVIOUS)
    assert (second.measure, second.readings, second.previous) == (EXIT, (Reading(NOW + 5, 2),), first.hash)
    barrier.sent(1)
    assert len(barrier.waiting()) == 1


def tampered(document: str) -> str:
    head, body, signature = document.split(".")
    changed = canonical.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))) | {"jti": "9"}
    return f"{head}.{text(canonical.encode(changed))}.{signature}"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (jws(claims(), STRANGER), "bad-signature"),
        (tampered(jws(claims())), "bad-signature"),
        (jws(claims()).rpartition(".")[0] + "." + text(bytes(60)), "bad-signature"),
        (jws(claims(), kid="feedfeedfeedfeed"), "unknown-key"),
        (jws(claims(aud="lock-2")), "foreign-lock"),
        (jws(claims(nbf=NOW + 1)), "not-yet"),
        (jws(claims(exp=NOW - 1)), "expired"),
        (jws(claims(act="open")), "wrong-act"),
        (jws(claims(), alg="none"), "malformed"),
        (jws(claims(), typ="at+jwt"), "malformed"),
        (jws(claims(), more=1), "malformed"),
        (jws(claims(), kid=1), "malformed"),
        (jws(claims(jti=1)), "malformed"),
        (jws(claims(jti="one")), "malformed"),
        (jws(claims(nbf="now")), "malformed"),
        (jws({"aud": "lock-1"}), "malformed"),
        (jws([1]), "malformed"),
        (jws(claims(), encode=lambda body: json.dumps(body).encode()), "malformed"),
        ("", "malformed"),
        ("a.b", "malformed"),
        (jws(claims()) + "=", "malformed"),
        ("x" * 5_000, "malformed"),
    ],
)  # fmt: skip
def test_what_it_refuses(tmp_path: Path, document: str, reason: str) -> None:
    barrier = lock(tmp_path)
    assert barrier.decide(document, NOW) == Refused(reason)
    assert reason in REASONS
    assert barrier.waiting() == []


def test_its_own_clock_decides(tmp_path: Path) -> None:
    assert lock(tmp_path, offset_s=-120).decide(jws(claims()), NOW) == Refused("not-yet")
    assert lock(tmp_path, offset_s=-30).decide(jws(claims()), NOW).opens
    assert lock(tmp_path, offset_s=2_000).decide(jws(claims(2)), NOW) == Refused("expired")


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    before = lock(tmp_path)
    before.decide(jws(claims()), NOW)
    after = lock(tmp_path)
    assert after.decide(jws(claims()), NOW) == Refused("replayed")
    assert after.waiting() == before.waiting()
    assert after.decide(jws(claims(2)), NOW).opens
    assert parse_package(after.waiting()[1]).sequence == 2


def test_numbers_are_kept_longer_than_their_documents_are_good(tmp_path: Path) -> None:
    barrier = lock(tmp_path)
    barrier.decide(jws(claims()), NOW)
    later = NOW + 900 + 86_401
    barrier.decide(jws(claims(2, exp=later)), later)
    assert json.loads((tmp_path / "lock.json").read_text())["used"].keys() == {"2"}
    assert barrier.decide(jws(claims()), later) == Refused("expired")


def test_a_new_key_list(tmp_path: Path) -> None:
    barrier = lock(tmp_path)
    document = jws(claims(), STRANGER, kid="feedfeedfeedfeed")
    barrier.learn({"feedfeedfeedfeed": STRANGER.public_key})
    assert barrier.decide(document, NOW).opens
    assert barrier.decide(jws(claims(2)), NOW) == Refused("unknown-key")


class Instructions:
    """A chain of instructions to a lock."""

    def __init__(self, target: str = "lock-1", signer: Es256Signer = PARKING) -> None:
        self.target, self.signer = target, signer
        self.sequence, self.previous = 0, NO_PREVIOUS

    def next(self, number: int, time: int = NOW, measure: Any = UNLOCK) -> bytes:
        self.sequence += 1
        raw = sign_package(
            self.signer, f"parking-{self.target}", self.sequence, self.previous, [Reading(time, number)], measure
        )
        self.previous = package_hash(raw)
        return raw


def test_it_obeys_instructions_in_their_order(tmp_path: Path) -> None:
    barrier, chain = lock(tmp_path), Instructions()
    first, second = chain.next(1), chain.next(2)
    assert barrier.obey(second, NOW, "entry") == Refused("broken-chain")
    assert barrier.obey(first, NOW, "entry") == Opened(1, "entry")
    assert barrier.obey(first, NOW, "entry") == Refused("replayed")
    assert lock(tmp_path).last_instruction == 1
    assert barrier.obey(second, NOW + 30, "exit") == Opened(2, "exit")
    assert barrier.obey(chain.next(2), NOW, "exit") == Refused("replayed")
    assert barrier.decide(jws(claims(1)), NOW) == Refused("replayed")


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        (Instructions("lock-2").next(1), "foreign-lock"),
        (Instructions().next(1, measure=ENTRY), "foreign-lock"),
        (Instructions(signer=STRANGER).next(1), "bad-signature"),
        (Instructions().next(1, NOW - 121), "expired"),
        (Instructions().next(1, NOW + 61), "expired"),
        (b"open!", "malformed"),
    ],
)
def test_instructions_it_refuses(tmp_path: Path, instruction: bytes, reason: str) -> None:
    assert lock(tmp_path).obey(instruction, NOW, "entry") == Refused(reason)


def test_a_chain_of_another_parking_is_refused(tmp_path: Path) -> None:
    barrier, chain, other = lock(tmp_path), Instructions(), Instructions()
    barrier.obey(chain.next(1), NOW, "entry")
    other.next(7)
    assert barrier.obey(other.next(8), NOW, "entry") == Refused("broken-chain")


def test_its_memory_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.lock.QUEUE_MAX", 1)
    barrier = lock(tmp_path)
    barrier.decide(jws(claims()), NOW)
    assert barrier.decide(jws(claims(2)), NOW) == Refused("memory-full")
