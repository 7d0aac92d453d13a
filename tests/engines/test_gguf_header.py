"""A model file's head: the right numbers from a sound file, one plain line for any other."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from gguf_maker import ARRAY, I32, LLAMA, STRING, U32, gguf, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.engines.shared.gguf import _FILE_TYPES, read_header


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_a_sweep_needs_to_know(file: Path, order: str) -> None:
    file.write_bytes(gguf(LLAMA, [(4096, 4096), (4096,)], order=order))
    header = read_header(file)
    assert (header.architecture, header.context_length, header.quantization) == ("llama", 8192, "Q4_K_M")
    assert header.chat_template == "{{ messages }}"
    assert header.kv_bytes_per_token == 2 * 32 * 8 * (128 + 128)
    assert header.parameter_count == 4096 * 4096 + 4096
    assert header.parameter_size == "16.78M"
    assert not header.is_embedding_model
    assert "tokenizer.ggml.tokens" not in header.values
    assert "tokenizer.ggml.scores" not in header.values


def test_heads_that_differ_by_layer_are_added_up(file: Path) -> None:
    own = [entry for entry in LLAMA if "head_count_kv" not in entry[0]]
    own += [
        ("llama.attention.head_count_kv", ARRAY, (U32, [8, 0, 0, 4])),
        ("llama.attention.key_length", U32, 64),
        ("llama.attention.value_length", U32, 32),
    ]
    file.write_bytes(gguf(own))
    assert read_header(file).kv_bytes_per_token == 2 * 12 * (64 + 32)


def test_a_model_that_says_little(file: Path) -> None:
    file.write_bytes(gguf([("general.size_label", STRING, "8x7B"), ("general.file_type", U32, 999)]))
    header = read_header(file)
    assert (header.architecture, header.context_length, header.quantization) == (None, None, None)
    assert (header.kv_bytes_per_token, header.parameter_size) == (None, "8x7B")


def test_a_part_of_a_model_does_not_speak_for_the_whole(file: Path) -> None:
    file.write_bytes(gguf([*LLAMA, ("split.count", I32, 3)], [(4096, 4096)]))
    assert read_header(file).parameter_size == "8B"


@pytest.mark.parametrize(
    ("elements", "size"),
    [(7_000_000_000, "7B"), (8_030_261_312, "8.0B"), (134_515_008, "134.52M"), (2_500, "2K"), (7, "7")],
)
def test_sizes_are_written_as_ollama_does(file: Path, elements: int, size: str) -> None:
    file.write_bytes(gguf([], [(elements,)]))
    assert read_header(file).parameter_size == size


def test_the_file_types_are_those_of_llama_cpp() -> None:
    gguf_package = pytest.importorskip("gguf")
    known = {kind.value: kind.name for kind in gguf_package.LlamaFileType}
    for number, name in _FILE_TYPES.items():
        assert known.get(number, name).removeprefix("MOSTLY_").removeprefix("ALL_") == name


def test_every_cut_is_noticed(file: Path) -> None:
    whole = gguf(LLAMA, [(16, 16)])
    for length in [*range(200), *range(200, len(whole), 97), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ConfigError, match=r"cut off|not a GGUF file"):
            read_header(file)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a GGUF file"),
        (b"PK\x03\x04 a zip", "is not a GGUF file"),
        (gguf([], version=1), "GGUF version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "makes no sense"),
        (gguf([("x" * (5 << 20), U32, 1)]), "makes no sense"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("key") + struct.pack("<I", 77), "makes no sense"),
    ],
)
def test_a_file_that_is_something_else(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=message) as caught:
        read_header(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="file not found"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_header(tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 600), byte=st.integers(0, 255))
def test_a_damaged_byte_gives_a_header_or_one_plain_error(file: Path, position: int, byte: int) -> None:
    data = bytearray(gguf(LLAMA[:7], [(16, 16)]))
    data[position % len(data)] = byte
    file.write_bytes(data)
    try:
        kv_bytes = read_header(file).kv_bytes_per_token
    except ConfigError:
        kv_bytes = None
    assert kv_bytes is None or kv_bytes >= 0
