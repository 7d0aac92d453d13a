"""What the error texts of many engine versions mean. Each text was printed by an engine or stands in its source."""

from __future__ import annotations

import pytest

from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.shared.failures import classify, server_is_gone

STATUS_500 = "Error: 500 Internal Server Error: "
TERMINATED = STATUS_500 + "llama-server process has terminated: "

EXCEEDED = (
    '{"error":{"code":400,"message":"request (1584 tokens) exceeds the available context size (1024 tokens), try '
    'increasing it","type":"exceed_context_size_error","n_prompt_tokens":1584,"n_ctx":1024}}'
)

CLASSIFIED = [
    # CUDA memory
    (TERMINATED + "cudaMalloc failed: out of memory", Status.OOM, "cuda_oom"),
    ("llama-server reported out-of-memory during startup: CUDA error: out of memory", Status.OOM, "cuda_oom"),
    ("ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 1073741824", Status.OOM, "cuda_oom"),
    ("alloc_tensor_range: failed to allocate CUDA1 buffer of size 5", Status.OOM, "cuda_oom"),
    ("llama_model_load: error loading model: unable to allocate CUDA0 buffer", Status.OOM, "cuda_oom"),
    ("CUDA_ERROR_OUT_OF_MEMORY", Status.OOM, "cuda_oom"),
    (
        "allocating 35533.34 MiB on device 0: cudaMalloc failed: out of memory\nfailed to allocate buffer for kv cache",
        Status.OOM,
        "cuda_oom",
    ),
    (
        "CUDA error: the resource allocation failed\ncublasCreate_v2\ncudaMalloc failed: out of memory",
        Status.OOM,
        "cuda_oom",
    ),
    ("CUDA0 KV buffer size = 512 MiB\nfailed to allocate compute pp buffers", Status.OOM, "cuda_oom"),
    # other GPUs
    ("hipMalloc failed: out of memory", Status.OOM, "gpu_oom"),
    ("cudaMalloc failed: out of memory\nfailed to allocate ROCm0 buffer of size 7", Status.OOM, "gpu_oom"),
    ("vk::Device::allocateMemory: ErrorOutOfDeviceMemory", Status.OOM, "gpu_oom"),
    ("VK_ERROR_OUT_OF_DEVICE_MEMORY", Status.OOM, "gpu_oom"),
    ("error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", Status.OOM, "gpu_oom"),
    ("failed to allocate MTL0 buffer", Status.OOM, "gpu_oom"),
    ("unable to load full model on GPU", Status.OOM, "gpu_oom"),
    # host memory
    (
        TERMINATED + "exit status 1: ggml_aligned_malloc: insufficient memory (attempted to allocate 344.19 MB)\n"
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 360906784",
        Status.OOM,
        "host_oom",
    ),
    ("ggml_gallocr_reserve_n_impl: failed to allocate CPU buffer of size 379879456", Status.OOM, "host_oom"),
    ("CUDA0 model buffer size = 9 MiB\nggml_aligned_malloc: insufficient memory (attempted …)", Status.OOM, "host_oom"),
    ("failed to allocate CUDA_Host buffer of size 9", Status.OOM, "host_oom"),
    ("model requires more system memory (12.3 GiB) than is available (7.9 GiB)", Status.OOM, "host_oom"),
    ("terminate called after throwing an instance of 'std::bad_alloc'", Status.OOM, "host_oom"),
    ("mmap failed: Cannot allocate memory", Status.OOM, "host_oom"),
    # memory, nobody says whose
    ("memory layout cannot be allocated with num_gpu = 99", Status.OOM, "oom"),
    ("failed to allocate compute pp buffers", Status.OOM, "oom"),
    ("model requires 12 GiB but only 8 GiB are available (after 1 GiB overhead)", Status.OOM, "oom"),
    # resources
    ("CUDA error: the resource allocation failed\n  in function cublas_handle", Status.RESOURCE, "cuda_resource"),
    ("CUDA error: resource allocation failed", Status.RESOURCE, "cuda_resource"),
    ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED", Status.RESOURCE, "cuda_resource"),
    ("cublasCreate_v2: memory alloc failed", Status.RESOURCE, "cuda_resource"),
    ("CUDA error: too many resources requested for launch", Status.RESOURCE, "cuda_resource"),
    ("libgomp: Thread creation failed: Resource temporarily unavailable", Status.RESOURCE, "host_resource"),
    # the prompt and the context
    (EXCEEDED, Status.TRUNCATED, "does_not_fit"),
    (
        "the prompt is longer than the context length currently available to the model; shorten the prompt",
        Status.TRUNCATED,
        "does_not_fit",
    ),
    ("the input length exceeds the context length", Status.TRUNCATED, "does_not_fit"),
    ("input (602 tokens) is too large to process. increase the physical batch size", Status.TRUNCATED, "does_not_fit"),
    ("input length exceeds maximum context length", Status.TRUNCATED, "does_not_fit"),
    ("Context size has been exceeded.", Status.TRUNCATED, "does_not_fit"),
    # loads that do not end
    ("timed out waiting for llama-server to start - loading", Status.TIMEOUT, "load"),
    ("timed out waiting for llama runner to start - progress 0.42 - ", Status.TIMEOUT, "load"),
    ("timed out waiting for llama-server to start: context canceled", Status.ERROR, "canceled"),
    # crashes
    (TERMINATED + "GGML_ASSERT(n_tokens_all <= cparams.n_batch) failed: …", Status.CRASHED, "assert"),
    ("common.cpp:2245: get_sub_batch: failed to add token 0 at index 1 (error -1, n = 2)", Status.CRASHED, "assert"),
    (TERMINATED + "signal: aborted (core dumped)", Status.CRASHED, "assert"),
    (TERMINATED + "signal: killed", Status.CRASHED, "killed"),
    (TERMINATED + "exit status 1", Status.CRASHED, "load_crash"),
    ("llama runner process has terminated: exit status 2", Status.CRASHED, "load_crash"),
    ("llama-server startup failed after projector CPU offload retry: exit status 1", Status.CRASHED, "load_crash"),
    ("model failed to load, this may be due to resource limitations", Status.CRASHED, "load_crash"),
    (STATUS_500 + "an error was encountered while running the model: unexpected EOF", Status.CRASHED, "runner_died"),
    (STATUS_500 + "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error",
     Status.CRASHED, "runner_died"),
    ("llama-server process no longer running: exit status 1", Status.CRASHED, "runner_died"),
    ("CUDA error: an illegal memory access was encountered", Status.CRASHED, "runner_died"),
    ("error reading llama-server response: unexpected EOF", Status.CRASHED, "runner_died"),
    # what the cell asked for cannot be
    ("llama_init_from_model: quantized V cache requires flash_attn to be enabled", Status.ERROR, "config"),
    (TERMINATED + "exit status 1: quantized V cache requires flash_attn to be enabled", Status.ERROR, "config"),
    ('option "num_ctx" must be of type integer', Status.ERROR, "config"),
    ("invalid option provided", Status.ERROR, "config"),
    ("error loading model: unknown model architecture: 'foo'", Status.ERROR, "model"),
    ("Error: unable to load model: /models/blobs/sha256-1a", Status.ERROR, "model"),
    ('"bert" does not support generate', Status.ERROR, "capability"),
    # a runner that died, as clients of several systems say it
    ('POST predict: Post "http://127.0.0.1:39789/completion": EOF', Status.CRASHED, "runner_died"),
    (('POST predict: Post "http://127.0.0.1:1/completion": read tcp 127.0.0.1:2->127.0.0.1:1: wsarecv: An existing '
     "connection was forcibly closed by the remote host."), Status.CRASHED, "runner_died"),
    (('POST predict: Post "http://127.0.0.1:1/completion": dial tcp 127.0.0.1:1: connectex: No connection could be '
     "made because the target machine actively refused it."), Status.CRASHED, "runner_died"),
    (STATUS_500 + 'do embedding request: Post "http://127.0.0.1:1/embedding": EOF', Status.CRASHED, "runner_died"),
    ("an unknown error was encountered while running the model ", Status.CRASHED, "runner_died"),
    (STATUS_500 + 'do load request: Post "http://127.0.0.1:1/load": read tcp 127.0.0.1:2->127.0.0.1:1: wsarecv: An '
     "existing connection was forcibly closed by the remote host.", Status.CRASHED, "load_crash"),
    ('do load request: Post "http://127.0.0.1:1/load": EOF', Status.CRASHED, "load_crash"),
    ("level_zero backend failed with error: 20 [UR_RESULT_ERROR_DEVICE_LOST]", Status.CRASHED, "runner_died"),
    ("ggml_vulkan: vk::Queue::submit: ErrorDeviceLost", Status.CRASHED, "runner_died"),
    ("Memory critical error by agent node-0 (Agent handle: 0x55) on address 0x7f. Reason: Memory in use.",
     Status.CRASHED, "runner_died"),
    ("Memory access fault by GPU node-1 on address 0x7f. Reason: Page not present", Status.CRASHED, "runner_died"),
    ("CUDA error: invalid argument\n  current device: 0", Status.CRASHED, "runner_died"),
    ("The model has crashed without additional information. (Exit code: 18446744072635812000)", Status.CRASHED,
     "runner_died"),
    ("Model has unloaded or crashed.", Status.CRASHED, "runner_died"),
    ("ggml_metal_graph_compute: command buffer 0 failed with status 5", Status.CRASHED, "runner_died"),
    ("NVRM: Xid 79: GPU has fallen off the bus.", Status.CRASHED, "runner_died"),
    ("the worker exited unexpectedly", Status.CRASHED, "runner_died"),
    ("Error loading model. (Exit code: 18446744072635812000). Unknown error.", Status.CRASHED, "load_crash"),
    # memory of the system and of further GPUs
    ("CreateFileMappingA failed: The paging file is too small for this operation to complete.", Status.OOM, "host_oom"),
    ("llama runner exited, you may not have enough available memory to run this model", Status.OOM, "oom"),
    ("not enough VRAM to load this model", Status.OOM, "oom"),
    ("model request too large for system", Status.OOM, "host_oom"),
    ("bad allocation", Status.OOM, "host_oom"),
    ("RuntimeError: MPS backend out of memory (MPS allocated: 7.23 GB, max allowed: 9.07 GB)", Status.OOM, "gpu_oom"),
    ("level_zero backend failed with error: 39 [UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY]", Status.OOM, "gpu_oom"),
    ("level_zero backend failed with error: 40 [UR_RESULT_ERROR_OUT_OF_RESOURCES]", Status.RESOURCE, "gpu_resource"),
    ("ImportError: libgomp.so: cannot allocate memory in static TLS block", Status.ERROR, "unknown"),
    # warnings that were made good
    ("ggml_vulkan: Failed to allocate pinned memory.\nGGML_ASSERT(n_tokens_all <= cparams.n_batch) failed",
     Status.CRASHED, "assert"),
    (("ggml_vulkan: Failed to allocate pinned memory.\nggml_vulkan: vk::Device::allocateMemory: "
     "ErrorOutOfDeviceMemory\nGGML_ASSERT(x) failed"), Status.CRASHED, "assert"),
    (("ggml_vulkan: Failed to allocate pinned memory (vk::Device::allocateMemory: ErrorOutOfHostMemory) GGML_ASSERT(x) "
     "failed"), Status.CRASHED, "assert"),
    (("ggml_vulkan: Failed to allocate pinned memory.\nggml_vulkan: Device memory allocation of size 9 failed.\n"
     "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory"), Status.OOM, "gpu_oom"),
    ("WARNING: failed to allocate 1024.00 MB of pinned memory: out of memory\nerror: invalid argument: --foo",
     Status.ERROR, "config"),
    ("ggml_cuda_host_malloc: failed to allocate 9.00 MiB of pinned memory: out of memory\n" + TERMINATED
     + "exit status 1", Status.CRASHED, "load_crash"),
    (("warning: failed to mlock 9-byte buffer (after previously locking 0 bytes): Cannot allocate memory\n"
     "Try increasing RLIMIT_MEMLOCK ('ulimit -l' as root).\nGGML_ASSERT: ggml.c:1: x"), Status.CRASHED, "assert"),
    (("warning: failed to VirtualLock 9-byte buffer: Insufficient system resources exist to complete the requested "
     "service.\nerror loading model: missing tensor 'x'"), Status.ERROR, "model"),
    ("ggml: failed to allocate 9 MiB on CUDA0, retrying with less\nsegmentation fault", Status.CRASHED, "runner_died"),
    ("llama-server startup failed after projector CPU offload retry: cudaMalloc failed: out of memory", Status.OOM,
     "cuda_oom"),
    ("W/llama: warning: failed to mlock: Cannot allocate memory\ncudaMalloc failed: out of memory", Status.OOM,
     "cuda_oom"),
    ("warning: CUDA out of memory", Status.OOM, "cuda_oom"),
    ("hipHostMalloc failed: out of memory\nsegmentation fault", Status.CRASHED, "runner_died"),
    ("failed to allocate 9 MiB on GPU 0, using CPU instead\nGGML_ASSERT(x) failed", Status.CRASHED, "assert"),
    # what cannot be, wherever it stands
    ("llama_init_from_model: V cache quantization requires flash_attn", Status.ERROR, "config"),
    (TERMINATED + "exit status 1: llama_init_from_model: V cache quantization requires flash_attn", Status.ERROR,
     "config"),
    ("error: unknown argument: --foo", Status.ERROR, "config"),
    (("llama runner process has terminated: this model is not supported by your version of Ollama. You may need to "
     "upgrade"), Status.ERROR, "model"),
    # longer than the context, as other servers say it
    (("This model's maximum context length is 16384 tokens. However, you requested 122946 tokens (122434 in the "
     "messages, 512 in the completion)."), Status.TRUNCATED, "does_not_fit"),
    (("Trying to keep the first 111490 tokens when context the overflows. However, the model is loaded with context "
     "length of only 32768 tokens, which is not enough."), Status.TRUNCATED, "does_not_fit"),
    ("max_tokens must be at least 1, got -186.", Status.TRUNCATED, "does_not_fit"),
    ("max_tokens must be at least 1, got -1.", Status.ERROR, "unknown"),
    ("Cannot truncate prompt with n_keep (5000) >= n_ctx (4096)", Status.TRUNCATED, "does_not_fit"),
    ("The number of tokens to keep from the initial prompt is greater than the context length.", Status.TRUNCATED,
     "does_not_fit"),
    ("This request exceeds the model's context window", Status.TRUNCATED, "does_not_fit"),
    ("Context length exceeded", Status.TRUNCATED, "does_not_fit"),
    ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", Status.TRUNCATED,
     "does_not_fit"),
    ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", Status.TRUNCATED,
     "does_not_fit"),
    ("Requested tokens (5000) exceed context window of 512", Status.TRUNCATED, "does_not_fit"),
    ("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 20 `max_new_tokens`",
     Status.TRUNCATED, "does_not_fit"),
    ("prompt is too long: 210000 tokens > 200000 maximum", Status.TRUNCATED, "does_not_fit"),
    ("Please reduce the length of the messages or completion.", Status.TRUNCATED, "does_not_fit"),
    # the server
    (STATUS_500 + "server busy, please try again.  maximum pending requests exceeded", Status.ERROR, "busy"),
    ("error starting llama-server: llama-server binary not found (checked: …)", Status.ERROR, "install"),
    ("unexpected server status: llm server loading model", Status.ERROR, "runner_state"),
    ("error unmarshalling llama-server response: bad json", Status.ERROR, "protocol"),
    ("model 'smol' not found", Status.ERROR, "not_found"),
    ("Compute error.", Status.ERROR, "compute"),
    ("something new", Status.ERROR, "unknown"),
    ("", Status.ERROR, "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "status", "reason"), CLASSIFIED)
def test_texts(text: str, status: Status, reason: str) -> None:
    assert classify(text, exit_code=1, signal=None) == (status, reason)


@pytest.mark.parametrize(
    "phrase",
    ["out of memory", "out of device memory", "cudaMalloc failed", "hipMalloc failed", "failed to allocate",
     "allocation failed", "not enough memory", "insufficient memory", "VK_ERROR_OUT_OF_DEVICE_MEMORY",
     "ErrorOutOfMemory"],
)  # fmt: skip
def test_ollamas_own_words_for_memory(phrase: str) -> None:
    assert classify(f"{TERMINATED}exit status 1: x {phrase} y\nGGML_ASSERT(buffer) failed")[0] is Status.OOM


def test_what_was_recovered_is_no_failure() -> None:
    recovered = (
        "cudaMalloc failed: out of memory\nfailed to allocate CUDA0 buffer\n"
        "compute buffer allocation failed, retrying without pipeline parallelism\n"
    )
    assert classify(recovered + "GGML_ASSERT(x) failed") == (Status.CRASHED, "assert")
    assert classify(recovered + "cudaMalloc failed: out of memory") == (Status.OOM, "cuda_oom")


@pytest.mark.parametrize(
    ("exit_code", "signal", "expected"),
    [
        (None, 6, (Status.CRASHED, "assert")),
        (134, None, (Status.CRASHED, "assert")),
        (None, 9, (Status.CRASHED, "killed")),
        (137, None, (Status.CRASHED, "killed")),
        (None, 11, (Status.CRASHED, "runner_died")),
        (1, None, (Status.ERROR, "unknown")),
    ],
)
def test_a_silent_end(exit_code: int | None, signal: int | None, expected: tuple[Status, str]) -> None:
    assert classify("", exit_code=exit_code, signal=signal) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Error: could not connect to ollama server, run 'ollama serve' to start it",
        "Error: could not connect to a running Ollama instance",
        'Error: Post "http://127.0.0.1:11434/api/generate": EOF',
        'Error: Post "http://127.0.0.1:11434/api/generate": unexpected EOF',
        'Head "http://gpu:11434/": dial tcp 10.0.0.5:11434: i/o timeout',
        'Head "http://gpu:11434/": dial tcp: lookup gpu: no such host',
        "dial tcp 127.0.0.1:11434: connect: connection refused",
        "read tcp 127.0.0.1:5->127.0.0.1:11434: read: connection reset by peer",
        "Failed to connect to Ollama. Please check that Ollama is downloaded, running and accessible.",
        "Server disconnected without sending a response.",
        "timed out waiting for server to start",
        (
            'Post "http://127.0.0.1:11434/api/generate": read tcp 127.0.0.1:5->127.0.0.1:11434: wsarecv: An existing '
            "connection was forcibly closed by the remote host."
        ),
        (
            'Head "http://127.0.0.1:11434/": dial tcp 127.0.0.1:11434: connectex: No connection could be made '
            "because the target machine actively refused it."
        ),
    ],
)
def test_a_server_that_is_gone(text: str) -> None:
    assert server_is_gone(text)


@pytest.mark.parametrize(
    "text",
    [
        STATUS_500 + "an error was encountered while running the model: unexpected EOF",
        'an error was encountered while running the model: Post "http://127.0.0.1:4001/completion": EOF',
        'Error: 500 Internal Server Error: do load request: Post "http://127.0.0.1:4001/load": EOF',
        "timed out waiting for llama-server to start - connection refused",
        TERMINATED + "signal: killed",
        'Error: POST predict: Post "http://127.0.0.1:39789/completion": EOF',
        'POST predict: Post "http://127.0.0.1:1/completion": read tcp 127.0.0.1:2: wsarecv: forcibly closed',
        'do load request: Post "http://127.0.0.1:1/load": dial tcp 127.0.0.1:1: connect: connection refused',
        "",
    ],
)
def test_a_runner_that_is_gone_is_not_the_server(text: str) -> None:
    assert not server_is_gone(text)
