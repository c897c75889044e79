"""Downloads from a server on this machine: whole, broken, resumed, wrong, hostile."""

from __future__ import annotations

import contextlib
import hashlib
import io
import resource
import socket
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from click.testing import CliRunner

from bnnhw import datasets
from bnnhw.data import main
from bnnhw.datasets import download
from bnnhw.datasets.download import ARCHIVES
from bnnhw.errors import UserError
from tests.datasets.test_images import CIFAR10, META, write_cifar


class Server:
    """Serves `content` under any name; `breaks_after` bytes of an answer it hangs up.

    ranges : whether it can go on in the middle. asked : the Range header of each request.
    """

    def __init__(self, content, *, breaks_after=None, ranges=True, status=None):
        self.content, self.breaks_after = content, breaks_after
        self.ranges, self.status = ranges, status
        self.asked = []

    def answer(self, request):
        asked = request.headers.get("Range")
        self.asked.append((request.path, asked))
        if self.status:
            return request.send_error(self.status)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start and start >= len(self.content):
            return request.send_error(416)
        body = self.content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[: self.breaks_after])
        request.close_connection = True


@contextlib.contextmanager
def serving(server):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self)

        def log_message(self, *arguments):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs=dict(poll_interval=0.01))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}/folder"
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def packed(folder, *extra):
    """A tar.gz of a folder, named after it, and of further members (TarInfo, bytes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        tar.add(folder, folder.name)
        for member, content in extra:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def standing_for(name, content):
    return replace(ARCHIVES[name], md5=hashlib.md5(content).hexdigest())


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    """(Archive, its bytes, the test images' pixels) of a small CIFAR-10."""
    folder = tmp_path_factory.mktemp("made") / "cifar-10-batches-py"
    written = write_cifar(folder, {**dict.fromkeys(CIFAR10, 3), "test_batch": 5})
    (folder / "batches.meta").write_bytes(META)
    (folder / "readme.html").write_bytes(b"not needed")
    content = packed(folder)
    return standing_for("cifar10", content), content, written["test_batch"]


def test_published_checksums():
    """The MD5 sums on https://www.cs.toronto.edu/~kriz/cifar.html."""
    assert ARCHIVES["cifar10"].md5 == "c58f30108f718f92721af3b95e74349a"
    assert ARCHIVES["cifar100"].md5 == "eb9058c3a382ffc7106e4002c42a8d85"


def test_a_download_can_be_loaded(tmp_path, cifar10):
    archive, content, pixels = cifar10
    server, steps = Server(content), []
    with serving(server) as source:
        made = download.download(archive, source, tmp_path / "new" / "place",
                                 lambda *step: steps.append(step))  # fmt: skip
    assert made == tmp_path / "new" / "place" / "cifar-10-batches-py"
    assert server.asked == [("/folder/cifar-10-python.tar.gz", None)]
    assert steps[-1] == (len(content), len(content))
    assert sorted(f.name for f in made.iterdir()) == sorted([*CIFAR10, "batches.meta"])
    assert [entry.name for entry in made.parent.iterdir()] == [made.name]
    assert np.array_equal(datasets.load("cifar10", made.parent).pixels, pixels)


def test_cifar100_can_be_loaded(tmp_path):
    folder = tmp_path / "made" / "cifar-100-python"
    write_cifar(folder, dict(train=3, test=2), labels="fine_labels", classes=100)
    (folder / "meta").write_bytes(META)
    content = packed(folder)
    with serving(Server(content)) as source:
        download.download(standing_for("cifar100", content), source, tmp_path)
    assert len(datasets.load("cifar100", tmp_path)) == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_gone_on_with(tmp_path, cifar10, ranges):
    archive, content, _ = cifar10
    with serving(Server(content, breaks_after=1000)) as source:
        with pytest.raises(UserError, match=f"broken off after 1000 of {len(content)} bytes"):
            download.download(archive, source, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cifar-10-python.tar.gz.part"]
    server = Server(content, ranges=ranges)
    with serving(server) as source:
        assert download.download(archive, source, tmp_path).is_dir()
    assert [asked for _, asked in server.asked] == ["bytes=1000-"]


def test_a_whole_file_that_was_not_unpacked_is_used(tmp_path, cifar10):
    archive, content, _ = cifar10
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(content)
    with serving(Server(content)) as source:
        assert download.download(archive, source, tmp_path).is_dir()


def test_a_wrong_checksum_leaves_nothing(tmp_path, cifar10):
    archive, content, _ = cifar10
    with serving(Server(content[:-1] + b"?")) as source:
        with pytest.raises(UserError, match=f"checksum .*, must be {archive.md5}"):
            download.download(archive, source, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_no_such_file_and_no_such_server(tmp_path, cifar10):
    with serving(Server(b"", status=404)) as source:
        with pytest.raises(UserError, match="cifar-10-python.tar.gz: the server answers 404"):
            download.download(cifar10[0], source, tmp_path)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody listens
        source = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="cannot be reached .*refused"):
            download.download(cifar10[0], source, tmp_path)
    with pytest.raises(UserError, match="cannot be reached .*unknown url type"):
        download.download(cifar10[0], "folder", tmp_path)
    assert not [*tmp_path.iterdir()]


def test_what_is_there_is_kept(tmp_path, cifar10):
    mine = tmp_path / "cifar-10-batches-py" / "mine"
    mine.parent.mkdir()
    mine.write_text("kept")
    with pytest.raises(UserError, match="is there already; remove it to download it anew"):
        download.download(cifar10[0], "http://127.0.0.1:9", tmp_path)
    assert mine.read_text() == "kept"


def test_a_full_disk_is_one_line(tmp_path, cifar10):
    archive, content, _ = cifar10
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(Server(content)) as source:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            with pytest.raises(UserError, match="cannot be written .File too large.; make room"):
                download.download(archive, source, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / archive.folder).exists()


def test_out_that_cannot_be_a_directory(tmp_path, cifar10):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written .*choose another --out"):
        download.download(cifar10[0], "http://127.0.0.1:9", tmp_path / "file" / "below")


def member(name, **fields):
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_only_the_expected_regular_files_are_unpacked(tmp_path):
    made = tmp_path / "made" / "cifar-100-python"
    write_cifar(made, dict(train=1, test=1), labels="fine_labels", classes=100)
    (made / "meta").write_bytes(META)
    extra = [(member("../outside"), b"x"), (member("cifar-100-python/more"), b"x")]
    content = packed(made, *extra)
    out = tmp_path / "out"
    with serving(Server(content)) as source:
        unpacked = download.download(standing_for("cifar100", content), source, out)
    assert sorted(entry.name for entry in unpacked.iterdir()) == ["meta", "test", "train"]
    assert not (tmp_path / "outside").exists() and not (out / "outside").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(type=tarfile.SYMTYPE, linkname="/etc/passwd"), "lacks the file .*/meta"),
        (dict(type=tarfile.DIRTYPE), "lacks the file .*/meta"),
        (None, "lacks the file .*/meta"),
    ],
)
def test_an_archive_without_its_files_leaves_nothing(tmp_path, fields, message):
    made = tmp_path / "made" / "cifar-100-python"
    write_cifar(made, dict(train=1, test=1), labels="fine_labels", classes=100)
    extra = [(member("cifar-100-python/meta", **fields), b"")] if fields else []
    content = packed(made, *extra)
    out = tmp_path / "out"
    with serving(Server(content)) as source:
        with pytest.raises(UserError, match=message):
            download.download(standing_for("cifar100", content), source, out)
    assert [entry.name for entry in out.iterdir()] == ["cifar-100-python.tar.gz.part"]


@pytest.mark.parametrize("content", [b"no archive", b"\x1f\x8b no gzip", b""])
def test_what_is_no_archive_is_one_line(tmp_path, content):
    with serving(Server(content)) as source:
        with pytest.raises(UserError, match="cifar-10-python.tar.gz: not a tar.gz archive"):
            download.download(standing_for("cifar10", content), source, tmp_path)


def test_the_command_prints_the_directory(tmp_path, cifar10, monkeypatch):
    archive, content, _ = cifar10
    monkeypatch.setitem(ARCHIVES, "cifar10", archive)
    with serving(Server(content)) as source:
        words = ["cifar10", "--out", str(tmp_path), "--source", source + "/"]
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'cifar-10-batches-py'}\n"


def test_python_m_bnnhw_data_reaches_it(tmp_path):
    with serving(Server(b"other bytes")) as source:
        command = [sys.executable, "-m", "bnnhw.data", "cifar100", "--out", str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True,
                                env={"BNNHW_DATA_SOURCE": source})  # fmt: skip
    assert result.returncode == 2 and not result.stdout
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "cifar-100-python.tar.gz: MD5 checksum" in line
