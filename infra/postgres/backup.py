"""Base backups of a cluster, and restoring one to a moment with the archived write-ahead log. Called by `city db backup` and `restore`."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from hashlib import file_digest, sha256
from pathlib import Path

from citykit.errors import EnvironmentFault, NotFound
from infra.postgres.replication import MANIFEST, fetch
from infra.postgres.roles import Admin


def base_backup(admin: Admin, target: Path) -> None:
    """Copies the running cluster into the new folder `target`, with the log that makes it consistent, and verifies the copy.

    Raises:
        EnvironmentFault: the server is not reached, or the copy does not verify; nothing is left of it then.
    """
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        fetch(admin, part)
        verify(part)
        os.sync()
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    part.rename(target)


def verify(backup: Path) -> None:
    """Every file of a backup against its manifest (https://www.postgresql.org/docs/18/backup-manifest-format.html), and that against itself.

    Raises:
        EnvironmentFault: a file is missing or was changed.
    """
    text = (backup / MANIFEST).read_bytes()
    body, _, end = text.rpartition(b'"Manifest-Checksum"')
    if sha256(body).hexdigest().encode() not in end:
        raise EnvironmentFault(f"{backup} is damaged: backup_manifest was changed. Take another backup")
    for file in json.loads(text)["Files"]:
        path = backup / file["Path"]
        if not path.is_file() or path.stat().st_size != file["Size"] or _digest(path) != file["Checksum"]:
            raise EnvironmentFault(f"{backup} is damaged: {file['Path']} is not as it was. Take another backup")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def restore(backup: Path, data: Path, archive: Path | None, until: datetime | None) -> None:
    """Makes a cluster's folder from a base backup; the next start replays the archive up to `until` (or all of it) and goes on from there.

    Args:
        data: must not be there.
        archive: folder of archived log segments; None: the state at the backup's end.
        until: a moment with its zone.

    Raises:
        EnvironmentFault: the backup is damaged, or `data` is there.
        NotFound: there is no such backup.
    """
    if not (backup / MANIFEST).exists():
        raise NotFound(f"{backup} holds no base backup; name the folder `city db backup` made")
    if data.exists():
        raise EnvironmentFault(f"{data} is there: stop the server and move it away first; it is never overwritten")
    verify(backup)
    part = data.with_name(f"{data.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(backup, part)
    part.chmod(0o700)
    if archive is not None:
        _recover(part, archive.resolve(), until)
    part.rename(data)


def _recover(data: Path, archive: Path, until: datetime | None) -> None:
    lines = [f"restore_command = 'cp {archive}/%f %p'", "recovery_target_action = 'promote'"]
    if until is not None:
        lines.append(f"recovery_target_time = '{until.isoformat()}'")
    with (data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    (data / "recovery.signal").touch()
