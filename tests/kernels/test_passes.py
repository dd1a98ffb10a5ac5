"""Every launch of a model's two passes: the twelve real models in full, and what each launch says of its work."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from support import gguf_files as files
from support import synthetic_models as made

from kernels.models.header import Header, read_header
from kernels.models.passes import PROMPT_TOKENS, plan_passes
from kernels.models.plan import PlannedLaunch
from kernels.ops.registry import OPS, nbytes_moved, variants

MODELS = sorted(path.stem for path in files.MODELS.glob("*.json"))
DENSE_BLOCK = ["rmsnorm_linear", "rope_cache_store", "flash_decode", "flash_combine", "linear", "gate_up", "linear"]
POST_NORM_BLOCK = [*DENSE_BLOCK[:5], "rmsnorm_add", "gate_up", "linear", "rmsnorm_add"]
LATENT = ["mla_cache_store", "head_linear", "mla_decode", "flash_combine", "head_linear", "linear"]
ROUTED = ["rmsnorm", "linear", "topk", "expert_linear", "expert_linear"]
SHARED = ["gate_up", "linear"]

ON_HOST = {
    "rope_cache_store": ["host_cache_store"],
    "flash_decode": ["host_decode"],
    "flash_combine": ["host_combine"],
    "argmax": ["host_peaks", "host_argmax"],
}


def blocks(*layers: list[str]) -> list[str]:
    return ["embed", *(op for layer in layers for op in layer), "rmsnorm_linear", "argmax"]


STEPS = {
    "llama-3.2-1b": blocks(*[DENSE_BLOCK] * 16),
    "llama-3.2-3b": blocks(*[DENSE_BLOCK] * 28),
    "llama-3.1-8b": blocks(*[DENSE_BLOCK] * 32),
    "qwen3-0.6b": blocks(*[DENSE_BLOCK] * 28),
    "qwen3-1.7b": blocks(*[DENSE_BLOCK] * 28),
    "qwen3-8b": blocks(*[DENSE_BLOCK] * 36),
    "smollm2-135m": blocks(*[DENSE_BLOCK] * 30),
    "gemma-3-1b": blocks(*[POST_NORM_BLOCK] * 26),
    "gpt-oss-20b": blocks(*[[*DENSE_BLOCK[:5], *ROUTED]] * 24),
    "youtu-llm-2b": blocks(*[["rmsnorm_linear", "rmsnorm_linear", *LATENT, "gate_up", "linear"]] * 32),
    "deepseek-v2-lite": blocks(
        ["rmsnorm_linear", *LATENT, "gate_up", "linear"], *[["rmsnorm_linear", *LATENT, *ROUTED, *SHARED]] * 26
    ),
    "glm-4.7-flash": blocks(
        ["rmsnorm_linear", "rmsnorm_linear", *LATENT, "gate_up", "linear"],
        *[["rmsnorm_linear", "rmsnorm_linear", *LATENT, *ROUTED, *SHARED]] * 46,
    ),
}


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Header]:
    """The real models' headers, read from sparse files of full size."""
    folder = tmp_path_factory.mktemp("models")
    for name in MODELS:
        files.write_sparse_gguf(folder / f"{name}.gguf", *files.load_model(name))
    return {name: read_header(folder / f"{name}.gguf") for name in MODELS}


def test_the_models_are_twelve() -> None:
    assert sorted(STEPS) == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_the_launches_of_a_real_model_in_order(name: str, headers: dict[str, Header]) -> None:
    assert [launch.op for launch in plan_passes(headers[name]).decode.launches] == STEPS[name]


@pytest.mark.parametrize("name", ["llama-3.1-8b", "youtu-llm-2b"])
def test_a_host_has_ops_of_its_own_and_does_not_divide_latent_attention(name: str, headers: dict[str, Header]) -> None:
    ops = [launch.op for launch in plan_passes(headers[name], device="CPU:X86").decode.launches]
    latent = "mla_decode" in STEPS[name]
    assert ops == [own for op in STEPS[name] for own in ON_HOST.get(op, [op]) if not (latent and op == "flash_combine")]


