"""Stands in for `python -m verifier` in the gateway's tests: same arguments, same form of answer, no proof."""

from __future__ import annotations

import json
import sys
import time

_LOG = (
    ("bundle-format", "city.bundle.v1, known kind"),
    ("trust", "1 endorser, 3 logs"),
    ("checkpoint-signature", "provable.city/demo/metering.readings, size 14,904"),
    ("anchor-endorsement", "1 of 1 endorsements by city"),
    ("anchor-block", "block 412, signed by the orderer"),
    ("anchor-matches", "the anchored root is the checkpoint's"),
    ("commitments", "31 packages, 1 bill"),
    ("inclusion", "31 entries under the root"),
)
_PACKAGES = (
    ("device-keys", "1 device, 1 key, registered on the ledger"),
    ("signatures", "31 signatures hold"),
)
STEPS = (
    *_LOG,
    *_PACKAGES,
    ("chain", "sequence 1 to 31, no gap"),
    ("senml", "1,488 readings in Wh"),
    ("tariff", "homes-2016 version 1, published on the ledger"),
    ("slots", "1,490 slots, 2 estimated"),
    ("lines", "4 lines, recomputed to the penny"),
    ("total", "GBP 47.13"),
    ("run-inclusion", "bill is in run-2016-10"),
)
SESSION_STEPS = (
    *_LOG,
    *_PACKAGES,
    ("reservation", "versions 1 to 5: held, confirming, confirmed, started, ended"),
    ("access", "2 access documents hold"),
    ("passages", "entry and exit are what lock-bull-ring signed"),
    ("price", "GBP 6.30 by bays-2016 version 1"),
    ("receipts", "captured GBP 6.30, nothing refunded"),
)
_STEPS = {
    "bill": STEPS,
    "parking-session": SESSION_STEPS,
    "statement": (*_LOG, ("statement", "4 postings, each balance follows")),
    "event": _LOG,
}


def main() -> int:
    bundle = json.loads(open("bundle.json", encoding="utf-8").read())  # noqa: SIM115 - ends with the process
    if bundle.get("fake") == "hang":
        time.sleep(3_600)
    if bundle.get("fake") == "garbage":
        print("not json")
        return 0
    broken = bundle.get("fake") == "broken"
    steps = [
        {"step": step, "ok": not (broken and step == "signatures"), "detail": detail}
        for step, detail in _STEPS[bundle["kind"]]
    ]
    print(json.dumps({"bundles": [{"file": sys.argv[1], "ok": not broken, "steps": steps}], "ok": not broken}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
