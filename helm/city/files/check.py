"""`helm test`: asks every service whether it is ready, and the gateway for its page, until all have answered. Runs in the city's image.

    check.py SECONDS URL...

Exit code 1 names what did not answer, and why.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

_ANSWER_S = 5.0
_PAUSE_S = 1.0


def refusal(url: str) -> str:
    """Why the URL does not answer with 200; empty: it does."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:  # noqa: S310 - the chart's own addresses
            answer.read()
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read(1_000).decode(errors='replace').strip()}"
    except OSError as error:
        return str(getattr(error, "reason", error))
    return ""


def check(urls: Sequence[str], seconds: float) -> dict[str, str]:
    """What does not answer in time, with the reason."""
    end = time.monotonic() + seconds
    while True:
        refused = {url: why for url in urls if (why := refusal(url))}
        if not refused or time.monotonic() > end:
            return refused
        time.sleep(_PAUSE_S)


def main(arguments: Sequence[str]) -> int:
    refused = check(arguments[1:], float(arguments[0]))
    for url in arguments[1:]:
        print(f"{url}: {refused.get(url, 'answers')}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
