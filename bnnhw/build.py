"""python -m bnnhw.build: model.pt -> plan, gateware, proof, bitstream, report."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from bnnhw.boards import BOARDS
from bnnhw.cli import DATA, MISMATCH, Command
from bnnhw.compiler.plan import DoesNotFit, Plan
from bnnhw.errors import UserError
from bnnhw.flow import report
from bnnhw.flow.build import STOPS, Build, Request

DEFAULT_MODEL = "resnet20-cifar10"


def show_resources(fault: DoesNotFit, console: Console) -> None:
    """Print the table of a network that does not fit."""
    table = Table(title="does not fit")
    for column in ("resource", "needed", "available", "what would make it fit"):
        table.add_column(column)
    for part in fault.resources:
        remedy, style = ("", "") if part.fits else (part.remedy, "red")
        table.add_row(part.name, f"{part.used:,}", f"{part.available:,}", remedy, style=style)
    console.print(table)


def show_plan(plan: Plan, console: Console) -> None:
    """Print the steps of a plan with their cycles."""
    table = Table(title="plan")
    for column in ("step", "cycles", "bound by"):
        table.add_column(column, justify="right" if column == "cycles" else "left")
    for step in plan.steps:
        table.add_row(step.name, f"{step.cycles.total:,}", step.cycles.bound_by)
    console.print(table)
    source = "memory"
    if plan.words is not None:
        size = f"{len(plan.words.words):,} words, {plan.words.nibbles // 2:,} bytes"
        source = f"a quad flash: {size}, {100 * plan.link_share:.1f} % of a nibble a cycle"
    console.print(f"plan: {plan.cycles:,} cycles an image; weights come from {source}")


def list_boards(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    """Print a table of the boards and end."""
    if not wanted or ctx.resilient_parsing:
        return
    table = Table()
    for column in ("board", "chip", "logic", "block RAM", "memory", "flash", "clock", "serial"):
        table.add_column(column, no_wrap=True)
    for board in BOARDS.values():
        logic = "lc" if "lc" in board.budget else "lut"
        table.add_row(
            board.name,
            f"{board.device}-{board.package}",
            f"{board.budget[logic]:,} {logic.upper()}",
            f"{board.budget['ebr'] - board.memory_ebr} of {board.budget['ebr']}",
            f"{board.memory_words // 128:,} KiB of {'block RAM' if board.memory_ebr else 'SPRAM'}",
            f"{board.flash_bytes >> 20} MB",
            f"{board.clock_hz / 1e6:g} MHz",
            f"{board.max_baud / 1e6:g} Mbaud",
        )
    Console(soft_wrap=True, width=120).print(table)
    ctx.exit()


@click.command(cls=Command)
@click.argument("model", default=DEFAULT_MODEL)
@click.option("--board", type=click.Choice(sorted(BOARDS)), required=True)
@click.option("--list-boards", is_flag=True, expose_value=False, is_eager=True,
              callback=list_boards, help="Print what there is of each, and end.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Default: build/BOARD-MODEL.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True)
@click.option("--clock", type=float, help="MHz; the nearest below that the PLL makes.")
@click.option("--stop-after", type=click.Choice([*STOPS]))
@click.option("--data", "directory", help=f"Its test images are run; else random ones. {DATA}")
@click.option("--resize", is_flag=True, help="Resize the images to what the model takes.")
@click.option("--images", type=click.IntRange(1), default=1, show_default=True)
@click.option("--evaluate", type=click.IntRange(0), default=200, show_default=True,
              help="So many test images of --data are classified by the integers.")  # fmt: skip
@click.option("--residual-width", type=click.IntRange(8, 16), help="Bits, instead of the model's.")
@click.option("--pe", type=click.IntRange(1), help="Output channels in parallel, not the most.")
@click.option("--core", type=click.Path(path_type=Path),
              help="Leave the engine alone here, for a design of one's own, and end.")  # fmt: skip
@click.pass_context
def main(
    ctx: click.Context, model: str, board: str, out: Path | None, seed: int, clock: float | None,
    stop_after: str | None, directory: str | None, resize: bool, images: int, evaluate: int,
    residual_width: int | None, pe: int | None, core: Path | None,
) -> None:  # fmt: skip
    """Build MODEL (a model.pt or a bundled model's name) for a board, and prove it."""
    console = Console(soft_wrap=True, emoji=False)
    clock_hz = None if clock is None else clock * 1e6
    request = Request(
        board,
        model,
        out,
        seed,
        clock_hz,
        stop_after,
        directory,
        images,
        residual_width,
        resize,
        evaluate,
        pe,
    )
    build = Build(request, console)
    try:
        if core is not None:
            if stop_after or out:
                raise UserError("--core: is no build of a board; leave --out and --stop-after out")
            build.make_core(core)
            print(f"{core}/README.md")
            return
        content = build.run()
    except DoesNotFit as fault:
        show_resources(fault, console)
        raise
    report.show(content, console)
    if stop_after == "plan":
        show_plan(build.plan, console)
    print(f"{build.out}/report.json")
    if stop_after is None and build.placed:
        load = build.board.load.format(
            folder=shlex.quote(str(build.out)), offset=build.board.flash_offset
        )
        print(f"load: {load}")
    if build.proof and not build.proof.bit_exact:
        ctx.exit(MISMATCH)


if __name__ == "__main__":
    main()
