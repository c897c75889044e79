"""Keeps a place to one process at a time: a folder of results, a file, a cache."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bnnhw.errors import UserError


@contextmanager
def alone(lock: Path, place: str, advice: str = "give another --out") -> Iterator[None]:
    """Hold a lock file, which the block's end removes, as does the end of the process.

    place : what the lock is of, as the user knows it; advice : what else he can do.
    Raises UserError with the holder's process and since when, where another process holds it.
    """
    file = _take(lock, place, advice)
    if file is None:
        raise UserError(f"{place}: in use by {_holder(lock)}; wait for its end or {advice}")
    with _released(file, lock):
        yield


@contextmanager
def alone_in(folder: Path, option: str = "--out") -> Iterator[None]:
    """Hold the lock of a folder, which is made. option : of the command, that names the folder."""
    place, advice = f"{option} {folder}", "give another directory"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{place}: {error.strerror or error}; {advice}") from None
    with alone(folder / ".lock", place, advice):
        yield


def beside(file: Path) -> Path:
    """Returns the lock of a file that a command writes."""
    return file.with_name(file.name + ".lock")


@contextmanager
def in_turn(lock: Path, place: str, advice: str, tell: Callable[[str], None]) -> Iterator[None]:
    """The same, but waits for its turn; tells once for whom."""
    file = _take(lock, place, advice)
    if file is None:
        tell(f"{place}: waiting for {_holder(lock)}")
    while file is None:
        time.sleep(0.2)
        file = _take(lock, place, advice)
    with _released(file, lock):
        yield


def _take(lock: Path, place: str, advice: str) -> IO[str] | None:
    """Returns the locked file, or None while another process holds it."""
    while True:
        try:
            file = open(lock, "a+", encoding="utf-8")  # noqa: SIM115, held by the caller
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{place}: cannot be written ({reason}); {advice}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                break
        file.close()  # its holder removed it between our opening and our locking
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError):  # on a full disk the lock holds, only without a name
        file.truncate(0)
        json.dump(dict(pid=os.getpid(), host=platform.node(), since=since), file)
        file.flush()
    return file


@contextmanager
def _released(file: IO[str], lock: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        with suppress(OSError):
            file.close()


def _holder(lock: Path) -> str:
    """Returns who holds a lock, as far as the holder could write it."""
    try:
        known = json.loads(lock.read_text(encoding="utf-8"))
        where = "" if known["host"] == platform.node() else f" of {known['host']}"
        return f"process {known['pid']}{where} since {known['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
