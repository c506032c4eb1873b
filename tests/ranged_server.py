"""A web server of a folder that sends byte ranges, for tests of what is read from afar."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangedServer(ThreadingHTTPServer):
    """Serves ``folder`` and notes what is asked for. Paths that begin with ``/denied`` it gives to nobody."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    server: RangedServer

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        self.server.asked.append(self.path)
        if self.path.startswith("/denied"):
            return self.send_error(403)
        if path.is_dir():
            return super().do_GET()
        if not path.is_file():
            return self.send_error(404)
        return self._send_part(path.read_bytes(), path.stat().st_mtime_ns)

    def _send_part(self, data: bytes, stamp: int) -> None:
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers["Range"])
        assert found is not None
        first, last = found[1], found[2]
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last) + 1 if first and last else len(data), len(data))
        if start >= len(data):
            return self.send_error(416)
        self.send_response(206)
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("ETag", f'"{stamp}"')
        self.end_headers()
        self.wfile.write(data[start:end])
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[RangedServer]:
    """A server for the length of the ``with`` block."""
    with RangedServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
