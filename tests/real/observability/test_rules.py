"""Prometheus' own check of the rules, and their cases; the command that starts a server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.native import Native, Program, free_port, listens
from infra.observability import RULES, Target, install
from infra.observability.__main__ import main
from infra.observability.prometheus import answers, write_configuration


def promtool(*words: str, folder: Path) -> str:
    done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_and_configuration_are_taken(tmp_path: Path) -> None:
    install(tmp_path)
    assert "SUCCESS" in promtool("check", "rules", "recording.yml", "alerts.yml", folder=RULES)
    write_configuration(tmp_path, [Target("city", "127.0.0.1:9464")])
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml", folder=tmp_path)


def test_each_alert_fires_on_what_it_is_for_and_a_well_city_is_quiet(tmp_path: Path) -> None:
    install(tmp_path)
    assert "SUCCESS" in promtool("test", "rules", "cases.test.yml", folder=RULES)


def test_the_command_serves_until_it_is_stopped_and_takes_its_server_along(tmp_path: Path) -> None:
    port = free_port()
    argv = [
        sys.executable,
        "-m",
        "infra.observability",
        "--state",
        str(tmp_path),
        "--port",
        str(port),
        "city=127.0.0.1:1",
    ]
    command = Native(Program("command", argv, partial(answers, port)), tmp_path)
    command.start()
    try:
        command.wait()
        end = time.monotonic() + 60
        while not (found := targets(port)) or "Prometheus: http" not in command.tail():
            assert time.monotonic() < end, command.tail()
            time.sleep(0.1)
        assert [(one["labels"]["process"], one["labels"]["job"]) for one in found] == [("city", "city")]
    finally:
        command.stop()
    assert not listens(port)


def targets(port: int) -> list[Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=20) as answer:
        found: list[Any] = json.loads(answer.read())["data"]["activeTargets"]
        return found


def test_a_target_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["metering:9464"])
    assert "write city=127.0.0.1:9464" in capsys.readouterr().err
