"""The kinds of series, by the first part of their names: which models they are worth, who may see them."""

from __future__ import annotations

from dataclasses import dataclass

HORIZON = 48
"""Slots of half an hour that trained models forecast: a day."""
HORIZON_MAX = 336


@dataclass(frozen=True, slots=True)
class Group:
    """Series `<name>/...`.

    Attributes:
        backends: models that are trained and combined; Prophet only where series are few and public.
        seen_by: services that may ask; empty: any.
        data_log: where the observations are proven.
    """

    name: str
    backends: tuple[str, ...]
    seen_by: tuple[str, ...]
    data_log: str


_SIMPLE = ("naive", "smoothing", "profile")
GROUPS = {
    group.name: group
    for group in (
        Group("parking", (*_SIMPLE, "lightgbm", "prophet"), (), "parking.states"),
        Group("metering", (*_SIMPLE, "lightgbm"), ("metering",), "metering.readings"),
        Group("city", (*_SIMPLE, "lightgbm", "prophet"), (), ""),
    )
}


def group_of(series: str) -> Group | None:
    """The group of `parking/<lot>`; None for a name of no group."""
    return GROUPS.get(series.partition("/")[0]) if "/" in series else None


def may_see(group: Group, subject: str) -> bool:
    """`subject` is `service:<name>` for services; people see what is not kept to some service."""
    return not group.seen_by or subject.removeprefix("service:") in group.seen_by
