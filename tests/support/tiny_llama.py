"""A library with llama.cpp's functions and no model behind them, compiled by the C compiler: one token a byte.

What it does wrong is said by variables of its process: TINY_FAULT names the fault, TINY_FITS the largest num_ctx for
which it has memory, TINY_GPU makes it one with a GPU.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

from ollama_fixture import skip_outside_ci

SOURCE = r"""
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void (*log_line)(int, const char *, void *);
static log_line say_to;

static void say(int level, const char * text) { if (say_to) { say_to(level, text, NULL); } }
static bool fault(const char * name) {
    const char * said = getenv("TINY_FAULT");
    return said && !strcmp(said, name);
}

struct context_params { uint32_t n_ctx, n_batch, n_ubatch, n_seq_max; int32_t behind[36]; };
struct model_params { void * a, * b; int32_t num_gpu; int32_t behind[13]; };
struct batch {
    int32_t n_tokens, * token; float * embd; int32_t * pos, * n_seq_id, ** seq_id; int8_t * logits;
};
struct context { uint32_t n_ctx, n_batch, n_ubatch; int32_t threads; uint32_t past; };

#ifndef WITHOUT_DECODE
int32_t llama_decode(struct context * c, struct batch b) {
    char line[100];
    if (fault("hang")) { pause(); }
    if (fault("assert") || b.n_tokens > (int32_t) c->n_batch) {
        fprintf(stderr, "tiny.c:1: GGML_ASSERT(n_tokens <= n_batch) failed\n");
        abort();
    }
    int outputs = 0;
    for (int i = 0; i < b.n_tokens; i++) { outputs += b.logits ? b.logits[i] : i == b.n_tokens - 1; }
    snprintf(line, sizeof line, "decoded %d, outputs %d\n", b.n_tokens, outputs);
    say(1, line);
    if (fault("decode")) { say(4, "failed to decode\n"); return -3; }
    c->past += b.n_tokens;
    return c->past > c->n_ctx ? 1 : 0;
}
#endif

