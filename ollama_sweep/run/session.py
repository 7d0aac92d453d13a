"""One measuring of a sweep, from a checked spec to its last cell. It prints nothing.

`measure` is that for a program in Python; the command `run` makes a `Session` of its own and shows what it says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ollama_sweep import engines, tasks
from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import ConfigError, Stopped, nearest
from ollama_sweep.core.events import Notice
from ollama_sweep.core.ledger import Ledger
from ollama_sweep.core.outcome import FAILURES, CellResult, Status
from ollama_sweep.core.summary import PROMPT_RATE
from ollama_sweep.core.surface.goal import Goal
from ollama_sweep.core.units import utc_text
from ollama_sweep.engines.base import Engine, EngineInfo, EngineSettings
from ollama_sweep.engines.shared import leftovers
from ollama_sweep.machine import computer, crew, keep_awake
from ollama_sweep.machine.clocks import Clock
from ollama_sweep.machine.computer import Machine, OtherMachine
from ollama_sweep.machine.telemetry import Telemetry
from ollama_sweep.plan import opening
from ollama_sweep.plan.changes import changes
from ollama_sweep.plan.grid import AUTO, nesting
from ollama_sweep.plan.memory import limits
from ollama_sweep.plan.opening import engine_name, engine_settings, open_engine, silent
from ollama_sweep.plan.setups import with_tasks
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.plan.survey import Survey, survey
from ollama_sweep.run import claims, cooling
from ollama_sweep.run.attempt import UNSEEN, Measuring
from ollama_sweep.run.drift import DriftWatch
from ollama_sweep.run.further import Following
from ollama_sweep.run.hold import Hold
from ollama_sweep.run.listeners import Listener, Listeners, WaitingNote, guarded
from ollama_sweep.run.loop import Execution, ShieldedLedger
from ollama_sweep.run.memory.scan import Scan, Scanned, refuse_to_scan
from ollama_sweep.run.memory.watch import MemoryWatch
from ollama_sweep.run.planners.aiming import Aim, aim_of
from ollama_sweep.run.planners.steering import Steering
from ollama_sweep.run.stopping import Stopping
from ollama_sweep.run.waiting import wait_for
from ollama_sweep.run.words.beginning import Others, first_lines
from ollama_sweep.store.beside import DEFAULT_DB, lanes_path
from ollama_sweep.store.memory.failures import FreeMemory, Surroundings
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import SCOUT_OF, SweepHeader, SweepRow
from ollama_sweep.store.writer import Store

Say = Callable[[str], None]
T = TypeVar("T")
SECOND_LOOK = 0.10
"""The share of a second look that is asked for where the sweep has none."""
MOST_REMARKABLE = 200


@dataclass(frozen=True)
class SessionOptions:
    """What a person may want of one session, beside the sweep itself.

    `retry`: failures that are run again, by their names. `scan`: no cell is measured; the model is only loaded, to find
    how far memory reaches (`run.scan`). `scout`: the grid is scouted by context swap first (`run.scout`), or it is not
    any more; None: as before. `remote`: a host may be another machine. `setup`: an engine may download a
    model. `no_pause`: a machine that has become slower or faster is no reason to wait. `second_look`: cells that nobody
    should believe are measured again, also where everything is done. `within_s`: so long may cells be begun, which
    makes the sweep's goal `map` where it has none. `trace` gets a line for each command and request.
    `cluster`: where a scheduler is, or what is started for this session (`local:2`); it is reached with the
    certificates of the folder `tls`, or without where `insecure` says so.
    `same_version`: another version of the engine than the sweep was measured with is refused.
    Raises ConfigError for a name that is no failure.
    """

    retry: Collection[str] = ()
    scan: bool = False
    scout: bool | None = None
    wait_engine_s: float = 600.0
    remote: bool = False
    setup: bool = False
    share_server: bool = False
    keep_awake: bool = False
    no_pause: bool = False
    second_look: bool = False
    within_s: float | None = None
    allow_network_db: bool = False
    cluster: str = ""
    tls: Path | None = None
    insecure: bool = False
    same_version: bool = False
    trace: Say = silent

    def __post_init__(self) -> None:
        failures(self.retry, "retry")


def failures(names: Collection[str], where: str) -> frozenset[Status]:
    """The failures of these names. Raises ConfigError."""
    known = {str(status): status for status in FAILURES}
    for name in names:
        if name not in known:
            text = f"{name} is not a failure. Allowed: {', '.join(sorted(known))}.{nearest(name, known)}"
            raise ConfigError(text, where)
    return frozenset(known[name] for name in names)


@dataclass(frozen=True)
class Ended:
    """How a session ended. `sweep` is None where it was stopped before its sweep was registered; `scanned` is what a
    scan has found. Of a pair `arms` are its two sweeps, the counts those of both, and `sweep` the first."""

    sweep: SweepRow | None
    counts: Mapping[Status, int]
    stopped: Stopped | None = None
    scanned: tuple[Scanned, ...] = ()
    arms: tuple[Ended, ...] = ()


def measure(
    spec: SweepSpec,
    db: str | Path = DEFAULT_DB,
    *,
    listeners: Iterable[Listener] = (),
    stopping: Stopping | None = None,
    options: SessionOptions | None = None,
) -> Ended:
    """Start a sweep or go on where it was; returns once no cell is pending. Only the database is written, no picture.

    `listeners` are called with each event of `core.events`. `stopping.stop()` ends the sweep after its cell, from any
    thread, and so do Ctrl-C and SIGTERM where this is called in the main thread. Raises Stopped then; ConfigError,
    DatabaseInUse, StorageError, EngineUnavailable, and SweepError for a bug or a listener that failed. What was
    measured until then is saved.
    """
    heard = Listeners(guarded(listener) for listener in listeners)

    def say(line: str) -> None:
        heard(Notice(line))

    ready = spec if set(spec.task_names) <= set(spec.setups) else with_tasks(spec)
    wanted = options or SessionOptions()
    make = session_of(ready, Path(db), wanted)
    ended = make(ready, Path(db), wanted, (heard,), say=say, tell=say, stopping=stopping).run()
    if ended.stopped is not None:
        raise ended.stopped
    return ended


def session_of(spec: SweepSpec, db: Path, options: SessionOptions) -> type[Session]:
    """The kind of session that measures a sweep, a pair, or a sweep that is scouted. Raises ConfigError."""
    if options.cluster:
        from ollama_sweep.run.cluster.session import ClusterSession  # a process for each lane, on other hosts

        return ClusterSession
    if spec.has_lanes:
        from ollama_sweep.run.lanes.session import LanesSession  # a process for each lane

        return LanesSession
    if spec.arms:
        from ollama_sweep.run.pairs.session import PairSession  # it is made of two of these

        return PairSession
    from ollama_sweep.run.scout import wanting  # and so is the one that scouts

    return wanting.session_of(spec, db, options)


class Session:
    """One call of `run`. `say` takes a line at any time, `tell` one of those at the beginning.

    `ending` is called when nothing is measured any more: the database is still this session's, signals are still heard.
    """

    def __init__(
        self,
        spec: SweepSpec,
        db: Path,
        options: SessionOptions,
        listeners: Iterable[Listener] = (),
        *,
        say: Say = silent,
        tell: Say = silent,
        stopping: Stopping | None = None,
        ending: Callable[[Ended], None] = lambda ended: None,
    ) -> None:
        self.spec, self.db, self.options = spec, db, options
        self.clock: Clock = opening.clock_of(spec)
        self.emit = self._emit = Listeners(listeners)
        self._ending = ending
        self._say, self._tell = say, tell
        self._stopping = stopping or Stopping()
        self._stopping.is_urgent |= options.scan
        self._is_scan = options.scan
        self._scanned: tuple[Scanned, ...] = ()

    def stop(self, *, now: bool = False) -> None:
        """End after the cell at hand, or now; from any thread."""
        self._stopping.stop(now=now)

    def run(self) -> Ended:
        """Measure to the end, or until somebody stops it. Raises whatever else ends a sweep before its time."""
        self.check()
        is_new = not self.db.exists()
        store = Store.open(self.db, allow_network=self.options.allow_network_db, say=self._say)
        store.hurry_when(lambda: self._stopping.now)
        try:
            with self._stopping.installed():
                ended = self._ended(self._stopped(store))
                self._ending(ended)
        finally:
            if is_new:
                store.discard()
            else:
                store.close()
        return ended

    def _stopped(self, store: Store) -> Stopped | None:
        """Measure; how the person has stopped it."""
        try:
            if lanes_path(self.db).exists():
                self._take_handed(store)
            self._measure(store)
        except Stopped as stop:
            return stop
        return None

    def _take_handed(self, store: Store) -> None:
        """What lanes of an earlier run have finished; who still measures is waited for. Raises Stopped."""
        from ollama_sweep.run.lanes import clearing, taking

        emit, retries = self._emit, self.spec.retries
        living = taking.before_a_session(store, self.db, retries, self._say)
        taking.wait_for_the_living(store, self.db, retries, living, self._stopping, emit, self._say)
        with self._stopping.shielded():
            clearing.clear_gone(self.db, (), self._say)

    def _ended(self, stopped: Stopped | None) -> Ended:
        if not self.db.exists() or not self.db.stat().st_size:
            return Ended(None, {}, stopped)
        with Reader.open(self.db) as reader:
            row = reader.sweep_if_there(self.spec.name)
            return Ended(row, reader.counts(row.sweep_id) if row else {}, stopped, self._scanned)

    def check(self) -> None:
        """An unknown engine, no program or a wrong host are found before the database is made. Raises ConfigError."""
        if self.spec.engine != engines.AUTO and self.spec.engine not in engines.known():
            engines.load(self.spec.engine, self.settings())
        if self.options.scan and self.spec.engine != engines.AUTO:
            refuse_to_scan(self.spec.engine)
        cooling.check(self.spec)

    def settings(self, ledger: Ledger | None = None) -> EngineSettings:
        """What its engine is told."""
        options = self.options
        return engine_settings(
            self.spec,
            ledger=ledger,
            say=self._say,
            trace=options.trace,
            remote=options.remote,
            setup=options.setup,
            clock=self.clock,
        )

    def _measure(self, store: Store) -> None:
        self._emit.add(WaitingNote(store.note))
        settings = self.settings(ShieldedLedger(store, self._stopping))
        before = self.before()
        name = engine_name(self.spec, settings, before.engine if before else None)
        if self.options.scan:
            refuse_to_scan(name)
        self.tell_choice(name)
        engine = open_engine(name, settings)
        self._set_clock(store, name)
        try:
            self.clear_leftovers(store, engine)
            info = self.wait_for(engine.describe)
            celsius = cooling.celsius_of(self.spec, info)
            with self.alone([(self.spec, info)]):
                self._run(store, engine, celsius, self.survey(store, name, engine))
        finally:
            reached("before_close")
            engine.close()

    def _run(self, store: Store, engine: Engine, celsius: cooling.Celsius, found: Survey) -> None:
        """Everything that is measured of the sweep. Raises as `Execution.run`."""
        self.execution(store, engine, celsius, found).run()

    def _set_clock(self, store: Store, name: str) -> None:
        """What is stored has the times of the run's clock; one of its own goes on where it was before."""
        if self.clock.is_real:
            return
        if last := store.last_moment(name):
            self.clock.at_least(datetime.fromisoformat(last).timestamp())
        store.tell_time_by(lambda: utc_text(self.clock.now_s()))

    @property
    def ties(self) -> Mapping[str, str]:
        """What the settings of its sweep say of another one: which one it scouts, or by which one it is scouted."""
        return {}

    def before(self) -> SweepRow | None:
        """The sweep as an earlier session left it. Raises ConfigError where that one was measured in another way."""
        with Reader.open(self.db) as reader:
            row = reader.sweep_if_there(self.spec.name)
        if row is not None:
            _refuse_strange_arm(self.spec, row)
            _refuse_strange_scout(self.spec, row, str(self.ties.get(SCOUT_OF, "")))
        return row

    def tell_choice(self, name: str) -> None:
        """Say which engine `auto` has chosen, where that is a surprise."""
        if self.spec.engine == engines.AUTO and name == engines.FALLBACK:
            self._tell(
                "No Ollama was found, so the embedded llama.cpp measures. For Ollama install it from ollama.com "
                "(or: make ollama), then run again with --engine ollama."
            )
        elif self.spec.engine == engines.AUTO and name == engines.BY_HOST:
            self._tell("No ollama program is here, so the server is asked directly (engine ollama_http).")

    def clear_leftovers(self, store: Store, engine: Engine, *, at: str | None = None) -> None:
        """Remove what a killed session left, before anything new is made; `at`: only what is on that server."""
        found = [one for one in store.leftovers() if at is None or one.details.get("host") == at]
        for line in leftovers.cleared(engine, found, store.settle, "the previous session"):
            self._say(line)

    def wait_for(self, ask: Callable[[], T]) -> T:
        """The answer of an engine that may be away for a while. Raises EngineUnavailable, Stopped."""
        return wait_for(ask, self._stopping, self._emit, self.options.wait_engine_s, clock=self.clock)

    @contextlib.contextmanager
    def alone(self, whose: Sequence[tuple[SweepSpec, EngineInfo]]) -> Iterator[None]:
        """Servers and hardware are this session's alone, and the computer stays awake. Raises DatabaseInUse."""
        needs: dict[str, str] = {}
        for spec, info in whose:
            for line in claims.other_host(spec, info):
                self._tell(line)
            needs |= claims.needs(spec, info, computer.gpus)
        with contextlib.ExitStack() as stack:
            stack.enter_context(claims.claimed(needs, self.db, self._say, share=self.options.share_server))
            if self.options.keep_awake:
                stack.enter_context(keep_awake.kept_awake(self._say))
            yield

    def survey(self, store: Store, name: str, engine: Engine) -> Survey:
        """What must be known of the sweep. Raises ConfigError, EngineUnavailable."""
        return self.wait_for(lambda: survey(self.spec, name, engine, store, self._say))

    def execution(
        self,
        store: Store,
        engine: Engine,
        celsius: cooling.Celsius,
        found: Survey,
        order: Sequence[int] | None = None,
    ) -> Execution:
        """The sweep registered, with everything that measures it. `order` are the positions that a pass shuffles."""
        info = found.info
        is_elsewhere, here = opening.is_elsewhere(info), opening.machine_of(info)
        self.spec = found.spec
        where = limits.surroundings(found.engine, info, here, found.modelfile)
        aim = self._aim(self.before())
        sweep_id = self._register(store, found, here, where, aim.chosen)
        self._tell_first(store, sweep_id, found, here)
        engine.go_on(lambda cell: store.loads_ended(sweep_id, cell.coordinates))
        measuring = self._measuring(
            found,
            engine,
            has_gpu=bool(here.gpus),
            runs_spread=lambda: _runs_spread(store, sweep_id),
            **(UNSEEN if is_elsewhere else {"watch": _watch(found.engine)}),
        )
        steering = self._steering(store, sweep_id, aim)
        pauses, passes = not self.options.no_pause, self.spec.passes
        free = FreeMemory if is_elsewhere else lambda: FreeMemory(*computer.free_memory())
        cooler = cooling.CoolDown(self.spec.cooldown, celsius, self._stopping, self._emit, clock=self.clock)
        drift = DriftWatch(store, sweep_id, measuring, self._stopping, self._emit, self.spec.control, pauses, passes,
                           cooler.before_control, clock=self.clock)  # fmt: skip
        if not self._is_scan:
            self._look_again(store, sweep_id, steering)
        return self._kind(store, found)(
            store=store,
            sweep_id=sweep_id,
            spec=self.spec,
            cell_at=lambda position: store.planned(sweep_id, position).cell,
            measuring=measuring,
            drift=drift,
            following=self._following(store, sweep_id, order),
            cooling=cooler,
            steering=steering,
            same_version=self.options.same_version,
            memory=MemoryWatch(store, sweep_id, self._emit, where, free, bool(self.spec.settings.get("prune"))),
            engine=engine,
            stopping=self._stopping,
            emit=self._emit,
            machine=here.fingerprint(),
            wait_engine_s=self.options.wait_engine_s,
            may_start=Hold(self.db, self.spec.conditions, self._say, sees_gpu=not is_elsewhere, clock=self.clock),
            clock=self.clock,
        )

    def _kind(self, store: Store, found: Survey) -> Callable[..., Execution]:
        """What goes through the cells."""
        return partial(Scan, found=found, is_done=self._take_scanned) if self._is_scan else Execution

    def _measuring(self, found: Survey, engine: Engine, **more: Any) -> Measuring:
        return Measuring(
            spec=self.spec,
            sent=found.prompts,
            tasks={task: tasks.load(task) for task in found.task_versions},
            engine=engine,
            emit=self._emit,
            clock=self.clock,
            **more,
        )

    def _tell_first(self, store: Store, sweep_id: int, found: Survey, here: Machine | OtherMachine) -> None:
        others = Others(sum(store.waiting_loads(sweep_id).values()), store.waiting_copies(sweep_id),
                        store.left_out(sweep_id), store.late(sweep_id))  # fmt: skip
        for line in first_lines(found, store.counts(sweep_id), here, others, scan=self._is_scan):
            self._tell(line)

    def _following(self, store: Store, sweep_id: int, order: Sequence[int] | None) -> Following:
        passes = self.spec.passes
        shuffled = range(self._cells(store, sweep_id)) if order is None else order
        results, doubtful = (lambda: self._results(store, sweep_id)), (lambda: self._doubtful(store, sweep_id))
        is_by_weights = order is None and self.spec.order == AUTO
        weights = partial(store.weights, sweep_id) if is_by_weights else dict
        return Following(store, sweep_id, passes, self._emit, results, shuffled, doubtful, weights)

    def _aim(self, before: SweepRow | None) -> Aim:
        with Reader.open(self.db) as reader:
            return aim_of(self.spec, reader.goal(before.sweep_id) if before else None, self.options.within_s)

    def _steering(self, store: Store, sweep_id: int, aim: Aim) -> Steering | None:
        """Who chooses the cells; None for the order of the plan."""
        if self._is_scan:
            return None
        aim.keep(store, sweep_id)
        if aim.chosen is None:
            return None
        self._tell(aim.words)
        crew.import_numpy_with_one_thread()
        return Steering(store, sweep_id, aim.chosen, self._emit, aim.within_s, self.clock)

    def _look_again(self, store: Store, sweep_id: int, steering: Steering | None) -> None:
        """A second look belongs to the run that gives the last cell its first final state, or that is asked for it.

        For a goal, to the run that reaches it: of the cells that were measured.
        """
        has_more = store.wants_first_state(sweep_id) and (steering is None or not steering.is_reached())
        share = float(self.spec.settings.get("second_look") or 0.0)
        look = store.second_look(sweep_id)
        is_open = look is not None and not look.is_over
        if is_open and not share and not self.options.second_look:
            store.end_look(sweep_id)
        elif not is_open and (self.options.second_look or (share and has_more)):
            store.begin_look(sweep_id, share or SECOND_LOOK)

    def _results(self, store: Store, sweep_id: int) -> Sequence[CellResult]:
        """The cells that a second look chooses from: all, or of very many those that lead or are disturbed."""
        from ollama_sweep.results.pictures import is_many

        with Reader.open(self.db) as reader:
            if is_many(store.counts(sweep_id)):
                found: Iterable[CellResult] = reader.remarkable(sweep_id, MOST_REMARKABLE)
            else:
                found = reader.results(sweep_id)
            return [result for result in found if not result.reused_from]  # the cell that was measured stands for it

    def _doubtful(self, store: Store, sweep_id: int) -> tuple[Sequence[CellResult], Mapping[int, float] | None]:
        """The same, and of very many those that are off their neighbours, by position and share."""
        from ollama_sweep.results.pictures import is_many

        results = self._results(store, sweep_id)
        if not is_many(store.counts(sweep_id)):
            return results, None
        from ollama_sweep.results.large import columns
        from ollama_sweep.results.second_look import position_of

        with Reader.open(self.db) as reader:
            found = columns.off_neighbours(columns.read(reader, reader.sweep(self.spec.name)))
            worst = sorted(found, key=lambda position: -abs(found[position]))[:MOST_REMARKABLE]
            known = {position_of(result) for result in results}
            more = [reader.result(sweep_id, position) for position in worst if position not in known]
        return [*results, *(result for result in more if not result.reused_from)], found

    @staticmethod
    def _cells(store: Store, sweep_id: int) -> int:
        return sum(store.counts(sweep_id).values())

    def _take_scanned(self, found: tuple[Scanned, ...]) -> None:
        self._scanned = found

    def _register(
        self, store: Store, found: Survey, here: Machine | OtherMachine, where: Surroundings, goal: Goal | None
    ) -> int:
        """For a goal one run of a cell may be enough."""
        before = self.before()
        for line in changes(before.spec, found) if before else []:
            self._tell(f"Changed since the last run: {line}")
        _keep_prompts(store, found)
        header = SweepHeader(
            name=self.spec.name,
            engine=found.engine,
            config_path=str(self.spec.config_path or ""),
            spec={**found.picture(), **({"goal": goal.words} if goal is not None else {}), **self.ties},
            plan_fingerprint=found.fingerprint,
            machine=here.line(),
            dimensions=nesting(self.spec),
        )
        wanted: Mapping[str, Any] = {
            "timeout_s": self.spec.timeout_s,
            "repeats_minimum": 1 if goal is not None else self.spec.repeats.minimum,
            "retry": failures(self.options.retry, "retry"),
            "prune": bool(self.spec.settings.get("prune")),
            "keeps_statuses": self._is_scan,
        }
        sweep_id = store.refresh_sweep(header, **wanted)
        if sweep_id is None:
            record = limits.Record(store.known_failures(where))
            sweep_id = store.register_sweep(header, record.behind(found.planned()), **wanted)
        if self.spec.arm is not None:
            store.want_in_turn(sweep_id)
        reached("plan_registered")
        return sweep_id


