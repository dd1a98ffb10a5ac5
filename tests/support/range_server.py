"""A web server on this machine that counts the bytes it sends, and misbehaves when asked to.

It serves the files of one folder at /NAME, and the same files as a model hub serves the repository `owner/repo`.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNK_NBYTES = 1 << 16
REPO = "owner/repo"


@dataclass
class RangeServer:
    """How to behave, and what was asked: `served` counts the bytes of bodies that were sent."""

    root: Path
    ranges: bool = True  # False: the whole file whatever is asked, as http.server does
    announce: bool = True  # say in a header that ranges are, or are not, supported
    head: bool = True
    size_known: bool = True
    cut: int | None = None  # hang up after so many bytes of each body
    status: int = 200
    silent: bool = False  # accept and never answer
    drip: bool = False  # each body a byte at a time, 50 a second
    endless: bool = False  # each body goes on with zeros for ever
    gzip: bool = False  # each body compressed, though nobody asked for it
    served: int = 0
    requests: list[str] = field(default_factory=list)
    port: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        return f"{self.endpoint}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        state = self.server.state
        state.requests.append(f"{self.command} {self.path}")
        if state.silent:
            state.done.wait()
            return
        if not body and not state.head:
            self.send_error(405)
            return
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/{REPO}"):
            self._hub(path)
            return
        file = state.root / re.sub(rf"^/{REPO}/resolve/main/", "/", path).lstrip("/")
        if state.status != 200 or not file.is_file():
            self.send_error(state.status if state.status != 200 else 404)
            return
        self._send(file, body)

    def _hub(self, path: str) -> None:
        names = sorted(f.name for f in self.server.state.root.iterdir())
        answer: object = {"id": REPO, "sha": "0" * 40, "siblings": [], "tags": [], "downloads": 0, "private": False}
        if "/tree/" in path:
            sizes = {n: (self.server.state.root / n).stat().st_size for n in names}
            answer = [{"type": "file", "path": n, "size": size, "oid": "0" * 40} for n, size in sizes.items()]
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send(self, file: Path, body: bool) -> None:
        state, size = self.server.state, file.stat().st_size
        start, end = 0, size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and state.ranges:
            start, end = int(asked[1]), min(int(asked[2]) + 1, size)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        else:
            self.send_response(200)
        if state.announce:
            self.send_header("Accept-Ranges", "bytes" if state.ranges else "none")
        if state.gzip and body:
            self.send_header("Content-Encoding", "gzip")
        elif state.size_known and not (state.endless and body):
            self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if body and (state.drip or state.endless or state.gzip):
            with suppress(ConnectionResetError, BrokenPipeError):
                self._misbehave(file, start, end)
        elif body:
            self._stream(file, start, end if state.cut is None else min(end, start + state.cut))

    def _misbehave(self, file: Path, start: int, end: int) -> None:
        state = self.server.state
        with file.open("rb") as opened:
            opened.seek(start)
            data = opened.read(min(end - start, 1 << 22))
        if state.gzip:
            data = gzip.compress(bytes(1 << 26) + data)
        for i in range(0, len(data), 1 if state.drip else CHUNK_NBYTES):
            part = data[i : i + (1 if state.drip else CHUNK_NBYTES)]
            state.served += len(part)
            self.wfile.write(part)
            if state.drip and state.done.wait(0.02):
                return
        while state.endless and not state.done.is_set():
            state.served += CHUNK_NBYTES
            self.wfile.write(bytes(CHUNK_NBYTES))

    def _stream(self, file: Path, start: int, end: int) -> None:
        state = self.server.state
        with file.open("rb") as data:
            data.seek(start)
            while start < end and not state.done.is_set():
                chunk = data.read(min(CHUNK_NBYTES, end - start))
                state.served += len(chunk)  # before, or a test could look in between
                try:
                    self.wfile.write(chunk)
                except (ConnectionResetError, BrokenPipeError):
                    return
                start += len(chunk)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, state: RangeServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is what some tests are about."""


@contextmanager
def serve(root: Path, **behaviour: object) -> Iterator[RangeServer]:
    """Serves root until the block ends; `behaviour` are fields of RangeServer."""
    state = RangeServer(root, **behaviour)  # type: ignore[arg-type]
    with _Server(state) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            state.done.set()
            server.shutdown()
            thread.join()
