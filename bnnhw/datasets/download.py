"""Downloads a CIFAR set as its author publishes it, checks it and unpacks it.

A download that broke off goes on where it stopped. What is at the target is always whole.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bnnhw.errors import UserError

SOURCE = "https://www.cs.toronto.edu/~kriz"
CHUNK = 1 << 18
PATIENCE = 60.0  # seconds without a byte
Step = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Archive:
    """A published archive: its file name, its MD5 checksum, and the files in it that are needed."""

    file: str
    md5: str
    folder: str
    members: tuple[str, ...]


ARCHIVES = {
    "cifar10": Archive(
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": Archive(
        "cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
        ("train", "test", "meta"),
    ),
}


def download(
    archive: Archive, source: str, out: Path, step: Step = lambda done, size: None
) -> Path:
    """Get `archive` from the folder `source` on the web. Returns the directory made in `out`.

    step : is called with the bytes that are there and the bytes there will be (None: unknown).
    """
    target, partial = out / archive.folder, out / f"{archive.file}.part"
    if target.exists():
        raise UserError(f"{target}: is there already; remove it to download it anew")
    try:
        out.mkdir(parents=True, exist_ok=True)
        _fetch(f"{source.rstrip('/')}/{archive.file}", partial, step)
        _check(archive, partial)
        _unpack(archive, partial, target)
        partial.unlink()
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror or error}); make room or choose another "
            f"--out"
        ) from None
    return target


def _fetch(url: str, partial: Path, step: Step) -> None:
    """Bring the file at `url` to `partial`, from where that ends if the server can."""
    have = partial.stat().st_size if partial.exists() else 0
    with _open(url, have) as response:
        if response is None:
            return
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        size = have + int(length) if length and length.isdigit() else None
        with partial.open("ab" if resumed else "wb") as file:
            for chunk in _chunks(url, response, have, size):
                file.write(chunk)
                have += len(chunk)
                step(have, size)


@contextlib.contextmanager
def _open(url: str, start: int) -> Iterator[Any]:
    """Yields the answer to a request for what follows `start` bytes, or None if nothing follows."""
    try:
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(url, headers=headers)
        answer = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise UserError(
                f"{url}: the server answers {error.code} {error.reason}; try again "
                f"later or name another --source"
            ) from None
        answer = contextlib.nullcontext()
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url}: cannot be reached ({reason}); check the network or name another --source"
        ) from None
    with answer as response:
        yield response


def _chunks(url: str, response: IO[bytes], have: int, size: int | None) -> Iterator[bytes]:
    """Yields what the server sends, up to `size` bytes, of which `have` were there before."""
    fault = None
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            chunk, fault = b"", str(error) or type(error).__name__
        if not chunk:
            break
        have += len(chunk)
        yield chunk
    if size is not None and have < size:
        fault = fault or "the connection ended"
    if fault:
        raise UserError(
            f"{url}: broken off after {have} of {size or 'unknown'} bytes ({fault}); run the same "
            f"command again to go on"
        )


def _check(archive: Archive, partial: Path) -> None:
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != archive.md5:
        partial.unlink()
        raise UserError(
            f"{archive.file}: MD5 checksum {found}, must be {archive.md5}; it was removed, "
            f"download it again or name another --source"
        )


def _unpack(archive: Archive, partial: Path, target: Path) -> None:
    """Put the expected regular files of a checked archive at `target`, all or none."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{archive.folder}-", dir=target.parent))
    try:
        with tarfile.open(partial, "r:gz") as tar:
            wanted = {f"{archive.folder}/{name}" for name in archive.members}
            found = [member for member in tar if member.name in wanted and member.isreg()]
            if missing := sorted(wanted - {member.name for member in found}):
                raise UserError(f"{archive.file}: lacks the file {missing[0]}; not the data set")
            tar.extractall(scratch, members=found, filter="data")
        os.rename(scratch / archive.folder, target)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive.file}: not a tar.gz archive ({error})") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
