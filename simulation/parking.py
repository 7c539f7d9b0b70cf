"""The Birmingham car parks, cleaned for export. What is not a count of cars at a time is left out."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path


def clean_rows(source: Path) -> Iterator[tuple[str, str, int, int]]:
    """(lot, local clock reading, occupied, capacity), without negative, above-capacity and repeated rows."""
    seen: set[tuple[str, str]] = set()
    with source.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = (row["SystemCodeNumber"], row["LastUpdated"])
            occupied, capacity = int(row["Occupancy"]), int(row["Capacity"])
            if key in seen or not 0 <= occupied <= capacity:
                continue
            seen.add(key)
            yield key[0], key[1], occupied, capacity
