"""The numbers and files of a report, from answers made by hand: formulas, columns, what fails, what is not said."""

from __future__ import annotations

import csv
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from answers_maker import answer, failed
from results_maker import result

from ollama_sweep.cli.tables import aligned
from ollama_sweep.core.errors import ConfigError, StorageError
from ollama_sweep.core.outcome import AnswerRow, Status
from ollama_sweep.core.stats import spread
from ollama_sweep.machine.device_report import DeviceInfo
from ollama_sweep.results import analysis, hardware, saving, task_files
from ollama_sweep.results.groups import Group, make_groups
from ollama_sweep.results.prices import Price, PriceTable, one_price
from ollama_sweep.results.task_files import LOG_COLUMNS, Content
from ollama_sweep.results.words import summary_lines, task_table

MIB = 2**20
TWO_MODELS = [answer("big", "q1", 4.0), answer("big", "q2", 6.0), answer("small", "q1", 1.0), failed("small", "q2")]


def only(rows: list[AnswerRow], prices: PriceTable | None = None) -> Group:
    """The one group of these answers."""
    (group,) = make_groups(rows, [], prices)
    return group


def parsed(content: Content) -> Any:
    return json.loads(content.text)


def named(contents: list[Content]) -> dict[str, Content]:
    return {f"{content.folder}/{content.name}".lstrip("/"): content for content in contents}


def csv_rows(content: Content) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.text)))


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_percentiles_are_those_of_numpy() -> None:
    import numpy as np

    values = [0.3, 1.0, 2.5, 2.5, 4.0, 9.0, 11.0]
    found = spread(values)
    assert found is not None
    assert found.as_dict() == pytest.approx(
        {"n": 7, "mean": float(np.mean(values)), "median": 2.5, "p95": float(np.percentile(values, 95)),
         "p99": float(np.percentile(values, 99)), "min": 0.3, "max": 11.0}
    )  # fmt: skip
    assert spread([float("nan")]) is None


def test_failed_answers_are_counted_and_never_averaged_in() -> None:
    group = only([answer(item="q1", latency_s=1.0), answer(item="q2", latency_s=3.0), failed()])
    assert (group.asked, group.succeeded) == (3, 2)
    assert group.success_rate == pytest.approx(2 / 3)
    assert group.spreads["latency_s"].mean == 2.0
    assert group.spreads["latency_s"].high == 3.0
    assert group.requests_per_min == 30.0


def test_decode_speed_leaves_out_the_first_token_and_the_old_figure_does_not() -> None:
    row = answer(latency_s=2.5, ttft_s=0.5, eval_count=41)
    assert only([row]).spreads["decode_tps"].mean == 20.0
    assert task_files.whole_decode_rate(row) == 20.5
    assert task_files.metrics_of(row)["tokens_per_second"] == pytest.approx(41 / 2.5)


def test_unknown_numbers_stay_unknown() -> None:
    """An engine without streaming and without counts."""
    row = answer(ttft_s=None, eval_count=None, prompt_eval_count=None)
    metrics = task_files.metrics_of(row)
    assert [metrics[name] for name in ("ttft", "output_tokens", "tokens_per_second", "decode_tps")] == [None] * 4
    assert set(only([row]).spreads) == {"latency_s", "chars_per_s"}
    assert parsed(task_files.run_file(only([row]), "m"))["summary"]["performance"]["avg_ttft"] is None


def test_a_task_without_answers_speaks_of_its_cells() -> None:
    cells = [result(4096, 64, 300.0), result(4096, 128, 500.0), result(8192, 64, None, status=Status.OOM)]
    group = make_groups([], cells)[0]
    assert (group.asked, group.succeeded) == (3, 2)
    assert group.spreads["prompt_eval_rate"].mean == 400.0


def test_cells_that_were_not_tried_are_no_failures() -> None:
    assert make_groups([], [result(4096, 64, None)]) == []
    group = make_groups([], [result(4096, 64, 1.0), result(8192, 64, None), result(9, 9, None, status=Status.SKIPPED)])[
        0
    ]
    assert group.success_rate == 1.0


