"""Amaranth components to Verilog, by the Yosys that pip installs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.lib import wiring

from bnnhw.flow import tools

_SCRIPT = """\
read_rtlil {name}.il
proc -nomux -norom
memory_collect
attrmap -remove generator -remove top -remove src
attrmap -modattr -remove generator -remove top -remove src
write_verilog -norename {name}.v
"""


def to_verilog(component: wiring.Component, name: str, folder: Path) -> Path:
    """Write folder/name.v with module `name`; ports are path__of__member, clk and rst."""
    ports: dict[str, Any] = {
        "__".join(map(str, path)): (value, None)
        for path, _, value in component.signature.flatten(component)
    }
    text = rtlil.convert(component, name=name, ports=ports, emit_src=False)
    return rtlil_to_verilog(text, name, folder)


def rtlil_to_verilog(text: str, name: str, folder: Path) -> Path:
    """Write folder/name.il with RTLIL text and folder/name.v made of it.

    An unchanged text leaves both files as they are, so that nothing after them is made again.
    """
    source, result = folder / f"{name}.il", folder / f"{name}.v"
    if result.exists() and source.exists() and source.read_text() == text:
        return result
    result.unlink(missing_ok=True)
    source.write_text(text)
    script = folder / f"{name}.verilog.ys"
    script.write_text(_SCRIPT.format(name=name))
    tools.run(tools.YOSYS, ["-q", script.name], cwd=folder, log=f"{name}.verilog.log")
    return result
