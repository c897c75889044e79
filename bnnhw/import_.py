"""bnnhw import: a state dict of a network trained elsewhere becomes a model.pt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnnhw.cli import Command, read_toml
from bnnhw.errors import UserError
from bnnhw.importers import import_state_dict
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint

FILE = click.Path(dir_okay=False, path_type=Path)


def flat(table: dict[str, Any], before: str = "") -> dict[str, str]:
    """Returns names by dotted key: `b0.norm = "bn"` is a table in TOML, `"b0.norm" = "bn"` none."""
    names: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            names |= flat(value, f"{before}{key}.")
        elif isinstance(value, str):
            names[before + key] = value
        else:
            raise UserError(f"--map: {before}{key} must be a name, not {value!r}")
    return names


def numbers(option: str, text: str | None) -> tuple[float, ...]:
    """Returns real numbers between commas."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UserError(f"{option} {text}: give numbers such as 0.49,0.48,0.45") from None


@click.command(cls=Command, name="import")
@click.argument("net", type=FILE)
@click.option(
    "--spec",
    "spec_file",
    type=FILE,
    required=True,
    help="TOML: keys of NetworkSpec, tables repair and formats, layers as [[layers]].",
)
@click.option("--map", "map_file", type=FILE, help='TOML: our names = "the file\'s".')
@click.option("--mean", help="Of each colour of pixels / 255, as 0.49,0.48,0.45.")
@click.option("--std", help="Likewise.")
@click.option("--eps", type=float, default=1e-5, show_default=True, help="Of all batch norms.")
@click.option("--out", type=FILE, required=True)
def main(
    net: Path, spec_file: Path, map_file: Path | None, mean: str | None, std: str | None,
    eps: float, out: Path,
) -> None:  # fmt: skip
    """Bring in the state dict NET, a file of torch.save, as the model file OUT.

    docs/import.md has names and shapes. OUT is evaluated and built as any other model.
    """
    spec = NetworkSpec.from_dict(read_toml(spec_file))
    state = checkpoint.read_inert(net, "state dict")
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(hasattr(part, "shape") for part in state.values()):
        raise UserError(f"{net}: not a state dict of tensors; give one, or it as `state_dict`")
    names = flat(read_toml(map_file)) if map_file else {}
    network = import_state_dict(
        spec, state, names=names, mean=numbers("--mean", mean), std=numbers("--std", std), eps=eps
    )
    lower(network)  # what no format can hold is told now
    checkpoint.save(out, network, dict(imported_from=net.name))
    click.echo(f"{out}: {len(network.layers)} layers, {spec.classes} classes")


if __name__ == "__main__":
    main()
