"""Which library is used: beside the `ollama` that is used, the one that the person names, or the wheel `xllamacpp`.

Nothing is loaded here: the child process does that. What a library is called, its build and its digest are looked up.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ollama_sweep.core.cell import content_hash
from ollama_sweep.core.errors import ConfigError, EngineMissing, SweepError
from ollama_sweep.machine import process
from ollama_sweep.machine.files import file_digest

NAMES = ("libllama.so", "libllama.so.0", "libllama.dylib", "llama.dll")
WHEEL = "xllamacpp"
VERSION_S = 10.0
HOW_TO_GET = "name one with --libllama PATH, or: pip install 'ollama-sweep[libllama]'"
OPTION = "--libllama"
BESIDE = "beside Ollama"
_BUILD = re.compile(r"\bbuild[: ]+(\d{3,6})\b|\bversion: (\d{3,6})\b")
_BACKENDS = ("libggml-*.so*", "libggml-*.dylib", "ggml-*.dll")
_PARTS = ("libllama.so*", "libggml*.so*", "libllama.dylib", "libggml*.dylib", "llama.dll", "ggml*.dll")
_FOR_ALL = re.compile(r"(?:lib)?ggml-(?:base|cpu)")
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
           "GGML_VK_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HSA_OVERRIDE_GFX_VERSION")  # fmt: skip
"""Variables of a runner that say which GPUs it sees."""


@dataclass(frozen=True)
class Backend:
    """The GPU backend that is loaded beside the processor's; "" for none. `variables` are those of Ollama's runner."""

    path: str = ""
    variables: tuple[tuple[str, str], ...] = ()


NO_GPU = Backend()


@dataclass(frozen=True)
class Library:
    """A library. `build` is llama.cpp's number, 0 where it does not say; `origin` says in words where it was found."""

    path: Path
    origin: str
    build: int
    digest: str
    is_wheel: bool = False
    stamp: tuple[int, int] = (0, 0)

    @property
    def folder(self) -> Path:
        return self.path.parent

    def is_as_it_was(self) -> bool:
        """No update has put another file in its place."""
        try:
            return self.stamp in ((0, 0), _stamp(self.path))
        except OSError:
            return False

    @property
    def has_backends(self) -> bool:
        """Its backends are files beside it; else they are inside, or beside a library that finds them itself."""
        return not self.is_wheel

    @property
    def shown(self) -> str:
        """`b10760`."""
        return f"b{self.build}" if self.build else "of an unknown build"

    def environment(self, backend: Backend) -> dict[str, str]:
        """What the child process needs to find what lies beside the library, and of Ollama's runner to see its GPUs."""
        folders = [str(self.folder), *([str(Path(backend.path).parent)] if backend.path else [])]
        before = os.environ.get("LD_LIBRARY_PATH")
        given = dict(backend.variables)
        return {**given, "LD_LIBRARY_PATH": os.pathsep.join([*folders, *([before] if before else [])]),
                "MALLOC_ARENA_MAX": "1"}  # fmt: skip


def named(path: str) -> Library:
    """The library that the person names: the file, or the folder with it. Raises ConfigError."""
    given = Path(path).expanduser()
    found = _in_folder(given) if given.is_dir() else given
    if found is None or not found.is_file():
        what = f"holds no {NAMES[0]}" if given.is_dir() else "is no file"
        raise ConfigError(f"{path} {what}", OPTION)
    return _library(found.resolve(), f"named by {OPTION}")


def beside(program: Path) -> Library | None:
    """The library that an `ollama` ships; None where its server is one piece, as on macOS."""
    for folder in folders_of(program):
        found = _in_folder(folder)
        if found is not None:
            return _library(found.resolve(), BESIDE)
    return None


def folders_of(program: Path) -> list[Path]:
    """Where an `ollama` has its libraries (ml/path.go), in its own order."""
    home = program.resolve().parent
    return [home.parent / "lib" / "ollama", home / "lib" / "ollama"]


def wheel() -> Library | None:
    """The library inside the wheel; None where it is not installed."""
    try:
        found, number = importlib.util.find_spec(WHEEL), version(WHEEL)
    except (PackageNotFoundError, ValueError):
        return None
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations)))
    files = sorted(path for path in folder.glob(f"{WHEEL}*") if path.suffix in (".so", ".pyd", ".dylib"))
    if not files:
        return None
    last = number.rpartition(".")[2]
    build = int(last) if last.isdigit() else 0
    return Library(files[0], f"the wheel {WHEEL} {number}", build, file_digest(files[0]), is_wheel=True)


def find(path: str | None, program: Path | None) -> Library:
    """The library to use. Raises ConfigError for one that is named and not there, EngineMissing."""
    if path:
        return named(path)
    found = (beside(program) if program else None) or wheel()
    if found is None:
        looked = f" (looked in {', '.join(str(folder) for folder in folders_of(program))})" if program else ""
        whose = f"no {NAMES[0]} lies beside {program}{looked}" if program else "there is no Ollama here"
        raise EngineMissing(f"{whose} and no wheel {WHEEL}: {HOW_TO_GET}; the ordinary way: --engine ollama")
    return found


def difference(library: Library, program: Path | None) -> str:
    """How the library differs from what Ollama loads, in words; "" where it is Ollama's own or nothing is known."""
    try:
        own = beside(program) if program else None
    except SweepError:
        return ""
    if own is None or own.digest == library.digest:
        return ""
    return (
        f"Ollama's own is {own.shown}" if own.build != library.build else "Ollama's own is another file of this build"
    )


def gpu_backends(folder: Path) -> Iterator[Path]:
    """The backends for GPUs below a library's folder: those that Ollama prefers first, newer ones before older ones."""
    places = [one for one in folder.iterdir() if one.is_dir()] if folder.is_dir() else []
    for place in sorted(places, key=_preference):
        found = _gpu_backend_in(place)
        if found is not None:
            yield found


def _preference(place: Path) -> tuple[int, list[int]]:
    kinds = ("cuda", "rocm", "vulkan")
    kind = next((number for number, name in enumerate(kinds) if place.name.startswith(name)), len(kinds))
    return kind, [-int(number) for number in re.findall(r"\d{1,6}", place.name)]


def _gpu_backend_in(folder: Path) -> Path | None:
    """As Ollama chooses it (llm/llama_server.go): the first that is neither for all nor for the processor."""
    found = sorted(path for pattern in _BACKENDS for path in folder.glob(pattern))
    return next((path for path in found if not _FOR_ALL.match(path.name.lower())), None)


def _in_folder(folder: Path) -> Path | None:
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def _library(path: Path, origin: str) -> Library:
    """Its digest is that of all the files it is made of, but for the backends of GPUs."""
    parts = sorted({part.resolve() for pattern in _PARTS for part in path.parent.glob(pattern)} | {path})
    digest = content_hash("\n".join(f"{part.name} {file_digest(part)}" for part in parts))
    return Library(path, origin, _build_of(path.parent), digest, stamp=_stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _build_of(folder: Path) -> int:
    """llama.cpp's number, which only the server beside the library says; 0 where it does not."""
    server = folder / "llama-server"
    if not os.access(server, os.X_OK):
        return 0
    try:
        done = process.run([str(server), "--version"], timeout_s=VERSION_S, env={**os.environ, "HOME": str(folder)})
    except OSError:
        return 0
    found = _BUILD.search(done.stdout + done.stderr)
    return int(found[1] or found[2]) if found else 0


def variables_of(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Of a runner's environment, what decides which GPUs it sees."""
    return tuple((name, environment[name]) for name in VISIBLE if name in environment)
