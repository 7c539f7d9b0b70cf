"""An executable example of docs/PROOFS.md: makes parking sessions' bundles from a seed.

A `Story` is told change by change; `bundle_of` signs whatever it holds, so that a test can also sign lies as a cheating city could.
Written from the specification alone: it shares code neither with the servers nor with the verifier. Used by the verifier's tests.
"""

from __future__ import annotations

import base64
import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from tests.unit.verifier.bundlebytes import (
    CITY,
    DeviceKey,
    b64,
    canonical,
    commit,
    es256,
    evidence,
    log_part,
    mixed,
    p256,
    package,
    point,
    secret,
    senml,
)

RESERVATION, LOT, BAY, ENTRY_LOCK, EXIT_LOCK = "res-7", "bhmbccmkt01", "b-012", "lock-mkt01-in", "lock-mkt01-out"
WEEK = [0, 1, 2, 3, 4, 5, 6]
TARIFF: dict[str, Any] = {
    "id": "bays-2016", "version": 2, "currency": "GBP", "zone": "Europe/London", "valid_from": "2016-10-01", "step_minutes": 30,
    "bands": [
        {"name": "day", "windows": [{"days": WEEK, "from_minute": 420, "to_minute": 1_320}], "price_minor_per_step": 60},
        {"name": "night", "windows": [
            {"days": WEEK, "from_minute": 0, "to_minute": 420}, {"days": WEEK, "from_minute": 1_320, "to_minute": 1_440},
        ], "price_minor_per_step": 25},
    ],
    "cap_minor_per_day": 900, "overstay_minor_per_step": 150, "overstay_steps_max": 8, "no_show_minor": 200, "cancel_minor": 100,
    "cancel_free_minutes": 60, "grace_minutes": 10, "hold_minutes": 10, "vat_basis_points": 2_000,
}  # fmt: skip
HOUR = 3_600


def at(text: str) -> int:
    """Unix seconds of `2016-10-29 09:00` in UTC."""
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp())


