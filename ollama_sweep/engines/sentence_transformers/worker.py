"""The child process of the engine `sentence_transformers`: it holds torch, so that a crash takes only this process.

`python -m ollama_sweep.engines.sentence_transformers.worker`. One JSON object a line on stdin, one answer each:

    {"locate": {"model"}}                          -> {"path"}: the folder with the model's files
    {"load": {"path", "device", …}}                -> {"device", "max_seq_length"}
    {"embed": {"texts", "batch_size"}}             -> {"rows", "dimension", "dtype", "device", …}
    {"unload": {}}                                 -> {}: memory is given back, also that of a GPU

or {"error": text, "type": name of the exception}. While rows are embedded, {"done": rows} comes after each batch and
before the answer. The process ends when its stdin is closed.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO


class Holder:
    """The model that is loaded now."""

    def __init__(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._tell = tell
        self._model: Any = None
        self._device = ""

    def locate(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        name = asked["model"]
        if os.path.isdir(name):
            return {"path": name}
        import huggingface_hub

        return {"path": huggingface_hub.snapshot_download(name)}

    def load(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        import sentence_transformers

        self._device = asked["device"] or _best_device()
        self._model = sentence_transformers.SentenceTransformer(
            asked["path"], device=self._device, trust_remote_code=asked["trust_remote_code"]
        )
        own = getattr(self._model, "max_seq_length", None)
        self._model.max_seq_length = min(own, asked["max_seq_length"]) if own else asked["max_seq_length"]
        return {"device": self._device, "max_seq_length": self._model.max_seq_length}

    def embed(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        with self._telling(asked["batch_size"]):
            started = time.monotonic()
            found = self._model.encode(
                asked["texts"], batch_size=asked["batch_size"], show_progress_bar=False, convert_to_numpy=True
            )
            _synchronize(self._device)
            duration_s = time.monotonic() - started
        rows, dimension = found.shape
        return {"rows": rows, "dimension": dimension, "dtype": str(found.dtype), "duration_s": duration_s,
                "device": self._used_device()}  # fmt: skip

    @contextlib.contextmanager
    def _telling(self, batch_size: int) -> Iterator[None]:
        """Tell how many rows are done. `encode` shows that to a terminal only, so the model's first part counts."""
        batches = itertools.count(1)
        first = next(iter(self._model.children()), None)
        if first is None:
            yield
            return
        hook = first.register_forward_hook(lambda *_: self._tell({"done": next(batches) * batch_size}))
        try:
            yield
        finally:
            hook.remove()

    def _used_device(self) -> str:
        """cuda, mps, rocm or cpu: where the model lies. torch says cuda of AMD's GPUs, too."""
        name = str(getattr(self._model, "device", None) or self._device).partition(":")[0]
        if name != "cuda":
            return name
        import torch

        return "rocm" if torch.version.hip else name

    def unload(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self._model = None
        gc.collect()
        _empty_cache(self._device)
        return {}


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _synchronize(device: str) -> None:
    """What a GPU still does belongs to the time that is measured."""
    if device in ("cuda", "mps"):
        import torch

        getattr(torch, device).synchronize()


def _empty_cache(device: str) -> None:
    if device in ("cuda", "mps"):
        import torch

        _synchronize(device)
        getattr(torch, device).empty_cache()


def main() -> None:
    answers = _own_stdout()

    def tell(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    holder = Holder(tell)
    for line in sys.stdin:
        ((what, asked),) = json.loads(line).items()
        try:
            answer = getattr(holder, what)(asked)
        except Exception as error:
            answer = {"error": str(error), "type": type(error).__name__}
        tell(answer)


def _own_stdout() -> TextIO:
    """stdout for the answers alone: what libraries print there goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
