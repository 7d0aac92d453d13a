"""llama.cpp's C library by ctypes: only the child process makes anything of it.

Structures change with every release, so none is written out. A buffer longer than any known one stands for it; only the
head, which has been the same for years, is written, and what was set is read back. What lies behind the head is written
only for builds whose layout is known.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import byref, c_bool, c_char_p, c_int, c_int32, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

WORDS = 512
"""Of 8 bytes each; the longest known structure has 18."""
DEFAULT_HEAD = (512, 2048, 512, 1)
"""n_ctx, n_batch, n_ubatch, n_seq_max of llama_context_default_params."""
ERROR, CONTINUED = 4, 5
FAULT, WORD = "E ", "I "
"""How lines of the log begin on stderr: errors, and the rest. What does not begin so was not logged by the library."""
LONGEST_PIECE = 256
LONGEST_LOG = 128 * 1024

LAYOUTS: Mapping[int, Mapping[str, int]] = {
    build: {"num_gpu": 4, "flash_attention": 13, "type_k": 26, "type_v": 27} for build in (10760, 11549)
}
"""By build, where in a structure (in words of 4 bytes) what stands behind the head: num_gpu in that of a model."""
LAYOUT_DEFAULTS = {"num_gpu": -1, "flash_attention": -1, "type_k": 1, "type_v": 1}
CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
"""enum ggml_type; the numbers stand in files, so they do not change."""


BEGIN = "=== "
"""Stands before the name of each request on stderr."""


class Opaque(ctypes.Structure):
    """A structure of which only the beginning is known."""

    _fields_ = (("words", c_uint64 * WORDS),)


_FUNCTIONS: Mapping[str, tuple[Any, Sequence[Any]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (c_void_p, c_void_p)),
    "llama_supports_gpu_offload": (c_bool, ()),
    "llama_model_default_params": (Opaque, ()),
    "llama_model_load_from_file": (c_void_p, (c_char_p, Opaque)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_context_default_params": (Opaque, ()),
    "llama_init_from_model": (c_void_p, (c_void_p, Opaque)),
    "llama_free": (None, (c_void_p,)),
    "llama_n_ctx": (c_uint32, (c_void_p,)),
    "llama_n_batch": (c_uint32, (c_void_p,)),
    "llama_n_ubatch": (c_uint32, (c_void_p,)),
    "llama_set_n_threads": (None, (c_void_p, c_int32, c_int32)),
    "llama_n_threads": (c_int32, (c_void_p,)),
    "llama_n_threads_batch": (c_int32, (c_void_p,)),
    "llama_set_warmup": (None, (c_void_p, c_bool)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_clear": (None, (c_void_p, c_bool)),
    "llama_batch_get_one": (Opaque, (c_void_p, c_int32)),
    "llama_decode": (c_int32, (c_void_p, Opaque)),
    "llama_synchronize": (None, (c_void_p,)),
    "llama_tokenize": (c_int32, (c_void_p, c_char_p, c_int32, c_void_p, c_int32, c_bool, c_bool)),
    "llama_token_to_piece": (c_int32, (c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool)),
    "llama_vocab_get_add_bos": (c_bool, (c_void_p,)),
    "llama_vocab_bos": (c_int32, (c_void_p,)),
    "llama_vocab_eos": (c_int32, (c_void_p,)),
    "llama_vocab_get_text": (c_char_p, (c_void_p, c_int32)),
    "llama_vocab_is_eog": (c_bool, (c_void_p, c_int32)),
    "llama_sampler_init_greedy": (c_void_p, ()),
    "llama_sampler_sample": (c_int32, (c_void_p, c_void_p, c_int32)),
}
_OPTIONAL: Mapping[str, tuple[Any, Sequence[Any]]] = {
    "llama_version": (c_char_p, ()),
    "llama_attach_threadpool": (None, (c_void_p, c_void_p, c_void_p)),
    "llama_detach_threadpool": (None, (c_void_p,)),
    "llama_model_n_swa": (c_int32, (c_void_p,)),
    "llama_model_is_recurrent": (c_bool, (c_void_p,)),
    "llama_model_is_hybrid": (c_bool, (c_void_p,)),
    "ggml_backend_load": (c_void_p, (c_char_p,)),
    "ggml_backend_load_all_from_path": (None, (c_char_p,)),
    "ggml_backend_dev_by_type": (c_void_p, (c_int,)),
    "ggml_backend_dev_backend_reg": (c_void_p, (c_void_p,)),
    "ggml_backend_reg_get_proc_address": (c_void_p, (c_void_p, c_char_p)),
    "ggml_threadpool_params_init": (None, (c_void_p, c_int)),
}
_LOG_LINE = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)


class Refused(Exception):
    """The library, or what it made, is not what this engine knows how to use."""


class Unknown(Exception):
    """Where a setting stands is not known of this build, so it is not set."""


class Failed(Exception):
    """The library did not do what was asked; its errors are in its log."""


class Log:
    """What the library says between two requests, and which of it are errors. All of it goes to stderr as well."""

    def __init__(self, stderr: Callable[[str], object]) -> None:
        self._stderr = stderr
        self._lines: list[str] = []
        self._errors: list[str] = []
        self._level = 0
        self.callback = _LOG_LINE(self._take)

    def _take(self, level: int, text: bytes | None, _data: object) -> None:
        said = (text or b"").decode("utf-8", "replace")
        self._level = self._level if level == CONTINUED else level
        self._lines.append(said)
        if self._level == ERROR:
            self._errors.append(said)
        self._stderr(said if level == CONTINUED else (FAULT if self._level == ERROR else WORD) + said)

    def begin(self, name: str) -> None:
        """What comes now belongs to the next request."""
        self._lines, self._errors = [], []
        self._stderr(f"{BEGIN}{name}\n")

    @property
    def text(self) -> str:
        return "".join(self._lines)[-LONGEST_LOG:]

    @property
    def errors(self) -> str:
        return "".join(self._errors).strip()[-LONGEST_LOG:]


class Library:
    """One library, its functions looked up and the defaults of its structures checked. Raises Refused."""

    def __init__(self, path: Path, log: Log) -> None:
        self.log, self._path = log, path
        try:
            self._c = ctypes.CDLL(str(path))
        except OSError as error:
            raise Refused(f"{path} cannot be loaded: {error}") from None
        for name, (result, arguments) in _FUNCTIONS.items():
            if not self._declare(name, result, arguments):
                raise Refused(f"{path} has no function {name}")
        self._has = {name for name, how in _OPTIONAL.items() if self._declare(name, *how)}
        self._c.llama_log_set(log.callback, None)
        self._check_defaults()

    def _declare(self, name: str, result: Any, arguments: Sequence[Any]) -> bool:
        try:
            function = getattr(self._c, name)
        except AttributeError:
            return False
        function.restype, function.argtypes = result, tuple(arguments)
        return True

    def _check_defaults(self) -> None:
        found = tuple(_words(self._c.llama_context_default_params())[:4])
        if found != DEFAULT_HEAD:
            known = ", ".join(str(number) for number in DEFAULT_HEAD)
            shown = ", ".join(str(number) for number in found)
            raise Refused(f"the structure of {self._path} begins with {shown}, not with {known}: it is another layout")

    @property
    def version(self) -> str:
        said = self._c.llama_version() if "llama_version" in self._has else None
        return said.decode("utf-8", "replace") if said else ""

    def start(self, folder: str, backend: str) -> bool:
        """Load the backends of a folder, and that of a GPU; whether there is a GPU. Raises Refused.

        One that is built in needs no folder.
        """
        if folder and "ggml_backend_load_all_from_path" in self._has:
            self._c.ggml_backend_load_all_from_path(folder.encode())
        if backend and ("ggml_backend_load" not in self._has or not self._c.ggml_backend_load(backend.encode())):
            raise Refused(f"the GPU backend {backend} does not load")
        self._c.llama_backend_init()
        return bool(self._c.llama_supports_gpu_offload())

    def knows(self, build: int, *names: str) -> bool:
        """What stands behind the head is where this build is known to have it, and has the known defaults."""
        layout = LAYOUTS.get(build)
        if layout is None:
            return False
        model, context = _words(self._c.llama_model_default_params()), _words(self._c.llama_context_default_params())
        return all(
            ctypes.c_int32((model if name == "num_gpu" else context)[layout[name]]).value == LAYOUT_DEFAULTS[name]
            for name in names
        )

    def load(self, path: str, build: int, num_gpu: int | None) -> Model:
        """Raises Refused, Failed."""
        params = self._c.llama_model_default_params()
        if num_gpu is not None:
            if not self.knows(build, "num_gpu"):
                raise _unknown("num_gpu", build)
            _words(params)[LAYOUTS[build]["num_gpu"]] = num_gpu & 0xFFFFFFFF
        made = self._c.llama_model_load_from_file(path.encode(), params)
        if not made:
            raise Failed(f"the library does not load {path}")
        return Model(self._c, self._has, made, self)


class Model:
    """A model that is loaded, and what is asked of its vocabulary."""

    def __init__(self, functions: Any, has: set[str], pointer: int, library: Library) -> None:
        self._c, self._has, self.pointer, self._library = functions, has, pointer, library
        self._vocab = self._c.llama_model_get_vocab(pointer)
        self.greedy = self._c.llama_sampler_init_greedy()

    def tokens(self, text: str) -> list[int]:
        """As llama-server makes them of a rendered prompt: what the vocabulary adds, special words as what they are.

        A beginning-of-text that was rendered is not added a second time.
        """
        if self._c.llama_vocab_get_add_bos(self._vocab):
            first = self._c.llama_vocab_get_text(self._vocab, self._c.llama_vocab_bos(self._vocab))
            text = text.removeprefix(first.decode("utf-8", "replace")) if first else text
        data = text.encode()
        room = len(data) + 16
        found = (c_int32 * room)()
        count = self._c.llama_tokenize(self._vocab, data, len(data), found, room, True, True)
        if count < 0:
            raise Failed(f"the prompt has {-count} tokens, more than its bytes")
        return list(found[:count])

    def piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(LONGEST_PIECE)
        length = self._c.llama_token_to_piece(self._vocab, token, buffer, LONGEST_PIECE, 0, False)
        return buffer.raw[: max(0, length)]

    def ends(self, token: int) -> bool:
        return bool(self._c.llama_vocab_is_eog(self._vocab, token))

    @property
    def marks(self) -> list[int]:
        """The tokens that begin and end a text, as far as there are any."""
        known = (self._c.llama_vocab_bos(self._vocab), self._c.llama_vocab_eos(self._vocab))
        return [token for token in known if token >= 0] or [0]

    @property
    def keeps_checkpoints(self) -> bool:
        """llama-server keeps states of this model's memory near the end of a prompt, as it cannot be rolled back."""
        swa = "llama_model_n_swa" in self._has and self._c.llama_model_n_swa(self.pointer) > 0
        kinds = ("llama_model_is_recurrent", "llama_model_is_hybrid")
        return swa or any(name in self._has and getattr(self._c, name)(self.pointer) for name in kinds)

    def context(self, build: int, wanted: Mapping[str, Any]) -> Context:
        """A context of `num_ctx`, `num_batch`, `num_thread`, and where known `flash_attention` and `kv_cache_type`.

        Raises Refused, Failed.
        """
        params = self._c.llama_context_default_params()
        words = _words(params)
        words[0], words[1], words[2] = wanted["num_ctx"], wanted["num_batch"], wanted["num_batch"]
        for name, value in _behind_the_head(wanted).items():
            if not self._library.knows(build, name):
                raise _unknown(name, build)
            words[LAYOUTS[build][name]] = value
        made = self._c.llama_init_from_model(self.pointer, params)
        if not made:
            raise Failed("the library makes no context of this size")
        return Context(self._c, self._has, made, self, wanted)


