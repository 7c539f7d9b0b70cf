"""`city rollout ...`: looks at the rollout of a city in a cluster and steers it, with the user's own kubeconfig."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from citykit.errors import Conflict, FailedPrecondition, NotFound

if TYPE_CHECKING:
    from operators.city.kube import KubeApi, Object

ACTIONS: Mapping[str, str] = {
    "status": "where it stands and why it waits",
    "pause": "go no further until resumed",
    "resume": "go on",
    "promote": "skip what is left of the step in hand",
    "abort": "stop and roll back",
    "retry": "begin again what was rolled back or failed",
    "approve": "approve it in your own name",
    "history": "what was rolled out before",
}
_PREFIX = "provable.city/"
_TRIES = 5


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("rollout", help="look at and steer the rollout of a city in a cluster")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in ACTIONS.items():
        one = actions.add_parser(name, help=text)
        one.add_argument("--namespace", default="", metavar="NS", help="default: the kubeconfig's")
        one.add_argument("--json", action="store_true", help="one JSON document")
        one.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints what it found or did.

    Raises:
        EnvironmentFault, Unavailable: no cluster. PermissionDenied: your role may not. NotFound, FailedPrecondition: nothing to steer.
    """
    from operators.city.kube import connected  # noqa: PLC0415 - no other command needs its libraries

    async def act() -> dict[str, Any]:
        async with connected(arguments.namespace) as api:
            return await acted(api, arguments.action)

    found = asyncio.run(act())
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(lines(arguments.action, found)))
    return 0


async def acted(api: KubeApi, action: str) -> dict[str, Any]:
    """What the action found or did, for `lines` or JSON."""
    city = await _city(api)
    status = city.get("status") or {}
    if action == "history":
        return {"history": status.get("history") or []}
    if action == "status":
        return {
            "name": city["metadata"]["name"],
            "namespace": api.namespace,
            "version": city["spec"].get("version"),
            **status,
        }
    change: Callable[[Object], Awaitable[tuple[str, str | None, str]]] = _changes(api)[action]
    for attempt in range(_TRIES):
        annotation, value, said = await change(city)
        try:
            await _annotate(api, city, annotation, value)
        except Conflict:
            if attempt == _TRIES - 1:
                raise
            city = await _city(api)
        else:
            break
    return {"did": said}


def _changes(api: KubeApi) -> dict[str, Callable[[Object], Awaitable[tuple[str, str | None, str]]]]:
    return {
        "pause": _pause,
        "resume": _resume,
        "promote": _promote,
        "abort": _abort,
        "retry": _retry,
        "approve": _approval(api),
    }


async def _pause(city: Object) -> tuple[str, str | None, str]:
    return f"{_PREFIX}paused", under_way(city) or "true", "paused; `city rollout resume` goes on"


async def _resume(city: Object) -> tuple[str, str | None, str]:
    if city["spec"].get("paused"):
        raise FailedPrecondition(
            "the City itself says spec.paused; set it to false where it is defined (helm's values)"
        )
    return f"{_PREFIX}paused", None, "resumed"


async def _promote(city: Object) -> tuple[str, str | None, str]:
    """The service in hand is named, so that the next may be promoted by the same command."""
    rollout = _required(city, "promote")
    service = str(((city.get("status") or {}).get("rollout") or {}).get("service") or "")
    value = f"{rollout}/{service}" if service else rollout
    return f"{_PREFIX}promote", value, f"asked to promote {service or 'the first service'} in the rollout {rollout}"


async def _abort(city: Object) -> tuple[str, str | None, str]:
    rollout = _required(city, "abort")
    return f"{_PREFIX}abort", rollout, f"asked to abort the rollout {rollout}"


def _required(city: Object, action: str) -> str:
    if rollout := under_way(city):
        return rollout
    raise FailedPrecondition(f"nothing to {action}: no rollout is under way; `city rollout status` says what is")


async def _retry(city: Object) -> tuple[str, str | None, str]:
    refused = str((city.get("status") or {}).get("refused") or "")
    if not refused:
        raise FailedPrecondition(
            "nothing to retry: the last rollout neither failed nor went back; `city rollout history` lists them"
        )
    return f"{_PREFIX}retry", refused, f"asked to begin again what was tried as {refused}"


def _approval(api: KubeApi) -> Callable[[Object], Awaitable[tuple[str, str | None, str]]]:
    async def change(city: Object) -> tuple[str, str | None, str]:
        from operators.city.approvals import APPROVALS, with_approval  # noqa: PLC0415 - as in `run`

        rollout = _required(city, "approve")
        answer = await api.review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", {})
        user = str((answer.get("userInfo") or {}).get("username") or "")
        before = (city["metadata"].get("annotations") or {}).get(APPROVALS, "")
        return APPROVALS, with_approval(before, rollout, user), f"{user} approved the rollout {rollout}"

    return change


def under_way(city: Object) -> str:
    """Identity of the rollout that is under way or about to begin; empty: none."""
    status = city.get("status") or {}
    return str((status.get("rollout") or {}).get("id") or status.get("next") or "")


async def _city(api: KubeApi) -> Object:
    cities = sorted(await api.list("City"), key=lambda one: str(one["metadata"]["creationTimestamp"]))
    if not cities:
        raise NotFound(f"the namespace {api.namespace} holds no City; name another with --namespace")
    return cities[0]


async def _annotate(api: KubeApi, city: Object, annotation: str, value: str | None) -> None:
    metadata = {"resourceVersion": city["metadata"]["resourceVersion"], "annotations": {annotation: value}}
    await api.patch("City", city["metadata"]["name"], {"metadata": metadata})


def lines(action: str, found: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    if action == "status":
        return _status_lines(found)
    if action == "history":
        shown = [_past(one) for one in found["history"]]
        return shown or ["nothing was rolled out yet"]
    return [str(found["did"])]


def _status_lines(found: Mapping[str, Any]) -> list[str]:
    rollout = found.get("rollout") or {}
    head = f"{found['name']} in {found['namespace']}: {found.get('phase') or 'not looked at by an operator yet'}"
    told = [head, f"  {found['message']}"] if found.get("message") else [head]
    if rollout:
        told.append(f"  rollout {rollout.get('id')}, generation {rollout.get('generation')}")
    width = max([len(str(one.get("name"))) for one in found.get("services") or []] or [0])
    return told + [_service(one, width) for one in found.get("services") or []]


def _service(one: Mapping[str, Any], width: int) -> str:
    text = f"  {one.get('name', ''):{width}}  {one.get('version', ''):10}  {one.get('phase', '')}"
    return f"{text}: {one['message']}" if one.get("message") else text


def _past(one: Mapping[str, Any]) -> str:
    reason = f": {one['reason']}" if one.get("reason") else ""
    return f"{one.get('finished', '')}  {one.get('id', '')}  {one.get('from') or '-'} -> {one.get('to')}  {one.get('outcome')}{reason}"
