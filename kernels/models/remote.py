"""GGUF headers over http(s):// and hf://. Ranges of a remote file are requested, so that only the header is
transferred.

Both schemes use fsspec; hf:// is huggingface_hub's file system, with its tokens, endpoint and retries. The module needs
the extra `remote`, which is imported on first use. Nothing is cached.
"""

from __future__ import annotations

from typing import Any

from kernels.models.header_bytes import HeaderError

SCHEMES = ("http", "https", "hf")
EXTRA = "pip install 'tinygrad-autotune[remote]'"
STREAM_CHUNK_NBYTES = 1 << 16


class RemoteFile:
    """A `Source` on a server. If the server ignores ranges, the file is read as a stream from its start."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        """Requests the file's size. Raises HeaderError if the request fails or the extra is not installed."""
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
        try:
            info = self._fs.info(url)
            size = info.get("size")
            if info["type"] != "file" or not size:
                raise HeaderError(url, f"is not a file of known size (saw {info['type']}, {size}): download it first")
            self.size: int = size
            self._open(ranged=info.get("partial", True))
        except self._failures as error:
            raise self._error(error) from error

    def _open(self, ranged: bool) -> None:
        self.close()
        self._streamed = not ranged
        # the cursor's windows serve as the cache; block_size=0 opens a stream
        self._file = self._fs.open(self.name, "rb", block_size=STREAM_CHUNK_NBYTES if ranged else 0, cache_type="none")

    def read(self, offset: int, nbytes: int) -> bytes:
        try:
            data = self._read_stream(offset, nbytes) if self._streamed else self._read_range(offset, nbytes)
        except self._failures as error:
            raise self._error(error, offset) from error
        if len(data) != nbytes:
            raise HeaderError(self.name, f"the server sent {len(data)} bytes of {nbytes}: try again", offset)
        return data

    def _read_range(self, offset: int, nbytes: int) -> bytes:
        self._file.seek(offset)
        try:
            data: bytes = self._file.read(nbytes)
        except ValueError as error:
            if "range requests" not in str(error):
                raise
            # the server sent the whole file in answer to a range, and fsspec closed the connection
            self._open(ranged=False)
            return self._read_stream(offset, nbytes)
        return data

    def _read_stream(self, offset: int, nbytes: int) -> bytes:
        """Reads from a stream. Bytes before offset were read earlier or are skipped."""
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


Failures = tuple[type[BaseException], ...]
"""The exceptions that a file system raises for a bad name or connection."""


def _web(timeout_seconds: float) -> tuple[Any, Failures]:
    import aiohttp
    import fsspec

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout_seconds, sock_read=timeout_seconds)
    # offsets refer to the uncompressed file
    headers = {"Accept-Encoding": "identity"}
    fs = fsspec.filesystem("http", skip_instance_cache=True, client_kwargs={"timeout": timeout}, headers=headers)
    return fs, (OSError, ValueError, aiohttp.ClientError)


def _hub() -> tuple[Any, Failures]:
    import fsspec
    from huggingface_hub.errors import HTTPError  # the error of the HTTP client that the installed version uses

    return fsspec.filesystem("hf", skip_instance_cache=True), (OSError, ValueError, HTTPError)
