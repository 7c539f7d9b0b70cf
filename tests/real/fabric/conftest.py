"""Networks for the tests of this folder; without FABRIC_BIN each of them says that it was not run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from infra.fabric import FABRIC_BIN, not_run
from tests.real.fabric.trial import Trial, start_trial


@pytest.fixture(scope="module")
def fabric_bin() -> None:
    line = not_run(os.environ.get(FABRIC_BIN))
    if line:
        pytest.skip(line)


@pytest.fixture(scope="module")
def trial(
    request: pytest.FixtureRequest, fabric_bin: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trial]:
    """A network with the probe on it; of profile raft1 where a module does not name others by `PROFILES`."""
    profile = request.param
    found = start_trial(tmp_path_factory.mktemp(profile), profile)
    yield found
    found.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "trial" in metafunc.fixturenames:
        profiles = getattr(metafunc.module, "PROFILES", ("raft1",))
        metafunc.parametrize("trial", profiles, indirect=True, scope="module")
