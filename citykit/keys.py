"""The city's secret keys, all derived from one root key. Used by `citykit.run`, the composition root and `city token`."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from citykit.errors import EnvironmentFault
from citykit.ids import Randomness

ROOT_BYTES = 32


def service_token_seed(root_key: bytes) -> bytes:
    """Ed25519 seed of the tokens services show each other."""
    return derive_key(root_key, "city", "service-tokens")


def derive_key(root_key: bytes, service: str, purpose: str) -> bytes:
    """32 bytes: HMAC-SHA256 of the service and the purpose under the root key."""
    return hmac.new(root_key, f"city.key.v1\n{service}\n{purpose}".encode(), hashlib.sha256).digest()


def root_key_path(state: Path) -> Path:
    """Where the root key is where no setting says so."""
    return state / "keys" / "root"


def root_key(state: Path, randomness: Randomness) -> bytes:
    """The root key in the state directory; made at the first start, readable by the owner only."""
    path = root_key_path(state)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(randomness(ROOT_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".new").replace(path)
    return path.read_bytes()


def read_root_key(path: Path) -> bytes:
    """The root key that all services of a city share, from a file made beforehand.

    Raises:
        EnvironmentFault: it is not there, or not 32 bytes.
    """
    try:
        key = path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(
            f"the root key {path} cannot be read ({error.strerror}); `make up` makes it, and CITY_SERVICES_ROOT_KEY_FILE names it"
        ) from error
    if len(key) != ROOT_BYTES:
        raise EnvironmentFault(
            f"the root key {path} has {len(key)} bytes, not {ROOT_BYTES}; put back the one the city was started with"
        )
    return key
