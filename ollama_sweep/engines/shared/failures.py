"""What an engine's error text means. Pure; shared by all engines.

Engines of many versions are in use, so a text is recognised by words that are in it, wherever they stand. What was made
good is left out first: warnings, and what was tried again another way. Of the rest the first rule that matches decides;
words for memory come before the crash that followed from it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ollama_sweep.core.outcome import Status

RECOVERED = "retrying without pipeline parallelism"
"""llama.cpp failed to allocate, tried with less and went on: what stands before it is no error."""

_NO_MEMORY = (
    r"(?:out[ -]of[ -](?:\w+ )?memory|out_?of_?\w*memory|cannot allocate memory|resource temporarily unavailable)"
)
MADE_GOOD = re.compile(
    rf"(?:failed|unable) to (?:allocate|register|pin)[^\n]{{0,60}}?(?:pinned memory|huge ?pages?)"
    rf"(?:[^\n]{{0,80}}?{_NO_MEMORY}|\.?\n[^\n]*vulkan: vk::[^\n]*)?"
    rf"|(?:cuda|hip)host(?:m?alloc|register)\w* failed(?:[^\n]{{0,60}}?{_NO_MEMORY})?"
    rf"|failed to (?:mlock|virtuallock)[^\n]{{0,120}}?(?:{_NO_MEMORY}|$)"
    r"|^[^\n]*?(?:[,;(] ?(?:so )?(?:retrying|trying again)\b"
    r"|\bfalling back to\b|\busing (?:the )?\w+ instead\b)[^\n.]*",
    re.IGNORECASE | re.MULTILINE,
)
"""After these an engine goes on: memory that cannot be pinned or locked is used all the same."""
WARNING = re.compile(r"^[^\n]{0,60}?(?:\bwarn(?:ing)?\b\]?[:\s]|level=warn)[^\n]*", re.IGNORECASE | re.MULTILINE)

SIGNAL_ABORT = 6
SIGNAL_KILL = 9


class Rule(NamedTuple):
    """`pattern` is searched in the text, small and capital letters alike."""

    pattern: re.Pattern[str]
    status: Status
    reason: str


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_CUDA_RESOURCE = _any(
    r"resource allocation failed",  # cublasGetStatusString(CUBLAS_STATUS_ALLOC_FAILED)
    r"CUBLAS_STATUS_ALLOC_FAILED",
    r"CUBLAS_STATUS_NOT_INITIALIZED",  # cublasCreate found no memory for its handle
    r"cublas\w*:? [^\n]{0,60}alloc\w* failed",
    r"too many resources requested for launch",
    r"cudaErrorLaunchOutOfResources",
)
_TOO_LONG = _any(
    r"exceed_context_size_error",
    r"context_length_exceeded",
    r"exceeds the available context size",
    r"prompt is longer than the context length",
    r"input length exceeds (?:the|maximum) context length",
    r"context (?:size|length|window|limit) (?:has been |was )?exceeded",
    r"n_keep \(\d+\) >= n_ctx",
    r"input (?:\(\d+ tokens\) )?is too large to process",
    # vLLM, SGLang, TGI, TensorRT-LLM, llama-cpp-python, LM Studio, and services
    r"maximum context length",
    r"prompt[^\n]{0,60} (?:is )?too (?:long|large)\b",
    r"(?:prompt|inputs?`?|tokens?\)?|sequence|request|messages|conversation)[^\n]{0,60}"
    r" (?:exceeds?|(?:longer|larger|greater) than)"
    r"[^\n]{0,60}(?:context (?:size|length|window)|(?:model|input|sequence) length|n_ctx|max_\w+_(?:len|tokens)"
    r"|token limit)",
    r"context (?:the )?overflow",
    r"loaded with context length of only",
    r"reached context length of",
    r"max_(?:completion_|new_|output_)?tokens must be [^\n]{0,30}got -(?![12]\b)\d+",
    r"`?inputs`? (?:tokens \+|must have less than)",
    r"reduce (?:the length of|your) (?:the |your )?(?:messages?|prompt|inputs?)",
)
_OUT_OF_MEMORY = _any(
    r"out[ -]of[ -](?:device[ -]|host[ -])?memory",
    r"(?:cuda|hip)malloc\w* failed",
    r"failed to allocate",
    r"allocation failed",
    r"unable to allocate",
    r"(?:cannot|could not) allocate memory(?! in static tls)",
    r"(?:not (?:have )?enough|insufficient|requires? more|more system|no available) (?:\w+ ){0,3}(?:memory|v?ram)\b",
    r"paging file is too small",
    r"commitment_limit",
    r"insufficient system resources",
    r"mem_object_allocation_failure",
    r"out_?of_?(?:device_?|host_?)?memory",  # VK_ERROR_OUT_OF_DEVICE_MEMORY, ErrorOutOfDeviceMemory, Metal's, CUDA's
    r"memory layout cannot be allocated",
    r"unable to load full model on gpu",
    r"model requires \S+ ?\w* but only",
    r"too large for system",
    r"std::bad_alloc",
    r"bad allocation",
    r"\bMemoryError\b",
)
_ROCM = _any(r"rocm", r"\bhip")
_CUDA = _any(r"cuda(?!_host)")
_OTHER_GPU = _any(
    r"vulkan",
    r"\bvk[_:]",
    r"out_?of_?device_?memory",
    r"out of device memory",
    r"metal",
    r"\bmtl\d",
    r"kiogpu",
    r"sycl",
    r"level_zero",
    r"\bur_result",
    r"mem_object",
    r"\b(?:mps|xpu|npu)\b",
    r"on gpu",
)
_HOST = _any(
    r"\bcpu\w* buffer",
    r"cpu_buffer_type",
    r"_host buffer",
    r"aligned_malloc",
    r"insufficient memory",
    r"system memory",
    r"bad[_ ]alloc",
    r"too large for system",
    r"cannot allocate memory",
    r"MemoryError",
    r"cpuallocator",
    r"paging file",
    r"commitment_limit",
    r"insufficient system resources",
    r"out_?of_?host_?memory",
)

_RULES = (
    Rule(_CUDA_RESOURCE, Status.RESOURCE, "cuda_resource"),
    Rule(
        _any(r"thread creation failed", r"resource temporarily unavailable", r"too many open files"),
        Status.RESOURCE,
        "host_resource",
    ),
    Rule(_any(r"out_of_resources"), Status.RESOURCE, "gpu_resource"),
    Rule(_TOO_LONG, Status.TRUNCATED, "does_not_fit"),
    Rule(_any(r"context canceled", r"request canceled"), Status.ERROR, "canceled"),
    Rule(_any(r"timed out waiting for (?:llama|the |server)[^\n]*to start"), Status.TIMEOUT, "load"),
    Rule(_any(r"server busy", r"maximum pending requests"), Status.ERROR, "busy"),
    Rule(
        _any(
            r"requires? flash[_ ]?att",
            r"unsupported (?:kv )?cache type",
            r"cache type [^\n]{0,60}does not divide",
            r"invalid option",
            r'option "\w+" must be of type',
            # `CUDA error: invalid argument` is no argument of the person's.
            r"(?<!cuda )(?<!rocm )(?<!hip )(?<!sycl )error: (?:invalid|unknown|unrecognized) (?:argument|option)",
            r"(?:unknown|unrecognized|invalid) (?:arguments?|option|value for)[^\n]{0,20} --?\w",
            r"error while handling argument",
            r"unknown parameter",
            r"invalid (?:int|float|bool) value",
        ),
        Status.ERROR,
        "config",
    ),
    Rule(_any(r"llama-(?:server|quantize) binary not found"), Status.ERROR, "install"),
    Rule(_any(r"does not support thinking", r"invalid think value"), Status.ERROR, "cannot_think"),
    Rule(_any(r"does not support", r"start it with `--embeddings`"), Status.ERROR, "capability"),
    Rule(_any(r"(?:loading|load the|load) model\b[^\n]*exit code: \d"), Status.CRASHED, "load_crash"),
    Rule(_any(r"model\b[^\n]{0,30} crashed", r"\(exit code: \d{4,}\)"), Status.CRASHED, "runner_died"),
    Rule(
        _any(
            r"unknown (?:model|pre-tokenizer)",
            r"may be incompatible with your version",
            r"model is not supported",
            r"not supported by (?:your|this) version",
            r"unsupported (?:model|architecture)",
            r"architecture[^\n]{0,40} (?:is )?not supported",
            r"requires a newer version",
            r"(?:error loading|unable to load) model",
            r"invalid (?:file magic|gguf)",
            r"wrong number of tensors",
            r"missing tensor",
        ),
        Status.ERROR,
        "model",
    ),
    Rule(
        _any(
            r"GGML_ASSERT",
            r"ggml_abort",
            r"assertion [^\n]*failed",
            r"signal: abort",
            r"\.(?:c|cc|cpp|cu|cuh|h|m):\d+: ",
        ),
        Status.CRASHED,
        "assert",
    ),
    Rule(_any(r"signal: killed"), Status.CRASHED, "killed"),
    Rule(
        _any(
            r"\bllama[- ](?:server|runner) process has terminated",
            r"startup failed",
            r"model failed to load",
            r"failed to init server",
            r"do load request",
            r'/load": ',
        ),
        Status.CRASHED,
        "load_crash",
    ),
    Rule(
        _any(
            r"an unknown error was encountered while running the model",
            r"\bpost predict\b",
            r'(?:post|get) "https?://[^"]*/(?:completions?|embeddings?|tokenize|detokenize|health)": ',
            r"\bwsa(?:recv|send)\b",
            r"forcibly closed by the remote host",
            r"device[ _]?lost",
            r"(?:memory critical error|memory access fault|hw exception) by",
            r"gpu hang",
            r"fallen off the bus",
            r"command buffer \d+ failed",
            r"(?:process|engine|runner|worker) (?:has )?(?:exited|died|ended|terminated) (?:unexpectedly|with)",
            r"access violation",
            r"0xc0000005",
            r"bus error",
            r"illegal instruction",
            r"core dumped",
            r"enginedeaderror",
            r"engine ?core (?:encountered|died|process)",
            r"unexpectedly stopped",
            r"no longer running",
            r"unexpected EOF",
            r"has terminated",
            r"signal arrived during cgo",
            r"segmentation (?:fault|violation)",
            r"\bpanic:",
            r"(?:cuda|rocm|hip|sycl|musa|cann) error",
            r"level_zero backend failed",
            r"connection reset by peer",
        ),
        Status.CRASHED,
        "runner_died",
    ),
    Rule(_any(r"compute error", r"invalid input batch", r"failed to decode"), Status.ERROR, "compute"),
    Rule(_any(r"(?:reading|unmarshalling) llama-server response", r"exceeded 8 MB limit"), Status.ERROR, "protocol"),
    Rule(
        _any(r"llm server loading model", r"no slots available", r"connection refused", r"server not responding"),
        Status.ERROR,
        "runner_state",
    ),
    Rule(_any(r"model ['\"][^'\"]+['\"] not found", r"pull model manifest"), Status.ERROR, "not_found"),
)

_ABOUT_THE_RUNNER = _any(
    r"\b500 internal server error",
    r"while running the model",
    r"\bllama[- ](?:server|runner)",
    r"model runner",
    r"\bpost predict\b",
    r"\bdo \w+ request\b",
    r'"https?://[^"]*/(?:load|completions?|embeddings?|tokenize|detokenize|health)":',
)
_SERVER_GONE = _any(
    r"could not connect to (?:ollama|a running)",
    r"failed to connect to ollama",
    r"connection refused",
    r"actively refused",
    r"connection reset",
    r"\bwsa(?:recv|send)\b",
    r"forcibly closed",
    r"broken pipe",
    r"server disconnected",
    r"no such host",
    r"network is unreachable",
    r"no route to host",
    r"i/o timeout",
    r"timed out waiting for server to start",
    r'(?:post|get|head|delete) "https?://[^"]*": (?:unexpected )?eof',
)


def classify(text: str, *, exit_code: int | None = None, signal: int | None = None) -> tuple[Status, str]:
    """The status and the short reason of a failure.

    `text` is all the engine said of it; `exit_code` and `signal` (a positive number) are those of the process that
    failed, where they are known. A text that says nothing is judged by them.
    """
    for without in (WARNING, None):  # a warning alone is better than nothing
        left, since = (_left(part, without) for part in (text, text.rpartition(RECOVERED)[2]))
        if _OUT_OF_MEMORY.search(_CUDA_RESOURCE.sub("", since)):
            return Status.OOM, _memory_of(since)
        for rule in _RULES:
            if rule.pattern.search(left):
                return rule.status, rule.reason
    return _by_end(exit_code, signal)


def _left(text: str, without: re.Pattern[str] | None) -> str:
    left = MADE_GOOD.sub("", text)
    return without.sub("", left) if without else left


def meaning(text: str) -> dict[str, str]:
    """`status` and `reason` of a text that an older tool has kept; nothing where it says nothing that is known."""
    status, reason = classify(text)
    return {} if reason == "unknown" else {"status": status, "reason": reason}


def server_is_gone(text: str) -> bool:
    """The server itself could not be reached or went away: no cell's failure.

    The same words about the server's own runner (`500 Internal Server Error: … unexpected EOF`) are the cell's.
    """
    return bool(_SERVER_GONE.search(text)) and not _ABOUT_THE_RUNNER.search(text)


def _memory_of(text: str) -> str:
    """Whose memory ran out: by the lines that say so, else by the rest of the text."""
    said = "\n".join(line for line in text.splitlines() if _OUT_OF_MEMORY.search(line))
    for part in (said, text):
        # HIP builds print cudaMalloc, too. A CUDA machine that is out of host memory does not name CUDA in these lines.
        if _ROCM.search(part):
            return "gpu_oom"
        if _CUDA.search(part):
            return "cuda_oom"
        if _OTHER_GPU.search(part):
            return "gpu_oom"
        if _HOST.search(part):
            return "host_oom"
    return "oom"


def _by_end(exit_code: int | None, signal: int | None) -> tuple[Status, str]:
    number = signal
    if number is None and exit_code is not None and exit_code > 128:
        number = exit_code - 128
    if number is None:
        return Status.ERROR, "unknown"
    return Status.CRASHED, {SIGNAL_ABORT: "assert", SIGNAL_KILL: "killed"}.get(number, "runner_died")
