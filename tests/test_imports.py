"""Imports run one way: every arrow between the project's modules, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HARDWARE = ("gateware", "boards", "sim")  # folders of the repository, linked to from bnnhw
COMMANDS = {
    f"bnnhw.{name}"
    for name in (
        "build",
        "measure",
        "train",
        "teach",
        "study",
        "evaluate",
        "compare",
        "report",
        "import_",
        "export",
        "run",
        "flash",
        "pack",
        "data",
    )
}
BASE = ("bnnhw.errors",)
WINGS = {  # what each may import beside itself
    "network": BASE,
    "golden": (*BASE, "bnnhw.network"),
    "datasets": BASE,
    "nn": (*BASE, "bnnhw.network", "bnnhw.jobs"),
    "lowering": (*BASE, "bnnhw.network"),
    "importers": (*BASE, "bnnhw.network"),
    "exporters": (*BASE, "bnnhw.network"),
    "compiler": (
        *BASE, "bnnhw.network", "bnnhw.boards.numbers", "bnnhw.gateware.parameters",
        "bnnhw.gateware.program",
    ),
    "jobs": BASE,
    "training": (
        *BASE, "bnnhw.cli", "bnnhw.network", "bnnhw.nn", "bnnhw.golden", "bnnhw.lowering",
        "bnnhw.datasets", "bnnhw.jobs",
    ),
    "studies": (
        *BASE, "bnnhw.cli", "bnnhw.network", "bnnhw.nn", "bnnhw.golden", "bnnhw.lowering",
        "bnnhw.datasets", "bnnhw.jobs", "bnnhw.training",
    ),
    "flow": (
        *BASE, "bnnhw.network", "bnnhw.nn", "bnnhw.golden", "bnnhw.lowering", "bnnhw.datasets",
        "bnnhw.compiler", "bnnhw.jobs", "bnnhw.boards", "bnnhw.gateware", "bnnhw.sim", "bnnhw.host",
    ),
    "cost": (
        *BASE, "bnnhw.network", "bnnhw.nn", "bnnhw.golden", "bnnhw.lowering", "bnnhw.datasets",
        "bnnhw.compiler", "bnnhw.jobs", "bnnhw.boards", "bnnhw.gateware", "bnnhw.sim", "bnnhw.flow",
        "bnnhw.studies",
    ),
    "host": (*BASE, "bnnhw.gateware.wire"),
    "gateware": (),
    "boards": ("bnnhw.gateware",),
    "sim": (*BASE, "bnnhw.host.protocol", "bnnhw.boards.bench", "bnnhw.jobs"),
}  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "bnnhw" else ("bnnhw", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    name_of(path): path
    for package in ("bnnhw", *HARDWARE)
    for path in sorted((ROOT / package).rglob("*.py"))
}


class _Running(ast.NodeTransformer):
    """Leaves out what only a type checker reads."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else node


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere in it: `from a import b` is a, or a.b if that is one."""
    for node in ast.walk(_Running().visit(ast.parse(path.read_text()))):
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
    return {
        other for other in IMPORTS[name] if under(other, "bnnhw", *HARDWARE, "tests", "scripts")
    }


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
    assert {"bnnhw.gateware.engine", "bnnhw.golden.execute", "bnnhw.boards.icebreaker"} <= set(
        SOURCES
    )
    assert "bnnhw.gateware.array" in IMPORTS["bnnhw.gateware.engine"]
    assert {"bnnhw.compiler.program", "bnnhw.compiler.layout"} <= IMPORTS["bnnhw.compiler.plan"]


def test_every_wing_is_known():
    wings = {name.split(".")[1] for name in SOURCES if name.count(".") > 1}
    assert wings == set(WINGS)


def test_a_users_folders_collide_with_nothing():
    for name in SOURCES:
        assert not {other for other in ours(name) if under(other, *HARDWARE)}, name


def test_no_module_reaches_itself():
    order = TopologicalSorter({name: ours(name) & set(SOURCES) for name in SOURCES})
    assert len([*order.static_order()]) == len(SOURCES)  # raises CycleError, naming them


@pytest.mark.parametrize("wing", WINGS)
def test_what_a_wing_may_know(wing):
    check(modules(f"bnnhw.{wing}"), f"bnnhw.{wing}", *WINGS[wing])


def test_wings_import_one_way():
    order = TopologicalSorter(
        {
            wing: {other.split(".")[1] for other in allowed} & set(WINGS)
            for wing, allowed in WINGS.items()
        }
    )
    assert len([*order.static_order()]) == len(WINGS)


@pytest.mark.parametrize(
    "wing",
    [
        "network",
        "lowering",
        "importers",
        "exporters",
        "gateware",
        "compiler",
        "boards",
        "jobs",
        "datasets",
    ],
)
def test_these_wings_know_no_torch(wing):
    for name in modules(f"bnnhw.{wing}"):
        assert not {other for other in IMPORTS[name] if under(other, "torch")}, name


def test_gateware_knows_only_amaranth():
    for name in modules("bnnhw.gateware"):
        assert not {other for other in IMPORTS[name] if under(other, "torch", "numpy")}, name


def test_a_board_is_plain_numbers():
    for name in ("bnnhw.boards.numbers", "bnnhw.boards.bench"):
        assert not ours(name)  # the planner reads the one, simulations the other


def test_nothing_imports_tests_or_scripts():
    for name in SOURCES:
        assert not {other for other in ours(name) if under(other, "tests", "scripts")}, name


def test_nothing_imports_a_command():
    for name in SOURCES:
        assert not {other for other in ours(name) if under(other, *COMMANDS)}, name


def test_layers_know_no_hardware():
    for name in modules("bnnhw.nn"):
        hardware = {o for o in reach(name) if under(o, *(f"bnnhw.{part}" for part in HARDWARE))}
        assert not hardware, name


def test_golden_and_gateware_share_no_code():
    known = {other for name in modules("bnnhw.golden") for other in reach(name)}
    assert not {
        other for other in known if under(other, "bnnhw.gateware", "bnnhw.boards", "bnnhw.compiler")
    }
    for name in modules("bnnhw.gateware"):
        assert not {o for o in reach(name) if not under(o, "bnnhw.gateware")} - {"bnnhw"}, name


def test_only_the_machine_learning_side_uses_torch():
    """Beside layers and training some use tensors, of torch.nn no more than functions."""
    for name, others in IMPORTS.items():
        torch = {other for other in others if under(other, "torch")}
        if under(name, "bnnhw.nn", "bnnhw.training"):
            continue
        tensors = under(name, "bnnhw.golden", "bnnhw.train", "bnnhw.evaluate", "bnnhw.studies")
        assert not torch or tensors, (name, torch)
        assert not {other for other in torch if under(other, "torch.nn", "torch.autograd")} - {
            "torch.nn.functional"
        }, (name, torch)


def test_only_layers_and_training_know_gradients():
    for name, path in SOURCES.items():
        if not under(name, "bnnhw.nn", "bnnhw.training"):
            source = path.read_text()
            assert "autograd" not in source and ".backward(" not in source, name
