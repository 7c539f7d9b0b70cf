"""The paths of C2SP tlog-tiles."""

from __future__ import annotations

import pytest

from services.notary.domain import PathError, TilePath, origin_of, parse_tile_path, tile_exists, tile_number


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/000", TilePath(0, 0, 256)),
        ("tile/1/067", TilePath(1, 67, 256)),
        ("tile/0/x001/x234/067", TilePath(0, 1_234_067, 256)),
        ("tile/0/x001/000.p/7", TilePath(0, 1_000, 7)),
        ("tile/entries/x002/345.p/255", TilePath(None, 2_345, 255)),
    ],
)
def test_a_tile_and_its_path(path: str, tile: TilePath) -> None:
    assert parse_tile_path(path) == tile
    assert tile_number(tile.number) in path


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0", "tile/0/0", "tile/0/0000", "tile/00/000", "tile/-1/000", "tile/6/000", "tile/x/000", "tile/0/001/000",
        "tile/0/x000/001", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/x", "tile/0/..", "other/0/000", "tile/0/١٢٣",
    ],
)  # fmt: skip
def test_any_other_path_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        parse_tile_path(path)


def test_which_tiles_a_log_has() -> None:
    assert tile_exists(TilePath(0, 0, 256), 256)
    assert not tile_exists(TilePath(0, 0, 256), 255)
    assert tile_exists(TilePath(None, 1, 44), 300)
    assert tile_exists(TilePath(1, 0, 1), 300)
    assert not tile_exists(TilePath(1, 0, 2), 300)


def test_an_origin_is_the_city_and_the_log() -> None:
    assert origin_of("provable.city/demo", "metering.readings") == "provable.city/demo/metering.readings"
