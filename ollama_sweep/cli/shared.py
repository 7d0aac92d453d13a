"""What several commands share: options, making a spec and an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ollama_sweep.cli import paths, task_options
from ollama_sweep.cli.terminal import warn
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.plan.keys import OVERRIDES
from ollama_sweep.store.beside import DEFAULT_DB as DEFAULT_DB

if TYPE_CHECKING:
    from ollama_sweep.engines.base import EngineSettings
    from ollama_sweep.plan.spec import SweepSpec

DEFAULT_CONFIG = "configs/default.yaml"
F = TypeVar("F", bound=Callable[..., Any])


def db_option(command: F) -> F:
    """--db, the same for every command."""
    return click.option(
        "--db",
        default=(DEFAULT_DB,),
        show_default=True,
        multiple=True,
        callback=_one_database,
        type=paths.DATABASE,
        help="The database.",
    )(command)


def _one_database(context: click.Context, _parameter: click.Parameter, given: tuple[Path, ...]) -> Path:
    if len(given) > 1:
        raise click.UsageError(f"--db is given {len(given)} times; there is one database", context)
    return given[0]


if TYPE_CHECKING:
    _Choice = click.Choice[str]
else:
    _Choice = click.Choice


class Words(_Choice):
    """One of several words; one that is misspelled is told the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Click's own line, with that behind it."""
        return super().get_invalid_choice_message(value, ctx) + nearest(str(value), map(str, self.choices))


def json_option(command: F) -> F:
    """--json, for machines."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def verbose_option(command: F) -> F:
    """--verbose, shows what is run."""
    return click.option("-v", "--verbose", is_flag=True, help="Show each command and request on stderr.")(command)


def sweep_options(command: F) -> F:
    """CONFIG and everything on the command line that wins over the file; collected as `overrides`."""
    command = task_options.task_options(command)
    for _, one in reversed(OVERRIDES):
        metavar = one.metavar or one.option.lstrip("-").upper()
        command = click.option(one.option, type=str, default=None, help=one.words, metavar=metavar)(command)
    command = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any key of the file.")(
        command
    )
    command = click.option("--remote", is_flag=True, help="Allow a host that is another machine.")(command)
    command = click.option("--setup", is_flag=True, help="Allow an engine to download a model (lmstudio, "
                           "sentence_transformers).")(command)  # fmt: skip
    command = click.option("--libllama", type=str, default=None, metavar="PATH", help="The library of the engine "
                           "libllama, or its folder.")(command)  # fmt: skip
    command = click.option("--allow-local-gguf", is_flag=True, help="Allow a Modelfile that reads local files.")(
        command
    )
    command = click.option("--allow-cloud", is_flag=True, help="Allow a :cloud model.")(command)
    command = click.option("--allow-network-db", is_flag=True, help="Allow a database on a network drive.")(command)
    command = click.option("--max-cells", type=click.IntRange(1), default=2_000_000, help="Largest grid.")(command)
    return click.argument("config", required=False, type=paths.CONFIG)(command)


def pair_option(command: F) -> F:
    """--pair, for the commands that measure or say what would be measured."""
    return click.option(
        "--pair", "pair", nargs=2, type=paths.SOURCE, default=None, metavar="A.yaml B.yaml",
        help="Two sweep files, measured in turns and compared.",
    )(command)  # fmt: skip


def scout_option(command: F) -> F:
    """--scout, for the same commands."""
    return click.option(
        "--scout/--no-scout", "scout", default=None, help="Scout the grid by context swap first; kept for the sweep."
    )(command)


def share_option(command: F) -> F:
    """--share-server, for the same commands."""
    return click.option(
        "--share-server", is_flag=True, envvar="OLLAMA_SWEEP_SHARE_SERVER",
        help="Measure although another sweep uses the same server or GPU.",
    )(command)  # fmt: skip


def cluster_options(command: F) -> F:
    """--cluster and how it is reached, for the commands that measure."""
    command = click.option("--insecure", is_flag=True, help="With --cluster: without certificates.")(command)
    command = click.option(
        "--tls", type=paths.LATER, default=None, metavar="FOLDER", help="With --cluster: the certificates here."
    )(command)
    return click.option(
        "--cluster", default=None, metavar="WHERE", help="Measure on hosts of a cluster: its scheduler, local:N or "
        "slurm:N.",
    )(command)  # fmt: skip


def cluster_of(given: Mapping[str, Any]) -> str:
    """Where the cluster is that `cluster_options` name, "" for none. Raises ConfigError."""
    if given["cluster"] is not None and not given["cluster"].strip():
        raise ConfigError("is empty: write HOST:PORT of a scheduler, local:N or slurm:N", "--cluster")
    for option in ("tls", "insecure"):
        if given[option] and given["cluster"] is None:
            raise ConfigError("only with --cluster", f"--{option}")
    return given["cluster"] or ""


def spec_from(config: Path | None, given: Mapping[str, Any]) -> SweepSpec:
    """The checked sweep of a CONFIG and the command line, or of --pair. Raises ConfigError."""
    from ollama_sweep.plan.pairs.arms import of_files
    from ollama_sweep.plan.setups import with_tasks

    files = given.get("pair")
    if not files:
        return with_tasks(_read(config, given))
    if config is not None:
        raise ConfigError(f"names both sweep files; leave out {config}", "--pair")
    return with_tasks(of_files(*(_read(file, given) for file in files)))


def _read(config: Path | None, given: Mapping[str, Any]) -> SweepSpec:
    from ollama_sweep.plan.config import load_spec

    path = config
    if path is None and Path(DEFAULT_CONFIG).exists():
        path = Path(DEFAULT_CONFIG)
    overrides, max_cells = overrides_of(given), int(given.get("max_cells") or 2_000_000)
    spec = load_spec(path, overrides, max_cells=max_cells)
    if typed := task_options.given_of(given):
        more = task_options.settings_of(spec, typed)
        spec = load_spec(path, {**overrides, "set": (*(given.get("settings") or ()), *more)}, max_cells=max_cells)
    return spec


def overrides_of(given: Mapping[str, Any]) -> dict[str, object]:
    """What of the command line wins over the file, as `config.load_spec` takes it."""
    names = [one.name for _, one in OVERRIDES]
    overrides: dict[str, object] = {name: given[name] for name in names if given.get(name) is not None}
    if given.get("settings"):
        overrides["set"] = tuple(given["settings"])
    for allowance in ("allow_cloud", "allow_local_gguf", "libllama"):
        if given.get(allowance):
            overrides[allowance] = given[allowance]
    return overrides


def trace_to_stderr(verbose: bool) -> Callable[[str], None]:
    """Where commands are shown: on stderr with --verbose, else nowhere."""
    if not verbose:
        return lambda line: None
    return lambda line: warn(f"+ {line}")


def engine_settings(
    spec: SweepSpec,
    *,
    say: Callable[[str], None],
    verbose: bool = False,
    remote: bool = False,
    setup: bool = False,
) -> EngineSettings:
    """What an engine of this sweep is told; --verbose shows its commands on stderr."""
    from ollama_sweep.plan import opening

    trace = trace_to_stderr(verbose)
    return opening.engine_settings(spec, say=say, trace=trace, remote=remote, setup=setup)
