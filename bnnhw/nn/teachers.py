"""Reads files of float networks that binary ones learn from."""

from __future__ import annotations

from pathlib import Path

from bnnhw.errors import UserError
from bnnhw.network.spec import NetworkSpec
from bnnhw.nn import checkpoint
from bnnhw.nn.teacher import Teacher, load_teacher


def read_teacher(path: str, spec: NetworkSpec) -> Teacher:
    """Returns the teacher in a file. Raises UserError where it does not fit the network."""
    teacher = load_teacher(checkpoint.read_inert(Path(path), "teacher"), path)
    checks = [("channels", teacher.channels, spec.input[2])]
    checks.append(("classes", teacher.classes, spec.classes))
    if spec.repair.teacher_student == "attention":
        checks.append(("stages", len(teacher.widths), len(spec.widths)))
    for what, theirs, mine in checks:
        if theirs != mine:
            raise UserError(f"{path}: the teacher has {theirs} {what}, the network {mine}")
    return teacher
