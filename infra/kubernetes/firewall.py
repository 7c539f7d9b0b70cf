"""Keeps a node's nftables as the API server's NetworkPolicies say. Started by `infra.kubernetes.node`; the rules are made in `network_policies`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from citykit.errors import EnvironmentFault
from infra.kubernetes.asking import Asking
from infra.kubernetes.looking import Looking
from infra.kubernetes.namespaces import Namespaces
from infra.kubernetes.network_policies import Pod, read_world, ruleset

_APPLY_S = 20.0


class Firewall:
    """Looks at policies, pods and namespaces twice a second and replaces the rules where they changed.

    A pod's first half second may pass without rules; a test that wants them in force calls `apply`.

    Args:
        more: what is no pod here and is one elsewhere.
        open_api: a client of the thread's own.
    """

    def __init__(self, namespaces: Namespaces, more: Sequence[Pod], open_api: Callable[[], Asking]) -> None:
        self._namespaces, self._more, self._open_api = namespaces, more, open_api
        self._lock = threading.Lock()
        self._applied = ""
        self._looking = Looking("firewall", open_api, self.apply)

    def start(self) -> None:
        self._looking.start()

    def stop(self) -> None:
        self._looking.stop()

    def apply(self, api: Asking | None = None) -> str:
        """Brings the rules in force that are true now; returns them.

        Raises:
            EnvironmentFault: nft refuses them, or the API server refuses to tell.
            OSError: the API server does not answer.
        """
        with self._lock:
            asked = api or self._open_api()
            try:
                wanted = self._wanted(asked)
            finally:
                if api is None:
                    asked.close()
            if wanted != self._applied:
                done = self._namespaces.run(["nft", "--file", "-"], stdin=wanted, limit_s=_APPLY_S)
                if done.returncode:
                    raise EnvironmentFault(f"nft refuses the rules: {done.stderr.strip()[-1_000:]}\n{wanted}")
                self._applied = wanted
            return wanted

    def _wanted(self, api: Asking) -> str:
        policies = api.items("/apis/networking.k8s.io/v1/networkpolicies")
        if not policies:
            return ruleset([], read_world([], []))
        return ruleset(policies, read_world(api.items("/api/v1/pods"), api.items("/api/v1/namespaces"), self._more))