def test_the_same_model_on_two_engines_and_in_two_sweeps_has_two_names() -> None:
    rows = [answer("a:1"), answer("a:1", engine="openai"), answer("b"), answer("b", sweep="again")]
    assert {group.label for group in make_groups(rows, [])} == {
        "a:1 @ ollama", "a:1 @ openai", "b @ ollama, bench", "b @ ollama, again"
    }  # fmt: skip


# -- cost ------------------------------------------------------------------------------------------------------------


def test_cost_per_token_and_per_cell() -> None:
    table = PriceTable({"llama3:8b": Price(0.001, 0.01)}, currency="USD")
    group = only([answer(cell="a"), answer(cell="a"), answer(cell="b"), failed(cell="b")], table)
    assert group.costs is not None
    assert group.costs.by_cell == {"a": pytest.approx(1.0), "b": pytest.approx(0.5)}
    found = group.as_dict()["cost"]
    assert isinstance(found, dict)
    assert found["total"] == pytest.approx(1.5)
    assert found["per_token"] == pytest.approx(1.5 / 420)
    assert found["per_answer"] == pytest.approx(0.5)
    assert found["per_cell"]["mean"] == pytest.approx(0.75)
    assert found["currency"] == "USD"


def test_no_price_is_no_cost_and_not_zero() -> None:
    assert only([answer()], PriceTable({"other": Price(1, 1)})).costs is None
    assert only([answer(eval_count=None)], one_price(1.0)).costs is None
    free = only([answer()], one_price(0.0)).costs
    assert free is not None
    assert free.total == 0.0


def test_cells_without_answers_cost_their_runs() -> None:
    metrics = {"runs": 3.0, "prompt_eval_count": 1000.0, "eval_count": 2.0}
    group = make_groups([], [result(4096, 64, 1.0, metrics=metrics)], one_price(0.5))[0]
    assert group.costs is not None
    assert group.costs.total == pytest.approx(3 * 1002 * 0.5)


# -- files -----------------------------------------------------------------------------------------------------------


def test_the_run_file_has_the_known_fields() -> None:
    rows = [
        answer(item="q1", peak_rss_bytes=100 * MIB),
        answer(item="q2", peak_rss_bytes=1124 * MIB, chunk_count=7),
        failed(),
    ]
    content = task_files.run_file(only(rows), "llama3-8b")
    assert content.name == "run_20260301_120005_llama3-8b.json"
    summary = parsed(content)["summary"]
    assert summary["config"] == {"max_tokens": 100, "temperature": 0.7, "max_retries": None}
    assert (summary["total_items"], summary["successful"], summary["failed"]) == (3, 2, 1)
    assert set(summary["performance"]) == {
        "avg_tokens_per_second", "min_tokens_per_second", "max_tokens_per_second", "avg_ttft", "min_ttft", "max_ttft",
        "avg_decode_tps", "avg_duration", "avg_output_tokens", "total_tokens_generated", "total_time_spent",
    }  # fmt: skip
    assert summary["performance"]["total_tokens_generated"] == 80
    assert summary["performance"]["total_time_spent"] == 13.0
    assert summary["category_breakdown"]["Extraction"]["count"] == 3
    assert summary["quantization"] == "Q4_K_M"
    first, second, third = parsed(content)["results"]
    assert {"id", "model", "prompt", "output", "category", "metrics"} <= set(first)
    assert second["metrics"] == {
        "duration": 2.0, "ttft": 0.5, "output_tokens": 40, "output_words": 4, "chunk_count": 7,
        "tokens_per_second": 20.0, "decode_tps": pytest.approx(40 / 1.5), "peak_memory_mb": 1124.0,
        "memory_delta_gb": 1.0, "status": "success",
    }  # fmt: skip
    assert first["metrics"]["memory_delta_gb"] is None
    assert third["metrics"]["status"] == "failed"
    assert third["metrics"]["error"] == "the answer is empty"


