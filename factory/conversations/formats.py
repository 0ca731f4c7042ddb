"""The formats of known data sets: which columns hold the conversation, and how a row becomes a prompt and its answers.

Formats are recognized by their columns: conversations (``messages``, ``conversations``), texts (``prompt`` +
``completion`` or ``response``), Alpaca (``instruction``, ``input``, ``output``, ``history``) and pairs (``prompt``,
``chosen``, ``rejected``), whose answers may be whole conversations, as in UltraFeedback, or transcripts, as in HH.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, TypeAlias

from factory.conversations.forms import Messages, are_turns, is_conversation, is_transcript, read_text, read_turns
from factory.conversations.tool_calls import decode_json, read_tools
from factory.inputs.files import find_value, show_columns
from factory.inputs.flags import read_flag, read_weight
from factory.inputs.row import Row, RowError
from schemas.errors import InputError
from schemas.reasons import Reason

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
"""The known formats, each a mapping of parts to columns; earlier groups take precedence over later ones."""

_FIRST_MESSAGE = {"prompt", "prompt_id", "messages"}
"""Columns of UltraChat and UltraFeedback, where ``prompt`` repeats the first of the messages and is not ambiguous."""

_QUESTIONS = ("question", "query")
"""Columns that hold the question in some unknown formats; they are only suggested in error messages."""

_CONTENT = ("messages", "prompt", "completion", "chosen", "rejected")
_GIVEN: dict[Task, tuple[set[str], ...]] = {
    "prompts": ({"messages"}, {"prompt"}),
    "sft": ({"messages"}, {"prompt", "completion"}),
    "preference": ({"prompt", *_SIDES}, {"messages", *_SIDES}, {*_SIDES}),
}
"""The sets of parts that settings may name together."""

_WHAT: dict[Task, str] = {"prompts": "a source of prompts", "sft": "SFT", "preference": "preference training"}

_SYSTEM = ("system", "system_prompt", "system_message")
_TOOLS = ("tools", "functions")
_UNUSABLE = ("image", "images", "video", "videos", "audio", "audios", "documents", "chat_template_kwargs")
"""Columns that are essential to a conversation but not supported."""

_ASKED = (*_SYSTEM, "context", "input", "history")
_ANSWERED = ("reasoning_content", "reasoning", "thinking", "tool_calls", "function_call", "weight", "label")
_BESIDE: dict[Task, tuple[str, ...]] = {"prompts": _ASKED, "sft": (*_ASKED, *_ANSWERED), "preference": _ASKED}
"""Columns that usually belong to a question or an answer. Unless settings name the columns, a row with a value in one
of them that its layout does not use is rejected, since leaving the value out would change the row's meaning."""

