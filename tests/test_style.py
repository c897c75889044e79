import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ("bnnhw", "gateware", "boards", "sim", "scripts")  # whose files ARCHITECTURE.md lists
NO_MODULES = {"bnnhw.lock"}
WINGS = ("cost", "datasets", "flow", "golden", "jobs", "lowering", "nn", "studies", "training")
WORDS = 25  # of a sentence
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


def house() -> set[str]:
    """Every file of the house but empty packages; bnnhw's links to the others are not followed."""
    files = [file for folder in HOUSE for file in (ROOT / folder).rglob("*") if file.is_file()]
    names = {file.relative_to(ROOT).as_posix() for file in files if file.suffix != ".pyc"}
    return {name for name in names if not name.endswith("/__init__.py")}


def listed() -> set[str]:
    """The files in ARCHITECTURE.md's tables: folder in the first row, names in the first column."""
    found, folder = set(), ""
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        if not line.startswith("| `"):
            folder = folder if line.startswith("|") else ""
            continue
        names = re.findall(r"`([\w./-]+)`", line.split("|")[1])
        if names[0].endswith("/"):
            folder = names[0]
        elif folder:
            found |= {folder + name for name in names}
    return found


def test_every_file_has_its_line():
    assert len(house()) > 100
    missing, gone = house() - listed(), listed() - house()
    assert not missing, f"name them in ARCHITECTURE.md, where is what: {sorted(missing)}"
    assert not gone, f"ARCHITECTURE.md lists what there is not: {sorted(gone)}"


def texts() -> Iterator[tuple[Path, str]]:
    """Every page; of Python files what stands in docstrings and other strings, and comments."""
    for pattern in PAGES:
        for page in ROOT.glob(pattern):
            yield page, page.read_text()
    for folder in (*HOUSE, "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            yield file, file.read_text()


@cache
def members(file: Path) -> dict[str, set[str]]:
    """What a module defines at its top, and what each class of it defines."""
    found: dict[str, set[str]] = {}
    body = ast.parse(file.read_text()).body
    for node in body + [n for check in body if isinstance(check, ast.If) for n in check.body]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name: set() for alias in node.names}
        for name in defined(node):
            body = node.body if isinstance(node, ast.ClassDef) else []
            found[name] = {member for part in body for member in defined(part)}
    return found


def defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something that a module or its class defines."""
    parts = name.split(".")
    for at in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:at])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.exists():
            known = members(file)
            for part in parts[at:]:
                if part not in known:
                    return False
                known = {member: set() for member in known[part]}
            return True
    return False


def test_names_exist():
    """Dotted names, and paths into this repository, wherever one stands."""
    folders = (*HOUSE, "tests", "docs", "recipes", "results")
    path = re.compile(rf"(?<![\w./-])(?:{'|'.join(folders)})/[\w./-]*\w")
    gone: dict[str, list[str]] = {}
    for page, text in texts():
        names = set(re.findall(r"(?<![\w./-])bnnhw(?:\.[A-Za-z_]\w*)+", text))
        unknown = sorted(name for name in names - NO_MODULES if not exists(name))
        unknown += sorted(p for p in set(path.findall(text)) if not (ROOT / p).exists())
        if unknown:
            gone[page.relative_to(ROOT).as_posix()] = unknown
    assert not gone


def sentences(docstring: str) -> Iterator[str]:
    """The parts between stops, without tables and formulas, which have several spaces."""
    lines = [line for line in docstring.splitlines() if not re.search(r"\S {2,}\S", line)]
    for paragraph in re.split(r"\n\s*\n|\n(?=\S[^\n]{0,60} : )|\n(?= {4})", "\n".join(lines)):
        yield from re.split(r"(?<=[.;:!?])\s+|\s:\s", paragraph)


def test_sentences_are_short():
    long, seen = [], 0
    for file in [file for wing in WINGS for file in (ROOT / "bnnhw" / wing).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for sentence in sentences(ast.get_docstring(node) or ""):
                    seen += 1
                    if len(sentence.split()) > WORDS:
                        long.append(f"{file}: {' '.join(sentence.split())}")
    assert seen > 1000
    assert not long, "\n".join(long)


def test_components_are_in_the_files_that_the_way_of_a_pixel_names():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    way = " ".join(text.split("## The way of a pixel")[1].split("\n## ")[0].split())
    named = re.findall(r"`([A-Z]\w+)`(?: and `([A-Z]\w+)`)? \(`([\w/]+\.py)`\)", way)
    assert len(named) > 12
    for *classes, path in named:
        source = (ROOT / path).read_text()
        for name in filter(None, classes):
            assert re.search(rf"^class {name}\b", source, re.MULTILINE), f"{name} is not in {path}"
