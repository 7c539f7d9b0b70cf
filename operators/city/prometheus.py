"""Questions to Prometheus and the conditions their answers are judged by. Called by `gates`.

https://prometheus.io/docs/prometheus/latest/querying/api/ (instant queries).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from operators.city.conditions import met
from operators.city.model import Verdict

ANSWER_S = 5.0
_SERIES_MAX = 1_000
_BAD_QUERY = (400, 422)


@dataclass(frozen=True)
class Answer:
    """What Prometheus said.

    Attributes:
        values: one for each series; empty: it knows nothing.
        wrong: why the query can never be answered, in Prometheus' words; empty: it can.
        silent: why there is no answer now; empty: there is one.
    """

    values: tuple[float, ...] = ()
    wrong: str = ""
    silent: str = ""


class Prometheus:
    """One server.

    Args:
        url: its root, `http://prometheus:9090`.
        client: closed by its owner.
    """

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url = url.rstrip("/")
        self._client = client

    async def ask(self, query: str) -> Answer:
        """An instant query. Never raises: no answer is an answer."""
        try:
            reply = await self._client.post(f"{self._url}/api/v1/query", data={"query": query}, timeout=ANSWER_S)
            body = reply.json()
        except httpx.HTTPError as error:
            return Answer(silent=f"Prometheus at {self._url} does not answer ({type(error).__name__})")
        except ValueError:
            return Answer(
                silent=f"Prometheus at {self._url} answered {reply.status_code} with something that is no JSON"
            )
        if not isinstance(body, dict):
            return Answer(silent=f"Prometheus at {self._url} answered {reply.status_code} with something unexpected")
        if reply.status_code in _BAD_QUERY and body.get("errorType") in ("bad_data", "execution"):
            return _refused(body)
        if body.get("status") != "success":
            return Answer(silent=f"Prometheus answered {reply.status_code}: {body.get('error', 'no reason given')}")
        return _values(body.get("data") or {})


def _refused(body: Mapping[str, Any]) -> Answer:
    """A query that is no PromQL stays one; one that could not be evaluated may do so later."""
    said = str(body.get("error", "no reason given"))
    return Answer(wrong=said) if body["errorType"] == "bad_data" else Answer(silent=f"Prometheus: {said}")


def _values(data: Mapping[str, Any]) -> Answer:
    kind, result = data.get("resultType"), data.get("result") or []
    if kind == "scalar":
        return Answer((float(result[1]),))
    if kind != "vector":
        return Answer(wrong=f"the query gives a {kind}; a gate needs a number or an instant vector")
    if len(result) > _SERIES_MAX:
        return Answer(wrong=f"the query gives {len(result)} series; {_SERIES_MAX} are the most: aggregate them")
    return Answer(tuple(float(series["value"][1]) for series in result))


def judged(answer: Answer, success: str, failure: str) -> tuple[Verdict, str]:
    """One sample: failed where any series fails, passed where every series succeeds, else unknown."""
    if answer.wrong:
        return Verdict.FAILED, f"the query is wrong: {answer.wrong}"
    if answer.silent:
        return Verdict.UNKNOWN, answer.silent
    shown = shown_values(answer.values)
    if not answer.values:
        return Verdict.UNKNOWN, "the query finds no series"
    if met(failure, answer.values, every=False):
        return Verdict.FAILED, f"{shown}, and `{failure}` is a failure"
    if met(success, answer.values, every=True):
        return Verdict.PASSED, shown
    return Verdict.UNKNOWN, f"{shown}, wanted is `{success or 'no success condition given'}`"


def shown_values(values: tuple[float, ...]) -> str:
    """`result 0.02`; of many the first few."""
    first = ", ".join(f"{value:g}" for value in values[:3])
    return f"result {first}" + (f" and {len(values) - 3} more" if len(values) > 3 else "")  # noqa: PLR2004 - as above
