"""`python -m infra.image build|lock`: images as OCI archives, without a daemon. Called by `make image` and `make image-lock`."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from citykit.errors import CityError, EnvironmentFault, InvalidArgument
from infra.image import lockfile, recipes
from infra.image.building import Built, build, inputs_of, version_of_city
from infra.image.fetching import fetch
from infra.image.lockfile import Input
from infra.image.locking import lock
from infra.image.recipes import Image
from infra.image.store import Store
from infra.native import cache_folder

IMAGES = ("city", "forecasting", "kafka", "postgres", "pause")
DONE, USAGE, ENVIRONMENT = 0, 2, 3
_MB = 1_000_000
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; exit codes: 0 done, 2 wrong usage or a package that no image may hold, 3 the environment is at fault."""
    parser = argparse.ArgumentParser(prog="python -m infra.image", description="Container images without a daemon.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_build(commands.add_parser("build", help="write the images as OCI archives"))
    locking = commands.add_parser("lock", help="write inputs.lock anew from what is served now")
    locking.set_defaults(run=lambda arguments, store: _lock(store))
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments, Store(cache_folder() / "image"))
    except CityError as error:
        print(f"image: {error.message}", file=sys.stderr)
        return ENVIRONMENT if isinstance(error, EnvironmentFault) else USAGE
    except OSError as error:
        print(f"image: {error.strerror or error} ({error.filename})", file=sys.stderr)
        return ENVIRONMENT
    return DONE


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help=f"{', '.join(IMAGES)} or all; city where none is named"
    )
    parser.add_argument("--out", type=Path, default=Path(".city/images"), help="where the archives go (%(default)s)")
    parser.add_argument("--version", default=None, help="of the city; else pyproject.toml's")
    parser.add_argument("--offline", action="store_true", help="fetch nothing: use what the cache has")
    parser.add_argument(
        "--layers", action="store_true", help="also write each layer's tar, for infra/image/Containerfile"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document a line and image")
    parser.set_defaults(run=_build)


def _build(arguments: argparse.Namespace, store: Store) -> None:
    inputs = _inputs()
    wheels, jars = (tuple(one.name for one in inputs if one.kind == kind) for kind in ("wheel", "jar"))
    known = recipes.images(wheels, jars, _version(arguments.version))
    for name in _names(arguments.images):
        built = _one(known[name], store, inputs, arguments)
        print(json.dumps(_document(built)) if arguments.json else _line(built), flush=True)


def _inputs() -> tuple[Input, ...]:
    """The list of packages, which must agree with requirements.lock."""
    inputs = lockfile.read()
    requirements = (recipes.ROOT / "requirements.lock").read_text(encoding="utf-8")
    if lines := lockfile.outdated(inputs, requirements, recipes.LEFT_OUT):
        more = f" (and {len(lines) - 1} more)" if lines[1:] else ""
        raise InvalidArgument(
            f"inputs.lock is not of requirements.lock: {lines[0]}{more}; refresh it with `make image-lock`"
        )
    return inputs


def _version(given: str | None) -> str:
    version = version_of_city() if given is None else given
    if not _TAG.fullmatch(version):
        raise InvalidArgument(
            f"--version {version!r} is no image's tag; allowed are letters, digits, `_`, `.` and `-`, 128 at most"
        )
    return version


def _names(given: Sequence[str]) -> Sequence[str]:
    if unknown := sorted(set(given) - {*IMAGES, "all"}):
        raise InvalidArgument(f"there is no image {unknown[0]!r}; there are {', '.join(IMAGES)} and all")
    return IMAGES if "all" in given else list(dict.fromkeys(given)) or ["city"]


def _one(image: Image, store: Store, inputs: Sequence[Input], arguments: argparse.Namespace) -> Built:
    fetch(store, inputs_of(image, inputs), offline=arguments.offline)
    built = build(image, store, inputs, arguments.out)
    if arguments.layers:
        _write_layers(built, arguments.out / f"{image.name}.layers")
    return built


def _write_layers(built: Built, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, blob in enumerate(built.layers, start=1):
        shutil.copyfile(blob.path, folder / f"{number}-{blob.name}.tar")


def _line(built: Built) -> str:
    layers = ", ".join(f"{blob.name} {blob.size / _MB:.1f}" for blob in built.layers)
    return f"{built.reference}  {built.digest}  {built.size / _MB:.1f} MB ({layers})  {built.archive}"


def _document(built: Built) -> dict[str, object]:
    return {
        "reference": built.reference,
        "digest": built.digest,
        "size": built.size,
        "archive": str(built.archive),
        "bill": str(built.bill),
        "layers": {blob.name: blob.size for blob in built.layers},
    }


def _lock(store: Store) -> None:
    inputs = lock(store)
    print(f"{lockfile.FILE.name}: {len(inputs)} packages; build with `make image`, run the tests, commit the file")


if __name__ == "__main__":
    sys.exit(main())
