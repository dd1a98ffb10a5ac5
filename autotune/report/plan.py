"""The text of a dry run: a model's launches, and the least time of a pass over it. JSON is `workloads.plan_to_json`."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.render import Columns, micros, table, workload_name
from autotune.workloads import ModelPlan, Roof
from db.codec import workload_digest

PLAN: Columns = (
    ("calls", 5),
    ("MB each", 8),
    ("MB in all", 9),
    ("MFLOP each", 10),
    ("floor µs", 9),
    ("digest", -8),
    ("tensors", 0),
)


def plan_table(plan: ModelPlan, roof: Roof) -> str:
    """A row for each workload, then the least time of each pass. `floor µs` is the least time of all calls in a
    pass."""
    rows = []
    for mw in plan.workloads:
        each = (mw.nbytes + mw.cache_nbytes) / 1e6
        rows.append(
            (
                workload_name(mw.workload),
                str(mw.count),
                f"{each:.2f}",
                f"{each * mw.count:.2f}",
                f"{mw.flops / 1e6:.1f}",
                micros(mw.count * roof.seconds(mw)),
                workload_digest(mw.workload)[:8],
                _tensors(mw.tensors),
            )
        )
    width = max((len(name) for name, *_ in rows), default=0)
    floors = [_pass_floor(plan, m, roof) for m in sorted({mw.workload.m for mw in plan.workloads})]
    return "\n".join([table((("workload", -width), *PLAN), rows), *floors])


def _tensors(names: Sequence[str]) -> str:
    """The tensors' names, each once, without the number of the layer: `blk.*: attn_norm, attn_q`."""
    inside = [name.split(".", 2)[2] for name in names if name.startswith("blk.")]
    found = dict.fromkeys([*inside, *(name for name in names if not name.startswith("blk."))])
    text = ", ".join(name.removesuffix(".weight") for name in found)
    return f"blk.*: {text}" if inside else text


def _pass_floor(plan: ModelPlan, m: int, roof: Roof) -> str:
    found = [mw for mw in plan.workloads if mw.workload.m == m]
    weights, cache, flops = (
        sum(mw.count * getattr(mw, name) for mw in found) for name in ("nbytes", "cache_nbytes", "flops")
    )
    seconds = sum(mw.count * roof.seconds(mw) for mw in found)
    kept = f" and {cache / 1e6:.1f} MB of KV cache" if cache else ""
    rate = f" = {m / seconds:.1f} tokens/s" if seconds else ""
    return (
        f"m={m}: {sum(mw.count for mw in found)} launches, {weights / 1e6:.1f} MB of weights{kept}, "
        f"{flops / 1e9:.3g} GFLOP; at least {seconds * 1e3:.2f} ms{rate} {roof}"
    )
