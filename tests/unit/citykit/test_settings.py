"""Settings: known names, types and ranges; everything else is refused with what to do."""

from __future__ import annotations

import pytest

from citykit.errors import SettingsError
from citykit.settings import CitySettings, describe_settings, read_settings


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
