"""Shows a running sweep: a live line on a terminal, plain lines with a time stamp elsewhere."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TextIO

from ollama_sweep.cli.terminal import can_draw, console, printable
from ollama_sweep.core import stats
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.events import (
    CellFinished,
    CellStarted,
    Drifted,
    Event,
    FurtherFinished,
    FurtherStarted,
    GoingOn,
    Loaded,
    Notice,
    OnHold,
    RunFinished,
    SweepFinished,
    SweepStarted,
    Waiting,
)
from ollama_sweep.core.metrics import metric
from ollama_sweep.core.outcome import Outcome, Status, failure_label
from ollama_sweep.core.units import format_bytes, format_duration, format_rate
from ollama_sweep.machine.secrets import masked


class Progress:
    """Takes events; never fails, even when the terminal is gone or its disk is full."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = _LiveLine(self._stream) if can_draw(self._stream) else None
        self._is_alive, self._has_warned = True, False
        self._is_writing = False
        self._unwritten: deque[Callable[[], None]] = deque()
        self._total = self._done = self._failed = 0
        self._seconds_left: float | None = None
        self._at: dict[str, tuple[Cell, str]] = {}
        """What is measured now and how far it is, by arm or lane."""
        self._is_for_a_goal = False

    def __call__(self, event: Event) -> None:
        match event:
            case SweepStarted():
                self._total, self._done = event.total, event.done
                self._seconds_left = event.seconds_left
            case CellStarted() | FurtherStarted():
                self._started(event)
            case RunFinished():
                self._went_on(event)
            case CellFinished():
                self._finished(event)
            case FurtherFinished() | Loaded():
                self._loaded(event) if isinstance(event, Loaded) else self._looked_again(event)
            case Waiting():
                self.line(f"waiting {format_duration(event.seconds)}: {event.reason}")
            case OnHold():
                self.line(f"On hold: {event.reason}")
            case GoingOn():
                self.line("Going on")
            case Drifted():
                beyond = f"beyond {100 * event.limit:.0f} %: cells from now on carry the flag drifted"
                word = beyond if event.has_drifted else f"within {100 * event.limit:.0f} %"
                self.line(f"control cell {_label(event)}: {event.drift:+.1%} since the first time, {word}")
            case Notice():
                self.line(event.text)
            case SweepFinished():
                self._at.clear()
                self.close()
        self._picture()

    def _finished(self, event: CellFinished) -> None:
        if not event.will_retry:
            self._done += 1 + event.reused
            self._failed += (1 + event.reused) * event.outcome.status.is_failure
        self._seconds_left = event.seconds_left
        self._at.pop(event.arm, None)
        head = f"{self._done:>{len(str(self._total))}}/{self._total}"
        again = " (tried again)" if event.will_retry else ""
        again += f" (and {event.reused} more of the same configuration)" if event.reused else ""
        left = f", {self._left()} left" if self._total > self._done and self._live is None else ""
        left = "" if event.seconds_left is None and self._is_for_a_goal else left
        self.line(f"{head}  {_label(event)}: {said(event.outcome)}{again}{left}")

    def _started(self, event: CellStarted | FurtherStarted) -> None:
        why = f"{event.reason}, " if isinstance(event, FurtherStarted) else ""
        again = f", attempt {event.attempt}" if event.attempt > 1 else ""
        if isinstance(event, CellStarted) and event.reason:
            self._is_for_a_goal = True
            self.line(f"next  {event.cell.label()}: {event.reason}")
        self._at[event.arm] = event.cell, f"{why}loading{again}"

    def _went_on(self, event: RunFinished) -> None:
        """A control load was not announced, and is not shown."""
        rate = f", {format_rate(event.rate)} tokens/s" if event.rate else ""
        if event.arm in self._at:
            self._at[event.arm] = event.cell, f"{'warm-up' if event.warmup else 'run'} {event.number}{rate}"

    def _looked_again(self, event: FurtherFinished) -> None:
        """A cell that is done and counted."""
        self._seconds_left = event.seconds_left
        self._at.pop(event.arm, None)
        again = " (tried again)" if event.will_retry else ""
        self.line(f"again  {_label(event)}: {said(event.outcome)}{again}  ({event.reason})")

    def _loaded(self, event: Loaded) -> None:
        self._done += not event.will_retry
        self._at.clear()
        again = " (loaded again: it is believed when it happens twice)" if event.will_retry else ""
        self.line(f"load {event.number} of at most {event.most}  {event.cell.label()}: {loaded(event)}{again}")

    def _left(self) -> str:
        return "?" if self._seconds_left is None else format_duration(self._seconds_left)

    def line(self, text: str) -> None:
        """One lasting line."""
        self.plain(text if self._live else f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  {text}")

    def plain(self, text: str) -> None:
        """Text without a time stamp: what is said at the start and the end."""
        if self._live:
            self._do(partial(self._live.say, text))
        else:
            self._do(partial(self._write, text))

    def _write(self, text: str) -> None:
        self._stream.write(f"{printable(text, self._stream)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing is measured any more: what comes next stands where the live line was."""
        if self._live:
            self._do(self._live.end)

    def _picture(self) -> None:
        if self._live is None or not (self._at or self._live.is_shown):
            return
        parts = [f"{self._left()} left"] if self._seconds_left is not None else []
        parts += [f"{self._failed} failed"] if self._failed else []
        for arm, (cell, doing) in self._at.items():
            parts += [f"{arm}  {cell.label()}" if arm else cell.label(), doing]
        self._do(partial(self._live.show, self._done, self._total, "  ".join(parts)))

    def _do(self, writing: Callable[[], None]) -> None:
        """Write now; what a signal says in the middle of another line comes right after it."""
        if self._is_alive:
            self._unwritten.append(writing)
        if self._is_writing:
            return
        self._is_writing = True
        try:
            while self._unwritten:
                self._unwritten.popleft()()
        except OSError as error:
            self._refused(error)
        except ValueError:
            self._is_alive = False
        finally:
            self._is_writing = False

    def _refused(self, error: OSError) -> None:
        """A full disk under a log may become free again, so that is said once on stderr; all else is for good."""
        self._is_alive = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if self._is_alive and not self._has_warned and self._stream is not sys.stderr:
            self._has_warned = True
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write("warning: no space left where the output goes; the sweep goes on\n")
                sys.stderr.flush()


def _label(event: CellFinished | FurtherFinished | Drifted) -> str:
    """The cell, of a pair with the letter of its arm in front."""
    return f"{event.arm}  {event.cell.label()}" if event.arm else event.cell.label()


class _LiveLine:
    """The last line of a terminal, drawn anew at every event; lasting lines go above it.

    Nothing draws by itself: no thread may disturb what is measured, or write in the middle of a signal's words.
    """

    BAR, ROOM_FOR_A_BAR = 10, 60
    BESIDE = 3
    """Columns left free, so that the `^C` of a terminal does not begin a new line."""

    def __init__(self, stream: TextIO) -> None:
        from rich.live import Live

        self._stream, self._console = stream, console(stream)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @property
    def is_shown(self) -> bool:
        return self._live.is_started

    def say(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(printable(text, self._stream)), soft_wrap=True)

    def show(self, done: int, total: int, text: str) -> None:
        """`3/9`, a bar where there is room, and the text, cut where the line ends."""
        from rich.constrain import Constrain
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        parts: list[Text | ProgressBar] = [Text(f"{done}/{total}", no_wrap=True)]
        if self._console.width >= self.ROOM_FOR_A_BAR:
            parts.append(ProgressBar(total, done, self.BAR, complete_style="green", finished_style="green"))
        parts.append(Text(printable(text, self._stream), no_wrap=True, overflow="crop"))
        line = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        line.add_row(*parts)
        if not self._live.is_started:
            self._live.start()
            self._console.show_cursor()  # a killed program could not bring it back
        self._live.update(Constrain(line, max(1, self._console.width - self.BESIDE)), refresh=True)

    def end(self) -> None:
        self._live.stop()


def loaded(event: Loaded) -> str:
    """`fits, 98 MB, 98 MB of it on the GPU`, or the label of the failure."""
    if event.outcome.status is not Status.OK:
        return said(event.outcome)
    used = event.outcome.effective
    sizes = [format_bytes(used.size_bytes)] if used.size_bytes else []
    sizes += [f"{format_bytes(used.size_vram_bytes)} of it on the GPU"] if sizes and used.size_vram_bytes else []
    return ", ".join([f"✓ {event.result}", *sizes])


_HEADLINES = {
    "quality": "quality",
    "rows_per_s": "embedded",
    "decode_tps": "decode",
    "ttft_s": "first token after",
}
"""What is said of a cell whose task has questions, the most telling first."""


def said(outcome: Outcome) -> str:
    """`331 tokens/s (322–335, n = 3)`, or the label of the failure with the first line of its text."""
    if outcome.status is not Status.OK:
        first = next(iter(masked(outcome.error).strip().splitlines()), "")
        return f"✗ {failure_label(outcome.status, outcome.reason)}" + (f": {first[:160]}" if first else "")
    rates = [run.prompt_eval_rate for run in outcome.runs if run.believed and not run.warmup and run.prompt_eval_rate]
    flags = f"  [{', '.join(sorted(outcome.flags))}]" if outcome.flags else ""
    if "answers" in outcome.summary.scores:
        return f"✓ {answered(outcome.summary.scores)}{flags}"
    value = outcome.summary.prompt_eval_rate
    if len(rates) == outcome.summary.runs and rates:
        head, _, rest = stats.describe(rates).partition(" ")
        return f"✓ {head} tokens/s {rest}{flags}"
    return f"✓ {format_rate(value or 0)} tokens/s (n = {outcome.summary.runs}){flags}"


def answered(scores: Mapping[str, float]) -> str:
    """`quality 0.750, 3 of 4 answered, decode 31.2 tokens/s, first token after 0.052 s`."""
    total = scores["answers"] + scores.get("failed_answers", 0)
    shown = [f"{word} {metric(name).with_unit(scores[name])}" for name, word in _HEADLINES.items() if name in scores]
    counted = [] if "rows_per_s" in scores else [f"{scores['answers']:.0f} of {total:.0f} answered"]
    served, together = scores.get("served_parallel", 0), scores.get("tokens_per_s_total")
    if served > 1 and together is not None:
        shown.append(f"{metric('tokens_per_s_total').with_unit(together)} together, {served:.0f} at once")
    return ", ".join([*shown[:1], *counted, *shown[1:]])
