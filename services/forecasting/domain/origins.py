"""Rolling origins: from which columns a backtest forecasts, which earlier ones calibrate it, and when models are trained again."""

from __future__ import annotations

from dataclasses import dataclass

HISTORY_SEASONS = 4
TRAININGS_MAX = 12


class OriginsError(ValueError):
    """The series are too short for what was asked; the message says what would do."""


@dataclass(frozen=True, slots=True)
class Origins:
    """Columns at which forecasts begin, oldest first: first those that calibrate, then those that are scored."""

    calibration: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        return self.calibration + self.test


def rolling_origins(length: int, season: int, horizon: int, step: int, count: int, window: int, day: int) -> Origins:
    """The last test origin lies one horizon before the end, each earlier one `step` columns before; calibration goes on like that.

    Where the history does not hold `window` more steps, calibrating origins lie closer, down to a day apart: what they have in common is
    learnt from more of them.

    Args:
        length: columns of the panel.
        count: test origins.
        window: calibration origins wanted; fewer where less than four seasons would lie before them.
        day: columns of a day.

    Raises:
        OriginsError: a number below one, or less than four seasons before the first test origin.
    """
    if min(horizon, step, count, season) < 1:
        raise OriginsError("horizon, step, origins and season are at least 1")
    last, least = length - horizon, HISTORY_SEASONS * season
    first = last - step * (count - 1)
    if first < least:
        raise OriginsError(
            f"the series span {length} slots; {count} origins {step} apart with a horizon of {horizon} need"
            f" {least + horizon + step * (count - 1)}: {HISTORY_SEASONS} seasons before the first origin. Ask for fewer origins or give more history"
        )
    closer = calibration_step(first - least, step, window, day)
    earlier = [first - closer * back for back in range(window, 0, -1)]
    return Origins(tuple(at for at in earlier if at >= least), tuple(range(first, last + 1, step)))


def calibration_step(room: int, step: int, window: int, day: int) -> int:
    """`step`, or the whole days that put `window` origins into `room` columns, at least one day and at most `step`."""
    if room >= step * window:
        return step
    return min(step, max(day, room // window // day * day))


def known_before(origins: tuple[int, ...], number: int, horizon: int, window: int) -> list[int]:
    """Which of the origins before `number` have their whole truth by its time: the newest `window` of them."""
    return [earlier for earlier in range(number) if origins[earlier] + horizon <= origins[number]][-window:]


def training_interval(origins: tuple[int, ...], season: int, most: int = TRAININGS_MAX) -> int:
    """Columns after which models are trained again: a season, or more where that would be over `most` trainings."""
    return max(season, -(-(origins[-1] - origins[0]) // most))
