"""Rules of logs: their names, the tlog-tiles paths, which head may follow which. Pure."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 256
_GROUP = 1_000
_LEVELS = 6


class PathError(ValueError):
    """A path is none of C2SP tlog-tiles."""


@dataclass(frozen=True, slots=True)
class TilePath:
    """A tile as its path names it.

    Attributes:
        level: of a hash tile; None for a bundle of entries.
        width: 256, or less for a partial tile.
    """

    level: int | None
    number: int
    width: int


def origin_of(city: str, log: str) -> str:
    """`provable.city/demo` and `metering.readings` -> `provable.city/demo/metering.readings`."""
    return f"{city}/{log}"


def parse_tile_path(path: str) -> TilePath:
    """Reads `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]` (C2SP tlog-tiles, "Merkle Tree" and "Log entries").

    N is written in groups of three digits, all but the last with an `x` before: 1234067 is `x001/x234/067`.

    Raises:
        PathError: anything else.
    """
    head, _, rest = path.partition("/")
    level, _, rest = rest.partition("/")
    if head != "tile" or not (level == "entries" or (level.isascii() and level.isdigit() and str(int(level)) == level)):
        raise PathError("a tile's path is tile/<level>/<number> or tile/entries/<number>")
    number, partial, width = rest.partition(".p/")
    found = TilePath(
        None if level == "entries" else int(level), _parse_number(number), _parse_width(width) if partial else WIDTH
    )
    if found.level is not None and found.level >= _LEVELS:
        raise PathError(f"levels lie between 0 and {_LEVELS - 1}")
    return found


def tile_number(number: int) -> str:
    """The path form of a tile's number."""
    groups = [f"{number % _GROUP:03d}"]
    while number >= _GROUP:
        number //= _GROUP
        groups.append(f"x{number % _GROUP:03d}")
    return "/".join(reversed(groups))


def tile_exists(path: TilePath, size: int) -> bool:
    """True if a log of `size` entries has this tile in this width."""
    hashes = size >> (8 * (path.level or 0))
    return path.number * WIDTH + path.width <= hashes


def _parse_number(text: str) -> int:
    groups = text.split("/")
    digits = [group.removeprefix("x") for group in groups]
    if any(len(group) != len("000") or not (group.isascii() and group.isdigit()) for group in digits):
        raise PathError("a tile's number is written in groups of three digits")
    number = int("".join(digits))
    if tile_number(number) != text:
        raise PathError(f"tile {number} is written {tile_number(number)}")
    return number


def _parse_width(text: str) -> int:
    width = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= width < WIDTH or str(width) != text:
        raise PathError(f"a partial tile has 1 to {WIDTH - 1} entries")
    return width
