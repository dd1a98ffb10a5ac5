"""The rows of the tables of keys, and everything that a header's keys decide."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from kernels.llm import angles
from kernels.models.architectures import ARCHITECTURES
from kernels.models.check_keys import row
from kernels.models.foreign_keys import CHANGES, PARTS
from kernels.models.header import Header
from kernels.models.hyperparameters import Hyperparameters
from kernels.models.known_keys import COMMON, OWN, Key
from kernels.models.model import Model
from kernels.models.passes import plan_passes
from support import synthetic_models as made

LLAMA_CPP_KEYS = (Path(__file__).parents[1] / "data" / "llama_cpp_keys.txt").read_text().split()
CONTEXT = 64

Row = tuple[str, str, Key]
ROWS: list[Row] = [
    (name, key, found)
    for name in OWN
    for key in {**PARTS, **CHANGES, **COMMON, **OWN[name]}
    if (found := row(name, key)) is not None
]


def that(status: str, few: Collection[str] = OWN) -> list[Any]:
    """The rows of a status; those that are not of a `few` architectures are slow."""
    return [
        pytest.param(*found, id=f"{found[0]}-{found[1]}", marks=() if found[0] in few else pytest.mark.slow)
        for found in ROWS
        if found[2].status == status
    ]


def with_key(architecture: str, key: str, value: Any, found: Key | None = None) -> Header:
    beside = {"rope.scaling.type": found.kind} if found is not None and found.kind else {}
    return made.rekeyed(made.model(architecture), {**beside, key: value})


def asked(header: Header, context: int = CONTEXT) -> list[Any]:
    """All that depends on keys: the launches of a token, the tables of angles, the factor and the bound of logits."""
    hp = Hyperparameters(header)
    model = Model.of(hp, ARCHITECTURES[header.architecture], context)
    launches = [
        (x.workload(1, "float32"), x.tensors, [(operand, *map(str, values)) for operand, values in x.inputs.items()])
        for x in plan_passes(header, context).decode.launches
    ]
    tables = {name: table.tobytes() for name, table in angles.tables(model, model.context, {}).items()}
    return [launches, tables, model.logit_factor, model.logit_cap]
