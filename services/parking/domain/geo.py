"""Distances on foot."""

from __future__ import annotations

from math import asin, cos, radians, sin, sqrt

EARTH_M = 6_371_000
WALK_M_PER_MINUTE = 78
"""4.7 km/h."""
DETOUR_PERCENT = 130
"""Streets are not straight lines."""
_E7 = 10_000_000
_M_PER_DEGREE = 111_194
"""Of latitude: EARTH_M x pi / 180, rounded down."""


def distance_m(a: tuple[int, int], b: tuple[int, int]) -> int:
    """Great-circle distance of two (latitude, longitude) in ten-millionths of a degree (haversine)."""
    lat1, lat2 = radians(a[0] / _E7), radians(b[0] / _E7)
    half_lat, half_lon = (lat2 - lat1) / 2, radians(b[1] - a[1]) / _E7 / 2
    chord = sin(half_lat) ** 2 + cos(lat1) * cos(lat2) * sin(half_lon) ** 2
    return round(2 * EARTH_M * asin(sqrt(min(1.0, chord))))


def walk_minutes(metres: int) -> int:
    """Whole minutes on foot, rounded up."""
    return -(-metres * DETOUR_PERCENT // (100 * WALK_M_PER_MINUTE))


def reach_m(minutes: int) -> int:
    """How far one gets at most, as the crow flies, rounded up."""
    return minutes * 100 * WALK_M_PER_MINUTE // DETOUR_PERCENT + 1


def is_near(a: tuple[int, int], b: tuple[int, int], metres: int) -> bool:
    """A quick look at the latitudes that leaves out only what is farther away."""
    return abs(a[0] - b[0]) * _M_PER_DEGREE <= metres * _E7
