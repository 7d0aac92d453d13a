"""One measuring of a sweep over several lanes: what must be known is asked of the first that answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from ollama_sweep import engines
from ollama_sweep.core.errors import ConfigError, EngineMissing, EngineUnavailable
from ollama_sweep.core.lanes.lane import Lane
from ollama_sweep.engines.base import Engine, EngineSettings
from ollama_sweep.machine import keep_awake
from ollama_sweep.plan.opening import engine_name, open_engine
from ollama_sweep.plan.survey import Survey, survey
from ollama_sweep.run import claims, cooling
from ollama_sweep.run.lanes import choosing, clearing, taking
from ollama_sweep.run.lanes.choosing import Chosen
from ollama_sweep.run.lanes.connection import LocalConnection, Outlived
from ollama_sweep.run.lanes.coordinator import Coordinator
from ollama_sweep.run.lanes.post import Post, post_of
from ollama_sweep.run.lanes.room import Room, room_of
from ollama_sweep.run.lanes.side import Side
from ollama_sweep.run.listeners import WaitingNote
from ollama_sweep.run.loop import Execution, ShieldedLedger
from ollama_sweep.run.session import Session
from ollama_sweep.run.words.lanes import of_disturbance
from ollama_sweep.store import beside
from ollama_sweep.store.writer import Store


class LanesSession(Session):
    """See `Session`; what happens on a lane is heard with its name."""

    _chosen: Sequence[Chosen] = ()
    _living: Sequence[Outlived] = ()
    _settings: EngineSettings | None = None

    def check(self) -> None:
        super().check()
        for is_asked, what in ((self.options.scan, "--scan"), (self.options.scout, "--scout")):
            if is_asked:
                raise ConfigError(f"{what} measures on one lane; leave it out, or {self._where}", what)
        choosing.refuse_combinations(self.spec, self._where)
        if self.spec.engine != engines.AUTO:
            choosing.refuse_engine(self.spec.engine, self._where)
        if self.spec.hosts:
            choosing.lanes_of(self.spec, allow_remote=self.options.remote)

    @property
    def _where(self) -> str:
        """What says that there are lanes."""
        return "gpus" if self.spec.gpus is not None else "hosts"

    def _take_handed(self, store: Store) -> None:
        """Who still measures for a dead run is spared: its lane joins when it is done."""
        self._living = taking.before_a_session(store, self.db, self.spec.retries, self._say)

    def _measure(self, store: Store) -> None:
        self._emit.add(WaitingNote(store.note))
        settings = self.settings(ShieldedLedger(store, self._stopping))
        before = self.before()
        name = engine_name(self.spec, settings, before.engine if before else None)
        choosing.refuse_engine(name, self._where)
        self.tell_choice(name)
        with contextlib.ExitStack() as held:
            chosen = held.enter_context(self._lanes(name))
            choosing.refuse_shared(chosen)
            with self._stopping.shielded():
                clearing.clear_gone(self.db, [room_of(self.db, one.lane.name) for one in chosen], self._say)
            needs = {key: words for one in chosen for key, words in one.needs.items()}
            held.enter_context(claims.claimed(needs, self.db, self._say, share=self.options.share_server))
            if self.options.keep_awake:
                held.enter_context(keep_awake.kept_awake(self._say))
            engine, found = self.wait_for(partial(self._surveyed, store, name, settings, chosen))
            celsius = cooling.celsius_of(self.spec, found.info)
            self._chosen, self._settings = chosen, settings
            self._run(store, engine, celsius, found)

    def _tell_disturbance(self, store: Store) -> None:
        """Whether lanes of one computer disturb each other, where that is not known or they do."""
        computers = {one.lane: self._computer_of(one.lane) for one in self._chosen}
        if line := of_disturbance(computers, store.disturbance(self.spec.name), self._doctor()):
            self._tell(line)

    def _computer_of(self, lane: Lane) -> str:
        return choosing.computer_of(lane)

    def _doctor(self) -> str:
        """The command that measures whether the lanes of this session disturb each other."""
        file = f" {self.spec.config_path}" if self.spec.config_path is not None else ""
        remote = " --remote" if self.options.remote else ""
        return f"ollama-sweep doctor{file} --lanes{remote}{beside.db_words(self.db)}"

    @contextlib.contextmanager
    def _lanes(self, name: str) -> Iterator[Sequence[Chosen]]:
        """Those of the sweep file, for an engine of this name; what they hang on is there as long as the block."""
        yield choosing.lanes_of(replace(self.spec, engine=name), allow_remote=self.options.remote)

    def _surveyed(
        self, store: Store, name: str, settings: EngineSettings, chosen: Sequence[Chosen]
    ) -> tuple[Engine, Survey]:
        """What must be known, of the first lane that can say it. Raises ConfigError, EngineUnavailable."""
        refused: list[tuple[Chosen, EngineUnavailable]] = []
        for one in chosen:
            host = one.lane.host or None
            engine = open_engine(name, replace(settings, host=host, managed=host is None))
            try:
                with self._stopping.shielded():
                    self.clear_leftovers(store, engine)
                return engine, survey(self.spec, name, engine, store, self._say)
            except EngineUnavailable as error:
                refused.append((one, error))
            finally:
                engine.close()
        text = "; ".join(f"{one.lane.name}: {error}" for one, error in refused)
        is_final = all(isinstance(error, EngineMissing) for _, error in refused)
        raise EngineMissing(text) if is_final else EngineUnavailable(text)

    def _kind(self, store: Store, found: Survey) -> Callable[..., Execution]:
        sides = [self._side(store, found, one) for one in self._chosen]
        sides += [self._leaving(one.room, sides[0].post) for one in self._living if one.room not in self._rooms()]
        digests = {name: model.digest for name, model in found.models.items()}
        words = ", ".join(one.lane.name for one in self._chosen)
        self._tell(f"{len(self._chosen)} lanes: {words}" if len(self._chosen) > 1 else f"1 lane: {words}")
        self._tell_disturbance(store)
        return partial(Coordinator, sides=sides, digests=digests, database=store.database_id)

    def _side(self, store: Store, found: Survey, one: Chosen) -> Side:
        assert self._settings is not None
        room = room_of(self.db, one.lane.name)
        post = post_of(found, store.database_id, one.lane, self._settings, self.options.wait_engine_s)
        side = Side(one.lane, LocalConnection(room, one.environment), post)
        side.outlived = self._living_in(room)
        return side

    def _rooms(self) -> list[Room]:
        return [room_of(self.db, one.lane.name) for one in self._chosen]

    def _leaving(self, room: Room, post: Post) -> Side:
        """A lane that was taken away while its process measured: what it hands in is taken, and it begins nothing."""
        side = Side(Lane(room.folder.name), LocalConnection(room), post, is_left_out=True)
        side.outlived = self._living_in(room)
        return side

    def _living_in(self, room: Room) -> Outlived | None:
        return next((one for one in self._living if one.room == room), None)
