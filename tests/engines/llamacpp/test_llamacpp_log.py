"""What the embedded engine makes of llama.cpp's log."""

from __future__ import annotations

from ollama_sweep.engines.llamacpp.child import error_text, read_log

ON_TWO_DEVICES = """\
0.00.1.000 I llama_context: n_ctx                 = 512
0.00.001.000 I llama_context: n_ctx                 = 4096
0.00.001.000 I llama_context: n_ctx_seq             = 4096
0.00.001.000 I llama_context: n_batch               = 256
0.00.001.000 I llama_context: n_ubatch              = 256
0.00.001.000 I load_tensors: offloaded 20/33 layers to GPU
0.00.001.000 I load_tensors:   CPU_Mapped model buffer size =   100.00 MiB
0.00.001.000 I load_tensors:        CUDA0 model buffer size =    60.00 MiB
0.00.001.000 I llama_kv_cache:      CUDA0 KV buffer size =    99.00 MiB
0.00.001.000 I llama_kv_cache:      CUDA0 KV buffer size =    10.00 MiB
0.00.001.000 I sched_reserve:  CUDA_Host compute buffer size =     4.50 MiB
"""
MIB = 2**20


def test_what_a_load_really_uses() -> None:
    found = read_log(ON_TWO_DEVICES, 110 * MIB, 4096, 1.5)
    assert (found.num_ctx, found.num_batch, found.load_duration_s) == (4096, 256, 1.5)
    assert found.size_vram_bytes == 70 * MIB
    assert found.size_bytes == int((100 + 60 + 10 + 4.5 - 50) * MIB)


def test_a_model_that_lies_on_the_gpu_alone() -> None:
    found = read_log(ON_TWO_DEVICES.replace("20/33", "33/33"), 110 * MIB, 4096, 1.5)
    assert found.size_bytes == found.size_vram_bytes == 70 * MIB


def test_rounding_up_num_ctx_is_no_other_num_ctx() -> None:
    assert read_log(ON_TWO_DEVICES, 0, 4000, 1.0).num_ctx == 4000
    assert read_log(ON_TWO_DEVICES, 0, 8192, 1.0).num_ctx == 4096


def test_a_log_that_says_nothing() -> None:
    found = read_log("", 5, 4096, 1.0)
    assert (found.num_ctx, found.num_batch, found.size_bytes, found.size_vram_bytes) == (None, None, None, None)


def test_the_errors_of_a_log() -> None:
    log = (
        "0.00.000.001 I init: chat template, example_format: '<|im_start|>system\nYou are out of memory\n'\n"
        "0.00.316.535 E ggml_aligned_malloc: insufficient memory (attempted to allocate 362.28 MB)\n"
        "0.00.316.535 E ggml_aligned_malloc: insufficient memory (attempted to allocate 362.28 MB)\n"
        "Traceback (most recent call last):\n"
        '  File "worker.py", line 8, in <module>\n'
        "RuntimeError: Failed to init server\n"
    )
    assert error_text(log).splitlines() == [
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 362.28 MB)",
        "RuntimeError: Failed to init server",
    ]
