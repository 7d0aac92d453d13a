"""What the base says for an engine that says little itself, and engines of other packages."""

from __future__ import annotations

from pathlib import Path

import plain_engine
import pytest

from ollama_sweep import engines
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, EngineMissing, EngineUnavailable
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.engines.base import Engine, EngineInfo, EngineSettings, Kept
from ollama_sweep.engines.shared.look import Look

ROWS = ["The film was long.", "I liked the music of it."]
TIMEOUT_S = 60.0


class Smallest(Engine):
    """What an engine must say itself, and nothing else."""

    def describe(self) -> EngineInfo:
        return EngineInfo("smallest", "1.0", "in this process")

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        return Generation("an answer", None, None)


def test_an_engine_of_two_methods_answers_everything_else() -> None:
    engine, cell = Smallest(EngineSettings()), Cell((), "m", (("num_predict", 2),))
    assert (engine.models(), engine.processes(), engine.count_tokens("m", "Hello")) == ((), (), None)
    assert engine.model_info("m") == engine.model_info("m") != engine.model_info("other")
    assert engine.model_info("m").digest.startswith("sha256:")
    assert engine.prepare(cell) == Effective()
    assert engine.generate(cell, "Hello", TIMEOUT_S).text == "an answer"
    assert engine.read_again(Kept("an answer")) == {}
    with pytest.raises(CellFailed) as caught:
        engine.embed(cell, ROWS, 2, TIMEOUT_S)
    assert (caught.value.status, caught.value.reason) == (Status.ERROR, "cannot_embed")
    engine.release(failed=True)
    assert engine.clear(Leftover(1, "process", "no-such-token", {})) is None
    with pytest.raises(EngineUnavailable, match="another engine made it"):
        engine.clear(Leftover(1, "scratch_model", "ollama-sweep-scratch-1", {}))
    engine.close()
    engine.close()


def test_an_engine_that_lists_its_models_has_no_others() -> None:
    class Listing(Smallest):
        def models(self) -> tuple[str, ...]:
            return ("llama", "mistral")

    with pytest.raises(
        EngineMissing, match=r"lama is not installed here\. There is llama, mistral\. Did you mean llama"
    ):
        Listing().model_info("lama")


@pytest.mark.parametrize(
    ("settable", "has_own_sizes"),
    [(None, False), ({"num_ctx", "num_batch"}, False), ({"num_ctx", "seed"}, True), (set(), True)],
)
def test_who_cannot_be_given_both_sizes_has_its_own(settable: set[str] | None, has_own_sizes: bool) -> None:
    class Some(Smallest):
        pass

    Some.settable = None if settable is None else frozenset(settable)
    assert Some.has_own_sizes() is has_own_sizes


def test_a_plain_class_has_the_facts_of_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_engine.add_package(tmp_path, plain="plain_engine")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "plain" in engines.known()
    facts = engines.facts("plain")
    assert (facts.settable, facts.default_model, facts.takes_files, facts.look) == (None, None, True, Look)
    assert isinstance(engines.load("plain", EngineSettings()), plain_engine.Engine)


def test_an_engine_of_another_package_with_a_name_of_ours_stands_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_engine.add_package(tmp_path, llamacpp="plain_engine")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(engines.load("llamacpp", EngineSettings()), plain_engine.Engine)


def test_nothing_is_assumed_of_an_engine_that_is_not_chosen() -> None:
    for name in ("auto", "no_such_engine"):
        facts = engines.facts(name)
        assert (facts.settable, facts.has_own_sizes(), facts.needs_own_server) == (None, False, False)


@pytest.mark.parametrize("name", ["llamacpp", "openai"])
def test_what_another_engine_made_stays_recorded(name: str) -> None:
    """Forgetting it would leave the scratch model of a killed sweep in Ollama for ever."""
    engine = engines.load(name, EngineSettings())
    with pytest.raises(EngineUnavailable, match="the next run with that engine removes it"):
        engine.clear(Leftover(1, "scratch_model", "ollama-sweep-scratch-1", {}))
    engine.close()
