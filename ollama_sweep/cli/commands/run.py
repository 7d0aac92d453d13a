"""`run CONFIG`: start a sweep or go on with it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import shared, task_options
from ollama_sweep.core.cell import model_label
from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import ConfigError, NotBelieved, Stopped, SweepError, nearest

if TYPE_CHECKING:
    from ollama_sweep.cli.progress import Progress
    from ollama_sweep.cli.unattended import Company
    from ollama_sweep.engines.base import Engine
    from ollama_sweep.machine.computer import Machine
    from ollama_sweep.plan.lengths import SentPrompt
    from ollama_sweep.plan.spec import SweepSpec
    from ollama_sweep.plan.survey import Survey
    from ollama_sweep.run.stopping import Stopping
    from ollama_sweep.store.rows import SweepRow
    from ollama_sweep.store.writer import Store


SHOWN_CONTEXTS = 8


@click.command("run", short_help="Start a sweep or go on with it.")
@shared.sweep_options
@click.option("--retry", "retry", default="", metavar="STATUSES", help="Run failed cells again, e.g. oom,timeout.")
@click.option("--wait-engine", default="10m", metavar="TIME", show_default=True, help="How long to wait for a server.")
@click.option("--out", default="heatmaps", type=click.Path(path_type=Path), show_default=True, help="Pictures' folder.")
@click.option("--strict", is_flag=True, help="Exit 6 when some cells failed or are not believed.")
@click.option("--no-pause", is_flag=True, help="Go on, with flags, when the machine has become much slower or faster.")
@click.option("--interactive", is_flag=True, help="Ask for tasks, models and sizes first; needs a terminal.")
@click.option("--detach", is_flag=True, help="Go on in the background when the terminal is closed.")
@click.option("--keep-awake", is_flag=True, help="Keep the computer from going to sleep by itself.")
@click.option(
    "--share-server",
    is_flag=True,
    envvar="OLLAMA_SWEEP_SHARE_SERVER",
    help="Run although another sweep uses the same server or GPU.",
)
@shared.db_option
@shared.json_option
@shared.verbose_option
def command(config: Path | None, db: Path, **given: Any) -> None:
    """Start a sweep or go on where it was: the same command. Without CONFIG it is configs/default.yaml.

    \b
    Example:
      ollama-sweep run configs/quickstart.yaml
      ollama-sweep run configs/quickstart.yaml --retry timeout --timeout 20m
      ollama-sweep run configs/default.yaml --detach
      ollama-sweep run --interactive
    """
    from ollama_sweep.cli.progress import Progress
    from ollama_sweep.cli.unattended import Company, detach

    retry = _statuses(given["retry"])
    wait_s = _seconds(given["wait_engine"])
    spec = _interview(config, given) if given["interactive"] else shared.spec_from(config, given)
    progress = Progress(sys.stderr if given["as_json"] else None)
    company = Company(spec, db, progress, given)
    if given["detach"] and not company.is_detached:
        detach(db, allow_network=given["allow_network_db"], as_json=given["as_json"])
        return
    with company:
        _Session(spec, db, progress, company, given, retry, wait_s).run()


def _interview(config: Path | None, given: dict[str, Any]) -> SweepSpec:
    from ollama_sweep.cli.interactive import interview

    for option in task_options.given_of(given):
        raise ConfigError("not together with --interactive, which asks for the tasks first", option)
    return interview(config, given)


def _statuses(text: str) -> frozenset[Any]:
    from ollama_sweep.core.outcome import FAILURES, Status

    known = {str(status) for status in FAILURES}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{name} is not a failure. Allowed: {', '.join(sorted(known))}.{nearest(name, known)}", "--retry"
            )
    return frozenset(Status(name) for name in names)


def _seconds(text: str) -> float:
    from ollama_sweep.core.units import parse_duration_s

    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration_s(text)
    except ValueError:
        raise ConfigError(f"{text}: write seconds (600) or a time like 10m", "--wait-engine") from None


@dataclass
class _Session:
    """One call of `run`, from the checked spec to the pictures."""

    spec: SweepSpec
    db: Path
    progress: Progress
    company: Company
    given: dict[str, Any]
    retry: frozenset[Any]
    wait_s: float

    def run(self) -> None:
        from ollama_sweep.run.stopping import Stopping
        from ollama_sweep.store.writer import Store

        self._check_engine()
        is_new = not self.db.exists()
        store = Store.open(self.db, allow_network=self.given["allow_network_db"], say=self.progress.line)
        stopping = Stopping(self.progress.line)
        store.hurry_when(lambda: stopping.now)
        stopped: Stopped | None = None
        try:
            with stopping.installed():
                self._measure(store, stopping)
        except Stopped as stop:
            stopped = stop
        finally:
            if is_new:
                store.discard()
            else:
                store.close()
        if self._sweeps():
            self._finish(is_done=stopped is None)
        if stopped is not None:
            raise Stopped(f"{stopped}. Go on with: {self._command()}", stopped.exit_code - 128)

    def _sweeps(self) -> list[SweepRow]:
        reader = shared.reader_if_there(self.db)
        if reader is None:
            return []
        with reader:
            return [row for row in reader.sweeps() if row.name == self.spec.name]

    def _command(self) -> str:
        words = ["ollama-sweep run", str(self.spec.config_path or "")]
        words += [f"--db {self.db}"] if str(self.db) != shared.DEFAULT_DB else []
        words += ["--interactive (with the same answers)"] if self.given["interactive"] else []
        return " ".join(words)

    def _settings(self, **more: Any) -> Any:
        return shared.engine_settings(
            self.spec,
            say=self.progress.line,
            verbose=self.given["verbose"],
            remote=self.given["remote"],
            setup=self.given["setup"],
            **more,
        )

    def _check_engine(self) -> None:
        """An unknown engine, no program or a wrong host are found before the database is made."""
        from ollama_sweep import engines

        if self.spec.engine != "auto" and self.spec.engine not in engines.known():
            engines.load(self.spec.engine, self._settings())

    def _measure(self, store: Store, stopping: Stopping) -> None:
        from ollama_sweep.run.loop import ShieldedLedger
        from ollama_sweep.run.waiting import wait_for

        self.company.attach(store)
        settings = self._settings(ledger=ShieldedLedger(store, stopping))
        pinned = next((row.engine for row in self._sweeps()), None)
        name = shared.engine_name(self.spec, settings, pinned)
        self._say_choice(name)
        engine = shared.open_engine(name, settings)
        try:
            self._clear_leftovers(store, engine)
            info = wait_for(engine.describe, stopping, self.company, self.wait_s)
            with self.company.around(info):
                self._sweep(store, stopping, name, engine)
        finally:
            reached("before_close")
            engine.close()

    def _say_choice(self, name: str) -> None:
        from ollama_sweep import engines

        if self.spec.engine == engines.AUTO and name == engines.FALLBACK:
            self.progress.plain(
                "No Ollama was found, so the embedded llama.cpp measures. For Ollama install it from ollama.com "
                "(or: make ollama), then run again with --engine ollama."
            )

    def _clear_leftovers(self, store: Store, engine: Engine) -> None:
        """Remove what a killed session left, before anything new is made."""
        for leftover in store.leftovers():
            try:
                said = engine.clear(leftover)
            except SweepError as error:
                self.progress.line(f"{leftover.name} of the previous session could not be removed: {error}")
                continue
            store.settle(leftover.number)
            if said:
                self.progress.line(said)

    def _sweep(self, store: Store, stopping: Stopping, name: str, engine: Engine) -> None:
        from ollama_sweep import tasks
        from ollama_sweep.machine.computer import machine
        from ollama_sweep.machine.telemetry import Telemetry
        from ollama_sweep.run.attempt import Measuring
        from ollama_sweep.run.drift import DriftWatch
        from ollama_sweep.run.loop import Execution

        here = machine()
        found = self._survey(store, stopping, name, engine)
        self.spec = found.spec
        sweep_id = self._register(store, found, here)
        reached("plan_registered")
        self._say_start(store, sweep_id, found, here)
        self.company.begin(store, sweep_id)
        measuring = Measuring(
            spec=self.spec,
            sent=found.prompts,
            tasks={task: tasks.load(task) for task in found.task_versions},
            engine=engine,
            emit=self.company,
            has_gpu=bool(here.gpus),
            watch=Telemetry,
        )
        pauses = not self.given["no_pause"]
        Execution(
            store=store,
            sweep_id=sweep_id,
            spec=self.spec,
            cell_at=lambda position: store.planned(sweep_id, position).cell,
            measuring=measuring,
            drift=DriftWatch(store, sweep_id, measuring, stopping, self.company, self.spec.control, pauses),
            engine=engine,
            stopping=stopping,
            emit=self.company,
            machine=here.fingerprint(),
            wait_engine_s=self.wait_s,
            may_start=self.company.may_start,
        ).run()

    def _survey(self, store: Store, stopping: Stopping, name: str, engine: Engine) -> Survey:
        from ollama_sweep.plan.survey import survey
        from ollama_sweep.run.waiting import wait_for

        return wait_for(
            lambda: survey(self.spec, name, engine, store, self.progress.line), stopping, self.company, self.wait_s
        )

    def _register(self, store: Store, found: Survey, here: Machine) -> int:
        from ollama_sweep.plan.changes import changes
        from ollama_sweep.plan.grid import nesting
        from ollama_sweep.store.rows import SweepHeader

        for old in self._sweeps():
            for line in changes(old.spec, found):
                self.progress.plain(f"Changed since the last run: {line}")
        for digest, identity, tokens in found.lengths():
            store.save_prompt_tokens(found.engine, digest, found.modelfile, identity, tokens)
        for (_, model), prompt in found.prompts.items():
            if prompt.is_new and prompt.is_made:
                digest = found.models[model].digest
                store.save_made_prompt(found.engine, digest, found.modelfile, prompt.hash, prompt.text)
            if prompt.is_own_prompt:
                store.save_prompt(prompt.hash, prompt.text)
        header = SweepHeader(
            name=self.spec.name,
            engine=found.engine,
            config_path=str(self.spec.config_path or ""),
            spec=found.picture(),
            plan_fingerprint=found.fingerprint,
            machine=here.line(),
            dimensions=nesting(self.spec),
        )
        rules: dict[str, Any] = {
            "timeout_s": self.spec.timeout_s,
            "repeats_minimum": self.spec.repeats.minimum,
            "retry": self.retry,
        }
        sweep_id = store.refresh_sweep(header, **rules)
        if sweep_id is None:
            sweep_id = store.register_sweep(header, found.planned(), **rules)
        return sweep_id

    def _say_start(self, store: Store, sweep_id: int, found: Survey, here: Machine) -> None:
        counts = store.counts(sweep_id)
        total = sum(counts.values())
        done = sum(count for status, count in counts.items() if status.is_final and status != "skipped")
        skipped = counts.get(_skipped(), 0)
        for text in self.spec.warnings:
            self.progress.plain(f"Warning: {text}")
        where = f"{found.engine} {found.info.version} at {found.info.where}"
        self.progress.plain(f"Sweep {self.spec.name}: {total} cells on {where}")
        self.progress.plain(f"Machine: {here.line()}")
        for (task, model), prompt in found.prompts.items():
            self.progress.plain(self._each_cell(task, model, prompt))
        if skipped:
            self.progress.plain(f"{skipped} cells are skipped: the prompt does not fit their num_ctx")
        self.progress.plain(f"{done} of {total} cells already done, {total - done - skipped} to run")

    def _each_cell(self, task: str, model: str, prompt: SentPrompt) -> str:
        on, warmup, repeats = model_label(model), self.spec.warmup, self.spec.repeats.minimum
        if prompt.is_own_prompt:
            return f"Each cell: {warmup} warm-up, {repeats} runs, {prompt.tokens or '?'} prompt tokens on {on}"
        times = self.spec.setups[task].repeats or repeats
        rows = sum(len(question.texts) for question in prompt.questions)
        what = f"{rows} rows" if rows else f"{len(prompt.questions)} questions"
        return f"Each cell of {task}: {warmup} warm-up, {what} × {times} on {on}"

    def _finish(self, *, is_done: bool) -> None:
        """The pictures and the best cell in words."""
        import json

        from ollama_sweep.results.best import describe_best
        from ollama_sweep.results.pictures import draw_sweep
        from ollama_sweep.store.reader import Reader

        reached("before_pictures")
        with Reader.open(self.db) as reader:
            row = reader.sweep(self.spec.name)
            results = list(reader.results(row.sweep_id))
        files = draw_sweep(row, results, self.given["out"])
        contexts = {result.coordinates.get("num_ctx") for result in results}
        text = describe_best(results, contexts=len(contexts) <= SHOWN_CONTEXTS)
        if self.given["as_json"]:
            click.echo(json.dumps({"sweep": row.name, "best": text, "files": [str(file) for file in files]}))
        for line in [*self._summaries(), *text.splitlines()]:
            self.progress.plain(line)
        if is_done:
            self.company.done(text)
        self.progress.plain(f"Picture: {files[0]}" if files else "")
        self.progress.plain(f"Database: {self.db}   tables: {files[0].parent if files else self.given['out']}")
        if self.given["strict"]:
            doubtful = sum(result.status.is_failure or bool(result.flags) for result in results)
            if doubtful:
                raise NotBelieved(f"{doubtful} cells failed or carry a flag")

    def _summaries(self) -> list[str]:
        """What the answers of each model came to; a log that cannot be written costs nothing else."""
        from ollama_sweep.run.summaries import summaries

        try:
            return summaries(self.db, self.spec.name)
        except SweepError as error:
            return [f"Warning: {error}"]


def _skipped() -> Any:
    from ollama_sweep.core.outcome import Status

    return Status.SKIPPED
