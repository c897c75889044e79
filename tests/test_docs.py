"""The pages: what stands in two of them is the same in both."""

from __future__ import annotations

import html
import re
from pathlib import Path

from bnnhw.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]


def test_the_picture_is_of_the_bundled_networks_column():
    """docs/report.svg shows what the README's table says; scripts/report_picture.py draws it."""
    svg = html.unescape((ROOT / "docs" / "report.svg").read_text())
    picture = " ".join(re.sub(r"<[^>]+>", " ", svg).replace("\u00a0", " ").split())
    readme = (ROOT / "README.md").read_text()
    assert "resnet20-cifar10 on icebreaker" in picture
    rows = re.findall(r"^\| (LC|FF|EBR|SPRAM|DSP) \| ([^|]+) \|", readme, re.MULTILINE)
    assert len(rows) == 5
    for name, cell in rows:
        assert f"{name} │ {cell.replace(',', '')}" in picture, name
    for cell in re.findall(r"^\| (?:Fmax, clock|last input byte[^|]*) \| ([^|]+) \|", readme, re.M):
        for figure in cell.removesuffix(", 24 MHz").split(", "):
            assert figure in picture, figure


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/**/*.md")]
    links = 0
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = page.parent / path if path else page
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target), f"{page}: {link}"
            links += 1
    assert links > 20


def test_the_readme_has_every_command():
    rows = set(re.findall(r"^\| `bnnhw (\w+) ", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert rows == set(COMMANDS)
