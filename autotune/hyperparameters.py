"""A model's hyper-parameters by GGUF key, checked: the header is somebody else's file.

Keys and their defaults are those of gguf.constants.Keys and of llama.cpp's loader. A value may be an array with one
item a layer.
"""

from __future__ import annotations

import math

from autotune.header import Header, HeaderError, TensorInfo

MAX_INTEGER = 1 << 31
MAX_LAYERS = 1 << 12


class Hyperparameters:
    """The keys under a header's architecture. Everything raises HeaderError that names the key or tensor at fault."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._tensors = {t.name: t for t in header.tensors}

    def error(self, message: str) -> HeaderError:
        return HeaderError(self._header.files[0], message)

    def has(self, key: str) -> bool:
        return self._name(key) in self._header.metadata

    def integer(self, key: str, default: int | None = None, *, layer: int = 0, low: int = 1) -> int:
        """An integer in [low, 2^31); without a default the key must be there."""
        value = self._value(key, default, layer)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < MAX_INTEGER:
            raise self.error(f"{self._name(key)} is {value!r:.80}, expected a whole number from {low} on")
        return value

    def number(self, key: str, default: float | None = None, *, layer: int = 0) -> float:
        """A finite number >= 0."""
        value = self._value(key, default, layer)
        if isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
            raise self.error(f"{self._name(key)} is {value!r:.80}, expected a number")
        if not math.isfinite(value) or value < 0:
            raise self.error(f"{self._name(key)} is {value!r:.80}, expected a finite number, not below 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        return (
            bool(self.integer(key, int(default), low=0)) if not self._is_bool(key) else bool(self._value(key, None, 0))
        )

    def text(self, key: str, default: str) -> str:
        value = self._value(key, default, 0)
        if not isinstance(value, str):
            raise self.error(f"{self._name(key)} is {value!r:.80}, expected a string")
        return value

    def items(self, key: str) -> tuple[int | float, ...] | None:
        """The key's array, None if it is no array or not there."""
        value = self._header.metadata.get(self._name(key))
        return value if isinstance(value, tuple) else None

    def tensor(self, name: str) -> TensorInfo | None:
        return self._tensors.get(name)

    def need(self, name: str) -> TensorInfo:
        found = self._tensors.get(name)
        if found is None:
            raise self.error(f"the tensor {name!r} is missing, which a model of {self._header.architecture} has")
        return found

    def matrix(self, name: str, *, n: int | None = None, k: int | None = None) -> TensorInfo:
        """A tensor that must be there, of shape (n, k); None is any size."""
        found = self.need(name)
        if len(found.shape) != 2 or any(
            want not in (None, seen) for want, seen in zip((n, k), found.shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in (n, k))
            raise self.error(f"{name} has the shape {found.shape}, its hyper-parameters ask for ({wanted})")
        return found

    def _is_bool(self, key: str) -> bool:
        return isinstance(self._header.metadata.get(self._name(key)), bool)

    def _name(self, key: str) -> str:
        return f"{self._header.architecture}.{key}"

    def _value(self, key: str, default: object, layer: int) -> object:
        value = self._header.metadata.get(self._name(key), default)
        if value is None:
            raise self.error(f"the key {self._name(key)} is missing: convert the model again with a current llama.cpp")
        if isinstance(value, tuple):
            if layer >= len(value):
                raise self.error(f"{self._name(key)} has {len(value)} items, none for layer {layer}")
            return value[layer]
        return value
