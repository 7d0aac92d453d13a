"""What questions in flight at once come to: by hand, and by a simulated server that runs so many of them."""

from __future__ import annotations

import heapq
from dataclasses import replace

import pytest

from ollama_sweep.core.outcome import Answer, Run
from ollama_sweep.core.summary import served_parallel, summarize_answers
from ollama_sweep.results.numbers import older

PROMPT_S, ANSWER_S = 0.1, 0.9


def run(number: int, started_s: float | None, ttft_s: float | None, latency_s: float, *, pieces: int = 9) -> Run:
    answer = Answer(f"q{number}", "", "?", "yes", chunk_count=pieces)
    return Run(number, False, "", 10, 0, 0.1, None, 10, None, None, None, None, None, latency_s, believed=True,
               ttft_s=ttft_s, answer=answer, started_s=started_s)  # fmt: skip


def asked(count: int, concurrency: int, slots: int) -> list[Run]:
    """So many questions, so many in flight, on a server with so many slots: who finds none free waits in its queue."""
    free, runs = [0.0] * slots, list[Run]()
    clients = [0.0] * concurrency
    for number in range(1, count + 1):
        started = heapq.heappop(clients)
        begin = max(started, heapq.heappop(free))
        ended = begin + PROMPT_S + ANSWER_S
        heapq.heappush(free, ended)
        heapq.heappush(clients, ended + 0.001)
        runs.append(run(number, started, begin + PROMPT_S - started, ended - started))
    return runs


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
@pytest.mark.parametrize("concurrency", [1, 2, 3, 4, 8])
def test_what_the_server_really_ran_at_once_is_seen(concurrency: int, slots: int) -> None:
    runs = asked(40, concurrency, slots)
    served = min(concurrency, slots)
    scores = summarize_answers(runs, {}).scores
    assert served_parallel(runs) == scores["served_parallel"] == served
    seconds = -(-40 // served) * (PROMPT_S + ANSWER_S)
    assert scores["requests_per_s"] == pytest.approx(40 / seconds, rel=0.01)
    assert scores["tokens_per_s_total"] == pytest.approx(400 / seconds, rel=0.01)
    waited = concurrency / served - 1
    assert scores["ttft_s_p95"] == pytest.approx(PROMPT_S + waited * (PROMPT_S + ANSWER_S), abs=1.01)
    if concurrency <= slots:
        assert scores["ttft_s_p50"] == pytest.approx(PROMPT_S)


def test_a_client_that_is_late_makes_no_overlap() -> None:
    """One after the other; the end of each is seen a moment after the next has begun."""
    late = 0.004
    runs = [run(n, 0.0, n + 0.1, n + 1.1 + late) for n in range(4)]
    assert served_parallel(runs) == 1
    assert served_parallel([replace(one, client_duration_s=one.latency_s + 0.2) for one in runs]) == 2


@pytest.mark.parametrize(("began_late_s", "ended_late_s"), [(0.0, 0.3), (0.3, 0.0)])
def test_where_the_server_says_how_long_an_answer_took_a_late_client_counts_none_twice(
    began_late_s: float, ended_late_s: float
) -> None:
    """One after the other, half of them seen late: `verify` knows such a number of an earlier version again."""
    runs = [
        replace(run(n, 0.0, n + 0.1 + (n % 2) * began_late_s, n + 1.0 + (n % 2) * ended_late_s), eval_duration_s=0.9)
        for n in range(4)
    ]
    assert served_parallel(runs) == 1
    found = older.scores("served_parallel", runs, is_of_loads=True, is_sealed=True)
    assert list(found) == [(older.AS_SEEN, 2 if ended_late_s else 1)]


def test_answers_that_the_server_really_gave_at_once_are_counted_by_its_own_times() -> None:
    runs = [replace(run(n, 0.0, 0.1 * n, 0.1 * n + 1.0), eval_duration_s=0.9) for n in range(1, 5)]
    assert served_parallel(runs) == 4


def test_where_answers_do_not_come_in_pieces_nobody_knows() -> None:
    whole = [run(n, 0.0, None, 1.0) for n in range(3)]
    at_once = [run(n, 0.0, 0.9, 1.0, pieces=1) for n in range(3)]
    assert served_parallel(whole) is None
    assert served_parallel(at_once) is None
    scores = summarize_answers(whole, {}).scores
    assert scores["requests_per_s"] == 3.0
    assert {"served_parallel", "ttft_s_p50", "ttft_s_p95"}.isdisjoint(scores)


def test_what_failed_takes_time_and_gives_no_token() -> None:
    good, bad = run(1, 0.0, 0.5, 2.0), replace(run(2, 0.0, None, 4.0), believed=False)
    scores = summarize_answers([good, bad], {}).scores
    assert (scores["requests_per_s"], scores["tokens_per_s_total"], scores["ttft_s_p95"]) == (0.25, 2.5, 0.5)
    uncounted = summarize_answers([good, replace(good, number=2, eval_count=None)], {}).scores
    assert "tokens_per_s_total" not in uncounted


def test_each_load_has_a_clock_of_its_own() -> None:
    load = asked(8, 4, 4)
    one, two = (summarize_answers(runs, {}).scores for runs in (load, [*load, *load]))
    assert two["requests_per_s"] == pytest.approx(one["requests_per_s"])
    assert two["served_parallel"] == one["served_parallel"] == 4


def test_engines_that_ask_one_at_a_time_have_none_of_it() -> None:
    scores = summarize_answers([run(1, None, 0.5, 2.0)], {}).scores
    assert {"requests_per_s", "tokens_per_s_total", "ttft_s_p95", "served_parallel"}.isdisjoint(scores)
