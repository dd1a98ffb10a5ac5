"""kernels.linear and PackedWeight as a model uses them: any leading dims, TinyJit, symbolic token counts, threads."""

import threading

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from support.kernel_runs import backend, device
from tinygrad import Device, Tensor, TinyJit, UOp, dtypes

import kernels
from db.records import M_BUCKETS
from kernels import backends, formats
from kernels.api.packed import bucket
from kernels.formats import FormatError, reference
from kernels.formats.unpack import tables
from kernels.models.header import HeaderError
from kernels.serve.server import Server, serving

N, K = 10, 64


@pytest.fixture(autouse=True)
def _no_stores():
    device()
    with serving(Server(mode="off")):
        yield


def rows(format="Q8_0", n=N, k=K, seed=0):
    return reference.random_blocks(format, n, k, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def raw():
    return rows()


@pytest.fixture
def weight(raw):
    return kernels.PackedWeight.from_blocks(raw, "Q8_0", (N, K))


def tokens(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).standard_normal((*shape, K), dtype=np.float32).astype(dtype)


def close(out, raw, x, tolerance=1e-5):
    expected = reference.linear(raw, "Q8_0", (N, K), x.reshape(-1, K)).reshape(*x.shape[:-1], N)
    assert out.shape == expected.shape
    assert np.linalg.norm(out - expected) <= tolerance * np.linalg.norm(expected)


def test_bucket_is_the_smallest_that_holds():
    assert [bucket(t) for t in (1, 2, 3, 4, 5, 8, 9, 32, 33, 512, 513, 9999)] == [
        *(1, 2, 4, 4, 8, 8, 32, 32, 512, 512, 512, 512)
    ]
    assert all(bucket(b) == b for b in M_BUCKETS)


@pytest.mark.parametrize(
    "lead",
    [(), (1,), (2,), (3,), (1, 5), (3, 1, 3), (33,), (513,)],
    ids=lambda lead: "x".join(map(str, lead)) or "none",
)
def test_any_leading_dims_and_more_tokens_than_the_largest_bucket(raw, weight, lead):
    x = tokens(*lead)
    out = kernels.linear(Tensor(x), weight)
    assert out.dtype == dtypes.float32
    close(out.numpy(), raw, x, 2e-5 if len(x.reshape(-1, K)) > 8 and backends.find(backend()).tensor_core else 1e-5)


def test_float16_in_float16_out(raw, weight):
    x = tokens(3, dtype=np.float16)
    out = kernels.linear(Tensor(x), weight)
    assert out.dtype == dtypes.float16
    close(out.numpy().astype(np.float32), raw, x, 1e-3)


def test_activations_may_be_views_and_unrealized(raw, weight):
    x = tokens(4)
    out = kernels.linear((Tensor(x.T.copy()).T + 0)[1:3] * 2, weight)
    close(out.numpy(), raw, x[1:3] * 2)


def test_repeated_calls_of_a_jit(raw, weight):
    double = TinyJit(lambda x: (kernels.linear(x, weight) * 2).realize())
    for seed in range(4):  # captured by the second call, replayed from the third
        x = tokens(2, seed=seed)
        close(double(Tensor(x).realize()).numpy() / 2, raw, x)
    assert double.captured is not None


def test_a_symbolic_token_count_in_a_jit(raw, weight):
    total = TinyJit(lambda x: kernels.linear(x, weight).sum(0).realize())
    x, count = tokens(7), UOp.variable("count", 1, 7)
    held = Tensor(x).realize()
    for seen in (3, 7, 1, 5, 2):
        out = total(held[: count.bind(seen)]).numpy()
        expected = reference.linear(raw, "Q8_0", (N, K), x[:seen]).sum(0)
        assert np.linalg.norm(out - expected) <= 1e-5 * np.linalg.norm(expected)


def test_a_symbolic_count_beside_a_batch(raw, weight):
    x = tokens(2, 3)
    out = kernels.linear(Tensor(x).realize()[:, : UOp.variable("length", 1, 3).bind(2)], weight).sum(1).numpy()
    expected = reference.linear(raw, "Q8_0", (N, K), x[:, :2].reshape(4, K)).reshape(2, 2, N).sum(1)
    assert np.linalg.norm(out - expected) <= 1e-5 * np.linalg.norm(expected)


def test_threads_get_the_same_answer(raw, weight):
    """The first call of a shape resolves, builds and remembers; here several threads come to it at once. They don't
    realize: tinygrad's own compile cache belongs to one thread."""
    x, answers, start = tokens(6), [], threading.Barrier(4)

    def ask():
        start.wait()
        answers.append(kernels.linear(Tensor(x), weight))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    for answer in answers:
        close(answer.numpy(), raw, x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (lambda: Tensor.zeros(2, K, dtype=dtypes.bfloat16), "cast it with"),
        (lambda: Tensor.zeros(2, K, dtype=dtypes.int32), "x has dtype int32"),
        (lambda: Tensor.zeros(2, K + 1), "does not end in k=64"),
        (lambda: Tensor.zeros(K, 2), "does not end in k=64"),
        (lambda: Tensor(1.0, dtype=dtypes.float32), "does not end in k=64"),
        (lambda: Tensor.zeros(2, K, device="NPY"), "x is on NPY"),
    ],
)
def test_wrong_activations(weight, x, message):
    with pytest.raises(ValueError, match=message):
        kernels.linear(x(), weight)


