"""Imports run one way: every arrow between the project's modules, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bnnhw", "gateware", "boards", "sim")
COMMANDS = {
    "bnnhw.build",
    "bnnhw.train",
    "bnnhw.evaluate",
    "bnnhw.measure",
    "bnnhw.study",
    "bnnhw.teach",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
}


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere in it: `from a import b` is a, or a.b if that is one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where an arrow goes"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in SOURCES or node.module == "torch" else node.module


IMPORTS = {name: set(imported(path)) for name, path in SOURCES.items()}


def under(name: str, *packages: str) -> bool:
    """Whether a module is one of these or inside of one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ours(name: str) -> set[str]:
    return {other for other in IMPORTS[name] if under(other, *PACKAGES, "tests", "scripts")}


def modules(*packages: str) -> list[str]:
    return [name for name in SOURCES if under(name, *packages)]


def check(names: list[str], *allowed: str) -> None:
    """The project's modules that these import are in `allowed`."""
    assert names
    wrong = {name: {o for o in ours(name) if not under(o, *allowed)} for name in names}
    assert not {name: others for name, others in wrong.items() if others}


def reach(name: str) -> set[str]:
    """All the project's modules that importing one runs."""
    seen, left = set(), [name]
    while left:
        here = left.pop()
        parents = {here.rsplit(".", depth)[0] for depth in range(here.count(".") + 1)}
        for other in (ours(here) if here in SOURCES else set()) | parents:
            if other not in seen and other in SOURCES:
                seen.add(other)
                left.append(other)
    return seen


def test_every_module_is_read():
    assert {"gateware.engine", "bnnhw.golden", "bnnhw.nn", "boards.icebreaker"} <= set(SOURCES)
    assert "gateware.array" in IMPORTS["gateware.engine"]
    assert {"bnnhw.steps", "bnnhw.layout"} <= IMPORTS["bnnhw.plan"]


def test_no_module_reaches_itself():
    order = TopologicalSorter({name: ours(name) & set(SOURCES) for name in SOURCES})
    assert len([*order.static_order()]) == len(SOURCES)  # raises CycleError, naming them


def test_gateware_knows_only_amaranth():
    check(modules("gateware"), "gateware")
    for name in modules("gateware"):
        assert not {other for other in IMPORTS[name] if under(other, "torch", "numpy")}, name


def test_boards_know_only_gateware():
    check(modules("boards"), "boards", "gateware")
    assert not ours("boards.board")  # plain numbers: the planner reads them


def test_benches_know_nothing_of_networks():
    check(modules("sim"), "sim", "gateware.frames")


def test_nothing_imports_tests_or_scripts():
    for name in SOURCES:
        assert not {other for other in ours(name) if under(other, "tests", "scripts")}, name


