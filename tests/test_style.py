import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WIDTH = 100  # columns, as pyproject.toml has it for Python
PAGES = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/*.md", "results/README.md")
SOURCES = ("recipes/*.toml", "sim/**/*.v", "bnnhw/nn/kernels/*.h", "bnnhw/nn/kernels/*.cpp")


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff_finds_nothing(arguments):
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_types():
    """pyproject.toml says what is checked; build/mypy makes the second run quick."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def prose(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Numbers and lines of a page, without tables, code blocks and lines with a URL."""
    code = False
    for number, line in enumerate(lines, 1):
        fence = line.lstrip().startswith("```")
        code ^= fence
        if not (code or fence or line.lstrip().startswith("|") or "://" in line):
            yield number, line


def test_what_is_prose():
    page = ["words", "  | table |", "```sh", "code", "```", "see https://example.org", "more words"]
    assert [*prose(page)] == [(1, "words"), (7, "more words")]


@pytest.mark.parametrize("pattern", [*PAGES, *SOURCES])
def test_lines_are_wrapped(pattern):
    files = sorted(ROOT.glob(pattern))
    assert files
    for file in files:
        lines = file.read_text().splitlines()
        numbered = prose(lines) if file.suffix == ".md" else enumerate(lines, 1)
        wide = [number for number, line in numbered if len(line) > WIDTH]
        assert not wide, f"{file}: lines {wide} are longer than {WIDTH} columns"
