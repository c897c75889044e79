"""python -m bnnhw.pack: a model.pt whose binary weights are bits."""

from __future__ import annotations

from pathlib import Path

import click

from bnnhw.cli import Command
from bnnhw.nn import checkpoint


@click.command(cls=Command)
@click.argument("model")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
def main(model: str, out: Path) -> None:
    """Write MODEL (a model.pt or a bundled model's name) as OUT, its binary weights as bits.

    The file is built, evaluated and loaded as any other, at a tenth of the size. It has no latent
    weights, so no training begins with it.
    """
    path = checkpoint.find(model)
    loaded = checkpoint.load(path)
    checkpoint.save(out, loaded.model(), loaded.metrics, packed=True)
    print(f"{out}: {out.stat().st_size:,} bytes, {path} has {path.stat().st_size:,}")


if __name__ == "__main__":
    main()
