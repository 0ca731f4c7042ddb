"""The report, looked at by a browser that has no network."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from flows.report.page import write_report
from schemas.errors import FactoryError
from schemas.recipe.settings import WarehouseSettings
from tests.browser import requested_urls
from tests.flows.report_rows import REASON, STEPS, fill_report_lake
from tests.warehouse.small_build import CONFIG_ID
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake

ATTACK = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory) -> WarehouseSettings:
    """A build with a policy; every answer holds a script."""
    return fill_report_lake(tmp_path_factory.mktemp("report"), text=ATTACK).warehouse


@pytest.fixture(scope="module")
def page(warehouse, tmp_path_factory) -> Path:
    return write_report(warehouse, None, tmp_path_factory.mktemp("page") / "report.html")


def texts(browser, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


def test_the_page_asks_for_nothing_and_logs_nothing(open_page, page):
    browser = open_page(page)
    assert browser.title == "small: report"
    assert requested_urls(browser) == [page.as_uri()]
    assert browser.get_log("browser") == []


def test_what_people_wrote_stays_text(open_page, page):
    browser = open_page(page)
    assert browser.title == "small: report"
    assert ATTACK in browser.find_element("css selector", "#pairs").text
    assert browser.find_elements("css selector", "main script, main img") == []
    assert "<script>document.title = 'rejected'</script>" in browser.find_element("css selector", "#counts").text


def test_every_step_is_a_stair(open_page, page):
    browser = open_page(page)
    for chart, num_steps in (("win-rate", 4), ("reward", 5), ("num-tokens", 5)):
        stairs = browser.find_elements("css selector", f"svg#{chart} [id^='{chart}-step-']")
        assert len(stairs) == num_steps
        assert all(stair.size["width"] > 0 for stair in stairs)
    assert {"40.0%", "50.0%", "60.0%", "70.0%", "online_2 (stopped)"} <= set(texts(browser, "svg#win-rate text"))
    rows = texts(browser, "#steps tbody tr")
    assert [row.split()[0] for row in rows] == list(STEPS)
    assert f"stopped: {REASON}" in rows[-1]
    assert "60.0% 54–66" in rows[3]


def test_win_rates_are_those_of_the_last_kept_step(open_page, page):
    browser = open_page(page)
    assert "after online_1, the last step" in browser.find_element("css selector", "#languages").text
    row = texts(browser, "#languages tbody tr")[0].split()
    assert row == ["Arabic", "21", "5", "14", "52.5%", "46–58", "56.5%", "90.0%", "80.0%", "255.0", "58.0"]
    parts = browser.find_elements("css selector", "#languages tbody tr:first-child .bar i")
    widths = [part.size["width"] for part in parts]
    assert [width / sum(widths) for width in widths] == pytest.approx([21 / 40, 5 / 40, 14 / 40], abs=0.02)


def test_tables_sort(open_page, page):
    browser = open_page(page)
    (head,) = [head for head in browser.find_elements("css selector", "#languages th") if head.text == "wins"]
    head.click()
    head.click()
    wins = [int(row.split()[1]) for row in texts(browser, "#languages tbody tr")]
    assert wins == sorted(wins, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"


def test_the_heat_map_is_the_view(open_page, page, warehouse):
    with Lake.open(warehouse, read_only=True) as lake:
        scope = Scope.open(lake, CONFIG_ID)
        expected = {
            (language, teacher): share
            for language, teacher, share in scope.query(
                "SELECT language, teacher, win_share FROM arbitrage"
            ).iter_rows()
        }
    browser = open_page(page)
    cells = browser.find_elements("css selector", ".heat td[data-share]")
    found = {(cell.get_attribute("data-language"), cell.get_attribute("data-teacher")): cell for cell in cells}
    assert found.keys() == expected.keys()
    assert {place: cell.text for place, cell in found.items()} == {
        place: f"{share:.0%}" for place, share in expected.items()
    }
    assert [found["ja", name].value_of_css_property("background-color") for name in ("able", "bold")] == [
        found["ar", name].value_of_css_property("background-color") for name in ("able", "bold")
    ]
    assert len({cell.value_of_css_property("background-color") for cell in cells}) == len(set(expected.values()))


def test_right_to_left_text_runs_right_to_left(open_page, page):
    browser = open_page(page)
    directions = {
        element.get_attribute("lang"): element.value_of_css_property("direction")
        for element in browser.find_elements("css selector", ".asked .text")
    }
    assert directions == {"ar": "rtl", "hi": "ltr", "en": "ltr"}
    prompt = browser.find_element("css selector", ".asked .text[lang=ar]")
    assert prompt.text.startswith("ما هو الرقم")


def test_curves_are_those_of_the_runs(open_page, page):
    browser = open_page(page)
    assert len(browser.find_elements("css selector", "#curve-loss, #curve-accuracy, #curve-grad-norm")) == 3
    section = browser.find_element("css selector", "#training").text
    assert "The metrics of online_1 · gone are gone." in section
    assert texts(browser, "#training .facts") == ["sftofflineonline_2"]
    assert texts(browser, "#training tbody tr")[0].split() == ["sft", "east", "40", "12,345", "6.500"]
    lines = browser.find_elements("css selector", "#curve-loss path[style*='--series-0'][style*='1.4']")
    assert len(lines) == 4, "two clusters, each trained and held out"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_every_screen(open_page, page, scheme, width):
    browser = open_page(page)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preference = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", preference)
    try:
        assert browser.execute_script(
            "const { scrollWidth: all, clientWidth: seen } = document.documentElement; return all <= seen"
        )
        colour = browser.find_element("css selector", "body").value_of_css_property("background-color")
        assert (sum(map(int, colour[5:].rstrip(")").split(",")[:3])) < 300) == (scheme == "dark")
        text = browser.find_element("css selector", "svg#win-rate text")
        assert text.value_of_css_property("fill") != "rgb(0, 0, 0)"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_build_without_a_policy_has_a_page(open_page, tmp_path, monkeypatch, capsys):
    recipe = fill_report_lake(tmp_path, has_policy=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["factory", "report", "--build", recipe.name, "-o", "pages/small.html"])
    cli.main()
    assert capsys.readouterr().out == "pages/small.html\n"
    browser = open_page(tmp_path / "pages/small.html")
    assert "No policy has been trained on this build yet." in browser.find_element("css selector", "#steps").text
    assert "No training run belongs to this build." in browser.find_element("css selector", "#training").text
    assert browser.find_elements("css selector", ".heat td[data-share]")
    assert requested_urls(browser) == [(tmp_path / "pages/small.html").as_uri()]
    assert browser.get_log("browser") == []


def make_figures() -> dict[str, Any]:
    """Figures as `factory evaluate winrate` writes them."""
    rate = {"win_rate": 0.6, "win_rate_low": 0.4, "win_rate_high": 0.75, "length_controlled": 0.55}
    counts = {"num_wins": 12, "num_losses": 6, "num_ties": 2, "num_unreadable": 3, "num_unjudged": 1}
    answers = {"num_answers": 12, "lpr": 0.95, "wpr": None, "mean_chars": 88.5, "mean_tokens": None}
    return {
        "name": "games",
        "num_prompts": 12,
        "models": [{"name": "policy<script>"}, {"name": "gemma"}],
        "judge": {"kind": "llm", "model": "tiny", "scale": "arena", "output": "json"},
        "rates": [{"language": language, **counts, **rate} for language in ("ar", "all")],
        "answers": [{"language": "ar", "model": name, **answers} for name in ("policy<script>", "gemma")],
    }


def test_evaluations_are_shown_even_where_no_build_has_run(open_page, tmp_path, monkeypatch, capsys):
    (tmp_path / "games.json").write_text(json.dumps(make_figures()))
    (tmp_path / "else.json").write_text("[1]")
    settings = WarehouseSettings(catalog=str(tmp_path / "lake/catalog.sqlite"), data=str(tmp_path / "lake/data"))
    Lake.open(settings).close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["factory", "report", "--evaluation", "games.json"])
    cli.main()
    assert capsys.readouterr().out == "report.html\n"
    browser = open_page(tmp_path / "report.html")
    assert browser.title == "games: report"
    section = browser.find_element("css selector", "#evaluations").text
    assert "policy<script> against gemma games: 12 prompts, judged by tiny on the arena scale, in json" in section
    rows = [row.split() for row in texts(browser, "#evaluations tbody tr")]
    assert rows[0] == ["Arabic", "12", "2", "6", "3", "1", "60.0%", "40–75", "55.0%"]
    assert rows[3] == ["Arabic", "gemma", "12", "95.0%", "–", "88.5", "–"]
    assert browser.get_log("browser") == []
    with pytest.raises(FactoryError, match=r"else\.json holds no figures of an evaluation"):
        write_report(settings, None, tmp_path / "else.html", evaluations=[tmp_path / "else.json"])


def test_a_warehouse_without_a_build_is_a_sentence(tmp_path):
    settings = WarehouseSettings(catalog=str(tmp_path / "catalog.sqlite"), data=str(tmp_path / "data"))
    Lake.open(settings).close()
    with pytest.raises(FactoryError, match="no build has run on this warehouse yet"):
        write_report(settings, None, tmp_path / "report.html")
