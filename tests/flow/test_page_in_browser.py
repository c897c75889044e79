"""The page of a report as a real browser shows it, on a wide and a narrow screen."""

import pytest

from bnnhw.flow.page import page
from tests.cost.browser import Browser
from tests.flow.test_page import EARLY, FULL


@pytest.fixture(scope="module")
def browser():
    result = Browser()
    yield result
    result.close()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("content", [FULL, EARLY], ids=["full", "early"])
def test_it_needs_no_network_and_is_no_wider_than_the_screen(browser, tmp_path, content, width):
    file = tmp_path / "report.html"
    file.write_text(page(content, "iceprog " + 9 * "a-long-folder/" + "top.bin"))
    browser.open(file, width, 900)
    assert not browser.console()
    assert {*browser.requests()} <= {file.as_uri()}
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_the_timeline_is_as_wide_as_its_cycles(browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page(FULL, ""))
    browser.open(file, 1280, 900)
    widths = browser.evaluate(
        "[...document.querySelectorAll('.line i')].map(e => e.getBoundingClientRect().width)"
    )
    assert [round(width / sum(widths), 2) for width in widths] == [0.6, 0.3, 0.1]
