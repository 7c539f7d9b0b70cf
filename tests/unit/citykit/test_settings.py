"""Settings: known names, types and ranges; everything else is refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from citykit.errors import SettingsError
from citykit.settings import (
    CitySettings,
    as_environment,
    describe_settings,
    for_service,
    read_settings,
    settings_file,
)


def test_nothing_set_means_the_defaults() -> None:
    assert read_settings({"HOME": "/x", "PATH": "/y"}) == CitySettings()


def test_a_setting_is_read_with_its_type() -> None:
    settings = read_settings({"CITY_BUS_PARTITIONS": "8", "CITY_NOTARY_ANCHOR_INTERVAL_S": "0.5"})
    assert (settings.bus.partitions, settings.notary.anchor_interval_s) == (8, 0.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CITY_BUS_PARTITION", "8", "unknown setting CITY_BUS_PARTITION"),
        ("CITY_NOPE", "8", "city settings"),
        ("CITY_BUS_PARTITIONS", "many", "type int"),
        ("CITY_BUS_PARTITIONS", "0", "between 1 and 256"),
        ("CITY_BUS_PARTITIONS", "257", "between 1 and 256"),
        ("CITY_STORE_OUTBOX_MAX", "0", "between 1 and None"),
    ],
)
def test_what_is_wrong_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings({name: value})


def test_every_setting_has_a_reason() -> None:
    rows = describe_settings()
    assert len(rows) > 10
    assert all(why for _, _, why in rows)


def test_settings_go_through_a_file_unchanged(tmp_path: Path) -> None:
    environment = {"CITY_BUS_PARTITIONS": "8", "CITY_GENERAL_CITY": "a=b", "CITY_NOTARY_ANCHOR_INTERVAL_S": "0.5"}
    settings = read_settings(environment)
    assert as_environment(settings) == environment
    assert as_environment(CitySettings()) == {}
    file = tmp_path / "settings.env"
    file.write_text(
        "# a remark\n\n" + "".join(f"{name}={value}\n" for name, value in environment.items()), encoding="utf-8"
    )
    assert read_settings(settings_file(file)) == settings


@pytest.mark.parametrize("line", ["CITY_BUS_PARTITIONS", "PATH=/bin", "export CITY_BUS_PARTITIONS=8"])
def test_a_settings_file_of_another_form_names_the_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "settings.env"
    file.write_text(f"CITY_BUS_PARTITIONS=8\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="line 2 of"):
        settings_file(file)
    with pytest.raises(SettingsError, match="`make up` writes one"):
        settings_file(tmp_path / "none")


def test_a_process_gets_its_own_files_by_its_name() -> None:
    settings = read_settings({"CITY_KAFKA_CERTIFICATES": "/c/{service}", "CITY_SERVICES_CERTIFICATES": "/c/{service}"})
    own = for_service(settings, "metering")
    assert own.kafka.certificates == "/c/metering"
    assert own.services.certificates == "/c/{service}"
    assert own.bus == settings.bus
