"""python -m bnnhw.data: download a CIFAR set as its author publishes it, and unpack it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from bnnhw.cli import Command, interruptible
from bnnhw.datasets.download import ARCHIVES, SOURCE, Step, download
from bnnhw.jobs.locks import alone_in
from bnnhw.jobs.pool import AGAIN


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Step]:
    """Shows a progress bar on stderr with bytes, speed and time left; yields what moves it."""
    from rich import progress
    from rich.console import Console

    columns = (
        "{task.description}", progress.BarColumn(), progress.DownloadColumn(),
        progress.TransferSpeedColumn(), "left", progress.TimeRemainingColumn(),
    )  # fmt: skip
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)


@click.command(cls=Command)
@click.argument("dataset", type=click.Choice(tuple(ARCHIVES)))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--source", envvar="BNNHW_DATA_SOURCE", default=SOURCE, show_default=True,
              help="Folder on the web that holds the archive.")  # fmt: skip
def main(dataset: str, out: Path, source: str) -> None:
    """Download DATASET and leave its directory in OUT; prints the directory."""
    archive = ARCHIVES[dataset]
    with interruptible(AGAIN), alone_in(out), _bar(archive.file) as step:
        target = download(archive, source, out, step)
    print(target)


if __name__ == "__main__":
    main()
