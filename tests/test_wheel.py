"""The wheel: installed elsewhere it works, whatever lies in the user's folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("bnnhw", "gateware", "boards", "sim", "pyproject.toml", "README.md", "LICENSE")
OWN = ("boards.py", "gateware/__init__.py", "sim/__init__.py", "tests.py", "network.py")


def run(*words, **settings):
    return subprocess.run([*map(str, words)], capture_output=True, text=True, **settings)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A fresh venv with the wheel; it borrows the packages that bnnhw needs from this Python."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    left_out = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, symlinks=True, ignore=left_out)
        else:
            shutil.copy(ROOT / part, source / part)
    pip = (sys.executable, "-m", "pip")
    built = run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, source)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("bnnhw-*.whl")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder / "venv").returncode == 0
    python = folder / "venv" / "bin" / "python"
    placed = run(*pip, "--python", python, "install", "--no-deps", wheel)
    assert placed.returncode == 0, placed.stderr
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    borrowed |= {path for path in sys.path if path.endswith("site-packages")}
    (packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return folder / "venv"


@pytest.fixture
def users_folder(tmp_path) -> Path:
    """A folder whose modules have the names of ours, and must not be imported."""
    for name in OWN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('a module of the user was imported')\n")
    return tmp_path


def test_the_installed_wheel_builds_and_proves_from_another_folder(installed, users_folder):
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [installed / "bin" / "bnnhw", "build", "--board", "icebreaker", "resnet8-digits"]
    told = run(
        *command, "--stop-after", "verilog", cwd=users_folder, env=os.environ | {"PATH": programs}
    )
    assert told.returncode == 0, told.stdout + told.stderr
    out = users_folder / "build" / "icebreaker-resnet8-digits"
    assert json.loads((out / "report.json").read_text())["verification"]["bit_exact"] is True
    ask = "import sys, bnnhw; print(sys.modules['bnnhw'].__spec__.origin)"
    where = run(installed / "bin" / "python", "-c", ask, cwd=users_folder)
    assert str(installed) in where.stdout


def test_an_editable_install_ignores_the_users_modules(users_folder):
    command = [sys.executable, "-m", "bnnhw.build", "--board", "icebreaker", "resnet8-digits"]
    told = run(*command, "--stop-after", "plan", cwd=users_folder)
    assert told.returncode == 0, told.stdout + told.stderr
