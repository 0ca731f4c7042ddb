"""A recorded answer arrives whole, text and reasoning, or is refused: never a part of one."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from factory.conversations.answers import read_answer
from factory.inputs.row import RowError

KEYS = ["content", "value", "reasoning", "thinking", "tool_calls", "name", "refusal", "parts"]


@st.composite
def answers(draw: st.DrawFn) -> tuple[Any, list[str]]:
    """Return an answer of any form, and the texts in it."""
    texts: list[str] = []

    def text() -> str:
        texts.append(f"<{len(texts)}>")
        return texts[-1]

    def value() -> Any:
        part = {"type": draw(st.sampled_from(["text", "image"])), "text": text()}
        return draw(st.sampled_from([text(), [{"type": "text", "text": text()}], [part], None]))

    turn: dict[str, Any] = {"role": draw(st.sampled_from(["assistant", "gpt", "user"]))}
    turn |= {key: value() for key in draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))}
    made = draw(st.sampled_from([turn, [turn], [{"role": "user", "content": "?"}, turn], value()]))
    said = str(made)
    return made, [text for text in texts if text in said]


@settings(max_examples=400, deadline=None)
@given(answers(), st.booleans())
def test_no_part_of_an_answer_is_ever_lost_alone(made: tuple[Any, list[str]], is_conversation: bool) -> None:
    value, texts = made
    try:
        found = read_answer({"a": value}, None if is_conversation else "a", "a" if is_conversation else None)
    except RowError:
        return
    assert found.text
    assert [text for text in texts if text not in f"{found.text}{found.reasoning}"] == []
