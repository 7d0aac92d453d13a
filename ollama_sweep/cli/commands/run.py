"""`run CONFIG`: start a sweep or go on with it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import paths, shared, task_options
from ollama_sweep.cli.terminal import say, say_json
from ollama_sweep.core.errors import ConfigError, NotBelieved, Stopped

if TYPE_CHECKING:
    from ollama_sweep.cli.progress import Progress
    from ollama_sweep.core.events import Event
    from ollama_sweep.plan.spec import SweepSpec
    from ollama_sweep.run.detached import Start
    from ollama_sweep.run.ending import Ending, Files
    from ollama_sweep.run.listeners import Listener
    from ollama_sweep.run.notify import Notifier
    from ollama_sweep.run.pairs.ending import Compared
    from ollama_sweep.run.serving import LivePage
    from ollama_sweep.run.session import Ended, Session, SessionOptions
    from ollama_sweep.run.stopping import Stopping

DEFAULT_OUT = "heatmaps"


@click.command("run", short_help="Start a sweep or go on with it.")
@shared.sweep_options
@shared.pair_option
@shared.scout_option
@click.option("--retry", "retry", default="", metavar="STATUSES", help="Run failed cells again, e.g. oom,timeout.")
@click.option("--wait-engine", default="10m", metavar="TIME", show_default=True, help="How long to wait for a server.")
@click.option("--out", default=DEFAULT_OUT, type=paths.TRIED, show_default=True, help="Pictures' folder.")
@click.option("--strict", is_flag=True, help="Exit 6 when some cells failed or are not believed.")
@click.option("--scan", is_flag=True, help="Only find how far memory reaches, by loads without a prompt.")
@click.option("--within", default=None, metavar="TIME", help="The best use of so long, for the goal (else: map).")
@click.option("--no-pause", is_flag=True, help="Go on, with flags, when the machine has become much slower or faster.")
@click.option(
    "--second-look", is_flag=True, help="Measure the cells again that lead or are doubted, also if all is done."
)
@click.option("--interactive", is_flag=True, help="Ask for tasks, models and sizes first; needs a terminal.")
@click.option("--detach", is_flag=True, help="Go on in the background when the terminal is closed.")
@click.option("--serve", is_flag=True, help="A live page for a browser, as long as it runs.")
@click.option("--control", is_flag=True, help="With --serve: buttons to pause and stop, for who has its token.")
@shared.cluster_options
@click.option(
    "--same-version", is_flag=True, help="Refuse another version of the engine than the sweep was measured with."
)
@click.option("--keep-awake", is_flag=True, help="Keep the computer from going to sleep by itself.")
@shared.share_option
@shared.db_option
@shared.json_option
@shared.verbose_option
def command(config: Path | None, db: Path, **given: Any) -> None:
    """Start a sweep or go on where it was: the same command. Without CONFIG it is configs/default.yaml.

    \b
    Example:
      ollama-sweep run configs/quickstart.yaml
      ollama-sweep run configs/default.yaml --goal best
      ollama-sweep run configs/default.yaml --goal map --within 2h
      ollama-sweep run configs/default.yaml --scan
      ollama-sweep run configs/default.yaml --scout
      ollama-sweep run configs/default.yaml --detach --serve
      ollama-sweep run --pair before.yaml after.yaml
      ollama-sweep run --interactive
    """
    from ollama_sweep.cli.progress import Progress
    from ollama_sweep.machine import files
    from ollama_sweep.run import detached, notify
    from ollama_sweep.run.session import session_of
    from ollama_sweep.run.stopping import Stopping

    options = _options(given)
    spec = _interview(config, given) if given["interactive"] else shared.spec_from(config, given)
    progress = Progress(sys.stderr if given["as_json"] else None)
    announcement = detached.Announcement.take_over()
    send = notify.sender()
    files.try_folder(given["out"], "--out")
    for name in _names(spec):
        files.try_folder(files.inside(given["out"], files.safe_name(name)), "--out")
    if given["detach"] and not announcement.is_owed:
        _detach(db, given["allow_network_db"], given["as_json"])
        return
    with contextlib.ExitStack() as stack:
        stack.callback(progress.close)
        told: Notifier | None = None
        if send is not None:
            told = stack.enter_context(notify.notifier(spec, send, progress.line, is_alone=not sys.stdout.isatty()))
        listeners: list[Listener] = [progress, *([told] if told else [])]
        say, tell, stopping = progress.line, progress.plain, Stopping(progress.line)

        def finish(ended: Ended) -> None:
            if options.scan:
                _finish_scan(ended, db, progress, given["as_json"])
            elif ended.sweep is not None:
                finishing.finish(told if ended.stopped is None else None)

        session = session_of(spec, db, options)(spec, db, options, say=say, tell=tell, stopping=stopping, ending=finish)
        finishing = Finishing(db, spec.name, progress, given, session.emit, stopping, _names(spec))
        if not options.scan:
            listeners += _company(spec, db, progress, given["out"], stopping, session)
        if given["serve"]:
            page = _page(db, given["control"], progress)
            stack.callback(page.close)
            listeners.append(page)
        listeners.append(announcement)
        for listener in listeners:
            session.emit.add(listener)
        ended = session.run()
        finishing.check()
        _raise_where_stopped(ended, _again(spec, db, given), finishing)


def _raise_where_stopped(ended: Ended, again: str, finishing: Finishing) -> None:
    """Raises Stopped."""
    if ended.stopped is not None:
        raise Stopped(f"{ended.stopped}. Go on with: {again}", ended.stopped.exit_code - 128)
    if finishing.is_cut:
        number = finishing.stopping.signal_number or signal.SIGINT
        raise Stopped("stopped while the pictures were drawn; everything is measured and saved", number)


def _names(spec: SweepSpec) -> tuple[str, ...]:
    """The sweeps that a run measures: one, or the two of a pair."""
    return tuple(arm.name for arm in spec.arms) or (spec.name,)


def _options(given: dict[str, Any]) -> SessionOptions:
    from ollama_sweep.run.session import SessionOptions, failures

    if given["control"] and not given["serve"]:
        raise ConfigError("only with --serve", "--control")
    if given["scan"] and given["serve"]:
        raise ConfigError("not together with --scan, which measures no cell", "--serve")
    if given["scan"] and given["retry"]:
        raise ConfigError("not together with --scan, which measures no cell", "--retry")
    if given["scan"] and given["within"] is not None:
        raise ConfigError("not together with --scan, which measures no cell", "--within")
    if given["scan"] and given["scout"]:
        raise ConfigError("not together with --scan, which measures no cell", "--scout")
    retry = [name.strip() for name in given["retry"].split(",") if name.strip()]
    return SessionOptions(
        retry=failures(retry, "--retry"),
        scan=given["scan"],
        scout=given["scout"],
        wait_engine_s=_seconds(given["wait_engine"]),
        within_s=_within(given["within"]),
        remote=given["remote"],
        setup=given["setup"],
        share_server=given["share_server"],
        keep_awake=given["keep_awake"],
        no_pause=given["no_pause"],
        second_look=given["second_look"],
        cluster=shared.cluster_of(given),
        tls=given["tls"],
        insecure=given["insecure"],
        same_version=given["same_version"],
        allow_network_db=given["allow_network_db"],
        trace=shared.trace_to_stderr(given["verbose"]),
    )


def _within(text: str | None) -> float | None:
    found = None if text is None else _seconds(text, "--within")
    if found is not None and found <= 0:
        raise ConfigError(f"{text}: must be more than 0", "--within")
    return found


def _seconds(text: str, option: str = "--wait-engine") -> float:
    from ollama_sweep.core.units import parse_duration_s

    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration_s(text)
    except ValueError:
        raise ConfigError(f"{text}: write seconds (600) or a time like 10m", option) from None


def _interview(config: Path | None, given: dict[str, Any]) -> SweepSpec:
    from ollama_sweep.cli.interactive import interview

    for option in task_options.given_of(given):
        raise ConfigError("not together with --interactive, which asks for the tasks first", option)
    return interview(config, given)


def _finish_scan(ended: Ended, db: Path, progress: Progress, as_json: bool) -> None:
    """What a scan found: a table for each combination, and a line for all."""
    from ollama_sweep.cli.scanned import lines_of
    from ollama_sweep.results.status import memory_words
    from ollama_sweep.store.reader import Reader

    if ended.sweep is None or ended.stopped is not None:
        return
    with Reader.open(db) as reader:
        words = memory_words(reader.scanned_loads(ended.sweep.sweep_id))
    for line in [*lines_of(ended.scanned), *words, f"Database: {db}"]:
        progress.plain(line)
    if as_json:
        say_json({"sweep": ended.sweep.name, "scan": [one.as_dict() for one in ended.scanned]})


def _company(
    spec: SweepSpec, db: Path, progress: Progress, out: Path, stopping: Stopping, session: Session
) -> list[Listener]:
    """Who listens beside the terminal: the log's keeper, interim pictures, what each model came to."""
    from ollama_sweep.plan import opening
    from ollama_sweep.run import detached
    from ollama_sweep.run.interim import InterimPictures
    from ollama_sweep.run.words.summaries import ModelSummaries

    words = [*detached.program_words(), "heatmap", spec.name, "--db", str(db), "--out", str(out)]
    when = opening.interim_of(spec)
    return [
        detached.log_keeper(db),
        InterimPictures(when, words, progress.line, stopping=stopping, emit=session.emit, clock=session.clock),
        *(_of_arm(arm, ModelSummaries(db, arm.name, progress.plain)) for arm in spec.arms or (spec,)),
    ]


