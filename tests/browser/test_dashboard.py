"""The dashboard in headless chromium over fake services: what it shows, and that it is readable, usable and quiet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from citykit import errors
from citykit.settings import CitySettings, GeneralSettings
from tests.browser.conftest import Open
from tests.system.fake_verifier import STEPS
from tests.system.fakes import FakeCity, write_demo_logins
from tests.system.serving import fake_city_in_thread

pytestmark = pytest.mark.browser
Site = tuple[str, FakeCity]
LOOKS = Path(__file__).with_name("looks.js").read_text(encoding="utf-8")


def ready(page: Page) -> Page:
    """Once everything that comes has come."""
    expect(page.locator("#check-button")).to_be_enabled()
    expect(page.locator("#usage-chart svg")).to_be_visible()
    expect(page.locator("#accesses li")).not_to_have_count(0)
    expect(page.locator("#quarantine li")).not_to_have_count(0)
    expect(page.locator("#faults input")).not_to_have_count(0)
    expect(page.locator("#map .meter.quarantined")).not_to_have_count(0)
    expect(page.locator("#logs .log")).to_have_count(3)
    expect(page.locator("#load-chart svg")).to_be_visible()
    expect(page.locator("#lot-chart svg")).to_be_visible()
    expect(page.locator("#find-pay-field")).to_be_visible()
    expect(page.locator("#payments li")).not_to_have_count(0)
    return page


def check(page: Page) -> None:
    page.locator("#check-button").click()
    expect(page.locator("#check-result.verdict")).to_be_visible()


def test_it_shows_the_city_and_asks_no_other_host(site: Site, visit: Open) -> None:
    url, _ = site
    seen = visit(url)
    page = ready(seen.page)
    expect(page.locator("#clock")).to_have_text("Tue, 8 Nov 2016, 12:00")
    expect(page.locator("#speed")).to_have_text("replay at 900\u00d7 speed")
    expect(page.locator("#provenance")).to_contain_text("shifted by 515 weeks")
    expect(page.locator("#attributions")).to_contain_text("CC BY 4.0")
    expect(page.locator("#tile-load")).to_have_text("27 kW")
    expect(page.locator("#tile-quarantine")).to_have_text("3")
    expect(page.locator("#logs")).to_contain_text("anchored at")
    expect(page.locator("#quarantine")).to_contain_text("9820 Wh in the slot at 8 Nov, 07:00")
    expect(page.locator("#refusals")).to_contain_text("bad-signature")
    expect(page.locator("#home-who")).to_contain_text("Ada")
    expect(page.locator("#accesses")).to_contain_text("operator at metering")
    check(page)
    assert seen.hosts == {url.removeprefix("http://")}
    assert seen.errors == []


def test_kinds_of_meters_differ_in_shape_and_the_list_says_the_same(site: Site, visit: Open) -> None:
    page = ready(visit(site[0]).page)
    shapes = {
        kind: page.locator(f"#map .meter.{kind} > :nth-child(2)").first.evaluate("node => node.tagName")
        for kind in ("measured", "simulated", "quarantined")
    }
    assert len(set(shapes.values())) == 3
    assert page.locator("#map g.meter").count() == page.locator("#meter-list [role=option]").count() == 100
    expect(page.locator("#map-legend li")).to_have_text(
        ["In quarantine (3)", "Measured (open data, replayed) (4)", "Simulated (93)"]
    )
    expect(page.locator("#city .map-card")).to_contain_text("Positions are simulated")


def test_a_bill_is_checked_step_by_step(site: Site, visit: Open) -> None:
    page = ready(visit(site[0]).page)
    expect(page.locator("#bill .amount")).to_have_text("£47.11")
    expect(page.locator("#bill tbody tr")).to_have_count(6)
    check(page)
    expect(page.locator("#check-result")).to_have_text(f"All {len(STEPS)} steps hold.")
    expect(page.locator("#check-steps li")).to_have_count(len(STEPS))
    expect(page.locator("#check-steps .mark.bad")).to_have_count(0)
    expect(page.locator("#check-note")).to_contain_text("a demonstration")
    expect(page.locator("#check-note pre")).to_have_text("python -m verifier bundle.json --trust trust.json")
    assert page.evaluate("document.activeElement.id") == "check-title"


def test_a_failed_step_is_named(site: Site, visit: Open) -> None:
    url, city = site
    page = ready(visit(url).page)
    city.calls.bundle = "broken"
    check(page)
    expect(page.locator("#check-result")).to_have_text(f"1 of {len(STEPS)} steps fail.")
    expect(page.locator("#check-steps .mark.bad")).to_have_text(["FAIL"])
    expect(page.locator("#check-steps li:has(.mark.bad)")).to_contain_text("The device signed each package")


@pytest.mark.parametrize(
    ("name", "filename", "start"),
    [
        ("Proof bundle", "bundle.json", '{"format": "city.bundle.v1"'),
        ("Trust file", "trust.json", '{"city"'),
        ("Green Button (XML)", "green-button.xml", "<?xml"),
    ],
)
def test_files_can_be_saved(site: Site, visit: Open, name: str, filename: str, start: str) -> None:
    page = ready(visit(site[0]).page)
    with page.expect_download() as saved:
        page.get_by_role("button", name=name).click()
    assert saved.value.suggested_filename == filename
    assert Path(saved.value.path()).read_text(encoding="utf-8").startswith(start)


def test_usage_can_be_seen_by_day_week_and_month(site: Site, visit: Open) -> None:
    url, city = site
    page = ready(visit(url).page)
    for name, bars, resolution in (("Week", 168, "hour"), ("5 weeks", 36, "day"), ("Day", 48, "slot")):
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.locator("#usage-chart .bar")).to_have_count(bars)
        assert city.calls.of("GetUsage")[-1].resolution == resolution
    expect(page.locator("#usage-chart .bar.estimated")).not_to_have_count(0)
    before = page.locator("#usage-span").inner_text()
    page.get_by_role("button", name="Earlier").click()
    expect(page.locator("#usage-span")).not_to_have_text(before)
    page.get_by_role("button", name="Later").click()
    expect(page.locator("#usage-span")).to_have_text(before)
    expect(page.get_by_role("button", name="Later")).to_be_disabled()


def test_faults_are_switched_by_an_operator(site: Site, visit: Open) -> None:
    url, city = site
    page = ready(visit(url).page)
    page.get_by_role("switch", name="stuck").check()
    expect(page.locator("#faults .acts", has_text="meter-0017")).to_be_visible()
    assert list(city.calls.of("SetFaults")[-1].faults) == ["stuck"]
    page.get_by_role("switch", name="stuck").uncheck()
    expect(page.locator("#faults .acts", has_text="meter-0017")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_contrast_and_width(site: Site, visit: Open, width: int, scheme: str) -> None:
    seen = visit(site[0], width, scheme)
    page = ready(seen.page)
    check(page)
    page.locator("#load-chart summary").click()
    page.locator("#find-button").click()
    page.get_by_role("button", name="Reserve", exact=True).first.click()
    expect(page.locator("#reservation-tag")).to_have_text("confirmed")
    measured = page.evaluate(LOOKS)
    assert len(measured) > 300
    poor = [
        f"{item['text']}: {item['ratio']:.2f} < {item['least']}" for item in measured if item["ratio"] < item["least"]
    ]
    assert poor == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert seen.errors == []


def test_narrow_phones_do_not_scroll_sideways(site: Site, visit: Open) -> None:
    page = ready(visit(site[0], 320).page)
    check(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 320


FOCUSED = """() => {
  const node = document.activeElement;
  const style = getComputedStyle(node);
  const name = node.getAttribute("aria-label") || node.textContent.trim() || (node.labels?.[0]?.textContent ?? "") ||
    (node.getAttribute("aria-labelledby") ? document.getElementById(node.getAttribute("aria-labelledby")).textContent : "");
  return { tag: node.tagName, id: node.id, name: name.slice(0, 40), outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 };
}"""


def stops_of(page: Page) -> list[dict[str, Any]]:
    """Every stop of the Tab key, from the start of the page until it leaves it."""
    page.evaluate("document.activeElement.blur()")
    stops: list[dict[str, Any]] = []
    for _ in range(120):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop["tag"] == "BODY":
            return stops
        stops.append(stop)
    raise AssertionError("Tab never leaves the page")


def test_everything_is_reached_and_named_by_keyboard(site: Site, visit: Open) -> None:
    page = ready(visit(site[0]).page)
    check(page)
    page.evaluate("window.scrollTo(0, 0)")
    page.reload()
    ready(page)
    stops = stops_of(page)
    assert stops[0]["name"] == "Skip to content"
    assert [stop for stop in stops if not stop["outlined"] or not stop["name"]] == []
    reached = {stop["id"] for stop in stops} | {stop["name"] for stop in stops}
    assert {"meter-list", "check-button", "Week", "Earlier", "Proof bundle", "Green Button (XML)"} <= reached
    switches = page.locator("#faults input").count()
    assert sum(stop["tag"] == "INPUT" for stop in stops) == switches
    assert len(stops) < 60, "the map is one stop, not a hundred"


def test_lists_charts_and_switches_work_by_keyboard(site: Site, visit: Open) -> None:
    page = ready(visit(site[0]).page)
    page.locator("#meter-list").focus()
    for key, chosen in (("ArrowDown", "mp-0017"), ("End", "mp-0100"), ("Home", "mp-0017"), ("ArrowDown", "mp-0042")):
        page.keyboard.press(key)
        expect(page.locator("#meter-list [aria-selected=true]")).to_contain_text(chosen)
    expect(page.locator("#meter-detail")).to_contain_text("in quarantine: spike")
    expect(page.locator("#map .meter.chosen")).to_have_count(1)
    page.locator("#load-chart svg").focus()
    page.keyboard.press("Home")
    expect(page.locator("#load-chart .readout")).to_contain_text("6 Nov, 12:00")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#load-chart .readout")).to_contain_text("6 Nov, 12:30")
    page.get_by_role("switch", name="flood").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("switch", name="flood")).to_be_checked()


def test_a_chart_is_also_a_table(site: Site, visit: Open) -> None:
    page = ready(visit(site[0]).page)
    page.locator("#usage-chart summary").click()
    expect(page.locator("#usage-chart tbody tr")).to_have_count(48)
    expect(page.locator("#usage-chart tbody")).to_contain_text("estimated (missing)")


def test_the_backfill_is_shown(site: Site, visit: Open) -> None:
    url, city = site
    city.calls.phase = "backfill"
    page = visit(url, motion="reduce").page
    expect(page.locator("#backfill")).to_be_visible()
    expect(page.locator("#backfill-text")).to_contain_text("packages so far")
    assert page.locator(".runner").evaluate("node => getComputedStyle(node).animationName") == "none"
    city.calls.phase = "live"
    expect(page.locator("#backfill")).to_be_hidden()


def test_a_city_that_still_starts_opens_by_itself(tmp_path: Path, visit: Open) -> None:
    with fake_city_in_thread(tmp_path) as (url, city):
        (city.directory / "demo-logins.json").unlink()
        page = visit(url).page
        expect(page.locator("#home-state")).to_contain_text("still starting")
        write_demo_logins(city.directory)
        ready(page)


def test_a_part_that_is_away_says_so_and_comes_back(site: Site, visit: Open) -> None:
    url, city = site
    city.calls.errors["GetUsage"] = errors.Unavailable("metering is away for now; try again in a few seconds")
    page = visit(url).page
    while len(city.calls.of("GetUsage")) < 2:  # at the start and with the first slot; the clock stands still after
        page.wait_for_timeout(20)
    expect(page.locator("#usage-chart .notice")).to_contain_text("metering is away for now")
    city.calls.errors.clear()
    page.locator("#usage-chart").get_by_role("button", name="Try again").click()
    expect(page.locator("#usage-chart svg")).to_be_visible()


def test_a_lost_connection_is_said_and_mended(tmp_path: Path, visit: Open) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with fake_city_in_thread(tmp_path / "a") as (url, _):
        page = ready(visit(url).page)
        expect(page.locator("#connection")).to_be_hidden()
    expect(page.locator("#connection")).to_contain_text("Connection lost")
    with fake_city_in_thread(tmp_path / "b", port=int(url.rpartition(":")[2])):
        expect(page.locator("#connection")).to_be_hidden()


def test_the_login_page_is_readable_and_needs_no_script(site: Site, visit: Open) -> None:
    asked = "response_type=code&client_id=energy-app&redirect_uri=https://app.example/&code_challenge=" + "a" * 43
    for scheme in ("light", "dark"):
        seen = visit(f"{site[0]}/oidc/authorize?{asked}", 390, scheme)
        measured = seen.page.evaluate(LOOKS)
        assert [item for item in measured if item["ratio"] < item["least"]] == []
        expect(seen.page.locator("#login")).to_be_focused()
        assert seen.page.locator("script").count() == 0
        assert seen.errors == []


def test_signing_in_outside_a_demo(tmp_path: Path, visit: Open) -> None:
    settings = replace(CitySettings(), general=GeneralSettings(mode="embedded"))
    with fake_city_in_thread(tmp_path, settings) as (url, city):
        seen = visit(url)
        page = seen.page
        expect(page.locator("#home-state")).to_contain_text("Sign in to see")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("Login").fill("ada")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("is wrong")
        page.get_by_label("Login").fill("ada")
        page.get_by_label("Password").fill("a password for resident:ada")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#bill .amount")).to_have_text("£47.11")
        expect(page.locator("#control-state")).to_contain_text("For operators")
        expect(page.locator("#sign-in")).to_be_hidden()
        assert page.url == f"{url}/"
        assert "fake" not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")
        check(page)
        assert not [rpc for rpc, _ in city.calls.requests if rpc == "SetFaults"]
        assert [text for text in seen.errors if "401" not in text] == [], "the wrong login is a 401"
