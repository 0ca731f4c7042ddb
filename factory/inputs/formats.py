"""Rows of the known data sets: which columns hold the conversation, and how a row becomes a prompt and its answers.

Known by their columns are conversations (``messages``, ``conversations``), texts (``prompt`` + ``completion`` or
``response``), Alpaca's (``instruction``, ``input``, ``output``, ``history``) and pairs (``prompt``, ``chosen``,
``rejected``), where the answers may be whole conversations, as in UltraFeedback, or transcripts, as in HH.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from factory.inputs.conversations import Messages, are_turns, is_conversation, is_transcript, read_text, read_turns
from factory.inputs.errors import RowError
from factory.inputs.tool_calls import decode_json, read_tools
from factory.stages.files import find_value
from schemas.errors import InputError
from schemas.reasons import Reason

Row: TypeAlias = dict[str, Any]

Task: TypeAlias = Literal["prompts", "sft", "preference"]

_TURNS = ("messages", "conversations", "conversation")

_SFT = (
    *({"messages": column} for column in _TURNS),
    {"prompt": "prompt", "completion": "completion"},
    {"prompt": "prompt", "completion": "response"},
    {"prompt": "instruction", "completion": "output"},
)
_SIDES = {"chosen": "chosen", "rejected": "rejected"}
_FORMS: dict[Task, tuple[tuple[dict[str, str], ...], ...]] = {
    "prompts": (
        (*({"messages": column} for column in _TURNS), {"prompt": "prompt"}, {"prompt": "instruction"}),
        ({"messages": "chosen"},),
    ),
    "sft": (_SFT,),
    "preference": (
        ({"prompt": "prompt", **_SIDES}, {"prompt": "instruction", **_SIDES}),
        tuple({"messages": column, **_SIDES} for column in _TURNS),
        (_SIDES,),
    ),
}
"""The columns that rows may have, by the part that each holds; those of the first group that fit come before others."""

_CONTENT = ("messages", "prompt", "completion", "chosen", "rejected")
_GIVEN: dict[Task, tuple[set[str], ...]] = {
    "prompts": ({"messages"}, {"prompt"}),
    "sft": ({"messages"}, {"prompt", "completion"}),
    "preference": ({"prompt", *_SIDES}, {"messages", *_SIDES}, {*_SIDES}),
}
"""The parts that settings may name together."""

_WHAT: dict[Task, str] = {"prompts": "a source of prompts", "sft": "SFT", "preference": "preference training"}

_SYSTEM = ("system", "system_prompt", "system_message")
_TOOLS = ("tools", "functions")
_UNUSABLE = ("image", "images", "video", "videos", "audio", "audios", "documents", "chat_template_kwargs")
"""Columns that change what a conversation is and that nothing here can use."""

_ASKED = (*_SYSTEM, "context", "input", "history")
_ANSWERED = ("reasoning_content", "reasoning", "thinking", "tool_calls", "function_call", "weight", "label")
_BESIDE: dict[Task, tuple[str, ...]] = {"prompts": _ASKED, "sft": (*_ASKED, *_ANSWERED), "preference": _ASKED}
"""Columns that usually belong to what is asked or answered. Where nobody has said which columns are meant, a row that
fills one of them beside its layout is refused, since leaving it out would change what the row says."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column holds which part: messages, prompt, input, history, system, completion, chosen, rejected.

    ``is_text``: a prompt and answers that are texts are meant as they are, and not as turns of a chat;
    ``is_only_text``: nothing else was asked for. ``beside``: columns that have no part, and that no row may fill.
    """

    parts: Mapping[str, str]
    is_text: bool = False
    is_only_text: bool = False
    beside: tuple[str, ...] = ()

    @property
    def needed(self) -> list[str]:
        """The columns without which there is no row."""
        return [column for part, column in self.parts.items() if part in _CONTENT]

    @property
    def optional(self) -> list[str]:
        """The columns that a row may have besides."""
        others = [column for part, column in self.parts.items() if part not in _CONTENT]
        unnamed = (*_TOOLS, *_UNUSABLE, *self.beside)
        return [*others, *(column for column in unnamed if column not in self.parts.values())]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row: what is asked, and its answers, as texts or as conversations; without answers, all of a conversation."""

    prompt: str | Messages
    answers: tuple[str | Messages, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()


def list_content_columns(given: Mapping[str, str] | None = None) -> set[str]:
    """Return the columns of which each makes an object a row: the usual ones, and those given, by part."""
    usual = {column for groups in _FORMS.values() for forms in groups for form in forms for column in form.values()}
    return usual | {column for part, column in (given or {}).items() if part in _CONTENT}


def find_layout(
    names: Sequence[str],
    given: Mapping[str, str],
    task: Task,
    *,
    where: str,
    form: Literal["chat", "text"] | None = None,
) -> Layout:
    """Return where a table's rows have their parts: as given, by part, or as the names of the columns say.

    Raises:
        InputError: the columns are none of the known, or may be meant in several ways.
    """
    content = {part for part in _CONTENT if part in given}
    is_given = bool(content)
    if is_given and content not in _GIVEN[task]:
        allowed = " or ".join(" + ".join(part for part in _CONTENT if part in parts) for parts in _GIVEN[task])
        named = " + ".join(part for part in _CONTENT if part in content)
        raise InputError(f"'columns' names {named} for {where}; {_WHAT[task]} needs {allowed}")
    parts = dict(given) if is_given else {**_detect(names, task, where), **given}
    if parts.get("prompt") == "instruction":
        parts = {**{part: part for part in ("input", "history") if part in names}, **parts}
    if not is_given and (system := next((name for name in _SYSTEM if name in names), None)):
        parts.setdefault("system", system)
    is_only_text = form == "text"
    if is_only_text and "prompt" not in parts:
        named = " + ".join(f"'{column}'" for part, column in parts.items() if part in _CONTENT)
        raise InputError(
            f'{where} has conversations in {named}; format = "text" is for a prompt and answers in columns'
        )
    usual = [("prompt", "completion"), ("prompt", "chosen", "rejected")]
    is_usual = tuple(column for part, column in parts.items() if part in _CONTENT) in usual
    beside = () if is_given else tuple(column for column in _BESIDE[task] if column not in parts.values())
    return Layout(parts, is_usual if form is None else is_only_text, is_only_text, beside)


def _detect(names: Sequence[str], task: Task, where: str) -> dict[str, str]:
    for forms in _FORMS[task]:
        found = [form for form in forms if set(form.values()) <= set(names)]
        if len(found) > 1:
            meant = " or ".join(" + ".join(form.values()) for form in found)
            example = ", ".join(f'{part} = "{column}"' for part, column in found[0].items())
            raise InputError(f"{where} may be meant as {meant}; say which in 'columns', as columns = {{ {example} }}")
        if found:
            return found[0]
    allowed = " or ".join(dict.fromkeys(" + ".join(form.values()) for forms in _FORMS[task] for form in forms))
    raise InputError(
        f"{where} has the columns {', '.join(names) or 'none'}; {_WHAT[task]} needs {allowed}, or 'columns' that say which are meant"
    )


def read_conversation(row: Row, layout: Layout) -> Conversation:
    """Return a row's prompt and answers.

    Raises:
        RowError: a part is missing, of another form, or cannot be used.
        LookupError: the row lacks a column.
    """
    _refuse_columns(row, layout)
    parts = {part: find_value(row, layout.parts[part]) for part in _CONTENT if part in layout.parts}
    if not layout.is_only_text:
        parts = _decode_parts(parts)
    extra = {part: find_optional(row, layout.parts.get(part)) for part in ("input", "history", "system")}
    tools = tuple(tool for column in _TOOLS for tool in read_tools(row.get(column), f"'{column}'"))
    sides = {part: value for part, value in parts.items() if part not in ("messages", "prompt")}
    if layout.is_text and all(isinstance(value, str) for value in (parts.get("prompt"), *sides.values())):
        _refuse_extra({**extra, "tools": tools})
        return Conversation(parts["prompt"], tuple(sides.values()))
    if layout.is_only_text:
        raise RowError('the prompt and its answers must be texts, as format = "text" says, and one of them is not')
    context = _read_context(parts, extra, layout)
    if not sides:
        return Conversation(_put_system(context, extra["system"], layout), (), tools)
    answers = [_read_answer(value, layout.parts[part]) for part, value in sides.items()]
    prompt, answers = _part(context, answers, list(map(layout.parts.__getitem__, sides)))
    for answer in answers:
        if [message["role"] for message in answer] != ["assistant"]:
            raise RowError(f"an answer must be one message of the assistant, got {answer!r:.60}")
    return Conversation(_put_system(prompt, extra["system"], layout), tuple(answers), tools)


def _refuse_columns(row: Row, layout: Layout) -> None:
    unusable = next((column for column in _UNUSABLE if row.get(column) not in (None, "", [], {})), None)
    if unusable is not None:
        raise RowError(f"the row has '{unusable}', which cannot be used")
    beside = next((column for column in layout.beside if _says_something(column, row.get(column))), None)
    if beside is not None:
        parts = ", ".join(f'{part} = "{column}"' for part, column in layout.parts.items())
        raise RowError(
            f"the row has '{beside}' ({row[beside]!r:.40}), which may belong to the conversation; "
            f"to leave it out, name the columns that are meant: columns = {{ {parts} }}"
        )


def _says_something(column: str, value: Any) -> bool:
    """Whether a value beside a conversation changes it: a weight does unless it is 1, a label only where it is false."""
    if column == "label":  # KTO's: whether the answer is a good one; other labels are numbers or names
        return value is False
    return value not in (None, "", [], {}) and not (column == "weight" and value == 1)


def join_texts(texts: Iterable[str]) -> str:
    """Return the parts of what is asked as one text, as Alpaca's instruction and input, with empty lines between them."""
    return "\n\n".join(filter(None, texts))


def find_optional(row: Row, column: str | None) -> Any:
    """Return the value of a column; none where there is no such column, or no such field in the row."""
    if column is None:
        return None
    try:
        return find_value(row, column)
    except LookupError:
        return None


def _refuse_extra(extra: Mapping[str, Any]) -> None:
    for part, value in extra.items():
        if value:
            raise RowError(
                f"the row has '{part}', for which plain texts have no place; format = \"chat\" makes turns of them"
            )


def _decode_parts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return parts with lists of turns for their JSON texts, where it is certain that these stand for turns.

    It is of what is asked, and of both sides of a pair. An answer alone may be the JSON that was asked for.
    """
    decoded = {part: value if part == "messages" else _decode_turns(value) for part, value in parts.items()}
    is_pair = all(isinstance(parts.get(side), str) and is_conversation(decoded[side]) for side in _SIDES)
    return decoded if is_pair or decoded.get("prompt") is not parts.get("prompt") else dict(parts)


def _decode_turns(value: Any) -> Any:
    """Return a list of turns for its JSON text, and anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = decode_json(value, "a list")
    except RowError:
        return value
    return found if are_turns(found) else value


def _read_context(parts: Mapping[str, Any], extra: Mapping[str, Any], layout: Layout) -> Messages:
    """Return what is asked, without the system prompt that has a column of its own."""
    if "messages" in parts:
        return read_turns(parts["messages"], layout.parts["messages"])
    if "prompt" not in parts:
        return []
    value, column = parts["prompt"], layout.parts["prompt"]
    if value is None:
        raise RowError(f"'{column}' has no text", Reason.EMPTY)
    is_told = isinstance(value, str) and is_transcript(value)
    if is_told or is_conversation(value):
        turns = read_turns(value, column)
        if is_told and turns[-1] == {"role": "assistant", "content": ""}:
            turns.pop()  # how transcripts say whose turn it is
        if extra["input"] or extra["history"]:
            raise RowError(f"'{column}' is a conversation, and the row has an input or a history besides")
        return turns
    texts = [read_text(value, f"'{column}'")]
    if extra["input"]:
        texts.append(read_text(extra["input"], f"'{layout.parts['input']}'"))
    return [*_read_history(extra["history"]), {"role": "user", "content": join_texts(texts)}]


def _read_history(value: Any) -> Messages:
    """Return the turns of Alpaca's history, a list of pairs of what was asked and answered."""
    found = decode_json(value, "'history'") if isinstance(value, str) else value
    turns: Messages = []
    for at, pair in enumerate(found or []):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RowError(f"item {at} of 'history' must be a question and its answer, got {pair!r:.60}")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns


def _read_answer(value: Any, column: str) -> Messages:
    if value is None:
        raise RowError(f"'{column}' has no text", Reason.EMPTY)
    if is_conversation(value) or (isinstance(value, str) and is_transcript(value)):
        return read_turns(value, column)
    return [{"role": "assistant", "content": read_text(value, f"'{column}'")}]


def _part(context: Messages, answers: list[Messages], columns: Sequence[str]) -> tuple[Messages, list[Messages]]:
    """Return the prompt and the answers; answers that are whole conversations begin with the prompt."""
    if all(len(answer) == 1 and answer[0]["role"] == "assistant" for answer in answers):
        if not context:
            named = " and ".join(map(repr, columns))
            raise RowError(
                f"without a column 'prompt', {named} must be whole conversations; 'columns' may name the prompt's"
            )
        return context, answers
    shared = 0
    while all(shared < len(answer) - 1 and answer[shared] == answers[0][shared] for answer in answers):
        shared += 1
    prompt = answers[0][:shared]
    if context and not prompt:
        return context, answers
    if not prompt:
        named = " and ".join(map(repr, columns))
        raise RowError(f"{named} do not begin with the same message, so there is no prompt")
    if context and not _agree(context, prompt, answers):
        raise RowError(f"{' and '.join(map(repr, columns))} do not begin with the prompt that the row has besides")
    return prompt, [answer[shared:] for answer in answers]


def _agree(context: Messages, prompt: Messages, answers: list[Messages]) -> bool:
    """Whether what is asked according to its own column is what the answers' conversations begin with, or one of them."""
    if context == prompt or context in answers:
        return True
    asked = [message["content"].strip() for message in prompt if message["role"] == "user"]
    return [message["role"] for message in context] == ["user"] and context[0]["content"].strip() in asked


def _put_system(messages: Messages, system: Any, layout: Layout) -> Messages:
    """Return a conversation that begins with the system prompt of the row."""
    text = read_text(system, f"'{layout.parts['system']}'") if system else ""
    if not text:
        return messages
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"] == text:
            return messages
        raise RowError(f"the conversation has a system prompt of its own beside '{layout.parts['system']}'")
    return [{"role": "system", "content": text}, *messages]
