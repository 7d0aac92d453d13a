"""The head of a GGUF file: its metadata, without its tensors and without its token lists.

The PyPI package `gguf` reads every token into an object of its own first (seconds for a large vocabulary); a sweep
needs a dozen numbers. Version 2 and 3 of the format, little and big endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.rates import BYTES_MOST
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.machine.files import file_digest

Value = str | int | float | bool | list[int] | list[float] | list[bool]

MAGIC = b"GGUF"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING = 8
_ARRAY = 9
KEPT_ARRAY = 4096
"""Longer lists (tokens, scores, merges) are passed over; one number per layer is kept."""
LONGEST_TEXT = 4 << 20
MOST_ENTRIES = 1 << 20

_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """`values` are the metadata by key, long lists left out; `parameter_count` is the sum of all tensors' elements."""

    values: Mapping[str, Value]
    parameter_count: int

    @property
    def architecture(self) -> str | None:
        return self._text("general.architecture")

    @property
    def chat_template(self) -> str | None:
        """The model's own chat template (Jinja)."""
        return self._text("tokenizer.chat_template")

    @property
    def context_length(self) -> int | None:
        """The context the model was trained for, in tokens."""
        return self._number("context_length")

    @property
    def quantization(self) -> str | None:
        """`Q4_1`, `Q4_K_M`, …; None where the file does not say or the number is not known."""
        value = self.values.get("general.file_type")
        return _FILE_TYPES.get(value) if isinstance(value, int) else None

    @property
    def parameter_size(self) -> str | None:
        """`134.52M`, `8.0B`: as Ollama writes it, else the size label."""
        count = self.parameter_count or self.values.get("general.parameter_count")
        if isinstance(count, int) and count and not self.is_split:
            return _human_number(count)
        return self._text("general.size_label")

    @property
    def is_split(self) -> bool:
        """The model lies in several files, of which this is one."""
        count = self.values.get("split.count")
        return isinstance(count, int) and count > 1

    @property
    def is_embedding_model(self) -> bool:
        return self._number("pooling_type") is not None

    @property
    def kv_bytes_per_token(self) -> int | None:
        """Bytes of an f16 cache per token of context, over all layers."""
        layers = self._number("block_count")
        key, value = self._head_length("key_length"), self._head_length("value_length")
        if layers is None or key is None or value is None:
            return None
        heads = self._of_all_layers("attention.head_count_kv", layers)
        if heads is None:
            heads = self._of_all_layers("attention.head_count", layers)
        return 2 * heads * (key + value) if heads is not None else None

    def _of_all_layers(self, name: str, layers: int) -> int | None:
        """The sum over the layers of a number that is one for all, or a list with one for each."""
        value = self._own(name)
        if isinstance(value, list):
            return int(sum(value))
        return value * layers if isinstance(value, int) else None

    def _head_length(self, name: str) -> int | None:
        length = self._number(f"attention.{name}")
        if length is not None:
            return length
        width, heads = self._number("embedding_length"), self._own("attention.head_count")
        most = max(heads, default=0) if isinstance(heads, list) else heads
        return width // int(most) if width and most else None

    def _own(self, name: str) -> Value | None:
        return self.values.get(f"{self.architecture}.{name}")

    def _number(self, name: str) -> int | None:
        value = self._own(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if isinstance(value, str) else None


def read_header(path: Path) -> Header:
    """Read a GGUF file's head. Raises ConfigError for a file that is not there, is cut off, or is something else."""
    try:
        with path.open("rb") as stream:
            return _Reader(stream, str(path)).header()
    except FileNotFoundError:
        raise ConfigError("file not found", str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror or error})", str(path)) from None


