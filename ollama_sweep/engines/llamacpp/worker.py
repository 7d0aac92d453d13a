"""The child process of the engine `llamacpp`: it holds llama.cpp, so that an assert or a crash takes only this process.

`python -m ollama_sweep.engines.llamacpp.worker`. One JSON object a line on stdin, one line of answer each on stdout:

    {"load": {…}}      -> {"loaded": true}; a load that fails ends the process, its error is on stderr
    {"generate": {…}}  -> {"text", "thoughts", "timings", "ttft_s", "duration_s", "chunk_count", "thinking_…"}
    {"embed": […]}     -> {"rows", "dimension", "tokens", "duration_s"}

or {"error": {…}} of llama-server's own form.

llama.cpp's log goes to stderr. The process ends when its stdin is closed, and in the middle of a load or a run with
its parent.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from ollama_sweep.core.thoughts import Arrivals

PR_SET_PDEATHSIG = 1
LOG_BUFFER_SIZES = 4
"""The verbosity from which on llama.cpp says how large its buffers are."""


def main() -> None:
    end_with_the_parent()
    answers = own_stdout()
    server: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        if "load" in request:
            server = _load(request["load"])
            answer: dict[str, Any] = {"loaded": True}
        elif "embed" in request:
            answer = _embed(server, request["embed"])
        else:
            answer = _generate(server, request["generate"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def own_stdout() -> TextIO:
    """stdout for the answers alone: what C code prints there goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def end_with_the_parent() -> None:
    """Let the kernel end this process with its parent, also in the middle of a load (Linux, prctl(2)).

    llama.cpp holds the interpreter's lock during a load, so no thread could watch. Elsewhere the process ends after
    the work at hand, when its stdin has ended.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _load(options: Mapping[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options["path"]
    params.verbosity = LOG_BUFFER_SIZES
    params.n_ctx = options["num_ctx"]
    params.n_batch = params.n_ubatch = options["num_batch"]
    params.n_parallel = 1
    params.n_gpu_layers = options["num_gpu"]
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.warmup = options["warmup"]
    params.embedding = options["embedding"]
    # llama-server listens on a free port of 127.0.0.1; nobody is told the key.
    params.api_keys = [secrets.token_hex(16)]
    if options.get("num_thread"):
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["num_thread"]
    if options.get("main_gpu") is not None:
        params.main_gpu = options["main_gpu"]
        params.split_mode = xllamacpp.llama_split_mode.LLAMA_SPLIT_MODE_NONE
    if options.get("use_mmap") is not None:
        modes = xllamacpp.llama_load_mode
        params.load_mode = modes.LLAMA_LOAD_MODE_MMAP if options["use_mmap"] else modes.LLAMA_LOAD_MODE_NONE
    if options.get("flash_attention") is not None:
        kinds = xllamacpp.llama_flash_attn_type
        is_on = options["flash_attention"]
        params.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED if is_on else kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if options.get("kv_cache_type"):
        kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{options['kv_cache_type'].upper()}")
        params.cache_type_k = params.cache_type_v = kind
    return xllamacpp.Server(params)


def _generate(server: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Stream one generation, a chat or a raw prompt, and put its pieces together."""
    started = time.monotonic()
    pieces = Arrivals(started)
    last: dict[str, Any] = {}

    def take(chunk: dict[str, Any]) -> bool:
        nonlocal last
        if "error" in chunk or "timings" in chunk:
            last = chunk
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            text = choice.get("text") or delta.get("content") or ""
            pieces.take(time.monotonic(), text=text, thought=delta.get("reasoning_content") or "")
        return False

    handle: Callable[..., object] = server.handle_completions if "prompt" in request else server.handle_chat_completions
    handle({**request, "stream": True, "cache_prompt": False}, take)
    if "error" in last:
        return {"error": last["error"]}
    duration_s = time.monotonic() - started
    return {
        "text": pieces.text,
        "thoughts": pieces.thoughts,
        "timings": last.get("timings") or {},
        "ttft_s": pieces.ttft_s,
        "duration_s": duration_s,
        "chunk_count": pieces.count,
        "thinking_count": pieces.thinking_count((last.get("timings") or {}).get("predicted_n")),
        "thinking_duration_s": pieces.thinking_duration_s(),
    }


def _embed(server: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The vectors of one batch of texts; only their number and length are told, as nobody looks at them."""
    started = time.monotonic()
    found = server.handle_embeddings({"input": list(texts)})
    if "error" in found:
        return {"error": found["error"]}
    vectors = [entry["embedding"] for entry in found["data"]]
    return {
        "rows": len(vectors),
        "dimension": len(vectors[0]) if vectors else 0,
        "tokens": (found.get("usage") or {}).get("prompt_tokens"),
        "duration_s": time.monotonic() - started,
    }


if __name__ == "__main__":
    main()
