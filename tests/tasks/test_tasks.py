"""Tasks: one contract for all of them, and what each makes of its options, its data and its answers."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama_fixture import ROOT
from task_making import (
    ALL,
    IN_WORDS,
    WITH_QUESTIONS,
    answer_of,
    only,
    options,
    run_of,
    runs_of,
    set_up,
    shipped,
    vectors,
)

from ollama_sweep import tasks
from ollama_sweep.core import metrics, stats
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.generation import EMBED, GENERATE, Generation
from ollama_sweep.core.summary import summarize_answers
from ollama_sweep.plan import setups
from ollama_sweep.tasks import embeddings, mmlu
from ollama_sweep.tasks.shared import data, scorers, task_options

# -- the contract ----------------------------------------------------------------------------------------------------

each_task = pytest.mark.parametrize("name", ALL)
each_asking = pytest.mark.parametrize("name", WITH_QUESTIONS)


def test_every_task_of_the_issue_is_there() -> None:
    assert {"prompt_eval", "chat", "items", "json_quality", "mmlu", "embeddings", "latency_quality"} <= set(ALL)


@each_task
def test_a_task_says_its_version_and_kind(name: str) -> None:
    task = tasks.load(name)
    assert task.version >= 1
    assert task.kind == (EMBED if name == "embeddings" else GENERATE)


@each_task
def test_an_unknown_option_is_refused_with_its_line(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^grid\.yaml:\d+: tasks\.{name}"):
        set_up(name, "\nlimmit: 3\n")


@each_asking
def test_questions_have_ids_and_everything_in_a_setup_can_be_stored(name: str) -> None:
    setup = set_up(name)
    assert len({question.id for question in setup.questions}) == len(setup.questions) > 0
    assert all(bool(question.text) != bool(question.texts) for question in setup.questions)
    assert setup.warmup
    assert setup.warmup.text or setup.warmup.texts
    assert setup.hash.startswith("sha256:")
    assert list(setup.options) == sorted(setup.options)
    json.dumps([setup.options, dict(setup.request), dict(setup.defaults)])
    assert all(value is None or isinstance(value, str | int | float | bool) for _, value in setup.options)


@each_asking
def test_the_same_questions_have_the_same_identity(name: str) -> None:
    assert set_up(name) == set_up(name)


@pytest.mark.parametrize("name", IN_WORDS)
def test_common_options_arrive(name: str) -> None:
    setup = set_up(name, "\nsystem: Be brief.\ntemperature: 0.1\nseed: 7\ntop_p: 0.5\nnum_predict: 9\nmodel: other\n"
                         "repeats: 4\nmax_retries: 0\nlimit: 1\n")  # fmt: skip
    assert setup.request == {"temperature": 0.1, "seed": 7, "top_p": 0.5, "num_predict": 9}
    assert (setup.system, setup.model, setup.repeats, setup.max_retries) == ("Be brief.", "other", 4, 0)
    assert dict(setup.options)["system"] == "Be brief."
    assert dict(setup.options)["limit"] == 1
    assert len(setup.questions) in (1, 2)  # of mmlu one for each subject


@pytest.mark.parametrize("name", IN_WORDS)
def test_max_tokens_is_num_predict_and_only_one_of_them_may_be_given(name: str) -> None:
    assert set_up(name, "\nmax_tokens: 12").request == {"num_predict": 12}
    with pytest.raises(ConfigError, match="max_tokens and num_predict are the same; give one of them"):
        set_up(name, "\nmax_tokens: 12\nnum_predict: 12")


@pytest.mark.parametrize("name", IN_WORDS)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature: hot", 'temperature: "hot" is text; write numbers like 0.8'),
        ("temperature: -1", "temperature: -1 is outside 0 to 100"),
        ("num_predict: 0", "num_predict: 0 is outside 1 to 10000000"),
        ("max_tokens: 1.5", "max_tokens: 1.5 is not a whole number"),
        ("repeats: 0", "repeats: 0 is outside 1 to 1000"),
        ("max_retries: -1", "max_retries: -1 is outside 0 to 100"),
        ("limit: 0", "limit: 0 is outside 1 to 1000000"),
        ("system: 5", "system must be text"),
        ("num_ctx: 4096", "unknown option num_ctx; known are"),
        ("num_batch: 64", "It belongs to the load: write it beside num_ctx."),
        ("temprature: 0", "Did you mean temperature?"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        set_up(name, "\n" + text)
    assert str(caught.value).startswith("grid.yaml:")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", IN_WORDS)
@settings(max_examples=20)
@given(text=st.text(), duration_s=st.just(0.0) | st.floats(1e-6, 1e6), tokens=st.none() | st.integers(0, 10**6))
def test_any_answer_gets_numbers_that_can_be_stored(
    name: str, text: str, duration_s: float, tokens: int | None
) -> None:
    setup, task = shipped(name), tasks.load(name)
    runs = [run_of(task, question, answer_of(text, duration_s, tokens)) for question in setup.questions[:8]]
    for scores in [*(run.scores for run in runs), task.summarize(runs)]:
        assert all(math.isfinite(value) for value in scores.values())
        assert all(metrics.metric(score) for score in scores), "a name that cannot be a metric"
    assert all(0 <= run.scores.get("score", 0) <= 1 for run in runs)


@each_task
def test_nothing_answered_gives_no_mean_and_no_error(name: str) -> None:
    task = tasks.load(name)
    assert not any(task.summarize([]).values())
    runs = runs_of(name, set_up(name), [None] * 50)
    summary = task.summarize(runs)
    assert not [score for score in summary if "score" in score or "accuracy" in score or "latency" in score]
    assert all(value == 0 for value in summary.values()), "the breakdown says that nothing was answered"


@pytest.mark.parametrize("name", IN_WORDS)
def test_a_failed_answer_is_in_no_mean(name: str) -> None:
    """Its 99 s of waiting and its missing text would change every number."""
    setup, task = set_up(name), tasks.load(name)
    good = [answer_of("A short answer.", 1.0 + place) for place in range(len(setup.questions) - 1)]
    with_failure, without = runs_of(name, setup, [*good, None]), runs_of(name, setup, good)
    of_categories = ("success_rate_", "answers_")
    shared = {key: value for key, value in task.summarize(without).items() if not key.startswith(of_categories)}
    assert {key: task.summarize(with_failure)[key] for key in shared} == shared


@pytest.mark.parametrize("name", IN_WORDS)
def test_a_warm_up_is_in_no_mean(name: str) -> None:
    setup, task = set_up(name), tasks.load(name)
    runs = runs_of(name, setup, [answer_of("An answer.")] * 3)
    warm = replace(runs[0], warmup=True, client_duration_s=1e6)
    assert task.summarize([warm, *runs]) == task.summarize(runs)


# -- the registry ----------------------------------------------------------------------------------------------------


def test_an_unknown_task_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown task chatt\. Known: .*Did you mean chat\?"):
        tasks.load("chatt")


def test_options_of_a_task_that_is_not_run_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^grid\.yaml:1: tasks\.item: this sweep does not run it.*Did you mean items"
    ):
        setups.set_up(["items", "chat"], {"item": options("limit: 2")})
    with pytest.raises(ConfigError, match=r"^tasks\.mmlu: tasks\.mmlu: this sweep does not run it; it runs chat\."):
        setups.set_up(["chat"], {"mmlu": {}})


def test_the_setups_of_a_sweep_are_made_at_once() -> None:
    found = setups.set_up(["prompt_eval", "chat", "items"], {"chat": options("limit: 2")})
    assert list(found) == ["prompt_eval", "chat", "items"]
    assert len(found["chat"].questions) == 2
    assert not found["prompt_eval"].questions


OWN_SET = """version: 4
system: You know animals.
options: {max_tokens: 5, temperature: 0}
prompts:
  - id: whale
    category: Facts
    prompt: Is a whale a fish?
    expect: {equals: "no"}
  - id: say_hello
    prompt: Say hello.
