"""The one command: `bnnhw build`, `bnnhw train` and so on; `python -m bnnhw` is the same."""

from __future__ import annotations

from importlib import import_module, metadata
from keyword import iskeyword
from typing import Any

import click
from click.shell_completion import CompletionItem

from bnnhw.cli import one_line

# Their lines stand here, so that --help imports none of them (and no torch).
COMMANDS = {
    "build": "Build a network for a board, prove it, and leave bitstream and report.",
    "report": "Compare two builds, or make the page of one anew.",
    "flash": "Write a build to the flash of its board.",
    "run": "Send images to a board or its simulation, and print its answers.",
    "measure": "Build every repair method alone and compare what it costs.",
    "train": "Train a binary ResNet.",
    "teach": "Train a float ResNet for binary ones to learn from.",
    "study": "Train every repair method alone, or the best of them together.",
    "evaluate": "Print the accuracy of a network, of its floats or its integers.",
    "import": "Make a model.pt of a network that was trained elsewhere.",
    "export": "Write a network's integers as a QONNX file.",
    "pack": "Write a network with its binary weights as bits, a tenth of the size.",
    "compare": "Find where a network departs from what its author computed.",
    "data": "Download CIFAR-10 or CIFAR-100.",
}


def module(name: str) -> str:
    """Returns the module of a command; no module can have the name of a keyword."""
    return f"bnnhw.{name}{'_' * iskeyword(name)}"


class Commands(click.Group):
    """A group whose commands are the modules of the same names, imported when they are called."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with one_line(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with one_line(ctx):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(module(cmd_name)).main
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        matching = [
            CompletionItem(name, help=line)
            for name, line in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return matching + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=Commands)
@click.version_option(metadata.version("bnnhw"), prog_name="bnnhw")
def main() -> None:
    """From a trained binary ResNet to a verified bitstream.

    `bnnhw COMMAND --help` explains a command. Completion of the shell: put
    `eval "$(_BNNHW_COMPLETE=bash_source bnnhw)"` in ~/.bashrc (zsh_source and fish_source for
    other shells).
    """


if __name__ == "__main__":
    main(prog_name="bnnhw")
