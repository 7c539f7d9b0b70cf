"""OpenID Connect at the issuer's paths: discovery, keys, the login page (authorization code with PKCE), the token endpoint.

Identity decides; this module renders and passes on. The login form is tied to a cookie of the same browser (no login CSRF).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from city.identity.v1 import identity_service_pb2 as identity
from citykit.errors import CityError, InvalidArgument, PermissionDenied, Unauthenticated
from services.gateway.api.edge import CONTENT_SECURITY_POLICY
from services.gateway.api.login_page import login_page
from services.gateway.api.parameters import Here
from services.gateway.api.problems import of_city_error, status_of

router = APIRouter(tags=["openid"])
COOKIE = "city-login"
FIELDS_MAX = 20
_ASKED = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
)
_JSON: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}}}}
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
_ONLY: Mapping[str, dict[str, Any]] = {"grant_type": {"enum": ["authorization_code"]}}
Asked = Annotated[str, Query(max_length=500)]


def _form(fields: Mapping[str, str], required: tuple[str, ...]) -> dict[str, Any]:
    """OpenAPI of a form body; the body itself is read by hand, so that no multipart parser is needed."""
    schema = {
        "type": "object",
        "required": list(required),
        "properties": {
            name: {"type": "string", "description": about} | _ONLY.get(name, {}) for name, about in fields.items()
        },
    }
    return {"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}}


@router.get("/.well-known/openid-configuration", response_class=Response, responses=_JSON)
async def get_provider_metadata(here: Here) -> Response:
    """OpenID Connect Discovery 1.0."""
    answer = await here.calls.ask("identity", "GetProviderMetadata", identity.GetProviderMetadataRequest())
    return Response(answer.json, media_type="application/json", headers={"Cache-Control": "public, max-age=300"})


@router.get("/oidc/jwks", response_class=Response, responses=_JSON)
async def get_jwks(here: Here) -> Response:
    """Public keys of the tokens (RFC 7517)."""
    answer = await here.calls.ask("identity", "GetJwks", identity.GetJwksRequest())
    return Response(answer.json, media_type="application/json", headers={"Cache-Control": "public, max-age=300"})


@router.get("/oidc/authorize", response_class=HTMLResponse, responses=_HTML)
async def show_login(
    request: Request,
    here: Here,
    response_type: Annotated[str, Query(pattern="^code$", description="Only `code`.")],
    client_id: Asked,
    redirect_uri: Asked,
    code_challenge: Annotated[str, Query(pattern="^[A-Za-z0-9_-]{43}$", description="RFC 7636, S256.")],
    code_challenge_method: Annotated[str, Query(pattern="^S256$", description="Only `S256`.")] = "S256",
    scope: Asked = "openid",
    state: Asked = "",
    nonce: Asked = "",
) -> HTMLResponse:
    """The login page of the authorization code flow."""
    asked = {
        "response_type": response_type,
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": state,
        "nonce": nonce,
        "code_challenge": code_challenge,
        "code_challenge_method": code_challenge_method,
    }
    return _page(request, here, asked)


@router.post(
    "/oidc/authorize",
    response_class=RedirectResponse,
    status_code=303,
    responses={401: {"description": "The login was wrong: the page again.", "content": {"text/html": {}}}},
    openapi_extra=_form(
        {**{name: "As in the page." for name in _ASKED}, "form": "The page's own token.", "login": "", "password": ""},
        ("client_id", "redirect_uri", "code_challenge", "form", "login", "password"),
    ),
)
async def log_in(request: Request, here: Here) -> Response:
    """Checks the login and sends the browser back to the client with a code."""
    sent = await _form_of(request)
    asked = {name: sent.get(name, "") for name in _ASKED}
    _same_browser(here, request, sent.get("form", ""), asked)
    try:
        answer = await here.calls.ask("identity", "Authorize", _authorize(here, request, sent))
    except Unauthenticated as error:
        if error.reason != "wrong-login":  # the gateway itself was refused
            raise
        return _page(request, here, asked, wrong=True)
    back = {"code": answer.code, "iss": here.issuer} | ({"state": asked["state"]} if asked["state"] else {})
    glue = "&" if urlsplit(asked["redirect_uri"]).query else "?"
    response = RedirectResponse(asked["redirect_uri"] + glue + urlencode(back), status_code=303)
    response.delete_cookie(COOKIE, path="/oidc")
    return response


@router.post(
    "/oidc/token",
    responses={
        200: {"content": {"application/json": {"schema": {"type": "object"}}}},
        400: {"description": "RFC 6749, section 5.2.", "content": {"application/json": {"schema": {"type": "object"}}}},
    },
    openapi_extra=_form(
        {
            "grant_type": "`authorization_code`",
            "code": "",
            "redirect_uri": "The same as at /oidc/authorize.",
            "client_id": "",
            "code_verifier": "RFC 7636.",
        },
        ("grant_type", "code", "redirect_uri", "client_id", "code_verifier"),
    ),
    response_class=Response,
)
async def get_token(request: Request, here: Here) -> Response:
    """Exchanges a code for tokens (RFC 6749, section 4.1.3). Errors have the form of RFC 6749, section 5.2."""
    try:
        sent = await _form_of(request)
    except InvalidArgument as error:
        return _oauth_error("invalid_request", error.message)
    if sent.get("grant_type") != "authorization_code":
        return _oauth_error("unsupported_grant_type", "grant_type must be authorization_code")
    names = ("client_id", "redirect_uri", "code", "code_verifier")
    if missing := [name for name in names if not sent.get(name)]:
        return _oauth_error("invalid_request", f"missing: {', '.join(missing)}")
    try:
        asked = identity.ExchangeCodeRequest(**{name: sent[name] for name in names})
        answer = await here.calls.ask("identity", "ExchangeCode", asked)
    except CityError as error:
        return (
            _oauth_error("invalid_grant", error.message)
            if status_of(error) < HTTPStatus.TOO_MANY_REQUESTS
            else of_city_error(error)
        )
    tokens = {
        "access_token": answer.access_token,
        "token_type": "Bearer",
        "expires_in": answer.expires_in_s,
        "scope": answer.scope,
    }
    return JSONResponse(
        tokens | ({"id_token": answer.id_token} if answer.id_token else {}), headers={"Pragma": "no-cache"}
    )


def _oauth_error(error: str, description: str) -> JSONResponse:
    return JSONResponse({"error": error, "error_description": description}, 400)


async def _form_of(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise InvalidArgument("send the fields as application/x-www-form-urlencoded", field="header.content-type")
    try:
        body = (await request.body()).decode()
        return dict(parse_qsl(body, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"))
    except ValueError:
        raise InvalidArgument(f"the form must be UTF-8 with at most {FIELDS_MAX} fields", field="body") from None


def _authorize(here: Here, request: Request, sent: Mapping[str, str]) -> identity.AuthorizeRequest:
    fields = (
        "client_id",
        "redirect_uri",
        "scope",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "login",
        "password",
    )
    address = request.client.host if request.client else "unknown"
    throttle_key = hmac.new(here.key("throttle"), address.encode(), hashlib.sha256).hexdigest()[:32]
    return identity.AuthorizeRequest(throttle_key=throttle_key, **{name: sent.get(name, "") for name in fields})


def _page(request: Request, here: Here, asked: Mapping[str, str], *, wrong: bool = False) -> HTMLResponse:
    browser = here.randomness(16).hex()
    html = login_page(here.general.city, {**asked, "form": _proof(here, browser, asked)}, wrong=wrong)
    policy = CONTENT_SECURITY_POLICY.replace(
        "form-action 'self'", f"form-action 'self'{_origin(asked['redirect_uri'])}"
    )
    response = HTMLResponse(html, 401 if wrong else 200, headers={"Content-Security-Policy": policy})
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, browser, max_age=600, path="/oidc", secure=secure, httponly=True, samesite="strict")
    return response


def _origin(redirect_uri: str) -> str:
    """The client's origin, which the browser must be allowed to go on to after the form; empty for anything odd."""
    try:
        parts = urlsplit(redirect_uri)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    host = parts.hostname or ""
    usable = parts.scheme in {"http", "https"} and host.isascii() and host.replace("-", "").replace(".", "").isalnum()
    return f" {parts.scheme}://{host}{port}" if usable else ""


def _same_browser(here: Here, request: Request, form: str, asked: Mapping[str, str]) -> None:
    """Raises PermissionDenied when the form was not made for this browser and this request (login CSRF)."""
    expected = _proof(here, request.cookies.get(COOKIE, ""), asked)
    foreign = request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}
    if foreign or not hmac.compare_digest(expected.encode(), form.encode()):
        raise PermissionDenied(
            "this login form is not one this browser was given; open the login page again", reason="stale-form"
        )


def _proof(here: Here, browser: str, asked: Mapping[str, str]) -> str:
    content = json.dumps([browser, *(asked.get(name, "") for name in _ASKED)])
    return hmac.new(here.key("login-form"), content.encode(), hashlib.sha256).hexdigest()
