"""Headers over the network: only their bytes travel, whatever the server does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import gguf_files as files
from support.range_server import serve

from kernels.models.header import HeaderError, read_header

METADATA, TENSORS = files.load_model("llama-3.1-8b")
SLACK = 1 << 17
SOCKET_BUFFERS = 16 << 20  # sent, though never read


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    files.write_sparse_gguf(path, METADATA, TENSORS)
    return path


@pytest.fixture
def header_nbytes(model: Path) -> int:
    return read_header(model).data_offset


@pytest.mark.parametrize("behaviour", [{}, {"head": False}, {"announce": False}], ids=str)
def test_only_the_header_is_fetched(model: Path, header_nbytes: int, behaviour: dict[str, bool]) -> None:
    with serve(model.parent, **behaviour) as server:
        remote = read_header(server.url("model.gguf?download=true"))
        # without HEAD the size is asked with a GET, which is hung up on
        allowed = 2 * header_nbytes + SLACK + (SOCKET_BUFFERS if not server.head else 0)
        assert header_nbytes <= server.served <= allowed
    local = read_header(model)
    assert remote.tensors == local.tensors
    assert remote.metadata == local.metadata
    assert (remote.nbytes, remote.files) == (local.nbytes, (server.url("model.gguf?download=true"),))


def test_a_large_tokenizer_takes_few_requests(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    nbytes = files.write_sparse_gguf(path, METADATA, TENSORS, extra=files.llama3_tokenizer())
    with serve(tmp_path) as server:
        assert read_header(server.url("model.gguf")).tensors == read_header(path).tensors
        assert server.served < nbytes + (2 << 20)
        assert len(server.requests) < 12


@pytest.mark.parametrize("announce", [True, False])
def test_a_server_that_ignores_ranges_is_read_no_further_than_the_header(tmp_path: Path, announce: bool) -> None:
    path = tmp_path / "model.gguf"
    nbytes = files.write_sparse_gguf(path, METADATA, TENSORS, extra=files.llama3_tokenizer())
    with serve(tmp_path, ranges=False, announce=announce) as server:
        assert read_header(server.url("model.gguf")).tensors == read_header(path).tensors
        assert server.served < 2 * (nbytes + SOCKET_BUFFERS)


def test_shards_at_a_url(tmp_path: Path) -> None:
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    for number, name in enumerate(names):
        split = {"general.architecture": "llama", "split.no": number, "split.count": 2}
        files.write_sparse_gguf(tmp_path / name, split, [(f"blk.{number}.attn_q.weight", (32, 256), "Q4_K")])
    with serve(tmp_path) as server:
        urls = tuple(server.url(f"{name}?a=b") for name in names)
        assert read_header(urls[1]).files == urls
        (tmp_path / names[0]).unlink()
        with pytest.raises(HeaderError, match=r"shard 1 of 2, .*00001-of-00002\.gguf\?a=\S+: cannot be fetched \(404"):
            read_header(urls[1])


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"status": 404}, r"model\.gguf: cannot be fetched \(404"),
        ({"status": 403}, r"cannot be fetched \(403"),
        ({"status": 500}, r"cannot be fetched \(500"),
        ({"cut": 100}, "cannot be fetched"),
        ({"size_known": False, "ranges": False}, "of known size"),
        ({"silent": True}, r"cannot be fetched \(timed out\)|sent too little"),
    ],
    ids=str,
)
def test_a_failing_server_is_one_clear_error(model: Path, behaviour: dict[str, int], message: str) -> None:
    with serve(model.parent, **behaviour) as server, pytest.raises(HeaderError, match=message):
        read_header(server.url("model.gguf"), timeout_seconds=0.3 if "silent" in behaviour else 60)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_drips_is_given_up(model: Path, ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.models.remote.SLOWEST", 1 << 20)
    with serve(model.parent, drip=True, ranges=ranges) as server:
        start = time.monotonic()
        with pytest.raises(HeaderError, match="sent too little in 0 s"):
            read_header(server.url("model.gguf"), timeout_seconds=0.3)
        assert time.monotonic() - start < 10  # not the minutes that the header would take


@pytest.mark.parametrize("ranges", [True, False])
def test_a_body_without_end_is_read_no_further_than_asked(model: Path, header_nbytes: int, ranges: bool) -> None:
    with serve(model.parent, endless=True, ranges=ranges) as server:
        assert len(read_header(server.url("model.gguf")).tensors) == len(TENSORS)
        assert server.served < 2 * header_nbytes + 4 * SOCKET_BUFFERS


def test_a_compressed_body_is_not_unpacked(model: Path) -> None:
    with serve(model.parent, gzip=True) as server, pytest.raises(HeaderError, match=r"not a GGUF file: .*x1f.x8b"):
        read_header(server.url("model.gguf"))


def test_secrets_of_a_url_are_not_shown(model: Path) -> None:
    with serve(model.parent, status=403) as server:
        url = server.url("model.gguf?token=s3cret&X-Amz-Signature=s3cret").replace("http://", "http://me:s3cret@")
        with pytest.raises(HeaderError) as caught:
            read_header(url)
    assert "s3cret" not in f"{caught.value} {caught.value.source}"
    assert "403" in str(caught.value)


def test_nobody_listens(model: Path) -> None:
    with serve(model.parent) as server:
        url = server.url("model.gguf")
    with pytest.raises(HeaderError, match="cannot be fetched"):
        read_header(url, timeout_seconds=60)


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<!DOCTYPE html>")
    (tmp_path / "empty.gguf").touch()
    with serve(tmp_path) as server:
        with pytest.raises(HeaderError, match=r"byte 0: not a GGUF file: it starts with b'<!DO'"):
            read_header(server.url("page.gguf"))
        with pytest.raises(HeaderError, match="is not a file of known size"):
            read_header(server.url("empty.gguf"))


def test_other_schemes_are_refused() -> None:
    with pytest.raises(HeaderError, match=r"s3:// is not supported: give a path or http, https, hf://"):
        read_header("s3://bucket/model.gguf")


@pytest.mark.parametrize(
    ("missing", "url"), [("aiohttp", "http://h/m"), ("fsspec", "hf://a/b/m"), ("huggingface_hub", "hf://a/b/m")]
)
def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, missing: str, url: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(HeaderError, match=r"not installed: pip install 'tinygrad-autotune\[remote\]'"):
        read_header(url)


READ_FROM_HUB = """
import json, sys
from kernels.models.header import HeaderError, read_header
answers = []
for url in sys.argv[1:]:
    try:
        header = read_header(url)
        answers.append([header.architecture, len(header.tensors), header.files[0]])
    except HeaderError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def test_a_model_hub(model: Path, header_nbytes: int) -> None:
    """In a process of its own: huggingface_hub reads HF_ENDPOINT when it is imported."""
    urls = ["hf://owner/repo/model.gguf", "hf://owner/repo@main/model.gguf", "hf://owner/repo/absent.gguf", "hf://x"]
    with serve(model.parent) as server:
        env = os.environ | {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(model.parent / "hub")}
        command = [sys.executable, "-c", READ_FROM_HUB, *urls]
        out = subprocess.run(
            command, env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60
        )
        assert out.returncode == 0, out.stderr
        assert 2 * header_nbytes <= server.served <= 4 * header_nbytes + 2 * SLACK
    plain, revision, absent, bad = json.loads(out.stdout)
    assert plain == ["llama", len(TENSORS), urls[0]]
    assert revision == ["llama", len(TENSORS), urls[1]]
    assert absent.startswith("hf://owner/repo/absent.gguf: cannot be fetched")
    assert bad.startswith("hf://x: cannot be fetched")
