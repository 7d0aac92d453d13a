"""CSV text as programs write it: which sign stands between the fields, and where each row begins."""

from __future__ import annotations

import pytest

from ollama_sweep.core.separated import NotRows, rows


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a,b\n1,2\n", [["a", "b"], ["1", "2"]]),
        ("a;b\r\n1;2,5\r\n", [["a", "b"], ["1", "2,5"]]),
        ("a\tb\n1, 2\t3;4\n", [["a", "b"], ["1, 2", "3;4"]]),
        ("sep=;\na;b\n1\n", [["a", "b"], ["1"]]),
        ('"sep=\t"\r\na\tb\r\n', [["a", "b"]]),
        ('a;b\n"x;\ny";"z,"\n', [["a", "b"], ["x;\ny", "z,"]]),
        ("text\nhello; world\none, two\n", [["text"], ["hello; world"], ["one", " two"]]),
        ("prompt\nhello\n", [["prompt"], ["hello"]]),
        ("a;b,c\n1;2,3\n", [["a;b", "c"], ["1;2", "3"]]),
        ("a;b\n1;2;3\n", [["a;b"], ["1;2;3"]]),
        ("", []),
    ],
)
def test_another_sign_than_the_comma_is_taken_where_it_is_certain(text: str, fields: list[list[str]]) -> None:
    assert [row for row, _ in rows(text)] == fields


def test_a_row_has_the_line_where_it_begins() -> None:
    assert [line for _, line in rows('sep=;\na;b\n"1\n1";2\n\n3;4\n')] == [2, 3, 6]
    with pytest.raises(NotRows) as caught:
        list(rows('a,b\n1,2\n"3,4\n'))
    assert caught.value.line == 3
