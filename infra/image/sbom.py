"""The bill of materials of an image: CycloneDX 1.6 as JSON (ECMA-424). Written beside each archive; the same image gives the same document."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from infra.image.lockfile import Input
from infra.image.recipes import Image

_SPDX = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib"}
_NAMESPACE = uuid.UUID("8f4f1a9e-5f0b-4c39-9a41-0c1d7f0e2a55")  # ours, of these documents


def component(one: Input, licences: Sequence[str]) -> dict[str, Any]:
    """One package.

    Args:
        licences: as the package states them; empty where it states none in a readable form.
    """
    purl = package_url(one)
    group, _, name = one.name.rpartition(":")
    about = {"type": "library", "bom-ref": purl, "name": name, "version": one.version, "purl": purl}
    rest: dict[str, Any] = {"group": group} if group else {}
    rest["hashes"] = [{"alg": "SHA-256", "content": one.sha256}]
    return about | rest | ({"licenses": _licences(licences)} if licences else {})


def document(image: Image, digest: str, components: Iterable[Mapping[str, Any]]) -> bytes:
    """The whole document, without a time so that it is reproducible."""
    purl = f"pkg:oci/{image.name}@{quote(digest, safe='')}?tag={quote(image.version)}"
    top = {
        "type": "container",
        "bom-ref": purl,
        "name": image.name,
        "version": image.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
    }
    known = {str(one["bom-ref"]): one for one in components}
    return json.dumps(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
            "version": 1,
            "metadata": {"component": top},
            "components": [known[reference] for reference in sorted(known)],
            "dependencies": [{"ref": purl, "dependsOn": sorted(known)}],
        },
        indent=1,
        sort_keys=True,
    ).encode()


def package_url(one: Input) -> str:
    """The purl (https://github.com/package-url/purl-spec) of a package."""
    version = quote(one.version, safe="")
    if one.kind == "deb":
        return f"pkg:deb/debian/{quote(one.name, safe='')}@{version}?distro=debian-12"
    if one.kind == "jar":
        return f"pkg:maven/{one.name.replace(':', '/')}@{version}"
    return f"pkg:pypi/{one.name.lower().replace('_', '-')}@{version}"


def _licences(stated: Sequence[str]) -> list[dict[str, Any]]:
    """One SPDX expression stands alone; of others each has its name, and its SPDX id where it is one."""
    if len(stated) == 1 and any(word in stated[0].split() for word in ("AND", "OR", "WITH")):
        return [{"expression": stated[0]}]
    return [{"license": {"id": one} if one in _SPDX else {"name": one}} for one in stated]
