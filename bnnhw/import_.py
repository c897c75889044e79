"""bnnhw import: a network trained elsewhere, a state dict or QONNX, becomes a model.pt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnnhw.cli import Command, read_toml
from bnnhw.errors import UserError
from bnnhw.importers import import_qonnx, import_state_dict
from bnnhw.lowering.lower import lower
from bnnhw.network.folded import FoldedNetwork
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


def from_onnx(
    net: Path, spec_file: Path | None, mean: str | None, std: str | None
) -> FoldedNetwork:
    """Returns the network of a QONNX file. The spec has formats and pad; the file says the rest."""
    table = read_toml(spec_file) if spec_file else {}
    for name in table:
        if name not in ("formats", "pad"):
            raise UserError(f"{spec_file}: {name}: the file says it; give formats and pad alone")
    pad = table.get("pad")
    colours = len(pad) if isinstance(pad, list) else 1
    spec = NetworkSpec.from_dict(table | {"input": [32, 32, colours]})
    network = import_qonnx(
        net, formats=spec.formats, mean=numbers("--mean", mean), std=numbers("--std", std),
        tell=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    needed = network.spec.pad or (128,) * network.spec.input[2]
    if spec.pad and spec.pad != needed:
        raise UserError(f"pad={spec.pad}: after this normalisation it is {needed}; leave it out")
    return network


def from_state(
    net: Path, spec_file: Path | None, map_file: Path | None, mean: str | None, std: str | None,
    eps: float,
) -> FoldedNetwork:  # fmt: skip
    """Returns the network of a state dict."""
    if spec_file is None:
        raise UserError("Missing option '--spec': only a .onnx file says what its network is")
    spec = NetworkSpec.from_dict(read_toml(spec_file))
    state = checkpoint.read_inert(net, "state dict")
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(hasattr(part, "shape") for part in state.values()):
        raise UserError(f"{net}: not a state dict of tensors; give one, or it as `state_dict`")
    names = flat(read_toml(map_file)) if map_file else {}
    return import_state_dict(
        spec, state, names=names, mean=numbers("--mean", mean), std=numbers("--std", std), eps=eps
    )


@click.command(cls=Command, name="import")
@click.argument("net", type=FILE)
@click.option(
    "--spec",
    "spec_file",
    type=FILE,
    help="TOML: keys of NetworkSpec, tables repair and formats, layers as [[layers]]; for a .onnx "
    "file, which may do without, formats and pad alone.",
)
@click.option("--map", "map_file", type=FILE, help='TOML: our names = "the file\'s".')
@click.option("--mean", help="Of each colour of pixels / 255, as 0.49,0.48,0.45.")
@click.option("--std", help="Likewise.")
@click.option("--eps", type=float, help="Of all batch norms of a state dict.  [default: 1e-05]")
@click.option("--out", type=FILE, required=True)
def main(
    net: Path, spec_file: Path | None, map_file: Path | None, mean: str | None, std: str | None,
    eps: float | None, out: Path,
) -> None:  # fmt: skip
    """Bring in NET, a state dict of torch.save or a QONNX file, as the model file OUT.

    docs/import.md has names and shapes, and QONNX's operations. OUT is evaluated and built as any
    other model.
    """
    if net.suffix == ".onnx":
        if map_file or eps is not None:
            raise UserError("--map, --eps: a .onnx file has names and eps of its own")
        network = from_onnx(net, spec_file, mean, std)
    else:
        network = from_state(net, spec_file, map_file, mean, std, 1e-5 if eps is None else eps)
    lower(network)  # what no format can hold is told now
    checkpoint.save(out, network, dict(imported_from=net.name))
    click.echo(f"{out}: {len(network.layers)} layers, {network.spec.classes} classes")


if __name__ == "__main__":
    main()