class _Reader:
    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._stream = stream
        self._where = where
        self._order = "<"

    def header(self) -> Header:
        if self._stream.read(4) != MAGIC:
            raise ConfigError("is not a GGUF file", self._where)
        version = self._scalar("I")
        if version > 0xFFFF:
            self._order = ">"
            version = int.from_bytes(int(version).to_bytes(4, "little"), "big")
        if version not in (2, 3):
            raise ConfigError(f"is GGUF version {version}; versions 2 and 3 are known", self._where)
        tensors, entries = self._count(), self._count()
        fields: dict[str, Value] = {}
        for _ in range(entries):
            key = self._text()
            value = self._value(int(self._scalar("I")))
            if value is not None:
                fields[key] = value
        return Header(fields, sum(self._tensor_elements() for _ in range(tensors)))

    def _count(self) -> int:
        number = int(self._scalar("Q"))
        if number > MOST_ENTRIES:
            raise self._broken()
        return number

    def _tensor_elements(self) -> int:
        self._text()
        dimensions = int(self._scalar("I"))
        if dimensions > 8:
            raise self._broken()
        elements = prod(int(self._scalar("Q")) for _ in range(dimensions))
        self._bytes(12)  # type and offset
        return elements

    def _value(self, kind: int) -> Value | None:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array(int(self._scalar("I")), int(self._scalar("Q")))
        letter = _SCALARS.get(kind)
        if letter is None:
            raise self._broken()
        return self._scalar(letter)

    def _array(self, kind: int, count: int) -> Value | None:
        """A list of numbers; None for a long one, and for texts."""
        if kind == _STRING:
            self._skip_texts(count)
            return None
        letter = _SCALARS.get(kind)
        if letter is None:
            raise self._broken()
        size = struct.calcsize(f"<{letter}")
        if count > KEPT_ARRAY:
            self._skip(count * size)
            return None
        return list(struct.unpack(f"{self._order}{count}{letter}", self._bytes(count * size)))

    def _skip_texts(self, count: int) -> None:
        """Pass over texts. There are hundreds of thousands of them, so this loop is flat."""
        read, length_of = self._stream.read, struct.Struct(f"{self._order}Q").unpack
        for _ in range(count):
            head = read(8)
            if len(head) < 8:
                raise self._cut_off()
            length = length_of(head)[0]
            if length > LONGEST_TEXT:
                raise self._broken()
            if len(read(length)) < length:
                raise self._cut_off()

    def _text(self) -> str:
        length = int(self._scalar("Q"))
        if length > LONGEST_TEXT:
            raise self._broken()
        return self._bytes(length).decode("utf-8", "replace")

    def _scalar(self, letter: str) -> int | float | bool:
        form = self._order + letter
        value: int | float | bool = struct.unpack(form, self._bytes(struct.calcsize(form)))[0]
        return value

    def _bytes(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise self._cut_off()
        return data

    def _skip(self, count: int) -> None:
        """Go forward within the file; by reading, as a seek past the end would not be noticed."""
        while count > 0:
            step = min(count, 1 << 16)
            self._bytes(step)
            count -= step

    def _cut_off(self) -> ConfigError:
        return ConfigError("is cut off: the file ends in its head; download it again", self._where)

    def _broken(self) -> ConfigError:
        return ConfigError("is damaged: its head makes no sense; download it again", self._where)


def _human_number(count: int) -> str:
    """As Ollama's format.HumanNumber."""
    for size, letter, decimals in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= size:
            return f"{count // size}{letter}" if count % size == 0 else f"{count / size:.{decimals}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def gguf_info(name: str) -> ModelInfo:
    """A GGUF file as a model. Raises ConfigError for a missing, cut off or foreign file."""
    return replace(head_info(name), digest=file_digest(Path(name).expanduser()))


def head_info(name: str) -> ModelInfo:
    """The same by the file's head alone, without its digest, which takes a while for a large file."""
    path = Path(name).expanduser()
    header = read_header(path)
    return ModelInfo(
        name=name,
        digest="",
        family=header.architecture,
        parameter_size=header.parameter_size,
        quantization=header.quantization,
        context_length=header.context_length,
        size_bytes=path.stat().st_size,
        kv_bytes_per_token=header.kv_bytes_per_token,
    )


def header_of(values: Mapping[str, object]) -> Header:
    """A header from metadata that a server shows (/api/show model_info), for the same derived facts."""
    kept: dict[str, Any] = {name: value for name, value in values.items() if _is_kept(value)}
    return Header(values=kept, parameter_count=0)


def _is_kept(value: object) -> bool:
    """A text, a number that can be, or a list of such numbers."""
    parts = value if isinstance(value, list) else [value]
    return isinstance(value, str | bool) or all(
        isinstance(part, int | float) and not isinstance(part, bool) and 0 <= part <= BYTES_MOST for part in parts
    )