def test_nothing_imports_a_command():
    for name in SOURCES:
        assert not {other for other in ours(name) if under(other, *COMMANDS)}, name


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("bnnhw.errors", ()),
        ("bnnhw.repair", ("bnnhw.errors",)),
        ("bnnhw.spec", ("bnnhw.errors", "bnnhw.repair")),
        ("bnnhw.integer_parts", ("bnnhw.errors", "bnnhw.spec")),
        ("bnnhw.integer", ("bnnhw.errors", "bnnhw.spec", "bnnhw.integer_parts")),
        ("bnnhw.golden_parts", ("bnnhw.spec", "bnnhw.integer", "bnnhw.integer_parts")),
        ("bnnhw.golden", ("bnnhw.errors", "bnnhw.spec", "bnnhw.integer", "bnnhw.golden_parts")),
        ("bnnhw.data", ("bnnhw.errors", "bnnhw.download")),
        ("bnnhw.download", ("bnnhw.errors", "bnnhw.cli")),
        ("bnnhw.methods", ("bnnhw.errors", "bnnhw.repair")),
        ("bnnhw.summary", ("bnnhw.methods",)),
        ("bnnhw.layout", ()),
        ("bnnhw.places", ()),
        ("bnnhw.entries", ("bnnhw.errors", "bnnhw.spec", "bnnhw.integer", "bnnhw.layout")),
        ("bnnhw.estimate", ()),
        ("bnnhw.netlist", ()),
        ("bnnhw.checkpoint", ("bnnhw.errors", "bnnhw.spec", "bnnhw.nn")),
        (
            "bnnhw.fixed",
            ("bnnhw.errors", "bnnhw.spec", "bnnhw.integer", "bnnhw.integer_parts", "bnnhw.nn"),
        ),
        (
            "bnnhw.lower",
            (
                "bnnhw.errors", "bnnhw.spec", "bnnhw.integer", "bnnhw.nn", "bnnhw.checkpoint",
                "bnnhw.fixed",
            ),
        ),
        (
            "bnnhw.passes",
            ("bnnhw.spec", "bnnhw.integer", "bnnhw.layout", "bnnhw.entries"),
        ),
        (
            "bnnhw.schedule",
            (
                "bnnhw.spec", "bnnhw.integer", "bnnhw.layout", "bnnhw.entries", "bnnhw.passes",
                "bnnhw.places",
            ),
        ),
        (
            "bnnhw.steps",
            (
                "bnnhw.integer", "bnnhw.layout", "bnnhw.estimate", "bnnhw.passes",
                "bnnhw.places", "bnnhw.schedule", "gateware.parameters", "gateware.program",
            ),
        ),
        (
            "bnnhw.plan",
            (
                "bnnhw.errors", "bnnhw.spec", "bnnhw.integer", "bnnhw.layout", "bnnhw.passes",
                "bnnhw.schedule", "bnnhw.steps", "boards.board", "gateware.parameters",
                "gateware.program",
            ),
        ),
        (
            "bnnhw.prove",
            (
                "bnnhw.errors", "bnnhw.spec", "bnnhw.integer", "bnnhw.golden", "bnnhw.plan",
                "bnnhw.tools", "sim", "gateware.parameters",
            ),
        ),
    ],
)  # fmt: skip
def test_what_a_module_may_know(name, allowed):
    check([name], *allowed)


def test_layers_know_no_lowering_and_no_hardware():
    allowed = ("bnnhw.nn", "bnnhw.errors", "bnnhw.spec", "bnnhw.repair", "bnnhw.data")
    check(modules("bnnhw.nn"), *allowed, "bnnhw.integer")
    for name in modules("bnnhw.nn"):
        assert not {other for other in reach(name) if under(other, *PACKAGES[1:])}, name


def test_golden_and_gateware_share_no_code():
    assert not {other for other in reach("bnnhw.golden") if not under(other, "bnnhw")}
    for name in modules("gateware"):
        assert not {other for other in reach(name) if under(other, "bnnhw")}, name
    assert not reach("bnnhw.golden") & {"bnnhw.layout", "bnnhw.entries", "bnnhw.plan"}


def test_only_the_machine_learning_side_uses_torch():
    """Beside layers and lowering some use tensors, of torch.nn no more than functions."""
    tensors = {f"bnnhw.{name}" for name in ("golden", "golden_parts", "checkpoint", "evaluate")}
    tensors |= {"bnnhw.train", "bnnhw.streams", "bnnhw.journal"}
    for name, others in IMPORTS.items():
        torch = {other for other in others if under(other, "torch")}
        if under(name, "bnnhw.nn") or name == "bnnhw.lower":
            continue
        assert not torch or name in tensors, (name, torch)
        assert not {other for other in torch if under(other, "torch.nn", "torch.autograd")} - {
            "torch.nn.functional"
        }, (name, torch)


def test_only_layers_define_gradients():
    for name, path in SOURCES.items():
        if not under(name, "bnnhw.nn"):
            source = path.read_text()
            assert "autograd" not in source and ".backward(" not in source, name
