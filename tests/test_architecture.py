"""The shape of the program, over its syntax tree: imports go one way, dangerous things have one home."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ollama_fixture import ROOT

PACKAGE = ROOT / "ollama_sweep"
PLUGINS = ("engines", "tasks", "plots")
HEAVY = {"matplotlib", "seaborn", "numpy", "pandas", "ollama", "httpx", "xllamacpp", "rich", "sqlite_utils",
         "openai", "dotenv", "sentence_transformers", "torch"}  # fmt: skip
LONGEST_FILE = 400
LONGEST_FUNCTION = 60

CONTROL = {"execute", "measuring", "asking", "drift", "survey", "plan", "background", "checks"}
"""Modules that bring the parts together; only they and the command line stand above the parts."""
PARTS = {"store", "engines", "tasks", "plots", "report"}
MAY_USE_PARTS = {
    "execute": {"store"}, "measuring": set(), "drift": {"store"}, "survey": {"store", "tasks"}, "plan": set(),
    "background": {"store"}, "checks": {"engines", "store"}, "report": {"plots"},
}  # fmt: skip
"""Who may use which part besides the command line; a part always may use itself."""
BASE = {"errors": set(), "units": {"errors"}, "cells": {"errors", "units"}}
PURE = {"cells", "units", "stats", "validity", "metrics", "modelfile", "failure_texts", "plan", "spec", "errors",
        "scorers"}  # fmt: skip
"""Modules that decide and never do: no processes, files, database or clock."""
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
    tree: ast.Module

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


@functools.cache
def modules() -> list[Module]:
    """Every file of the package, read once."""
    return [Module(path, ast.parse(path.read_text("utf-8"))) for path in sorted(PACKAGE.rglob("*.py"))]


def check(rule: Callable[[Module], Iterable[str]]) -> None:
    """All places in the package that break a rule are named at once."""
    wrong = [place for module in modules() for place in rule(module)]
    assert not wrong, "\n" + "\n".join(wrong)


# -- imports go one way ----------------------------------------------------------------------------------------------


def test_imports_go_one_way() -> None:
    check(imports_of_what_stands_above)


def imports_of_what_stands_above(module: Module) -> Iterator[str]:
    for found in (found for found in module.imports() if found.is_own and found.top != module.top):
        if not may_import(module.top, found.top):
            yield f"{module.at(found.line)} imports {found.target}"


def may_import(importer: str, target: str) -> bool:
    """Whether code of one top-level module or folder may use another one."""
    if target in ("", "__init__"):
        return True
    if importer in BASE:
        return target in BASE[importer]
    if importer == "cli":
        return True
    if target == "cli" or (target in CONTROL and importer not in CONTROL):
        return False
    return target not in PARTS or target in MAY_USE_PARTS.get(importer, set())


def test_the_rule_itself() -> None:
    assert may_import("cli", "execute")
    assert may_import("execute", "store")
    assert may_import("engines", "cells")
    assert not may_import("cells", "stats")
    assert not may_import("store", "engines")
    assert not may_import("engines", "execute")
    assert not may_import("execute", "cli")
    assert not may_import("stats", "store")


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        module.name: {
            found.target.partition(".")[2]
            for found in module.imports()
            if found.is_own and found.at_import and not found.for_types
        }
        for module in modules()
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
    check(imports_of_other_plugins)


def imports_of_other_plugins(module: Module) -> Iterator[str]:
    """A helper such as `plots/_heatmap_cells.py` may know the plug-in that it is part of."""
    folder, _, own = module.name.partition(".")
    if folder not in PLUGINS or not own:
        return
    for found in (found for found in module.imports() if found.top in PLUGINS):
        plugin = found.target.split(".")[2:]
        is_other = plugin and not plugin[0].startswith("_") and plugin[0] != own
        if is_other and not own.startswith(f"_{plugin[0]}_"):
            yield f"{module.at(found.line)} imports {found.target}"


# -- each dangerous thing has one home -------------------------------------------------------------------------------


def uses_of(module: Module, *names: str) -> Iterator[str]:
    """Where a module imports one of these libraries."""
    return (f"{module.at(found.line)} imports {found.target}" for found in module.imports()
            if not found.is_own and found.top in names)  # fmt: skip


def test_only_one_file_starts_processes() -> None:
    check(starts_of_processes)


def starts_of_processes(module: Module) -> Iterator[str]:
    if module.name == "process":
        return
    yield from uses_of(module, "subprocess", "multiprocessing", "pty")
    starters = (
        "os.system",
        "os.fork",
        "os.popen",
        "os.posix_spawn",
        "os.exec",
        "os.spawn",
        "asyncio.create_subprocess",
    )
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(starters):
            yield f"{module.at(node.lineno)} uses {ast.unparse(node)}"


def test_only_the_store_knows_sql() -> None:
    check(lambda module: () if module.top == "store" else uses_of(module, "sqlite3", "sqlite_utils", "apsw"))


def test_only_the_config_reads_yaml() -> None:
    check(lambda module: () if module.name in ("config", "yaml_strict") else uses_of(module, "yaml"))


def test_what_decides_does_nothing_else() -> None:
    check(lambda module: uses_of(module, *DOES_THINGS) if module.name in PURE else ())


def test_only_the_command_line_prints() -> None:
    check(prints)


def prints(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree) if module.top != "cli" else ():
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "click.echo", "input"):
            yield f"{module.at(node.lineno)} calls {ast.unparse(node.func)}"


# -- small -----------------------------------------------------------------------------------------------------------


def test_files_and_functions_are_small() -> None:
    check(what_is_too_long)


def what_is_too_long(module: Module) -> Iterator[str]:
    lines = len(module.path.read_text("utf-8").splitlines())
    if lines > LONGEST_FILE:
        yield f"{module.path.relative_to(ROOT)} has {lines} lines"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{module.at(node.lineno)} {node.name} has {length} lines"


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