def _refuse_strange_arm(spec: SweepSpec, row: SweepRow) -> None:
    """No sweep takes the place of one that is measured in another way. Raises ConfigError."""
    known, wanted = row.in_pair, spec.arm.pair if spec.arm is not None else ""
    if known is not None and known.pair != wanted:
        text = f"{spec.name} is arm {known.letter} of the pair {known.pair}, which is measured as a whole"
        raise ConfigError(f"{text}; give this sweep another name", "name")
    if known is None and wanted:
        raise ConfigError(f"there is a sweep {spec.name} that is no arm of a pair; give the pair another name", "name")


def _refuse_strange_scout(spec: SweepSpec, row: SweepRow, scouts: str) -> None:
    """The same of a scout, which is measured with the sweep that it scouts for. Raises ConfigError."""
    known = str(row.spec.get(SCOUT_OF) or "")
    if known and not scouts:
        raise ConfigError(f"{spec.name} is the scout of {known}, which is measured with it; use another name", "name")
    if not known and scouts:
        raise ConfigError(f"there is a sweep {spec.name} that is no scout; give {scouts} another name", "name")


def _runs_spread(store: Store, sweep_id: int) -> float:
    """How far runs of a load differ here, as far as it is known."""
    found = store.spreads(sweep_id).get(PROMPT_RATE)
    return found.runs.sigma if found is not None else 0.0


def _watch(engine: str) -> Callable[[Callable[[], tuple[int, ...]]], Telemetry]:
    """What a cell is watched with. A scripted engine uses no processor, so nobody takes any of it away."""
    more: Mapping[str, Any] = {"cores": None} if engines.facts(engine).is_scripted else {}
    return partial(Telemetry, **more)


def _keep_prompts(store: Store, found: Survey) -> None:
    """Lengths that were counted and texts that were made are not made a second time."""
    for digest, identity, tokens in found.lengths():
        store.save_prompt_tokens(found.engine, digest, found.modelfile, identity, tokens)
    for (_, model, _), prompt in found.prompts.items():
        if prompt.is_new and prompt.is_made:
            digest = found.models[model].digest
            store.save_made_prompt(found.engine, digest, found.modelfile, prompt.hash, prompt.text)
        if prompt.is_own_prompt:
            store.save_prompt(prompt.hash, prompt.text)
