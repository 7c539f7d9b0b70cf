"""Parking's events on the bus, their commitments; what it consumes of identity and payments. Called by `app`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from city.parking.v1 import events_pb2 as pb
from citykit import canonical
from citykit.bus.events import cloud_event
from citykit.bus.port import Message
from citykit.clock import iso
from services.parking.domain.calibration import Bin
from services.parking.domain.price import Line
from services.parking.domain.reservation import Reservation

STATES_TOPIC = "city.parking.states.v1"
EVENTS_TOPIC = "city.parking.events.v1"
IDENTITY_TOPIC = "city.identity.events.v1"
PAYMENTS_TOPIC = "city.payments.events.v1"
STATES_LOG = "parking.states"
EVENTS_LOG = "parking.events"
RECEIPTS_LOG = "payments.events"
SOURCE = "parking"
PAYEE = "parking"
FLEET_GROUP, MONEY_GROUP = "parking-fleet", "parking-money"


def states_observed(
    device: str, sequence: int, lot: str, states: list[tuple[int, int]], capacity: int, committed: bytes, now: int
) -> Message:
    """One accepted package; its content is the package. Locks' packages bring no states."""
    event = pb.StatesObserved(
        device=device,
        sequence=sequence,
        lot=lot,
        times=[time for time, _ in states],
        occupied=[count for _, count in states],
        capacity=capacity,
    )
    return cloud_event(
        topic=STATES_TOPIC,
        key=lot,
        event=event,
        source=SOURCE,
        id=f"{device}-{sequence}",
        time=now,
        commitment=committed,
    )


def reservation_document(one: Reservation, change: str, lines: list[Line], now: int) -> bytes:
    """The canonical document city.reservation.v1 of a change (docs/PROOFS.md)."""
    return canonical.encode(
        {
            "format": "city.reservation.v1",
            "reservation": one.id,
            "version": one.version,
            "change": change,
            "state": one.state,
            "lot": one.lot,
            "bay": one.bay,
            "from_time": one.from_time,
            "to_time": one.to_time,
            "hold_until": one.hold_until,
            "quote_minor": one.quote_minor,
            "currency": one.currency,
            "tariff": {"id": one.tariff, "version": one.tariff_version},
            "permit_basis_points": one.permit_basis_points,
            "plate": one.plate,
            "entry_time": one.entry_time,
            "exit_time": one.exit_time,
            "access": asdict(one.access) if one.access else None,
            "lines": [asdict(line) for line in lines],
            "price_minor": one.price_minor,
            "time": iso(now),
        }
    )


def reservation_changed(one: Reservation, change: str, committed: bytes, now: int) -> Message:
    """A change, for the log parking.events."""
    event = pb.ReservationChanged(
        reservation=one.id,
        lot=one.lot,
        change=change,
        from_time=one.from_time,
        to_time=one.to_time,
        amount_minor=one.price_minor or 0,
        currency=one.currency,
    )
    return cloud_event(
        topic=EVENTS_TOPIC,
        key=one.id,
        event=event,
        source=SOURCE,
        id=f"{one.id}-{one.version}",
        time=now,
        commitment=committed,
    )


def lines_of(document: bytes) -> list[Line]:
    """The lines of a stored document, to add to them."""
    return [Line(**line) for line in canonical.decode(document)["lines"]]


def calibration_document(day: str, bins: Sequence[Bin], advices: int, brier_micro: int, now: int) -> bytes:
    """The canonical document city.calibration.v1: how well advice came true until the end of a day."""
    return canonical.encode(
        {
            "format": "city.calibration.v1",
            "day": day,
            "bins": [asdict(one) for one in bins],
            "advices": advices,
            "brier_micro": brier_micro,
            "time": iso(now),
        }
    )


def advice_calibrated(day: str, advices: int, committed: bytes, now: int) -> Message:
    """A day's calibration, for the log parking.events."""
    event = pb.AdviceCalibrated(day=day, answers=advices)
    return cloud_event(
        topic=EVENTS_TOPIC,
        key="calibration",
        event=event,
        source=SOURCE,
        id=f"calibration-{day}",
        time=now,
        commitment=committed,
    )
