"""Who listens: one stream for each page that is seen, and one look at the database for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ollama_sweep.store.log import Following
from ollama_sweep.web.pulses import STALE

if TYPE_CHECKING:
    from ollama_sweep.web.asked import Asked
    from ollama_sweep.web.library import Library
    from ollama_sweep.web.pulses import Message, Pulses, Rest

POLL_S = 0.5
MOST_STREAMS = 4
"""Of one browser, which itself opens no more than six connections to one server."""
BEAT_S = 20.0
AHEAD_S = 60.0
"""So far what was told may be ahead of what it may cost: a commit that comes after a rest is told at once."""


@dataclass(eq=False)
class Stream:
    """A page that listens. `asked` None: one without parts that change by themselves, such as the list of sweeps."""

    asked: Asked | None
    waiting: list[Message] = field(default_factory=list)
    ring: asyncio.Event = field(default_factory=asyncio.Event)
    is_ended: bool = False

    def put(self, messages: Sequence[Message]) -> None:
        """What it has not taken yet goes where there is something newer of its kind; of cells each one counts."""
        if not messages:
            return
        kinds = {name for name, _ in messages} - {"cells"}
        self.waiting = [one for one in self.waiting if one[0] not in kinds][-20:] + list(messages)
        self.ring.set()

    def end(self) -> None:
        """Its page is told, and the stream is over."""
        self.is_ended = True
        self.put([("ended", "")])


class Streams:
    """All pages that listen."""

    def __init__(self, library: Library, pulses: Pulses) -> None:
        self._library, self._pulses = library, pulses
        self._by_client: dict[str, list[Stream]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._joined: list[Asked] = []
        """What pages ask that listen since the last look: they may have been made before a commit that is over."""
        self._is_closing = False

    async def listen(self, client: str, asked: Asked | None) -> AsyncIterator[bytes]:
        """The stream of one page, as it is sent; the fifth of a client ends its oldest."""
        mine = Stream(asked)
        streams = self._by_client.setdefault(client, [])
        streams.append(mine)
        self._joined += [asked] if asked is not None else []
        for old in streams[:-MOST_STREAMS]:
            old.end()
        try:
            yield b"retry: 2000\nevent: hello\ndata:\n\n"
            while not (self._is_closing or mine.is_ended):
                if self._watch is None or self._watch.done():
                    self._watch = asyncio.create_task(self._look())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await mine.ring.wait()
                mine.ring.clear()
                messages, mine.waiting = mine.waiting, []
                yield b"".join(map(_written, messages)) or b": still here\n\n"
        finally:
            streams.remove(mine)
            if not streams and self._by_client.get(client) is streams:
                del self._by_client[client]

    def close(self) -> None:
        """The server ends: every stream ends with it."""
        self._is_closing = True
        for stream in self._all():
            stream.ring.set()

    @property
    def count(self) -> int:
        """How many pages listen now."""
        return len(self._all())

    def _all(self) -> list[Stream]:
        return [one for streams in self._by_client.values() for one in streams]

    async def _look(self) -> None:
        """Until nobody listens any more; then nothing of the database is open."""
        following = Following(self._library.db)
        seen, rest_until, paid_until = following.version(), 0.0, 0.0
        try:
            while self._by_client and not self._is_closing:
                await asyncio.sleep(POLL_S)
                if time.monotonic() < rest_until:
                    continue
                asked = list(dict.fromkeys(one.asked for one in self._all() if one.asked is not None))
                version = following.version()
                is_new, seen = version != seen or await self._is_behind(following), version
                if is_new or self._pulses.is_due(asked):
                    rest = await self._tell(asked, following, is_new=is_new)
                    now = time.monotonic()
                    paid_until = max(now, paid_until) + rest.owed_s
                    rest_until = max(now + rest.silent_s, paid_until - AHEAD_S)
        finally:
            following.close()

    async def _is_behind(self, following: Following) -> bool:
        """A page that has begun to listen does not know of the last commit."""
        joined, self._joined = self._joined, []
        return bool(joined) and await self._library.aside(lambda: self._pulses.is_behind(joined, following))

    async def _tell(self, asked: Sequence[Asked], following: Following, *, is_new: bool) -> Rest:
        """Every page hears what is new; how long that is to be paid for."""
        found, rest = await self._library.aside(lambda: self._pulses.made(asked, following, is_new=is_new))
        for stream in self._all():
            if stream.asked is not None:
                stream.put(found.get(stream.asked, []))
            elif is_new:
                stream.put([STALE])
                rest = replace(rest, silent_s=max(rest.silent_s, 1.0))
        return rest


def _written(message: Message) -> bytes:
    name, text = message
    data = "\n".join(f"data: {line}" for line in text.splitlines() or [""])
    return f"event: {name}\n{data}\n\n".encode()