def _page(db: Path, control: bool, progress: Progress) -> LivePage:
    """`serve`, as a child that ends with this run."""
    from ollama_sweep.run import detached
    from ollama_sweep.run.serving import LivePage

    words = [*detached.program_words(), "serve", "--db", str(db), "--with-parent", *(["--control"] if control else [])]
    return LivePage(words, progress.plain)


def _of_arm(spec: SweepSpec, listener: Listener) -> Listener:
    """A listener that hears of the cells of one sweep of a pair only."""
    letter = spec.arm.letter if spec.arm is not None else ""

    def listen(event: Event) -> None:
        if getattr(event, "arm", letter) == letter:
            listener(event)

    return listen


def _again(spec: SweepSpec, db: Path, given: dict[str, Any]) -> str:
    arm = spec.arms[0].arm if spec.arms else None
    words = ["ollama-sweep run", (arm.again if arm is not None else "") or str(spec.config_path or "")]
    words += [f"--db {db}"] if str(db) != shared.DEFAULT_DB else []
    words += ["--interactive (with the same answers)"] if given["interactive"] else []
    words += ["--scan"] if given["scan"] else []
    words += [f"--cluster {given['cluster']}"] if given["cluster"] else []
    words += [f"--tls {given['tls']}"] if given["tls"] is not None else []
    words += ["--insecure"] if given["insecure"] else []
    words += ["--same-version"] if given["same_version"] else []
    return " ".join(words)


