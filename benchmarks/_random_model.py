"""Models with random weights: of any size, for timings; what they write makes no sense.

The words are those of another model file, so a prompt is as long as it would be there. With experts only one of them
answers a token, so such a model is slow to load and quick to run, as a large one is on a GPU.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader, GGUFWriter

WIDTH, HEAD, HEADS, KV_HEADS = 576, 64, 9, 3
SCALE = 0.04
"""Of the weights, so that nothing that is computed with them grows without limit."""


@dataclass(frozen=True)
class Shape:
    """How large a model is: layers, experts of each, and how wide each expert is. One expert is a plain model."""

    layers: int = 6
    experts: int = 1
    inner: int = 1536


def write(path: Path, words_of: Path, shape: Shape) -> None:
    """Write a model of the architecture llama in Q4_0. The same shape gives the same bytes."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(words_of)
    writer = gguf.GGUFWriter(path, "llama")
    words = next(tensor.shape[1] for tensor in reader.tensors if tensor.name == "token_embd.weight")
    _add_head(writer, reader, shape, int(words))
    weights = _Weights(writer, np.random.default_rng(0))
    weights.plain("token_embd.weight", int(words), WIDTH)
    weights.ones("output_norm.weight")
    for layer in range(shape.layers):
        _add_layer(weights, f"blk.{layer}.", shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_head(writer: GGUFWriter, reader: GGUFReader, shape: Shape, words: int) -> None:
    """The sizes, and the words of the other file."""
    import gguf

    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            is_list = field.types[0] == gguf.GGUFValueType.ARRAY
            inner = field.types[-1] if is_list else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_name("random")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_vocab_size(words)
    writer.add_context_length(131_072)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    if shape.experts > 1:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(1)


def _add_layer(weights: _Weights, layer: str, shape: Shape) -> None:
    weights.ones(layer + "attn_norm.weight")
    weights.ones(layer + "ffn_norm.weight")
    for name, wide in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
        weights.plain(f"{layer}attn_{name}.weight", wide * HEAD, WIDTH)
    weights.plain(layer + "attn_output.weight", WIDTH, HEADS * HEAD)
    end, experts = ("_exps.weight", (shape.experts,)) if shape.experts > 1 else (".weight", ())
    if experts:
        weights.full(layer + "ffn_gate_inp.weight", shape.experts, WIDTH)
    for name, rows, columns in (("gate", shape.inner, WIDTH), ("up", shape.inner, WIDTH), ("down", WIDTH, shape.inner)):
        weights.plain(f"{layer}ffn_{name}{end}", *experts, rows, columns)


class _Weights:
    """Adds tensors to a file."""

    def __init__(self, writer: GGUFWriter, chance: np.random.Generator) -> None:
        self._writer, self._chance = writer, chance

    def plain(self, name: str, *shape: int) -> None:
        """Random weights in Q4_0; every expert has the same ones, which its speed does not hang on."""
        import gguf
        import numpy as np

        kind = gguf.GGMLQuantizationType.Q4_0
        packed = gguf.quants.quantize(self._drawn(shape[-2:]), kind)
        data = np.stack([packed] * shape[0]) if len(shape) == 3 else packed
        self._writer.add_tensor(name, data, raw_dtype=kind)

    def full(self, name: str, *shape: int) -> None:
        """Random weights as they are."""
        self._writer.add_tensor(name, self._drawn(shape))

    def ones(self, name: str) -> None:
        """What changes nothing."""
        import numpy as np

        self._writer.add_tensor(name, np.ones(WIDTH, np.float32))

    def _drawn(self, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
        import numpy as np

        return np.asarray(self._chance.standard_normal(shape, dtype=np.float32) * SCALE, np.float32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a random model."""
    parser.add_argument("--layers", type=int, help="measure a model with random weights and so many layers")
    parser.add_argument("--experts", type=int, default=1, help="with --layers: experts of each layer (default 1)")


def model_of(given: argparse.Namespace, folder: Path, usual: Path) -> Path:
    """The random model that is asked for, made in the folder, or else the usual one, whose words it has."""
    if given.layers is None:
        return usual
    shape = Shape(given.layers, given.experts)
    path = folder / f"random-{shape.layers}-{shape.experts}.gguf"
    if not path.exists():
        write(path.with_suffix(".new"), usual, shape)
        path.with_suffix(".new").rename(path)
    return path