_APPROVALS: dict[str, Callable[[Any, str], bool | int]] = {"label": read_flag, "weight": read_weight}
"""Columns that may be ignored if they are true: KTO's label of a good answer, and the weight of a row."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column holds which part: messages, prompt, input, history, system, completion, chosen, rejected.

    ``is_text``: prompts and answers that are plain texts are used raw, not as turns of a chat. ``is_only_text``: the
    settings demand this, so conversations are an error. ``beside``: columns without a part, in which no row may have a
    value. ``rivals``: the columns of other formats; a row with values in all columns of one is ambiguous. ``advice`` is
    the hint at the end of an error message about answers that should be whole conversations.
    """

    parts: Mapping[str, str]
    is_text: bool = False
    is_only_text: bool = False
    beside: tuple[str, ...] = ()
    rivals: tuple[tuple[str, ...], ...] = ()
    advice: str = "'columns' may name the prompt's"

    @property
    def needed(self) -> list[str]:
        """The columns that every row must have."""
        return [column for part, column in self.parts.items() if part in _CONTENT]

    @property
    def optional(self) -> list[str]:
        """The columns that a row may have in addition."""
        others = [column for part, column in self.parts.items() if part not in _CONTENT]
        unnamed = dict.fromkeys((*self.near(_TOOLS), *self.near(_UNUSABLE), *self.beside, *chain(*self.rivals)))
        return [*others, *(column for column in unnamed if column not in self.parts.values())]

    def near(self, names: Iterable[str]) -> list[str]:
        """Return these column names at all levels where they belong to the conversation.

        If the conversation is in ``body.messages``, both ``tools`` and ``body.tools`` belong to it.
        """
        holders = {"": None}
        for column in self.needed:
            steps = column.split(".")[:-1]
            holders |= {".".join(steps[: at + 1]) + ".": None for at in range(len(steps))}
        return [f"{holder}{name}" for holder in holders for name in names]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row's prompt and answers, as texts or conversations; without answers, ``prompt`` is a whole conversation."""

    prompt: str | Messages
    answers: tuple[str | Messages, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()


def list_content_columns(given: Mapping[str, str] | None = None) -> set[str]:
    """Return the columns whose presence makes an object a row: the usual ones, and those of ``given`` (by part)."""
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
    """Return the layout of a table with the columns ``names``.

    ``given`` maps parts to columns; without a part that holds text, the format is recognized by the columns' names.
    ``where`` names the table in error messages.

    Raises:
        InputError: no known format has these columns, or several have.
    """
    content = {part for part in _CONTENT if part in given}
    is_given = bool(content)
    if is_given and content not in _GIVEN[task]:
        allowed = " or ".join(" + ".join(part for part in _CONTENT if part in parts) for parts in _GIVEN[task])
        named = " + ".join(part for part in _CONTENT if part in content)
        raise InputError(f"'columns' names {named} for {where}; {_WHAT[task]} needs {allowed}")
    found, rivals = ({}, ()) if is_given else _detect(names, task, where)
    parts = {**found, **given}
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
    layout = Layout(parts, is_usual if form is None else is_only_text, is_only_text, beside, rivals)
    asked = next((name for name in _QUESTIONS if name in names), None)
    if is_given or asked is None or not ("chosen" in parts.values() and "prompt" not in parts):
        return layout
    meant = {"prompt": asked} | {part: column for part, column in parts.items() if part != "messages"}
    return replace(layout, advice=f"perhaps the question is the prompt: columns = {{ {_show(meant)} }}")


def _detect(names: Sequence[str], task: Task, where: str) -> tuple[dict[str, str], tuple[tuple[str, ...], ...]]:
    """Return the column of each part, and the columns of all formats with the same or a higher precedence."""
    needless = [{"messages": "messages"}] if task == "prompts" and set(names) >= _FIRST_MESSAGE else []
    before: list[dict[str, str]] = []
    for forms in _FORMS[task]:
        before += forms
        found = [form for form in forms if set(form.values()) <= set(names)]
        found = [form for form in found if form not in needless]
        if len(found) > 1:
            raise InputError(f"{where} {_tell_ways([tuple(form.values()) for form in found], found[0])}")
        if found:
            rivals = [form for form in before if form is not found[0] and form not in needless]
            return found[0], tuple(tuple(form.values()) for form in rivals)
    allowed = " or ".join(dict.fromkeys(" + ".join(form.values()) for forms in _FORMS[task] for form in forms))
    raise InputError(
        f"{where} has the columns {show_columns(names) or 'none'}; {_WHAT[task]} needs {allowed}, or 'columns' that "
        "name them"
    )


def _tell_ways(ways: Iterable[Sequence[str]], parts: Mapping[str, str]) -> str:
    meant = " or ".join(map(" + ".join, ways))
    return f"can be read as {meant}; choose in 'columns', such as columns = {{ {_show(parts)} }}"


def _show(parts: Mapping[str, str]) -> str:
    return ", ".join(f'{part} = "{column}"' for part, column in parts.items())


def read_conversation(row: Row, layout: Layout) -> Conversation:
    """Return a row's prompt and answers.

    Raises:
        RowError: a part is missing, malformed, or not supported.
        LookupError: the row lacks a column.
    """
    _refuse_columns(row, layout)
    parts = {part: find_value(row, layout.parts[part]) for part in _CONTENT if part in layout.parts}
    if not layout.is_only_text:
        parts = _decode_parts(_read_transcripts(parts))
    extra = {part: find_optional(row, layout.parts.get(part)) for part in ("input", "history", "system")}
    extra = {part: None if _is_nothing(value) else value for part, value in extra.items()}
    tools = tuple(
        tool for column in layout.near(_TOOLS) for tool in read_tools(find_optional(row, column), f"'{column}'")
    )
    sides = {part: value for part, value in parts.items() if part not in ("messages", "prompt")}
    prompt, texts = parts.get("prompt"), tuple(value for value in sides.values() if isinstance(value, str))
    if layout.is_text and isinstance(prompt, str) and len(texts) == len(sides):
        _refuse_extra({**extra, "tools": tools})
        return Conversation(prompt, texts)
    if layout.is_only_text:
        raise RowError('format = "text" needs a prompt and answers that are texts, but one of them is not')
    context = _read_context(parts, extra, layout)
    if not sides:
        return Conversation(_put_system(context, extra["system"], layout), (), tools)
    answers = [_read_answer(value, layout.parts[part]) for part, value in sides.items()]
    prompt, answers = _part(context, answers, list(map(layout.parts.__getitem__, sides)), layout.advice)
    for answer in answers:
        if [message["role"] for message in answer] != ["assistant"]:
            raise RowError(f"an answer must be one message of the assistant, got {answer!r:.60}")
    return Conversation(_put_system(prompt, extra["system"], layout), tuple(answers), tools)


def _refuse_columns(row: Row, layout: Layout) -> None:
    unusable = next((column for column in layout.near(_UNUSABLE) if not _is_nothing(find_optional(row, column))), None)
    if unusable is not None:
        raise RowError(f"the row has '{unusable}', which cannot be used")
    for rival in layout.rivals:
        if not any(_is_nothing(row.get(column)) for column in rival):
            raise RowError(f"the row {_tell_ways([layout.needed, rival], layout.parts)}")
    for column in layout.beside:
        if fault := _find_fault_beside(column, row.get(column)):
            fix = f"to ignore it, name the columns to use: columns = {{ {_show(layout.parts)} }}"
            raise RowError(f"{fault}; {fix}")


def _find_fault_beside(column: str, value: object) -> str | None:
    """Return why a value beside a conversation cannot be ignored, or None."""
    if _is_nothing(value):
        return None
    try:
        if column in _APPROVALS and _APPROVALS[column](value, f"'{column}'"):
            return None
    except RowError as error:
        return error.detail
    return f"the row has '{column}' ({value!r:.40}), which may belong to the conversation"


def _is_nothing(value: object) -> bool:
    """Whether a field is empty. Zero and false are values: they mean something, mostly a mistake."""
    return value is None or value in ("", [], {})


def join_texts(texts: Iterable[str]) -> str:
    """Join the parts of a question, such as Alpaca's instruction and input, with empty lines; skip empty parts."""
    return "\n\n".join(filter(None, texts))


def find_optional(row: Row, column: str | None) -> object:
    """Return the value of a column, or None if no column is given or the row lacks it."""
    if column is None:
        return None
    try:
        return find_value(row, column)
    except LookupError:
        return None


def _refuse_extra(extra: Mapping[str, object]) -> None:
    for part, value in extra.items():
        if value not in (None, ()):
            raise RowError(
                f"the row has '{part}', which raw texts cannot have; format = \"chat\" turns them into a conversation"
            )


def _read_transcripts(parts: Mapping[str, object]) -> dict[str, object]:
    """Return the parts with transcripts replaced by lists of turns.

    The prompt of a transcript may end in "Assistant:"; the answers then continue that turn.
    """
    found = dict(parts)
    for part, value in parts.items():
        if part != "messages" and isinstance(value, str) and is_transcript(value):
            found[part] = read_turns(value, part)
    prompt: Any = found.get("prompt")
    if prompt is not parts.get("prompt") and prompt[-1] == {"role": "assistant", "content": ""}:
        prompt.pop()
        found |= {part: value.removeprefix(" ") for part, value in found.items() if isinstance(value, str)}
    return found


def _decode_parts(parts: Mapping[str, object]) -> dict[str, object]:
    """Return the parts with JSON texts replaced by lists of turns, where these are certainly turns.

    That is certain for prompts, and for pairs if both sides are turns. A single answer may be JSON that was asked for.
    """
    decoded = {part: value if part == "messages" else _decode_turns(value) for part, value in parts.items()}
    is_pair = all(isinstance(parts.get(side), str) and is_conversation(decoded[side]) for side in _SIDES)
    return decoded if is_pair or decoded.get("prompt") is not parts.get("prompt") else dict(parts)


def _decode_turns(value: object) -> object:
    """Return the list of turns that a JSON text contains; any other value is returned unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = decode_json(value, "a list")
    except RowError:
        return value
    return found if are_turns(found) else value


def _read_context(parts: Mapping[str, object], extra: Mapping[str, object], layout: Layout) -> Messages:
    """Return the turns of the prompt, without a system prompt from its own column."""
    if "messages" in parts:
        column = layout.parts["messages"]
        try:
            return read_turns(parts["messages"], column)
        except RowError as error:
            if column != "chosen":
                raise
            raise RowError(f"{error.detail}; {layout.advice}", error.reason) from error
    if "prompt" not in parts:
        return []
    value, column = parts["prompt"], layout.parts["prompt"]
    if value is None:
        raise RowError(f"'{column}' has no text", Reason.EMPTY)
    if is_conversation(value):
        if extra["input"] is not None or extra["history"] is not None:
            raise RowError(f"'{column}' is a conversation, but the row also has an input or a history")
        return read_turns(value, column)
    texts = [read_text(value, f"'{column}'")]
    if extra["input"] is not None:
        texts.append(read_text(extra["input"], f"'{layout.parts['input']}'"))
    return [*_read_history(extra["history"]), {"role": "user", "content": join_texts(texts)}]


def _read_history(value: object) -> Messages:
    """Return the turns of Alpaca's history, a list of [question, answer] pairs."""
    found = decode_json(value, "'history'") if isinstance(value, str) else value
    if found is None:
        return []
    if not isinstance(found, list):
        raise RowError(f"'history' must be a list of questions and their answers, got {found!r:.60}")
    turns: Messages = []
    for at, pair in enumerate(found):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RowError(f"item {at} of 'history' must be a question and its answer, got {pair!r:.60}")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns


def _read_answer(value: object, column: str) -> Messages:
    if value is None:
        raise RowError(f"'{column}' has no text", Reason.EMPTY)
    if is_conversation(value):
        return read_turns(value, column)
    return [{"role": "assistant", "content": read_text(value, f"'{column}'")}]


def _part(
    context: Messages, answers: list[Messages], columns: Sequence[str], advice: str
) -> tuple[Messages, list[Messages]]:
    """Return the prompt and the answers, split apart where the answers are whole conversations with a common start."""
    if all(len(answer) == 1 and answer[0]["role"] == "assistant" for answer in answers):
        if not context:
            named = " and ".join(map(repr, columns))
            raise RowError(f"without a column 'prompt', {named} must be whole conversations; {advice}")
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
        named = f"{' and '.join(map(repr, columns))} {'do' if len(columns) > 1 else 'does'}"
        raise RowError(f"{named} not begin with the row's prompt")
    return prompt, [answer[shared:] for answer in answers]


def _agree(context: Messages, prompt: Messages, answers: list[Messages]) -> bool:
    """Whether the prompt's own column agrees with the start of the answers' conversations, or with a whole one.

    A single user turn also agrees if it is any of the user's turns.
    """
    if context == prompt or context in answers:
        return True
    asked = [message["content"].strip() for message in prompt if message["role"] == "user"]
    return [message["role"] for message in context] == ["user"] and context[0]["content"].strip() in asked


def _put_system(messages: Messages, system: object, layout: Layout) -> Messages:
    """Return the conversation with the row's system prompt at the start."""
    text = "" if system is None else read_text(system, f"'{layout.parts['system']}'")
    if not text:
        return messages
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"] == text:
            return messages
        raise RowError(f"the conversation has a system prompt that differs from '{layout.parts['system']}'")
    return [{"role": "system", "content": text}, *messages]
