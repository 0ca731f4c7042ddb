"""All that a conversation carries is rendered and masked as the template means it, or the row is refused as a whole."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.training.data.examples import Example
from factory.training.data.reading import Rejected, TextRow, read_rows
from factory.training.data.templating import Templater
from schemas.recipe.training import TrainSettings
from tests.factory.engines.chat_families import FAMILIES, TEXTS, make_family
from tests.factory.training.conftest import write_rows

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}
CALL = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": {"word": "قطة", "times": 2}}}
ASK = {"role": "user", "content": "What is قطة?"}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": '{"en": "cat"}', "tool_call_id": "1", "name": "look_up"}
ANSWER = {"role": "assistant", "content": "A cat."}


def encode(family: str, *messages: dict[str, Any], tools: tuple[Any, ...] = (), **values: Any) -> list[Any]:
    return encode_row(family, TextRow("row", "en", list(messages), (), tools), **values)


def encode_row(family: str, row: TextRow, template: str | None = None, **values: Any) -> list[Example | Rejected]:
    tokenizer = make_family(family)
    if template is not None:
        tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, chat_template=template)
        tokenizer.eos_token = FAMILIES[family].end
    common = {"model": "m", "data": "d", "objective": "sft", "max_length": 4096}
    settings = TrainSettings.model_validate(common | values)
    return list(Templater(tokenizer, settings).examples([row]))


def trained(family: str, example: Example | Rejected, branch: int = 0) -> str:
    assert isinstance(example, Example), example
    return make_family(family).decode(example.branches[branch][example.trained[branch]])


def whole(family: str, example: Example | Rejected) -> str:
    assert isinstance(example, Example), example
    return make_family(family).decode(example.branches[0])


def refuse(family: str, *messages: dict[str, Any], **options: Any) -> str:
    (rejected,) = encode(family, *messages, **options)
    assert isinstance(rejected, Rejected)
    return f"{rejected.reason}: {rejected.detail}"


def test_calls_are_trained_and_their_results_are_not():
    (example,) = encode("chatml", ASK, CALLS, RESULT, ANSWER, tools=(TOOL,))
    called = '<tool_call>\n{"name": "look_up", "arguments": {"word": "قطة", "times": 2}}\n</tool_call><|im_end|>'
    assert trained("chatml", example) == f"{called}A cat.<|im_end|>"
    assert json.dumps(TOOL, ensure_ascii=False) in whole("chatml", example)
    assert '<tool_response>\n{"en": "cat"}\n</tool_response>' in whole("chatml", example)
    control = {make_family("chatml").convert_tokens_to_ids(token) for token in ("<tool_call>", "</tool_call>")}
    assert control <= set(example.branches[0][example.trained[0]].tolist())


def test_rows_of_a_file_come_through_with_their_tools(tmp_path):
    function = {"name": "look_up", "arguments": '{"word": "قطة"}'}
    calls = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    row = {"messages": [ASK, calls, {"role": "tool", "content": "cat"}, ANSWER], "tools": [TOOL]}
    path = write_rows(tmp_path / "rows.jsonl", [row])
    settings = TrainSettings(model="m", data=str(path), objective="sft")
    (example,) = Templater(make_family("chatml"), settings).examples(read_rows(settings, settings.data, "train"))
    assert isinstance(example, Example)
    assert json.dumps(TOOL, ensure_ascii=False) in whole("chatml", example)
    assert trained("chatml", example).startswith('<tool_call>\n{"name": "look_up", "arguments": {"word": "قطة"}}')


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([ASK, ANSWER], "the name of a tool, 'look_up'"),
        ([ASK, CALLS, RESULT, ANSWER], "the call of 'look_up'"),
    ],
)
def test_tools_that_a_template_does_not_write_refuse_the_row(row, said):
    tools = (TOOL,) if row[1] is ANSWER else ()
    assert refuse("llama", *row, tools=tools) == f"not_rendered: the chat template does not write {said}"


def test_a_value_that_stands_elsewhere_by_chance_is_not_taken_for_the_argument():
    template = FAMILIES["chatml"].template.replace("{{ call.function.arguments | tojson }}", "{}")
    row = TextRow("row", "en", [ASK, CALLS, RESULT, ANSWER | {"content": "قطة word 2"}], ())
    (rejected,) = encode_row("chatml", row, template)
    assert rejected.detail == "the chat template does not write an argument in the call of 'look_up'"


def test_the_reasoning_of_the_trained_turn_is_trained_and_that_of_the_turn_before_it_is_dropped():
    first = {"role": "assistant", "content": "One.", "reasoning_content": "I think of 一."}
    second = {"role": "assistant", "content": "Two.", "reasoning_content": "I think of 二."}
    last, alone = encode("chatml", ASK, first, ASK, second)
    assert trained("chatml", last) == "<think>\nI think of 二.\n</think>\n\nTwo.<|im_end|>"
    assert "一" not in whole("chatml", last)
    assert trained("chatml", alone) == "<think>\nI think of 一.\n</think>\n\nOne.<|im_end|>"


def test_reasoning_in_the_text_of_an_answer_is_read_by_the_template():
    first, second = ({"role": "assistant", "content": f"<think>\n{word}\n</think>\n\nYes."} for word in ("一", "二"))
    last, alone = encode("chatml", ASK, first, ASK, second)
    assert trained("chatml", last) == "<think>\n二\n</think>\n\nYes.<|im_end|>"
    assert trained("chatml", alone) == "<think>\n一\n</think>\n\nYes.<|im_end|>"


def test_reasoning_that_the_template_does_not_write_refuses_the_row():
    assert refuse("llama", ASK, ANSWER | {"reasoning_content": "Hm."}) == (
        "not_rendered: the chat template does not write 'reasoning_content'"
    )


def test_a_turn_of_weight_0_is_read_and_not_trained():
    turns: list[dict[str, Any]] = [
        ASK,
        ANSWER | {"weight": 0},
        ASK,
        {"role": "assistant", "content": "It is a cat.", "weight": 1},
    ]
    (example,) = encode("llama", *turns)
    assert trained("llama", example) == "It is a cat.<|eot_id|>"
    assert "A cat.<|eot_id|>" in whole("llama", example)
    (example,) = encode("llama", *turns[:1], ANSWER, ASK, ANSWER | {"content": "No.", "weight": 0})
    assert trained("llama", example) == "A cat.<|eot_id|>"
    assert "No." not in whole("llama", example)


def test_a_row_of_which_nothing_is_trained_is_refused():
    assert refuse("llama", ASK, ANSWER | {"weight": 0}).startswith("empty: all assistant turns have weight 0")
    detail = refuse("llama", ASK, ANSWER | {"weight": 0}, ASK, ANSWER, train_on="all")
    assert "weight 0" in detail


def test_a_name_is_written_or_refuses_the_row():
    speaks = {"role": "user", "content": "Hello", "name": "Zoë"}
    assert (
        refuse("llama", speaks, ANSWER)
        == "not_rendered: the chat template does not write the 'name' of a message, 'Zoë'"
    )
    template = FAMILIES["llama"].template.replace("{{ m.role }}", "{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}")
    (example,) = encode_row("llama", TextRow("row", "en", [speaks, ANSWER], ()), template)
    assert "user Zoë" in whole("llama", example)
    (example,) = encode("llama", speaks | {"name": "User"}, ANSWER)
    assert trained("llama", example) == "A cat.<|eot_id|>"


def test_results_in_another_order_than_their_calls_are_refused():
    calls = CALLS | {"tool_calls": [CALL, CALL | {"id": "2"}]}
    results = [RESULT | {"tool_call_id": "2"}, RESULT]
    assert "is not in the order of the calls" in refuse("chatml", ASK, calls, *results, ANSWER)
    (example,) = encode("chatml", ASK, calls, *reversed(results), ANSWER)
    assert isinstance(example, Example)


def test_a_turn_that_the_template_leaves_out_refuses_the_row():
    template = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    row = TextRow("row", "en", [{"role": "system", "content": "كن مختصرا"}, ASK, ANSWER], ())
    (rejected,) = encode_row("phi", row, template)
    assert rejected.detail == "the chat template does not write a text of role system, 'كن مختصرا'"


def test_a_template_that_cuts_a_text_refuses_the_row():
    template = FAMILIES["phi"].template.replace("m.content", "m.content[:20]")
    (rejected,) = encode_row("phi", TextRow("row", "en", [ASK, ANSWER | {"content": "long " * 9}], ()), template)
    assert rejected.reason == "not_rendered"


def test_a_conversation_with_more_texts_than_can_be_marked_is_refused():
    """Whether the template writes them all could not be said, so nothing would be certain of the last ones."""
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"words": ["قطة"] * 6_500}}}
    assert refuse("chatml", ASK, CALLS | {"tool_calls": [call]}, RESULT, ANSWER) == (
        "invalid_row: the conversation and its tools have too many texts to check that the template writes them all; "
        "at most 6,400 are allowed, less any private-use characters (U+E000 to U+F8FF) in them"
    )
    every = "".join(map(chr, range(0xE000, 0xF900)))
    assert "too many texts to check" in refuse("chatml", ASK | {"content": every}, ANSWER)


def test_blank_texts_need_no_marks():
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"words": [" "] * 6_500}}}
    (example,) = encode("chatml", ASK, CALLS | {"tool_calls": [call]}, RESULT, ANSWER)
    assert isinstance(example, Example)


def test_an_answer_of_a_pair_may_be_a_call():
    row = TextRow("row", "en", [ASK], ([CALLS], [ANSWER]), (TOOL,))
    (pair,) = encode_row("chatml", row, objective="dpo")
    assert trained("chatml", pair, 0).startswith("<tool_call>")
    assert trained("chatml", pair, 1) == "A cat.<|im_end|>"


TEXT = st.one_of(
    st.sampled_from([*TEXTS, *(f"x{token}y" for token in FAMILIES["chatml"].special)]), st.text(min_size=1, max_size=12)
)
VALUES = st.recursive(
    st.one_of(TEXT, st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=4,
)
CALLED = st.fixed_dictionaries(
    {"name": st.sampled_from(["look_up", "قطة"]), "arguments": st.dictionaries(TEXT, VALUES, max_size=3)}
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[dict[str, Any]], tuple[Any, ...]]:
    messages: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(TEXT)})
        if draw(st.booleans()):
            messages[-1]["name"] = draw(TEXT)
        if draw(st.booleans()):
            calls = [{"type": "function", "function": call} for call in draw(st.lists(CALLED, min_size=1, max_size=2))]
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            messages += [{"role": "tool", "content": draw(TEXT)} for _ in calls]
        answer: dict[str, Any] = {"role": "assistant", "content": draw(TEXT)}
        if draw(st.booleans()):
            answer["reasoning_content"] = draw(TEXT)
        if draw(st.booleans()):
            answer["weight"] = draw(st.sampled_from([0, 1]))
        messages.append(answer)
    return messages, draw(st.sampled_from([(), (TOOL,)]))


@pytest.mark.parametrize("family", ["chatml", "llama", "phi"])
@settings(deadline=None, max_examples=150)
@given(found=conversations())
def test_a_conversation_is_used_whole_or_refused_with_a_reason(family, found):
    messages, tools = found
    examples = encode(family, *messages, tools=tools)
    if isinstance(examples[0], Rejected):
        assert len(examples) == 1
        assert examples[0].detail
        return
    shown, taught = whole(family, examples[0]), "".join(trained(family, example) for example in examples)
    answers = [
        at for at, message in enumerate(messages) if message["role"] == "assistant" and message.get("weight") != 0
    ]
    for at, message in enumerate(messages[: answers[-1] + 1]):
        assert message["content"].strip() in shown
        assert "name" not in message or message["name"].strip() in shown
        for call in message.get("tool_calls", ()):
            assert call["function"]["name"] in shown
            for name, value in call["function"]["arguments"].items():
                assert json.dumps({name: value}, ensure_ascii=False)[1:-1] in shown
        if at in answers:
            assert message["content"].strip() in taught
            assert message.get("reasoning_content", "").strip() in taught
    assert not tools or json.dumps(TOOL, ensure_ascii=False) in shown
    ends = taught.count(FAMILIES[family].end)
    spelled = sum(text.count(FAMILIES[family].end) for text in _texts([messages[at] for at in answers]))
    assert ends == len(answers) + spelled


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for name, inner in value.items() for text in (name, *_texts(inner))]
    return [text for inner in value for text in _texts(inner)] if isinstance(value, list) else []
