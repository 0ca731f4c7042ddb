"""Splitting conversations into trained turns: each answer with its prompt, as rendered by the chat template.

Templates silently drop what they do not support. So everything in a conversation must appear in the rendering, or the
row is refused: tools, calls and their arguments, results, names, and the reasoning of the trained turn. The reasoning
of earlier turns may be missing, since a template that drops it does so at inference too.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factory.conversations.forms import Message, Messages
from factory.conversations.tool_calls import Call
from factory.engines.local.rendering import Renderer, Rendering, RenderingError
from factory.inputs.row import RowError
from schemas.reasons import Reason

_REASONING_TAG = re.compile(r"</?[A-Za-z_][\w:-]*>|\[/?[A-Z_]+\]")

_MARKS = range(0xE000, 0xF900)
"""Private-use characters: each text that must appear in the rendering is marked with one of its own."""

Tool = Mapping[str, Any]
Tools = Sequence[Tool]


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer in its context: ``prompt`` as rendered at inference, and ``whole``, which includes the answer."""

    prompt: Rendering
    whole: Rendering


class TurnRenderer:
    """Renders conversations with one template; ``strip`` removes end tokens from the end of an answer."""

    def __init__(self, renderer: Renderer, strip: Callable[[str], str]) -> None:
        self._renderer, self._strip = renderer, strip
        self._tags = set(_REASONING_TAG.findall(renderer.template))

    def render_conversation(self, messages: Messages, tools: Tools) -> list[Turn]:
        """Return the assistant's turns that are trained (weight not 0), in order.

        Raises:
            RowError: there is none, the template refuses the conversation, or does not write a part of it.
        """
        clean = [self._clean(message) for message in messages]
        answers = [at for at, message in enumerate(clean) if message["role"] == "assistant"]
        if not answers:
            raise RowError("the conversation has no assistant turn", Reason.EMPTY)
        trained = [at for at in answers if clean[at].get("weight") != 0]
        if not trained:
            raise RowError("all assistant turns have weight 0, so there is nothing to train on", Reason.EMPTY)
        turns = [self._render_turn(clean[: at + 1], tools) for at in trained]
        self._check(clean[: trained[-1] + 1], tools, turns[-1].whole.text)
        return turns

    def render_answers(self, prompt: Messages, answers: Sequence[Messages], tools: Tools) -> list[Turn]:
        """Return the turns of several answers to one prompt, in order; the turns of the prompt are not trained.

        Raises:
            RowError: as for ``render_conversation``.
        """
        turns = []
        for answer in answers:
            turns += self.render_conversation([*({**message, "weight": 0} for message in prompt), *answer], tools)
        return turns

    def _clean(self, message: Message) -> Message:
        """Return a message unchanged, except that a trained answer loses end tokens at its end."""
        if message["role"] != "assistant" or message.get("weight") == 0:
            return message
        text = message["content"]
        if text.strip() or not message.get("tool_calls"):
            text = self._strip(text)
        return {**message, "content": text}

    def _render_turn(self, messages: Messages, tools: Tools) -> Turn:
        turn = Turn(self._render(messages[:-1], tools, opens=True), self._render(messages, tools))
        if messages[-1].get("reasoning_content"):
            marks = _Marks(turn.whole.text)
            self._look_for(marks, [*messages[:-1], marks.mark_reasoning(messages[-1])], tools)
        for part in self._split(messages[-1]["content"]):
            if not _shows(part, turn.whole.text):
                raise RowError(
                    f"the chat template does not write a part of an answer, {part!r:.60}", Reason.NOT_RENDERED
                )
        return turn

    def _render(self, messages: Messages, tools: Tools, *, opens: bool = False) -> Rendering:
        given = [{name: value for name, value in message.items() if name != "weight"} for message in messages]
        try:
            return self._renderer.render(given, opens=opens, tools=tools)
        except RenderingError as error:
            raise RowError(str(error)) from error

    def _split(self, text: str) -> list[str]:
        """Return the parts of an answer between reasoning tags of the template."""
        found = [match for match in _REASONING_TAG.finditer(text) if match[0] in self._tags]
        edges = [0, *(edge for match in found for edge in match.span()), len(text)]
        return [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]

    def _check(self, messages: Messages, tools: Tools, text: str) -> None:
        """Raise a RowError if a part of the conversation does not appear in its rendering ``text``."""
        for message in messages:
            said = self._split(message["content"])[-1] if message["role"] == "assistant" else message["content"]
            if not _shows(said, text):
                raise RowError(
                    f"the chat template does not write a text of role {message['role']}, {said!r:.60}",
                    Reason.NOT_RENDERED,
                )
        _check_order(messages)
        marks = _Marks(text)
        marked = [marks.mark_message(message) for message in messages]
        self._look_for(marks, marked, [marks.mark_tool(tool) for tool in tools])
        for what, value in marks.plain:
            if not _shows(value, text):
                raise RowError(f"the chat template does not write {what}", Reason.NOT_RENDERED)

    def _look_for(self, marks: "_Marks", messages: Messages, tools: Tools) -> None:
        """Render the marked texts and look for the marks, because a text itself may occur elsewhere by chance."""
        rendering = self._render(messages, tools).text
        for mark, what in marks.meant.items():
            if mark not in rendering and json.dumps(mark)[1:-1] not in rendering:
                raise RowError(f"the chat template does not write {what}", Reason.NOT_RENDERED)


