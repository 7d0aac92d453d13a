"""What lanes have left outside whose processes have died, and that are used no more: a server, a scratch model."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection
from pathlib import Path

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.engines.shared import leftovers
from ollama_sweep.plan.opening import open_engine, silent
from ollama_sweep.run import claims
from ollama_sweep.run.lanes import post as posts
from ollama_sweep.run.lanes.room import FileLedger, Room, rooms


def clear_gone(db: Path, but: Collection[Room], say: Callable[[str], None]) -> None:
    """Of every lane of this database but those that begin now, and clear what is theirs by themselves.

    A line for each thing, also for one that has to stay: the next run tries it again. A lane whose process lives has
    left nothing yet.
    """
    for room in rooms(db):
        ledger = room.ledger
        if room in but or room.is_held() or not (found := ledger.leftovers()):
            continue
        name = room.folder.name
        try:
            for line in _cleared(db, room, ledger, found, say):
                say(f"Lane {name}: {line.replace('session', 'process')}")
        except SweepError as error:
            say(f"Lane {name}: what its process has left is not cleared: {error}")


def _cleared(db: Path, room: Room, ledger: FileLedger, found: list[Leftover], say: Callable[[str], None]) -> list[str]:
    """By the engine that the lane had. Raises ConfigError, DatabaseInUse (another sweep uses its server or its GPU)."""
    post = posts.read(room)
    needs = {f"server {post.lane.host}": f"The server at {post.lane.host}"} if post.lane.host else {}
    if post.lane.gpu is not None:
        needs |= {f"{platform.node()} gpu {post.lane.gpu}": f"GPU {post.lane.gpu}"}
    with claims.claimed(needs, db, say):
        engine = open_engine(post.engine, post.told.settings(ledger, say, silent))
        try:
            return list(leftovers.cleared(engine, found, ledger.settle, "its process"))
        finally:
            engine.close()
