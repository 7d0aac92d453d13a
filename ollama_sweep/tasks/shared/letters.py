"""The letter that an answer to a multiple-choice question chooses, as a person would read it. Pure.

First every letter is taken out that is none (the pronoun, the article), that is only listed, or that is called wrong;
what is left is looked through, from the clearest way to say it to the least clear one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ollama_sweep.core import thoughts

LETTERS = "ABCDEFGHIJ"
_NONE = "¤"
"""Stands where a letter was that says nothing."""

_MARKUP = re.compile(r"[*_`$]+|</?[A-Za-z]{2,20}>|\\(?:text|mathrm|mathbf|textbf|rm|bf)\b")
_BOLD = re.compile(r"<([biu])>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_BOXED = re.compile(r"\\f?boxed\s*\{")
_GOES_ON = r"(?:is|was|because|since|as|and|or|would|will|seems|appears|looks|must|should|can|cannot|isn|with)\b"
"""Behind a letter. Before any other word an A is the article, and an I the pronoun."""
_VERB = r"(?:is|are|was|were|seems?|appears?|looks?|(?:would|must|should|can|could)\s+be)"

_KEY = (
    r"(?:answers?|(?:correct|right|best|final|chosen|selected|true)\s+(?:option|choice|letter|one|alternative|response|"
    r"statement|selection)s?|my\s+(?:choice|pick|selection|guess)|correct(?=\s*[:=])|solution)"
)
_LINK = (
    r"[\"'”’)\]]?(?:\s+(?:is|are|was|would|should|must|will|be|most|likely|probably|clearly|definitely|therefore|thus|then|"
    r"hence|here|to|for|of|this|that|the|question|problem|above|given|option|choice|letter|as|follows|correct))*"
    r"\s*(?:[:=]|[-–—=]*[>→]|[-–—]\s)?\s*(?:the\s+)?(?:(?:option|choice|letter|answer)\s*:?\s*)?"
)
_CHOOSE = (
    r"(?:\b(?:choose|chose|select|selected|pick|picked|go(?:ing)?\s+with)|\b(?:so|therefore|thus|hence|conclude)(?:\s+that)?,?|"
    r"\b(?:it|this)(?:\s+(?:is|(?:must|should|would|has\s+to)\s+be)|['’]s))"
    r"\s*:?\s*(?:likely\s+|probably\s+|the\s+)?(?:(?:option|choice|letter|answer)\s*:?\s*(?:is\s+)?)?"
)
_RIGHT = (
    rf"(?:\s*\([^()\n]{{0,80}}\))?,?\s+{_VERB}\s+(?:to\s+be\s+)?"
    r"(?:(?:clearly|definitely|indeed|also|therefore|thus|most|likely|probably|the|only|best|one|that\s+is|option|choice)\s+)*"
    r"(?:correct|right|answer|true|accurate)\b"
)
_WRONG = (
    rf"(?:\s+{_VERB}\s+(?:\w+ly\s+|also\s+|all\s+|both\s+)*(?:not\b|incorrect|wrong|false|invalid|untrue|impossible|ruled|"
    r"eliminated|excluded)|\s+(?:can|could|do|does|did)(?:\s+not|n['’]t)\b|\s+(?:cannot|isn['’]t|aren['’]t|wasn['’]t)\b|"
    r"\s*[:(–-]\s*(?:incorrect|wrong|not\s+(?:correct|the\s+answer))\b)"
)
_NOT = re.compile(
    r"(?:\bnot|n['’]t|\bneither|\bnor|\bexcept(?:\s+for)?|\brather\s+than|\binstead\s+of|\bunlike|"
    r"\b(?:rul|eliminat|exclud|reject|discard)\w*(?:\s+out)?)\s+(?:be\s+|the\s+)?(?:(?:answer|option|choice|letter)s?\s+)*"
    r"[\"'“‘(\[]?$"
    r"|\b(?:wrong|incorrect)\s+(?:answer|option|choice|letter)s?(?:\s+(?:is|are|would|be))*\s*:?\s*[\"'“‘(\[]?$",
    re.IGNORECASE,
)
_SLASHES = re.compile(r"[^\s/]+(?:\s?/\s?[^\s/]+)+")
_TICK = r"(?:\((?:the )?correct[^)\n]{0,20}\)|[✓✔✅☑])"


class _Forms:
    """How these letters are written: alone, in brackets or quotes, as one of several."""

    def __init__(self, letters: str) -> None:
        small = letters.lower()
        self.letters = letters
        self.bare = rf"([{letters}])(?![\w'’])"
        enclosed = rf"(?<![\w\\])[\"'“‘«(\[<]\s*([{letters}{small}])\s*[\"'”’»)\]>]"
        lower = rf"([{small}])(?=\s*(?:[.,;:!)\]\"'”’\n]|$|because\b|since\b))"
        other = rf"(?:[\"'“‘(\[]?[{letters}](?![\w'’])|[\"'“‘(\[][{small}][\"'”’)\]])"
        more = rf"(?![\"'”’)\]]*\s*(?:,|/|&|\bor\b|\band\b)\s*(?:option\s+|choice\s+)?{other})"
        self.more = more
        self.plain = rf"(?:{enclosed}|{self.bare}){more}"
        self.any = rf"(?:{enclosed}|{self.bare}|{lower}){more}"
        self.enclosed = enclosed
        self.several = re.compile(rf"{self.bare}[\"'”’)\]]*\s*(?:,|/|&|\bor\b|\band\b)\s*[\"'“‘(\[]?{self.bare}")
        self.together = rf"(?:\s*(?:,|&|\bor\b|\band\b)+\s*(?:option\s+)?[\"'(\[]?[{letters}][\"')\]]?(?![\w'’]))*"


def letter(text: str, choices: Sequence[str]) -> str | None:
    """The letter that an answer chooses; None where it names none, or several without saying which.

    Looked for in this order: the whole answer, the last box, its beginning, what it calls its answer or correct (the
    last time), the only letter called option, in brackets or quotes, at the beginning of a line or on its own, and the
    text of exactly one choice.
    """
    answer = unicodedata.normalize("NFKC", thoughts.part(text).answer).strip()
    forms = _Forms(LETTERS[: len(choices)])
    for content in reversed(_boxed(answer)):
        if found := _alone(content, forms) or _of_choice(content, choices, whole=True):
            return found
    said = _without_markup(answer)
    if found := _alone(said, forms):
        return found
    left = _left(said, forms, choices)
    found = _beginning(left, forms, choices) or _claimed(said, left, forms, choices)
    if found or forms.several.search(left):
        return found
    named = _named(left, forms)
    if named:
        return named.pop() if len(named) == 1 else None
    return _of_choice(said, choices)


def normal(text: str) -> str:
    """For comparisons: no capitals, one kind of white space, no markup for bold."""
    return " ".join(text.replace("**", "").replace("’", "'").casefold().split())


def _boxed(text: str) -> list[str]:
    r"""What stands in `\boxed{…}`, in order."""
    found = []
    for match in _BOXED.finditer(text):
        depth = 1
        for place in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if not depth:
                found.append(_without_markup(text[match.end() : place]))
                break
    return found


def _without_markup(text: str) -> str:
    return _MARKUP.sub("", _BOXED.sub("(", _BOLD.sub(r"\2", text))).replace("{", "(").replace("}", ")").strip()


def _alone(text: str, forms: _Forms) -> str | None:
    """Nothing but a letter, perhaps called option."""
    match = re.fullmatch(rf"\W*(?:(?:option|choice|letter)\s+)?([{forms.letters}])\W*", text, re.IGNORECASE)
    return match[1].upper() if match else None


# -- letters that say nothing ------------------------------------------------------------------------------------------


def _left(said: str, forms: _Forms, choices: Sequence[str]) -> str:
    """The answer with a mark in place of each letter that says nothing."""
    text = _SLASHES.sub(lambda group: _of_slashes(group[0], forms), said)
    text = _without_words(text, forms, choices)
    text = _without_wrong_ones(text, forms, choices)
    return _without_lists(text, forms)


def _of_slashes(group: str, forms: _Forms) -> str:
    """`A/B/C/D` is the question said again; in `A/Yes` the slash parts a letter from its choice."""
    parts = [part.strip(" .,:;()[]\"'") for part in group.split("/")]
    letters = [part for part in parts if part in forms.letters and len(part) == 1]
    if len(letters) > 1:
        return re.sub(rf"(?<!\w)[{forms.letters}](?!\w)", _NONE, group)
    return group.replace("/", ". ", 1) if letters and letters[0] == parts[0] else group


def _without_words(text: str, forms: _Forms, choices: Sequence[str]) -> str:
    """The pronoun and the article."""
    if "I" in forms.letters:
        text = re.sub(rf"\bI\b(?=\s+(?!{_GOES_ON})[a-z]|\s+would\b|['’])", _NONE, text)
    before = r"(?<!option )(?<!choice )(?<!answer )(?<!letter )(?<!Option )(?<!Choice )(?<!Answer )"
    if not any(normal(choice).startswith("a ") for choice in choices):
        before += r"(?<!is )(?<!: )"
    return re.sub(rf"(?<![\w'’(\"]){before}A(?=\s+(?!{_GOES_ON})[a-z])", _NONE, text)


def _without_wrong_ones(text: str, forms: _Forms, choices: Sequence[str]) -> str:
    """Those that are called wrong."""
    found = list(text)
    for match in re.finditer(rf"(?<![\w'’]){forms.bare}|{forms.enclosed}", text):
        group = 1 if match[1] else 2
        choice = choices[forms.letters.index(match[group].upper())]
        own = rf"(?:\s*\([^()\n]{{0,80}}\)|[.):]?\s*{re.escape(choice)})?" if choice.strip() else ""
        behind = re.compile(rf"[\"'”’)\]]?{own}{forms.together}{_WRONG}", re.IGNORECASE)
        if _NOT.search(text[max(0, match.start() - 60) : match.start()]) or behind.match(text, match.end()):
            found[match.start(group)] = _NONE
    return "".join(found)


def _without_lists(text: str, forms: _Forms) -> str:
    """The choices said again: two or more letters, one after the other, each in front of its choice."""
    small = forms.letters.lower()
    line = rf"^[^\w\n]*(?:(?:option|choice)\s+)?([{forms.letters}{small}])(?:[.):\]](?=\s|$)|[^\S\n]*[-–—]\s|[^\S\n]*$)"
    inline = rf"(?<=[\s,;(])([{forms.letters}])[.):](?=\s*\S)"
    places = {
        match.start(match.lastindex or 0): match[match.lastindex or 0].upper()
        for pattern in (inline, line)
        for match in re.finditer(pattern, text, re.MULTILINE | (re.IGNORECASE if pattern == line else 0))
    }
    found = list(text)
    for place in _listed(sorted(places.items()), text, len(forms.letters)):
        found[place] = _NONE
    return "".join(found)


def _listed(marks: Sequence[tuple[int, str]], text: str, most: int) -> set[int]:
    """The places of marks that follow each other: two at the beginnings of lines, three in a line."""
    runs: list[list[int]] = []
    last = ""
    for place, mark in marks:
        is_next = bool(runs) and ord(mark) == ord(last) + 1
        is_again = bool(runs) and mark == last and "\n\n" not in text[runs[-1][-1] : place]
        if is_next or is_again:
            runs[-1].append(place)
        else:
            runs.append([place])
        last = mark
    return {place for run in runs if _is_list(run, text, most) for place in run}


def _is_list(run: Sequence[int], text: str, most: int) -> bool:
    different = len({text[place].upper() for place in run})
    return different > 1 and (different >= min(3, most) or "\n" in text[run[0] : run[-1]])


# -- letters that say something ----------------------------------------------------------------------------------------


def _beginning(left: str, forms: _Forms, choices: Sequence[str]) -> str | None:
    """The first thing that is said."""
    opening = rf"\W*(?i:(?:so,?\s+)?(?:the\s+)?{_KEY}{_LINK})?(?i:(?:option|choice)\s+)?"
    end = r"(?=[.):,;\]]|\s*(?:\n|$|[-–—]\s|because\b|since\b))"
    small = rf"([{forms.letters.lower()}])(?=[.):]\s|\s*(?:\n|$))"
    for pattern in (rf"{opening}{forms.plain}{end}", rf"{opening}{forms.enclosed}{forms.more}", rf"{opening}{small}"):
        if match := re.match(pattern, left):
            return _of(match)
    match = re.match(rf"{opening}{forms.bare}\s+", left)
    if match and (found := _of(match)):
        choice = normal(choices[forms.letters.index(found)])
        return found if choice and normal(left[match.end() :]).startswith(choice) else None
    return None


def _claimed(said: str, left: str, forms: _Forms, choices: Sequence[str]) -> str | None:
    """What is called the answer, or right; the last time counts."""
    claims: dict[int, str] = {}
    for match in re.finditer(rf"\b(?i:{_KEY}{_LINK})(?:{forms.any})", left):
        claims[match.end()] = _of(match)
    for match in re.finditer(rf"\b(?i:{_KEY}{_LINK})([^\n{_NONE}]+)", left):
        if found := _of_choice(re.split(r"[.;](?:\s|$)", match[1])[0], choices, whole=True):
            claims.setdefault(match.end(), found)
    end = r"(?=[\"'”’)\]]*\s*(?:[.,;:!)]|\n|$|because\b|since\b))"
    for pattern in (
        rf"(?<![\w'’])(?:{forms.plain})[\"'”’)\]]?(?i:{_RIGHT})",
        rf"(?i:{_CHOOSE})(?:{forms.any}){end}",
        rf"^[^\w\n]*{forms.bare}[^\w\n]*$",
    ):
        claims |= {match.end(): _of(match) for match in re.finditer(pattern, left, re.MULTILINE)}
    ticked = rf"^[^\w\n]*(?:(?:option|choice)\s+)?([{forms.letters}])[.):][^\n]*{_TICK}"
    claims |= {match.end(): _of(match) for match in re.finditer(ticked, said, re.MULTILINE | re.IGNORECASE)}
    return claims[max(claims)] if claims else None


def _named(left: str, forms: _Forms) -> set[str]:
    """The letters that are named in the clearest way of those that there are."""
    word = r"(?<![\w'’])(?<!\bin )(?<!\bof )(?<!\bfrom )(?<!\binto )(?<!\bonto )(?<!\bset )(?<!∈ )(?<!= )"
    last = r"(?=\s*(?:[.,;:!?)\]]|\n|$))"
    said_of = r"(?:(?<=\bis )|(?<=\bbe )|(?<=\bsay )|(?<=\bguess )|(?<=\bbut )|(?<=['’]s )|(?<=: ))"
    lone = (
        rf"{word}(?:([{forms.letters.replace('A', '').replace('I', '')}])(?![\w'’])|{said_of}([AI]){last}|(A)(?=\W*\Z))"
    )
    patterns = (
        rf"\b(?i:choice|option)s?\s*:?\s*(?:{forms.any})",
        forms.enclosed,
        rf"^[^\w\n]*([{forms.letters}])[.):]",
        lone,
    )
    for pattern in patterns:
        found = {_of(match) for match in re.finditer(pattern, left, re.MULTILINE)} & set(forms.letters)
        if found:
            return found
    return set()


def _of(match: re.Match[str]) -> str:
    return next((group.upper() for group in match.groups() if group), "")


def _of_choice(text: str, choices: Sequence[str], *, whole: bool = False) -> str | None:
    """The letter of the one choice whose text this is, or holds."""
    said = normal(text).strip(" .\"'")
    exact = [place for place, choice in enumerate(choices) if normal(choice).strip(" .\"'") == said]
    inside = [
        place
        for place, choice in enumerate(choices)
        if normal(choice) and re.search(rf"(?<!\w){re.escape(normal(choice))}(?!\w)", said)
    ]
    found = exact if whole or exact else inside
    return LETTERS[found[0]] if len(found) == 1 and said else None
