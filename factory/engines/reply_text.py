"""Processing the text of replies: invalid Unicode, and reasoning."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from schemas.reasoning import HIDDEN_CODE, QUOTED_CODE, REASONING_MARKS


def list_texts(data: object) -> Iterator[str]:
    """Yield all strings in JSON-like data, including field names."""
    match data:
        case str():
            yield data
        case Mapping():
            for name, value in data.items():
                yield from list_texts(name)
                yield from list_texts(value)
        case list() | tuple():
            for value in data:
                yield from list_texts(value)


def mend_text(text: str) -> str:
    """Return text that UTF-8 can encode: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def split_reasoning(text: str, tags: tuple[str, str], *, is_thinking: bool) -> tuple[str, str | None, bool]:
    """Separate the thinking of a reasoning model from its answer.

    Args:
        text: the model's output.
        tags: the opening and the closing tag of the thinking.
        is_thinking: whether the prompt ended with the opening tag, so that the text begins inside the thinking.

    Returns:
        The answer, the thinking (None if there is none), and whether the thinking, if any, was closed. If it was not,
        the answer is empty. A tag in the middle of an answer, or quoted as code, belongs to the answer.
    """
    opening, closing = tags
    end = re.search(rf"(?<!`){re.escape(closing)}(?!`)", text)
    thinking, closed, answer = (text[: end.start()], closing, text[end.end() :]) if end else (text, "", "")
    is_opened = text.lstrip().startswith(opening) or (closed and opening not in thinking)
    if not (is_thinking or is_opened):
        return text, None, True
    return answer.strip(), thinking.strip().removeprefix(opening).strip(), bool(closed)


def find_stray_reasoning(text: str, tags: tuple[str, str] | None = None, source: str = "") -> str | None:
    """Return the first mark of thinking in a text, outside of quoted code, or None.

    ``tags`` are those of the model that wrote the text. ``source`` is the text that it is a translation of, whose marks
    are allowed.
    """
    expected = Counter(_list_marks(source, tags))
    for mark in _list_marks(text, tags):
        expected[mark] -= 1
        if expected[mark] < 0:
            return mark
    return None


def _list_marks(text: str, tags: tuple[str, str] | None) -> list[str]:
    marks = "|".join([*map(re.escape, tags or ()), REASONING_MARKS])
    return [mark.strip() for mark in re.findall(marks, re.sub(QUOTED_CODE, HIDDEN_CODE, text))]
