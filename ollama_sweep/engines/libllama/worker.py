"""The child process of the engine `libllama`: it holds the library, the model, and one context at a time.

`python -m ollama_sweep.engines.libllama.worker`. One JSON object a line on stdin, one line of answer each on stdout:

    {"open": {"library", "folder", "backend", "build"}}  -> {"version", "has_gpu"}
    {"load": {"path", "num_gpu", "free_bytes"}}          -> {"log"}
    {"tokens": TEXT}                                     -> {"count"}
    {"template": {"path", "told"}}                       -> {"text"}: rendered by the wheel's own llama-server
    {"drop": {}}                                         -> {}: the context is freed
    {"make": {"num_ctx", "num_batch", "num_thread", "flash_attention", "kv_cache_type", "free_bytes"}}
                                                         -> {"num_ctx", "num_batch", "log"}
    {"generate": {"text", "num_predict", "num_ctx"}}     -> {"text", "prompt_n", "prompt_s", "predicted_n", …}

or {"failed": …, "log"} for what the library could not do, {"unknown": …} for a setting that cannot be set with it,
{"refused": …} for a library that is not understood. Its log goes to stderr as well. The process ends when its stdin is
closed, and with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ollama_sweep.engines.libllama import native
from ollama_sweep.engines.llamacpp.worker import end_with_the_parent, own_stdout

FIRST_TO_GO = 1000
"""The kernel ends this process before all others when memory is short."""
SHARE_OF_FREE = 0.9
TEMPLATE_CTX = 256


def main() -> None:
    end_with_the_parent()
    _go_first()
    answers, worker = own_stdout(), Worker()
    for line in sys.stdin:
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        answers.flush()


def _go_first() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO), "ascii")


class Worker:
    """What is open, loaded and made."""

    def __init__(self) -> None:
        self._log = native.Log(_to_stderr)
        self._library: native.Library | None = None
        self._model: native.Model | None = None
        self._context: native.Context | None = None
        self._build = 0
        self._has_gpu = False
        self._answers: Mapping[str, Callable[[Any], dict[str, Any]]] = {
            "open": self._open, "load": self._load, "tokens": self._tokens, "template": self._template,
            "drop": self._drop, "make": self._make, "generate": self._generate,
        }  # fmt: skip

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request by its only name."""
        ((name, wanted),) = request.items()
        self._log.begin(name)
        try:
            return self._answers[name](wanted)
        except native.Refused as error:
            return {"refused": str(error), "log": self._log.text}
        except native.Unknown as error:
            return {"unknown": str(error)}
        except (native.Failed, MemoryError) as error:
            return {"failed": self._log.errors or str(error) or "out of memory", "log": self._log.text}

    def _open(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        self._library = native.Library(Path(wanted["library"]), self._log)
        self._build = int(wanted["build"])
        try:
            self._has_gpu = self._library.start(wanted["folder"], wanted["backend"])
        except native.Refused as error:
            raise native.Refused(f"{error}: {_last_line(self._log.text)}") from None
        return {"version": self._library.version, "has_gpu": self._has_gpu}

    def _load(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        assert self._library is not None
        self._limit_memory(wanted["free_bytes"])
        self._model = self._library.load(wanted["path"], self._build, wanted.get("num_gpu"))
        return {"log": self._log.text}

    def _tokens(self, text: str) -> dict[str, Any]:
        assert self._model is not None
        return {"count": len(self._model.tokens(text))}

    def _drop(self, _wanted: object) -> dict[str, Any]:
        if self._context is not None:
            self._context.free()
            self._context = None
        return {}

    def _make(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        assert self._model is not None
        self._drop({})
        self._limit_memory(wanted["free_bytes"])
        self._context = made = self._model.context(self._build, wanted)
        return {"num_ctx": made.n_ctx, "num_batch": made.n_batch, "log": self._log.text}

    def _limit_memory(self, free_bytes: int | None) -> None:
        """What is allocated from now on stays below the free memory.

        A GPU's driver reserves far more address space than it uses, so beside one what can be written counts.
        """
        import resource

        which = resource.RLIMIT_DATA if self._has_gpu else resource.RLIMIT_AS
        used = _used_bytes(data=self._has_gpu)
        if free_bytes is None or used is None:
            return
        _, hard = resource.getrlimit(which)
        resource.setrlimit(which, (hard, hard))
        limit = used + int(free_bytes * SHARE_OF_FREE)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(which, (limit, hard))

    def _generate(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """One answer, greedily; counted and timed as llama-server does, the first token with the prompt."""
        assert self._model is not None
        assert self._context is not None
        began = time.perf_counter()
        model, context = self._model, self._context
        tokens = model.tokens(wanted["text"])
        if not tokens or len(tokens) >= int(wanted["num_ctx"]):
            # It would fit only because llama.cpp rounds num_ctx up; Ollama would cut it.
            return {"too_long": len(tokens)}
        context.warm_up()
        context.clear()
        started = time.perf_counter()
        context.read(tokens)
        token = context.next_token()
        read_at = time.perf_counter()
        pieces = [model.piece(token)]
        count, most = 1, min(int(wanted["num_predict"]), context.n_ctx - len(tokens))
        while count < most and not model.ends(token):
            context.read([token])
            token = context.next_token()
            pieces.append(model.piece(token))
            count += 1
        ended = time.perf_counter()
        return {
            "text": b"".join(pieces).decode("utf-8", "replace"),
            "prompt_n": len(tokens),
            "prompt_s": read_at - started,
            "predicted_n": count,
            "predicted_s": max(1e-6, ended - read_at),
            "ttft_s": read_at - began,
            "duration_s": ended - began,
            "chunk_count": sum(bool(piece) for piece in pieces),
        }

    def _template(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """These messages in the model's own template, by the llama-server inside the wheel, on the processor alone."""
        import urllib.request

        import xllamacpp

        params, key = xllamacpp.CommonParams(), secrets.token_hex(16)
        params.model.path = wanted["path"]
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel = TEMPLATE_CTX, TEMPLATE_CTX, TEMPLATE_CTX, 1
        params.n_gpu_layers, params.warmup, params.api_keys = 0, False, [key]
        server = xllamacpp.Server(params)
        body = json.dumps(wanted["told"]).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(f"{server.listening_address}/apply-template", body, headers)  # noqa: S310 - its own
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - a server in this process
                return {"text": str(json.load(answer)["prompt"])}
        except (OSError, ValueError, KeyError) as error:
            raise native.Failed(f"the model's template cannot be used: {error}") from None


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _used_bytes(*, data: bool) -> int | None:
    """What counts for the limit now: all address space, or what can be written (proc(5), statm)."""
    try:
        fields: Sequence[str] = Path("/proc/self/statm").read_text("ascii").split()
    except OSError:
        return None
    return int(fields[5 if data else 0]) * os.sysconf("SC_PAGE_SIZE")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


if __name__ == "__main__":
    main()
