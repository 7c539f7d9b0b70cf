"""The OpenAPI document as a file: `python -m tests.system.openapi_document > tests/golden/openapi.json`."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.system.fakes import fake_city

GOLDEN = Path(__file__).parents[1] / "golden" / "openapi.json"


async def rendered() -> str:
    """As committed: sorted keys, two spaces."""
    with tempfile.TemporaryDirectory() as folder:
        async with fake_city(Path(folder)) as city:
            return json.dumps(city.app.openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(rendered()))
