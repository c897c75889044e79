"""The page of costs as a real browser shows it: from a file, on a wide and a narrow screen."""

from __future__ import annotations

import re

import pytest

from bnnhw.cost.charts import bars, plots
from bnnhw.cost.page import page
from bnnhw.cost.tables import FIGURES
from tests.cost.browser import Browser
from tests.cost.measuring import every_method

WIDTHS = (1280, 400)
HEADS = "[...document.querySelector('thead tr').cells]"
CONTRAST = 4.5  # of text, by WCAG 2.2 AA
BOXES = """
(selector => [...document.querySelectorAll(selector)].map(e => {
  const r = e.getBoundingClientRect();
  return [e.textContent.trim(), r.left, r.top, r.right, r.bottom];
}))
"""


@pytest.fixture(scope="module")
def browser():
    result = Browser()
    yield result
    result.close()


@pytest.fixture(scope="module")
def content():
    return every_method()


@pytest.fixture(scope="module")
def file(content, tmp_path_factory):
    result = tmp_path_factory.mktemp("page") / "repair-cost.html"
    result.write_text(page(content))
    return result


def test_the_browser_sees_what_the_next_tests_look_for(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><div style='width: 900px'>wide</div><img src='http://192.0.2.1/x.png'>"
        "<script>undefined.name</script>"
    )
    browser.open(bad, 400, 800)
    (said,) = browser.console()
    assert said.startswith("ErrorMessageLevel: Uncaught TypeError")
    browser.wait("document.readyState === 'complete'")
    assert "http://192.0.2.1/x.png" in browser.requests()
    assert browser.evaluate("document.documentElement.scrollWidth") > 900


@pytest.mark.parametrize("width", WIDTHS)
def test_it_needs_no_network_and_is_no_wider_than_the_screen(browser, file, width):
    browser.open(file, width, 900)
    assert browser.console() == [] and browser.requests() == [file.as_uri()]
    assert browser.evaluate("innerWidth") == width
    page, window, table, box = browser.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth,"
        " document.querySelector('table').offsetWidth,"
        " document.querySelector('.wide').clientWidth]"
    )
    assert page <= window and box < window
    assert table > box or width > 400  # it scrolls in its own box


def test_every_difference_has_a_bar_and_every_trained_method_a_point(browser, file, content):
    browser.open(file, 1280, 900)
    table = content["methods"]
    expected = [chart for name in FIGURES if (chart := bars(table, name)) and chart["marks"]]
    counts = browser.evaluate(
        "[...document.querySelectorAll('.bars')].map(e => e.querySelectorAll('.bar').length)"
    )
    assert counts == [len(chart["marks"]) for chart in expected] and len(counts) >= 4
    longest = browser.evaluate(
        "[...document.querySelectorAll('.bars')].map(list => Math.max(...[...list.querySelectorAll("
        "'.bar')].map(e => e.offsetWidth / e.parentElement.offsetWidth)))"
    )
    assert all(0.3 < share <= 1.01 for share in longest)
    drawn = browser.evaluate(
        "[...document.querySelectorAll('svg')].map(e => [e.querySelectorAll('circle').length,"
        " e.querySelectorAll('.best').length, e.querySelectorAll('.base').length])"
    )
    charts = plots(table)
    assert [chart["title"] for chart in charts] == ["LC", "cycles", "energy, µJ, estimate"]
    assert drawn == [[len(c["marks"]), len(c["best"]), 1] for c in charts]
    trained = sum(entry["accuracy"] is not None for entry in table)
    methods = [method for mark in charts[0]["marks"] for method in mark["methods"]]
    assert len(methods) == trained < len(table)


