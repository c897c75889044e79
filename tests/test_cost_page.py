"""The page of costs: where its marks are, and that it is whole without a network."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from bnnhw.cost_page import bars, front, pareto
from tests.measuring import run


def test_front_holds_what_nothing_betters():
    assert front([(100, 80.0), (150, 90.0), (120, 85.0), (130, 84.0), (120, 85.0)]) == {0, 1, 2, 4}
    assert front([(1, 1.0), (1, 2.0), (2, 2.0)]) == {1}


def test_bars_are_as_long_as_differences(table):
    chart = bars(table, "lc")
    widths = {mark["method"]: mark["width"] for mark in chart["marks"]}
    assert widths["a"] == pytest.approx(5 * widths["d"], abs=0.3)
    assert [mark["more"] for mark in chart["marks"]] == [True, True, True, False]
    less = chart["marks"][3]
    assert less["x"] + less["width"] == pytest.approx(chart["zero"], abs=0.11)
    assert all(0 < mark["x"] and mark["x"] + mark["width"] < 360 for mark in chart["marks"])
    assert bars(table, "ff")["unchanged"] == 4 and bars(table, "ff")["marks"] == []
    assert bars(table[:1], "lc") is None


def test_pareto_places_points_by_cost_and_accuracy(table):
    chart = pareto(table, "lc")
    marks = {mark["text"].split(":")[0]: mark for mark in chart["marks"]}
    assert [*marks] == ["baseline", "a", "b", "c"]  # d was not trained
    assert [name for name in marks if marks[name]["best"]] == ["baseline", "a", "b"]
    assert (marks["baseline"]["x"], marks["baseline"]["y"]) == (chart["left"], chart["bottom"])
    assert (marks["a"]["x"], marks["a"]["y"]) == (chart["right"], chart["top"])
    assert marks["b"]["x"] == pytest.approx(chart["left"] + 0.4 * (chart["right"] - chart["left"]))
    assert pareto(table[4:], "lc") is None


class Page(HTMLParser):
    """What a page opens and does not close, and what it would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.seen = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.fetched += [v for name, v in attributes if name in ("src", "href", "srcset")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)


def test_page_is_whole_and_fetches_nothing(fakes, tmp_path):
    run(tmp_path, "padding", "--seeds", 1)
    text = (tmp_path / "repair-cost.html").read_text()
    page = Page()
    page.feed(text)
    assert not page.open and not page.fetched and "://" not in text and "@import" not in text
    assert page.seen.count("svg") and page.seen.count("rect") and page.seen.count("tr") == 3
    assert "Too few methods have both an accuracy and a cost." in text
    widths = {int(width) for width in re.findall(r'<svg width="(\d+)"', text)}
    assert widths == {360}
