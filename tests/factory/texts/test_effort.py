"""What must be kept of a text is found with work in proportion to its length, whatever it repeats."""

import pytest

from factory.texts.code_lines import find_code_lines
from factory.texts.markup import split_protected
from factory.texts.scripts import measure_script
from factory.texts.signs import find_runs
from tests.pace import takes_at_most

NUM_CHARS = 10_000
MAX_UNITS = 2.2
"""Four times what prose of this length takes, and half as much again as the dearest of what follows."""

MAX_LINES_UNITS = 0.75
"""The same for the lines of code alone."""

REPEATED = [
    *(
        " ",
        "\t",
        "\n",
        "\u00a0",
        "~",
        "`",
        "~~~\n",
        "```\n",
        "-",
        "--|",
        "| ",
        "|",
        ">",
        "> ",
        "#",
        "*",
        "_",
        "__",
        "^",
    ),
    *(
        '"',
        "'",
        "\\",
        '["',
        "['",
        "[",
        "(",
        "{",
        "{{",
        "<",
        ")",
        "]",
        "}",
        "()",
        "f((",
        "f(a",
        'f("',
        "[a](",
        "![",
        "a(b)(",
    ),
    *(
        "a",
        "A",
        "1",
        "Ab",
        "AbAb ",
        "a_",
        "a.",
        "a-",
        "/a",
        "a/",
        "C:\\",
        "a@a.",
        "1,",
        "1.",
        "é",
        "中",
        "ж ",
        "“",
        "0b1",
        "f1",
    ),
    *("SELECT (", "select (", "WITH a AS (", "UPDATE a SET ", "CREATE TABLE ", "SELECT a FROM b (", "INSERT INTO "),
    *("a {\n", "a{\n", "x = (\n", "}\n\n", "{\n", "a: 1\n", "a: b\n- c\n", "1,2\n", "$ ls\n", "a=1\n", "all: a\n\tb\n"),
    *(
        '{"a":',
        '["a", ',
        "[1,",
        "[{",
        "{a:",
        "$",
        "$$",
        "\\(",
        "\\[",
        "\\frac{",
        "\\begin{align}",
        "x+",
        "x=",
        "=",
        "√(",
    ),
    *(
        "<a ",
        "<a b=",
        "<!--",
        "<?php",
        "<%",
        "{%",
        "http://",
        "www.",
        "%A",
        "&&",
        "a && ",
        "a->",
        "for (",
        "if (a;",
        "try {",
    ),
    *(
        "int ",
        "const ",
        ", int aaaa",
        "if a ",
        "return ",
        "a if b ",
        "lambda x",
        "git ",
        "ls -a ",
        "--a",
        "[^a",
        "\\d",
        "AaError",
    ),
]


def repeat(part: str, width: int = NUM_CHARS) -> str:
    """Return a text that repeats a part, in lines of a width."""
    text = part * (NUM_CHARS // len(part))
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


@pytest.mark.parametrize("part", REPEATED)
def test_text_that_repeats_itself(part: str) -> None:
    text = repeat(part)
    assert takes_at_most(MAX_UNITS, lambda: list(split_protected(text)))


@pytest.mark.parametrize("part", [*REPEATED, "f(a ", "a_b ", "x=1 ", "= a", "\\n"])
def test_runs_of_code_in_text_that_repeats_itself(part: str) -> None:
    text = repeat(part)
    assert takes_at_most(MAX_LINES_UNITS, lambda: list(find_runs(text)))


@pytest.mark.parametrize("width", [490, 1985])
@pytest.mark.parametrize("part", [part for part in REPEATED if "\n" not in part])
def test_lines_that_repeat_themselves(part: str, width: int) -> None:
    text = repeat(part, width)
    assert takes_at_most(MAX_LINES_UNITS, lambda: list(find_code_lines(text)))


@pytest.mark.parametrize("part", ["a {\n", "x = (\n", "a [\n", "x = 5;\n\n}\n\n", "}\n\n"])
def test_lines_that_open_and_close(part: str) -> None:
    text = repeat(part)
    assert takes_at_most(MAX_LINES_UNITS, lambda: list(find_code_lines(text)))


@pytest.mark.parametrize("beginning", ['{"answer":\n', "SELECT a", "x = 5;\n"])
@pytest.mark.parametrize("blank", [" ", "\t", " \n"])
def test_blanks_without_end(beginning: str, blank: str) -> None:
    text = beginning + repeat(blank)
    assert takes_at_most(2 * MAX_UNITS, lambda: (list(split_protected(text)), measure_script(text, "en")))
