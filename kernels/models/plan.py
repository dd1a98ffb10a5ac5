"""A pass over a model as a list of launches over typed values: what each launch reads and what it writes.

An architecture is written as straight-line code over values: `x = builder.linear(attended, weight, add=x)`. A value is
an object with a known number of columns, written by one launch of one layer. Values are never found by name, so a
launch reads only what it was given. The builder refuses a value of another pass or of a layer that has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from db.records import Workload
from kernels.models.header import TensorInfo
from kernels.ops.spec import Spec


class PlanError(RuntimeError):
    """The code that plans a model contradicts itself. This is a bug, which no input file can cause."""


@dataclass(frozen=True, eq=False)
class Value:
    """An array of a pass, [tokens, columns]. Values are compared by identity.

    label        a readable name such as "blk.3.attended", the same in passes over different numbers of tokens
    columns      items of each token; None for an array without one row for each token (caches, tables, sorted pairs),
                 whose shape is that of its operand
    persistent   the array lives as long as the model (a cache)
    """

    label: str
    columns: int | None = None
    persistent: bool = False

    def __getitem__(self, columns: slice) -> Columns:
        """A range of the columns."""
        if self.columns is None:
            raise PlanError(f"{self.label} has no columns")
        return Columns(self, columns.start or 0, self.columns if columns.stop is None else columns.stop)

    def split(self, widths: Iterable[int]) -> tuple[Columns, ...]:
        """Adjacent ranges of columns of these widths, from the first column on."""
        ends = tuple(accumulate(widths))
        return tuple(self[start:end] for start, end in zip((0, *ends), ends, strict=False))

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Columns:
    """Columns start .. stop of a value [tokens, columns]."""

    value: Value
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= (self.value.columns or 0):
            raise PlanError(f"{self.value} has {self.value.columns} columns, not {self.start}..{self.stop}")

    @property
    def columns(self) -> int:
        return self.stop - self.start

    @property
    def whole(self) -> bool:
        return self.columns == self.value.columns

    def ends_at(self, other: Columns) -> bool:
        """Whether `other` belongs to the same value and begins where these columns end."""
        return self.value is other.value and self.stop == other.start

    def __str__(self) -> str:
        return f"{self.value}[{self.start}:{self.stop}]"


Source = Value | Columns
"""What a launch accepts as an operand."""


@dataclass(frozen=True)
class Read:
    """A tensor of the file that a launch reads as `operand`.

    Each token reads `picked` of the tensor's `parts` equal parts: the experts that it is routed to, or one row of the
    embedding. 1 of 1 means the whole tensor.

    If several reads have the same operand, their rows are concatenated. The operand "gate+up" stands for two operands,
    the first and the second half of each matrix; "w+" is the first half alone and "+w" the second half alone. `half`
    selects from a tensor that holds keys and values: "keys" (transposed) or "values".
    """

    operand: str
    tensor: TensorInfo
    picked: int = 1
    parts: int = 1
    half: str = ""

    def nbytes(self, m: int) -> int:
        """Bytes read for m tokens, assuming that they pick different parts as long as there are enough parts."""
        halves = self.operand.split("+")
        nbytes = self.tensor.nbytes * sum(map(bool, halves)) // len(halves)
        return nbytes // self.parts * min(m * self.picked, self.parts)


@dataclass(frozen=True)
class PlannedLaunch:
    """One kernel launch of a pass, for any number of tokens. Choosing a token bucket makes it a `Workload`.

    layer         the number of the layer that it belongs to; None before the first and after the last layer
    reads         the tensors of the file that it reads
    inputs        operand -> one value, or several sources whose columns are concatenated
    outputs       the values that it writes, in the order of its operands
    products      multiplications for one token
    cache_read_nbytes, cache_written_nbytes   bytes of the key-value cache: read by all tokens together, and written by
                  each token
    decode_only   the launch belongs to a pass over one token only
    x_dtype, out_dtype   dtypes that differ from the model's, else None
    """

    spec: Spec
    inputs: Mapping[str, tuple[Source, ...]]
    outputs: tuple[Value, ...]
    layer: int | None = None
    reads: tuple[Read, ...] = ()
    products: int = 0
    cache_read_nbytes: int = 0
    cache_written_nbytes: int = 0
    decode_only: bool = False
    x_dtype: str | None = None
    out_dtype: str | None = None

    def workload(self, m: int, x_dtype: str) -> Workload:
        return self.spec.workload(m, self.x_dtype or x_dtype, self.out_dtype or x_dtype)

    @property
    def op(self) -> str:
        return self.spec.op

    def nbytes(self, m: int) -> int:
        """Bytes of weights read for m tokens."""
        return sum(read.nbytes(m) for read in self.reads)

    def cache_nbytes(self, m: int) -> int:
        """Bytes of the key-value cache that m tokens read together, plus the bytes that they write."""
        return self.cache_read_nbytes + m * self.cache_written_nbytes

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(read.tensor.name for read in self.reads)

    def __str__(self) -> str:
        return f"{self.op} -> {', '.join(map(str, self.outputs))}"


@dataclass(frozen=True)
class Pass:
    """The launches of a pass over one token, or over many, in order.

    inputs: the values that exist before the first launch, by label: token ids, tables of angles, caches. results: the
    values that the pass is run for, by name; empty for an unknown architecture, whose launches are only listed.
    """

    launches: tuple[PlannedLaunch, ...]
    inputs: Mapping[str, Value]
    results: Mapping[str, Value]

    def until(self, *results: str) -> tuple[PlannedLaunch, ...]:
        """The launches up to the one that completes these results."""
        wanted = {self.results[name] for name in results}
        last = max(i for i, launch in enumerate(self.launches) if wanted & set(launch.outputs))
        return self.launches[: last + 1]


class PassBuilder:
    """Collects the launches of one pass and checks each as it is added.

    Every value that a launch reads must be alive: an input of the pass, written by a launch of the current layer, or
    carried into the layer by `layer`.
    """

    def __init__(self) -> None:
        self._launches: list[PlannedLaunch] = []
        self._inputs: dict[str, Value] = {}
        self._alive: set[Value] = set()
        self._labels: set[str] = set()
        self._layer: int | None = None

    def input(self, label: str, columns: int | None = None, *, persistent: bool = False) -> Value:
        """The value with this label that exists before the pass begins. Repeated calls return the same value."""
        if label in self._inputs:
            return self._inputs[label]
        self._inputs[label] = found = self._named(Value(label, columns, persistent))
        return found

    @contextmanager
    def layer(self, number: int, *carried: Value) -> Iterator[None]:
        """Launches added inside the context belong to a layer. Of earlier values they can read only `carried`. A later
        layer can read only those values of this layer that are carried into it."""
        if self._layer is not None:
            raise PlanError(f"layer {number} begins within layer {self._layer}")
        for value in carried:
            self._check(value, f"layer {number}")
        self._alive, self._layer = set(carried), number
        try:
            yield
        finally:
            self._layer = None

    def add(
        self,
        spec: Spec,
        inputs: Mapping[str, Source | Sequence[Source]],
        outputs: Mapping[str, int | None],
        **facts: Any,
    ) -> tuple[Value, ...]:
        """Adds a launch and returns the values that it writes.

        outputs: name -> number of columns, in the order of the operands. facts: the other fields of `PlannedLaunch`.
        Raises PlanError for a value that is not alive and for a name that is already used in this layer.
        """
        given = {operand: joined(value) for operand, value in inputs.items()}
        for source in (s for sources in given.values() for s in sources):
            self._check(source.value if isinstance(source, Columns) else source, spec.op)
        prefix = "" if self._layer is None else f"blk.{self._layer}."
        made = tuple(self._named(Value(prefix + name, columns)) for name, columns in outputs.items())
        self._alive.update(made)
        self._launches.append(PlannedLaunch(spec, given, made, self._layer, **facts))
        return made

    @property
    def current_layer(self) -> int | None:
        """The layer that launches are added to; None outside of all layers."""
        return self._layer

    def finished(self, **results: Value) -> Pass:
        """The complete pass with its `results`."""
        for name, value in results.items():
            self._check(value, f"the result {name!r}")
        return Pass(tuple(self._launches), dict(self._inputs), results)

    def _check(self, value: Value, who: str) -> None:
        if value not in self._alive and self._inputs.get(value.label) is not value:
            where = "" if self._layer is None else f" in layer {self._layer}"
            raise PlanError(
                f"{who}{where} takes {value}, which no launch of this layer has made and nothing carries on"
            )

    def _named(self, value: Value) -> Value:
        if value.label in self._labels:
            raise PlanError(f"{value.label} is made twice in one pass")
        self._labels.add(value.label)
        return value


def joined(sources: Source | Sequence[Source]) -> tuple[Source, ...]:
    """Sources to concatenate, in simplest form: adjacent columns of one value are merged, and a whole value is
    itself."""
    found: list[Source] = []
    for source in (sources,) if isinstance(sources, (Value, Columns)) else sources:
        last = found.pop() if found else None
        if isinstance(last, Columns) and isinstance(source, Columns) and last.ends_at(source):
            source = Columns(last.value, last.start, source.stop)
        elif last is not None:
            found.append(last)
        found.append(source)
    return tuple(s.value if isinstance(s, Columns) and s.whole else s for s in found)


def width(sources: Source | Sequence[Source]) -> int | None:
    """The number of columns of concatenated sources; None if one of them has no columns."""
    counts = [source.columns for source in joined(sources)]
    return None if None in counts else sum(count or 0 for count in counts)


def whole(**tensors: TensorInfo | None) -> tuple[Read, ...]:
    """Reads of whole tensors, by operand. None is skipped."""
    return tuple(Read(operand, tensor) for operand, tensor in tensors.items() if tensor is not None)


def row_count(tensors: Iterable[TensorInfo]) -> int:
    """The number of rows of all tensors together. A vector counts as one row."""
    return sum(tensor.shape[0] if len(tensor.shape) > 1 else 1 for tensor in tensors)
