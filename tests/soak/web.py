"""A server on this machine that lies, dawdles and never ends, in ways drawn at random."""

from __future__ import annotations

import gzip
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

STALL_SECONDS = 60.0
LIES = {
    "body": "short long other endless drip silent reset chunks badchunk hugechunk gzip bomb empty",
    "status": "200 206 301 302 404 416 500 100 garbage none headers",
    "ranges": "none other text huge",
    "sizes": "none zero negative huge text twice small large",
}


@dataclass
class Liar:
    """Serves `data` at any path; each of `LIES` is "true", or which lie it is."""

    data: bytes
    rng: random.Random
    sizes: str
    ranges: str
    body: str
    status: str
    said: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def drawn(cls, data: bytes, rng: random.Random) -> Liar:
        lies = dict.fromkeys(LIES, "true")
        for name in rng.choices(list(LIES), (4, 2, 1, 1), k=rng.choice((1, 1, 2))):
            lies[name] = rng.choice(LIES[name].split())
        return cls(data, rng, **lies)

    @property
    def about(self) -> str:
        return f"size {self.sizes}, range {self.ranges}, body {self.body}, status {self.status}"

    def answer(self, connection: socket.socket, asked: bytes) -> None:
        found = re.search(rb"[Rr]ange: bytes=(\d+)-(\d+)", asked)
        start, end = (int(found[1]), int(found[2]) + 1) if found else (0, len(self.data))
        part = self.data[start:end]
        connection.sendall(self._head(part, start, found is not None))
        if not asked.startswith(b"HEAD"):
            self._send(connection, part)

    def _head(self, part: bytes, start: int, ranged: bool) -> bytes:
        status = ("206 Partial Content" if ranged else "200 OK") if self.status == "true" else self.status
        lines = [f"HTTP/1.1 {status}" if status != "garbage" else "\x00\xff ???"]
        size = str(len(part))
        sizes = {"true": [size], "none": [], "zero": ["0"], "negative": ["-5"], "huge": [str(2**63)], "text": ["abc"]}
        sizes |= {"twice": [size, "7"], "small": [str(len(part) // 2)], "large": [str(len(part) + 1000)]}
        total = f"bytes {start}-{start + len(part) - 1}/{len(self.data)}"
        ranges = {"true": [total], "none": [], "other": ["bytes 7-9/10"], "text": ["x"], "huge": [f"bytes 0-1/{2**64}"]}
        if ranged:
            lines += [f"Content-Range: {r}" for r in ranges[self.ranges]]
        if self.body in ("chunks", "badchunk", "hugechunk"):
            lines.append("Transfer-Encoding: chunked")
        else:
            lines += [f"Content-Length: {s}" for s in sizes[self.sizes]]
        if self.body in ("gzip", "bomb"):
            lines.append("Content-Encoding: gzip")
        if self.status in ("301", "302"):
            lines.append(f"Location: /{self.rng.randrange(10**6)}")
        if self.status == "headers":
            lines += [f"X-{i}: {'y' * 1000}" for i in range(2000)]
        lines.append("Accept-Ranges: bytes")
        return b"" if self.status == "none" else "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _send(self, connection: socket.socket, part: bytes) -> None:
        match self.body:
            case "short":
                connection.sendall(part[: len(part) // 2])
            case "long":
                connection.sendall(part + bytes(10_000))
            case "other":
                connection.sendall(self.rng.randbytes(len(part)))
            case "endless" | "bomb":
                start = time.monotonic()
                block = gzip.compress(bytes(1 << 20)) if self.body == "bomb" else bytes(1 << 16)
                while not self.done.is_set() and time.monotonic() - start < STALL_SECONDS:
                    connection.sendall(block)
                    time.sleep(0.01)
            case "drip":
                for byte in part:
                    connection.sendall(bytes([byte]))
                    if self.done.wait(0.3):
                        return
            case "silent":
                self.done.wait(STALL_SECONDS)
            case "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            case "chunks":
                while not self.done.wait(0.01):
                    connection.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")
            case "badchunk":
                connection.sendall(b"zz\r\nabc\r\n")
            case "hugechunk":
                connection.sendall(b"fffffffffffffff\r\n" + bytes(5000))
            case "gzip":
                connection.sendall(b"\x1f\x8b" + self.rng.randbytes(100))
            case "true":
                connection.sendall(part)


@contextmanager
def serve(liar: Liar) -> Iterator[str]:
    """The URL of a file that it serves."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_accept, args=(server, liar), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/model.gguf"
        finally:
            liar.done.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(server: socket.socket, liar: Liar) -> None:
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_handle, args=(connection, liar), daemon=True).start()


def _handle(connection: socket.socket, liar: Liar) -> None:
    with suppress(OSError), connection:
        connection.settimeout(STALL_SECONDS)
        asked = b""
        while b"\r\n\r\n" not in asked and (more := connection.recv(65536)):
            asked += more
        if asked:
            liar.answer(connection, asked)
