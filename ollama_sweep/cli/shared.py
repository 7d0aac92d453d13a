"""What several commands share: options, finding a sweep in the database, making a spec and an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ollama_sweep.cli import task_options
from ollama_sweep.core import metrics
from ollama_sweep.core.errors import ConfigError

if TYPE_CHECKING:
    from ollama_sweep.core.ledger import Ledger
    from ollama_sweep.engines.base import Engine, EngineSettings
    from ollama_sweep.plan.spec import SweepSpec
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

DEFAULT_DB = "sweeps.db"
DEFAULT_CONFIG = "configs/default.yaml"
F = TypeVar("F", bound=Callable[..., Any])
metrics.add_room("ollama_sweep.engines")

OVERRIDES = (
    ("--model", str, "An installed name or a .gguf path."),
    ("--modelfile", str, "Template for the scratch model; its FROM is replaced."),
    ("--prompt", str, "The prompt's file."),
    ("--ctx-start", str, "First num_ctx."),
    ("--ctx-end", str, "Last num_ctx."),
    ("--ctx-step", str, "Step of num_ctx."),
    ("--batch-start", str, "First num_batch."),
    ("--batch-end", str, "Last num_batch."),
    ("--batch-step", str, "Step of num_batch."),
    ("--timeout", str, "Longest time of one run, e.g. 600 or 10m."),
    ("--engine", str, "auto, ollama, ollama_http, openai, lmstudio, llamacpp …"),
    ("--host", str, "Where the Ollama server answers."),
    ("--ollama", str, "The ollama program."),
    ("--interim", str, "Pictures after so many cells (20) or so long (10m), or off."),
)


def db_option(command: F) -> F:
    """--db, the same for every command."""
    return click.option(
        "--db",
        default=(DEFAULT_DB,),
        show_default=True,
        multiple=True,
        callback=_one_database,
        type=click.Path(path_type=Path),
        help="The database.",
    )(command)


def _one_database(context: click.Context, _parameter: click.Parameter, given: tuple[Path, ...]) -> Path:
    if len(given) > 1:
        raise click.UsageError(f"--db is given {len(given)} times; there is one database", context)
    return given[0]


def json_option(command: F) -> F:
    """--json, for machines."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def verbose_option(command: F) -> F:
    """--verbose, shows what is run."""
    return click.option("-v", "--verbose", is_flag=True, help="Show each command and request on stderr.")(command)


def sweep_options(command: F) -> F:
    """CONFIG and everything on the command line that wins over the file; collected as `overrides`."""
    command = task_options.task_options(command)
    for name, kind, text in reversed(OVERRIDES):
        command = click.option(name, type=kind, default=None, help=text, metavar=_metavar(name))(command)
    command = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any key of the file.")(
        command
    )
    command = click.option("--remote", is_flag=True, help="Allow a host that is another machine.")(command)
    command = click.option("--setup", is_flag=True, help="Allow an engine to download a model (lmstudio, "
                           "sentence_transformers).")(command)  # fmt: skip
    command = click.option("--allow-local-gguf", is_flag=True, help="Allow a Modelfile that reads local files.")(
        command
    )
    command = click.option("--allow-cloud", is_flag=True, help="Allow a :cloud model.")(command)
    command = click.option("--allow-network-db", is_flag=True, help="Allow a database on a network drive.")(command)
    command = click.option("--max-cells", type=click.IntRange(1), default=2_000_000, help="Largest grid.")(command)
    return click.argument("config", required=False, type=click.Path(path_type=Path))(command)


def _metavar(name: str) -> str:
    return {"--ctx": "TOKENS", "--bat": "TOKENS", "--tim": "TIME", "--int": "WHEN"}.get(
        name[:5], name.lstrip("-").upper()
    )


