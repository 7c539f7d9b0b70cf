"""Payments' events on the bus and their commitments; what it consumes of identity. Called by `app`."""

from __future__ import annotations

from dataclasses import replace

from city.payments.v1 import events_pb2 as pb
from citykit.bus.events import cloud_event
from citykit.bus.port import Message
from services.payments.domain.payment import Change, Payment

TRANSFERS_TOPIC = "city.payments.transfers.v1"
EVENTS_TOPIC = "city.payments.events.v1"
IDENTITY_TOPIC = "city.identity.events.v1"
TRANSFERS_LOG = "payments.transfers"
EVENTS_LOG = "payments.events"
SOURCE = "payments"


def transfers_posted(
    number: int, request: str, transfers: int, root: bytes, committed: bytes, now: int, trace: str
) -> Message:
    """One set of transfers; its content is the root of its postings.

    Args:
        trace: W3C traceparent of the request: it is made in the store's thread, which has no current span.
    """
    event = pb.TransfersPosted(request=request, transfers=transfers, root=root)
    message = cloud_event(
        topic=TRANSFERS_TOPIC,
        key=request,
        event=event,
        source=SOURCE,
        id=f"set-{number}",
        time=now,
        commitment=committed,
    )
    return replace(message, headers={**message.headers, "traceparent": trace.encode()}) if trace else message


def payment_changed(payment: Payment, change: Change, committed: bytes, now: int) -> Message:
    """One version of a receipt; its content is the document."""
    event = pb.PaymentChanged(
        payment=payment.id,
        payee=payment.payee,
        reference=payment.reference,
        change=change.change,
        amount_minor=change.amount_minor,
        currency=payment.currency,
    )
    return cloud_event(
        topic=EVENTS_TOPIC,
        key=payment.id,
        event=event,
        source=SOURCE,
        id=f"{payment.id}-{payment.version}",
        time=now,
        commitment=committed,
    )
