"""The page in a real browser: nothing goes wrong in its console, and every plot draws."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from archsmith.report.page import write_page
from archsmith.report.result import Result
from archsmith.report.searched import Aim, write_searched
from archsmith.report.story import Story
from tests.report.test_searched import SPACE, trials

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PLOTS = ("plot-front", "plot-macs", "plot-parameters", "plot-bytes", "plot-latency")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="Chromium and chromedriver are not on this machine"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    chrome.set_page_load_timeout(60)
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def whole(
    browser: webdriver.Chrome, result: Result, story: Story, tmp_path_factory: pytest.TempPathFactory
) -> webdriver.Chrome:
    """The browser with a whole page in it; loaded once, since plotly takes seconds."""
    look(browser)
    browser.get(write_page(result, story, tmp_path_factory.mktemp("run")).as_uri())
    return browser


def look(browser: webdriver.Chrome, width: int = 1200, scheme: str = "light") -> None:
    """Change the window's width and the colour scheme, as a user's device would."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)


def fits(browser: webdriver.Chrome, width: int) -> bool:
    """Nothing is wider than the window."""
    return bool(browser.execute_script("return document.documentElement.scrollWidth <= arguments[0]", width))


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (400, "dark"), (400, "light")])
def test_every_plot_draws_and_the_console_stays_silent(whole: webdriver.Chrome, width: int, scheme: str) -> None:
    look(whole, width, scheme)
    WebDriverWait(whole, 20).until(lambda chrome: fits(chrome, width))
    for plot in PLOTS:
        place = whole.find_element(By.ID, plot)
        svg = place.find_element(By.CSS_SELECTOR, "svg.main-svg")
        assert 200 < svg.size["width"] <= width and svg.size["height"] > 150, plot
        assert len(place.find_elements(By.CSS_SELECTOR, ".scatterlayer path.point")) >= 3, plot
    assert whole.get_log("browser") == []


@pytest.mark.parametrize("width", [1200, 700, 400, 340])
def test_the_page_never_scrolls_sideways(whole: webdriver.Chrome, width: int) -> None:
    look(whole, width)
    WebDriverWait(whole, 20).until(lambda chrome: fits(chrome, width))


def test_dark_and_light_differ_and_both_can_be_read(whole: webdriver.Chrome) -> None:
    papers, inks = set(), set()
    for scheme in ("light", "dark"):
        look(whole, scheme=scheme)
        colours = whole.execute_script("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        paper, ink = (sum(map(int, colour[4:-1].split(", "))) for colour in colours)
        assert abs(paper - ink) > 450
        papers.add(paper)
        tick = whole.find_element(By.CSS_SELECTOR, "#plot-front .xtick text")
        inks.add(WebDriverWait(whole, 20).until(lambda _, tick=tick: tick.value_of_css_property("fill")))
    assert len(papers) == 2 and len(inks) == 2


def test_the_page_asks_for_nothing_beyond_itself(whole: webdriver.Chrome) -> None:
    asked = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert [name for name in whole.execute_script(asked) if not name.startswith("data:")] == []


def test_pointing_at_the_front_tells_the_architecture(whole: webdriver.Chrome) -> None:
    look(whole)
    whole.execute_script("Plotly.Fx.hover('plot-front', [{curveNumber: 1, pointNumber: 2}])")
    hover = WebDriverWait(whole, 20).until(
        lambda chrome: chrome.find_element(By.CSS_SELECTOR, "#plot-front .hovertext")
    )
    assert "bert.encoder.layer.0.attention.heads = 6" in hover.text.replace("\xa0", " ")


def test_a_page_of_a_run_without_parts_opens_silently(browser: webdriver.Chrome, bare: Result, tmp_path: Path) -> None:
    browser.get(write_page(bare, Story(), tmp_path).as_uri())
    assert browser.find_element(By.ID, "ladder").is_displayed()
    assert browser.get_log("browser") == []


def test_names_of_the_user_are_shown_and_never_run(browser: webdriver.Chrome, bare: Result, tmp_path: Path) -> None:
    hostile = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
    named = replace(bare, original=replace(bare.original, name=hostile), ladder=(replace(bare.original, name=hostile),))
    browser.get(write_page(named, Story(title=hostile), tmp_path).as_uri())
    assert browser.title.startswith(hostile)
    assert browser.find_element(By.TAG_NAME, "h1").text == hostile


@pytest.mark.parametrize("objectives", [["loss"], ["loss", "ms"]])
def test_a_search_is_drawn_in_its_own_page_and_in_the_report(
    browser: webdriver.Chrome, bare: Result, tmp_path: Path, objectives: list[str]
) -> None:
    look(browser, 400, "dark")
    pages = [
        write_searched(trials(40), SPACE, tmp_path, Aim("a", tuple(objectives))),
        write_page(bare, Story(), tmp_path),
    ]
    for page in pages:
        browser.get(page.as_uri())
        for plot in ("plot-tried", *(["plot-tried-front"] if len(objectives) > 1 else [])):
            dots = browser.find_elements(By.CSS_SELECTOR, f"#{plot} .scatterlayer path.point")
            assert len(dots) >= 41, plot  # all trials, and the best
        WebDriverWait(browser, 20).until(lambda chrome: fits(chrome, 400))
        assert browser.get_log("browser") == []
