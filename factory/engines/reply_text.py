"""What engines do to the text of a reply."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from schemas.reasoning import HIDDEN_CODE, QUOTED_CODE, REASONING_MARKS


def list_texts(data: object) -> Iterator[str]:
    """Yield the texts inside JSON-able data, the names of fields among them."""
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
    """Return text that UTF-8 can hold: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def split_reasoning(text: str, tags: tuple[str, str], *, is_thinking: bool) -> tuple[str, str | None, bool]:
    """Part the thinking of a reasoning model from its answer.

    Args:
        text: what the model wrote.
        tags: what opens and what closes the thinking.
        is_thinking: whether the prompt ended with the opening tag, so that the text begins inside the thinking.

    Returns:
        The answer, the thinking (None if there is none) and whether the thinking, if any, was closed. An unclosed
        one leaves an empty answer. A tag in the middle of an answer, or one that is quoted as code, is part of it.
    """
    opening, closing = tags
    end = re.search(rf"(?<!`){re.escape(closing)}(?!`)", text)
    thinking, closed, answer = (text[: end.start()], closing, text[end.end() :]) if end else (text, "", "")
    is_opened = text.lstrip().startswith(opening) or (closed and opening not in thinking)
    if not (is_thinking or is_opened):
        return text, None, True
    return answer.strip(), thinking.strip().removeprefix(opening).strip(), bool(closed)


def find_stray_reasoning(text: str, tags: tuple[str, str] | None = None, source: str = "") -> str | None:
    """Return the first mark of a thinking model that stands in a text outside of quoted code, or None.

    ``tags`` are those of the model that wrote it. ``source`` is what the text is a translation of: marks that stand
    there belong here too.
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
