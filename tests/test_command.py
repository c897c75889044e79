"""The one command: what it lists, how it starts, what the shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module, metadata

import click
import pytest
from click.testing import CliRunner

from bnnhw.__main__ import COMMANDS, main, module

WITHOUT_TORCH = """
import runpy, sys
sys.argv = ["bnnhw", "--help"]
try:
    runpy.run_module("bnnhw", run_name="__main__")
except SystemExit:
    print("torch" in sys.modules)
"""


def run(*words, **variables):
    return subprocess.run(
        [sys.executable, "-m", "bnnhw", *words], capture_output=True, text=True,
        env=os.environ | variables,
    )  # fmt: skip


def test_help_lists_every_command_without_torch():
    command = [sys.executable, "-c", WITHOUT_TORCH]
    told = subprocess.run(command, capture_output=True, text=True).stdout
    for name, line in COMMANDS.items():
        assert f"  {name} " in told and line.split(".")[0].split()[0] in told
    assert told.splitlines()[-1] == "False"


def test_version():
    assert run("--version").stdout == f"bnnhw, version {metadata.version('bnnhw')}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_both_ways(name):
    command = import_module(module(name)).main
    assert isinstance(command, click.Command)
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_a_fault_of_the_user_is_one_line_and_exit_code_2():
    told = CliRunner().invoke(main, ["evaluate", "nowhere.pt"])
    assert told.exit_code == 2 and told.stderr.startswith("error: nowhere.pt")
    assert CliRunner().invoke(main, ["bake"]).exit_code == 2


def test_the_shell_completes_commands():
    told = run(_BNNHW_COMPLETE="bash_complete", COMP_WORDS="bnnhw t", COMP_CWORD="1").stdout
    assert told.split() == ["plain,train", "plain,teach"]
