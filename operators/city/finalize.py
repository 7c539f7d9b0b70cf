"""Letting go of a city. Called by `reconcile` when the City is being deleted, and by `city operator uninstall`.

Deleting the resource alone changes nothing that runs: a half-done canary is taken away, the rest goes on without an owner (that is how a city moves
to plain helm, and what a slip of the hand costs). Only a City that says `provable.city/uninstall` takes its services with it; volumes never go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from citykit.errors import CityError, Conflict, NotFound
from citykit.telemetry import logger
from operators.city.act import Actor
from operators.city.kube import CITY, Api, Object, annotations_of, labels_of, name_of
from operators.city.manifests import APPLIED, CANARY, CITY_PART, OPERATOR, PART_OF, SERVICE, TRACK, WORKLOADS

FINALIZER = "provable.city/city"
UNINSTALL = "provable.city/uninstall"
"""Annotation: take the services away too."""
GIVE_UP_S = 90.0
"""After so long the finalizer goes even if something could not be removed; what is left is told."""
_POLL_S = 1.0
_LISTED_MAX = 20


async def ensure_finalizer(api: Api, city: Object) -> bool:
    """True: it was missing and is there now; the city must be read again.

    Raises:
        Conflict: somebody changed the city meanwhile.
    """
    finalizers = list(city["metadata"].get("finalizers") or [])
    if FINALIZER in finalizers:
        return False
    await _set_finalizers(api, city, [*finalizers, FINALIZER])
    return True


async def let_go(api: Api, actor: Actor, city: Object, now: datetime) -> str:
    """Does what deletion asks, then takes the finalizer off. Returns what was done, a sentence.

    Raises:
        CityError: not done, and there is time left to try again.
    """
    said = "it no longer belongs to a City and runs on"
    try:
        if UNINSTALL in annotations_of(city):
            said = f"removed {', '.join(await remove_services(api, actor, city)) or 'nothing'}; volumes stay"
        else:
            await _remove_canaries(api, actor)
    except CityError as error:
        if (now - _deleted(city)).total_seconds() < GIVE_UP_S:
            raise
        said = f"gave up after {GIVE_UP_S:.0f} s ({error.message}); look for objects labelled {APPLIED}={OPERATOR}"
        logger("operator").error("finalizer-gave-up", extra={"fields": {"why": error.message}})
    kept = [one for one in city["metadata"].get("finalizers") or [] if one != FINALIZER]
    await _set_finalizers(api, city, kept)
    return said


async def remove_services(api: Api, actor: Actor, city: Object | None) -> list[str]:
    """Takes away every service, the last promoted first, and the data of all versions. Returns their names."""
    there = await applied_services(api)
    good = ((city or {}).get("status") or {}).get("lastGood") or {}
    order = [str(one.get("name")) for one in good.get("services") or []]
    names = sorted(there, key=lambda name: (-order.index(name) if name in order else 1, name))
    for name in names:
        await actor.remove(name)
    for one in await api.list("ConfigMap", {PART_OF: CITY_PART}):
        if labels_of(one).get("provable.city/version"):
            await api.delete("ConfigMap", name_of(one))
    for one in await api.list("Job", {APPLIED: OPERATOR}):
        await api.delete("Job", name_of(one))
    return names


async def applied_services(api: Api) -> set[str]:
    """Services of which the operator applied a workload or a Service that is still there."""
    found = [one for kind in (*WORKLOADS, "Service") for one in await api.list(kind, {APPLIED: OPERATOR})]
    return {labels_of(one)[SERVICE] for one in found if SERVICE in labels_of(one)}


async def _remove_canaries(api: Api, actor: Actor) -> None:
    canaries = await api.list("Deployment", {APPLIED: OPERATOR, TRACK: CANARY})
    for service in {labels_of(one).get(SERVICE, "") for one in canaries}:
        await actor.remove_canary(service)


async def uninstall(api: Api, wait_s: float, say: Callable[[str], None]) -> None:
    """Deletes every City of the namespace with its services and waits for the operator to do it; does it itself where none does.

    Args:
        wait_s: how long the operator has.
        say: told a line at a time.
    """
    for city in await _cities(api):
        await api.patch(CITY, name_of(city), {"metadata": {"annotations": {UNINSTALL: "remove"}}})
        await api.delete(CITY, name_of(city))
        say(f"deleting the City {name_of(city)}; the operator removes its services")
    end = time.monotonic() + wait_s
    while (left := await _cities(api)) and time.monotonic() < end:
        await asyncio.sleep(_POLL_S)
    for city in left:
        await _force(api, city, wait_s, say)
    removed = await remove_services(api, Actor(api), None)
    if removed:
        say(f"removed what the operator had left: {', '.join(removed)}")
    await _tell_what_is_left(api, say)


async def _force(api: Api, city: Object, wait_s: float, say: Callable[[str], None]) -> None:
    say(f"no operator answered within {wait_s:g} s: taking the finalizer off the City {name_of(city)}")
    kept = [one for one in city["metadata"].get("finalizers") or [] if one != FINALIZER]
    try:
        await api.patch(CITY, name_of(city), {"metadata": {"finalizers": kept or None}})
    except (NotFound, Conflict):
        say(f"the City {name_of(city)} went meanwhile")


async def _tell_what_is_left(api: Api, say: Callable[[str], None]) -> None:
    volumes = [name_of(one) for one in await api.list("PersistentVolumeClaim")]
    more = f" and {len(volumes) - _LISTED_MAX} more" if len(volumes) > _LISTED_MAX else ""
    say(f"left are the volumes: {', '.join(volumes[:_LISTED_MAX]) or 'none'}{more}")
    say("left is the custom resource definition cities.provable.city (`helm uninstall` of city-crds removes it)")


async def _cities(api: Api) -> list[Object]:
    try:
        return await api.list(CITY)
    except NotFound:
        return []  # no such kind any more


async def _set_finalizers(api: Api, city: Object, finalizers: list[str]) -> None:
    metadata = {"resourceVersion": city["metadata"]["resourceVersion"], "finalizers": finalizers or None}
    await api.patch(CITY, name_of(city), {"metadata": metadata})


def _deleted(city: Object) -> datetime:
    stamp = str(city["metadata"]["deletionTimestamp"])
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).astimezone(UTC)