void llama_backend_init(void) {}
void llama_log_set(log_line callback, void * data) { say_to = callback; }
bool llama_supports_gpu_offload(void) { return getenv("TINY_GPU") != NULL; }
const char * llama_version(void) { return "0.0-tiny"; }
void * ggml_backend_load(const char * path) {
    say(4, "libcublas.so.13: cannot open shared object file\n");
    return NULL;
}
struct model_params llama_model_default_params(void) {
    struct model_params found;
    memset(&found, 0, sizeof found);
    found.num_gpu = -1;
    return found;
}
void * llama_model_load_from_file(const char * path, struct model_params params) {
    char line[100];
    if (fault("model")) { say(4, "unknown model architecture: 'tiny'\n"); return NULL; }
    if (getenv("TINY_GPU")) {
        int layers = fault("layers") ? 1 : params.num_gpu < 0 ? 13 : params.num_gpu;
        snprintf(line, sizeof line, "load_tensors: offloaded %d/13 layers to GPU\n", layers);
        say(2, line);
    }
    say(2, "load_tensors:          CPU model buffer size =     1.00 MiB\n");
    return calloc(1, 8);
}
void * llama_model_get_vocab(void * m) { return m; }
struct context_params llama_context_default_params(void) {
    struct context_params found;
    memset(&found, 0, sizeof found);
    found.n_ctx = 512; found.n_batch = fault("head") ? 4096 : 2048; found.n_ubatch = 512; found.n_seq_max = 1;
    found.behind[13 - 4] = -1; found.behind[26 - 4] = 1; found.behind[27 - 4] = 1;
    return found;
}
struct context * llama_init_from_model(void * model, struct context_params params) {
    char line[200];
    const char * fits = getenv("TINY_FITS");
    if (fits && params.n_ctx > (uint32_t) atoi(fits)) {
        say(4, "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache\n");
        return NULL;
    }
    struct context * c = calloc(1, sizeof *c);
    c->n_ctx = (params.n_ctx + 255) / 256 * 256;
    c->n_batch = params.n_batch < params.n_ctx ? params.n_batch : params.n_ctx;
    c->n_ubatch = params.n_ubatch < c->n_batch ? params.n_ubatch : c->n_batch;
    if (fault("read_back")) { c->n_ubatch = 7; }
    const char * flash = params.behind[13 - 4] == 1 ? "enabled" : params.behind[13 - 4] == 0 ? "disabled" : "auto";
    snprintf(line, sizeof line, "llama_context: flash_attn = %s\n", flash);
    say(2, line);
    const char * kind = params.behind[26 - 4] == 8 && !fault("cache") ? "q8_0" : "f16";
    snprintf(line, sizeof line, "llama_kv_cache: size = 1.00 MiB, K (%s): 0.50 MiB, V (%s): 0.50 MiB\n", kind, kind);
    say(2, line);
    say(2, "llama_kv_cache:        CPU KV buffer size =     2.00 MiB\n");
    return c;
}
void llama_free(struct context * c) { free(c); }
uint32_t llama_n_ctx(struct context * c) { return c->n_ctx; }
uint32_t llama_n_batch(struct context * c) { return c->n_batch; }
uint32_t llama_n_ubatch(struct context * c) { return c->n_ubatch; }
void llama_set_n_threads(struct context * c, int32_t n, int32_t of_batch) { c->threads = fault("threads") ? 4 : n; }
int32_t llama_n_threads(struct context * c) { return c->threads; }
int32_t llama_n_threads_batch(struct context * c) { return c->threads; }
void llama_set_warmup(struct context * c, bool is_on) {}
void * llama_get_memory(struct context * c) { return c; }
void llama_memory_clear(struct context * c, bool data) { c->past = 0; }
struct batch llama_batch_get_one(int32_t * tokens, int32_t count) {
    struct batch found = { count, tokens, NULL, NULL, NULL, NULL, NULL };
    return found;
}
void llama_synchronize(struct context * c) {}
int32_t llama_tokenize(void * v, const char * text, int32_t length, int32_t * tokens, int32_t most, bool a, bool b) {
    if (length > most) { return -length; }
    for (int i = 0; i < length; i++) { tokens[i] = (unsigned char) text[i]; }
    return length;
}
int32_t llama_token_to_piece(void * v, int32_t token, char * into, int32_t most, int32_t lstrip, bool special) {
    into[0] = (char) token;
    return 1;
}
bool llama_vocab_get_add_bos(void * v) { return true; }
int32_t llama_vocab_bos(void * v) { return '^'; }
int32_t llama_vocab_eos(void * v) { return '$'; }
const char * llama_vocab_get_text(void * v, int32_t token) { return "^"; }
bool llama_vocab_is_eog(void * v, int32_t token) { return token == '$'; }
void * llama_sampler_init_greedy(void) { return say; }
int32_t llama_sampler_sample(void * s, struct context * c, int32_t at) { return 'a' + c->past % 2; }
"""


@cache
def built(folder: Path, *macros: str) -> Path:
    """The library in a folder of its own."""
    compiler = shutil.which("cc")
    if compiler is None:
        skip_outside_ci("no C compiler")
    place = folder / "-".join(["tiny", *macros])
    place.mkdir()
    (place / "tiny.c").write_text(SOURCE, "utf-8")
    words = [compiler, "-shared", "-fPIC", "-w", "-o", str(place / "libllama.so"), str(place / "tiny.c")]
    subprocess.run([*words, *(f"-D{macro}" for macro in macros)], check=True)
    return place / "libllama.so"


def of_build(library: Path, build: int) -> Path:
    """The same with a server beside it that says its build."""
    server = library.with_name("llama-server")
    server.write_text(f"#!/bin/sh\necho 'version: 0.0-tiny (build {build}, commit abc)'\n", "utf-8")
    server.chmod(0o755)
    return library
