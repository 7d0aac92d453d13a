"""The letter that a person would read in an answer, whatever the answer looks like."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ollama_sweep.tasks.shared.letters import LETTERS, letter

NUMBERS = ["4", "2 apples", "a ring", "zero"]
TRUTHS = ["True, True", "False, False", "True, False", "False, True"]
TEN = [f"item {number}" for number in range(10)]
CITIES = ["London", "Paris", "Rome", "Oslo"]

CITIES_READ = {
    "": [
        "Option B is incorrect.",
        "Option B is wrong.",
        "B is not correct",
        "Not B.",
        "The answer is not B.",
        "A, B and C are incorrect.",
        "neither A nor B",
        "The wrong answer is B",
        "A: x\nB: y\nC: z\nD: w",
        "A: x\nB: y\nC: …",
        "Answer:\nA: x\nB: y\nC: z",
        "A) London B) Paris C) Rome D) Oslo",
        "(A) London\n(B) Paris\n(C) Rome\n(D) Oslo",
        "a) London\nb) Paris\nc) Rome\nd) Oslo",
        "Option A: x\nOption B: y",
        "- A\n- B\n- C\n- D",
        "A/B/C/D",
        "Option A/B/C/D",
        "Option A/B/C/D \nAnswer: A/B\nExplanation: The",
        "C/A/C/D \nThe relation",
        "Paris, not London",
        "The answer is B and C",
        "A or B",
        "Both A and B",
        "A, B, C",
        "The answers are A and C",
        "A thing is unclear",
        "A good question",
        "A Sylow subgroup",
        "",
        "None of the above",
        "E",
        "The answer is **not** A.",
        "A is incorrect. B is incorrect. D is incorrect.",
        "Answer: ABCD",
        "Answer: BC",
        "A and B are wrong. C and D are wrong.",
    ],
    "A": [
        'Answer: "A"',
        "Answer: 'A'",
        "Answer: [A]",
        "Answer: (A)",
        "Answer: {A}",
        "Answer: **A**",
        '"A"',
        "“A”",
        "The answer is “A”.",
        "Answer is: a",
        "the answer is a.",
        "a) London",
        "a. London",
        "a",
        "Option a",
        "Option A/B/C/D\n\nThe answer is A. 1\n\nThe",
        "\\boxed{C} no \\boxed{A}",
        "Thus the correct answer is option A.",
        "So it's A.",
        "I think it is A.",
        "A is the answer",
        "Option A seems to be right",
        "The answer is A because London",
        "A because it is",
        "A - London",
        "A London",
        "The answer is option a",
        "Answer: A. B is incorrect because Paris",
        "The answer is A, not B.",
        "Correct Option: A",
        "Correct option is a.",
    ],
    "B": [
        'Answer: "B"',
        "Answer: ‘B’",
        "b. 4",
        "b) 4",
        "(b) 4",
        "answer: b",
        "Option A is incorrect, so the answer is B",
        "not A but B",
        "A. London\nB. Paris\nC. Rome\nD. Oslo\n\nB",
        "A/B/C/D \nAnswer: B\nExplanation: Statement",
        "Option A/B/C/D \nThe maximum is 12, which is option B.",
        "So \\boxed{\\text{(B)}}",
        "\\boxed{Paris}",
        "\\boxed{\\text{B. Paris}}",
        "The correct choice is B",
        "Correct: B",
        "The right answer would be B",
        "**Answer:** B",
        "### Answer\nB",
        "**Answer: B. Paris**",
        "Answer - B",
        "Answer → B",
        "<answer>B</answer>",
        '{"answer": "B"}',
        "Answer：B",
        "My answer is B.",
        "I choose (B)",
        "Therefore, B.",
        "It is B",
        "B is correct.",
        "Option B is the correct answer.",
        "B (Paris) is correct",
        "B Paris",
        "B, Paris",
        "Answer: Paris",
        "The capital is Paris.",
        "B\n\nQuestion: what else?\nA. x\nB. y\nC. z\nD. w\nAnswer: C",
        "B. Paris\n\nExplanation:\nA. London is in England\nC. Rome is in Italy",
        "A. London ✗\nB. Paris ✓\nC. Rome\nD. Oslo",
        "A. London\nB. Paris (correct)\nC. Rome",
        "Let me look. A is London. B is Paris. Paris is the capital.\n\nAnswer: B",
        "First I thought answer A, but the answer is B",
        "Choice: B",
        "Choice B",
        "Letter B",
        "The letter is B",
        "The answer is:\n\nB. Paris",
        "The answer is:\n\nB",
        "Answer:\n\n(B) Paris",
        "Step 1: A is not right.\nStep 2: B fits.\nAnswer B",
        "The best answer is (B) because A is wrong",
        "[[B]]",
        "`B`",
        "> B",
        "- B",
        "#### B",
        "B!",
        "The correct answer is B: Paris. A is London, which is wrong.",
        "I would say that B is the capital",
        "B) Paris is the capital of France. A) London is in England.",
        "Sure! The answer is b",
        "the correct answer is 'b'",
        "Answer:B",
        "ANSWER: B",
        "Ans: B",
        "The answer: (B).",
        "Hence, option (B) is correct.",
        "Hence option B",
        "Between A and B, I choose B.",
    ],
    "C": [
        "the answer is c because",
        "The answer is not B, it is C.",
        "Options A and B are wrong, so C.",
        "\\fbox{C}",
        "The correct option is (c)",
        "Correct answer: C) Rome",
        "I'll go with option C.",
        "C is the best answer",
        "Selected option: C",
        "Answer: c) Rome",
        "A is incorrect. C is correct.",
        "the answer is neither A nor B but C",
    ],
    "D": [
        "option (d)",
        "It cannot be A. It must be D.",
        "The answer is A, I mean $\\boxed{D}$.",
        "Final Answer: (D)",
        "Therefore, the answer is D.",
        "The answer to this question is D",
        "answer is d: Oslo",
        "D",
        "D.",
    ],
}

TEN_READ = {
    "": [
        "I am not sure.",
        "I cannot determine the answer",
    ],
    "D": [
        "I believe it is D.",
    ],
    "G": [
        "I'd say G",
    ],
    "H": [
        "I think the answer is (H).",
    ],
    "I": [
        "I",
        "The answer is I.",
        "Answer: I",
        "(I)",
        "I choose I",
        "I. item 8",
    ],
    "J": [
        "I would go with J.",
    ],
}

TRUTHS_READ = {
    "": [
        "A/True/C/False",
    ],
    "A": [
        "The answer is A. True, True.",
        "A/B/C/D \nThe answer is A. True.\n\nStatement",
    ],
    "C": [
        "Answer: True, False",
        "True, False",
    ],
}

NUMBERS_READ = {
    "C": [
        "The answer is a ring",
        "The answer is A ring",
        "A ring",
    ],
    "D": [
        "Answer: zero",
    ],
}
"""Answers by the letter that they choose; "" stands for none."""

ANY_LETTER = (
    "X", "x", "X.", "(X)", "(x)", "[X]", "'X'", '"X"', "**X**", "X)", "x)", "x.", "Answer: X", "Answer: x", "Answer:X",
    "answer is x", 'Answer: "X"', "Answer: 'x'", "The answer is X.", "The answer is X because of it.",
    "The correct answer is (X).", "The correct option is x", "Option X", "option x", "Option X is correct.",
    "X is correct.", "I think it is X.", "I believe it is X.", "I'd go with X.", "I choose X.", "I would say X.",
    "My answer: X", "Final answer: X", "\\boxed{X}", "$\\boxed{\\text{X}}$", "Therefore X.", "It must be X.",
    "<b>X</b>", "Answer: <X>", "Answer: X\n\nIt is so.", "X\n\nIt is so.", "Reasons first.\n\nX", '{"answer": "X"}',
    "Answer - X", "The best choice is X.", "Correct choice: X", "The letter is X.", "X, because of it.", "X - it is so",
    "the answer is x.", "so it's X", "`X`", "> X", "Hence, X is the answer.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("choices", "read"),
    [(CITIES, CITIES_READ), (NUMBERS, NUMBERS_READ), (TRUTHS, TRUTHS_READ), (TEN, TEN_READ)],
    ids=["cities", "numbers", "truths", "ten"],
)
def test_an_answer_is_read_as_a_person_reads_it(choices: Sequence[str], read: dict[str, list[str]]) -> None:
    wrong = {
        text: found
        for wanted, texts in read.items()
        for text in texts
        if (found := letter(text, choices) or "") != wanted
    }
    assert wrong == {}


@pytest.mark.parametrize("count", [2, 4, 9, 10])
def test_no_letter_is_read_more_easily_than_another(count: int) -> None:
    """A score is no fair one where `Answer: "B"` is read and `Answer: "A"` is not."""
    wrong = []
    for text in ANY_LETTER:
        for wanted in LETTERS[:count]:
            said = text.replace("X", wanted) if "X" in text else text.replace("x", wanted.lower())
            if letter(said, TEN[:count]) != wanted:
                wrong.append(said)
    assert wrong == []


def test_a_slash_parts_a_letter_from_its_choice() -> None:
    choices = ["Yes, with p=2.", "Yes, with p=3.", "Yes, with p=5.", "No."]
    assert letter("A/Yes, with p=2. \nThe polynomial is reducible.", choices) == "A"
    assert letter("A/No.", choices) == "A"


def test_choices_that_are_letters_or_nothing_do_no_harm() -> None:
    assert letter("Answer: B", ["A", "B", "C", "D"]) == "B"
    assert letter("Answer: B", ["", "", "", ""]) == "B"
    assert letter("", ["", ""]) is None
    assert letter("(" * 3000 + "A" + "/A" * 3000, CITIES) is None
