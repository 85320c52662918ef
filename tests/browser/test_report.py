"""The HTML report in a real browser. Skipped, visibly, where there is no chromium."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from blackstart.report.html import Html
from blackstart.testing.samples import sample_run, write_histories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium or chromedriver on this machine: report not opened",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the sample report."""
    folder = tmp_path_factory.mktemp("report")
    run = sample_run(folder)
    write_histories(run.trials, folder)
    (path,) = Html().render(run, folder)
    return path


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Any]:
    """Start headless Chromium with console and network logs, and open the report."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    try:
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


def test_it_opens_without_errors_and_without_network(browser: Any, page: Path) -> None:
    """The console is empty, and the only thing that was loaded is the file itself."""
    assert browser.get_log("browser") == []
    messages = [entry["message"] for entry in browser.get_log("performance")]
    asked = [text for text in messages if '"Network.requestWillBeSent"' in text]
    foreign = [text for text in asked if page.as_uri() not in text and "data:," not in text]
    assert asked
    assert foreign == []


def test_every_trial_is_drawn(browser: Any) -> None:
    """Each trial has its section, those with an outage a bar, those with a flow an area with size."""
    assert len(browser.find_elements(By.CSS_SELECTOR, "section.trial")) == 6
    assert len(browser.find_elements(By.CSS_SELECTOR, "svg .area")) == 5
    sizes = [element.size for element in browser.find_elements(By.CSS_SELECTOR, "svg .seg")]
    assert len(sizes) > 10
    assert all(size["width"] > 0 and size["height"] > 20 for size in sizes)


def test_nothing_is_wider_than_the_page(browser: Any) -> None:
    """No horizontal scrolling on a laptop, nor on a phone."""
    for width in (1200, 420):
        browser.set_window_size(width, 900)
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), width
    browser.set_window_size(1200, 900)


def test_summary_links_lead_to_the_trials(browser: Any) -> None:
    """A click in the table brings the trial into view."""
    browser.find_element(By.CSS_SELECTOR, 'a[href="#trial-R33"]').click()
    assert browser.execute_script("return location.hash") == "#trial-R33"


def test_it_works_without_a_mouse(browser: Any) -> None:
    """The key j goes to the next trial, and a fold opens with the keyboard."""
    browser.execute_script("scrollTo(0, 0)")
    browser.find_element(By.TAG_NAME, "body").send_keys("j")
    focused = browser.execute_script("return document.activeElement.id")
    assert focused == "trial-R1"
    fold = browser.find_element(By.CSS_SELECTOR, "section.trial details")
    before = fold.get_attribute("open")
    fold.find_element(By.TAG_NAME, "summary").send_keys(Keys.SPACE)
    assert fold.get_attribute("open") != before


def test_dark_and_light_can_be_chosen(browser: Any) -> None:
    """The button changes the background of the page."""
    script = "return getComputedStyle(document.body).backgroundColor"
    before = browser.execute_script(script)
    browser.find_element(By.ID, "theme").send_keys(Keys.ENTER)
    assert browser.execute_script(script) != before


def test_all_folds_open_for_print(browser: Any) -> None:
    """What is folded on the screen is on paper."""
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return [...document.querySelectorAll('details')].every(d => d.open)")
