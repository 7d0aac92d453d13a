"""Modelfile templates: Ollama's grammar, what a sweep replaces in them, and what of them is identity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Scalar
from ollama_sweep.engines.shared import modelfile

TEMPLATE = '''# A comment above
from llama3:8b
PARAMETER num_ctx 4096
parameter temperature 0.7

TEMPLATE """{{ .System }}
PARAMETER num_ctx 1
# not a comment
{{ .Prompt }}"""
SYSTEM "You say
PARAMETER often"
PARAMETER stop "<|end|>"
PARAMETER stop """He said "stop" """
MESSAGE user What is 1 # 2?
# the end'''


RENDERED = '''# A comment above
FROM base:latest

TEMPLATE """{{ .System }}
PARAMETER num_ctx 1
# not a comment
{{ .Prompt }}"""
SYSTEM "You say
PARAMETER often"
PARAMETER stop "<|end|>"
PARAMETER stop """He said "stop" """
MESSAGE user What is 1 # 2?
# the end
PARAMETER num_ctx 8192
PARAMETER use_mmap false
PARAMETER temperature 0.5
'''


def test_commands_are_read_with_their_lines_and_without_their_quotes() -> None:
    commands = modelfile.parse(TEMPLATE, "m").commands
    assert [(command.name, command.key, command.value, command.line) for command in commands] == [
        ("from", "", "llama3:8b", 2),
        ("parameter", "num_ctx", "4096", 3),
        ("parameter", "temperature", "0.7", 4),
        ("template", "", "{{ .System }}\nPARAMETER num_ctx 1\n# not a comment\n{{ .Prompt }}", 6),
        ("system", "", "You say\nPARAMETER often", 10),
        ("parameter", "stop", "<|end|>", 12),
        ("parameter", "stop", 'He said "stop" ', 13),
        ("message", "user", "What is 1 # 2?", 14),
    ]


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_pieces_are_the_whole_text(line_break: str) -> None:
    text = TEMPLATE.replace("\n", line_break)
    assert "".join(piece.source for piece in modelfile.parse(text, "m").pieces) == text


def test_rendering_replaces_from_and_the_given_parameters_and_nothing_else() -> None:
    template = modelfile.parse(TEMPLATE, "m")
    rendered = modelfile.render(template, "base:latest", {"num_ctx": 8192, "use_mmap": False, "temperature": 0.5})
    assert rendered == RENDERED


def test_without_a_template_there_is_from_and_the_parameters() -> None:
    assert modelfile.render(None, "m", {"num_ctx": 512, "num_gpu": None}) == "FROM m\nPARAMETER num_ctx 512\n"


def test_a_parameter_that_is_none_leaves_the_template() -> None:
    template = modelfile.parse("FROM m\nPARAMETER num_gpu 4\n", "m")
    assert modelfile.render(template, "m", {"num_gpu": None}) == "FROM m\n"


def test_only_the_first_from_stays() -> None:
    template = modelfile.parse("FROM a\nFROM b\nSYSTEM x\n", "m")
    assert modelfile.render(template, "base", {}) == "FROM base\nSYSTEM x\n"


@pytest.mark.parametrize("base", ["", "a\nSYSTEM x", ' "', '"a"', "a "])
def test_a_base_that_would_change_the_file_is_a_bug(base: str) -> None:
    with pytest.raises(ValueError, match="not a model"):
        modelfile.render(None, base, {})


def test_a_text_that_no_quotes_can_hold_is_a_bug() -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        modelfile.render(None, "m", {"stop": 'a"""b'})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m: the Modelfile is empty; it has no FROM line"),
        (" \n\t\n", "m: the Modelfile is empty; it has no FROM line"),
        ("# only a comment", "m: has no FROM line"),
        ("SYSTEM x\n", "m: has no FROM line"),
        ("FROM m\nFORM x\n", "m:2: unknown command FORM. Did you mean FROM?"),
        ("FROM m\n\n<html>\n", "m:3: unknown command <html>."),
        ("FROM\n", "m:1: FROM has no value"),
        ("FROM  \n", "m:1: FROM has no value"),
        ("FROM m\nPARAMETER num_ctx\n", "m:2: PARAMETER num_ctx has no value"),
        ("FROM m\nPARAMETER  num_ctx 1\n", "m:2: PARAMETER needs one blank and then a name"),
        ("FROM m\nPARAMETER num_batchs 1\n", "m:2: unknown parameter num_batchs. Did you mean num_batch?"),
        ("FROM m\nPARAMETER NUM_CTX 1\n", "m:2: unknown parameter NUM_CTX. Did you mean num_ctx?"),
        ("FROM m\nPARAMETER num_ctx 4096 # x\n", 'm:2: num_ctx: "4096 # x" is not a whole number'),
        ("FROM m\nPARAMETER top_p 1_0\n", 'm:2: top_p: "1_0" is not a number'),
        ("FROM m\nPARAMETER top_p 1e999\n", 'm:2: top_p: "1e999" is not a number'),
        ("FROM m\nPARAMETER use_mmap yes\n", 'm:2: use_mmap: "yes" is not true or false'),
        ("FROM m\nMESSAGE robot hi\n", "m:2: unknown role robot; known are system, user, assistant"),
        ("FROM m\nREQUIRES new\n", 'm:2: REQUIRES: "new" is not a version like 0.14.0'),
        ("FROM ./x.gguf\n", "m:1: reads a local file; use --allow-local-gguf"),
        ("FROM /models/x\n", "m:1: reads a local file; use --allow-local-gguf"),
        ("FROM ~/x\n", "m:1: reads a local file; use --allow-local-gguf"),
        ("FROM x.GGUF\n", "m:1: reads a local file; use --allow-local-gguf"),
        ("FROM C:\\x\n", "m:1: reads a local file; use --allow-local-gguf"),
        ("FROM m\nADAPTER lora\n", "m:2: reads a local file; use --allow-local-gguf"),
        ("FROM m\nDRAFT small\n", "m:2: reads a local file; use --allow-local-gguf"),
        ('FROM m\nSYSTEM """x\ny"\n', "m:2: the quote after SYSTEM is not closed at the end of a line"),
        ('FROM m\nSYSTEM "x" y\n', "m:2: the quote after SYSTEM is not closed at the end of a line"),
        ('FROM m\nPARAMETER stop "x\n', "m:2: the quote after PARAMETER stop is not closed at the end of a line"),
        ("FROM m\nSYSTEM a\x07\n", "m:2: contains a control character (U+0007)"),
        ("GGUF\0\3\0", "m:1: contains a control character (U+0000)"),
    ],
)
def test_mistakes_are_one_line_with_the_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        modelfile.parse(text, "m")
    assert str(caught.value) == message