def utc(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- the price, as the page says it -------------------------------------------------------------------


def line(kind: str, amount: int, date: str = "", band: str = "", steps: int = 0) -> dict[str, Any]:
    return {"kind": kind, "date": date, "band": band, "steps": steps, "amount_minor": amount}


def band_at(tariff: dict[str, Any], local: datetime) -> int:
    minute = local.hour * 60 + local.minute
    return next(
        number
        for number, band in enumerate(tariff["bands"])
        for window in band["windows"]
        if local.weekday() in window["days"] and window["from_minute"] <= minute < window["to_minute"]
    )


def quote(tariff: dict[str, Any], from_time: int, to_time: int, permit: int = 10_000) -> list[dict[str, Any]]:
    starts = range(from_time, to_time, 60 * tariff["step_minutes"])
    locals_ = [datetime.fromtimestamp(start, ZoneInfo(tariff["zone"])) for start in starts]
    places = [(local.date().isoformat(), band_at(tariff, local)) for local in locals_]
    lines = []
    for day, number in sorted(set(places)):
        band, steps = tariff["bands"][number], places.count((day, number))
        lines.append(line("stay", steps * band["price_minor_per_step"], day, band["name"], steps))
    for day in sorted({day for day, _ in places}):
        over = amount_of([item for item in lines if item["date"] == day]) - tariff["cap_minor_per_day"]
        if tariff["cap_minor_per_day"] and over > 0:
            lines.append(line("cap", -over, day))
    before = amount_of(lines)
    if permit < 10_000 and (less := (2 * before * permit + 10_000) // 20_000 - before):
        lines.append(line("permit", less))
    return lines


def overstay(tariff: dict[str, Any], to_time: int, exit_time: int) -> list[dict[str, Any]]:
    steps, end = 0, to_time + 60 * tariff["grace_minutes"]
    while end < exit_time and steps < tariff["overstay_steps_max"]:
        steps, end = steps + 1, end + 60 * tariff["step_minutes"]
    return [line("overstay", steps * tariff["overstay_minor_per_step"], steps=steps)] if steps else []


def amount_of(lines: list[dict[str, Any]]) -> int:
    return sum(item["amount_minor"] for item in lines)


# --- what happens, change by change -------------------------------------------------------------------


@dataclass
class Opening:
    """A lock's package: what it measures and its records of (time, number of the access document)."""

    device: str
    sequence: int
    measure: str
    records: list[tuple[int, int]]


@dataclass
class Story:
    """A reservation's documents and everything around them, told by calling the changes in order; all of it can be changed by a test."""

    seed: int = 1
    tariff: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(TARIFF))
    from_time: int = at("2016-10-26 09:00")
    to_time: int = at("2016-10-26 12:00")
    permit: int = 10_000
    algorithm: str = "EdDSA"
    documents: list[dict[str, Any]] = field(default_factory=list)
    receipts: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    kids: list[str] = field(default_factory=lambda: ["parking-1"])

    @property
    def last(self) -> dict[str, Any]:
        return self.documents[-1]

    def held(self, time: int) -> Story:
        lines = quote(self.tariff, self.from_time, self.to_time, self.permit)
        self.documents.append({
            "format": "city.reservation.v1", "reservation": RESERVATION, "version": 1, "change": "held", "state": "held", "lot": LOT,
            "bay": BAY, "from_time": self.from_time, "to_time": self.to_time, "hold_until": time + 600, "quote_minor": amount_of(lines),
            "currency": self.tariff["currency"], "tariff": {"id": self.tariff["id"], "version": self.tariff["version"]},
            "permit_basis_points": self.permit, "plate": "5f" * 16, "entry_time": 0, "exit_time": 0, "access": None, "lines": lines,
            "price_minor": None, "time": utc(time),
        })  # fmt: skip
        return self

    def change(self, change: str, time: int, **changes: Any) -> Story:
        """The next version: as the last one but for what is given."""
        fixed = {"version": self.last["version"] + 1, "change": change, "time": utc(time)}
        self.documents.append(copy.deepcopy(self.last) | fixed | copy.deepcopy(changes))
        return self

    def over(self, change: str, time: int, lines: list[dict[str, Any]], **changes: Any) -> Story:
        return self.change(change, time, lines=lines, price_minor=amount_of(lines), **changes)

    def confirmed(self, time: int) -> Story:
        self.change("confirming", time, state="confirming", hold_until=time + 1_800)
        return self.change("confirmed", time + 2, state="confirmed")

    def extended(self, time: int, to_time: int) -> Story:
        lines = quote(self.tariff, self.from_time, to_time, self.permit)
        return self.change("extended", time, to_time=to_time, lines=lines, quote_minor=amount_of(lines))

    def opened(self, act: str, time: int, number: int, device: str) -> dict[str, Any]:
        """The access document, the lock's package, and what the reservation says of both."""
        self.claims.append({
            "iss": CITY, "aud": device, "sub": RESERVATION, "jti": str(number), "act": act, "lot": LOT, "bay": BAY,
            "iat": time - 120, "nbf": time - 120, "exp": time + HOUR,
        })  # fmt: skip
        self.openings.append(Opening(device, 40 + number, act, [(time, number)]))
        return {"number": number, "device": device, "sequence": 40 + number}

    def started(self, time: int, number: int = 7, device: str = ENTRY_LOCK) -> Story:
        access = self.opened("entry", time, number, device)
        return self.change("started", time + 5, state="active", entry_time=time, access=access)

    def ended(self, time: int, number: int = 8, device: str = EXIT_LOCK) -> Story:
        access, left = self.opened("exit", time, number, device), max(time, self.last["entry_time"])
        lines = self.last["lines"] + overstay(self.tariff, self.last["to_time"], left)
        return self.over("ended", left + 5, lines, state="ended", exit_time=left, access=access)

    def cancelled(self, time: int) -> Story:
        free = self.last["state"] == "held" or time <= self.from_time - 60 * self.tariff["cancel_free_minutes"]
        fee = min(self.tariff["cancel_minor"], self.last["quote_minor"])
        return self.over("cancelled", time, [] if free else [line("cancelled", fee)], state="cancelled")

    def not_come(self, time: int) -> Story:
        fee = min(self.tariff["no_show_minor"], self.last["quote_minor"])
        return self.over("no-show", time, [line("no-show", fee)], state="no-show")

    def refunded(self, time: int, amount: int) -> Story:
        return self.over("refunded", time, [*self.last["lines"], line("refund", -amount)])

    def paid(self, time: int, *changes: tuple[str, int], number: int = 0) -> Story:
        """A receipt with these changes, an hour apart."""
        self.receipts.append(receipt(f"reservation/{RESERVATION}" + (f"/{number}" if number else ""), time, *changes))
        return self


def receipt(reference: str, time: int, *changes: tuple[str, int], payee: str = "parking") -> dict[str, Any]:
    """The newest receipt of a payment."""
    states = [change for change, _ in changes if change != "refunded"]
    sums = {
        f"{name}_minor": sum(amount for change, amount in changes if change == name)
        for name in ("authorised", "captured", "refunded")
    }
    return {
        "format": "city.receipt.v1", "payment": f"pay-{sha256(reference.encode()).hexdigest()[:8]}", "version": len(changes), "payee": payee,
        "reference": reference, "state": states[-1], "currency": "GBP", **sums,
        "changes": [
            {"change": change, "amount_minor": amount, "time": utc(time + HOUR * number), "reason": "" if change != "refunded" else "barrier-stuck"}
            for number, (change, amount) in enumerate(changes)
        ],
        "time": utc(time + HOUR * (len(changes) - 1)),
    }  # fmt: skip


# --- bundles ------------------------------------------------------------------------------------------


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jws(seed: int, kid: str, claims: dict[str, Any], **header: Any) -> str:
    """A compact JWS; `header` overrides."""
    parts = [canonical({"alg": "ES256", "kid": kid, "typ": "city-access+jwt"} | header), canonical(claims)]
    signed = ".".join(b64url(part) for part in parts)
    return f"{signed}.{b64url(es256(p256(seed, kid), signed.encode()))}"


def published_key(seed: int, kid: str) -> dict[str, Any]:
    args = {"kid": kid, "key": point(p256(seed, kid)).hex()}
    return {"kid": kid, "registered": evidence(seed, "parking-keys", "publish", "parking", args)}


def _key(story: Story, device: str) -> DeviceKey:
    return DeviceKey(story.seed, story.algorithm, device)


def _lock_packages(story: Story) -> list[dict[str, Any]]:
    items = []
    for one in sorted(story.openings, key=lambda one: (one.device, one.sequence)):
        pack = senml(one.records, one.device, one.measure, "Wh" if one.measure == "energy" else "count")
        previous = sha256(one.device.encode()).digest()
        data = package(_key(story, one.device), one.sequence, previous, pack)
        items.append({"package": data, "salt": secret(story.seed, f"salt {one.device} {one.sequence}")})
    return items


def _device(story: Story, name: str) -> dict[str, Any]:
    key = _key(story, name)
    told = {"key": key.public().hex(), "algorithm": key.algorithm, "from_sequence": 1}
    args = {"device": name, "voucher": "00" * 32, "from_time": "2016-10-01T00:00:00Z", **told}
    return {"id": name, "keys": [{**told, "registered": evidence(story.seed, "devices", "register", "identity", args)}]}


def opened_documents(seed: int, documents: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [
        {"document": document, "salt": secret(seed, f"salt {name} {number}").hex()}
        for number, document in enumerate(documents)
    ]


def logged(seed: int, log: str, items: list[dict[str, Any]], contents: list[bytes]) -> list[dict[str, Any]]:
    """Gives the items their places in a log; the log's part of the bundle, or nothing where there are no items."""
    salts = [item["salt"] if isinstance(item["salt"], bytes) else bytes.fromhex(item["salt"]) for item in items]
    commitments = [commit(salt, content) for salt, content in zip(salts, contents, strict=True)]
    entries, places = mixed(seed, commitments, log)
    for item, place in zip(items, places, strict=True):
        item["index"] = place
    return [log_part(seed, entries, places, f"{CITY}/{log}")] if items else []


def bundle_of(story: Story) -> dict[str, Any]:
    """Everything the story holds, signed, logged and anchored, whether true or not."""
    story = copy.deepcopy(story)
    packages = _lock_packages(story)
    documents = opened_documents(story.seed, story.documents, "reservation")
    receipts = opened_documents(story.seed, story.receipts, "receipt")
    logs = [
        *logged(story.seed, "parking.events", documents, [canonical(one["document"]) for one in documents]),
        *logged(story.seed, "parking.states", packages, [one["package"] for one in packages]),
        *logged(story.seed, "payments.events", receipts, [canonical(one["document"]) for one in receipts]),
    ]
    claims = sorted(story.claims, key=lambda one: int(one["jti"]))
    return {
        "format": "city.bundle.v1", "kind": "parking-session", "city": CITY, "earlier": None, "logs": logs,
        "packages": [{**one, "package": b64(one["package"]), "salt": one["salt"].hex()} for one in packages],
        "devices": [_device(story, name) for name in sorted({one.device for one in story.openings})], "reservation": documents, "receipts": receipts,
        "access": [jws(story.seed, story.kids[number % len(story.kids)], one) for number, one in enumerate(claims)],
        "keys": [published_key(story.seed, kid) for kid in sorted(story.kids[: len(claims)])],
        "tariff": evidence(story.seed, "parking-tariffs", "publish", "parking", {"tariff": story.tariff}),
    }  # fmt: skip


def receipt_bundle(document: dict[str, Any], seed: int = 1, log: str = "payments.events") -> dict[str, Any]:
    """Kind "event" around a receipt."""
    items = opened_documents(seed, [document], "receipt alone")
    part = logged(seed, log, items, [canonical(document)])[0]
    return {
        "format": "city.bundle.v1", "kind": "event", "city": CITY, "earlier": None, "event": document, "salt": items[0]["salt"],
        "index": items[0]["index"], "log": part,
    }  # fmt: skip


# --- whole stories ------------------------------------------------------------------------------------


def overstayed(seed: int = 1, algorithm: str = "EdDSA", kids: tuple[str, ...] = ("parking-1",)) -> Story:
    """09:00 to 12:00, extended to 13:00, left at 14:05: 8 day steps, 2 overstay steps after ten minutes of grace."""
    story = (
        Story(seed, algorithm=algorithm, kids=list(kids)).held(at("2016-10-25 18:00")).confirmed(at("2016-10-25 18:04"))
    )
    story.started(at("2016-10-26 09:03")).extended(at("2016-10-26 11:30"), at("2016-10-26 13:00")).ended(
        at("2016-10-26 14:05")
    )
    story.paid(at("2016-10-25 18:04"), ("authorised", 360), ("captured", 360))
    return story.paid(at("2016-10-26 11:30"), ("authorised", 600), ("captured", 420), number=2)


def over_the_clock_change() -> Story:
    """Two capped days with a permit of 40 %, over the night of 29 to 30 October 2016 in which the clocks go back."""
    story = Story(2, from_time=at("2016-10-29 06:00"), to_time=at("2016-10-30 22:00"), permit=4_000)
    story.held(at("2016-10-29 05:30")).confirmed(at("2016-10-29 05:31")).started(at("2016-10-29 06:10"))
    story.ended(at("2016-10-30 22:10"))
    return story.paid(at("2016-10-29 05:31"), ("authorised", 2_000), ("captured", 720))


def cancelled_free() -> Story:
    story = Story().held(at("2016-10-25 18:00")).confirmed(at("2016-10-25 18:04")).cancelled(at("2016-10-26 08:00"))
    return story.paid(at("2016-10-25 18:04"), ("authorised", 360), ("voided", 360))


def cancelled_late() -> Story:
    story = Story().held(at("2016-10-25 18:00")).confirmed(at("2016-10-25 18:04")).cancelled(at("2016-10-26 08:01"))
    return story.paid(at("2016-10-25 18:04"), ("authorised", 360), ("captured", 100))


def cancelled_held() -> Story:
    return Story().held(at("2016-10-26 08:50")).cancelled(at("2016-10-26 08:55"))


def not_come() -> Story:
    story = Story().held(at("2016-10-25 18:00")).confirmed(at("2016-10-25 18:04")).not_come(at("2016-10-26 12:01"))
    return story.paid(at("2016-10-25 18:04"), ("authorised", 360), ("captured", 200))


def expired() -> Story:
    return Story().held(at("2016-10-25 18:00")).over("expired", at("2016-10-25 18:10"), [], state="expired")


def declined() -> Story:
    story = Story().held(at("2016-10-25 18:00")).change("confirming", at("2016-10-25 18:04"), state="confirming")
    story.over("declined", at("2016-10-25 18:05"), [], state="declined")
    return story.paid(at("2016-10-25 18:05"), ("declined", 360))


def refunded() -> Story:
    """As overstayed, with 150 given back later."""
    story = overstayed().refunded(at("2016-10-28 10:00"), 150)
    story.receipts.pop()
    return story.paid(at("2016-10-26 11:30"), ("authorised", 600), ("captured", 420), ("refunded", 150), number=2)


def for_nothing() -> Story:
    """A permit that leaves nothing to pay: no payment; the exit lock's clock runs behind the entry lock's."""
    story = Story(permit=0).held(at("2016-10-25 18:00")).confirmed(at("2016-10-25 18:04"))
    return story.started(at("2016-10-26 09:03")).ended(at("2016-10-26 09:01"))


STORIES = {
    "overstayed": overstayed,
    "over the clock change": over_the_clock_change,
    "cancelled free": cancelled_free,
    "cancelled late": cancelled_late,
    "cancelled while held": cancelled_held,
    "not come": not_come,
    "expired": expired,
    "declined": declined,
    "refunded": refunded,
    "for nothing": for_nothing,
}