class _Marks:
    """Assigns a private-use character to each text that must be rendered.

    ``meant`` maps the characters to descriptions of the texts. ``plain`` are values that cannot be marked, such as
    numbers, with their descriptions.
    """

    def __init__(self, text: str) -> None:
        used = set(text)
        self._unused = (char for char in map(chr, _MARKS) if char not in used)
        self.meant: dict[str, str] = {}
        self.plain: list[tuple[str, Any]] = []

    def mark_message(self, message: Message) -> Message:
        text, role = message["content"], message["role"]
        found = {**message, "content": self._put(text, f"a text of role {role}, {text!r:.60}")}
        name = message.get("name")
        if name and role != "tool" and name.casefold() != role:
            found["name"] = self._put(name, f"the 'name' of a message, {name!r:.40}")
        if message.get("tool_calls"):
            found["tool_calls"] = [self._mark_call(call) for call in message["tool_calls"]]
        return found

    def mark_reasoning(self, message: Message) -> Message:
        return {**message, "reasoning_content": self._put(message["reasoning_content"], "'reasoning_content'")}

    def mark_tool(self, tool: Tool) -> Tool:
        inner = tool.get("function", tool)
        marked = dict(inner)
        for field in ("name", "description"):
            if isinstance(inner.get(field), str):
                marked[field] = self._put(inner[field], f"the {field} of a tool, {inner[field]!r:.40}")
        parameters = inner.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        self.plain += [("a parameter of a tool", name) for name in properties or ()]
        return {**tool, "function": marked} if "function" in tool else marked

    def _mark_call(self, call: Call) -> Call:
        inner = call["function"]
        what = f"the call of {inner['name']!r:.40}"
        marked = {**inner, "name": self._put(inner["name"], what)}
        if "arguments" in inner:
            marked["arguments"] = self._mark_value(inner["arguments"], f"an argument in {what}")
        return {**call, "function": marked}

    def _mark_value(self, value: object, what: str) -> object:
        if isinstance(value, str):
            return self._put(value, what)
        if isinstance(value, Mapping):
            return {self._put(name, what): self._mark_value(inner, what) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._mark_value(inner, what) for inner in value]
        self.plain.append((what, value))
        return value

    def _put(self, text: str, what: str) -> str:
        """Return a text with a new mark after its last character that is not white space."""
        if not text.strip():
            return text
        mark = next(self._unused, None)
        if mark is None:
            raise RowError(
                "the conversation and its tools have too many texts to check that the template writes them all; at "
                f"most {len(_MARKS):,} are allowed, less any private-use characters (U+E000 to U+F8FF) in them"
            )
        self.meant[mark] = what
        return text.rstrip() + mark + text[len(text.rstrip()) :]


def _check_order(messages: Messages) -> None:
    """Refuse tool results that are not in the order of their calls; most templates match them by order only."""
    called: list[str] = []
    answered: list[str] = []
    for message in messages:
        if message["role"] == "assistant":
            called, answered = [call["id"] for call in message.get("tool_calls") or () if "id" in call], []
        elif message["role"] == "tool" and (link := message.get("tool_call_id")) and called:
            answered.append(link)
            if answered != [call for call in called if call in answered]:
                raise RowError(f"the result {link!r:.40} is not in the order of the calls")


def _shows(value: object, text: str) -> bool:
    """Whether a value occurs in a text, verbatim or as JSON."""
    return any(form in text for form in _forms(value))


def _forms(value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield from (json.dumps(value), str(value))
        return
    stripped = value.strip()
    yield from (stripped, json.dumps(stripped, ensure_ascii=False)[1:-1], json.dumps(stripped)[1:-1])