@pytest.mark.parametrize("format", formats.FORMATS)
def test_a_weight_is_as_large_as_in_the_file_and_keeps_its_bits(format):
    k = 512
    raw = rows(format, 3, k)
    w = kernels.PackedWeight.from_blocks(raw, format, (3, k))
    assert w.nbytes == raw.nbytes
    assert (w.format, w.shape, w.device) == (format, (3, k), Device.DEFAULT)
    expected = (*formats.split_planes(raw, format, (3, k)), *tables.arrays(format))
    for tensor, array in zip(w.planes, expected, strict=True):
        assert tensor.numpy().tobytes() == array.tobytes()


def test_weights_share_their_tables():
    one, other = (kernels.PackedWeight.from_blocks(rows("IQ3_S", N, 256, seed), "IQ3_S", (N, 256)) for seed in (0, 1))
    assert one.planes[-1] is other.planes[-1]
    x = np.random.default_rng(0).standard_normal((3, 256), dtype=np.float32)
    for weight, seed in ((one, 0), (other, 1)):
        expected = reference.linear(rows("IQ3_S", N, 256, seed), "IQ3_S", (N, 256), x)
        np.testing.assert_allclose(kernels.linear(Tensor(x), weight).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_weight_from_a_tensor_a_readonly_a_strided_and_a_mapped_array(raw, tmp_path):
    frozen = raw.copy()
    frozen.flags.writeable = False
    raw.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", np.uint8, "r", shape=raw.shape)
    sources = (Tensor(raw), frozen, np.repeat(raw, 2, axis=0)[::2], mapped)
    wanted = [p.tobytes() for p in formats.split_planes(raw, "Q8_0", (N, K))]
    for source in sources:
        w = kernels.PackedWeight.from_blocks(source, "Q8_0", (N, K))
        assert [p.numpy().tobytes() for p in w.planes] == wanted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (rows(), "Q8_1", (N, K)), "no kernels for the GGML type 'Q8_1'; there are Q4_0"),
        (lambda: (rows(), "q8_1", (N, K)), "no kernels for the GGML type 'Q8_1'"),
        (lambda: (np.zeros((N, K), np.float32), "F16", (N, K)), "raw rows are uint8, or float16, saw float32"),
        (lambda: (np.zeros((N, K), np.float64), "F32", (N, K)), "raw rows are uint8, or float32, saw float64"),
        (lambda: (np.zeros((N, K), np.float32), "F32", (N, K + 1)), r"takes raw rows of shape \(10, 260\)"),
        (lambda: (rows(), "Q8_0", (N, K + 1)), "k=65 weights is not a multiple of its block of 32"),
        (lambda: (rows(), "Q8_0", (N + 1, K)), r"takes raw rows of shape \(11, 68\), saw \(10, 68\)"),
        (lambda: (rows().reshape(-1), "Q8_0", (N, K)), "saw"),
        (lambda: (rows(), "Q8_0", (0, K)), "has no weights"),
        (lambda: (rows(), "Q8_0", (N, 0)), "has no weights"),
        (lambda: (rows().view(np.int8), "Q8_0", (N, K)), "raw rows are uint8, saw int8"),
        (lambda: (Tensor(rows()).cast(dtypes.float32), "Q8_0", (N, K)), "raw rows are uint8, saw float"),
    ],
)
def test_rows_that_are_no_weight(make, message):
    with pytest.raises(FormatError, match=message):
        kernels.PackedWeight.from_blocks(*make())