@dataclass
class Finishing:
    """What a session shows at its end: the best cells in words first, then tables and pictures."""

    db: Path
    name: str
    progress: Progress
    given: dict[str, Any]
    emit: Listener
    stopping: Stopping
    names: tuple[str, ...]
    doubtful: int = 0
    is_cut: bool = False

    @property
    def is_pair(self) -> bool:
        """Two sweeps were measured in turns."""
        return len(self.names) > 1

    def finish(self, told: Notifier | None) -> None:
        """Also of a sweep that was stopped. A file that cannot be written is a warning: what was measured is there."""
        with self.stopping.while_drawing() as is_stopped:
            self._finish(told, is_stopped)

    def _finish(self, told: Notifier | None, is_stopped: Callable[[], bool]) -> None:
        from ollama_sweep.core.events import Drawing, Drawn
        from ollama_sweep.run.ending import end_of, files_of

        out: Path = self.given["out"]
        ends = [end_of(self.db, name) for name in self.names]
        self.doubtful = sum(end.doubtful for end in ends)
        for end in ends:
            self._say_best(end)
        compared = self._compared()
        if told is not None:
            told.done("\n".join([end.best for end in ends] + (compared.summary() if compared else [])))
        self.emit(Drawing())
        written = [files_of(end, self.db, out, self.stopping, is_stopped) for end in ends]
        self.emit(Drawn())
        if self.given["as_json"]:
            self._say_json(ends, written, compared)
        for files in written:
            self._say_files(files)
        self.is_cut = any(files.is_cut for files in written)
        if compared:
            for line in compared.lines(self.db):
                self.progress.plain(line)

    def _say_best(self, end: Ending) -> None:
        head = [f"Sweep {end.row.name}:"] if self.is_pair else []
        for line in [*head, *end.summaries, *end.best.splitlines()]:
            self.progress.plain(line)

    def _compared(self) -> Compared | None:
        """What the two sweeps of a pair say of each other."""
        from ollama_sweep.run.pairs.ending import compared

        return compared(self.db, self.names) if self.is_pair else None

    def _say_json(self, ends: Sequence[Ending], written: Sequence[Files], compared: Compared | None) -> None:
        each: list[dict[str, object]] = [
            {"sweep": end.row.name, "best": end.best, "files": [str(file) for file in (*one.pictures, *one.tables)]}
            for end, one in zip(ends, written, strict=True)
        ]
        if not self.is_pair:
            say_json(each[0])
            return
        say_json({"pair": self.name, "sweeps": each, "compare": compared.as_dict() if compared else None})

    def _say_files(self, written: Files) -> None:
        for failure in written.failures:
            self.progress.plain(f"Warning: {failure}")
        if written.is_cut or written.failures:
            what = "the drawing was stopped" if written.is_cut else "not every file was written"
            self.progress.plain(f"Warning: {what}. Again with: ollama-sweep {shlex.join(self._again())}")
        if written.pictures:
            self.progress.plain(f"Picture: {written.pictures[0]}")
        files = [*written.pictures, *written.tables]
        self.progress.plain(f"Database: {self.db}   tables: {files[0].parent if files else self.given['out']}")

    def _again(self) -> list[str]:
        """`heatmap` with what this run was given."""
        out = [] if str(self.given["out"]) == DEFAULT_OUT else ["--out", str(self.given["out"])]
        db = [] if str(self.db) == shared.DEFAULT_DB else ["--db", str(self.db)]
        return ["heatmap", self.name, *db, *out]

    def check(self) -> None:
        """For --strict, once everything is closed. Raises NotBelieved."""
        if self.given["strict"] and self.doubtful:
            raise NotBelieved(f"{self.doubtful} cells failed or carry a flag")


