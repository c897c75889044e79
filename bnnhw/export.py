"""bnnhw export: a network's integers as a QONNX file, for other programs to run and read."""

from __future__ import annotations

from pathlib import Path

import click

from bnnhw.cli import Command
from bnnhw.errors import UserError
from bnnhw.exporters import export_qonnx
from bnnhw.jobs.files import replacing
from bnnhw.lowering.lower import lower
from bnnhw.network.spec import stage_fractions
from bnnhw.nn import checkpoint


@click.command(cls=Command)
@click.argument("model")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--batch", type=int, default=1, show_default=True, help="Images that it takes.")
@click.option("--residual-width", type=int, help="Bits of the stream.")
@click.option("--fraction", "points", help="Bits after its point, stage0=3,...")
def main(model: str, out: Path, batch: int, residual_width: int | None, points: str | None) -> None:
    """Write the integers of MODEL (a model.pt or a bundled model's name) as the QONNX file OUT.

    Its input is the image's bytes as float32 (BATCH, C, H, W), its output the logits, to the last
    bit those of the golden model and the device. docs/import.md says what the graph is made of.
    """
    if out.suffix != ".onnx":
        raise UserError(f"--out {out}: give a name that ends in .onnx")
    loaded = checkpoint.load(checkpoint.find(model))
    fractions = stage_fractions(points, loaded.spec) if points else ()
    network = lower(loaded, residual_width=residual_width, residual_fractions=fractions)
    content: bytes = export_qonnx(network, batch=batch).SerializeToString()
    with replacing(out) as partial:
        partial.write_bytes(content)
    click.echo(f"{out}: {len(network.convolutions)} layers, {len(content):,} bytes")


if __name__ == "__main__":
    main()
