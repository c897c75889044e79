"""python -m bnnhw.run: images to a board, or to its simulation, and its answers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bnnhw import datasets, golden
from bnnhw.cli import DATA, MISMATCH, Command
from bnnhw.errors import UserError
from bnnhw.flow import stages
from bnnhw.flow.desk import SIMULATED, Built, connected, find_build
from bnnhw.host.client import Client, Timed
from bnnhw.host.pictures import class_names, read_image, softmax
from bnnhw.host.protocol import Header

SHOWN = 10  # answers to images of a data set


def show(
    console: Console, names: list[str], answers: list[Timed], built: Built,
    labels: Sequence[int] | None = None,
) -> None:  # fmt: skip
    """Print a table of the answers; labels : what the images are, if it is known."""
    identity = built.identity
    shape = (identity.height, identity.width, identity.channels)
    classes = built.report["model"]["classes"] or class_names(shape, identity.classes)
    table = Table()
    for column in ("image", "class", "confidence*", "cycles", "ms"):
        table.add_column(column)
    for at, (name, timed) in enumerate(zip(names, answers, strict=True)):
        answer = timed.answer
        share = "unknown"
        if identity.step:
            share = f"{100 * softmax(answer.logits, identity.step)[answer.label]:.1f} %"
        milliseconds = f"{1e3 * answer.cycles / identity.clock_hz:.3f}"
        if labels is not None:
            name += f", of {classes[labels[at]]}"
        table.add_row(name, classes[answer.label], share, f"{answer.cycles:,}", milliseconds)
    console.print(table)
    console.print("* softmax of the logits, uncalibrated", style="dim")


def check_test(client: Client, header: Header) -> bool:
    """Returns whether the device answers the test in its flash as the golden model did."""
    (timed,) = client.run([header.image])
    return (timed.answer.logits, timed.answer.label) == (header.logits, header.label)


def expected_logits(built: Built, model: str | None, pixels: np.ndarray) -> np.ndarray:
    """Returns the golden's logits of the build's network, int64 (N, classes)."""
    entry = built.report["model"]
    loaded = stages.load(model or entry["name"])
    if loaded.sha256 != entry["sha256"]:
        raise UserError(f"{loaded.path}: not the model of {built.folder}; name it with --model")
    width = entry["spec"]["formats"]["residual_width"]
    network = stages.lower(loaded, residual_width=width)
    logits: np.ndarray = golden.run(network, pixels)["head.logits"]
    return logits


def measured(client: Client, images: list[bytes], console: Console) -> Iterator[Timed]:
    """Yields the answers, with a bar of how far they are."""
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("images", total=len(images))
        for timed in client.run(images):
            bar.advance(task)
            yield timed


def run_data(
    client: Client, built: Built, images: datasets.Images, model: str | None, console: Console,
    *, simulated: bool = False,
) -> list[Timed]:  # fmt: skip
    """Returns the answers to a data set's images. Prints accuracy and throughput.

    Raises UserError, naming the first image, where an answer is not the golden's.
    """
    expected = expected_logits(built, model, images.pixels)
    started = time.monotonic()
    answers = [*measured(client, [image.tobytes() for image in images.pixels], console)]
    seconds = time.monotonic() - started
    for at, timed in enumerate(answers):
        if list(timed.answer.logits) != expected[at].tolist():
            raise UserError(
                f"image {at}: logits are {list(timed.answer.logits)}, the golden model has "
                f"{expected[at].tolist()}; the device is not bit-exact"
            )
    labels = zip(answers, images.labels, strict=True)
    hits = sum(timed.answer.label == label for timed, label in labels)
    console.print(
        f"{len(answers)} images, all logits the golden model's; top-1 "
        f"{100 * hits / len(answers):.2f} %; {len(answers) / seconds:.1f} images/s "
        + ("in simulation" if simulated else "from first byte to last answer"),
        highlight=False,
    )
    return answers


@click.command(cls=Command)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--build", "folder", type=click.Path(path_type=Path),
              help="Folder of the build; default: the newest in ./build.")  # fmt: skip
@click.option("--port", help="Serial port, or sim for a simulation; default: by USB id.")
@click.option("--data", help=f"Its test images. {DATA}")
@click.option("--images", "count", type=click.IntRange(1), default=10, show_default=True,
              help="How many of --data.")  # fmt: skip
@click.option("--model", help="The build's model.pt, for --data; default: the bundled one.")
@click.option("--resize", is_flag=True, help="Scale files that are of another size.")
@click.option("--test", is_flag=True, help="Run the test that is in the flash.")
@click.pass_context
def main(
    ctx: click.Context, files: tuple[Path, ...], folder: Path | None, port: str | None,
    data: str | None, count: int, model: str | None, resize: bool, test: bool,
) -> None:  # fmt: skip
    """Send image FILES (PNG, JPEG), or images of a data set, to a board and print its answers."""
    console = Console(soft_wrap=True)
    built = find_build(folder)
    identity = built.identity
    shape = (identity.height, identity.width, identity.channels)
    pixels = [read_image(path, shape, resize=resize) for path in files]
    chosen = None
    if data is not None:
        source = datasets.suiting(shape, identity.classes, data)
        names = tuple(built.report["model"]["classes"])
        chosen = source.fitting("test", shape, identity.classes, resize=resize, names=names)
        if count > len(chosen):
            raise UserError(f"--images {count}: {source.name} has {len(chosen)} test images")
        chosen = chosen.first(count)
    if not (pixels or chosen or test):
        raise UserError("nothing to run; give image files, --data or --test")
    if port == SIMULATED:
        console.print(f"simulating {built.folder}/top.v; its first run compiles it", style="dim")
    with connected(built, port) as client:
        header = client.identify()
        client.check(header, identity.digest)
        if test:
            passed = check_test(client, header)
            console.print(f"test: {'passed' if passed else 'FAILED'}", highlight=False)
            if not passed:
                ctx.exit(MISMATCH)
        if pixels:
            answers = [*client.run([image.tobytes() for image in pixels])]
            show(console, [path.name for path in files], answers, built)
        if chosen is not None:
            answers = run_data(client, built, chosen, model, console, simulated=port == SIMULATED)
            shown = [f"test image {at}" for at in range(min(SHOWN, len(answers)))]
            show(console, shown, answers[:SHOWN], built, [*chosen.labels])


if __name__ == "__main__":
    main()
