"""Files that lie elsewhere: by HTTP ranges and through fsspec, no more bytes than a window needs."""

from __future__ import annotations

import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pytest

import smartsplat_large as ss
from smartsplat_large import remote
from smartsplat_large.codec import SplatFile, encode, reader
from smartsplat_large.errors import SmartSplatError, SplatFileError
from smartsplat_large.lattice import Size, Window

SIZE = Size(2400, 1600)
CORNER = Window(0, 0, 100, 100)


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.data`` by ranges, and notes what was asked for."""

    def do_GET(self):
        if self.path == "/whole.ssplat":
            return self._send(200, self.server.data)
        if self.path != "/a.ssplat":
            return self.send_error(404)
        if self.server.failures:
            self.server.failures -= 1
            return self.send_error(503)
        start, end = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        if start >= len(self.server.data):
            return self.send_error(416)
        part = self.server.data[start : end + 1]
        self.server.asked.append((start, len(part)))
        return self._send(
            206, part, ("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(self.server.data)}")
        )

    def _send(self, status, body, *headers):
        self.send_response(status)
        for header in (("Content-Length", str(len(body))), *headers):
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.asked, found.data, found.failures = [], b"", 0
        found.url = f"http://127.0.0.1:{found.server_port}/a.ssplat"
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def data(batch):
    return encode(batch(20_000, SIZE), size=SIZE, bits=8).data


def test_a_window_fetches_only_what_it_touches(server, data, tmp_path):
    server.data = data
    (tmp_path / "a.ssplat").write_bytes(data)
    with SplatFile(server.url) as far, SplatFile(tmp_path / "a.ssplat") as near:
        opened = sum(length for _, length in server.asked)
        assert opened <= remote.HEAD_BYTES + 512
        found, wanted = far.gaussians(CORNER), near.gaussians(CORNER)
        np.testing.assert_array_equal(found.xy, wanted.xy)
        touched = sum(near.block_bytes()[number] for number in near.layout.touching(CORNER))
        assert sum(length for _, length in server.asked) - opened <= touched + 4 * near.layout.layers
        assert touched < len(data) / 2
        assert not pickle.loads(pickle.dumps(far)).verify()


def test_blocks_side_by_side_are_one_request(server, data, monkeypatch):
    server.data = data
    with SplatFile(server.url) as file:
        payload, opened = sum(file.block_bytes()), len(server.asked)
        assert len(file.gaussians()) == file.header.count
        assert len(server.asked) == opened + 1
        assert not file.verify()
        assert len(server.asked) == opened + 2
        monkeypatch.setattr(reader, "JOINED_BYTES", payload // 3)
        assert not file.verify()
        assert opened + 2 + 3 <= len(server.asked) <= opened + 2 + 5


def test_threads_fetch_a_block_once(server, data):
    server.data = data
    with SplatFile(server.url) as file, ThreadPoolExecutor(4) as threads:
        opened = len(server.asked)
        found = list(threads.map(lambda _: len(file.gaussians(CORNER)), range(8)))
        fetched = server.asked[opened:]
        assert len(set(fetched)) == len(fetched)
        assert len(set(found)) == 1


def test_open_info_and_decode_take_urls(server, data, tmp_path):
    server.data = data
    assert ss.info(server.url)["bytes"] == len(data)
    (tmp_path / "out.npy").write_bytes(b"")
    ss.decode(server.url, tmp_path / "out.npy", region=CORNER, overwrite=True)
    with ss.open(server.url) as picture:
        np.testing.assert_array_equal(picture.read(CORNER), np.load(tmp_path / "out.npy"))


def test_a_server_that_stumbles_is_asked_again(server, data):
    server.data, server.failures = data, 2
    with SplatFile(server.url) as file:
        assert file.header.count


@pytest.mark.parametrize("name", ["missing.ssplat", "whole.ssplat"])
def test_what_cannot_be_had_in_parts_is_named(server, data, name):
    server.data = data
    url = server.url.replace("a.ssplat", name)
    with pytest.raises(SplatFileError, match=re.escape(url)):
        SplatFile(url)


def test_an_empty_file_and_a_silent_server_are_named(server):
    with pytest.raises(SplatFileError, match="is empty"):
        SplatFile(server.url)
    with pytest.raises(SplatFileError, match="cannot be fetched"):
        SplatFile("http://127.0.0.1:9/a.ssplat")


def test_addresses_of_fsspec(data):
    system = fsspec.filesystem("memory")
    system.pipe_file("/folder/a.ssplat", data)
    with SplatFile("memory://folder/a.ssplat") as file:
        assert len(file.gaussians()) == file.header.count
        file.close()
        with pytest.raises(ValueError, match="is closed"):
            file.verify()
    system.pipe_file("/folder/empty.ssplat", b"")
    for name in ("missing.ssplat", "empty.ssplat", ""):
        with pytest.raises(SplatFileError):
            SplatFile(f"memory://folder/{name}")
    with pytest.raises(SmartSplatError, match="nonsense"):
        SplatFile("nonsense://folder/a.ssplat")
