"""The shape of the program, over its syntax tree: imports go one way, dangerous things have one home."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ollama_fixture import ROOT

PACKAGE = ROOT / "ollama_sweep"
PLUGINS = ("engines", "tasks", "results.plots")
KINDS_OF = {("ollama_http", "ollama"), ("lmstudio", "openai"), ("libllama", "ollama"), ("libllama", "ollama_http"),
            ("libllama", "llamacpp"), ("fake_swap", "fake")}  # fmt: skip
"""Another way to the same server, another server of the same protocol, and the library inside the two."""
HEAVY = {"matplotlib", "seaborn", "numpy", "pandas", "ollama", "httpx", "xllamacpp", "rich", "sqlite_utils",
         "openai", "dotenv", "json_repair", "jinja2", "pynvml", "sentence_transformers", "torch",
         "starlette", "uvicorn", "anyio", "cryptography", "distributed", "dask"}  # fmt: skip
LONGEST_FILE = 600
LONGEST_FUNCTION = 60
MOST_FILES = 20
FLAT = {PACKAGE / "cli" / "commands"}
"""A list, not a room: every file in it is a command, and its name is the one that people type."""
ROOMS = ("core", "machine", "store", "engines", "tasks", "plan", "results", "run", "web", "cli")

PURE = {"plan.keys", "plan.schema", "plan.written.comments", "plan.written.sweep_file",
        "plan.grid", "plan.fit", "plan.spec", "plan.exclude", "engines.shared.failures",
        "engines.shared.modelfile", "tasks.shared.scorers",
        "results.compare.rule", "plan.hosts.handshake"}  # fmt: skip
"""Modules outside `core` that decide and never do: no processes, files, database or clock."""
STARTERS = ("os.system", "os.fork", "os.popen", "os.posix_spawn", "os.exec", "os.spawn", "asyncio.create_subprocess")
DOES_THINGS = {"subprocess", "socket", "sqlite3", "httpx", "ollama", "shutil", "tempfile", "os", "time"}


@dataclass(frozen=True)
class Import:
    """One import: of what, where, and when: at import time, later inside a function, or only for types."""

    target: str
    line: int
    at_import: bool
    for_types: bool

    @property
    def top(self) -> str:
        """The first part below the package for our own modules, else the library's name."""
        own, _, rest = self.target.partition(".")
        return rest.split(".")[0] if own == PACKAGE.name else own

    @property
    def is_own(self) -> bool:
        return self.target.split(".")[0] == PACKAGE.name


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    path: Path
    text: str | None = None
    """What it says, where that is not what lies at its path."""

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Parsed when a test asks for it: every worker collects this file."""
        return ast.parse(self.path.read_text("utf-8") if self.text is None else self.text)

    @property
    def name(self) -> str:
        """`engines.ollama`; the package's own `__init__` is an empty text."""
        return ".".join(self.path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")

    @property
    def top(self) -> str:
        return self.name.split(".")[0]

    def imports(self) -> list[Import]:
        return list(_imports(self.tree.body, at_import=True, for_types=False))

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def _imports(body: list[ast.stmt], *, at_import: bool, for_types: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import, for_types)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are written in full"
            for alias in node.names:
                yield Import(_imported(node.module or "", alias.name), node.lineno, at_import, for_types)
        else:
            in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            typed = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for part in (getattr(node, field, []) for field in ("body", "orelse", "finalbody")):
                if isinstance(part, list):
                    yield from _imports(part, at_import=at_import and not in_function, for_types=for_types or typed)
            for handler in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
                yield from _imports(handler.body, at_import=at_import, for_types=for_types)


def _imported(module: str, name: str) -> str:
    """`from ollama_sweep import stats` imports the module, `from ollama_sweep.stats import median` does so, too."""
    if module.split(".")[0] != PACKAGE.name:
        return module
    path = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if path.is_dir() or path.with_suffix(".py").exists() else module


MODULES = [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]


def none_of(faults: Iterable[str]) -> None:
    """Every offence against one rule at once."""
    found = list(faults)
    assert not found, "\n".join(found)


# -- imports go one way ----------------------------------------------------------------------------------------------


def test_imports_keep_the_contracts() -> None:
    """The floors, in pyproject.toml."""
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        module.name: {
            found.target.partition(".")[2]
            for found in module.imports()
            if found.is_own and found.at_import and not found.for_types
        }
        for module in MODULES
    }
    finished: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in finished:
            for target in sorted(graph.get(name, set()) - {""}):
                visit(target, (*way, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def test_a_plugin_never_imports_another_one() -> None:
    """Neither an engine, a task nor a plot, but for the kinds of one engine."""
    none_of(
        f"{module.at(found.line)} imports {found.target}"
        for module in MODULES
        for found in module.imports()
        if found.is_own and not found.for_types and is_of_another(module.name, found.target.partition(".")[2])
    )


def is_of_another(module: str, target: str) -> bool:
    for folder in PLUGINS:
        own, other = (name.removeprefix(f"{folder}.").split(".")[0] for name in (module, target))
        if module.startswith(f"{folder}.") and target.startswith(f"{folder}.") and other not in ("base", "shared", own):
            return (own, other) not in KINDS_OF
    return False


# -- each dangerous thing has one home -------------------------------------------------------------------------------


def libraries(module: Module) -> Iterator[Import]:
    return (found for found in module.imports() if not found.is_own)


def uses_of(names: Collection[str], *, but_in: Collection[str]) -> Iterator[str]:
    """Where one of these libraries is imported, but in modules whose names begin like this."""
    for module in MODULES:
        if not module.name.startswith(tuple(but_in)):
            yield from (module.at(found.line) for found in libraries(module) if found.top in names)


def test_only_one_file_starts_processes() -> None:
    none_of(uses_of({"subprocess", "multiprocessing", "pty"}, but_in=["machine.process"]))
    none_of(
        module.at(node.lineno)
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(STARTERS)
        if module.name != "machine.process"
    )


def test_only_the_store_knows_sql() -> None:
    none_of(uses_of({"sqlite3", "sqlite_utils", "apsw"}, but_in=["store"]))


def test_only_one_room_is_a_server() -> None:
    none_of(uses_of({"starlette", "uvicorn", "anyio"}, but_in=["web"]))


def test_only_one_file_reads_yaml() -> None:
    none_of(uses_of({"yaml"}, but_in=["core.strict_yaml", "plan.config"]))


def test_what_decides_does_nothing_else() -> None:
    none_of(
        module.at(found.line)
        for module in MODULES
        if (module.top == "core" and module.name != "core.crashpoints") or module.name in PURE
        for found in libraries(module)
        if found.top in DOES_THINGS
    )


def test_only_one_file_prints() -> None:
    """It makes text of others harmless, so a new command is safe by itself. A terminal's lines have `printable`."""
    printing = ("print", "click.echo", "click.secho", "input", "traceback.print_exc", "sys.stdout.write")
    none_of(
        module.at(node.lineno)
        for module in MODULES
        if module.name != "cli.terminal"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in printing
    )


def test_paths_of_the_command_line_are_looked_at_by_one_file() -> None:
    none_of(
        module.at(node.lineno)
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.Path", "click.File")
    )


# -- no engine has a name outside its room -----------------------------------------------------------------------------

ENGINE_FOLDER = PACKAGE / "engines"
ENGINE_NAMES = {path.stem for path in ENGINE_FOLDER.iterdir()} - {"__init__", "__pycache__", "base", "shared"}
NAMED_ALIKE = {
    ("plan.keys", "ollama"): "a key of the sweep file: the ollama program",
    ("cli.interactive", "ollama"): "the same key",
    ("cli.commands.report", "ollama"): "the option --ollama",
    ("cli.commands.doctor", "ollama"): "the option --ollama",
    ("cli.commands.models", "ollama"): "the option --ollama",
    ("cli.suggested", "ollama"): "the option --ollama",
    ("cli.commands.init", "ollama"): "the same option",
    ("cli.shared", "libllama"): "the option --libllama",
    ("plan.config", "libllama"): "the same option",
    ("plan.load", "libllama"): "the same, from Python",
    ("machine.computer", "ollama"): "how the program is called among the processes of a computer",
    ("machine.env", "ollama"): "a word that people write where a key is wanted",
}
"""(module, text): what is no engine there, but the name of a key, an option or a program."""


def test_no_engine_is_named_outside_the_engines() -> None:
    """Neither compared with, nor listed, nor taken for a beginning: what one is like is a fact of its class."""
    found = {(module.name, text): module.at(line) for module in MODULES for text, line in engine_names(module)}
    none_of(f"{place} names the engine {key[1]}" for key, place in found.items() if key not in NAMED_ALIKE)
    none_of(f"{key} is not there any more" for key in NAMED_ALIKE if key not in found)


def engine_names(module: Module) -> Iterator[tuple[str, int]]:
    """Texts that are an engine's name, or with which one is asked to begin."""
    if module.top == "engines":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ENGINE_NAMES:
            yield node.value, node.lineno
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            (".startswith", ".endswith", ".removeprefix")
        ):
            for part in (inner for argument in node.args for inner in ast.walk(argument)):
                text = part.value if isinstance(part, ast.Constant) else None
                if isinstance(text, str) and text and any(name.startswith(text) for name in ENGINE_NAMES - {text}):
                    yield text, node.lineno


def test_a_named_engine_would_be_noticed() -> None:
    for text in ('name == "fake"', 'name in ("lmstudio", "x")', 'name.startswith("llama")', '{"openai": 1}'):
        assert list(engine_names(Module(PACKAGE / "plan" / "some.py", text))), text
    harmless = 'f"ollama pull {name}"; folder.startswith("ollama-sweep-")'
    assert not list(engine_names(Module(PACKAGE / "plan" / "some.py", harmless)))


def test_a_test_is_marked_real_in_its_own_file() -> None:
    """There `make test` looks for them."""
    shared = (*ROOT.glob("tests/support/*.py"), ROOT / "tests/conftest.py")
    none_of(f"{path.name} marks tests" for path in shared if "mark.real" in path.read_text("utf-8"))


def test_no_test_file_imports_another() -> None:
    """What several of them share lies in tests/support."""
    none_of(
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
        if name.rpartition(".")[2].startswith("test_")
    )


# -- small -----------------------------------------------------------------------------------------------------------


def test_files_functions_and_folders_are_small() -> None:
    none_of(_too_large())


def _too_large() -> Iterator[str]:
    for module in MODULES:
        lines = len(module.path.read_text("utf-8").splitlines())
        if lines > LONGEST_FILE:
            yield f"{module.name} has {lines} lines"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    yield f"{module.at(node.lineno)} {node.name} has {length} lines"
    for folder, count in Counter(one.path.parent for one in MODULES if one.path.name != "__init__.py").items():
        if count > MOST_FILES and folder not in FLAT:
            yield f"{folder.relative_to(ROOT)} has {count} files"


def test_nothing_is_loose_at_the_top_and_every_room_says_what_it_is_for() -> None:
    top = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert top - {"__init__.py", "__main__.py", "py.typed"} == {*ROOMS}
    none_of(
        module.name for module in MODULES if module.path.name == "__init__.py" and not ast.get_docstring(module.tree)
    )


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["status"], ["status", "--help"]])
def test_a_quick_command_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    """In a child, because this process has long imported everything."""
    if words == ["status"]:
        _call(tmp_path, ["run", str(_tiny_sweep(tmp_path))])
    loaded = _call(tmp_path, words)
    assert "click" in loaded
    assert not set(loaded) & HEAVY


def _tiny_sweep(folder: Path) -> Path:
    config = folder / "tiny.yaml"
    config.write_text("model: m\nengine: fake\nprompt: {text: hello}\nnum_ctx: [64]\nnum_batch: [8]\n", "utf-8")
    return config


def _call(folder: Path, words: list[str]) -> list[str]:
    """The top-level modules that are loaded after a command has ended without an error."""
    code = (
        "import atexit, json, sys\n"
        "from ollama_sweep.cli import main\n"
        "sys.argv[1:] = json.loads(sys.argv[1])\n"
        "try:\n    main()\n"
        "finally:\n    print('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words)], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return modules
