"""What an attempt process is told once, when it starts: its lane, its engine, what is asked, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.lanes import plain
from ollama_sweep.core.lanes.lane import Lane
from ollama_sweep.core.lanes.order import VERSION
from ollama_sweep.core.ledger import Ledger
from ollama_sweep.core.options import Scalar
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.machine.files import write_whole
from ollama_sweep.plan.lengths import SentPrompt
from ollama_sweep.plan.spec import Cooldown, PromptSpec, Repeats, SweepSpec, Warmup
from ollama_sweep.plan.survey import Survey
from ollama_sweep.run.lanes.room import Room
from ollama_sweep.tasks.base import Setup

Say = Callable[[str], None]


@dataclass(frozen=True)
class Told:
    """What of `EngineSettings` is plain data, by the same names."""

    host: str | None
    ollama: str | None
    template: str
    timeout_s: float
    load_timeout_s: float
    allow_remote: bool
    managed: bool
    restart_command: tuple[str, ...]
    extra: Mapping[str, str]

    @classmethod
    def of(cls, settings: EngineSettings, host: str | None) -> Told:
        """Of a lane with this server, or with one of its own, which nothing else starts again."""
        told = cls(**{one.name: getattr(settings, one.name) for one in fields(cls)})
        restart = () if host is None else settings.restart_command
        return replace(told, host=host, managed=host is None, restart_command=restart)

    def settings(self, ledger: Ledger, say: Say, trace: Say) -> EngineSettings:
        """What an engine is told."""
        return EngineSettings(ledger=ledger, say=say, trace=trace, **vars(self))


@dataclass(frozen=True)
class Asked:
    """What a task asks a model, of this length where the prompt's is a dimension."""

    task: str
    model: str
    length: int | None
    sent: SentPrompt


@dataclass(frozen=True)
class Post:
    """See the module. `models` are those whose digests are wanted; `server` are settings of a managed server."""

    database: str
    sweep: str
    lane: Lane
    engine: str
    told: Told
    warmup: Warmup
    repeats: Repeats
    timeout_s: float
    cooldown: Cooldown = field(default_factory=Cooldown)
    server: Mapping[str, Scalar] = field(default_factory=dict)
    setups: Mapping[str, Setup] = field(default_factory=dict)
    asked: tuple[Asked, ...] = ()
    models: tuple[str, ...] = ()
    wait_engine_s: float = 600.0
    version: int = field(default=VERSION, metadata={plain.ALWAYS: True})

    def spec(self) -> SweepSpec:
        """As much of the sweep as decides how a cell is measured."""
        return SweepSpec(
            model="",
            dimensions={},
            prompt=PromptSpec(None),
            server=self.server,
            setups=self.setups,
            engine=self.engine,
            name=self.sweep,
            warmup=self.warmup,
            repeats=self.repeats,
            timeout_s=self.timeout_s,
            cooldown=self.cooldown,
        )

    def sent(self) -> dict[tuple[str, str, int | None], SentPrompt]:
        """What is sent, by `Cell.asked`."""
        return {(one.task, one.model, one.length): one.sent for one in self.asked}


def post_of(found: Survey, database: str, lane: Lane, settings: EngineSettings, wait_engine_s: float) -> Post:
    """What the process of a lane is told of a surveyed sweep."""
    spec = found.spec
    asked = tuple(Asked(*names, sent) for names, sent in found.prompts.items())
    return Post(
        database=database,
        sweep=spec.name,
        lane=lane,
        engine=found.engine,
        told=Told.of(settings, lane.host or None),
        warmup=spec.warmup,
        repeats=spec.repeats,
        timeout_s=spec.timeout_s,
        cooldown=spec.cooldown,
        server=spec.server,
        setups=spec.setups,
        asked=asked,
        models=tuple(found.models),
        wait_engine_s=wait_engine_s,
    )


def write(post: Post, room: Room) -> None:
    """Lay it into the lane's folder. Raises StorageError."""
    write_whole(room.post, plain.as_text(post).encode("ascii"), private=True)


def read(room: Room) -> Post:
    """What lies there. Raises ConfigError, also where a program of another version wrote it."""
    try:
        text = room.post.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", str(room.post)) from None
    found = plain.of_text(dict, text, str(room.post))
    if found.get("version") != VERSION:
        raise ConfigError(f"is of version {found.get('version')!r}, and this program reads {VERSION}", str(room.post))
    return plain.read(Post, found, str(room.post))