@pytest.mark.parametrize("name", MODELS)
def test_a_token_reads_what_the_model_must_read(name: str, headers: dict[str, Header]) -> None:
    """Each tensor once; of experts those that are used; one row of the embedding, and all of it where it is tied."""
    header = headers[name]
    used = {"deepseek-v2-lite": (6, 64), "glm-4.7-flash": (4, 64), "gpt-oss-20b": (4, 32)}.get(name, (0, 1))
    expected = 0
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight":
            tied = all(t.name != "output.weight" for t in header.tensors)
            expected += tensor.nbytes // tensor.shape[0] + (tensor.nbytes if tied else 0)
        elif "_exps." in tensor.name:
            expected += tensor.nbytes * used[0] // used[1]
        elif tensor.name != "rope_freqs.weight":
            expected += tensor.nbytes
    assert sum(launch.nbytes(1) for launch in plan_passes(header).decode.launches) == expected


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_reads_the_same_tensors_but_the_head(name: str, headers: dict[str, Header]) -> None:
    """Each once; a norm that goes before several weights too. The weights are the very ones that decoding reads, so
    that none is on the device twice."""
    header = headers[name]
    step, prompt = plan_passes(header).decode.launches, plan_passes(header).prompt.launches
    times = Counter(name for launch in prompt for name in launch.tensors)
    rest = Counter(name for launch in step[:-2] for name in launch.tensors)
    assert times == rest
    weights = {group for launch in step for group in stacks(launch)}
    assert {group for launch in prompt for group in stacks(launch)} <= weights


def stacks(launch: PlannedLaunch) -> list[tuple[str, ...]]:
    """The matrices of each weight that a launch reads: those of one operand are on the device as one."""
    operands = dict.fromkeys(read.operand for read in launch.reads if len(read.tensor.shape) > 1)
    return [tuple(read.tensor.name for read in launch.reads if read.operand == operand) for operand in operands]


PROMPT = {
    "rmsnorm_linear": ["rmsnorm", "linear"],
    "gate_up": ["rmsnorm", "linear", "linear"],
    "flash_decode": ["flash_prefill"],
    "mla_decode": ["mla_prefill"],
    "flash_combine": [],
    "expert_linear": [],
}
EXPERTS = ["expert_places", "expert_tiles", "expert_product", "expert_product", "expert_product", "expert_sum"]


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-8b", "gemma-3-1b", "youtu-llm-2b"])
def test_a_prompt_has_no_norms_within_its_products(name: str, headers: dict[str, Header]) -> None:
    ops = [launch.op for launch in plan_passes(headers[name]).prompt.launches]
    assert Counter(ops) - Counter(linear=40) <= Counter(op for o in STEPS[name][:-2] for op in PROMPT.get(o, [o]))
    assert not {"rmsnorm_linear", "gate_up", "flash_combine", "argmax"} & set(ops)


@pytest.mark.parametrize(("name", "layers"), [("gpt-oss-20b", 24), ("deepseek-v2-lite", 26), ("glm-4.7-flash", 46)])
def test_a_prompt_sorts_its_tokens_by_expert(name: str, layers: int, headers: dict[str, Header]) -> None:
    launches = plan_passes(headers[name]).prompt.launches
    ops = [launch.op for launch in launches]
    assert "expert_linear" not in ops
    assert [op for op in ops if op in EXPERTS] == EXPERTS * layers
    products = [launch for launch in launches if launch.op == "expert_product"]
    step = [launch for launch in plan_passes(headers[name]).decode.launches if launch.op == "expert_linear"]
    assert sum(x.products for x in products) == sum(x.products for x in step)
    for m in (32, 512):
        assert sum(x.nbytes(m) for x in products) == sum(x.nbytes(m) for x in step)


@pytest.mark.parametrize("name", MODELS)
def test_the_kernels_take_every_workload_of_a_prompt(name: str, headers: dict[str, Header]) -> None:
    for launch in plan_passes(headers[name]).prompt.launches:
        for m in (PROMPT_TOKENS, 512):
            w = launch.workload(m, "float32")
            assert variants(w), w
            assert nbytes_moved(w) >= launch.nbytes(m)


@pytest.mark.parametrize("architecture", made.MODELS)
def test_a_prompt_of_every_architecture_ends_with_the_residual(architecture: str) -> None:
    header = made.model(architecture)
    found = plan_passes(header).prompt
    assert found.results["residual"] in found.launches[-1].outputs
    for launch in found.launches:
        variants(launch.workload(PROMPT_TOKENS, "float32"))


def in_notes(name: str, notes: tuple[str, ...]) -> bool:
    return any(re.sub(r"^blk\.\d+\.", "blk.*.", name) in re.split(r"[:,] ", note) for note in notes)


