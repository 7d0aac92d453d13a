"""Multiple choice over the files of MMLU: accuracy with its interval, and how often no letter could be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from ollama_sweep.core import summary
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.generation import GENERATE, Generation
from ollama_sweep.core.metrics import Kind, Metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Run
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import one_line
from ollama_sweep.tasks.base import Question, Setup
from ollama_sweep.tasks.shared import hub, mmlu_files, scorers, task_options
from ollama_sweep.tasks.shared.data import located
from ollama_sweep.tasks.shared.mmlu_files import SPLITS, Item
from ollama_sweep.tasks.shared.prompt_set import WARMUP, identity
from ollama_sweep.tasks.shared.scores import LATENCIES, SPEEDS, answered, latencies, means, slug, speed

OWN = ("subjects", "shots", "split", *hub.OPTIONS)
DEFAULT_SUBJECT = "abstract_algebra"
MOST_SHOTS = 5
DEFAULTS: Mapping[str, Scalar] = {"num_predict": 16, "temperature": 0}


class Task:
    """Questions with lettered choices. An answer without a readable letter is wrong, and counted as such beside."""

    version: ClassVar[int] = 2
    kind: ClassVar[str] = GENERATE
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "accuracy", "", 1, Kind.MEAN),
        Metric("letter_found", better=1, kind=Kind.SHARE),
        Metric("letter_failure_rate", "share of answers without a letter", "", -1, Kind.SHARE),
        Metric("accuracy_*", better=1, kind=Kind.MEAN),
        *SPEEDS,
        *LATENCIES,
    )

    def setup(self, given: Mapping[str, Node]) -> Setup:
        asked = task_options.read("mmlu", given, OWN)
        shots = task_options.count("mmlu", given, "shots", 0, MOST_SHOTS) or 0
        split = _split(given, shots)
        subjects = task_options.names("mmlu", given, "subjects")
        items, examples = _items(given, subjects, split, shots)
        chosen = _chosen(given, items, subjects)
        questions = tuple(_questions(chosen, _by_subject(examples), shots, asked.limit, given))
        options: dict[str, Scalar] = {
            "subjects": "all" if subjects == ("all",) else ",".join(chosen),
            "shots": shots,
            "split": split,
        }
        options |= {"limit": asked.limit} if asked.limit is not None else {}
        options |= {"system": asked.system} if asked.system else {}
        return Setup(
            questions=questions,
            hash=identity(questions),
            options=tuple(sorted(options.items())),
            request=asked.request,
            defaults=DEFAULTS,
            model=asked.model,
            system=asked.system,
            warmup=WARMUP,
            repeats=asked.repeats or 1,
            max_retries=asked.max_retries,
        )

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        choices = question.expected["choices"]
        assert isinstance(choices, list)
        found = scorers.letter(generation.text, choices)
        verdict = {"score": float(found == question.expected["answer"]), "letter_found": float(found is not None)}
        return speed(generation) | verdict

    def unjudged(self, generation: Generation) -> dict[str, float]:
        return speed(generation)

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        """accuracy over the answered questions, its 95 % interval, and letter_failure_rate, the share without a letter.

        A question that was asked several times counts once, with the mean of its answers.
        """
        accuracy, interval = summary.score_mean(answered(runs)), summary.score_interval(answered(runs))
        if accuracy is None or interval is None:
            return {}
        letters = means(runs, ["letter_found"])
        return {
            "accuracy": accuracy,
            "accuracy_low": interval[0],
            "accuracy_high": interval[1],
            **letters,
            "letter_failure_rate": 1 - letters["letter_found"],
            **latencies(runs),
            **_per_subject(runs),
        }


def _split(given: Mapping[str, Node], shots: int) -> str:
    if "split" not in given:
        return SPLITS[0]
    node = given["split"]
    split = node.line_of_text("tasks.mmlu.split")
    if split not in SPLITS:
        raise node.error(f"tasks.mmlu.split: {node.shown} is not one of {', '.join(SPLITS)}.{nearest(split, SPLITS)}")
    if split == "dev" and shots:
        raise node.error("tasks.mmlu.split: the examples of shots come from dev, so its questions cannot be asked, too")
    return split


def _items(
    given: Mapping[str, Node], subjects: tuple[str, ...], split: str, shots: int
) -> tuple[list[Item], list[Item]]:
    """The questions of the split, and those that examples come from."""
    dataset = hub.asked("mmlu", given)
    if dataset is not None:
        return _downloaded(dataset, given, subjects, split), (
            _downloaded(dataset, given, subjects, "dev") if shots else []
        )
    if "data" not in given:
        message = "mmlu needs data: PATH of a file or folder of MMLU, or datasets: cais/mmlu with download: true"
        raise ConfigError(message, next((node.place for node in given.values()), "tasks.mmlu"))
    path = located(given["data"], "tasks.mmlu.data")
    items = mmlu_files.read(path, split, given["data"])
    return items, mmlu_files.read_dev(path, given["data"]) if shots else []


def _downloaded(node: Node, given: Mapping[str, Node], subjects: tuple[str, ...], split: str) -> list[Item]:
    name = "tasks.mmlu.datasets"
    parts = subjects or (DEFAULT_SUBJECT,)
    known = hub.configurations(node, name)
    for part in parts:
        if part not in known:
            raise _unknown_subject(given.get("subjects", node), part, known)
    return [item for part in parts for item in mmlu_files.of_records(hub.rows(node, name, part, split), part)]


def _by_subject(items: Iterable[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.subject, []).append(item)
    return found


def _chosen(given: Mapping[str, Node], items: list[Item], subjects: tuple[str, ...]) -> dict[str, list[Item]]:
    """The items of the wanted subjects; of a file with one subject only, that one without being named."""
    found = _by_subject(items)
    if subjects == ("all",) or (not subjects and len(found) == 1):
        return found
    place = given.get("subjects") or given.get("data") or given["datasets"]
    for subject in subjects or (DEFAULT_SUBJECT,):
        if subject not in found:
            raise _unknown_subject(place, subject, found)
    return {subject: found[subject] for subject in subjects or (DEFAULT_SUBJECT,)}


def _unknown_subject(node: Node, subject: str, known: Iterable[str]) -> ConfigError:
    names = sorted(set(known) | {"all"})
    listed = ", ".join(one_line(name) for name in names)
    return node.error(
        f"tasks.mmlu.subjects: there is no subject {one_line(subject)}; there are {listed}.{nearest(subject, names)}"
    )


def _questions(
    chosen: Mapping[str, list[Item]],
    examples: Mapping[str, list[Item]],
    shots: int,
    limit: int | None,
    given: Mapping[str, Node],
) -> Iterable[Question]:
    """The questions in the words of the original evaluation, with `shots` solved examples in front."""
    for subject, items in chosen.items():
        solved = examples.get(subject, [])[:shots]
        if len(solved) < shots:
            message = f"tasks.mmlu.shots: {shots} asked, but {one_line(subject)} has {len(solved)} dev questions"
            raise given["shots"].error(message)
        topic = subject.replace("_", " ")
        opening = f"The following are multiple choice questions (with answers) about {topic}.\n\n"
        before = opening + "".join(item.text(with_answer=True) for item in solved)
        for number, item in enumerate(items[:limit]):
            expected: dict[str, object] = {"answer": item.answer, "choices": list(item.choices)}
            yield Question(f"{subject}/{number}", before + item.text(), subject, expected)


def _per_subject(runs: Sequence[Run]) -> dict[str, float]:
    found = summary.categories(answered(runs))
    if len(found) < 2:
        return {}
    scores = {f"accuracy_{slug(subject)}": found[subject].score for subject in sorted(found)}
    return {name: value for name, value in scores.items() if value is not None}
