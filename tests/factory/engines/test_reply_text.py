import pytest

from factory.engines.reply_text import find_stray_reasoning, mend_text, split_reasoning

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
        ("Close it with `</think>`, always.", False, ("Close it with `</think>`, always.", None, True)),
        ("the user asks about `</think>` here</think>42", True, ("42", "the user asks about `</think>` here", True)),
    ],
)
def test_reasoning_is_kept_apart(text: str, is_thinking: bool, wanted: tuple[str, str | None, bool]) -> None:
    assert split_reasoning(text, TAGS, is_thinking=is_thinking) == wanted


@pytest.mark.parametrize(
    "tags",
    [
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<seed:think>", "</seed:think>"),
    ],
)
def test_tags_of_any_form_part_the_thinking(tags: tuple[str, str]) -> None:
    assert split_reasoning(f"{tags[0]}לָמָּה?{tags[1]}四十二", tags, is_thinking=False) == ("四十二", "לָמָּה?", True)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("<think>why</think>42", "<think>"),
        ("why\n</think>\n\n答案是四", "</think>"),
        ("<Thinking>\nwhy", "<Thinking>"),
        ("مرحبا <reasoning>لأن</reasoning>", "<reasoning>"),
        ("<think time='3'>why", "<think time='3'>"),
        ("[THINK]why[/THINK]42", "[THINK]"),
        ("<|begin_of_thought|>why<|end_of_thought|>", "<|begin_of_thought|>"),
        ("<|START_THINKING|>why<|END_THINKING|>", "<|START_THINKING|>"),
        ("<seed:think>why", "<seed:think>"),
        ("◁think▷why◁/think▷42", "◁think▷"),
        ("<|channel|>analysis<|message|>why", "<|channel|>"),
        ("<longcat_think>\nwhy</longcat_think>42", "<longcat_think>"),
        ("why</longcat_think>42", "</longcat_think>"),
        ("<mm:think>why</mm:think>", "<mm:think>"),
        ("< think >why</ think >", "< think >"),
        ("＜think＞为什么＜/think＞", "＜think＞"),
        ("\n&lt;think&gt;why&lt;/think&gt;42", "&lt;think&gt;"),
        ("why\n&lt;/think&gt;\n42", "&lt;/think&gt;"),
        (" <analysis>\nwhy</analysis>42", "<analysis>"),
        ("<inner-monologue>why", "<inner-monologue>"),
        ("<thought_process>why", "<thought_process>"),
        ("`x` then <think>", "<think>"),
        ("Report:\n<analysis>\nSales rose.\n</analysis>", None),
        ("`<report>` <analysis> stands in it.", None),
        ("```xml\n<analysis>a</analysis>\n```", None),
        ("In HTML one writes &lt;think&gt; for it, and &lt;/think&gt; at the end.", None),
        ("<section>Think of <deep-thought> and <my_analysis>, 3 < think, or a > b.</section>", None),
        ("<div class='think'>Yes.</div>", None),
        ("an open ` and <think>", "<think>"),
        ("Qwen writes `<think>` first, then `</think>`.", None),
        ("```xml\n<think>why</think>\n```\n42", None),
        ("``a ` and <think>``", None),
        ("I think [that] <b>thought</b> is <rethink> and <thinker>.", None),
        ("Ich denke, also bin ich. [Think] of it: 3 < 4 > 2", None),
        ("", None),
    ],
)
def test_stray_marks_of_thinking_are_found_outside_of_code(text: str, mark: str | None) -> None:
    assert find_stray_reasoning(text) == mark


@pytest.mark.parametrize("tags", [("<analysis>", "</analysis>"), ("(*", "*)"), ("思考:", "答案:")])
def test_the_tags_of_a_model_are_stray_in_its_answers(tags: tuple[str, str]) -> None:
    for tag in tags:
        assert find_stray_reasoning(f"42. {tag}is this right?", tags) == tag
        assert find_stray_reasoning(f"42. {tag}is this right?") is None
        assert find_stray_reasoning(f"It writes `{tag}`.", tags) is None
        assert find_stray_reasoning(f"Was heißt {tag}?", tags, f"What does {tag} mean?") is None
    assert find_stray_reasoning("<think>why", tags) == "<think>"
    assert find_stray_reasoning("42", tags) is None


def test_marks_of_the_source_belong_to_its_translation() -> None:
    asked = "What does <think> mean?"
    assert find_stray_reasoning("Was heißt <think>?", source=asked) is None
    assert find_stray_reasoning("<think>Hm</think>Was heißt <think>?", source=asked) == "</think>"