"""


def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str) -> None:
    (tmp_path / "prompts").mkdir(exist_ok=True)
    (tmp_path / "prompts" / name).write_text(content, "utf-8")
    monkeypatch.chdir(tmp_path)


def test_a_prompt_set_is_a_task_without_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_folder(tmp_path, monkeypatch, "animals.yaml", OWN_SET)
    assert "animals" in tasks.known()
    setup, task = set_up("animals"), tasks.load("animals")
    assert [question.id for question in setup.questions] == ["whale", "say_hello"]
    assert setup.system == "You know animals."
    assert setup.defaults == {"num_predict": 5, "temperature": 0}
    assert dict(setup.options) == {"prompts_version": 4, "system": "You know animals."}
    assert task.score(setup.questions[0], answer_of("No."))["score"] == 1
    assert task.score(setup.questions[0], answer_of("Yes."))["score"] == 0
    assert "score" not in task.score(setup.questions[1], answer_of("Hello"))


def test_a_changed_set_is_another_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_folder(tmp_path, monkeypatch, "animals.yaml", OWN_SET)
    before = set_up("animals")
    in_folder(tmp_path, monkeypatch, "animals.yaml", OWN_SET.replace('"no"', '"yes"'))
    assert set_up("animals").hash != before.hash
    in_folder(tmp_path, monkeypatch, "animals.yaml", OWN_SET.replace("version: 4", "version: 5"))
    assert (set_up("animals").hash, set_up("animals").options != before.options) == (before.hash, True)


def test_a_set_of_the_working_directory_replaces_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_folder(tmp_path, monkeypatch, "chat.yaml", OWN_SET)
    assert [question.id for question in set_up("chat").questions] == ["whale", "say_hello"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("temperature: 0}", "temprature: 0}", r"prompts/animals\.yaml:3: options: unknown option temprature"),
        ("temperature: 0}", "num_predict: 5}", r"animals\.yaml:3: options: max_tokens and num_predict are the same"),
        ("id: say_hello", "id: whale", r"animals\.yaml:9: id whale is given twice \(first at .*animals\.yaml:5\)"),
        ("prompt: Say hello.", "promt: Say hello.", r"animals\.yaml:10: unknown field promt\. Did you mean prompt\?"),
        ("equals:", "equal:", r"animals\.yaml:8: expect: unknown name equal; .* Did you mean equals\?"),
    ],
)
def test_a_mistake_in_a_set_is_said_with_its_line(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_folder(tmp_path, monkeypatch, "animals.yaml", OWN_SET.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        set_up("animals")


def test_another_package_may_add_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "added_task.py").write_text("from ollama_sweep.tasks.prompt_eval import Task\n", "utf-8")
    info = tmp_path / "added_task-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added-task\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[ollama_sweep.tasks]\nadded = added_task\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "added" in tasks.known()
    assert tasks.load("added").setup({}).is_fresh


# -- chat ------------------------------------------------------------------------------------------------------------


def test_chat_asks_three_fresh_prompts_as_often_as_the_sweep_says() -> None:
    setup = set_up("chat")
    assert (len(setup.questions), setup.is_fresh, setup.repeats) == (3, True, None)
    assert (setup.system, setup.defaults) == ("You are a helpful assistant.", {"num_predict": 100})


def test_chat_scores_of_one_answer() -> None:
    scores = tasks.load("chat").score(set_up("chat").questions[0], answer_of("four words of text", 2.0, 10))
    assert scores == {"output_words": 4, "generation_time_s": 1.5, "chars_per_s": 9.0, "tokens_per_s": 5.0}


def test_what_the_engine_did_not_say_is_left_out() -> None:
    unknown = Generation("two words", None, None, client_duration_s=0.0)
    assert tasks.load("chat").score(set_up("chat").questions[0], unknown) == {"output_words": 2}


def test_chat_says_percentiles_and_requests_per_minute() -> None:
    setup, task = set_up("chat"), tasks.load("chat")
    runs = [run_of(task, setup.questions[0], answer_of("text", float(second))) for second in range(1, 101)]
    summary = task.summarize(runs)
    assert (summary["latency_p50_s"], summary["latency_max_s"], summary["latency_mean_s"]) == (50.5, 100.0, 50.5)
    assert math.isclose(summary["latency_p95_s"], 95.05)  # numpy.percentile(range(1, 101), 95)
    assert math.isclose(summary["latency_p99_s"], 99.01)
    assert math.isclose(summary["requests_per_min"], 60 / 50.5)


# -- items -----------------------------------------------------------------------------------------------------------

ITEM = {"id": "a", "category": "Summarization", "prompt": "Summarize.", "expect": {"max_words": 2}}


def items_file(folder: Path, *items: object, name: str = "items.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return f"data: {path}\n"


def test_items_ship_with_references_in_three_categories() -> None:
    setup = set_up("items")
    assert {question.category for question in setup.questions} == {
        "Summarization", "Extraction", "Instruction Following",
    }  # fmt: skip
    assert all("reference" in one.expected for one in setup.questions if one.category == "Summarization")
    assert setup.defaults == {"num_predict": 100, "temperature": 0.7}
    assert setup.max_retries == 2


def test_items_break_down_by_category(tmp_path: Path) -> None:
    other = {"id": 2, "category": "Instruction Following", "prompt": "Say no.", "expect": {"equals": "no"}, "mine": 1}
    setup = set_up("items", items_file(tmp_path, ITEM, {**ITEM, "id": "b"}, other))
    assert setup.questions[2].id == "2"
    runs = runs_of("items", setup, [answer_of("short", 2.0, 10), None, answer_of("maybe", 1.0, 20)])
    summary = tasks.load("items").summarize(runs)
    wanted = {
        "answers_summarization": 1, "success_rate_summarization": 0.5, "score_summarization": 1.0,
        "avg_tps_summarization": 5.0, "success_rate_instruction_following": 1.0, "score_instruction_following": 0.0,
        "avg_tokens_per_s": 12.5, "within_length": 1.0,
    }  # fmt: skip
    assert {name: summary[name] for name in wanted} == wanted
    assert "score" not in summary, "the core makes it"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({**ITEM, "id": "a"}, r"id a is given twice \(first at .*items\.jsonl:1\)"),
        ({"category": "x", "prompt": "y"}, "id is missing; the item has category, prompt"),
        ({"id": "b", "prompt": "y"}, "category is missing"),
        ({"id": "b", "category": "x"}, "prompt is missing"),
        ({**ITEM, "id": "b", "prompt": 7}, "prompt: 7 is a number; it must be text"),
        ({**ITEM, "id": True}, "id: true is true or false; it must be text"),
        ({**ITEM, "id": "b", "refrence": "z"}, r"unknown field refrence\. Did you mean reference\?"),
        ({**ITEM, "id": "b", "expect": ["short"]}, "expect: must have names from facts,"),
        ({**ITEM, "id": "b", "expect": {"max_word": 2}}, r"unknown name max_word; .*Did you mean max_words\?"),
        ({**ITEM, "id": "b", "expect": {"max_words": "2"}}, r'expect\.max_words: "2" must be a whole number'),
        ({**ITEM, "id": "b", "expect": {"facts": []}}, r"expect\.facts: \[\] must be a list of texts"),
        ({**ITEM, "id": "b", "expect": {"facts": [[]]}}, r"expect\.facts: .* must be a list of texts"),
        ({**ITEM, "id": "b", "expect": {"json": "yes"}}, r'expect\.json: "yes" must be true or false'),
        ({**ITEM, "id": "b", "expect": {"fields": ["a"]}}, r"expect\.fields: .* must be names and values"),
        ({**ITEM, "id": "b", "expect": {"min_words": 5, "max_words": 2}}, "min_words is larger than max_words"),
        ({**ITEM, "id": "b", "category": "summarization!"}, 'category "summarization!" is too like "Summarization"'),
        ({**ITEM, "id": "b", "reference": 5}, "reference: 5 is a number"),
    ],
)
def test_a_bad_item_is_named_with_its_line(second: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^.*items\.jsonl:2: .*" + message):
        set_up("items", items_file(tmp_path, ITEM, second))


def test_items_from_csv_write_what_they_expect_as_json(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('id,category,prompt,expect\n1,X,Hello?,"{""equals"": ""yes""}"\n2,X,There?,\n', "utf-8")
    first, second = set_up("items", f"data: {path}").questions
    assert (first.expected, second.expected) == ({"equals": "yes"}, {})


# -- json_quality ----------------------------------------------------------------------------------------------------


def test_json_is_counted_as_k_of_n_where_it_was_asked_for(tmp_path: Path) -> None:
    json_item = {"id": "j1", "prompt": "Return JSON with name. Text: Ada Berg.", "expect": {"keys": ["name"]}}
    text_item = {"id": "t", "prompt": "Summarize.", "expect": {"max_words": 3}}
    items = [json_item, {**json_item, "id": "j2"}, {**json_item, "id": "j3"}, {**json_item, "id": "j4"}, text_item]
    setup = set_up("json_quality", items_file(tmp_path, *items))
    answers = ['{"name": "Ada Berg"}', 'Sure: {"name": "N/A"}', "no", None, '{"not": "looked at"}']
    runs = runs_of("json_quality", setup, [answer_of(text) if text else None for text in answers])
    summary = tasks.load("json_quality").summarize(runs)
    wanted = {
        "json_answers": 3, "valid_json_failures": 1, "no_extra_text_failures": 2, "has_required_keys_failures": 1,
        "no_hallucination_failures": 1, "valid_json": 2 / 3, "placeholder_values": 0.5, "within_length": 1.0,
    }  # fmt: skip
    assert {name: summary[name] for name in wanted} == wanted
    assert "valid_json" not in runs[4].scores


def test_the_shipped_json_prompts_can_be_answered_perfectly() -> None:
    answers = {
        "contact": '{"name": "Leonie Hartwig", "email": "leonie@allotments.example"}',
        "event": '{"event": "winter concert", "day": "Sunday", "place": "town hall", "price": 12}',
        "no_email": '{"name": "Ruben Okafor"}',
        "list": '{"colours": ["green", "white", "grey"]}',
        "book": '{"title": "The Salt Path Home", "author": "Edda Nyberg", "year": 1968}',
        "choice": '{"verdict": "negative"}',
        "summary": "From 3 March the library in Osterfeld lends tools in a free workshop.",
        "bullets": "- water\n- a map\n- bread",
    }
    setup, task = set_up("json_quality"), tasks.load("json_quality")
    assert {question.id for question in setup.questions} == set(answers)
    scores = {one.id: task.score(one, answer_of(answers[one.id])) for one in setup.questions}
    assert {name: found["passed"] for name, found in scores.items()} == dict.fromkeys(answers, 1.0)


DATASETS = """
def disable_progress_bars(): pass
def get_dataset_config_names(name):
    if name != "cais/mmlu": raise FileNotFoundError(f"{name} is not there\\nmore")
    return ["all", "anatomy", "abstract_algebra"]