def test_estimated_counts_say_so() -> None:
    assert task_files.metrics_of(answer(is_estimated=True))["estimated"] is True


def test_every_response_is_kept_in_a_file_of_its_own() -> None:
    rows = [answer(item="a", text="one"), answer(item="b", text="two"), answer(item="a", text="again", number=3)]
    found = named(task_files.prompt_files(only(rows), "llama3-8b"))
    assert list(found) == ["llama3-8b_prompt_01.json", "llama3-8b_prompt_02.json", "llama3-8b_prompt_01_2.json"]
    first = parsed(found["llama3-8b_prompt_01.json"])
    assert (first["model"], first["prompt"], first["response"], first["latency_s"]) == (
        "llama3:8b", "What is a?", "one", 2.0
    )  # fmt: skip
    assert parsed(found["llama3-8b_prompt_01_2.json"])["response"] == "again"


def test_thousands_of_answers_make_no_thousands_of_files() -> None:
    rows = [answer(item=f"q{number}") for number in range(task_files.MOST_PROMPT_FILES + 1)]
    assert task_files.prompt_files(only(rows), "m") == []


def test_the_summary_names_its_method_and_counts_failed_checks() -> None:
    good, bad = {"valid_json": 1.0, "score": 0.5, "keys_present": 0.0}, {"valid_json": 0.0, "score": 0.0}
    group = only([answer(item="a", latency_s=1.0, scores=good), answer(item="b", latency_s=3.0, scores=bad)])
    found = parsed(task_files.latency_summary([group]))
    assert "linear interpolation" in found["percentile_method"]
    model = found["models"]["llama3:8b"]
    assert model["requests_per_min"] == 30.0
    assert model["latency_s"]["p95"] == pytest.approx(2.9)
    assert model["checks"]["valid_json"] == {"mean": 0.5, "n": 2, "failures": "1/2"}
    assert "failures" not in model["checks"]["keys_present"]


def test_results_local_can_be_read_again(tmp_path: Path) -> None:
    from ollama_sweep.results.foreign_csv import read_answers

    rows = [answer(item="a", text='says "yes",\nthen no', scores={"score": 1.0}), failed()]
    content = task_files.local_csv([only(rows)])
    assert list(csv_rows(content)[0]) == ["model", "prompt_id", "output", "score", "latency_sec", "metadata"]
    assert json.loads(csv_rows(content)[0]["metadata"])["eval_duration"] == 1.4
    path = tmp_path / "results_local.csv"
    path.write_text(content.text, "utf-8")
    first, second = read_answers(path).rows
    assert (first.answer.text, first.latency_s, first.scores["score"]) == ('says "yes",\nthen no', 2.0, 1.0)
    assert (first.eval_count, first.eval_duration_s, first.prompt_eval_count) == (40, 1.4, 100)
    assert second.answer.failure


def test_model_summary_has_a_row_for_each_model() -> None:
    rows = csv_rows(task_files.model_csv(make_groups(TWO_MODELS, [])))
    assert [row["model"] for row in rows] == ["big", "small"]
    assert (rows[0]["mean_latency_sec"], rows[0]["median_latency_sec"], rows[0]["failed"]) == ("5.0", "5.0", "0")
    assert (rows[1]["answers"], rows[1]["failed"], rows[1]["mean_score"]) == ("1", "1", "")


def test_a_formula_in_an_answer_stays_text() -> None:
    assert csv_rows(task_files.local_csv([only([answer(text="=1+1")])]))[0]["output"] == "'=1+1"


def test_several_tasks_have_a_folder_each() -> None:
    rows = [answer(), answer(task="mmlu", scores={"score": 1.0})]
    names = set(named(task_files.task_files(make_groups(rows, []))))
    assert {"items/summary.json", "mmlu/summary.json", "mmlu/run_20260301_120005_llama3-8b.json"} <= names
    assert "summary.json" in named(task_files.task_files([only([answer()])]))


