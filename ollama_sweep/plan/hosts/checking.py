"""Whether each host could be measured, in a line for each: all of them are asked at once, and nothing changes there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ollama_sweep import engines
from ollama_sweep.core.errors import CellFailed, nearest
from ollama_sweep.core.finding import Finding, State
from ollama_sweep.core.text import one_line
from ollama_sweep.core.units import format_bytes, format_duration
from ollama_sweep.engines.shared.reached import Told, Unreached
from ollama_sweep.machine.address import OLLAMA_PORT, Address, base_url, server
from ollama_sweep.machine.crew import Crew
from ollama_sweep.machine.hosts.refusals import Refusal
from ollama_sweep.plan.doctor.places import LITTLE_BYTES
from ollama_sweep.plan.hosts.handshake import Side, differences, short
from ollama_sweep.plan.models import ALL

if TYPE_CHECKING:
    from ollama_sweep.plan.spec import SweepSpec

AT_ONCE = 64
"""Hosts that are asked side by side; the next ones follow."""
ASKED = 2
"""Questions to each host."""
SLACK_S = 2.0
CLOCK_S = 2.0
"""Clocks that differ by more are worth knowing of: certificates and logs go by them."""
BAD_INPUT, AWAY = 2, 5
"""Exit codes, as those of the errors of these kinds."""


@dataclass(frozen=True)
class Host:
    """A server elsewhere, as it is called and where it answers."""

    name: str
    address: Address

    @property
    def where(self) -> str:
        return self.address.root


@dataclass(frozen=True)
class Seen:
    """One host, how it stands in a line, and what it said; None where nothing was heard of it."""

    host: Host
    finding: Finding
    told: Told | None = None


def of_texts(texts: Iterable[str]) -> tuple[Host, ...]:
    """Hosts as people write them, called by what they wrote. Raises ConfigError."""
    return tuple(Host(one_line(text), server(text, allow_remote=True, port=OLLAMA_PORT, where=text)) for text in texts)


def of_spec(spec: SweepSpec) -> tuple[Host, ...]:
    """Those of a sweep file: its lanes elsewhere, else its one server. Raises ConfigError."""
    if spec.hosts:
        known = ((one, server(one.host, allow_remote=True, port=OLLAMA_PORT, where=one.name)) for one in spec.hosts)
        return tuple(Host(one.name, where) for one, where in known)
    return of_texts([base_url(spec.host, allow_remote=True)])


def models_of(spec: SweepSpec) -> tuple[str, ...]:
    """The models of a sweep that must be installed; files are sent, and `all` is what is there."""
    named = [str(model) for model in spec.dimensions.get("model", (spec.model,))]
    return tuple(model for model in named if model and model != ALL and not model.lower().endswith(".gguf"))


def check(hosts: Sequence[Host], models: Sequence[str], *, engine: str, timeout_s: float) -> list[Seen]:
    """Ask every host once, each answer within `timeout_s`; a host that is named again is not asked again."""
    twice = dict(_named_twice(hosts))
    found = _ask([(number, host) for number, host in enumerate(hosts) if number not in twice], engine, timeout_s)
    seen: list[Seen] = []
    for number, host in enumerate(hosts):
        told = found.get(number)
        if number in twice:
            seen.append(Seen(host, twice[number]))
        elif isinstance(told, Told):
            seen.append(Seen(host, _judged(host, told, models, seen), told))
        else:
            refusal = told or _silent(timeout_s)
            seen.append(Seen(host, _bad(host, refusal.text, refusal.hint, AWAY)))
    return seen


def _named_twice(hosts: Sequence[Host]) -> Iterator[tuple[int, Finding]]:
    addresses: dict[Address, Host] = {}
    names: dict[str, Host] = {}
    for number, host in enumerate(hosts):
        same = addresses.get(host.address) or names.get(host.name)
        if same is not None:
            other = f"as {same.name}" if same.name != host.name else f"at {same.where}"
            yield number, _bad(host, f"is named twice, also {other}", "Leave one of them out", BAD_INPUT)
        addresses.setdefault(host.address, host)
        names.setdefault(host.name, host)


def _bad(host: Host, text: str, hint: str, exit_code: int) -> Finding:
    return Finding(host.name, State.BAD, _placed(host, text), hint, exit_code)


def _placed(host: Host, text: str) -> str:
    """With the address in front, where the name does not say it."""
    return text if host.where.endswith(host.name) else f"{host.where} {text}"


# -- asking ------------------------------------------------------------------------------------------------------------


def _ask(hosts: Sequence[tuple[int, Host]], engine: str, timeout_s: float) -> dict[int, Told | Refusal]:
    """What each said, by its number; who has no entry was not heard of in time."""
    found: dict[int, Told | Refusal] = {}
    for first in range(0, len(hosts), AT_ONCE):
        found |= _ask_at_once(hosts[first : first + AT_ONCE], engine, timeout_s)
    return found


def _ask_at_once(hosts: Sequence[tuple[int, Host]], engine: str, timeout_s: float) -> dict[int, Told | Refusal]:
    look = engines.facts(engines.BY_HOST if engine == engines.AUTO else engine).look
    found: dict[int, Told | Refusal] = {}
    until = time.monotonic() + ASKED * timeout_s + SLACK_S
    with Crew[Told | Refusal](lambda: None, threading.Event()) as crew, contextlib.suppress(TimeoutError):
        for number, host in hosts:
            try:
                crew.begin(number, partial(_reach, look.reach, host, timeout_s))
            except CellFailed as failure:
                found[number] = Refusal(f"was not asked ({failure.error})", "Ask fewer hosts at once")
        while crew.in_flight:
            number, told = crew.next(until)
            found[number] = told
    return found


def _reach(reach: Callable[[Address, float], Told], host: Host, timeout_s: float) -> Told | Refusal:
    try:
        return reach(host.address, timeout_s)
    except Unreached as error:
        return Refusal(error.text, error.hint)


def _silent(timeout_s: float) -> Refusal:
    limit = format_duration(ASKED * timeout_s + SLACK_S)
    return Refusal(f"was not heard of within {limit}", "Does a name server know it? Try its address, or --timeout")


# -- judging -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fault:
    text: str
    hint: str
    is_bad: bool = False


def _judged(host: Host, told: Told, models: Sequence[str], seen: Sequence[Seen]) -> Finding:
    """One line: what it has, or all that is wrong with it."""
    faults = [*_of_models(told, models), *_of_others(host, told, models, seen), *_of_clock(told), *_of_disk(told)]
    wrong = [fault for fault in faults if fault.is_bad]
    if wrong:
        text = "; ".join(fault.text for fault in wrong)
        return _bad(host, text, _hints(wrong), AWAY)
    text = "; ".join([_facts(told, models), *(fault.text for fault in faults)])
    return Finding(host.name, State.WARNING if faults else State.OK, _placed(host, text), _hints(faults))


def _hints(faults: Sequence[_Fault]) -> str:
    return ". ".join(dict.fromkeys(fault.hint for fault in faults))


def _facts(told: Told, models: Sequence[str]) -> str:
    """What is there, in words."""
    installed = [f"{model} ({short(digest)})" for model in models if (digest := digest_of(told.models, model))]
    facts = [f"{told.program} {one_line(told.version)}", *map(one_line, installed)]
    if not models:
        facts.append("1 model" if len(told.models) == 1 else f"{len(told.models)} models")
    if told.clock_off_s is not None and abs(told.clock_off_s) <= CLOCK_S:
        facts.append("clock as here")
    free = "disk not known from here" if told.free_bytes is None else f"{format_bytes(told.free_bytes)} free"
    return ", ".join([*facts, free])


def _of_models(told: Told, models: Sequence[str]) -> Iterator[_Fault]:
    if not told.models:
        yield _Fault("has no model", f"Run there: ollama pull {models[0] if models else 'llama3.2:1b'}", is_bad=True)
        return
    known = {name.removesuffix(":latest") for name in told.models}
    for model in models:
        if digest_of(told.models, model) is None:
            hint = f"{nearest(model, known)} Run there: ollama pull {model}".strip()
            yield _Fault(f"{model} is not installed there", hint, is_bad=True)


def digest_of(models: Mapping[str, str], model: str) -> str | None:
    """The digest of a model as a person names it; None where it is not there."""
    return models.get(model, models.get(f"{model}:latest"))


def _of_others(host: Host, told: Told, models: Sequence[str], seen: Sequence[Seen]) -> Iterator[_Fault]:
    """In what it differs from the first host that is well, and whether it is one of them once more."""
    others = [one for one in seen if one.told is not None]
    same = next((one for one in others if one.told and one.told.peer and one.told.peer == told.peer), None)
    if same is not None:
        text = f"answers at the same address as {same.host.name} ({told.peer})"
        yield _Fault(text, "Leave one of them out, if both are one server")
    first = next((one for one in others if one.finding.state is not State.BAD), None)
    if first is None or first.told is None:
        return
    common = [model for model in models if digest_of(told.models, model) is not None]
    for one in differences(_side(first.host, first.told, common), _side(host, told, common)):
        yield _Fault(one.text, one.hint, is_bad=not one.divides)


def _side(host: Host, told: Told, models: Sequence[str]) -> Side:
    digests = {model: digest for model in models if (digest := digest_of(told.models, model)) is not None}
    return Side(host.name, server=one_line(told.version), models=digests)


def _of_clock(told: Told) -> Iterator[_Fault]:
    off_s = told.clock_off_s
    if off_s is not None and abs(off_s) > CLOCK_S:
        text = f"its clock is {format_duration(abs(off_s))} {'ahead of' if off_s > 0 else 'behind'} ours"
        yield _Fault(text, "Let a time server set both clocks")


def _of_disk(told: Told) -> Iterator[_Fault]:
    if told.free_bytes is not None and told.free_bytes < LITTLE_BYTES:
        yield _Fault("little space on the disk of its models", "Free some space there")