def spec_from(config: Path | None, given: Mapping[str, Any]) -> SweepSpec:
    """The checked sweep of a CONFIG and the command line. Raises ConfigError."""
    from ollama_sweep.plan.config import load_spec
    from ollama_sweep.plan.setups import with_tasks

    path = config
    if path is None and Path(DEFAULT_CONFIG).exists():
        path = Path(DEFAULT_CONFIG)
    overrides, max_cells = overrides_of(given), int(given.get("max_cells") or 2_000_000)
    spec = load_spec(path, overrides, max_cells=max_cells)
    if typed := task_options.given_of(given):
        more = task_options.settings_of(spec, typed)
        spec = load_spec(path, {**overrides, "set": (*(given.get("settings") or ()), *more)}, max_cells=max_cells)
    return with_tasks(spec)


def overrides_of(given: Mapping[str, Any]) -> dict[str, object]:
    """What of the command line wins over the file, as `config.load_spec` takes it."""
    names = [name.lstrip("-").replace("-", "_") for name, _, _ in OVERRIDES]
    overrides: dict[str, object] = {name: given[name] for name in names if given.get(name) is not None}
    if given.get("settings"):
        overrides["set"] = tuple(given["settings"])
    for allowance in ("allow_cloud", "allow_local_gguf"):
        if given.get(allowance):
            overrides[allowance] = True
    return overrides


def trace_to_stderr(verbose: bool) -> Callable[[str], None]:
    """Where commands are shown: on stderr with --verbose, else nowhere."""
    if not verbose:
        return lambda line: None
    return lambda line: click.echo(f"+ {line}", err=True)


def engine_settings(
    spec: SweepSpec,
    *,
    ledger: Ledger | None = None,
    say: Callable[[str], None],
    verbose: bool = False,
    remote: bool = False,
    setup: bool = False,
) -> EngineSettings:
    """What an engine of this sweep is told."""
    from ollama_sweep.engines.base import EngineSettings

    settings = EngineSettings(
        host=spec.host,
        ollama=spec.ollama,
        template=spec.template,
        timeout_s=spec.timeout_s,
        load_timeout_s=spec.load_timeout_s,
        allow_remote=remote,
        managed=spec.managed,
        restart_command=spec.restart_command,
        api_key_env=spec.api_key_env,
        extra={**spec.engine_options, **({"setup": "yes"} if setup else {})},
        say=say,
        trace=trace_to_stderr(verbose),
    )
    return settings if ledger is None else replace(settings, ledger=ledger)


def engine_name(spec: SweepSpec, settings: EngineSettings, pinned: str | None) -> str:
    """The engine to use: the one asked for, the one this sweep began with, or what `auto` finds."""
    from ollama_sweep import engines

    if spec.engine != "auto":
        return spec.engine
    return pinned or engines.choose(settings)


def open_engine(name: str, settings: EngineSettings) -> Engine:
    """The engine by name. Raises ConfigError for an unknown one."""
    from ollama_sweep import engines

    return engines.load(name, settings)


def reader_if_there(db: Path) -> Reader | None:
    """A reader of the database, or None where there is none yet."""
    from ollama_sweep.store.reader import Reader

    return Reader.open(db) if db.exists() and db.stat().st_size else None


def find_sweep(reader: Reader, config: str | None) -> SweepRow:
    """The sweep of a CONFIG or a name; left out, the one that ran last. Raises ConfigError."""
    if config is None:
        last = reader.last_sweep()
        if last is None:
            raise ConfigError("no sweep has run in this database yet. Start with: sweep.py run CONFIG")
        return last
    names = {row.name for row in reader.sweeps()}
    return reader.sweep(config if config in names else _name_of(config))


def _name_of(config: str) -> str:
    path = Path(config)
    if not path.is_file():
        return path.stem if path.suffix in (".yaml", ".yml") else config
    from ollama_sweep.core import strict_yaml
    from ollama_sweep.machine import files

    root = strict_yaml.parse(files.read_text(path, 1), str(path))
    entries = root.value if root is not None and isinstance(root.value, dict) else {}
    return str(entries["name"].value) if "name" in entries else path.stem
