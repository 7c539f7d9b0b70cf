"""A place on earth as parameters: ten-millionths of a degree, or decimal degrees as text, converted exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query

from citykit.errors import InvalidArgument

E7 = 10_000_000
_LATITUDE_MAX = 90 * E7
_LONGITUDE_MAX = 180 * E7
_DEGREES = r"^-?[0-9]{1,3}(\.[0-9]{1,7})?$"
_WORDS = "Decimal degrees with at most seven digits after the point, WGS 84."


@dataclass(frozen=True)
class Place:
    """WGS 84, ten-millionths of a degree."""

    latitude_e7: int
    longitude_e7: int


def _place(
    latitude_e7: Annotated[int | None, Query(ge=-_LATITUDE_MAX, le=_LATITUDE_MAX, examples=[524_795_000])] = None,
    longitude_e7: Annotated[int | None, Query(ge=-_LONGITUDE_MAX, le=_LONGITUDE_MAX, examples=[-19_026_000])] = None,
    lat: Annotated[str | None, Query(pattern=_DEGREES, description=_WORDS, examples=["52.4795"])] = None,
    lon: Annotated[str | None, Query(pattern=_DEGREES, description=_WORDS, examples=["-1.9026"])] = None,
) -> Place:
    return Place(_one("lat", lat, latitude_e7, _LATITUDE_MAX), _one("lon", lon, longitude_e7, _LONGITUDE_MAX))


def _one(name: str, degrees: str | None, e7: int | None, largest: int) -> int:
    found = e7_of(degrees) if degrees is not None else e7
    if found is None or abs(found) > largest:
        long = {"lat": "latitude_e7", "lon": "longitude_e7"}[name]
        raise InvalidArgument(f"send {name} in decimal degrees, up to {largest // E7}, or {long}", field=name)
    return found


def e7_of(degrees: str) -> int:
    """`-1.9026` is -19026000: no float on the way."""
    whole, _, part = degrees.lstrip("-").partition(".")
    size = int(whole) * E7 + int(part.ljust(7, "0"))
    return -size if degrees.startswith("-") else size


Where = Annotated[Place, Depends(_place)]
