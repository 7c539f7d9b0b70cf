"""The tests of services without money on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.store.service_files import FILE_S, files, passes
from tests.real.store.serving import Server


@pytest.mark.timeout(FILE_S + 30)
@pytest.mark.parametrize("path", files(of_money=False), ids=lambda path: path.stem)
def test_the_service_tests_pass(path: Path, quick_server: Server) -> None:
    passes(path, quick_server)
