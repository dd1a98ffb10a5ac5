"""The launches that prepare activations for linears: RMSNorm and int8. Here is decided which linears read int8."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kernels.models.header import TensorInfo
from kernels.models.operands import expect, place
from kernels.models.plan import PassBuilder, Source, Value, whole, width
from kernels.ops.norm.spec import RmsNorm, RmsNormAdd
from kernels.ops.q8.spec import BLOCK, Q8, Q8_FORMATS, WORDS, Quantise


class ActivationBuilder(PassBuilder):
    """Prepares each value once, for all linears that read it.

    eps: of every RMSNorm. context: the number of positions in the caches. device: tinygrad's name of the device that
    will run the pass, which decides some launches; "" stands for a GPU. int8: whether linears read activations in int8
    where the formats of their weights allow it.
    """

    def __init__(self, eps: float, context: int, device: str = "", *, int8: bool = False) -> None:
        super().__init__()
        self.eps, self.context, self.device, self._int8 = eps, context, device, int8
        self._prepared: dict[tuple[object, ...], Value] = {}

    def reads_int8(self, *weights: TensorInfo) -> bool:
        """Whether a launch over these weights reads int8. The weights are then in tiles, in all launches."""
        return self._int8 and all(weight.format in Q8_FORMATS for weight in weights)

    def prepared(
        self, x: Source, weights: Iterable[TensorInfo], norm: TensorInfo | None = None
    ) -> tuple[Source, str | None]:
        """x: [m, k] as a launch over these weights reads it, after RMSNorm if `norm` is given, and the launch's
        x_dtype: None or Q8."""
        if self.reads_int8(*weights):
            return self.quantised(x, norm), Q8
        return (x if norm is None else self.normed(x, norm)), None

    def quantised(self, x: Source, norm: TensorInfo | None = None) -> Value:
        """x: [m, k], after RMSNorm if `norm` is given -> its blocks in int8: [m, k / BLOCK * WORDS]"""
        value, start = place(x)
        k = width(x) or 0
        source, row = (x, k) if start else (value, value.columns or 0)
        spec = Quantise(k, row, None if norm is None else self.eps)

        def make() -> Value:
            label = f"{_stem(value.label if norm is None else norm.name)}{f'.{start}' * bool(start)}_q8"
            made = {label: k // BLOCK * WORDS}
            return self.add(spec, {"x": source}, made, reads=whole(norm=norm), products=2 * k)[0]

        return self._once((Q8, value, start, k, norm and norm.name), make)

    def normed(self, x: Source, norm: TensorInfo) -> Value:
        """RMSNorm(x): [m, n] -> [m, n], which several linears may read."""
        return self._once((RmsNorm.op, x, norm.name), lambda: self.rmsnorm(x, norm, f"{_stem(norm.name)}ed"))

    def rmsnorm(self, x: Source, weight: TensorInfo, name: str) -> Value:
        """x: [m, n] -> [m, n]"""
        return self._norm(RmsNorm, {"x": x}, weight, name)

    def rmsnorm_add(self, x: Source, weight: TensorInfo, residual: Source, name: str) -> Value:
        """residual + RMSNorm(x): [m, n]"""
        return self._norm(RmsNormAdd, {"x": x, "residual": residual}, weight, name)

    def _norm(self, kind: type[RmsNorm], inputs: Mapping[str, Source], weight: TensorInfo, name: str) -> Value:
        (n,) = weight.shape
        for operand, source in inputs.items():
            expect(source, n, f"{kind.op}.{operand}")
        (out,) = self.add(kind(n, self.eps), inputs, {name: n}, reads=whole(weight=weight), products=2 * n)
        return out

    def _once(self, key: tuple[object, ...], make: Callable[[], Value]) -> Value:
        """The value that `make` has made for this key in the present layer, or makes now."""
        key = (self.current_layer, *key)
        if key not in self._prepared:
            self._prepared[key] = make()
        return self._prepared[key]


def _stem(name: str) -> str:
    """ "attn_norm" of "blk.3.attn_norm.weight"."""
    return name.removesuffix(".weight").rpartition(".")[2]
