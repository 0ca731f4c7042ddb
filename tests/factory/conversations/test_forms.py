"""Conversations of every usual form arrive whole, in prompts and in training, or are rejected with a reason."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.stages.sources import RAW_ROWS, read_source
from factory.training.data.reading import Rejected, TextRow, read_rows
from schemas.errors import InputError
from schemas.recipe.prompts import PromptSource
from schemas.recipe.training import TrainSettings

ASK, ANSWER, WORSE = "なぜ空は青い？", "لأن الضوء الأزرق يتشتت", "e\u0301h"
USER, ASSISTANT = {"role": "user", "content": ASK}, {"role": "assistant", "content": ANSWER}
SYSTEM = {"role": "system", "content": "Sois bref."}


def write(path: Path, rows: list[Any]) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".csv":
        pl.DataFrame(rows).write_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train_on(path: Path, objective: str = "sft", **values: Any) -> list[TextRow | Rejected]:
    chosen = TrainSettings.model_validate({"model": "m", "data": str(path), "objective": objective, **values})
    return list(read_rows(chosen, str(path), "train"))


def prompts_of(path: Path, columns: dict[str, Any] | None = None, **values: Any) -> list[dict[str, Any]]:
    given = {"name": "mine", "path": str(path), "language": "en", "columns": columns or {}, **values}
    frames = read_source(PromptSource.model_validate(given))
    return pl.concat([pl.DataFrame(schema=RAW_ROWS), *frames]).to_dicts()


def whole(row: TextRow | Rejected) -> list[dict[str, Any]]:
    """Return a conversation with its one answer, if that is apart."""
    assert isinstance(row, TextRow), row
    assert isinstance(row.prompt, list)
    (answer,) = row.answers or ([],)
    assert isinstance(answer, list)
    return [*row.prompt, *answer]


SHAREGPT = [
    {"from": "system", "value": "Sois bref."},
    {"from": "human", "value": ASK},
    {"from": "gpt", "value": ANSWER},
]
ALPACA = {
    "instruction": "なぜ空は",
    "input": "青い？",
    "output": ANSWER,
    "system": "Sois bref.",
    "history": [["a", "b"]],
}
HISTORY = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
ASKED = {"role": "user", "content": "なぜ空は\n\n青い？"}

FORMS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "openai": ({"messages": [SYSTEM, USER, ASSISTANT]}, [SYSTEM, USER, ASSISTANT]),
    "sharegpt": ({"conversations": SHAREGPT}, [SYSTEM, USER, ASSISTANT]),
    "sharegpt with a system column": ({"conversations": SHAREGPT[1:], "system": "Sois bref."}, [SYSTEM, USER, ASSISTANT]),
    "sharegpt under another name": ({"messages": SHAREGPT}, [SYSTEM, USER, ASSISTANT]),
    "json text": ({"messages": json.dumps([SYSTEM, USER, ASSISTANT])}, [SYSTEM, USER, ASSISTANT]),
    "sharegpt as json text": ({"conversations": json.dumps(SHAREGPT)}, [SYSTEM, USER, ASSISTANT]),
    "lists of fields": (
        {"messages": {"role": ["user", "assistant"], "content": [ASK, ANSWER]}},
        [USER, ASSISTANT],
    ),
    "parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": ASK}]},
                {"role": "assistant", "content": [{"type": "text", "text": text} for text in (ANSWER[:5], ANSWER[5:])]},
            ]
        },
        [USER, ASSISTANT],
    ),
    "alpaca": (ALPACA, [SYSTEM, *HISTORY, ASKED, ASSISTANT]),
    "alpaca without an input": ({"instruction": ASK, "input": "", "output": ANSWER}, [USER, ASSISTANT]),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_by_its_columns(tmp_path: Path, form: str, suffix: str) -> None:
    row, messages = FORMS[form]
    path = write(tmp_path / f"a{suffix}", [row])
    assert whole(train_on(path)[0]) == messages
    (prompt,) = prompts_of(path)
    assert (prompt["reason"], prompt["messages"]) == (None, messages[:-1])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_prompt_and_a_response_are_turns_of_a_chat(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", [{"prompt": ASK, "response": ANSWER}])
    assert whole(train_on(path)[0]) == [USER, ASSISTANT]
    assert prompts_of(path)[0]["messages"] == [USER]
    assert train_on(path, format="text") == [TextRow("a" + suffix + ":1", "", ASK, (ANSWER,))]


@pytest.mark.parametrize(("asks", "answers"), [("question", "answer"), ("inputs", "targets"), ("q.text", "a.0")])
def test_columns_of_any_name_are_taken_where_they_are_named(tmp_path: Path, asks: str, answers: str) -> None:
    row = {"q": {"text": ASK}, "a": [ANSWER]} if "." in asks else {asks: ASK, answers: ANSWER}
    path = write(tmp_path / "a.jsonl", [row])
    with pytest.raises(InputError, match=r"SFT needs messages or conversations or .* or 'columns' that name them"):
        train_on(path)
    assert whole(train_on(path, columns={"prompt": asks, "completion": answers})[0]) == [USER, ASSISTANT]
    assert prompts_of(path, {"prompt": asks})[0]["messages"] == [USER]


def test_plain_prompt_and_completion_stay_plain_texts_unless_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": ASK, "completion": ANSWER}])
    assert train_on(path) == [TextRow("a.jsonl:1", "", ASK, (ANSWER,))]
    assert whole(train_on(path, format="chat")[0]) == [USER, ASSISTANT]
    path = write(tmp_path / "b.jsonl", [{"prompt": ASK, "completion": ANSWER, "system": "Sois bref."}])
    (rejected,) = train_on(path)
    assert isinstance(rejected, Rejected)
    assert "the row has 'system', which raw texts cannot have" in rejected.detail
    assert whole(train_on(path, format="chat")[0]) == [SYSTEM, USER, ASSISTANT]


BETTER, BAD = [USER, ASSISTANT], [USER, {"role": "assistant", "content": WORSE}]
HH = [f"\n\nHuman: a\n\nAssistant: b\n\nHuman: {ASK}\n\nAssistant: {text}" for text in (ANSWER, WORSE)]
PAIRS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "whole conversations": ({"chosen": BETTER, "rejected": BAD}, [USER]),
    "hh": ({"chosen": HH[0], "rejected": HH[1]}, [*HISTORY, USER]),
    "ultrafeedback": ({"prompt": ASK, "prompt_id": "x", "messages": BETTER, "chosen": BETTER, "rejected": BAD}, [USER]),
    "json text": ({"prompt": ASK, "chosen": json.dumps(BETTER), "rejected": json.dumps(BAD)}, [USER]),
    "a prompt of its own": ({"prompt": [USER], "chosen": BETTER[1:], "rejected": BAD[1:]}, [USER]),
    "a prompt twice": ({"prompt": [USER], "chosen": BETTER, "rejected": BAD}, [USER]),
    "answers as texts": ({"prompt": [USER], "chosen": ANSWER, "rejected": WORSE}, [USER]),
    "sharegpt": (
        {
            "conversations": SHAREGPT[:2],
            "chosen": {"from": "gpt", "value": ANSWER},
            "rejected": {"from": "gpt", "value": WORSE},
        },
        [SYSTEM, USER],
    ),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("form", PAIRS)
def test_every_form_of_pairs_is_found_by_its_columns(tmp_path: Path, form: str, suffix: str) -> None:
    row, prompt = PAIRS[form]
    (found,) = train_on(write(tmp_path / f"a{suffix}", [row]), "dpo")
    assert isinstance(found, TextRow), found
    assert found.prompt == prompt
    assert found.answers == (BETTER[1:], BAD[1:])


def test_a_transcript_is_a_prompt_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"chosen": HH[0], "rejected": HH[1]}])
    assert prompts_of(path)[0]["messages"] == [*HISTORY, USER]
    assert prompts_of(path, {"messages": "rejected"})[0]["messages"] == [*HISTORY, USER]
    assert whole(train_on(path, columns={"messages": "chosen"})[0]) == [*HISTORY, USER, ASSISTANT]


TOLD = f"\n\nHuman: a\n\nAssistant: b\n\nHuman: {ASK}\n\nAssistant:"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        (ASK, HH[0], HH[1]),
        (TOLD, HH[0], HH[1]),
        (TOLD, ANSWER, WORSE),
        (TOLD, f" {ANSWER}", f" {WORSE}"),
        (TOLD.removesuffix("\n\nAssistant:"), ANSWER, WORSE),
    ],
)
def test_transcripts_beside_a_prompt_are_turns_in_pairs_and_in_answers(
    tmp_path: Path, prompt: str, chosen: str, rejected: str, suffix: str
) -> None:
    path = write(tmp_path / f"a{suffix}", [{"prompt": prompt, "chosen": chosen, "rejected": rejected}])
    (found,) = train_on(path, "dpo")
    assert isinstance(found, TextRow), found
    assert (found.prompt, found.answers) == ([*HISTORY, USER], (BETTER[1:], BAD[1:]))
    for name in ("completion", "response"):
        path = write(tmp_path / f"b{suffix}", [{"prompt": prompt, name: chosen}])
        assert whole(train_on(path)[0]) == [*HISTORY, USER, ASSISTANT]
        (text,) = train_on(path, format="text")
        assert isinstance(text, TextRow)
        assert (text.prompt, text.answers) == (prompt, (chosen,))


@pytest.mark.parametrize("name", ["completion", "response"])
def test_a_transcript_that_answers_another_prompt_is_rejected(tmp_path: Path, name: str) -> None:
    (found,) = train_on(path := write(tmp_path / "a.jsonl", [{"prompt": "Write a dialogue.", name: HH[0]}]))
    assert isinstance(found, Rejected)
    assert f"'{name}' does not begin with the row's prompt" in found.detail
    assert [type(row) for row in train_on(path, format="text")] == [TextRow]


def test_one_side_that_is_a_transcript_makes_no_pair(tmp_path: Path) -> None:
    (found,) = train_on(write(tmp_path / "a.jsonl", [{"prompt": ASK, "chosen": HH[0], "rejected": WORSE}]), "dpo")
    assert isinstance(found, Rejected)
    assert "an answer must be one message of the assistant" in found.detail


def test_pairs_that_answer_another_prompt_than_the_row_has_are_rejected(tmp_path: Path) -> None:
    (found,) = train_on(write(tmp_path / "a.jsonl", [{"prompt": "?", "chosen": BETTER, "rejected": BAD}]), "dpo")
    assert isinstance(found, Rejected)
    assert "'chosen' and 'rejected' do not begin with the row's prompt" in found.detail


def test_columns_that_may_be_meant_in_two_ways_are_refused_with_the_key_that_decides(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"messages": BETTER, "conversations": SHAREGPT, "prompt": "?"}])
    meant = (
        r'can be read as messages or conversations; choose in .columns., such as columns = \{ messages = "messages" \}'
    )
    with pytest.raises(InputError, match=meant):
        train_on(path)
    with pytest.raises(InputError, match="'mine' can be read as messages or conversations or prompt; choose"):
        prompts_of(path)
    assert whole(train_on(path, columns={"messages": "conversations"})[0]) == [SYSTEM, USER, ASSISTANT]
    assert prompts_of(path, {"prompt": "prompt"})[0]["messages"] == [{"role": "user", "content": "?"}]


@pytest.mark.parametrize(
    ("objective", "columns", "said"),
    [
        (
            "sft",
            {"prompt": "q", "chosen": "a"},
            r"'columns' names prompt \+ chosen for .*; SFT needs messages or prompt \+ comp",
        ),
        ("sft", {"completion": "a"}, "needs messages or prompt"),
        (
            "dpo",
            {"prompt": "q", "completion": "a"},
            r"preference training needs prompt \+ chosen \+ rejected or messages",
        ),
        ("sft", {"prompt": "q", "completion": "b"}, r"has no column 'b'; there are 'q', 'a'"),
    ],
)
def test_columns_that_do_not_make_a_row_are_refused(tmp_path: Path, objective: str, columns: Any, said: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"q": ASK, "a": ANSWER}])
    with pytest.raises(InputError, match=said):
        train_on(path, objective, columns=columns)


def test_pairs_of_another_prompt_column_are_chats(tmp_path: Path) -> None:
    row = {"system_prompt": "Sois bref.", "question": ASK, "chosen": ANSWER, "rejected": WORSE}
    path = write(tmp_path / "a.jsonl", [row])
    (found,) = train_on(path, "dpo")
    assert isinstance(found, Rejected)
    meant = 'prompt = "question", chosen = "chosen", rejected = "rejected", system = "system_prompt"'
    assert f"columns = {{ {meant} }}" in found.detail
    named = {"prompt": "question", "system": "system_prompt", "chosen": "chosen", "rejected": "rejected"}
    (found,) = train_on(path, "dpo", columns=named)
    assert isinstance(found, TextRow), found
    assert (found.prompt, found.answers) == ([SYSTEM, USER], (BETTER[1:], BAD[1:]))


def test_bookkeeping_of_a_turn_is_no_part_of_what_it_says(tmp_path: Path) -> None:
    extra = {
        "turn_identifier": 7,
        "language": "Japanese",
        "toxic": False,
        "usage": {"total_tokens": 3},
        "header": {"a": "b"},
    }
    path = write(tmp_path / "a.jsonl", [{"conversation": [USER | extra, ASSISTANT | extra]}])
    assert whole(train_on(path)[0]) == BETTER


CALL: dict[str, Any] = {
    "id": "c1",
    "type": "function",
    "function": {"name": "look_up", "arguments": {"city": "القاهرة", "n": 2}},
}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
WITH_TOOLS: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": "", "reasoning_content": "Let me see.", "tool_calls": [CALL]},
    {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "look_up"},
    {"role": "assistant", "content": "42", "weight": 0},
]
TEXT_CALL = CALL | {"function": {"name": "look_up", "arguments": json.dumps(CALL["function"]["arguments"])}}
WAYS: dict[str, dict[str, Any]] = {
    "openai": {
        "messages": [USER, WITH_TOOLS[1] | {"content": None, "tool_calls": [TEXT_CALL]}, *WITH_TOOLS[2:]],
        "tools": json.dumps([TOOL]),
    },
    "dictionaries": {"messages": WITH_TOOLS, "tools": [TOOL]},
    "json text": {"messages": json.dumps(WITH_TOOLS), "tools": [json.dumps(TOOL)]},
    "bare functions": {"messages": WITH_TOOLS, "functions": [TOOL["function"]]},
    "filled with null": {
        "messages": [
            dict.fromkeys(("name", "weight", "tool_calls", "tool_call_id", "reasoning_content", "function_call")) | turn
            for turn in WITH_TOOLS
        ],
        "tools": [TOOL],
        "images": None,
    },
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("way", WAYS)
def test_tools_calls_reasoning_names_and_weights_are_handed_on(tmp_path: Path, way: str, suffix: str) -> None:
    (found,) = train_on(write(tmp_path / f"a{suffix}", [WAYS[way]]))
    assert isinstance(found, TextRow), found
    assert found.prompt == WITH_TOOLS
    assert found.tools == (TOOL,)


def test_sharegpt_has_calls_and_observations(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": ASK},
        {"from": "function_call", "value": '{"name": "look_up", "arguments": {"n": null}}'},
        {"from": "observation", "value": "42"},
        {"from": "gpt", "value": "42", "weight": 1.0},
    ]
    row = {"conversations": turns, "tools": json.dumps([TOOL]), "functions": [{"name": "other"}]}
    (found,) = train_on(write(tmp_path / "a.jsonl", [row]))
    assert isinstance(found, TextRow), found
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"n": None}}}
    assert found.tools == (TOOL, {"type": "function", "function": {"name": "other"}})
    assert found.prompt == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "42", "weight": 1},
    ]


def test_the_id_of_a_call_and_the_name_of_a_strategy_may_be_zero(tmp_path: Path) -> None:
    call = {"id": 0, "type": "function", "function": {"name": "f", "arguments": {}}}
    turns = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert whole(train_on(write(tmp_path / "a.jsonl", [{"messages": turns}]))[0]) == turns
    path = write(tmp_path / "b.jsonl", [{"chosen": BETTER, "rejected": BAD, "strategy": number} for number in (0, 1)])
    assert [row.row for row in train_on(path, "dpo", strategies=["0"])] == ["b.jsonl:1"]


PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE]}, "part 1 of 'content' of turn 0 of 'messages' has the type 'image_url'"),
    ({"role": "user", "content": {"text": "a"}}, "must be text, got dict"),
    ({"role": "user", "content": None}, "turn 0 of 'messages' is the user's and has no content"),
    ({"role": "assistant", "content": None, "tool_calls": []}, "turn 0 of 'messages' is the assistant's and has no content"),
    ({"role": "narrator", "content": "a"}, "has the role 'narrator'; allowed are system, user, assistant, tool"),
    ({"role": "user", "content": "a", "value": "b"}, "has two values for 'content': 'a' and 'b'"),
    ({"role": "user", "content": "a", "train": False}, "has the unknown key 'train'"),
    ({"role": "assistant", "content": "a", "weight": 0.5}, "'weight' of turn 0 of 'messages' must be 0 or 1, got 0.5"),
    ({"role": "assistant", "content": "a", "tool_calls": [{"x": 1}]}, "must be a function with a name"),
    ({"role": "assistant", "content": "a", "tool_calls": "{"}, "'tool_calls' of turn 0 of 'messages' is not JSON"),
    ({"role": "user", "content": "a", "tool_calls": [CALL]}, "which only the assistant's may have"),
    ({"role": "user", "content": "a", "reasoning_content": "b"}, "which only the assistant's may have"),
    ({"role": "user", "content": "a\0"}, "a null character"),
    ({"role": "assistant", "content": "a", "reasoning": "\ud800"}, "half of a surrogate pair"),
]  # fmt: skip


@pytest.mark.parametrize(("turn", "said"), UNUSABLE)
def test_what_cannot_be_made_use_of_is_rejected_with_its_place(tmp_path: Path, turn: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"messages": BETTER}, {"messages": [turn, USER, ASSISTANT]}])
    good, bad = train_on(path)
    assert isinstance(good, TextRow)
    assert isinstance(bad, Rejected)
    assert bad.detail.startswith("a.jsonl:2: ")
    assert said in bad.detail
    assert bad.reason in {"invalid_row", "invalid_text"}
    prompt = prompts_of(path)[1]
    assert prompt["reason"] in {"invalid_row", "invalid_text"}
    assert "a.jsonl:2: " in prompt["detail"]


@pytest.mark.parametrize("column", ["images", "image", "documents", "chat_template_kwargs"])
def test_a_column_that_changes_the_conversation_is_no_mere_label(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"messages": BETTER, column: None}, {"messages": BETTER, column: {"a": "b"}}])
    assert [type(row) for row in train_on(path)] == [TextRow, Rejected]
    assert [row["reason"] for row in prompts_of(path, {"messages": "messages"})] == [None, "invalid_row"]


BESIDE = {
    "a system prompt": {"prompt": "q", "response": "a", "system": "Be brief.", "system_prompt": "Be long."},
    "reasoning": {"prompt": "q", "response": "a", "reasoning_content": "thought"},
    "a call": {"prompt": "q", "response": "a", "tool_calls": [{"name": "f", "arguments": {}}]},
    "what is asked about": {"instruction": "q", "output": "a", "context": "متن"},
    "a row that is not trained": {"messages": BETTER, "weight": 0},
    "a bad answer": {"prompt": "q", "completion": "a", "label": False},
}


@pytest.mark.parametrize("row", BESIDE.values(), ids=BESIDE)
def test_what_a_row_says_beside_its_layout_is_not_left_out_alone(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = train_on(path := write(tmp_path / "a.jsonl", [row]))
    assert isinstance(found, Rejected), found
    *_, column = row
    assert f"the row has '{column}' (" in found.detail
    assert "name the columns to use: columns = { " in found.detail
    columns = {"messages": "messages"} if "messages" in row else dict(zip(("prompt", "completion"), row, strict=False))
    assert [type(row) for row in train_on(path, columns=columns)] == [TextRow]


@pytest.mark.parametrize(
    "row",
    [{"messages": BETTER}, {"chosen": BETTER, "rejected": BAD}, dict(zip(("chosen", "rejected"), HH, strict=True))],
)
def test_conversations_are_no_plain_texts(tmp_path: Path, row: dict[str, Any]) -> None:
    objective = "dpo" if "chosen" in row else "sft"
    with pytest.raises(InputError, match=r'has conversations in \'.*; format = "text" is for'):
        train_on(write(tmp_path / "a.jsonl", [row]), objective, format="text")


def test_an_answer_that_is_a_conversation_is_no_plain_text(tmp_path: Path) -> None:
    rows = [{"prompt": ASK, "chosen": BETTER, "rejected": BAD}, {"prompt": ASK, "chosen": ANSWER, "rejected": WORSE}]
    bad, good = train_on(write(tmp_path / "a.jsonl", rows), "dpo", format="text")
    assert isinstance(bad, Rejected)
    assert 'format = "text" needs a prompt and answers that are texts' in bad.detail
    assert isinstance(good, TextRow)


def test_what_changes_nothing_may_stand_beside_a_conversation(tmp_path: Path) -> None:
    rows = [
        {"messages": BETTER, "weight": 1.0, "context": None, "label": True, "reasoning": ""},
        {"messages": BETTER, "weight": None, "label": "", "score": 0.5, "source": "web"},
    ]
    assert [type(row) for row in train_on(write(tmp_path / "a.jsonl", rows))] == [TextRow, TextRow]


@pytest.mark.parametrize(
    ("column", "value", "is_trained"),
    [
        *(("label", value, True) for value in (True, 1, 1.0, "true", "True", "TRUE", "1", "1.0")),
        *(("label", value, False) for value in (False, 0, 0.0, "false", "False", "0", 3, "3", "good", [1])),
        *(("weight", value, True) for value in (1, 1.0, "1", "1.0")),
        *(("weight", value, False) for value in (0, 0.0, "0", "0.0", 0.5, "0.5", "heavy")),
    ],
)
def test_a_flag_or_a_weight_says_the_same_in_every_kind_of_file(
    tmp_path: Path, column: str, value: Any, is_trained: bool
) -> None:
    row = {"prompt": "q", "completion": "a", column: value}
    files = [write(tmp_path / "a.jsonl", [row])]
    if not isinstance(value, list):
        files += [write(tmp_path / "a.parquet", [row]), write(tmp_path / "a.csv", [row])]
    for path in files:
        (found,) = train_on(path)
        assert isinstance(found, TextRow) == is_trained, found
        if isinstance(found, Rejected):
            assert f"'{column}'" in found.detail
            assert "to ignore it, name the columns to use" in found.detail
        assert [type(each) for each in train_on(path, columns={"prompt": "prompt", "completion": "completion"})] == [
            TextRow
        ]


@pytest.mark.parametrize(("weight", "read"), [("0", 0), ("1", 1), (0.0, 0), (True, 1)])
def test_the_weight_of_a_turn_may_be_text(tmp_path: Path, weight: Any, read: int) -> None:
    (found,) = train_on(write(tmp_path / "a.jsonl", [{"messages": [USER, ASSISTANT | {"weight": weight}]}]))
    assert whole(found) == [USER, ASSISTANT | {"weight": read}]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("input", 0, "'input' must be text, got int '0'"),
        ("input", False, "'input' must be text, got bool 'False'"),
        ("input", 5, "'input' must be text, got int '5'"),
        ("system", 0, "'system' must be text, got int '0'"),
        ("system", False, "'system' must be text, got bool 'False'"),
        *(("history", value, "'history' must be a list") for value in (0, False, 5, "0", "false", "5", {"a": "b"})),
    ],
)
def test_what_is_asked_about_is_no_nothing_because_it_is_zero(
    tmp_path: Path, column: str, value: Any, said: str
) -> None:
    path = write(
        tmp_path / "a.jsonl",
        [{"instruction": ASK, "output": ANSWER}, {"instruction": ASK, "output": ANSWER, column: value}],
    )
    good, bad = train_on(path)
    assert whole(good) == [USER, ASSISTANT]
    assert isinstance(bad, Rejected)
    assert said in bad.detail
    kept, dropped = prompts_of(path)
    assert (kept["reason"], dropped["reason"]) == (None, "invalid_row")
    assert said in dropped["detail"]


@pytest.mark.parametrize("nothing", [None, "", [], {}])
@pytest.mark.parametrize("column", ["input", "history", "system"])
def test_what_is_empty_is_nothing(tmp_path: Path, column: str, nothing: Any) -> None:
    path = write(tmp_path / "a.jsonl", [{"instruction": ASK, "output": ANSWER, column: nothing}])
    assert whole(train_on(path)[0]) == [USER, ASSISTANT]
    assert prompts_of(path)[0]["messages"] == [USER]


@pytest.mark.parametrize(
    ("objective", "first", "other"),
    [
        ("sft", {"prompt": "q", "completion": "a"}, {"messages": BETTER}),
        ("sft", {"prompt": "q", "completion": "a"}, {"response": "b"}),
        ("sft", {"messages": BETTER}, {"conversations": SHAREGPT}),
        ("sft", {"messages": BETTER}, {"instruction": "q", "output": "a"}),
        ("dpo", {"prompt": "q", "chosen": "a", "rejected": "b"}, {"instruction": "q"}),
        ("dpo", {"chosen": BETTER, "rejected": BAD}, {"prompt": ASK}),
        ("prompts", {"prompt": "q"}, {"messages": BETTER}),
        ("prompts", {"instruction": "q"}, {"prompt": "r"}),
    ],
)
def test_a_row_far_below_that_may_be_meant_in_two_ways_is_rejected(
    tmp_path: Path, objective: str, first: dict[str, Any], other: dict[str, Any]
) -> None:
    nothing = dict.fromkeys(other)
    path = write(tmp_path / "a.jsonl", [*([first] * 150), first | other, first | nothing])
    columns = (
        {"messages": "messages"} if "messages" in first else {name: name for name in first if name != "instruction"}
    )
    if objective == "prompts":
        rows = prompts_of(path)
        assert [row["reason"] for row in rows[149:]] == [None, "invalid_row", None]
        detail = rows[150]["detail"]
    else:
        found = train_on(path, objective)
        assert [type(row) for row in found[149:]] == [TextRow, Rejected, TextRow]
        assert isinstance(found[150], Rejected)
        detail = found[150].detail
        assert isinstance(train_on(path, objective, columns=columns)[150], TextRow)
    assert "a.jsonl:151: the row can be read as " in detail
    assert "choose in 'columns', such as columns = { " in detail


def test_another_file_of_a_table_may_not_say_more_than_the_first(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", [{"prompt": "q", "completion": "a"}])
    write(tmp_path / "1.parquet", [{"prompt": "q", "completion": "a", "messages": BETTER}])
    good, bad = train_on(tmp_path)
    assert isinstance(good, TextRow)
    assert isinstance(bad, Rejected)
    assert "can be read as prompt + completion or messages" in bad.detail


def test_a_prompt_is_not_read_without_what_it_asks_about(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "q", "context": "c"}, {"prompt": "q", "reasoning": "of the answer"}])
    assert [row["reason"] for row in prompts_of(path)] == ["invalid_row", None]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, USER]}, "uses tools"),
        ({"messages": [USER], "tools": [TOOL]}, "uses tools"),
        ({"messages": [*WITH_TOOLS[:3], USER]}, "uses tools"),
        ({"messages": [USER, ASSISTANT | {"reasoning_content": "x"}, USER]}, "turn 1 has 'reasoning_content'"),
        ({"messages": [USER | {"name": "Ada"}]}, "turn 0 has 'name', which prompts cannot have"),
    ],
)
def test_a_prompt_that_is_more_than_roles_and_texts_is_rejected(tmp_path: Path, row: Any, said: str) -> None:
    good, bad = prompts_of(write(tmp_path / "a.jsonl", [{"messages": [USER]}, row]))
    assert good["reason"] is None
    assert (bad["reason"], said in bad["detail"]) == ("invalid_row", True)


def test_the_answer_that_a_prompt_ends_with_is_left_out_with_its_reasoning(tmp_path: Path) -> None:
    row = {"messages": [USER, ASSISTANT | {"reasoning_content": "x", "weight": 1}]}
    assert prompts_of(write(tmp_path / "a.jsonl", [row]))[0]["messages"] == [USER]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_first_line_that_is_no_row_is_one_rejection(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    good = [{"messages": json.dumps(BETTER), "language": "en"}] * 2
    if suffix == ".csv":
        path.write_text("messages,language\nstray\n" + pl.DataFrame(good).write_csv(include_header=False))
    else:
        path.write_text("# a comment\n" + "".join(json.dumps(row) + "\n" for row in good))
    rows = train_on(path, languages=["en"])
    assert [type(row) for row in rows] == [Rejected, TextRow, TextRow]
    assert [row["reason"] for row in prompts_of(path)] == ["invalid_row", None, None]


def test_a_folder_of_compressed_shards_is_training_data(tmp_path: Path) -> None:
    import gzip

    for name in ("0.jsonl.gz", "1.JSONL.GZ"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_bytes(gzip.compress(json.dumps({"conversations": SHAREGPT}).encode()))
    assert [whole(row) for row in train_on(tmp_path / "set")] == [[SYSTEM, USER, ASSISTANT]] * 2
    assert [row["row"] for row in prompts_of(tmp_path / "set")] == ["0.jsonl.gz:1", "1.JSONL.GZ:1"]


def test_a_manifest_of_another_program_makes_no_export(tmp_path: Path) -> None:
    write(tmp_path / "0.jsonl", [{"messages": BETTER}])
    for manifest in ('{"files": 1}', "[]", "{"):
        (tmp_path / "manifest.json").write_text(manifest)
        assert [whole(row) for row in train_on(tmp_path)] == [BETTER]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_training_data_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": BETTER}, ensure_ascii=False), encoding=encoding)
    assert whole(train_on(path)[0]) == BETTER
    assert prompts_of(path)[0]["messages"] == [USER]


# Properties: a conversation in any form arrives as it is, and a part of one never.

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ANY_JSON = st.recursive(
    TEXTS | st.integers(0, 9), lambda inner: st.dictionaries(TEXTS, inner, max_size=2), max_leaves=3
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for at in range(draw(st.integers(1, 5))):
        role = draw(st.sampled_from(["user", "assistant", "tool"] + ["system"] * (at == 0)))
        turn: dict[str, Any] = {"role": role, "content": draw(TEXTS)}
        if role == "assistant" and draw(st.booleans()):
            turn["reasoning_content"] = draw(TEXTS.filter(bool))
        if role == "assistant" and draw(st.booleans()):
            arguments = draw(st.dictionaries(TEXTS, ANY_JSON, max_size=2))
            turn["tool_calls"] = [{"type": "function", "function": {"name": draw(TEXTS), "arguments": arguments}}]
        if role == "tool" and draw(st.booleans()):
            turn["tool_call_id"] = draw(TEXTS.filter(bool))
        if draw(st.booleans()):
            turn["weight"] = draw(st.integers(0, 1))
        if draw(st.booleans()):
            turn["name"] = draw(TEXTS.filter(bool))
        turns.append(turn)
    return turns


@st.composite
def written(draw: st.DrawFn, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Write a conversation in one of the forms that data sets have."""
    is_sharegpt = draw(st.booleans())
    people = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}
    found: list[dict[str, Any]] = []
    for turn in turns:
        turn = dict(turn)
        content: Any = turn.pop("content")
        if "tool_calls" in turn and content == "" and draw(st.booleans()):
            content = None
        elif draw(st.booleans()):
            cut = draw(st.integers(0, len(content)))
            content = [{"type": "text", "text": text, "image_url": None} for text in (content[:cut], content[cut:])]
        if "tool_calls" in turn and draw(st.booleans()):
            calls = [call["function"] for call in turn["tool_calls"]]
            turn["tool_calls"] = [call | {"arguments": json.dumps(call["arguments"])} for call in calls]
        role = turn.pop("role")
        turn |= {"from": people[role], "value": content} if is_sharegpt else {"role": role, "content": content}
        found.append(turn | draw(st.dictionaries(st.sampled_from(["refusal", "audio", "id"]), st.none())))
    column = draw(st.sampled_from(["messages", "conversations"]))
    return {column: json.dumps(found) if draw(st.booleans()) else found}


