"""What one run did, for `--summary`: counted from its start, Ctrl-C included."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from services.demo.books import Books
from simulation.uplink import Counts

_SAMPLE_S = 0.5
_MIB = 1024 * 1024


@dataclass
class Summary:
    """The counters; `document()` is the file's content.

    Attributes:
        payments: payments captured.
        forecast_mase: of the parking model in use, by its own backtest; None while there is no model.
        coverage80: share of counts inside the band of 80 % served before them, in this run; of the model's backtest where too few came;
            None without a model.
        backbone: what the city ran on.
    """

    backbone: str = ""
    packages: int = 0
    readings: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    bills: int = 0
    anchored_entries: int = 0
    proofs_checked: int = 0
    proofs_failed: int = 0
    peak_memory_mib: float = 0.0
    first_dashboard_s: float | None = None
    reservations: int = 0
    double_bookings: int = 0
    payments: int = 0
    forecast_mase: float | None = None
    coverage80: float | None = None

    def count(self, readings: Counts, before: Books, after: Books) -> None:
        """Takes over what this run did: the difference of the books. A double booking counts whenever it was made."""
        self.packages, self.readings = readings.packages, readings.readings
        self.rejected, self.quarantined = readings.rejected, readings.quarantined
        self.anchored_entries = after.anchored_entries - before.anchored_entries
        self.reservations = after.reservations - before.reservations
        self.double_bookings = after.double_bookings
        self.payments = after.payments - before.payments

    def document(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone,
            "packages": self.packages,
            "readings": self.readings,
            "rejected": dict(sorted(self.rejected.items())),
            "quarantined": self.quarantined,
            "bills": self.bills,
            "anchored_entries": self.anchored_entries,
            "proofs_checked": self.proofs_checked,
            "proofs_failed": self.proofs_failed,
            "peak_memory_mib": round(self.peak_memory_mib, 1),
            "first_dashboard_s": _rounded(self.first_dashboard_s, 2),
            "reservations": self.reservations,
            "double_bookings": self.double_bookings,
            "payments": self.payments,
            "forecast_mase": _rounded(self.forecast_mase, 4),
            "coverage80": _rounded(self.coverage80, 4),
        }

    def dashboard_seen(self) -> None:
        """Called at each 200 for `/`; the first counts, from the start of this process."""
        if self.first_dashboard_s is None:
            self.first_dashboard_s = time.time() - psutil.Process().create_time()


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def write_summary(summary: Summary, path: Path) -> None:
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(summary.document(), indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


@contextlib.asynccontextmanager
async def memory_watch(summary: Summary) -> AsyncIterator[None]:
    """Keeps the peak of the sum of resident memory over this process and its children, sampled twice a second."""

    async def watch() -> None:
        while True:
            summary.peak_memory_mib = max(summary.peak_memory_mib, tree_memory_mib())
            await asyncio.sleep(_SAMPLE_S)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def tree_memory_mib() -> float:
    """Resident memory of this process and its children now."""
    root = psutil.Process(os.getpid())
    total = 0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total / _MIB
