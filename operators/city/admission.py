"""The validating webhook for the City resource: refuses what needs a look-up, before anything changes. Started by `main`.

What needs none is refused by the schema's rules and a ValidatingAdmissionPolicy. Failure policy: `Fail`, for writes of City resources and for
nothing else: while no operator answers, a City cannot be changed, and everything that runs goes on. The way out when it stays down is in the README.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from citykit.errors import CityError, EnvironmentFault, InvalidArgument, Unavailable
from citykit.telemetry import logger
from operators.city.approvals import APPROVALS, changed_by
from operators.city.kube import CITY, Api, Object, annotations_of, name_of
from operators.city.model import CitySpec
from operators.city.spec import read_spec
from operators.city.versions import refused_downgrade

PATH = "/validate-city"
PORT = 9443
_BODY_MAX = 4_000_000


class Admission:
    """Judges admission reviews.

    Args:
        api: for the look-ups.
    """

    def __init__(self, api: Api) -> None:
        self._api = api

    async def review(self, review: Object) -> Object:
        """The answer to one AdmissionReview (admission.k8s.io/v1)."""
        request = review.get("request") or {}
        try:
            await self._check(request)
            response: Object = {"uid": request.get("uid", ""), "allowed": True}
        except InvalidArgument as error:
            response = _refusal(request, 422, error.message)
        except Unavailable as error:
            response = _refusal(request, 503, f"{error.message}; nothing was changed, try again")
        logger("admission").info("reviewed", extra={"fields": {"allowed": response["allowed"]}})
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}

    async def _check(self, request: Object) -> None:
        if request.get("operation") not in ("CREATE", "UPDATE") or request.get("subResource"):
            return
        new, old = request.get("object") or {}, request.get("oldObject") or {}
        if new.get("metadata", {}).get("deletionTimestamp"):
            return  # whoever lets it go must not be held up by what it said
        user = str((request.get("userInfo") or {}).get("username", ""))
        changed_by(user, annotations_of(old).get(APPROVALS, ""), annotations_of(new).get(APPROVALS, ""))
        if new.get("spec") == old.get("spec"):
            return
        spec = read_spec(new.get("spec") or {})
        refused_downgrade(spec.version, old.get("status") or {})
        await self._only_one(new)
        await self._has_data(spec)

    async def _only_one(self, new: Object) -> None:
        others = [name_of(one) for one in await self._api.list(CITY) if name_of(one) != name_of(new)]
        if others:
            raise InvalidArgument(
                f"the namespace {self._api.namespace} has the City {others[0]} already, and a namespace holds one city;"
                " change that one, or use another namespace"
            )

    async def _has_data(self, spec: CitySpec) -> None:
        names = [one.target.manifests for one in spec.services] + ([spec.prepare] if spec.prepare else [])
        missing = [name for name in names if await self._api.get("ConfigMap", name) is None]
        if missing:
            raise InvalidArgument(
                f"the ConfigMap {', '.join(missing)} does not exist in the namespace {self._api.namespace}: there is no such"
                " version here. `helm upgrade` writes it together with the City; a version that helm never rendered cannot be named"
            )


def _refusal(request: Mapping[str, Any], code: int, message: str) -> Object:
    return {"uid": request.get("uid", ""), "allowed": False, "status": {"code": code, "message": message}}


@contextlib.asynccontextmanager
async def serving(
    admission: Admission,
    folder: Path,
    host: str = "0.0.0.0",  # noqa: S104 - in a pod
    port: int = PORT,
) -> AsyncIterator[Renewing]:
    """Serves HTTPS until the block ends.

    Args:
        folder: `tls.crt` and `tls.key`; read again by `Renewing.look`.

    Raises:
        EnvironmentFault: no certificate, or the port is taken.
    """
    renewing = Renewing(folder)
    application = web.Application(client_max_size=_BODY_MAX)
    application.router.add_post(PATH, _handler(admission))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=renewing.context).start()
    except OSError as error:
        await runner.cleanup()
        raise EnvironmentFault(f"port {port} cannot be used for the webhook ({error.strerror})") from error
    try:
        yield renewing
    finally:
        await runner.cleanup()


def _handler(admission: Admission) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        try:
            review = json.loads(await request.read())
            return web.json_response(await admission.review(review))
        except (ValueError, AttributeError, TypeError):
            return web.json_response({"message": "this is no AdmissionReview"}, status=400)
        except CityError as error:
            return web.json_response({"message": error.message}, status=500)

    return handle


class Renewing:
    """The certificate of the webhook; a renewed one is shown from the next handshake on."""

    def __init__(self, folder: Path) -> None:
        self._files = (folder / "tls.crt", folder / "tls.key")
        self._stamp: tuple[int, ...] = ()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.look()

    def look(self) -> None:
        """Reads the files if they changed.

        Raises:
            EnvironmentFault: they are missing or do not belong together.
        """
        try:
            stamp = tuple(path.stat().st_mtime_ns for path in self._files)
            if stamp != self._stamp:
                self.context.load_cert_chain(*self._files)
                self._stamp = stamp
        except (OSError, ssl.SSLError) as error:
            raise EnvironmentFault(
                f"the webhook's certificate {self._files[0]} or its key cannot be used ({error}); it comes from the secret operator-tls"
            ) from error
