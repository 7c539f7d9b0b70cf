"""`python -m infra.kubernetes build|up|down|env`: a Kubernetes of one's own to try the city on. `up --node` runs real pods and needs root.

python -m infra.kubernetes up --node --images .city/images
eval "$(python -m infra.kubernetes env)"
kubectl get nodes
python -m infra.kubernetes down
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from citykit.errors import CityError, EnvironmentFault
from infra.kubernetes import background, packages, tools
from infra.kubernetes.install import API_TIER, NODE_TIER, install
from infra.native import cache_folder

STATE = Path(".city/kubernetes")
DONE, ENVIRONMENT = 0, 3
_ARCHIVES = "*.oci.tar"


def main(words: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 wrong usage, 3 the machine lacks something."""
    arguments = _parser().parse_args(words)
    arguments.state = arguments.state.resolve()
    try:
        arguments.act(arguments)
    except CityError as error:
        print(f"kubernetes: {error.message}", file=sys.stderr, flush=True)
        return ENVIRONMENT
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.kubernetes", description=str(__doc__).splitlines()[0])
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    acts = {
        "build": (_build, "build the programs and install kubectl and Helm, without starting anything"),
        "up": (_up, "start a cluster in the background; what an earlier one held is forgotten"),
        "down": (_down, "end it"),
        "env": (_env, "print what a shell needs to reach it"),
        "serve": (_serve, "hold a cluster in the foreground; `up` starts this"),
    }
    for name, (act, told) in acts.items():
        command = commands.add_parser(name, help=told)
        command.set_defaults(act=act)
        command.add_argument("--state", type=Path, default=STATE, help="its folder (%(default)s)")
        if name in ("build", "up", "serve"):
            command.add_argument("--node", action="store_true", help="one real node: pods run; needs root")
        if name == "up":
            command.add_argument("--images", type=Path, default=None, help="a folder with OCI archives for the node")
            command.add_argument("--install", action="store_true", help="bring missing packages of Debian by apt-get")
        if name == "serve":
            command.add_argument("--image", type=Path, action="append", default=[], help="an OCI archive for the node")
    return parser


def _build(arguments: argparse.Namespace) -> None:
    tools.install(cache_folder())
    install(cache_folder(), [*API_TIER, *(NODE_TIER if arguments.node else ())], _say)
    _say(f"everything is in {cache_folder() / 'kubernetes'}")


def _up(arguments: argparse.Namespace) -> None:
    if arguments.images is not None and not arguments.node:
        raise EnvironmentFault("--images is for a node; say --node too, or leave it out")
    if arguments.node:
        if arguments.install:
            packages.install()
        if reason := packages.refusal():
            raise EnvironmentFault(reason)
    images = archives(arguments.images) if arguments.images is not None else []
    _build(arguments)
    found = background.start(arguments.state, with_node=arguments.node, images=images, say=_say)
    kind = "one node with real pods" if found.with_node else "three pretended nodes, nothing runs in their pods"
    _say(f"ready after {found.ready_s:.1f} s: {kind}")
    suffix = "" if arguments.state == STATE.resolve() else f" --state {arguments.state}"
    _say(f'use it:  eval "$({_program()} env{suffix})"; kubectl get nodes\nend it:  {_program()} down{suffix}')


def _down(arguments: argparse.Namespace) -> None:
    _say(background.stop(arguments.state))


def _env(arguments: argparse.Namespace) -> None:
    found = background.read(arguments.state)
    if found is None or not found.kubeconfig:
        raise EnvironmentFault(f"no cluster runs in {arguments.state}; start one: {_program()} up")
    _say(f"export KUBECONFIG='{found.kubeconfig}'\nexport PATH='{tools.folder(cache_folder())}':\"$PATH\"")


def _serve(arguments: argparse.Namespace) -> None:
    background.serve(arguments.state, cache_folder(), with_node=arguments.node, images=arguments.image)


def archives(folder: Path) -> list[Path]:
    """The OCI archives of a folder.

    Raises:
        EnvironmentFault: there are none.
    """
    found = sorted(folder.resolve().glob(_ARCHIVES))
    if not found:
        raise EnvironmentFault(f"{folder} holds no {_ARCHIVES}; build images with: make image")
    return found


def _program() -> str:
    return f"{Path(sys.executable).name} -m infra.kubernetes"


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