def test_local_files_can_be_allowed() -> None:
    commands = modelfile.parse("FROM ./x.gguf\nADAPTER a\n", "m", allow_local=True).commands
    assert [command.value for command in commands] == ["./x.gguf", "a"]


def test_names_that_ollama_has_given_up_are_taken() -> None:
    template = modelfile.parse("FROM m\nPARAMETER mirostat 1\nPARAMETER num_ctx 1\nPARAMETER num_ctx 2\n", "m")
    assert modelfile.parameters_set(template) == ("mirostat", "num_ctx")


def test_a_hundred_thousand_lines_in_an_open_quote_are_quickly_refused() -> None:
    with pytest.raises(ConfigError, match="not closed"):
        modelfile.parse("FROM m\nSYSTEM " + '"""' + "x\n" * 100_000, "m")


@pytest.mark.parametrize(
    "same",
    [
        "# other\n\n\nFROM elsewhere\nparameter   temperature 0.70\n",
        'FROM m\r\nPARAMETER temperature "0.7"\r\nPARAMETER num_ctx 99\r\n',
        "PARAMETER num_ctx 1\nPARAMETER temperature 7e-1\nFROM m",
    ],
)
def test_layout_comments_from_and_swept_parameters_are_not_identity(same: str) -> None:
    first = modelfile.parse("FROM m\nPARAMETER temperature 0.7\n", "m")
    same = same.replace("parameter   ", "parameter ")
    assert modelfile.canonical(modelfile.parse(same, "m"), {"num_ctx"}) == modelfile.canonical(first, {"num_ctx"})


@pytest.mark.parametrize(
    "other",
    [
        "FROM m\nPARAMETER temperature 0.8\nPARAMETER stop a\nPARAMETER stop b\n",
        "FROM m\nPARAMETER temperature 0.7\nPARAMETER stop b\nPARAMETER stop a\n",
        "FROM m\nPARAMETER temperature 0.7\nPARAMETER stop a\nPARAMETER stop b\nSYSTEM x\n",
        "FROM m\nPARAMETER temperature 0.7\nPARAMETER stop a\nPARAMETER stop b\nPARAMETER num_ctx 1\n",
    ],
)
def test_what_changes_the_model_changes_its_identity(other: str) -> None:
    first = modelfile.parse("FROM m\nPARAMETER temperature 0.7\nPARAMETER stop a\nPARAMETER stop b\n", "m")
    assert modelfile.canonical(modelfile.parse(other, "m"), {"num_gpu"}) != modelfile.canonical(first, {"num_gpu"})


