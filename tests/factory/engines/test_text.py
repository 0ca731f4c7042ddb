import pytest

from factory.engines.text import mend_text, split_reasoning

TAGS = ("<think>", "</think>")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("fine \0 שלום", "fine \0 שלום"), ("\ud83d\ude00", "😀"), ("a\ud800b", "a�b"), ("\udc00", "�"), ("", "")],
)
def test_mended_text_is_unicode(given: str, wanted: str) -> None:
    assert mend_text(given) == wanted
    mend_text(given).encode()


@pytest.mark.parametrize(
    ("text", "is_thinking", "wanted"),
    [
        ("<think>why\n</think>\n\n42", False, ("42", "why", True)),
        ("why</think>42", True, ("42", "why", True)),
        ("why</think>42", False, ("42", "why", True)),
        ("<think></think>42", False, ("42", "", True)),
        ("<think>and then", False, ("", "and then", False)),
        ("and then", True, ("", "and then", False)),
        ("<think>why</think>42", True, ("42", "why", True)),
        ("why <think> opens</think>42", True, ("42", "why <think> opens", True)),
        ("why</think>the tag <think> opens", True, ("the tag <think> opens", "why", True)),
        ("Write <think> and close it with </think>.", False, ("Write <think> and close it with </think>.", None, True)),
        ("just 42 ", False, ("just 42 ", None, True)),
        ("", True, ("", "", False)),
    ],
)
def test_reasoning_is_kept_apart(text: str, is_thinking: bool, wanted: tuple[str, str | None, bool]) -> None:
    assert split_reasoning(text, TAGS, is_thinking=is_thinking) == wanted