def assert_every_tensor_is_accounted_for(header: Header) -> None:
    step = plan_passes(header)
    times = Counter(name for launch in step.decode.launches for name in launch.tensors)
    for tensor in header.tensors:
        tied = tensor.name == "token_embd.weight" and all(t.name != "output.weight" for t in header.tensors)
        twice = tied or tensor.name.endswith("attn_kv_b.weight")
        assert times.pop(tensor.name, 0) == (0 if in_notes(tensor.name, step.notes) else 2 if twice else 1), tensor.name
    assert not times


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_of_a_real_model_is_in_one_launch(name: str, headers: dict[str, Header]) -> None:
    header = headers[name]
    assert_every_tensor_is_accounted_for(header)
    notes = plan_passes(header).notes
    folded = "folded into the table of rope angles when the model is loaded: rope_freqs.weight"
    assert notes == ((folded,) if name.startswith("llama") else ())


@pytest.mark.parametrize(
    ("architecture", "tied"),
    [(name, tied) for name in made.MODELS for tied in (False, True) if not (tied and name in made.UNTIED)],
)
def test_every_tensor_of_every_architecture_is_in_one_launch(architecture: str, tied: bool) -> None:
    assert_every_tensor_is_accounted_for(made.model(architecture, tied=tied))


def test_what_no_launch_reads_is_in_a_note() -> None:
    header = made.model("phi3", more={"rope_factors_long.weight": (32,), "rope_factors_short.weight": (32,)})
    assert_every_tensor_is_accounted_for(header)
    header = made.model("qwen3", more={"cls.output.weight": (2, made.DIM)})
    assert_every_tensor_is_accounted_for(header)
    assert plan_passes(header).notes == ("left out, without an effect on logits: cls.output.weight",)


@pytest.mark.parametrize("name", MODELS)
def test_the_kernels_take_every_workload_of_a_real_model(name: str, headers: dict[str, Header]) -> None:
    for launch in plan_passes(headers[name]).decode.launches:
        for m in (1,) if launch.decode_only else (1, 8):
            w = launch.workload(m, "float32")
            if w.op in OPS:
                assert variants(w), w
                assert nbytes_moved(w) >= launch.nbytes(m) + launch.cache_nbytes(m)


@pytest.mark.parametrize("architecture", made.MODELS)
def test_the_kernels_take_every_workload_of_every_architecture(architecture: str) -> None:
    for launch in plan_passes(made.model(architecture)).decode.launches:
        w = launch.workload(1, "float32")
        assert w.op not in OPS or variants(w), w


def of(header: Header, op: str, **fields: object) -> list[PlannedLaunch]:
    found = plan_passes(header).decode.launches
    same = [launch for launch in found if launch.op == op]
    return [launch for launch in same if all(getattr(launch.spec, name) == fields[name] for name in fields)]


def test_products_and_bytes_of_experts_are_those_that_are_used() -> None:
    gate_up, down = of(made.model("olmoe"), "expert_linear")[:2]
    whole = files.tensor_nbytes((made.EXPERTS, made.EXPERT_FFN, made.DIM), "Q8_0")
    assert gate_up.products == 2 * made.USED * made.EXPERT_FFN * made.DIM
    assert [gate_up.nbytes(m) for m in (1, 2, 4, 8, 512)] == [2 * whole // 8 * n for n in (2, 4, 8, 8, 8)]
    assert down.nbytes(1) == whole // 4


def test_a_window_is_all_that_attention_reads() -> None:
    near, far = (of(made.model("gpt-oss"), "flash_decode", window=window)[0] for window in (128, 0))
    row = 2 * made.KV_HEADS * 2 * made.HEAD
    assert (near.cache_nbytes(1), far.cache_nbytes(1)) == (128 * row, 4096 * row)
    assert far.products == 32 * near.products == 4096 * made.HEADS * 2 * made.HEAD


@pytest.mark.parametrize(("asked", "ctx"), [(1, 1), (31, 31), (4096, 4096), (1 << 40, 8192)])
def test_the_context_is_at_most_the_models(asked: int, ctx: int) -> None:
    launches = plan_passes(made.model("llama"), asked).decode.launches
    attention = next(launch for launch in launches if launch.op == "flash_decode")
    assert (attention.spec.ctx, attention.spec.max_ctx) == (ctx, ctx)
    combined = [launch.spec.splits for launch in launches if launch.op == "flash_combine"]
    assert combined == ([attention.spec.splits] * made.LAYERS if ctx > 100 else [])


def test_a_file_is_read_as_a_header_is(tmp_path: Path) -> None:
    header = made.model("qwen2")
    tensors = [(t.name, t.shape, t.format) for t in header.tensors]
    metadata = {"general.architecture": "qwen2", **header.metadata}
    files.write_sparse_gguf(tmp_path / "a.gguf", metadata, tensors)
    launches = plan_passes(read_header(tmp_path / "a.gguf")).decode.launches
    assert [x.workload(1, "float32") for x in launches] == [
        x.workload(1, "float32") for x in plan_passes(header).decode.launches
    ]
