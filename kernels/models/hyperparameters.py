"""Checked access to a model's hyper-parameters by GGUF key. The header is untrusted input.

Keys and their defaults are those of gguf.constants.Keys and of llama.cpp's loader. A caller that passes a layer accepts
an array with one item for each layer; without a layer, an array is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from kernels.models.header import Header, HeaderError, Omitted, TensorInfo, Value

MAX_INTEGER = 1 << 31
TINY, HUGE = 1e-12, 1e12


class Hyperparameters:
    """The keys and tensors of a header. Every method raises HeaderError, which names the key or tensor at fault."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._tensors = {t.name: t for t in header.tensors}

    @property
    def architecture(self) -> str:
        return self._header.architecture

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor of the file, by name."""
        return self._tensors

    @property
    def own(self) -> Mapping[str, Value]:
        """The keys of the file's architecture, without its name as prefix: "rope.freq_base"."""
        start = self.name("")
        return {key.removeprefix(start): v for key, v in self._header.metadata.items() if key.startswith(start)}

    @property
    def vocabulary(self) -> int:
        """The size of the vocabulary, as llama.cpp determines it: from the key, else the tokenizer, else the
        embedding."""
        tokens = self._header.metadata.get("tokenizer.ggml.tokens")
        kept = self._header.kept.get("tokenizer.ggml.tokens")
        counted = len(kept) if kept else tokens.length if isinstance(tokens, Omitted) else 0
        return self.integer("vocab_size", counted or self.need("token_embd.weight").shape[0])

    def error(self, message: str) -> HeaderError:
        return HeaderError(self._header.files[0], message)

    def name(self, key: str) -> str:
        """The key as it is in the file, with the architecture as prefix."""
        return f"{self._header.architecture}.{key}"

    def integer(self, key: str, default: int | None = None, *, layer: int | None = None, low: int = 1) -> int:
        """An integer in [low, 2^31). Without a default the key is required. layer: accept an array, and return the item
        of this layer."""
        value = self._value(key, default, layer)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < MAX_INTEGER:
            raise self.error(f"{self.name(key)} is {value!r:.80}, expected a whole number, {low} or more")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """0, or a number from TINY to HUGE. Without a default the key is required."""
        value = self._value(key, default)
        if isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
            raise self.error(f"{self.name(key)} is {value!r:.80}, expected a number")
        if value != 0 and not TINY <= value <= HUGE:  # true for NaN and infinities
            raise self.error(f"{self.name(key)} is {value!r:.80}, expected 0 or a number from {TINY} to {HUGE}")
        return float(value)

    def flag(self, key: str, default: bool, *, layer: int | None = None) -> bool:
        value = self._value(key, default, layer)
        if value not in (0, 1):
            raise self.error(f"{self.name(key)} is {value!r:.80}, expected true or false")
        return bool(value)

    def text(self, key: str, default: str) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.error(f"{self.name(key)} is {value!r:.80}, expected a string")
        return value

    def items(self, key: str) -> tuple[int | float, ...] | None:
        """The key's array; None if the key is missing or not an array."""
        value = self._header.metadata.get(self.name(key))
        return value if isinstance(value, tuple) else None

    def tensor(self, name: str) -> TensorInfo | None:
        return self._tensors.get(name)

    def need(self, name: str) -> TensorInfo:
        found = self._tensors.get(name)
        if found is None:
            raise self.error(
                f"the tensor {name!r} is missing, which a model of {self._header.architecture} must have: convert the "
                "model again"
            )
        return found

    def matrix(self, name: str, *, n: int | None = None, k: int | None = None) -> TensorInfo:
        """A required weight [n, k]. None accepts any size."""
        return self._shaped(name, (n, k))

    def vector(self, name: str, n: int) -> TensorInfo:
        """A required vector [n]."""
        return self._shaped(name, (n,))

    def optional_vector(self, name: str, n: int) -> TensorInfo | None:
        """A vector [n], or None if the file does not have it."""
        return self.vector(name, n) if name in self._tensors else None

    def stack(self, name: str, shape: tuple[int | None, int | None, int | None] = (None, None, None)) -> TensorInfo:
        """A required stack of weights [experts or heads, n, k]. None accepts any size."""
        return self._shaped(name, shape)

    def _shaped(self, name: str, shape: tuple[int | None, ...]) -> TensorInfo:
        found = self.need(name)
        if len(found.shape) != len(shape) or any(w not in (None, s) for w, s in zip(shape, found.shape, strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise self.error(f"{name} has the shape {found.shape}, the rest of the header asks for ({wanted})")
        return found

    def _value(self, key: str, default: object, layer: int | None = None) -> object:
        value = self._header.metadata.get(self.name(key), default)
        if value is None:
            raise self.error(f"the key {self.name(key)} is missing: convert the model again with a current llama.cpp")
        if not isinstance(value, tuple):
            return value
        if layer is None:
            raise self.error(
                f"{self.name(key)} is an array of {len(value)} values, expected one value: convert the model again"
            )
        if len(value) != (layers := self.integer("block_count")):
            raise self.error(f"{self.name(key)} has {len(value)} items, expected one for each of {layers} layers")
        return value[layer]
