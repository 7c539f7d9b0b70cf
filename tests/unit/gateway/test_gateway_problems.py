"""Domain errors as problem details (RFC 9457): status, reason, challenge, retry time; and documents with ETags."""

from __future__ import annotations

import json

import pytest
from fastapi import Request

from citykit import errors
from services.gateway.api.documents import document
from services.gateway.api.problems import TYPE_PREFIX, of_city_error

CASES: list[tuple[errors.CityError, int]] = [
    (errors.InvalidArgument("m"), 400),
    (errors.RequestReused("m"), 422),
    (errors.Unauthenticated("m"), 401),
    (errors.PermissionDenied("m"), 403),
    (errors.NotFound("m"), 404),
    (errors.AlreadyExists("m"), 409),
    (errors.FailedPrecondition("m"), 409),
    (errors.Conflict("m"), 409),
    (errors.ResourceExhausted("m"), 429),
    (errors.Unavailable("m"), 503),
    (errors.OutcomeUnknown("m"), 504),
    (errors.Damaged("m"), 500),
    (errors.CityError("m"), 500),
]


@pytest.mark.parametrize(("error", "status"), CASES, ids=lambda value: type(value).__name__)
def test_each_error_of_the_tree_has_its_status(error: errors.CityError, status: int) -> None:
    response = of_city_error(error)
    body = json.loads(bytes(response.body))
    assert response.status_code == body["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert body["type"] == TYPE_PREFIX + error.reason
    assert body["detail"] == "m"
    assert "errors" not in body


def test_the_field_at_fault_is_named() -> None:
    body = json.loads(bytes(of_city_error(errors.InvalidArgument("too long", field="purpose")).body))
    assert body["errors"] == [{"field": "purpose", "message": "too long"}]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.Unavailable("m", retry_after_s=0.2), "1"),
        (errors.ResourceExhausted("m", retry_after_s=60), "60"),
        (errors.Unavailable("m"), "2"),
    ],
)
def test_retry_after_is_in_whole_seconds(error: errors.CityError, seconds: str) -> None:
    assert of_city_error(error).headers["retry-after"] == seconds


def test_a_missing_token_is_not_called_invalid() -> None:
    assert (
        of_city_error(errors.Unauthenticated("m", reason="no-token")).headers["www-authenticate"]
        == 'Bearer realm="city"'
    )
    assert "invalid_token" in of_city_error(errors.Unauthenticated("m")).headers["www-authenticate"]


def request_with(etag: str) -> Request:
    return Request({"type": "http", "headers": [(b"if-none-match", etag.encode())]})


def test_a_copy_that_is_still_right_is_not_sent_again() -> None:
    first = document(request_with(""), b"content", "text/plain")
    etag = first.headers["etag"]
    for sent in (etag, f'W/{etag}, "other"', f'"other", {etag}', "*"):
        again = document(request_with(sent.replace("*", "*")), b"content", "text/plain")
        assert (again.status_code, again.body) == (304, b""), sent
    assert document(request_with(etag), b"changed", "text/plain").status_code == 200
