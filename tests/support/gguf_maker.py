"""Heads of model files, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ollama_sweep.engines.shared.gguf import KEPT_ARRAY

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
Entry = tuple[str, int, object]


def text(value: str, order: str = "<") -> bytes:
    data = value.encode()
    return struct.pack(f"{order}Q", len(data)) + data


def value_bytes(kind: int, value: object, order: str) -> bytes:
    if kind == STRING:
        return text(str(value), order)
    if kind == ARRAY:
        assert isinstance(value, tuple)
        inner, items = value
        head = struct.pack(f"{order}IQ", inner, len(items))
        return head + b"".join(value_bytes(inner, item, order) for item in items)
    return struct.pack(order + {U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q"}[kind], value)


def gguf(
    entries: Sequence[Entry], tensors: Sequence[tuple[int, ...]] = (), *, order: str = "<", version: int = 3
) -> bytes:
    data = b"GGUF" + struct.pack(f"{order}IQQ", version, len(tensors), len(entries))
    for key, kind, value in entries:
        data += text(key, order) + struct.pack(f"{order}I", kind) + value_bytes(kind, value, order)
    for number, shape in enumerate(tensors):
        data += text(f"blk.{number}", order) + struct.pack(f"{order}I{len(shape)}QIQ", len(shape), *shape, 0, 0)
    return data


LLAMA: list[Entry] = [
    ("general.architecture", STRING, "llama"),
    ("general.file_type", U32, 15),
    ("general.size_label", STRING, "8B"),
    ("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "größe", ""])),
    ("tokenizer.ggml.scores", ARRAY, (F32, [0.5] * (KEPT_ARRAY + 1))),
    ("tokenizer.chat_template", STRING, "{{ messages }}"),
    ("llama.context_length", U32, 8192),
    ("llama.block_count", U32, 32),
    ("llama.embedding_length", U32, 4096),
    ("llama.attention.head_count", U32, 32),
    ("llama.attention.head_count_kv", U32, 8),
    ("general.quantization_version", U32, 2),
]
