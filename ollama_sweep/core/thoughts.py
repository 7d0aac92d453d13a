"""What a model thought aloud is no answer: the two are told apart here, for every engine. Pure.

Engines give thoughts in a field of their own, or inside the text between marks, and each family of models has others.
A closing mark alone ends thoughts that the template has begun; an opening one that is never closed begins thoughts
that were cut off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ollama_sweep.core.generation import Generation

_WORDS = r"(?:thinking|think|thoughts?|reasoning)"
_QUOTES = "`'\""
_FAMILIES = (
    (rf"<(?:\w{{1,20}}:)?{_WORDS}(?:\s[^<>\n]{{0,100}})?>", rf"</(?:\w{{1,20}}:)?{_WORDS}\s*>"),  # most; Seed's
    (r"(?-i:\[THINK\])", r"(?-i:\[/THINK\])"),  # Magistral
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    (rf"<\|{_WORDS}\|>", rf"<\|/{_WORDS}\|>"),
    (rf"◁{_WORDS}▷", rf"◁/{_WORDS}▷"),  # Kimi
    (r"<\|channel>(?:thought|analysis)\b", r"<channel\|>"),  # Gemma
)
_MARKS = re.compile(
    "|".join(f"(?P<o{n}>{opens})|(?P<c{n}>{ends})" for n, (opens, ends) in enumerate(_FAMILIES)), re.IGNORECASE
)
_FRAME = re.compile(
    r"\s*(?:<\|(?:START_RESPONSE|START_TEXT|begin_of_solution)\|>|<(answer|response)>)?(?P<inside>.*?)"
    r"(?:<\|(?:END_RESPONSE|END_TEXT|end_of_solution)\|>|</(?:answer|response)>)?\s*",
    re.DOTALL | re.IGNORECASE,
)
"""What some of these models put around their answer."""

_CHANNEL = re.compile(
    r"(?:<\|start\|>\w{0,20})?<\|channel\|>\s*(?P<channel>\w+)[^<]{0,200}(?:<\|constrain\|>[^<]{0,50})?<\|message\|>"
)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call)\|>(?:<\|start\|>\w{0,20})?\s*")
_BARE_CHANNEL = re.compile(r"\s*analysis(?=[A-Z\"'“])")
_BARE_FINAL = re.compile(r"assistant(?:commentary(?:.*?)assistant)?final", re.DOTALL)
"""The same where the server has dropped the marks and kept the words between them."""

CLIENT_OPENS, CLIENT_ENDS = "Thinking...\n", "...done thinking.\n\n"
"""What `ollama run` prints around thoughts (cmd/cmd.go)."""


@dataclass(frozen=True)
class Parted:
    """A text in its two parts. `answer_at` is where in the text the answer goes on after the last thoughts."""

    answer: str
    thoughts: str = ""
    answer_at: int = 0


def part(text: str, *, of_client: bool = False) -> Parted:
    """The answer and the thoughts of a text; one without any thoughts is its own answer, as it is.

    `of_client`: the text is what `ollama run` printed, so that its opening words alone say that only thoughts came.
    """
    found = _of_client(text, of_client) or _of_channels(text)
    if found is None:
        return _by_marks(text)
    inner = _by_marks(found.answer)
    if inner.answer == found.answer:
        return found
    answer_at = min(found.answer_at + inner.answer_at, len(text))
    return Parted(inner.answer, _joined(found.thoughts, inner.thoughts), answer_at)


def apart(generation: Generation) -> Generation:
    """A generation whose text is the answer alone, with the thoughts of its field and of its text beside it."""
    found = part(generation.text)
    if found.answer == generation.text:
        return generation
    return replace(generation, text=found.answer, thoughts=_joined(generation.thoughts, found.thoughts))


def only_thoughts(generation: Generation) -> bool:
    """Something was thought, and nothing answered."""
    has_thought = bool(generation.thoughts.strip() or generation.thinking_count)
    return has_thought and generation.vectors is None and not generation.text.strip()


def _joined(*parts: str) -> str:
    return "\n\n".join(one.strip() for one in parts if one.strip())


def _by_marks(text: str) -> Parted:
    """By the marks that models use. A mark of another kind inside thoughts is part of them."""
    answer: list[str] = []
    thoughts: list[str] = []
    opened: str | None = None
    was_closed, position = False, 0
    for mark in _MARKS.finditer(text):
        kind = mark.lastgroup or ""
        if _is_quoted(mark, _QUOTES if opened is None else "`"):
            continue
        before = text[position : mark.start()]
        if opened is None and kind[0] == "o":
            answer.append(before)
            opened = kind[1:]
        elif opened is None and was_closed and not text[mark.end() :].strip():
            answer.append(before)  # said once too often, at the end
        elif opened is None:
            thoughts.extend([*answer, before])
            answer.clear()
            was_closed = True
        elif opened == kind[1:] and kind[0] == "c":
            thoughts.append(before)
            opened, was_closed = None, True
        else:
            continue
        position = mark.end()
    if not position:
        return Parted(text)
    rest = text[position:]
    (answer if opened is None else thoughts).append(rest)
    start = position + len(rest) - len(rest.lstrip()) if opened is None else len(text)
    return Parted(_framed("".join(answer)), _joined(*thoughts), start)


def _is_quoted(mark: re.Match[str], quotes: str) -> bool:
    """It is only spoken of."""
    before, after = mark.string[mark.start() - 1 : mark.start()], mark.string[mark.end() : mark.end() + 1]
    return before == after and bool(before) and before in quotes


def _framed(answer: str) -> str:
    """An answer without what stands around it."""
    match = _FRAME.fullmatch(answer)
    return (match["inside"] if match else answer).strip()


def _of_channels(text: str) -> Parted | None:
    """The channels of harmony (gpt-oss): only `final` is the answer."""
    marks = list(_CHANNEL.finditer(text))
    if not marks:
        return _of_bare_channels(text)
    answer: list[str] = []
    thoughts = [_CHANNEL_END.sub("", text[: marks[0].start()])]
    start = len(text)
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        said = _CHANNEL_END.sub("", text[mark.end() : following.start() if following else len(text)])
        is_final = mark["channel"].lower() == "final"
        (answer if is_final else thoughts).append(said)
        start = mark.end() if is_final else start
    return Parted("".join(answer).strip(), _joined(*thoughts), start)


def _of_bare_channels(text: str) -> Parted | None:
    begins = _BARE_CHANNEL.match(text)
    if begins is None:
        return None
    final = _BARE_FINAL.search(text, begins.end())
    if final is None:
        return Parted("", text[begins.end() :].strip(), len(text))
    return Parted(text[final.end() :].strip(), text[begins.end() : final.start()].strip(), final.end())


def _of_client(text: str, is_certain: bool) -> Parted | None:
    """What `ollama run` prints: thoughts between two lines of its own, perhaps several times."""
    start = len(text) - len(text.lstrip())
    if not text.startswith(CLIENT_OPENS, start) or not (is_certain or CLIENT_ENDS in text):
        return None
    answer: list[str] = []
    thoughts: list[str] = []
    position = start
    while (begins := text.find(CLIENT_OPENS, position)) >= 0 and (begins == start or CLIENT_ENDS in text[begins:]):
        answer.append(text[position:begins])
        said, ends, _ = text[begins + len(CLIENT_OPENS) :].partition(CLIENT_ENDS)
        thoughts.append(said)
        position = begins + len(CLIENT_OPENS) + len(said) + len(ends)
    return Parted("".join([*answer, text[position:]]).strip("\n"), _joined(*thoughts), position)


_THOUGHT, _TEXT, _NOTHING = "thought", "text", "nothing"


class Arrivals:
    """The pieces of one answer as they come. Times in seconds, each on the clock of `started`."""

    FEW = 12
    """Tokens that may have no piece: marks that the server keeps to itself, the end."""
    SHARE = 0.02

    def __init__(self, started: float) -> None:
        self._started = started
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._pieces: list[tuple[float, str]] = []

    def take(self, now: float, *, text: str = "", thought: str = "") -> None:
        """One piece: text, thoughts, or both."""
        if thought:
            self._thoughts.append(thought)
            self._pieces.append((now, _THOUGHT))
        if text:
            self._texts.append(text)
            self._pieces.append((now, _TEXT))

    def skip(self, now: float) -> None:
        """A token of which nothing is shown, such as a mark between thoughts and answer."""
        self._pieces.append((now, _NOTHING))

    @property
    def text(self) -> str:
        """All text so far, with the marks that are in it."""
        return "".join(self._texts)

    @property
    def thoughts(self) -> str:
        """What came as thoughts, apart from the text."""
        return "".join(self._thoughts)

    @property
    def count(self) -> int:
        """The pieces that showed something."""
        return sum(kind != _NOTHING for _, kind in self._pieces)

    @property
    def ttft_s(self) -> float | None:
        """From the request to the first piece, of thoughts or of the answer."""
        return next((now - self._started for now, kind in self._pieces if kind != _NOTHING), None)

    def thinking_duration_s(self) -> float | None:
        """From the first piece of thoughts to the first one of the answer, else to the last one; None without any."""
        first, end = self._thinking()
        if first == end:
            return None
        return self._pieces[min(end, len(self._pieces) - 1)][0] - self._pieces[first][0]

    def thinking_count(self, eval_count: int | None) -> int | None:
        """The pieces of thoughts, where each token had a piece of its own; None where that is not so."""
        first, end = self._thinking()
        if first == end or not eval_count:
            return None
        missing = eval_count - len(self._pieces)
        most = min(max(self.FEW, self.SHARE * eval_count), len(self._pieces))
        return end - first if 0 <= missing <= most else None

    def _thinking(self) -> tuple[int, int]:
        """The number of the first piece of thoughts, and that of the first one of the answer behind them."""
        kinds = [kind for _, kind in self._pieces]
        if _THOUGHT in kinds:
            last = len(kinds) - 1 - kinds[::-1].index(_THOUGHT)
            return kinds.index(_THOUGHT), next((n for n in range(last, len(kinds)) if kinds[n] == _TEXT), len(kinds))
        found = part(self.text)
        if not found.thoughts:
            return 0, 0
        length = 0
        numbers = [number for number, kind in enumerate(kinds) if kind == _TEXT]
        for number, piece in zip(numbers, self._texts, strict=True):
            length += len(piece)
            if length > found.answer_at:
                return numbers[0], number
        return numbers[0], len(kinds)
