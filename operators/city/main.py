"""The operator as a process: builds everything, runs until a signal, ends with one line where there is no cluster. Called by `city operator`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from citykit.errors import CityError, EnvironmentFault, NotFound, PermissionDenied, Unavailable
from citykit.network import TlsNetwork, read_addresses
from citykit.operations.health import SERVING
from citykit.operations.pulse import Pulse
from citykit.settings import CitySettings
from citykit.telemetry import logger
from operators.city.act import Actor
from operators.city.admission import Admission, Renewing, serving
from operators.city.asking import Services
from operators.city.events import Events
from operators.city.gates import Gates
from operators.city.handlers import Waker, watching
from operators.city.kube import CITY, KubeApi, open_api
from operators.city.lease import Lease, own_identity
from operators.city.metrics import LEADING, observed
from operators.city.observe import Observer
from operators.city.reconcile import Reconciler

TRIES, EVERY_S = 10, 2.0
"""At the start, until the API server answers."""
DEAD_S = 120.0
"""An operator that has had no answer for so long ends; the kubelet starts it anew."""
_LOOK_S = 5.0


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        namespace: empty: the pod's or the kubeconfig's.
        identity: empty: `lease.own_identity`.
        certificates: folder of the webhook's `tls.crt` and `tls.key`; none there: no webhook.
        token: file with the token to ask services with.
        webhook_port: 0: no webhook.
    """

    namespace: str
    identity: str
    certificates: Path
    token: Path
    webhook_port: int


async def serve(settings: CitySettings, options: Options) -> None:
    """Until SIGTERM or Ctrl-C.

    Raises:
        EnvironmentFault: no cluster, no City in its schema, no rights, a port that is taken, or an API server that stays away.
    """
    async with AsyncExitStack() as stack:
        api = open_api(options.namespace, proxied=False)
        stack.push_async_callback(api.close)
        await first_answer(api)
        pulse = Pulse(settings.observability.stalled_s)
        health = await stack.enter_async_context(observed(settings.observability, pulse, lambda: api.list(CITY)))
        webhook = await _webhook(stack, api, options)
        lease = Lease(api, options.identity or own_identity())
        waker, stop = Waker(), asyncio.Event()
        reconciler = await _reconciler(stack, api, lease, settings, options, pulse, waker)
        tasks = [
            pulse.keep("operator/lease", lease.run()),
            pulse.keep("operator/reconcile", reconciler.run()),
        ]
        stack.push_async_callback(_ended, tasks)
        ending = asyncio.create_task(_watch_over(lease, waker, webhook, stop, tasks))
        health.state = SERVING
        logger("operator").info(
            "serves", extra={"fields": {"namespace": api.namespace, "webhook": webhook is not None}}
        )
        await watching(api.namespace, waker.wake, stop)
        await _why(ending, api)


async def first_answer(api: KubeApi, tries: int = TRIES, every_s: float = EVERY_S) -> None:
    """Asks until the API server answers.

    Raises:
        EnvironmentFault: it does not, or it knows no City, or we may not read it.
    """
    for attempt in range(1, tries + 1):
        try:
            await api.list(CITY)
        except Unavailable as error:
            if attempt == tries:
                raise EnvironmentFault(
                    f"the API server {api.server} did not answer {tries} times in {tries * every_s:.0f} s ({error.message});"
                    " check KUBECONFIG and that it runs"
                ) from None
            await asyncio.sleep(every_s)
        except NotFound:
            raise EnvironmentFault(
                "the cluster knows no kind City: install the chart city-crds first, `helm install city-crds helm/city-crds`"
            ) from None
        except PermissionDenied as error:
            raise EnvironmentFault(
                f"{error.message}; the operator's Role comes with the chart (operator.enabled=true)"
            ) from None
        else:
            return


async def _webhook(stack: AsyncExitStack, api: KubeApi, options: Options) -> Renewing | None:
    if not options.webhook_port or not (options.certificates / "tls.crt").exists():
        return None
    return await stack.enter_async_context(serving(Admission(api), options.certificates, port=options.webhook_port))


async def _reconciler(
    stack: AsyncExitStack,
    api: KubeApi,
    lease: Lease,
    settings: CitySettings,
    options: Options,
    pulse: Pulse,
    waker: Waker,
) -> Reconciler:
    client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
    services = _services(settings, options)
    if services is not None:
        stack.push_async_callback(services.close)
    gates = Gates(services, client)
    return Reconciler(api, lease, Observer(api), Actor(api, lease.require), gates, Events(api), pulse, waker)


def _services(settings: CitySettings, options: Options) -> Services | None:
    """None where we have nothing to show; the gates then say so."""
    addresses, folder = read_addresses(settings.services.addresses), settings.services.certificates
    if not addresses or not folder:
        return None
    network = TlsNetwork(addresses, lambda name: Path(folder.replace("{service}", name)))
    callers = [name for name in settings.services.callers.split(",") if name not in addresses]
    return Services(network, options.token, callers)


async def _watch_over(
    lease: Lease, waker: Waker, webhook: Renewing | None, stop: asyncio.Event, tasks: list[asyncio.Task[None]]
) -> str:
    """Wakes the loop when leadership changes, renews the webhook's certificate; ends with the reason for which the process must."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await lease.changed.wait()
        LEADING.set(lease.held)
        if lease.changed.is_set():
            lease.changed.clear()
            waker.wake()
        if webhook is not None:
            with contextlib.suppress(CityError):
                webhook.look()
        silent_s = time.monotonic() - lease.answered
        ended = [task.get_name() for task in tasks if task.done()]
        if silent_s > DEAD_S or ended:
            stop.set()
            return f"{', '.join(ended)} ended" if ended else f"the API server has not answered for {silent_s:.0f} s"


async def _why(ending: asyncio.Task[str], api: KubeApi) -> None:
    """Raises where the end was not asked for."""
    if not ending.done():
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        return
    raise EnvironmentFault(f"{ending.result()} ({api.server}); the operator ends, and whoever starts it does so again")


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
