"""The OpenAPI document: as committed, complete, and true of the server (schemathesis, seeded, over fake services)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from services.gateway.app import live
from tests.system.fake_calls import fake_token
from tests.system.openapi_document import GOLDEN, rendered
from tests.system.serving import fake_city_in_thread

DOCUMENT = json.loads(GOLDEN.read_text(encoding="utf-8"))
HEADERS = {"Authorization": f"Bearer {fake_token('resident+contractor+operator+billing+registrar+auditor')}"}
EXAMPLES = 6


def without_security(document: dict[str, Any]) -> dict[str, Any]:
    """The document as schemathesis sees it: the test sends the token, so a request without one must not be made up."""
    bare: dict[str, Any] = json.loads(json.dumps(document))
    bare.pop("security", None)
    bare["components"].pop("securitySchemes", None)
    for methods in bare["paths"].values():
        for item in methods.values():
            item.pop("security", None)
    return bare


schema = schemathesis.openapi.from_dict(without_security(DOCUMENT))
# 400 is a rule no schema can say: a year out of range, a code that is not known
schema.config.checks.positive_data_acceptance.expected_statuses = [
    "2xx",
    "3xx",
    "400",
    "401",
    "403",
    "404",
    "409",
    "429",
    "5xx",
]
schema.config.checks.negative_data_rejection.expected_statuses = ["400", "401", "403", "404", "413", "422", "429"]


async def test_the_document_is_the_committed_one() -> None:
    assert await rendered() == GOLDEN.read_text(encoding="utf-8"), (
        "the HTTP API changed; look at the difference, then: python -m tests.system.openapi_document > tests/golden/openapi.json"
    )


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, item) for path, methods in DOCUMENT["paths"].items() for method, item in methods.items()]


def test_every_operation_is_described() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    names = [item["operationId"] for _, _, item in operations()]
    assert len(names) == len(set(names)) > 45
    for path, method, item in operations():
        assert len(item["description"]) > 10 and item["tags"], f"{method} {path}"
        errors = [status for status in item["responses"] if status >= "4"]
        assert errors, f"{method} {path}"
        for status in errors:
            content = item["responses"][status]["content"]
            assert {"application/problem+json", "text/html", "application/json"} & set(content), (
                f"{method} {path} {status}"
            )


def test_what_changes_something_needs_a_key() -> None:
    free = {
        "/demo/session",
        "/oidc/authorize",
        "/oidc/token",
        "/api/v1/bills/{bill}/check",
        "/api/v1/parking/reservations/{reservation}/check",
        "/api/v1/payments/{payment}/check",
        "/api/v1/statement-check",
        "/api/v1/payments/callbacks",
        "/api/v1/log-check",
        "/api/v1/faults",
    }
    for path, method, item in operations():
        if method == "get" or path in free:
            continue
        keys = [p for p in item["parameters"] if p["name"].lower() == "idempotency-key"]
        assert keys and keys[0]["required"], f"{method} {path}"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateway over fakes, in a thread of its own: schemathesis calls from this one. A live stream ends at once."""
    patch = pytest.MonkeyPatch()
    patch.setattr(live, "STREAM_MAX_S", 0.0)
    with fake_city_in_thread(tmp_path_factory.mktemp("openapi")) as (address, city):
        city.calls.forgetful = True
        yield address
    patch.undo()


def described() -> list[Any]:
    """The operations one by one: under schemathesis' own parametrization all have one identity, and of tests shared out by it only one runs."""
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def test_no_operation_is_left_out() -> None:
    assert sorted(operation.label for operation in described()) == sorted(
        f"{method.upper()} {path}" for path, method, _ in operations()
    )


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize("operation", described(), ids=lambda operation: operation.label)
def test_the_server_does_what_the_document_says(operation: Any, mode: GenerationMode, url: str) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers(case: Any) -> None:
        case.call_and_validate(base_url=url, headers=HEADERS)

    try:
        answers()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "no valid request can be made of it"
