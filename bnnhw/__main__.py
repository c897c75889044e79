"""The one command: `bnnhw build`, `bnnhw train` and so on; `python -m bnnhw` is the same."""

from __future__ import annotations

from importlib import import_module, metadata

import click
from click.shell_completion import CompletionItem

# Their lines stand here, so that --help imports none of them (and no torch).
COMMANDS = {
    "build": "Build a network for a board, prove it, and leave bitstream and report.",
    "measure": "Build every repair method alone and compare what it costs.",
    "train": "Train a binary ResNet.",
    "teach": "Train a float ResNet for binary ones to learn from.",
    "study": "Train every repair method alone, or the best of them together.",
    "evaluate": "Print the accuracy of a network, of its floats or its integers.",
    "pack": "Write a network with its binary weights as bits, a tenth of the size.",
    "compare": "Find where a network departs from what its author computed.",
    "data": "Download CIFAR-10 or CIFAR-100.",
}


class Commands(click.Group):
    """A group whose commands are the modules of the same names, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"bnnhw.{cmd_name}").main
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
