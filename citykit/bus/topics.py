"""The topics of the city: data, so that every adapter and every service reads one list."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and the Merkle log its commitments go to.

    Attributes:
        owner: the one service that publishes.
        log: name of the log at the notary; empty if its messages carry no commitments.
    """

    name: str
    owner: str
    log: str = ""
    partitions: int = 4


TOPICS: tuple[Topic, ...] = (
    Topic("city.metering.readings.v1", "metering", "metering.readings"),
    Topic("city.metering.events.v1", "metering", "metering.events"),
    Topic("city.identity.events.v1", "identity", "identity.events"),
    Topic("city.parking.states.v1", "parking", "parking.states"),
    Topic("city.parking.events.v1", "parking", "parking.events"),
    Topic("city.payments.transfers.v1", "payments", "payments.transfers"),
    Topic("city.payments.events.v1", "payments", "payments.events"),
    Topic("city.forecasting.events.v1", "forecasting", "forecasting.events"),
)

DEAD_LETTERS = ".dead-letters"
BY_NAME = {topic.name: topic for topic in TOPICS}
