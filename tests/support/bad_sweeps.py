"""Sweep files that are refused, each with its message, and whether an editor with the JSON Schema sees what is wrong.

A schema does not see what is no data yet (the loader refuses the text), what is missing (it may come from the command
line), what two values have to do with each other, and what only other files, models and tasks can say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SEEN, HIDDEN = True, False
BASE = "model: m\nprompt: p.txt\nnum_ctx: 512\nnum_batch: 64\n"
RUN_BASE = "model: m\nprompt: p.txt\nnum_ctx: 512\nnum_batch: 4\nengine: fake\n"
LONG_NAME = "n" * 81
WHOLE_NUMBERS = "write whole numbers like 4096"
LENGTHS_OF_TIME = "write seconds (600) or a time like 10m, more than 0 and at most 168h"
ORDERS = "auto, column-first, columns-bisected, row-first, shuffled"
FORMS = "is too much; allowed are < <= > >= == != and or not + - * // % with names, numbers and texts"


class Bad(NamedTuple):
    """One of them: whether a schema sees it, what is written, and what is said."""

    seen: bool
    written: str | bytes
    message: str


def cases(table: Sequence[Bad]) -> list[tuple[str | bytes, str]]:
    """What is written and what is said, for a test."""
    return [(bad.written, bad.message) for bad in table]


def changed(line: str, base: str = RUN_BASE) -> str:
    """The good file with one key written otherwise, or one more line."""
    key = line.partition(":")[0]
    pattern = re.compile(rf"^{key}:.*\n", re.MULTILINE)
    return pattern.sub(lambda found: line + "\n", base) if pattern.search(base) else base + line + "\n"


def excluding(line: str) -> str:
    """A file whose second exclusion is this one."""
    quoted = line if line in ("5", "''", "{a: 1}") else '"' + line.replace('"', '\\"') + '"'
    return f"{BASE}exclude:\n  - num_ctx > 1\n  - {quoted}\n"


NO_MAPPINGS = [
    Bad(HIDDEN, "", "s.yaml: the file is empty; a sweep needs model, num_ctx and num_batch"),
    Bad(HIDDEN, "# nothing\n\n", "s.yaml: the file is empty; a sweep needs model, num_ctx and num_batch"),
    Bad(HIDDEN, "---\n", "s.yaml: the file is empty; a sweep needs model, num_ctx and num_batch"),
    Bad(SEEN, "- model\n", "s.yaml:1: a sweep is made of keys and values such as num_ctx: 4096"),
    Bad(HIDDEN, "num_ctx:\n\tstart: 1\n", "s.yaml:2: tabs cannot be used for indentation; use spaces"),
    Bad(HIDDEN, "num_ctx: [1,\t2]\n", "s.yaml:1: a tab cannot be used here; use spaces"),
    Bad(HIDDEN, "model: m\nname: \x07\n", "s.yaml:2: contains a control character (U+0007)"),
    Bad(HIDDEN, 'model: m\nname: "\\0"\n', "s.yaml:2: contains a control character (U+0000)"),
    Bad(
        HIDDEN,
        'name: "\\ud800"\n',
        r"s.yaml:1: name: holds half of a character, written as an escape; write the character itself, or both halves "
        r"(\ud800)",
    ),
    Bad(HIDDEN, 'name: "\\UFFFFFFFF"\n', "s.yaml:1: an escape in the quotes is not a character"),
    Bad(HIDDEN, b"model: m\nname: \xff\n", "s.yaml:2: is not UTF-8 (byte 0xff)"),
    Bad(SEEN, b"\xff\xfem\0", "s.yaml:1: a sweep is made of keys and values such as num_ctx: 4096"),
    Bad(HIDDEN, b"\xff\xfem\0\n", "s.yaml:1: is cut off or damaged: its byte order mark says UTF-16-LE"),
    Bad(HIDDEN, "model: m\n---\nmodel: n\n", "s.yaml:2: contains 2 documents; only one is allowed"),
    Bad(HIDDEN, "model: m\n---\n---\n", "s.yaml:2: contains 3 documents; only one is allowed"),
    Bad(HIDDEN, "%YAML 1.1\n---\nmodel: m\n", "s.yaml:1: directives (%YAML, %TAG) are not allowed"),
    Bad(HIDDEN, "num_ctx: 1\nnum_ctx: 2\n", "s.yaml:2: num_ctx is given twice (first on line 1)"),
    Bad(HIDDEN, "num_ctx: {start: 1,\n start: 2}\n", "s.yaml:2: start is given twice (first on line 1)"),
    Bad(HIDDEN, BASE + "dimensions:\n  num_ctx: 1\n", "s.yaml:6: num_ctx is given twice (first on line 3)"),
    Bad(HIDDEN, "model: &a m\n", "s.yaml:1: anchors (&name), aliases (*name) and << are not allowed"),
    Bad(HIDDEN, "model: *a\n", "s.yaml:1: anchors (&name), aliases (*name) and << are not allowed"),
    Bad(HIDDEN, "model: m\n<<: {a: 1}\n", "s.yaml:2: anchors (&name), aliases (*name) and << are not allowed"),
    Bad(HIDDEN, "model: !!python/object:os.system x\n", "s.yaml:1: tags (!!...) are not allowed"),
    Bad(HIDDEN, "model: !x m\n", "s.yaml:1: tags (!!...) are not allowed"),
    Bad(HIDDEN, "? [a]\n: b\n", "s.yaml:1: a key must be a name"),
    Bad(HIDDEN, "name: " + "[" * 100_000, "s.yaml:1: is nested deeper than 12 levels"),
    Bad(
        HIDDEN,
        "model: m\nnum_ctx: {start: 1\n",
        "s.yaml:3: is not valid YAML: expected ',' or '}', but got '<stream end>'",
    ),
    Bad(HIDDEN, "#" * (12 << 20), "s.yaml: is 12 MB; the limit is 1 MB"),
    Bad(HIDDEN, "#" * ((1 << 20) + 1), "s.yaml: is 1.1 MB; the limit is 1 MB"),
]
"""Whole files."""

NUMBERS = [
    Bad(SEEN, '"4096"', f'"4096" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "4_096", f'"4_096" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "010", f'"010" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "0x1000", f'"0x1000" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "1e3", f'"1e3" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "yes", f'"yes" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, ".inf", f'".inf" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "1:30", f'"1:30" is text; {WHOLE_NUMBERS}'),
    Bad(HIDDEN, "4096.0", f"4096.0 is not a whole number; {WHOLE_NUMBERS}"),
    Bad(SEEN, "true", f"true is not allowed here; {WHOLE_NUMBERS}"),
    Bad(SEEN, "", f"has no value; {WHOLE_NUMBERS}"),
    Bad(SEEN, "null", f"has no value; {WHOLE_NUMBERS}"),
    Bad(SEEN, "[[1]]", f"a list is not allowed here; {WHOLE_NUMBERS}"),
    Bad(SEEN, "[{a: 1}]", f"a mapping is not allowed here; {WHOLE_NUMBERS}"),
    Bad(SEEN, "0", "0 is outside 1 to 10000000"),
    Bad(SEEN, "-1", "-1 is outside 1 to 10000000"),
    Bad(SEEN, "10000001", "10000001 is outside 1 to 10000000"),
    Bad(SEEN, "9" * 5000, "9" * 60 + "… is outside 1 to 10000000"),
    Bad(SEEN, "-" + "9" * 5000, "-" + "9" * 59 + "… is outside 1 to 10000000"),
    Bad(SEEN, "[]", "the list is empty"),
    Bad(SEEN, "[64, 0]", "0 is outside 1 to 10000000"),
    Bad(SEEN, "[64, 128, 64]", "64 is listed twice"),
    Bad(HIDDEN, "{}", "write {start, end, step} or {start, end, factor}"),
    Bad(HIDDEN, "{start: 1, end: 2}", "write {start, end, step} or {start, end, factor}"),
    Bad(SEEN, "{start: 1, end: 2, step: 1, factor: 2}", "write {start, end, step} or {start, end, factor}"),
]
"""Values of num_batch in `BASE`."""

OF_A_RANGE = "known are start, end, step, factor."
KEYS_AND_VALUES = [
    Bad(SEEN, "num_ctxs: 1", "5: unknown key num_ctxs. Did you mean num_ctx?"),
    Bad(SEEN, "zzz: 1", "5: unknown key zzz."),
    Bad(SEEN, '"a\\nb": 1', "5: unknown key a\\nb."),
    Bad(SEEN, "stop: x", "5: stop belongs into the Modelfile: PARAMETER stop"),
    Bad(SEEN, "api_key: sk-1", "5: api_key must not be in the file; use api_key_env: NAME"),
    Bad(SEEN, "options: {Api-Key: sk-1}", "5: api_key must not be in the file; use api_key_env: NAME"),
    Bad(SEEN, "dimensions: {num_gpus: [1]}", "5: unknown dimension num_gpus. Did you mean num_gpu?"),
    Bad(SEEN, "dimensions: {timeout: [1]}", "5: unknown dimension timeout."),
    Bad(
        SEEN,
        "dimensions: [num_gpu]",
        "5: dimensions: a list is not allowed here; write names and their values below it",
    ),
    Bad(SEEN, "options:", "5: options: has no value; write names and their values below it"),
    Bad(SEEN, "options:\n  temperatur: 1", "6: unknown option temperatur. Did you mean temperature?"),
    Bad(SEEN, "options: {num_gpu: [1, 2]}", "5: options.num_gpu takes one value; several belong under dimensions"),
    Bad(SEEN, "num_gpu: -2", "5: num_gpu: -2 is outside -1 to 10000"),
    Bad(SEEN, "num_predict: 0", "5: num_predict: 0 is dropped by Ollama and then means unlimited; write 1 or more"),
    Bad(SEEN, "num_predict: -1", "5: num_predict: -1 means unlimited; write 1 or more"),
    Bad(
        SEEN, "num_predict: [2, 0]", "5: num_predict: 0 is dropped by Ollama and then means unlimited; write 1 or more"
    ),
    Bad(SEEN, "num_predict: false", f"5: num_predict: false is not allowed here; {WHOLE_NUMBERS}"),
    Bad(SEEN, "use_mmap: yes", '5: use_mmap: "yes" is text; write true or false'),
    Bad(SEEN, "use_mmap: 1", "5: use_mmap: 1 is a number; write true or false"),
    Bad(SEEN, "use_mmap: {start: 0}", "5: use_mmap: a range needs numbers; write a list"),
    Bad(SEEN, "temperature: hot", '5: temperature: "hot" is text; write numbers like 0.8'),
    Bad(SEEN, "temperature: true", "5: temperature: true is not allowed here; write numbers like 0.8"),
    Bad(SEEN, "temperature: 1.0e999", "5: temperature: 1.0e999 is outside 0 to 100"),
    Bad(SEEN, "top_p: 1.5", "5: top_p: 1.5 is outside 0 to 1"),
    Bad(SEEN, "num_gpu: {from: 1, to: 2, step: 1}", f"5: num_gpu: unknown key from; {OF_A_RANGE}"),
    Bad(
        SEEN,
        "num_gpu: {start: 1, stop: 2, step: 1}",
        f"5: num_gpu: unknown key stop; {OF_A_RANGE} Did you mean step?",
    ),
    Bad(
        SEEN,
        "num_gpu: {start: 1, end: 2, stepp: 1}",
        f"5: num_gpu: unknown key stepp; {OF_A_RANGE} Did you mean step?",
    ),
    Bad(HIDDEN, "num_gpu:\n  start: 5\n  end: 2\n  step: 1", "7: num_gpu.end: 2 is smaller than start 5"),
    Bad(SEEN, "num_gpu: {start: 1, end: 2, step: 0}", "5: num_gpu.step: 0 is outside 1 to 10000000"),
    Bad(SEEN, "num_gpu: {start: 1, end: 2, step: x}", f'5: num_gpu.step: "x" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "num_gpu: {start: 1, end: 2, factor: 1}", "5: num_gpu.factor: 1 is outside 1.01 to 1000000"),
    Bad(
        HIDDEN,
        "num_gpu: {start: 0, end: 2, factor: 2}",
        "5: num_gpu.start: must be more than 0 where there is a factor",
    ),
    Bad(SEEN, "warmup: -1", "5: warmup must be 0 to 100"),
    Bad(SEEN, "retries: 101", "5: retries must be 0 to 100"),
    Bad(SEEN, "retries: one", '5: retries: "one" is text; write whole numbers like 1'),
    Bad(SEEN, "repeats: 0", "5: repeats must be 1 to 1000"),
    Bad(SEEN, "cooldown: -1", "5: cooldown: write a time like 30s (at most 168h), {gpu_c: 60}, or off"),
    Bad(SEEN, "cooldown: [30s]", "5: cooldown: write a time like 30s (at most 168h), {gpu_c: 60}, or off"),
    Bad(HIDDEN, "cooldown: {}", "5: cooldown: write a time like 30s (at most 168h), {gpu_c: 60}, or off"),
    Bad(SEEN, "cooldown: {gpu: 60}", "5: cooldown: unknown key gpu; known are gpu_c. Did you mean gpu_c?"),
    Bad(SEEN, "cooldown: {gpu_c: hot}", '5: cooldown.gpu_c: "hot" is text; write whole numbers like 60'),
    Bad(SEEN, "cooldown: {gpu_c: 5}", "5: cooldown.gpu_c must be 20 to 110"),
    Bad(SEEN, "repeats: [3]", "5: repeats: a list is not allowed here; write whole numbers like 3"),
    Bad(HIDDEN, "repeats: {min: 3, max: 20}", "5: repeats: write a number, or {min: 3, max: 20, until: 2%}"),
    Bad(SEEN, "repeats: {min: 3, most: 2, until: 2%}", "5: repeats: unknown key most; known are min, max, until."),
    Bad(HIDDEN, "repeats: {min: 3, max: 2, until: 2%}", "5: repeats.max: 2 is smaller than min 3"),
    Bad(SEEN, "repeats: {min: 0, max: 2, until: 2%}", "5: repeats.min must be 1 to 1000"),
    Bad(HIDDEN, "repeats: {min: 1, max: 2, until: 0%}", "5: repeats.until: write a percentage like 2%"),
    Bad(SEEN, "repeats: {min: 1, max: 2, until: [2%]}", "5: repeats.until: write a percentage like 2%"),
    Bad(SEEN, "order: random", f'5: order: "random" is not known; known are {ORDERS}.'),
    Bad(SEEN, "order: row_first", f'5: order: "row_first" is not known; known are {ORDERS}. Did you mean row-first?'),
    Bad(SEEN, "engine: ../x", "5: engine: only letters, digits and _ (max 40)"),
    Bad(SEEN, f"task: {'t' * 41}", "5: task: only letters, digits and _ (max 40)"),
    Bad(SEEN, "api_key_env: sk-1234", "5: api_key_env: only letters, digits and _ (max 40)"),
    Bad(SEEN, "name: 2024", "5: name must be text; put it in quotes"),
    Bad(SEEN, "name: ' '", "5: name: is empty"),
    Bad(SEEN, 'name: "a\\nb"', "5: name: contains a control character"),
    Bad(SEEN, "host: http://user:pw@host/", "5: put credentials into api_key_env, not into the URL"),
    Bad(SEEN, "host: http://host/?key=1", "5: put credentials into api_key_env, not into the URL"),
    Bad(SEEN, "host: ftp://box", '5: host: "ftp://box" is not an address like 127.0.0.1:11434 or http://gpu-box:11434'),
    Bad(
        HIDDEN, "host: box:99999", '5: host: "box:99999" is not an address like 127.0.0.1:11434 or http://gpu-box:11434'
    ),
    Bad(
        HIDDEN,
        "host: http://[::1",
        '5: host: "http://[::1" is not an address like 127.0.0.1:11434 or http://gpu-box:11434',
    ),
    Bad(SEEN, "host: 11434", "5: host must be text; put it in quotes"),
    Bad(SEEN, "ollama: []", "5: ollama must be text; put it in quotes"),
]
"""Lines below `BASE`; a message begins with the line."""

MODELS = [
    Bad(SEEN, "450", "model must be text; put it in quotes"),
    Bad(SEEN, "true", "model must be text; put it in quotes"),
    Bad(SEEN, "''", "model: is empty"),
    Bad(SEEN, "a b", "model: contains a space or control character (position 2)"),
    Bad(SEEN, '"a\\nb"', "model: contains a space or control character (position 2)"),
    Bad(SEEN, '"m:"', "model: tag is empty"),
    Bad(HIDDEN, "m" * 81, "model: the model part has 81 characters (max 80)"),
    Bad(SEEN, "[a, 'b c']", "model: contains a space or control character (position 2)"),
    Bad(SEEN, "[a, a]", 'model: "a" is listed twice'),
    Bad(SEEN, "[]", "model: the list is empty"),
    Bad(SEEN, "{start: a, end: b, step: 1}", "model: a range needs numbers; write a list"),
    Bad(HIDDEN, "llama3:cloud", "llama3:cloud is a cloud model; use --allow-cloud"),
    Bad(HIDDEN, "[a, gpt-oss:120b-cloud]", "gpt-oss:120b-cloud is a cloud model; use --allow-cloud"),
    Bad(HIDDEN, "x.gguf", "x.gguf: file not found. Did you mean y.gguf?"),
    Bad(HIDDEN, "~nobody-here/x.gguf", "~nobody-here/x.gguf: file not found"),
    Bad(HIDDEN, "folder.gguf", "folder.gguf: is a folder, not a file"),
    Bad(HIDDEN, '"a\\nb.gguf"', "model: contains a control character"),
]
"""Values of model in `BASE`."""

PROMPTS = [
    Bad(SEEN, "5", "prompt must be text; put it in quotes"),
    Bad(SEEN, "''", "prompt: is empty"),
    Bad(HIDDEN, '"a\\0"', "contains a control character (U+0000)"),
    Bad(HIDDEN, "{}", "prompt: write a path, {text: ...} or {tokens: 4096}"),
    Bad(SEEN, "{text: a, tokens: 4}", "prompt: write a path, {text: ...} or {tokens: 4096}"),
    Bad(SEEN, "{token: 4}", "prompt: unknown key token; known are text, tokens. Did you mean tokens?"),
    Bad(SEEN, "{tokens: 0}", "prompt.tokens must be 1 to 10000000"),
    Bad(SEEN, "{tokens: []}", "prompt.tokens: the list is empty"),
    Bad(SEEN, "{tokens: [1024, 1024]}", "prompt.tokens: 1024 is listed twice"),
    Bad(SEEN, "{tokens: [9, 0]}", "prompt.tokens: 0 is outside 1 to 10000000"),
    Bad(SEEN, "{tokens: [many, 9]}", 'prompt.tokens: "many" is text; write whole numbers like 4096'),
    Bad(SEEN, "{tokens: [1.5]}", "prompt.tokens: 1.5 is not a whole number; write whole numbers like 4096"),
    Bad(SEEN, "{tokens: [[9]]}", "prompt.tokens: a list is not allowed here; write whole numbers like 4096"),
    Bad(SEEN, "{tokens: {start: 9, until: 10}}", f"prompt.tokens: unknown key until; {OF_A_RANGE}"),
    Bad(HIDDEN, "{tokens: {start: 9, end: 8, step: 1}}", "prompt.tokens.end: 8 is smaller than start 9"),
    Bad(SEEN, "{tokens: [9, 8], text: a}", "prompt: write a path, {text: ...} or {tokens: 4096}"),
    Bad(SEEN, "{text: [a, b]}", "prompt.text: a list is not allowed here; only tokens may be several"),
    Bad(
        SEEN,
        "[p.txt, p.txt]",
        "prompt: a list is not allowed here; write one path, {text: ...} or {tokens: [1024, 8192]}",
    ),
    Bad(SEEN, "{text: 5}", "prompt.text must be text; put it in quotes"),
    Bad(SEEN, "{text: ' '}", "the prompt is empty"),
    Bad(HIDDEN, "gone", "gone: file not found"),
    Bad(HIDDEN, "q.txt", "q.txt: file not found. Did you mean p.txt?"),
    Bad(HIDDEN, "p.txt/x", "p.txt/x: file not found"),
    Bad(HIDDEN, "blank.txt", "blank.txt: the prompt is empty"),
    Bad(HIDDEN, "folder", "folder: is a folder, not a file"),
    Bad(HIDDEN, "/dev/null", "/dev/null: is not a regular file"),
    Bad(HIDDEN, "latin.txt", "latin.txt:2: is not UTF-8 (byte 0xe9)"),
    Bad(HIDDEN, "nul.txt", "nul.txt:2: contains a control character (U+0000)"),
    Bad(HIDDEN, "big.txt", "big.txt: is 50 MB; the limit is 16 MB"),
    Bad(HIDDEN, "n" * 300, "n" * 300 + ": cannot be read (File name too long)"),
]
"""Values of prompt in `BASE`."""

EXCLUSIONS = [
    Bad(HIDDEN, "num_ctx", 'exclude: "num_ctx" has a number where a comparison is needed'),
    Bad(HIDDEN, "num_ctx > 'a'", "exclude: \"num_ctx > 'a'\" has a text where a number is needed"),
    Bad(HIDDEN, "num_ctx + true > 2", 'exclude: "num_ctx + true > 2" has a comparison where a number is needed'),
    Bad(HIDDEN, "num_ctx > 1 and 2", 'exclude: "num_ctx > 1 and 2" has a number where a comparison is needed'),
    Bad(
        HIDDEN,
        "'a' < 'b'",
        ("exclude: \"'a' < 'b'\" compares in a way that is not allowed; texts and true/false know only == and !="),
    ),
    Bad(
        HIDDEN,
        "num_ctx in 3",
        ('exclude: "num_ctx in 3" compares in a way that is not allowed; texts and true/false know only == and !='),
    ),
    Bad(
        HIDDEN,
        "num_gpu > 3",
        (
            'exclude: "num_gpu > 3" names num_gpu, which this sweep does not set; it sets num_ctx, '
            "num_batch, num_predict."
        ),
    ),
    Bad(
        HIDDEN,
        "num_btach > 3",
        (
            'exclude: "num_btach > 3" names num_btach, which this sweep does not set; it sets num_ctx, '
            "num_batch, num_predict. Did you mean num_batch?"
        ),
    ),
    Bad(HIDDEN, "num_ctx ** 9 > 1", f'exclude: "num_ctx ** 9 > 1" {FORMS}'),
    Bad(HIDDEN, "num_ctx / 2 > 1", f'exclude: "num_ctx / 2 > 1" {FORMS}'),
    Bad(HIDDEN, "abs(num_ctx) > 1", f'exclude: "abs(num_ctx) > 1" {FORMS}'),
    Bad(HIDDEN, "num_ctx.real > 1", f'exclude: "num_ctx.real > 1" {FORMS}'),
    Bad(HIDDEN, "num_ctx > None", f'exclude: "num_ctx > None" {FORMS}'),
    Bad(HIDDEN, "(lambda x=1 > 2", 'exclude: "(lambda x=1 > 2" is not a comparison such as num_batch > num_ctx'),
    Bad(HIDDEN, "num_ctx >", 'exclude: "num_ctx >" is not a comparison such as num_batch > num_ctx'),
    Bad(SEEN, "num_ctx > 1" + "0" * 200, f'exclude: "num_ctx > 1{"0" * 49}" is longer than 200 characters'),
    Bad(SEEN, "5", "exclude must be text; put it in quotes"),
    Bad(SEEN, "''", "exclude: is empty"),
    Bad(SEEN, "{a: 1}", "exclude must be text; put it in quotes"),
]
"""The second line of exclude below `BASE`."""

TIMES = [
    Bad(SEEN, ".nan", LENGTHS_OF_TIME),
    Bad(SEEN, ".inf", LENGTHS_OF_TIME),
    Bad(SEEN, "-1", LENGTHS_OF_TIME),
    Bad(SEEN, "0", LENGTHS_OF_TIME),
    Bad(SEEN, "10 minutes?", LENGTHS_OF_TIME),
    Bad(SEEN, "-5m", LENGTHS_OF_TIME),
    Bad(SEEN, "", LENGTHS_OF_TIME),
    Bad(SEEN, "true", LENGTHS_OF_TIME),
    Bad(SEEN, "[1]", LENGTHS_OF_TIME),
    Bad(HIDDEN, "169h", LENGTHS_OF_TIME),
    Bad(SEEN, "604801", LENGTHS_OF_TIME),
    Bad(SEEN, "1.0e999", LENGTHS_OF_TIME),
    Bad(SEEN, "9" * 400, LENGTHS_OF_TIME),
]
"""Values of timeout and load_timeout below `BASE`."""

RUN_FILES = [
    Bad(HIDDEN, b"", "s.yaml: the file is empty; a sweep needs model, num_ctx and num_batch"),
    Bad(HIDDEN, b"# only\n\n# comments\n", "s.yaml: the file is empty"),
    Bad(HIDDEN, b"num_ctx:\n\t- 512\n", "s.yaml:2: tabs cannot be used for indentation; use spaces"),
    Bad(HIDDEN, b"model: a\x07b\n", r"s.yaml:1: contains a control character \(U\+0007\)"),
    Bad(HIDDEN, b"model: \x00\n", r"s.yaml:1: contains a control character \(U\+0000\)"),
    Bad(HIDDEN, RUN_BASE.encode() + b"---\nmodel: n\n", "s.yaml:6: contains 2 documents; only one is allowed"),
    Bad(HIDDEN, b"num_ctx: 512\nnum_ctx: 1024\n", r"s.yaml:2: num_ctx is given twice \(first on line 1\)"),
    Bad(SEEN, b"model: m\nnum_ctxs: 512\n", r"s.yaml:2: unknown key num_ctxs\. Did you mean num_ctx\?"),
    Bad(HIDDEN, b"model: &name m\n", r"s.yaml:1: anchors \(&name\), aliases \(\*name\) and << are not allowed"),
    Bad(HIDDEN, b"num_ctx: *name\n", "s.yaml:1: anchors"),
    Bad(HIDDEN, b"<<: {model: m}\n", "s.yaml:1: anchors"),
    Bad(
        HIDDEN,
        b"model: !!python/object/apply:os.system ['touch hacked']\n",
        r"s.yaml:1: tags \(!!\.\.\.\) are not allowed",
    ),
    Bad(SEEN, b"[1, 2]\n", "s.yaml:1: a sweep is made of keys and values"),
    Bad(HIDDEN, b"model: m\nnum_ctx: [512\n", "s.yaml:3: is not valid YAML"),
    Bad(HIDDEN, b"model: caf\xe9\n", r"s.yaml:1: is not UTF-8 \(byte 0xe9\)"),
    Bad(
        HIDDEN,
        b'model: m\nprompt: {text: "Say hi \\ud83d"}\n',
        r"s.yaml:2: text: holds half of a character.* \(\\ud83d\)",
    ),
    Bad(HIDDEN, b'model: m\nexclude: ["a", "\\udc00\\ud800"]\n', "s.yaml:2: exclude: holds half of a character"),
    Bad(HIDDEN, b'model: "C:\\Users\\me\\m.gguf"\n', "s.yaml:1: is not valid YAML: .*; write a path in single quotes"),
    Bad(HIDDEN, b'model: "C:\\models\\m.gguf"\n', "s.yaml:1: is not valid YAML: .*; write a path in single quotes"),
    Bad(HIDDEN, b'model: "D:\\a\\b.gguf"\n', r"s.yaml:1: contains a control character \(U\+0007\).*; write a path"),
    Bad(
        HIDDEN,
        b'model: "C:\\new\\temp.gguf"\nnum_ctx: 1\nnum_batch: 1\nprompt: {tokens: 5}\n',
        "s.yaml:1: model: contains a control character.*; write a path in single quotes",
    ),
    Bad(
        HIDDEN,
        RUN_BASE.encode() + b'server: managed\nOLLAMA_LLM_LIBRARY: "a\\nOLLAMA_DEBUG=1"\n',
        "s.yaml:7: OLLAMA_LLM_LIBRARY: contains a line break or another control character",
    ),
    Bad(HIDDEN, b"#" * (12 << 20), "s.yaml: is 12 MB; the limit is 1 MB"),
    Bad(HIDDEN, b"prompt: p.txt\nnum_ctx: 512\nnum_batch: 4\n", "s.yaml: model is missing; add it or use --model NAME"),
    Bad(
        SEEN,
        RUN_BASE.encode() + b"api_key: sk-123\n",
        "s.yaml:6: api_key must not be in the file; use api_key_env: NAME",
    ),
    Bad(
        SEEN,
        RUN_BASE.encode() + b"host: http://me:pw@box:1\n",
        "s.yaml:6: put credentials into api_key_env, not into the URL",
    ),
    Bad(
        SEEN,
        RUN_BASE.encode() + b"host: http://box/?key=1\n",
        "s.yaml:6: put credentials into api_key_env, not into the URL",
    ),
]
"""Whole files for `run`; messages are patterns."""

RUN_VALUES = [
    Bad(SEEN, 'num_ctx: "4096"', f'num_ctx: "4096" is text; {WHOLE_NUMBERS}'),
    Bad(HIDDEN, "num_ctx: 4096.0", f"num_ctx: 4096.0 is not a whole number; {WHOLE_NUMBERS}"),
    Bad(SEEN, "num_ctx: 4_096", f'num_ctx: "4_096" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "num_ctx: 010", f'num_ctx: "010" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "num_ctx: 0x1000", f'num_ctx: "0x1000" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "num_ctx: 1e3", f'num_ctx: "1e3" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "num_ctx: yes", f'num_ctx: "yes" is text; {WHOLE_NUMBERS}'),
    Bad(SEEN, "num_ctx: true", f"num_ctx: true is not allowed here; {WHOLE_NUMBERS}"),
    Bad(SEEN, "num_ctx: 0", "num_ctx: 0 is outside 1 to 10000000"),
    Bad(SEEN, "num_ctx: -1", "num_ctx: -1 is outside 1 to 10000000"),
    Bad(SEEN, "num_ctx: 10000001", "num_ctx: 10000001 is outside 1 to 10000000"),
    Bad(SEEN, f"num_ctx: {'9' * 5000}", "num_ctx: 9{60}… is outside 1 to 10000000"),
    Bad(SEEN, "num_batch: []", "num_batch: the list is empty"),
    Bad(SEEN, "num_batch:", f"num_batch: has no value; {WHOLE_NUMBERS}"),
    Bad(SEEN, "num_batch: [2, 4, 2]", "num_batch: 2 is listed twice"),
    Bad(HIDDEN, "num_ctx: {start: 512, end: 1024}", r"num_ctx: write \{start, end, step\} or \{start, end, factor\}"),
    Bad(HIDDEN, "num_ctx: {start: 1024, end: 512, step: 1}", "num_ctx.end: 512 is smaller than start 1024"),
    Bad(SEEN, "num_ctx: {start: 1, end: 9, step: 0}", "num_ctx.step: 0 is outside 1 to 10000000"),
    Bad(SEEN, "timeout: .nan", "timeout: write seconds"),
    Bad(SEEN, "timeout: .inf", "timeout: write seconds"),
    Bad(SEEN, "timeout: -5", "timeout: write seconds"),
    Bad(SEEN, "timeout: 10 minutes?", r"timeout: write seconds \(600\) or a time like 10m"),
    Bad(SEEN, "repeats: 0", "repeats must be 1 to 1000"),
    Bad(SEEN, "order: random", "order: "),
    Bad(HIDDEN, "engine: fak", r".*unknown engine fak\..* Did you mean fake\?"),
    Bad(HIDDEN, "task: prompt_evil", r".*unknown task prompt_evil\..* Did you mean prompt_eval\?"),
    Bad(HIDDEN, "exclude: num_ctx > 1", "exclude leaves no cell"),
    Bad(HIDDEN, "exclude: __import__('os').system('touch hacked')", "exclude: "),
    Bad(SEEN, "model: 450", "model must be text; put it in quotes"),
    Bad(SEEN, "model: a b", r"model: contains a space or control character \(position 2\)"),
    Bad(SEEN, 'model: "a\\nb"', r"model: contains a space or control character \(position 2\)"),
    Bad(SEEN, "model: 'a\"b'", r'model: contains " \(position 2\)'),
    Bad(HIDDEN, f"model: {LONG_NAME}", r"model: the model part has 81 characters \(max 80\)"),
    Bad(SEEN, "model: 'm:'", "model: tag is empty"),
    Bad(HIDDEN, "model: ./missing.gguf", ".*missing.gguf: file not found"),
]
"""A line of `RUN_BASE` written otherwise, or one more."""


def files() -> Iterator[tuple[str | bytes, Bad]]:
    """Every file of the tables."""
    yield from ((bad.written, bad) for bad in (*NO_MAPPINGS, *RUN_FILES))
    yield from ((BASE.replace("64", str(bad.written)), bad) for bad in NUMBERS)
    yield from ((BASE.replace("model: m", f"model: {bad.written!s}"), bad) for bad in MODELS)
    yield from ((BASE.replace("p.txt", str(bad.written)), bad) for bad in PROMPTS)
    yield from ((f"{BASE}{bad.written!s}\n", bad) for bad in KEYS_AND_VALUES)
    yield from ((f"{BASE}{key}: {bad.written!s}\n", bad) for bad in TIMES for key in ("timeout", "load_timeout"))
    yield from ((excluding(str(bad.written)), bad) for bad in EXCLUSIONS)
    yield from ((changed(str(bad.written)), bad) for bad in RUN_VALUES)