def test_models_never_share_a_file() -> None:
    names = ["a:b", "a/b", "a-b", "m" * 300, "m" * 299 + "n", "CON", "..", "x" * 47 + "é" * 40]
    contents = task_files.task_files(make_groups([answer(name) for name in names], []))
    paths = [content.name for content in contents]
    assert len(paths) == len(set(paths))
    assert all(len(name.encode()) <= 100 for name in paths)


def test_the_comparison_falls_back_to_the_summaries() -> None:
    groups = make_groups(TWO_MODELS, [])
    found = parsed(task_files.comparison_file(groups, analysis.plain(groups)))
    assert found["meta"]["models_compared"] == ["big", "small"]
    assert found["meta"]["analysis_model"] is None
    assert [summary["model"] for summary in found["summaries"]] == ["big", "small"]
    assert found["analysis"]["structured"] is None
    assert "big, items: 2 of 2 answered" in found["analysis"]["readable"]


def test_all_files_are_written_inside_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "results"
    written = saving.save_files(
        task_files.task_files(make_groups([answer("../../etc/x"), answer(task="a/b")], [])), out
    )
    assert written
    assert all(path.is_file() and path.resolve().is_relative_to(out.resolve()) for path in written)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    out, other = tmp_path / "results", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (out / "items").symlink_to(other)
    with pytest.raises(ConfigError, match="outside"):
        saving.save_files(task_files.task_files(make_groups([answer(), answer(task="chat")], [])), out)
    assert not any(other.iterdir())


# -- the log ---------------------------------------------------------------------------------------------------------


def test_the_log_has_one_header_and_only_grows(tmp_path: Path) -> None:
    log = tmp_path / "new" / "benchmark_log.csv"
    saving.append_log(log, [task_files.log_row(only([answer()]))])
    before = log.read_text()
    saving.append_log(log, [task_files.log_row(only([answer("other"), failed("other")]))])
    after = log.read_text()
    assert after.startswith(before)
    assert after.count("timestamp") == 1
    rows = list(csv.DictReader(io.StringIO(after)))
    assert list(rows[0]) == list(LOG_COLUMNS)
    assert (rows[1]["model"], rows[1]["success_rate"], rows[1]["total_items"]) == ("other", "0.5", "2")


def test_the_same_report_twice_adds_no_line(tmp_path: Path) -> None:
    for _ in range(2):
        saving.append_logs(make_groups(TWO_MODELS, []), tmp_path)
    assert len((tmp_path / "benchmark_log.csv").read_text().splitlines()) == 3


def test_a_log_without_a_last_line_end_is_not_broken(tmp_path: Path) -> None:
    log = tmp_path / "benchmark_log.csv"
    log.write_text(",".join(LOG_COLUMNS) + "\nolder,line,1,1,1,1,1")
    saving.append_log(log, [["2026", "m", 1.0, None, None, 1.0, 3]])
    assert log.read_text().splitlines()[1:] == ["older,line,1,1,1,1,1", "2026,m,1.0,,,1.0,3"]


def test_lines_of_several_writers_stay_whole(tmp_path: Path) -> None:
    log = tmp_path / "benchmark_log.csv"
    writers = [
        threading.Thread(target=saving.append_log, args=(log, [[f"t{number}", "m", 1.0, 1.0, 1.0, 1.0, 1]]))
        for number in range(20)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = list(csv.DictReader(io.StringIO(log.read_text())))
    assert {row["timestamp"] for row in rows} == {f"t{number}" for number in range(20)}


def test_what_is_in_the_way_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="is not a folder"):
            saving.check_folder(out)
    with pytest.raises(StorageError, match="cannot be written"):
        saving.append_log(tmp_path / "file" / "log.csv", [["a"]])
    assert (tmp_path / "file").read_text() == "mine"


