"""Two sides that do not fit together are told so in words, before anything is measured."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ollama_sweep.core.errors import EngineMissing
from ollama_sweep.plan.hosts.handshake import Difference, Side, differences, require

DIGEST = "sha256:" + "ab" * 32
OURS = Side("this computer", "2.0.0", "3.11", "2026.8.0", "0.34.0", {"llama3:8b": DIGEST})
SAME = replace(OURS, name="gpu-a")


def only(theirs: Side) -> Difference:
    (found,) = differences(OURS, theirs)
    return found


def test_sides_that_are_the_same_pass() -> None:
    assert differences(OURS, SAME) == ()
    require(OURS, SAME)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (
            {"program": "1.9.0"},
            "program",
            (
                "gpu-a has ollama-sweep 1.9.0, this computer has 2.0.0. "
                "Run on gpu-a: pip install 'ollama-sweep[cluster]==2.0.0'"
            ),
        ),
        (
            {"program": ""},
            "program",
            (
                "gpu-a does not say which ollama-sweep it has, this computer has 2.0.0. "
                "Run on gpu-a: pip install 'ollama-sweep[cluster]==2.0.0'"
            ),
        ),
        (
            {"python": "3.12"},
            "python",
            (
                "gpu-a has Python 3.12, this computer has 3.11. "
                "Make its environment with Python 3.11: the same minor version on all sides"
            ),
        ),
        (
            {"distributed": "2025.1.0"},
            "distributed",
            (
                "gpu-a has distributed 2025.1.0, this computer has 2026.8.0. "
                "Run on gpu-a: pip install 'distributed==2026.8.0'"
            ),
        ),
        (
            {"server": "0.33.0"},
            "server",
            (
                "gpu-a has Ollama 0.33.0, this computer has 0.34.0. "
                "Bring both to one version, or their numbers are two experiments"
            ),
        ),
        ({"models": {}}, "model", "llama3:8b is not installed on gpu-a. Run there: ollama pull llama3:8b"),
        (
            {"models": {"llama3:8b": "cd" * 32}},
            "model",
            (
                "llama3:8b is cdcdcdcdcdcd on gpu-a and abababababab on this computer: another model. "
                "Run on both: ollama pull llama3:8b"
            ),
        ),
    ],
    ids=["program", "silent", "python", "distributed", "server", "no model", "digest"],
)
def test_what_differs_is_said_with_what_to_do(change: dict[str, object], kind: str, words: str) -> None:
    theirs = replace(SAME, **change)  # type: ignore[arg-type]
    found = only(theirs)
    assert (found.kind, found.words) == (kind, words)
    assert found.divides is (kind == "server")
    with pytest.raises(EngineMissing) as refused:
        require(OURS, theirs)
    assert str(refused.value) == words


def test_all_that_differs_is_one_line() -> None:
    with pytest.raises(EngineMissing) as refused:
        require(OURS, Side("gpu-a", "2.0.0", "3.13", "2026.8.0", "0.33.0", {}))
    said = str(refused.value)
    assert said.count("\n") == 0
    assert [said.index(word) for word in ("Python", "Ollama", "llama3:8b")] == sorted(
        said.index(word) for word in ("Python", "Ollama", "llama3:8b")
    )


def test_with_several_classes_another_ollama_is_let_pass_and_another_model_is_not() -> None:
    require(OURS, replace(SAME, server="0.33.0"), mixed=True)
    with pytest.raises(EngineMissing, match="another model"):
        require(OURS, replace(SAME, models={"llama3:8b": "cd"}), mixed=True)


def test_what_neither_side_says_is_not_compared() -> None:
    """Two servers that are asked by HTTP have no Python, and a coordinator has no Ollama."""
    assert differences(Side("a", server="0.34.0"), Side("b", server="0.34.0")) == ()
    assert differences(Side("a"), Side("b", server="0.34.0", models={"m": "ab"})) == ()


def test_a_digest_is_the_same_with_and_without_its_kind() -> None:
    assert differences(OURS, replace(SAME, models={"llama3:8b": DIGEST.removeprefix("sha256:")})) == ()


def test_a_side_goes_over_the_wire_and_what_is_no_text_is_not_said() -> None:
    assert Side.read(json.loads(json.dumps(SAME.as_dict())), "gpu-a") == SAME
    odd = Side.read({"program": 7, "python": None, "models": {"m": 3}, "server": "0.34\x1b[2J"}, "gpu-a")
    assert odd == Side("gpu-a", server="0.34\\x1b[2J", models={"m": ""})
    assert Side.read("nothing", "gpu-a") == Side("gpu-a")
    assert only(replace(odd, server="", program="2.0.0", python="3.11", distributed="2026.8.0")).kind == "model"
