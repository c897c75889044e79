"""Writes files whole or not at all, and trusts what an earlier run left only if it is unchanged.

What a step made is trusted with a record beside it: a digest of all that the step was given, and
one of each file that it left. The record goes before the step begins and comes when it has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnhw.errors import UserError

NAMES = "surrogateescape"  # as Python has file names whose bytes are not text
ROOM = 1 << 16  # bytes that must go on a disk on which nothing was cut
SEAL = "sha256"  # field of sealed JSON: the digest of all other fields


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; it takes the place of `path` if nothing fails.

    Leaves either the old file or the whole new one. Raises UserError where it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}); choose another --out") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text`, in a folder that is made; leaves either the old file or the whole new one."""
    with replacing(path) as partial:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", errors=NAMES)


def read_json(path: Path) -> Any:
    """Returns the content of a file that `write_text` left. Raises UserError where it cannot be
    read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it to make it anew") from None


def digest(*parts: bytes | str | Path) -> str:
    """Returns the SHA-256 of texts, bytes and files' contents. Parts do not run together."""
    result = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part
        content = content.encode(errors=NAMES) if isinstance(content, str) else content
        result.update(len(content).to_bytes(8, "little") + content)
    return result.hexdigest()


def digest_of(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, as sha256sum prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a table as JSON with a digest of itself, for `read_sealed`."""
    write_text(path, json.dumps({**content, SEAL: _seal(content)}, indent=2) + "\n")


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Returns what `write_sealed` wrote, or None where there is no such file, unchanged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seal = content.pop(SEAL)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return content if seal == _seal(content) else None


def _seal(content: Mapping[str, Any]) -> str:
    return digest(json.dumps(json.loads(json.dumps(content)), sort_keys=True))


@dataclass(frozen=True)
class Kept:
    """The files that a step leaves, for a later run to use.

    record : the file that vouches for them. inputs : digest of all that shapes them.
    products : of the step; all those in a folder, for a folder.
    """

    record: Path
    inputs: str
    products: tuple[Path, ...]

    def stands(self) -> bool:
        """Returns whether the products are those of an ended step of these inputs, unchanged."""
        try:
            return self.record.read_text(encoding="utf-8") == self._text()
        except (OSError, UnicodeDecodeError):
            return False

    def make(self, step: Callable[[], None]) -> bool:
        """Take the step unless its products stand. Returns whether it was taken."""
        if self.stands():
            return False
        self.forget()
        step()
        write_text(self.record, self._text())
        return True

    def forget(self) -> None:
        """Trust the products no more."""
        self.record.unlink(missing_ok=True)

    def _text(self) -> str:
        files = [file for product in self.products for file in _files(product)]
        found = {str(os.path.relpath(file, self.record.parent)): digest(file) for file in files}
        return json.dumps(dict(inputs=self.inputs, products=found), indent=2) + "\n"


def _files(product: Path) -> list[Path]:
    if not product.is_dir():
        return [product]
    return sorted(file for file in product.rglob("*") if file.is_file())


def publish(
    folder: Path, files: Mapping[str, Path | str], last: str, gone: Collection[str]
) -> None:
    """Put files into a folder: all, or none of them if one cannot be written.

    files : {name: file to copy, or text}. last : the name that vouches for the others; it goes
    first and comes last. gone : names that are removed meanwhile.
    """
    made: dict[str, Path] = {}
    try:
        for name, source in files.items():
            made[name] = folder / f"{name}.{os.getpid()}.part"
            if isinstance(source, str):
                made[name].write_text(source, encoding="utf-8", errors=NAMES)
            else:
                shutil.copyfile(source, made[name])
        for name in (last, *gone):
            (folder / name).unlink(missing_ok=True)
        for name in sorted(made, key=lambda name: name == last):
            os.replace(made[name], folder / name)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot be written ({reason}); choose another --out") from None
    finally:
        for partial in made.values():
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left half-written in a folder."""
    for partial in folder.glob("*.part"):
        match = re.fullmatch(r".*\.(\d+)\.part", partial.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            with suppress(OSError):
                partial.unlink()


def check_room(folder: Path) -> None:
    """Raise OSError if the disk of `folder` is full, or a file in it is as large as files may be.

    Some programs do not notice that what they wrote was cut, and end well.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    probe = folder / f".room.{os.getpid()}.part"
    try:
        with open(probe, "wb") as file:
            file.write(bytes(ROOM if limit < 0 else min(ROOM, limit)))
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    for path in folder.iterdir() if limit >= 0 else ():
        if path.is_file() and path.stat().st_size >= limit:
            raise OSError(f"{path}: as large as the limit of files' sizes (ulimit -f) allows")