# -- run --detach, in the terminal -----------------------------------------------------------------------------------


def _detach(db: Path, allow_network: bool, as_json: bool) -> None:
    """Start this command again in the background and show what it says until it measures.

    Ends with the run's own exit code where it ends before its first cell.
    """
    from ollama_sweep.run import detached

    detached.check(db, allow_network=allow_network)
    start = detached.Start(db, os.environ)

    def pass_on(line: str) -> None:
        say(line, err=as_json or line.startswith("error: "))

    try:
        left = start.wait(pass_on)
    except KeyboardInterrupt:
        start.stop()
        start.ended(pass_on)
        raise
    if not left:
        raise click.exceptions.Exit(start.ended(pass_on))
    _say_how(start, db, as_json)


def _say_how(start: Start, db: Path, as_json: bool) -> None:

    from ollama_sweep.store.beside import db_words

    if as_json:
        say_json({"pid": start.child.pid, "log": str(start.log), "database": str(db.resolve())})
        return
    end = db_words(db)
    say(f"Running in the background: pid {start.child.pid}. It goes on when this terminal is closed.")
    say(f"  look:   ollama-sweep status{end}, ollama-sweep watch{end}, ollama-sweep logs -f{end}")
    say(f"  pause:  ollama-sweep pause{end}, then ollama-sweep continue{end}")
    say(f"  stop:   ollama-sweep stop{end}")
    say(f"Log: {start.log}")