@pytest.mark.parametrize("width", WIDTHS)
def test_several_methods_in_one_name_leave_room_for_bars_and_values(
    browser, content, tmp_path, width
):
    """Such a name may be broken at its plus signs, and at no other place."""
    names = ["teacher_student=logits+double_residual=on", "feature_normalization=bn-before"]
    changed = [entry for entry in content["methods"] if entry.get("delta")]
    longer = [entry | dict(method=name) for entry, name in zip(changed, names, strict=False)]
    methods = [entry for entry in content["methods"] if entry not in changed[:2]]
    file = tmp_path / "long.html"
    file.write_text(page(content | dict(methods=[methods[0], *longer, *methods[1:]])))
    browser.open(file, width, 900)
    assert browser.evaluate(
        "[...document.querySelectorAll('.bars')].every(list => [...list.querySelectorAll('.value')]"
        ".every(e => e.getBoundingClientRect().right <= list.getBoundingClientRect().right + 1))"
    )
    heights = browser.evaluate(
        "[...document.querySelectorAll('.part')].map(e => e.getClientRects().length)"
    )
    assert set(heights) == {1}
    assert any("+" in text for text, *_ in browser.evaluate(f"{BOXES}('.bars .label')"))


@pytest.mark.parametrize("width", WIDTHS)
def test_labels_are_large_enough_and_lie_on_no_other(browser, file, width):
    browser.open(file, width, 900)
    for selector in (".bars .label, .bars .value, .bars .track", "svg text"):
        boxes = browser.evaluate(f"{BOXES}({selector!r})")
        assert len(boxes) > 20
        for text, left, top, right, bottom in boxes:
            assert not text or bottom - top >= 10
            assert 0 <= left < right <= width
        for at, (text, left, top, right, bottom) in enumerate(boxes):
            for other, a, b, c, d in boxes[at + 1 :]:
                across, down = min(right, c) - max(left, a), min(bottom, d) - max(top, b)
                assert across <= 1 or down <= 3, (text, other)


def column(browser, at):
    """The values of a column from top to bottom, None where there is no figure."""
    return browser.evaluate(
        f"[...document.querySelectorAll('tbody tr')].map(row => row.cells[{at}].dataset.value)"
        ".map(text => text === '' ? null : +text)"
    )


def sorts(browser):
    return browser.evaluate(f"{HEADS}.map(e => e.getAttribute('aria-sort'))")


def test_a_click_on_a_title_sorts_and_another_turns_the_order_round(browser, file):
    browser.open(file, 1280, 900)
    at = browser.evaluate(f"{HEADS}.findIndex(e => e.textContent.trim() === 'LC')")
    before = column(browser, at)
    for order, reverse in (("ascending", False), ("descending", True)):
        browser.click(f"thead th:nth-child({at + 1}) button")
        browser.wait(f"{HEADS}[{at}].getAttribute('aria-sort') === '{order}'")
        numbers = [value for value in before if value is not None]
        assert column(browser, at) == [*sorted(numbers, reverse=reverse), None]  # the refused one
        assert [value for value in sorts(browser) if value] == [order]
        assert browser.evaluate("document.querySelector('[role=status]').textContent") == (
            f"sorted by LC, {order}"
        )


def test_the_keyboard_reaches_every_title_and_sorts(browser, file):
    browser.open(file, 400, 900)
    assert browser.evaluate(f"{HEADS}[0].firstElementChild.focus() ?? true")
    count = browser.evaluate(f"{HEADS}.length")
    for at in range(1, count):
        browser.press("Tab")
        browser.wait(f"document.activeElement === {HEADS}[{at}].firstElementChild")
    browser.press("Space")
    browser.wait(f"{HEADS}[{count - 1}].getAttribute('aria-sort') === 'ascending'")
    browser.press("Return")
    browser.wait(f"{HEADS}[{count - 1}].getAttribute('aria-sort') === 'descending'")
    first = browser.evaluate("document.querySelector('tbody tr').lastElementChild.textContent")
    assert first == "yes"


def luminance(colour):
    """Relative luminance of CSS's rgb(r, g, b)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    parts = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_light_or_dark_as_the_user_prefers_and_legible(file, dark):
    browser = Browser(dark)
    browser.open(file, 1280, 900)
    page = luminance(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (page < 0.1) == dark
    selectors = ("body", ".soft", "dt", "td", "thead button", ".label")
    texts = browser.evaluate(
        f"{list(selectors)}.map(s => getComputedStyle(document.querySelector(s)).color)"
    )
    for text in map(luminance, texts):
        low, high = sorted((text, page))
        assert (high + 0.05) / (low + 0.05) >= CONTRAST
    browser.close()
