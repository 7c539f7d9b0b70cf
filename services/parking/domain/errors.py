"""What parking refuses. One tree; `app` translates it into the city's errors."""

from __future__ import annotations


class ParkingRefused(Exception):
    """Root of the tree. `field` is the request's field at fault."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class LotInvalid(ParkingRefused):
    """A lot that cannot be one."""

    def __init__(self, field: str, allowed: str) -> None:
        super().__init__(f"{field}: {allowed}", field)


class TariffInvalid(ParkingRefused):
    """A tariff with a hole, an overlap or an impossible number."""


class SpanInvalid(ParkingRefused):
    """A span of time that cannot be reserved."""


class WrongState(ParkingRefused):
    """The reservation's state does not allow it."""


class AmountInvalid(ParkingRefused):
    """An amount that is none, or too large."""