@pytest.mark.parametrize("format", ["q8_0", "Q8_0", GGMLQuantizationType.Q8_0])
def test_a_format_by_its_name_in_either_case_or_by_the_enum_of_gguf(raw, format):
    w = kernels.PackedWeight.from_blocks(raw, format, np.array([N, K]))
    assert (w.format, w.shape) == ("Q8_0", (N, K))
    x = tokens(2)
    close(kernels.linear(Tensor(x), w).numpy(), raw, x)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(("format", "dtype"), [("F16", np.float16), ("F32", np.float32)])
def test_rows_of_numbers(format, dtype, as_tensor):
    numbers = np.random.default_rng(3).standard_normal((N, K)).astype(dtype)
    w = kernels.PackedWeight.from_blocks(Tensor(numbers) if as_tensor else numbers, format, (N, K))
    x = tokens(2)
    np.testing.assert_allclose(kernels.linear(Tensor(x), w).numpy(), x @ numbers.astype(np.float32).T, atol=1e-4)


def gguf_file(path, formats, matrices=1, others=()):
    """A file with a tensor of each format, "FORMAT.weight", a vector, "norm.weight", and others; raw rows by name."""
    writer, raws = GGUFWriter(path, "llama"), {}
    for format in formats:
        kind = GGMLQuantizationType[format]
        raws[f"{format}.weight"] = raw = rows(format, matrices * N, 512)
        given = raw.view({"F32": np.float32, "F16": np.float16}.get(format, np.uint8))
        shape = (N, given.shape[-1]) if matrices == 1 else (matrices, N, given.shape[-1])
        writer.add_tensor(f"{format}.weight", given.reshape(shape), raw_dtype=kind)
    for name, array in {"norm.weight": np.ones(8, np.float32), **dict(others)}.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return raws


def contents(w):
    return [plane.numpy().tobytes() for plane in w.planes]


@pytest.mark.parametrize("matrices", [1, 3])
def test_tensors_of_a_file(tmp_path, matrices):
    raws = gguf_file(tmp_path / "m.gguf", kinds := ("Q4_K", "F16", "F32", "BF16", "MXFP4"), matrices)
    for format in kinds:
        expected = kernels.PackedWeight.from_blocks(raws[f"{format}.weight"], format, (matrices * N, 512))
        found = kernels.PackedWeight.from_gguf(tmp_path / "m.gguf", f"{format}.weight")
        assert (found.format, found.shape) == (expected.format, expected.shape)
        assert contents(found) == contents(expected)


def test_the_tensors_that_the_reader_of_gguf_gives(tmp_path):
    gguf_file(tmp_path / "m.gguf", ("Q4_K", "F16", "F32", "BF16"))
    for tensor in GGUFReader(tmp_path / "m.gguf").tensors[:4]:
        given = kernels.PackedWeight.from_blocks(tensor.data, tensor.tensor_type, tensor.shape[::-1])
        found = kernels.PackedWeight.from_gguf(tmp_path / "m.gguf", tensor.name)
        assert contents(given) == contents(found)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Q4_L.weight", "name is 'Q4_L.weight', which is not in .*; similar names: Q4_K.weight"),
        ("?", "similar names: none; it has 3 tensors"),
        (3, "name is 3, which"),
        ("norm.weight", r"norm.weight of shape \(8,\) is a vector, expected a weight \[n, k\]"),
        ("I8.weight", "no kernels for I8, the format of I8.weight; there are Q4_0, "),
    ],
)
def test_tensors_that_are_no_weight(tmp_path, name, message):
    gguf_file(tmp_path / "m.gguf", ["Q4_K"], others={"I8.weight": np.ones((8, 8), np.int8)})
    with pytest.raises(ValueError, match=message):
        kernels.PackedWeight.from_gguf(tmp_path / "m.gguf", name)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(HeaderError, match=r"m\.gguf"):
        kernels.PackedWeight.from_gguf(tmp_path / "m.gguf", "a")
