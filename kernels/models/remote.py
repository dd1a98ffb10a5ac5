"""GGUF headers over http(s):// and hf://. Ranges of a remote file are requested, so that only the header is
transferred.

Both schemes use fsspec; hf:// is huggingface_hub's file system, with its tokens, endpoint and retries. The module needs
the extra `remote`, which is imported on first use. Nothing is cached.

A server is not trusted to send what was requested. No answer is read beyond the requested bytes, none is decompressed,
and reading ends with an error if a server is slower than SLOWEST for long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from kernels.models.header_bytes import HeaderError

SCHEMES = ("http", "https", "hf")
EXTRA = "pip install 'tinygrad-autotune[remote]'"
STREAM_CHUNK_NBYTES = 1 << 16
# All requests for a file together may take timeout_seconds, plus the time of its bytes at this speed.
SLOWEST = 1 << 15  # bytes a second

T = TypeVar("T")


class RemoteFile:
    """A `Source` of `header_bytes` on a server. If the server ignores ranges, the file is read as a stream from its
    start."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        """Requests the file's size. Raises HeaderError if the request fails or the extra is not installed.

        timeout_seconds: the limit of each wait for a connection or for more bytes. For hf://, huggingface_hub's limits
        hold instead.
        """
        self.name = url
        scheme = url.partition("://")[0].lower()
        if scheme not in SCHEMES:
            raise HeaderError(url, f"{scheme}:// is not supported: give a path or {', '.join(SCHEMES)}://")
        try:
            self._fs, self._failures = _hub() if scheme == "hf" else _web(timeout_seconds)
        except ModuleNotFoundError as error:
            raise HeaderError(url, f"remote files need {error.name}, which is not installed: {EXTRA}") from error
        self._file: Any = None
        self._streamed = False
        self._start, self._limit_seconds = time.monotonic(), timeout_seconds
        try:
            info = self._within(lambda: self._fs.info(url))
            size = info.get("size")
            if info["type"] != "file" or not size:
                raise HeaderError(url, f"is not a file of known size (saw {info['type']}, {size}): download it first")
            self.size: int = size
            ranged = info.get("partial", True)
            self._within(lambda: self._open(ranged))
        except self._failures as error:
            raise self._error(error) from error

    def _open(self, ranged: bool) -> None:
        self.close()
        self._streamed = not ranged
        # No cache is needed, as `header_bytes.Cursor` asks for each byte once. block_size=0 opens a stream.
        self._file = self._fs.open(self.name, "rb", block_size=STREAM_CHUNK_NBYTES if ranged else 0, cache_type="none")

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly nbytes from offset, which never decreases. Raises HeaderError if the server sends fewer."""
        read = self._read_stream if self._streamed else self._read_range
        self._limit_seconds += nbytes / SLOWEST
        try:
            data = self._within(lambda: read(offset, nbytes))
        except self._failures as error:
            raise self._error(error, offset) from error
        if len(data) != nbytes:
            raise HeaderError(self.name, f"the server sent {len(data)} bytes of {nbytes}: try again", offset)
        return data

    def _within(self, action: Callable[[], T]) -> T:
        """Runs `action` in a thread, and returns its result or raises its exception. Raises HeaderError when the time
        limit of the whole file is reached. The thread then runs on, but does not delay the end of the process."""
        answer: list[T] = []
        failure: list[BaseException] = []

        def act() -> None:
            try:
                answer.append(action())
            except BaseException as error:  # noqa: BLE001  raised again below
                failure.append(error)

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        thread.join(max(0.0, self._start + self._limit_seconds - time.monotonic()))
        if failure:
            raise failure[0]
        if not answer:
            raise HeaderError(self.name, f"sent too little in {self._limit_seconds:.0f} s: download it first")
        return answer[0]

    def _read_range(self, offset: int, nbytes: int) -> bytes:
        if self.name.partition("://")[0].lower() == "hf":
            self._file.seek(offset)
            return bytes(self._file.read(nbytes))
        from fsspec.asyn import sync

        data: bytes | None = sync(self._fs.loop, _fetch, self._fs, self.name, offset, nbytes)
        if data is None:  # the server sends the whole file
            self._open(ranged=False)
            return self._read_stream(offset, nbytes)
        return data

    def _read_stream(self, offset: int, nbytes: int) -> bytes:
        """Up to nbytes of the stream, fewer if it ends. Bytes before offset are read and dropped."""
        while (gap := offset - self._file.loc) > 0:
            if not self._file.read(min(gap, STREAM_CHUNK_NBYTES)):
                return b""
        parts, left = [], nbytes
        while left and (part := self._file.read(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _error(self, error: BaseException, offset: int | None = None) -> HeaderError:
        """The error to raise. fsspec reports every failure as FileNotFoundError, whose cause has the status or
        timeout."""
        if isinstance(error, HeaderError):
            return error
        cause = error.__cause__ or error
        reason = "timed out" if isinstance(cause, TimeoutError) else str(cause) or type(cause).__name__
        return HeaderError(self.name, f"cannot be fetched ({reason}): check the URL and the connection", offset)


async def _fetch(fs: Any, url: str, offset: int, nbytes: int) -> bytes | None:
    """The bytes of a range of a file over HTTP, fewer if the server sends fewer. None if its answer is not the range,
    but the whole file."""
    session = await fs.set_session()
    headers = {**fs.kwargs.get("headers", {}), "Range": f"bytes={offset}-{offset + nbytes - 1}"}
    async with session.get(fs.encode_url(url), headers=headers) as answer:
        answer.raise_for_status()
        first = answer.headers.get("Content-Range", "").partition("-")[0]
        if answer.status != 206 or first != f"bytes {offset}":
            return None
        parts, left = [], nbytes
        while left and (part := await answer.content.read(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


Failures = tuple[type[BaseException], ...]
"""The exceptions that a file system raises for a bad name or connection."""


def _web(timeout_seconds: float) -> tuple[Any, Failures]:
    import aiohttp
    import fsspec

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout_seconds, sock_read=timeout_seconds)
    # offsets refer to the uncompressed file
    headers = {"Accept-Encoding": "identity"}
    client = {"timeout": timeout, "auto_decompress": False}
    fs = fsspec.filesystem("http", skip_instance_cache=True, client_kwargs=client, headers=headers)
    return fs, (OSError, ValueError, aiohttp.ClientError)


def _hub() -> tuple[Any, Failures]:
    import fsspec
    from huggingface_hub.errors import HTTPError  # the error of the HTTP client that the installed version uses

    return fsspec.filesystem("hf", skip_instance_cache=True), (OSError, ValueError, NotImplementedError, HTTPError)