@settings(max_examples=150, deadline=None)
@given(st.data(), st.lists(conversations(), min_size=1, max_size=3))
def test_every_conversation_arrives_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, given_turns: list[list[dict[str, Any]]]
) -> None:
    first = data.draw(written(given_turns[0]))
    (column,) = first
    rows = [first, *({column: next(iter(data.draw(written(turns)).values()))} for turns in given_turns[1:])]
    found = train_on(write(tmp_path_factory.mktemp("any") / "a.jsonl", rows))
    assert [row.prompt if isinstance(row, TextRow) else row for row in found] == given_turns


class Leaves:
    """Makes texts that are all different, and remembers those that are a part of what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def make(self) -> str:
        self.said.append(f"<{len(self.said)}>")
        return self.said[-1]


KEYS = [
    "content", "value", "text", "reasoning", "reasoning_content", "thinking", "tool_calls", "function_call", "name",
    "tool_call_id", "refusal", "audio", "images", "parts", "weight", "train",
]  # fmt: skip


@st.composite
def odd_rows(draw: st.DrawFn) -> tuple[dict[str, Any], list[list[str]], list[str]]:
    """Return a row of odd turns, the texts of each of its turns, and those beside them."""
    leaves = Leaves()

    def value(depth: int = 0) -> Any:
        kind = draw(st.sampled_from(["text"] * 4 + ["none", "parts", "call", "picture", "number", "dict"]))
        match kind:
            case "none":
                return None
            case "parts":
                return [{"type": "text", "text": leaves.make()}, {"type": "text", "text": leaves.make()}]
            case "picture":
                return [{"type": "text", "text": leaves.make()}, {"type": "image", "image": leaves.make()}]
            case "call":
                return [{"function": {"name": leaves.make(), "arguments": {"a": leaves.make()}}}]
            case "number":
                return draw(st.sampled_from([0, 1, 0.5]))
            case "dict":
                return {"text": leaves.make()}
        return leaves.make()

    turns, texts = [], []
    for _ in range(draw(st.integers(1, 4))):
        begin = len(leaves.said)
        role = draw(st.sampled_from(["user", "assistant", "tool", "human", "gpt", "function_call", "critic"]))
        turn = {draw(st.sampled_from(["role", "from"])): role}
        turn |= {key: value() for key in draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))}
        turns.append(turn)
        texts.append(leaves.said[begin:])
    begin = len(leaves.said)
    columns = draw(st.lists(st.sampled_from(["system", "tools", "images", "functions"]), max_size=2, unique=True))
    row = {"messages": turns} | {column: value() for column in columns}
    return row, texts, leaves.said[begin:]


@settings(max_examples=400, deadline=None)
@given(odd_rows())
def test_no_part_of_a_row_is_ever_lost_alone(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[dict[str, Any], list[list[str]], list[str]]
) -> None:
    row, texts, beside = made
    path = write(tmp_path_factory.mktemp("odd") / "a.jsonl", [{"messages": BETTER}, row])
    found = train_on(path)[1]
    if isinstance(found, Rejected):
        assert found.reason
        assert found.detail.startswith("a.jsonl:2: ")
    else:
        arrived = json.dumps([found.prompt, found.tools])
        assert [text for text in [*chain(*texts), *beside] if text not in arrived] == []
    prompt = prompts_of(path)[1]
    if prompt["reason"] is None:
        while texts and row["messages"][len(texts) - 1].get("role", row["messages"][len(texts) - 1].get("from")) in {
            "assistant",
            "gpt",
        }:
            texts.pop()  # the answer that the prompt ends with
        arrived = json.dumps(prompt["messages"])
        assert [text for text in [*chain(*texts), *beside] if text not in arrived] == []
    else:
        assert prompt["detail"]