def test_no_template_is_the_same_as_one_with_only_from() -> None:
    assert modelfile.canonical(None, ()) == modelfile.canonical(modelfile.parse("FROM m", "m"), ()) == ""
    assert modelfile.parameters_set(None) == ()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("llama3:8b", None),
        ("7:30", None),
        ("hf.co/some-one/Model-GGUF:Q4_K_M", None),
        ("localhost:5000/library/llama3", None),
        ("a b", "contains a space or control character (position 2)"),
        ("a\n", "contains a space or control character (position 2)"),
        ("a\u00a0b", "contains a space or control character (position 2)"),
        ('a"', 'contains " (position 2)'),
        ("m:", "tag is empty"),
        ("m" * 81, "the model part has 81 characters (max 80)"),
        ("m:" + "t" * 81, "the tag part has 81 characters (max 80)"),
        ("n" * 81 + "/m", "the namespace part has 81 characters (max 80)"),
        ("-m", "is neither a name like llama3:8b nor the path of a .gguf file"),
        ("./m", "is neither a name like llama3:8b nor the path of a .gguf file"),
        (":8b", "is neither a name like llama3:8b nor the path of a .gguf file"),
        ("a:b:c", "is neither a name like llama3:8b nor the path of a .gguf file"),
        ("a/b/c/d", "is neither a name like llama3:8b nor the path of a .gguf file"),
    ],
)
def test_model_names(name: str, fault: str | None) -> None:
    assert modelfile.name_fault(name) == fault


LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)
TEXTS = st.lists(LINES, max_size=4).map("\n".join)
BLANKS = st.sampled_from(["", "\n", "  ", "# a PARAMETER num_ctx 1\n", "\t\n\n"])


def quoted(text: str) -> str:
    return f'"{text}"' if '"' not in text else '"""' + text.replace('"""', "") + '"""'


COMMANDS = st.one_of(
    st.builds("PARAMETER num_ctx {}".format, st.integers(1, 10**7)),
    st.builds("PARAMETER seed {}".format, st.integers(-1, 10**7)),
    st.builds("Parameter use_mmap {}".format, st.sampled_from(["true", "F", "1"])),
    st.builds("PARAMETER top_p {}".format, st.floats(0, 1)),
    TEXTS.map(quoted).map("PARAMETER stop {}".format),
    TEXTS.map(quoted).map("template {}".format),
    TEXTS.map(quoted).map("SYSTEM {}".format),
    LINES.map(lambda line: "MESSAGE user " + line.lstrip('"').lstrip().lstrip('"')),
)
MODELFILES = st.lists(st.tuples(BLANKS, COMMANDS), max_size=8).map(
    lambda lines: "FROM first\n" + "".join(f"{blank}{command}\n" for blank, command in lines)
)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "num_ctx": st.integers(1, 10**7),
        "use_mmap": st.booleans(),
        "temperature": st.floats(0, 100),
        "stop": TEXTS.filter(lambda text: '"""' not in text),
    },
)


@given(MODELFILES, PARAMETERS)
def test_a_rendered_template_keeps_the_untouched_commands(text: str, parameters: dict[str, Scalar]) -> None:
    before = modelfile.parse(text, "before").commands
    after = modelfile.parse(modelfile.render(modelfile.parse(text, "before"), "base", parameters), "after").commands
    kept = [command for command in before if command.name != "from" and command.key not in parameters]
    assert [(command.name, command.key, command.value) for command in after[1 : 1 + len(kept)]] == [
        (command.name, command.key, command.value) for command in kept
    ]
    assert after[0].value == "base"
    given_back = {command.key: command.value for command in after[1 + len(kept) :]}
    assert given_back.keys() == parameters.keys()
    assert {name: modelfile._typed(name, value) for name, value in given_back.items()} == parameters


@given(MODELFILES, PARAMETERS)
def test_rendering_does_not_change_the_identity(text: str, parameters: dict[str, Scalar]) -> None:
    template = modelfile.parse(text, "m")
    rendered = modelfile.parse(modelfile.render(template, "base", parameters), "m")
    assert modelfile.canonical(rendered, parameters) == modelfile.canonical(template, parameters)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        pieces = modelfile.parse("FROM m\n" + text, "m", allow_local=True).pieces
    except ConfigError as error:
        fault = str(error)
    else:
        fault = ""
        assert "".join(piece.source for piece in pieces) == "FROM m\n" + text
    assert "\n" not in fault
