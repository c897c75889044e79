"""Draw a report as the README shows it: python scripts/report_picture.py REPORT.json OUT.svg

REPORT.json is what `python -m bnnhw.build` left. The picture is what it prints at its end. It needs
nothing from a network: the font is the reader's own.
"""

import io
import json
import re
import sys
from pathlib import Path

from rich.console import Console

from bnnhw.flow import report

WIDTH = 92  # columns
FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)  # rich's, from a server


def picture(content: dict) -> str:
    """Returns the summary of a report as SVG, the same for the same report."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    report.show(content, console)
    board, model = content["board"], content["model"]["name"]
    title = f"bnnhw build {model} --board {board}"
    return FONTS.sub("", console.export_svg(title=title, unique_id="report"))


def main(source: str, target: str) -> None:
    Path(target).write_text(picture(json.loads(Path(source).read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
