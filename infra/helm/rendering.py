"""The chart rendered by the real helm, and what is in a rendering. Called by the tests of the chart and by `python -m infra.helm`."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.helm.facts import CHART, ROOT
from infra.kubernetes import tools

Object = dict[str, Any]
CRDS = ROOT / "helm" / "city-crds"
PROFILES = CHART / "profiles"
NAMESPACE = "city"
_LIMIT_S = 120.0
_WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob")


def installed(cache: Path) -> Path:
    """The helm program.

    Raises:
        EnvironmentFault: it cannot be had.
    """
    tools.install(cache)
    return tools.tool(cache, "helm")


class Refused(Exception):
    """helm does not render these values; the text is what it says."""


@dataclass(frozen=True)
class Rendering:
    """What helm would apply.

    Attributes:
        text: as helm prints it.
        documents: the same, read.
    """

    text: str
    documents: Sequence[Object]

    def of(self, kind: str) -> dict[str, Object]:
        """The objects of a kind by name."""
        return {one["metadata"]["name"]: one for one in self.documents if one["kind"] == kind}

    def data(self) -> Iterator[Object]:
        """The objects in the operator's ConfigMaps."""
        for one in self.of("ConfigMap").values():
            if "provable.city/version" in one["metadata"].get("labels", {}):
                for text in one["data"].values():
                    yield from (found for found in yaml.safe_load_all(text) if found)

    def everything(self) -> list[Object]:
        """What helm applies, and what the operator does."""
        return [*self.documents, *self.data()]

    def pods(self) -> list[Object]:
        """Every pod that may come of it: metadata and spec, with the `owner` (`Deployment/identity`)."""
        found = [_pod(one) for one in self.everything()]
        return [one for one in found if one is not None]


def _pod(document: Object) -> Object | None:
    kind, name = document["kind"], document["metadata"]["name"]
    if kind == "Pod":
        return {"owner": f"Pod/{name}", "metadata": document["metadata"], "spec": document["spec"]}
    if kind not in _WORKLOADS:
        return None
    spec = document["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else document["spec"]
    template = spec["template"]
    return {"owner": f"{kind}/{name}", "metadata": template["metadata"], "spec": template["spec"]}


@dataclass(frozen=True)
class Chart:
    """The chart `city` and the helm that renders it.

    Attributes:
        helm: the program.
    """

    helm: Path
    folder: Path = CHART

    def render(self, profile: str = "", values: Mapping[str, Any] | None = None, *options: str) -> Rendering:
        """The rendering of a profile with values over it, as at a first installation (`--is-upgrade`: as later).

        Raises:
            Refused: helm does not render it.
        """
        files = [f"--values={PROFILES / f'{profile}.yaml'}"] if profile else []
        with tempfile.TemporaryDirectory(prefix="city-values-") as name:
            if values:
                over = Path(name) / "values.json"
                over.write_text(json.dumps(values), encoding="utf-8")
                files.append(f"--values={over}")
            text = self.run("template", "city", str(self.folder), f"--namespace={NAMESPACE}", *files, *options)
        return Rendering(text, [one for one in yaml.safe_load_all(text) if one])

    def run(self, *words: str) -> str:
        """What helm prints.

        Raises:
            Refused: its exit code is not 0.
        """
        with tempfile.TemporaryDirectory(prefix="city-helm-") as home:
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE", "XDG_"))}
            done = subprocess.run(  # noqa: S603 - the installed program, our own arguments
                [str(self.helm), *words],
                env={**kept, "HOME": home},
                capture_output=True,
                text=True,
                timeout=_LIMIT_S,
                check=False,
            )
        if done.returncode:
            raise Refused(done.stderr.strip() + done.stdout.strip())
        return done.stdout