# -- the hardware report ---------------------------------------------------------------------------------------------

MAC = DeviceInfo(
    "macOS-15.1-arm64", "mps", 48.0, "Apple M4 Pro", "Apple M4 Pro (20 cores)", "shared with system RAM", "Mac16,6"
)


def test_the_hardware_report_scores_prompts_over_the_median_latency() -> None:
    rows = [answer(item="a", latency_s=1.0), answer(item="b", latency_s=2.0), answer(item="c", latency_s=4.0)]
    content = hardware.hardware_file([only(rows)], MAC, "2026-03-01T12:00:00+00:00", "a machine")
    assert content.name.startswith("report_Mac16-6")
    found = parsed(content)
    assert found["device_info"]["host"] == "Mac16,6"
    assert found["device_info"]["gpu_memory_gb"] == "shared with system RAM"
    (task,) = found["tasks"]
    assert (task["dataset_size"], task["num_tasks"], task["task_score"]) == (3, 3, 3 * 3600 / 2.0)
    model = task["models"]["llama3:8b"]
    assert model["final_median_total_latency_s"] == 2.0
    assert model["final_median_generation_time_s"] == 1.5
    assert [run["total_latency_s"] for run in model["all_runs"]] == [1.0, 2.0, 4.0]


def test_embeddings_are_scored_by_models_over_the_sum_of_their_times() -> None:
    def vectors(model: str, seconds: float, text: str = "100 x 384 float32") -> AnswerRow:
        scores = {"embedding_dimension": 384.0, "encoding_time_s": seconds, "rows_per_s": 100 / seconds}
        return answer(model, "rows", seconds, task="embeddings", scores=scores, eval_count=None, ttft_s=None, text=text,
                      config={"rows": 100})  # fmt: skip

    rows = [vectors("gte", 2.0), vectors("gte", 1.0), vectors("gte", 9.0), vectors("bert", 6.0, "")]
    assert task_files.prompt_files(only(rows[:3]), "m") == []
    (task,) = parsed(hardware.hardware_file(make_groups(rows, []), MAC, "", ""))["tasks"]
    assert (task["dataset_size"], task["num_tasks"], task["task_score"]) == (100, 2, 2 * 3600 / 8.0)
    model = task["models"]["gte"]
    assert model["final_median_encoding_time_seconds"] == 2.0
    assert model["final_median_rows_per_second"] == 50.0
    assert model["embedding_dimension"] == 384
    assert (model["dtype"], task["models"]["bert"]["dtype"]) == ("float32", None)
    assert len(model["all_runs"]) == 3


# -- words -----------------------------------------------------------------------------------------------------------


def test_the_summary_at_the_end_of_a_run() -> None:
    right, wrong = {"score": 1.0}, {"score": 0.0}
    rows = [answer(item="a", latency_s=1.0, scores=right), answer(item="b", latency_s=3.0, scores=wrong)]
    rows += [failed(), answer("tiny", task="chat")]
    lines = summary_lines(rows, [])
    assert lines[0] == "llama3:8b (8B, Q4_K_M):"
    assert lines[1].startswith(
        "  items: 2 of 3 answered (67 %), latency 2 s (P95 2.90), ttft 0.500 s, 26.7 tokens/s (13.3–40"
    )
    assert "score 0.50 (0.09–0.91)" in lines[1]
    assert lines[2:] == ["tiny (8B, Q4_K_M):", lines[3]]
    assert summary_lines([], []) == []


def test_a_model_that_answered_nothing_is_in_the_summary() -> None:
    assert summary_lines([failed()], [])[1] == "  items: 0 of 1 answered (0 %)"


def test_the_table_is_aligned() -> None:
    lines = aligned(task_table(make_groups(TWO_MODELS, [])), left=2)
    assert {line.rstrip()[-7:] for line in lines[:1]} == {"min–max"}
    assert any(line.startswith("big    latency_s") for line in lines)
