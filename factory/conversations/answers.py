"""Reading recorded answers: as text, as parts or a message, or at the end of a conversation."""

from dataclasses import dataclass
from typing import Any

from factory.conversations.forms import Messages, is_conversation, read_text, read_turns
from factory.inputs.files import find_value
from factory.inputs.row import Row, RowError
from schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and the reasoning before it if the row stores that separately.

    ``asked`` are the turns before the answer, without the system message; empty if the row has no conversation.
    """

    text: str
    reasoning: str | None = None
    asked: tuple[dict[str, Any], ...] = ()


def read_answer(row: Row, text: str | None, messages: str | None) -> Answer:
    """Return a row's answer, from the column ``text``, or from the last turn of the conversation in ``messages``.

    Raises:
        RowError: there is no answer, or it has more than text and reasoning.
        LookupError: the row lacks the column.
    """
    if messages is not None:
        return _read_last(read_turns(find_value(row, messages), messages), messages)
    assert text is not None
    value = find_value(row, text)
    if is_conversation(value):
        return _read_last(read_turns(value, text), text)
    return Answer(_refuse_empty("" if value is None else read_text(value, f"'{text}'")))


def _read_last(turns: Messages, column: str) -> Answer:
    *before, last = turns
    if last["role"] != "assistant" or (before and before[-1]["role"] == "assistant"):
        raise RowError(f"'{column}' must end with one message of the assistant, got {last!r:.60}")
    if any(turn["role"] == "tool" or "tool_calls" in turn for turn in turns):
        raise RowError(f"'{column}' uses tools, which recorded answers cannot have")
    if others := last.keys() - {"role", "content", "reasoning_content", "weight"}:
        raise RowError(f"the answer in '{column}' has '{min(others)}', which recorded answers cannot have")
    if last.get("weight") == 0:
        raise RowError(f"the answer in '{column}' has weight 0, so it must not be trained on")
    asked = tuple(turn for turn in before if turn["role"] != "system")
    return Answer(_refuse_empty(last["content"]), last.get("reasoning_content"), asked)


def _refuse_empty(text: str) -> str:
    if not text:
        raise RowError("no text", Reason.EMPTY)
    return text
