"""A web server on the loopback that gives out one file, well or badly."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served and how; `requests` collects the Range header of each request, or None."""

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True  # False: the whole file whatever was asked for
    breaks_after: list[int] = field(
        default_factory=list
    )  # bytes sent before hanging up, per answer
    statuses: list[int] = field(default_factory=list)  # errors to answer with first
    states_length: bool = True
    requests: list[str | None] = field(default_factory=list)
    if_ranges: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """Serve on an ephemeral port of 127.0.0.1 during the block."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/model.whl"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.requests.append(asked)
            server.if_ranges.append(self.headers.get("If-Range"))
            if server.statuses:
                self.send_error(server.statuses.pop(0))
                return
            first = self._first(asked)
            if first is not None and first >= len(server.content):
                self.send_error(416)
                return
            body = server.content[first or 0 :]
            self.send_response(200 if first is None else 206)
            if first is not None:
                whole = len(server.content)
                self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
            if server.states_length:
                self.send_header("Content-Length", str(len(body)))
            if server.etag:
                self.send_header("ETag", server.etag)
            self.end_headers()
            with suppress(ConnectionError):  # the client may hang up first
                self.wfile.write(
                    body[: server.breaks_after.pop(0)] if server.breaks_after else body
                )

        def _first(self, asked: str | None) -> int | None:
            condition = self.headers.get("If-Range")
            if not server.ranges or not asked or condition not in (None, server.etag):
                return None
            match = re.fullmatch(r"bytes=(\d+)-", asked)
            assert match
            return int(match[1])

        def log_message(self, *args: object) -> None:
            """Nothing."""

    return Handler