def load_dataset(name, configuration, split):
    if name == "cais/mmlu":
        row = {"question": f"{configuration} {split}?", "subject": configuration, "choices": ["1", "2"], "answer": 1}
        return [row] * 5
    if name != "imdb": raise FileNotFoundError(f"{name} is not there\\nmore")
    return [{"text": f"review {number}", "label": 0} for number in range(int(split[len("train[:"):-1]))]
"""


@pytest.fixture
def datasets_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name with its two functions, in place of one that would ask the network."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "datasets.py").write_text(DATASETS, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "package"))
    monkeypatch.delitem(sys.modules, "datasets", raising=False)


@pytest.mark.usefixtures("datasets_package")
def test_mmlu_through_datasets_where_it_is_allowed() -> None:
    setup = only("mmlu", "datasets: cais/mmlu\ndownload: true\nsubjects: anatomy\nshots: 2\nlimit: 3")
    assert [question.id for question in setup.questions] == ["anatomy/0", "anatomy/1", "anatomy/2"]
    assert setup.questions[0].text.count("anatomy dev?") == 2
    with pytest.raises(ConfigError, match=r"there is no subject anatomi; .*Did you mean anatomy\?"):
        only("mmlu", "datasets: cais/mmlu\ndownload: true\nsubjects: anatomi")
    with pytest.raises(ConfigError, match=r'^grid\.yaml:1: .*"no/such" cannot be loaded \(no/such is not there\)$'):
        only("mmlu", "datasets: no/such\ndownload: true")


@pytest.mark.usefixtures("datasets_package")
def test_embeddings_through_datasets() -> None:
    setup = only("embeddings", "datasets: imdb\ndownload: true\nrows: 30\nwarmup_rows: 5")
    assert (len(setup.questions[0].texts), setup.questions[0].texts[29]) == (30, "review 29")


def test_without_the_package_datasets_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for name in ("mmlu", "embeddings"):
        with pytest.raises(ConfigError, match=r"pip install 'ollama-sweep\[data\]'"):
            only(name, "datasets: cais/mmlu\ndownload: true")


# -- embeddings ------------------------------------------------------------------------------------------------------


def test_embeddings_ask_100_rows_in_batches_of_16_after_50() -> None:
    setup = set_up("embeddings")
    [question] = setup.questions
    assert (len(question.texts), question.batch_size, setup.repeats) == (100, 16, None)
    assert setup.warmup
    assert len(setup.warmup.texts) == 50
    assert len(set(question.texts)) == 100


def test_embeddings_say_rows_per_second_and_their_range() -> None:
    setup, task = set_up("embeddings"), tasks.load("embeddings")
    runs = [run_of(task, setup.questions[0], vectors(100, duration_s)) for duration_s in (2.0, 4.0, 5.0)]
    assert runs[0].scores == {"rows_per_s": 50.0, "encoding_time_s": 2.0, "embedding_dimension": 384.0}
    runs.append(run_of(task, setup.questions[0], None))
    scores = summarize_answers(runs, task.summarize(runs)).scores
    assert {name: value for name, value in scores.items() if name.startswith(("rows_per_s", "encoding_time_s"))} == {
        "rows_per_s": 25.0, "rows_per_s_min": 20.0, "rows_per_s_max": 50.0,
        "encoding_time_s": 4.0, "encoding_time_s_min": 2.0, "encoding_time_s_max": 5.0,
    }  # fmt: skip


def test_rows_come_from_a_file_and_any_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("label,review\n1,good film\n0,bad film\n", "utf-8")
    setup = set_up("embeddings", f"data: {path}\ncolumn: review\nmodel: embedder\nbatch_size: 2")
    assert setup.questions[0].texts == ("good film", "bad film")
    assert (setup.model, dict(setup.options)) == ("embedder", {"batch_size": 2, "rows": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: FILE", r"rows\.csv:2: text is missing; the item has label, review"),
        ("data: FILE\ncolumn: review\nrows: 3", r"grid\.yaml:3: tasks\.embeddings\.rows: 3 asked, but there are 1"),
        ("temperature: 0", r"grid\.yaml:1: tasks\.embeddings: unknown option temperature"),
        ("batch_size: 0", r"grid\.yaml:1: tasks\.embeddings\.batch_size: 0 is outside 1 to 10000"),
        ("split: test", r"grid\.yaml:1: tasks\.embeddings\.split: is for datasets: NAME"),
    ],
)
def test_what_embeddings_refuse(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("label,review\n1,good film\n", "utf-8")
    with pytest.raises(ConfigError, match=message):
        set_up("embeddings", text.replace("FILE", str(path)))


# -- the figures behind them -----------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 1))
def test_percentiles_are_numpys(values: list[float], share: float) -> None:
    import numpy as np

    assert math.isclose(stats.percentile(values, share), float(np.percentile(values, 100 * share)), abs_tol=1e-5)


def test_the_interval_of_a_share() -> None:
    low, high = stats.wilson(0.9, 10)
    assert math.isclose(low, 0.5958, abs_tol=1e-4)
    assert math.isclose(high, 0.9821, abs_tol=1e-4)
    assert stats.wilson(0, 20)[0] == 0
    assert stats.wilson(1, 20)[1] == 1
    with pytest.raises(ValueError, match="needs trials"):
        stats.wilson(0.5, 0)


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_page_names_every_task_every_option_and_every_expectation() -> None:
    page = (ROOT / "docs" / "tasks.md").read_text("utf-8")
    own = [*task_options.SETTINGS, *mmlu.OWN, *embeddings.OWN]
    for name in [*scorers.EXPECTATIONS, *own, *data.SUFFIXES]:
        assert f"`{name}`" in page, name
    for name in ALL:
        assert f"\n## {name}\n" in page, name


def test_how_json_is_read_is_part_of_what_is_judged_by_it(tmp_path: Path) -> None:
    """And of nothing else, so that cells of other questions stay finished."""
    plain, of_json = tmp_path / "plain.jsonl", tmp_path / "json.jsonl"
    plain.write_text('{"id": "a", "category": "c", "prompt": "Say it.", "expect": {"facts": ["x"], "json": false}}\n')
    of_json.write_text('{"id": "a", "category": "c", "prompt": "Say it.", "expect": {"fields": {"x": 1}}}\n')
    for task in ("items", "chat"):
        assert "json_version" not in dict(only(task, f"data: {plain}").options)
        assert dict(only(task, f"data: {of_json}").options)["json_version"] == 2
    assert "json_version" not in dict(only("json_quality", f"data: {of_json}").options)
