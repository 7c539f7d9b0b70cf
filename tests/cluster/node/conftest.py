"""One cluster with a real node for the whole run. `cluster`, `kubectl`, `helm` and `namespace` lead to it here.

Not run where this machine can have no node; `make test-node` says so before it begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from citykit.errors import EnvironmentFault
from infra.kubernetes import packages
from infra.kubernetes.control_plane import Cluster
from infra.kubernetes.install import API_TIER, NODE_TIER, program
from infra.kubernetes.node import Node
from infra.kubernetes.node import node as a_node
from infra.native import cache_folder
from tests.cluster.node.city_release import trial_values


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The node, with no image but the pause image: `node.add_images([...])` brings more."""
    if reason := packages.refusal():
        pytest.skip(reason)
    try:
        for binary in (*API_TIER, *NODE_TIER):
            program(cache_folder(), binary.name)
    except EnvironmentFault as fault:
        pytest.skip(fault.message)
    with a_node(tmp_path_factory.mktemp("node"), cache_folder()) as started:
        yield started


@pytest.fixture(scope="session")
def cluster(node: Node) -> Cluster:
    """The node's control plane."""
    return node.cluster


@pytest.fixture(scope="session")
def values(node: Node, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a trial is installed with; its images are built and on the node."""
    return trial_values(node, tmp_path_factory.mktemp("images"))