class Context:
    """A context of a model, in place until it is freed."""

    def __init__(self, functions: Any, has: set[str], pointer: int, model: Model, wanted: Mapping[str, Any]) -> None:
        self._c, self._has, self._pointer, self._model = functions, has, pointer, model
        self._is_warm = False
        try:
            self._read_back(wanted)
            self._set_threads(int(wanted["num_thread"]))
        except Refused:
            self.free()
            raise

    def _read_back(self, wanted: Mapping[str, Any]) -> None:
        """llama.cpp takes at most num_ctx for a batch, and rounds num_ctx up to a multiple of 256."""
        num_ctx, batch = int(wanted["num_ctx"]), min(int(wanted["num_batch"]), int(wanted["num_ctx"]))
        self.n_ctx = int(self._c.llama_n_ctx(self._pointer))
        self.n_batch = int(self._c.llama_n_batch(self._pointer))
        self.n_ubatch = int(self._c.llama_n_ubatch(self._pointer))
        allowed = {"n_ctx": {num_ctx, -(-num_ctx // 256) * 256}, "n_batch": {batch}, "n_ubatch": {batch}}
        for name, values in allowed.items():
            found = getattr(self, name)
            if found not in values:
                asked = " or ".join(str(value) for value in sorted(values))
                raise Refused(f"the structure does not read back: {name} is {found}, asked was {asked}")

    def _set_threads(self, count: int) -> None:
        self._c.llama_set_n_threads(self._pointer, count, count)
        found = {int(self._c.llama_n_threads(self._pointer)), int(self._c.llama_n_threads_batch(self._pointer))}
        if found != {count}:
            raise Refused(f"the threads do not read back: asked were {count}, there are {min(found)}")
        pool = _pool_of(self._c, self._has, count)
        if pool:
            self._c.llama_attach_threadpool(self._pointer, pool, None)

    def clear(self) -> None:
        """What was read is forgotten; the cells of the cache are not written."""
        self._c.llama_memory_clear(self._c.llama_get_memory(self._pointer), False)

    def warm_up(self) -> None:
        """An empty run, as llama-server makes one after each load; once for a context."""
        if self._is_warm:
            return
        self._c.llama_set_warmup(self._pointer, True)
        tokens = self._model.marks
        for start in range(0, len(tokens), self.n_batch):
            self._decode(tokens[start : start + self.n_batch], is_last=True)
        self.clear()
        self._c.llama_synchronize(self._pointer)
        self._c.llama_set_warmup(self._pointer, False)
        self._is_warm = True

    def read(self, tokens: Sequence[int]) -> None:
        """A prompt in pieces of n_batch, as llama-server reads one; it is done when this returns. Raises Failed."""
        ends = pieces_of(len(tokens), self.n_batch, self.n_ubatch, checkpoints=self._model.keeps_checkpoints)
        start = 0
        for end in ends:
            self._decode(tokens[start:end], is_last=end == len(tokens))
            start = end
        self._c.llama_synchronize(self._pointer)

    def next_token(self) -> int:
        """The likeliest one after what was read last."""
        return int(self._c.llama_sampler_sample(self._model.greedy, self._pointer, -1))

    def _decode(self, tokens: Sequence[int], *, is_last: bool) -> None:
        array = (c_int32 * len(tokens))(*tokens)
        batch = self._c.llama_batch_get_one(array, len(tokens))
        nothing = (ctypes.c_int8 * len(tokens))()
        if not is_last:
            _ask_for_no_output(batch, array, nothing)
        code = int(self._c.llama_decode(self._pointer, batch))
        if code != 0:
            raise Failed(f"llama_decode failed with {code}")

    def free(self) -> None:
        if "llama_detach_threadpool" in self._has:
            self._c.llama_detach_threadpool(self._pointer)
        self._c.llama_free(self._pointer)


def _unknown(name: str, build: int) -> Unknown:
    whose = f"of build {build}" if build else "of a build that is not known"
    return Unknown(f"{name.replace('type_k', 'kv_cache_type')} cannot be set with a library {whose}")


def pieces_of(count: int, n_batch: int, n_ubatch: int, *, checkpoints: bool) -> list[int]:
    """Where the pieces end in which llama-server reads a prompt of so many tokens.

    With checkpoints the last tokens are read apart (llama.cpp PR #20288).
    """
    apart = {count - min(n_batch, before) for before in (4 + n_ubatch, 4)} if checkpoints else set()
    ends, start = [], 0
    while start < count:
        end = min(count, start + n_batch)
        start = min([one for one in apart if start < one < end], default=end)
        ends.append(start)
    return ends


def _words(structure: Opaque) -> Any:
    return (c_uint32 * (2 * WORDS)).from_buffer(structure)


def _behind_the_head(wanted: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    if wanted.get("flash_attention") is not None:
        found["flash_attention"] = int(bool(wanted["flash_attention"]))
    if wanted.get("kv_cache_type"):
        found["type_k"] = found["type_v"] = CACHE_TYPES[wanted["kv_cache_type"]]
    return found


def _ask_for_no_output(batch: Opaque, tokens: Any, nothing: Any) -> None:
    """llama-server computes the last token's logits only; what llama_batch_get_one makes asks for those of each piece.

    The pointer is set only where the batch looks as it has since 2023; else each piece has its last token's.
    """
    words = batch.words
    is_known = words[0] & 0xFFFFFFFF == len(tokens) and words[1] == ctypes.addressof(tokens)
    if is_known and not any(words[2:7]):
        words[6] = ctypes.addressof(nothing)


_pools: dict[int, int | None] = {}


def _pool_of(functions: Any, has: set[str], count: int) -> int | None:
    """Threads that stay, as llama-server has them; without, each piece of work starts its own. One pool is kept."""
    needed = {"llama_attach_threadpool", "llama_detach_threadpool", "ggml_backend_dev_by_type",
              "ggml_backend_dev_backend_reg", "ggml_backend_reg_get_proc_address",
              "ggml_threadpool_params_init"}  # fmt: skip
    if not needed <= has:
        return None
    device = functions.ggml_backend_dev_by_type(0)
    if not device:
        return None
    registry = functions.ggml_backend_dev_backend_reg(device)
    made, freed = (functions.ggml_backend_reg_get_proc_address(registry, name)
                   for name in (b"ggml_threadpool_new", b"ggml_threadpool_free"))  # fmt: skip
    if not made or not freed:
        return None
    if count not in _pools:
        for old in filter(None, _pools.values()):
            ctypes.CFUNCTYPE(None, c_void_p)(freed)(old)
        _pools.clear()
        params = Opaque()
        functions.ggml_threadpool_params_init(byref(params), count)
        _pools[count] = ctypes.CFUNCTYPE(c_void_p, c_void_p)(made)(byref(params))
    return _pools[count]
