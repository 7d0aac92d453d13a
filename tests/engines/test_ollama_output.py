"""What `ollama run --verbose` printed on real versions, and what a parser must not fall for."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.ollama.output import clean, error_text, statistics
from ollama_sweep.engines.shared.failures import classify

SPINNER = "\x1b[?2026h\x1b[?25l\x1b[1G⠋ \x1b[K\x1b[?25h\x1b[?2026l"
CAPTURED = (
    SPINNER * 3 + "\x1b[2K\x1b[1G\x1b[?25h\x1b[?25l\x1b[?25h\x1b[?25l\x1b[?25htotal duration:       1m2.623456789s\n"
    "load duration:        45.1ms\n"
    "prompt eval count:    1273 token(s)\n"
    "prompt eval cached:   3 token(s)\n"
    "prompt eval duration: 369.65ms\n"
    "prompt eval rate:     3435.68 tokens/s\n"
    "eval count:           16 token(s)\n"
    "eval duration:        1µs\n"
    "eval rate:            16000000.00 tokens/s\n\x1b[?25l\x1b[?25h"
)


def test_every_label_is_read_between_escape_codes() -> None:
    found = statistics(CAPTURED)
    assert found is not None
    assert asdict(found) == pytest.approx(
        {
            "prompt_eval_count": 1273,
            "cached_count": 3,
            "prompt_eval_duration_s": 0.36965,
            "prompt_eval_rate": 3435.68,
            "eval_count": 16,
            "eval_duration_s": 1e-6,
            "total_duration_s": 62.623456789,
            "load_duration_s": 0.0451,
        }
    )


def test_order_of_lines_does_not_matter() -> None:
    lines = clean(CAPTURED).strip().splitlines()
    assert statistics("\n".join(reversed(lines))) == statistics(CAPTURED)


def test_of_repeated_lines_the_last_counts() -> None:
    text = "prompt eval count:    10 token(s)\nprompt eval count:    20 token(s)\n"
    found = statistics(text)
    assert found is not None
    assert found.prompt_eval_count == 20


@pytest.mark.parametrize(
    "stderr",
    ["", SPINNER * 100, "Error: something", "my prompt eval count: 7 token(s) is good", "prompt eval count: many"],
)
def test_no_statistics_is_none(stderr: str) -> None:
    assert statistics(stderr) is None


def test_a_missing_line_is_none_not_zero() -> None:
    found = statistics("prompt eval duration: 369.65ms\nprompt eval rate:     0.00 tokens/s\n")
    assert found is not None
    assert (found.prompt_eval_count, found.cached_count, found.prompt_eval_duration_s) == (None, None, 0.36965)


def test_the_error_is_shown_without_the_spinner() -> None:
    text = SPINNER * 5 + "\x1b[2K\x1b[1G\x1b[?25hError: 500 Internal Server Error: llama-server died:\nline two\r\n"
    assert error_text(text) == "500 Internal Server Error: llama-server died:\nline two"


def test_all_messages_are_read_and_each_once() -> None:
    out_of_memory = "llama-server process has terminated: cudaMalloc failed: out of memory"
    text = f"pulling\nError: {out_of_memory}\nError: run failed\n  Error: run failed\n"
    assert error_text(text) == f"{out_of_memory}\nrun failed"
    assert classify(error_text(text))[0] is Status.OOM
    assert error_text("Error:\n") == "Error:"
