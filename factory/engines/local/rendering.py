"""Converting conversations to tokens, so that control tokens come from the chat template and never from the data.

A tokenizer turns the spelling of a control token into that token wherever it occurs, so a user who writes ``<|end|>``
could end their turn and inject another. If the data spells a control token, the conversation is therefore rendered a
second time, with one character of each such spelling replaced by a character that occurs nowhere else. The renderings
must otherwise be identical, and the marked spellings are known to be text. The text is then encoded with a copy of the
tokenizer whose control tokens have other names, which are put where the template wrote them. All other conversations
are encoded directly.

Control tokens are special tokens, tokens with a bar in their names (``<|user|>``), and any other tags that the template
writes, such as ``<think>`` and ``<tool_call>``. Tags of the last kind keep their meaning in an assistant's own text,
because that is how models write reasoning and tool calls.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from factory.engines.reply_text import list_texts
from schemas.disk import read_text
from schemas.errors import EngineError
from schemas.recipe.models import Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"})
"""A conversation that is rendered to find out which tokens a template writes by itself."""

_TEMPLATE_FAULTS = (TemplateError, LookupError, TypeError, ValueError, AttributeError)
"""Exceptions of templates for conversations that they do not support."""

_MASK = "\ufffe"
"""Separates parts of a text in a copy of it; a Unicode noncharacter, which is in no token."""

_PRIVATE = range(0xF0000, 0xFFFFE)
"""Private-use characters as markers; those that occur in a text are not used as its markers."""

Ids = list[int]


class RenderingError(Exception):
    """A conversation that the template refuses, or that cannot be tokenized safely; the message says why."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A text for the model. ``broken`` are the positions, ascending, of characters that are not in a control token."""

    text: str
    broken: tuple[int, ...] = ()

    def after(self, start: int) -> "Rendering":
        """Return the rendering from position ``start`` on."""
        return Rendering(self.text[start:], tuple(at - start for at in self.broken if at >= start))


class Renderer:
    """One tokenizer with one chat template and its switches."""

    def __init__(self, tokenizer: Any, template: str | None, switches: Mapping[str, object] | None = None) -> None:
        """Use ``template``, or the tokenizer's own if it is None.

        The tokenizer, which may be one of transformers or vLLM, is not changed.
        """
        self._tokenizer, self._template, self._switches = tokenizer, template, dict(switches or {})
        own = template or getattr(tokenizer, "chat_template", None) or ""
        self.template: str = own if isinstance(own, str) else "\n".join(own.values())
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special = set(tokenizer.all_special_ids) | {number for number, token in added.items() if token.special}
        written = self._list_written()
        control = {
            token.content: number
            for number, token in added.items()
            if number in special or _has_bar(token.content) or (_is_tag(token.content) and token.content in written)
        }
        self._ids = {name: number for name, number in control.items() if name}
        self._spellings = _Spellings(self._ids)
        self._turn_spellings = _Spellings(
            name for name, number in self._ids.items() if number in special or _has_bar(name)
        )
        self._counted = set(self._ids.values()) - {tokenizer.unk_token_id}
        self._escaped: dict[str, Tokenizer] = {}

    def render(
        self, messages: Sequence[Mapping[str, object]], *, opens: bool, tools: Sequence[Mapping[str, object]] = ()
    ) -> Rendering:
        """Return a conversation as rendered by the template; ``opens`` adds the generation prompt.

        Raises:
            RenderingError: the template refuses the conversation, or parses control tokens in the data.
        """
        given = [dict(message) for message in messages], [dict(tool) for tool in tools]
        text = self._apply(*given, opens=opens)
        if not any(self._spells(entry) for entry in chain(*given)):
            return Rendering(text)
        unused = _list_unused(text)
        marks: dict[str, str] = {}
        marked = self._apply(*(self._mark(part, marks, unused) for part in given), opens=opens)
        meant = {mark: char for char, mark in marks.items()}
        if "".join(meant.get(char, char) for char in marked) != text:
            spelled = self._spellings.first(json.dumps(given, ensure_ascii=False))
            raise RenderingError(f"the chat template mistakes {spelled or 'a control token'!r} in the text for its own")
        broken = tuple(at for at, char in enumerate(marked) if char in meant)
        return Rendering(text, self._keep_needed(text, broken))

    def find_control(self, text: str) -> str | None:
        """Return the first control token that a text spells, or None."""
        return self._spellings.first(text)

    def encode(self, rendering: Rendering, *, add_special_tokens: bool = False) -> Ids:
        """Return the token ids of a rendering.

        Control tokens are only those of the template and, with ``add_special_tokens``, those that the tokenizer adds.

        Raises:
            RenderingError: the text spells control tokens, and the tokenizer cannot encode them as text.
        """
        (ids,) = self.encode_all([rendering], add_special_tokens=add_special_tokens)
        if isinstance(ids, RenderingError):
            raise ids
        return ids

    def encode_all(
        self, renderings: Sequence[Rendering], *, add_special_tokens: bool = False
    ) -> list[Ids | RenderingError]:
        """Return the token ids of many renderings, in order, or the error of those that cannot be encoded."""
        texts = [rendering.text for rendering in renderings]
        found: list[Ids] = self._tokenizer(texts, add_special_tokens=add_special_tokens)["input_ids"] if texts else []
        num_added = self._tokenizer.num_special_tokens_to_add() if add_special_tokens else 0
        return [
            ids if self._is_right(rendering, ids, num_added) else self._encode_escaped(rendering, num_added)
            for rendering, ids in zip(renderings, found, strict=True)
        ]

    def encode_pair(self, first: str, second: str) -> tuple[Ids, Ids | None]:
        """Encode a pair of texts as one input for a cross-encoder.

        Returns:
            The token ids and, if the model uses token types, the text that each token belongs to (0 or 1), else None.

        Raises:
            RenderingError: as for ``encode``.
        """
        encoded = self._tokenizer(first, second)
        ids, types = encoded["input_ids"], encoded.get("token_type_ids")
        num_added = self._tokenizer.num_special_tokens_to_add(pair=True)
        if self._count(ids) != num_added:
            escaped = self._escape(_take(_list_unused(first + second))).encode(first, second)
            ids, types = escaped.ids, escaped.type_ids if types is not None else None
            self._refuse_control(ids, num_added)
        return ids, types

    def _list_written(self) -> str:
        """Return text that contains the template's own tokens: its source, and a rendering of plain turns."""
        try:
            return self.template + self._apply(list(PROBE), [], opens=True)
        except RenderingError:
            return self.template

    def _apply(self, messages: Sequence[object], tools: Sequence[object], *, opens: bool) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=opens,
                **self._switches,
            )
        except _TEMPLATE_FAULTS as error:
            raise RenderingError(f"the chat template refuses the conversation: {error}") from error
        return text

    def _spells(self, entry: Mapping[str, object]) -> bool:
        """Whether a message or a tool spells a control token, or begins or ends with a part of one."""
        spellings = self._spellings_of(entry)
        texts = list_texts({name: "" if name == "role" else value for name, value in entry.items()})
        return any(True for text in texts for _ in spellings.breaks(text))

    def _spellings_of(self, message: Mapping[str, object]) -> "_Spellings":
        return self._turn_spellings if message.get("role") == "assistant" else self._spellings

    def _mark(self, data: Sequence[Mapping[str, object]], marks: dict[str, str], unused: Iterator[str]) -> list[object]:
        """Return messages or tools with one character of each spelling replaced by a marker.

        ``marks`` receives the markers and the characters that they replace.
        """

        def replace(value: object, spellings: _Spellings) -> Any:
            if isinstance(value, str):
                chars = list(value)
                for at in spellings.breaks(value):
                    chars[at] = marks.get(chars[at]) or marks.setdefault(chars[at], _take(unused))
                return "".join(chars)
            if isinstance(value, Mapping):
                return {replace(name, spellings): replace(inner, spellings) for name, inner in value.items()}
            return [replace(inner, spellings) for inner in value] if isinstance(value, list | tuple) else value

        return [
            replace(entry, self._spellings_of(entry)) | {name: entry[name] for name in ("role",) if name in entry}
            for entry in data
        ]

    def _keep_needed(self, text: str, broken: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``broken`` if the text has a control token at one of the positions, else ().

        Most positions at the ends of texts have none.
        """
        inside = {at for match in self._spellings.find(text) for at in range(*match.span())}
        return broken if inside.intersection(broken) else ()

    def _written(self, rendering: Rendering) -> list[re.Match[str]]:
        """Return the control tokens that the template wrote, in order."""
        chars = list(rendering.text)
        for at in rendering.broken:
            chars[at] = _MASK
        return list(self._spellings.find("".join(chars)))

    def _count(self, ids: Iterable[int]) -> int:
        return sum(map(self._counted.__contains__, ids))

    def _is_right(self, rendering: Rendering, ids: Ids, num_added: int) -> bool:
        if rendering.broken:
            return False
        return self._count(ids) == num_added + sum(
            self._ids[match[0]] in self._counted for match in self._spellings.find(rendering.text)
        )

    def _encode_escaped(self, rendering: Rendering, num_added: int) -> Ids | RenderingError:
        written = self._written(rendering)
        try:
            mark = _take(_list_unused(rendering.text))
            text = self._rename_written(rendering.text, written, mark)
            ids: Ids = self._escape(mark).encode(text, add_special_tokens=num_added > 0).ids
            self._refuse_control(ids, num_added + sum(self._ids[match[0]] in self._counted for match in written))
        except RenderingError as error:
            return error
        return ids

    def _rename_written(self, text: str, written: Iterable[re.Match[str]], mark: str) -> str:
        """Return a text with the template's control tokens renamed to those of the escaped tokenizer."""
        parts, end = [], 0
        for match in written:
            parts += [text[end : match.start()], _rename(mark, self._ids[match[0]])]
            end = match.end()
        return "".join([*parts, text[end:]])

    def _refuse_control(self, ids: Ids, num_meant: int) -> None:
        if (num_found := self._count(ids)) != num_meant:
            raise RenderingError(f"the text is encoded with {num_found} control tokens instead of {num_meant}")

    def _escape(self, mark: str) -> "Tokenizer":
        """Return a copy of the core tokenizer in which the names of control tokens begin with ``mark``."""
        if mark not in self._escaped:
            backend = getattr(self._tokenizer, "backend_tokenizer", None)
            if backend is None:
                raise RenderingError("the text spells a control token, and the tokenizer cannot encode it as text")
            names = {name: _rename(mark, number) for name, number in self._ids.items()}
            other = type(backend).from_str(json.dumps(_rename_tokens(json.loads(backend.to_str()), names)))
            other.no_truncation()
            other.no_padding()
            self._escaped[mark] = other
        return self._escaped[mark]


class _Spellings:
    """Finds the spellings of control tokens in texts."""

    def __init__(self, names: Iterable[str]) -> None:
        ordered = sorted(names, key=lambda name: (-len(name), name))
        self._pattern = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self._beginnings = {name[:end] for name in ordered for end in range(1, len(name))}
        self._endings = {name[start:] for name in ordered for start in range(1, len(name))}
        self._longest = max(map(len, ordered), default=0)

    def find(self, text: str) -> Iterator[re.Match[str]]:
        return self._pattern.finditer(text)

    def first(self, text: str) -> str | None:
        match = self._pattern.search(text)
        return match and match[0]

    def breaks(self, text: str) -> Iterator[int]:
        """Yield a position in each spelled control token, and at the text's ends if these may be parts of one."""
        stretches = [(0, len(text))]
        while stretches:
            start, end = stretches.pop()
            if match := self._pattern.search(text, start, end):
                middle = (match.start() + match.end()) // 2
                yield middle
                stretches += [(middle + 1, end), (match.start(), middle)]
        start, end = len(text) - len(text.lstrip()), len(text.rstrip())
        for length in range(1, min(self._longest, end - start + 1)):
            if text[end - length : end] in self._beginnings:
                yield end - 1
            if text[start : start + length] in self._endings:
                yield start


def read_template(model: Model, tokenizer: Any) -> str:
    """Return a model's chat template: the recipe's own file, or else the tokenizer's.

    Raises:
        EngineError: there is none, or the file cannot be read.
    """
    if model.chat_template is not None:
        try:
            return read_text(Path(model.chat_template))
        except (OSError, ValueError) as error:
            raise EngineError(f"chat template '{model.chat_template}' cannot be read: {error}") from error
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise EngineError(
            f"the tokenizer of model '{model.model}' has no chat template; set 'chat_template' to a file"
        ) from error
    return template


def _is_tag(name: str) -> bool:
    """Whether a token that is not special looks like a control token: without blanks, and not a word."""
    return bool(name.strip(" \t\n\r\u2581")) and not name[0].isalnum() and not name[-1].isalnum()


def _has_bar(name: str) -> bool:
    """Whether a token has a bar, as those between turns do (some models use a full-width one), unlike normal text."""
    return name.startswith(("<|", "<\uff5c")) and name.endswith(("|>", "\uff5c>"))


def _list_unused(text: str) -> Iterator[str]:
    """Yield the private-use characters that do not occur in a text."""
    used = set(text)
    return (char for char in map(chr, _PRIVATE) if char not in used)


def _take(unused: Iterator[str]) -> str:
    mark = next(unused, None)
    if mark is None:
        raise RenderingError(
            "the text spells a control token and contains all private-use characters, so no marker is left"
        )
    return mark


def _rename(mark: str, number: int) -> str:
    return f"{mark}{number}{mark}"


def _rename_tokens(state: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a tokenizer's state with tokens renamed and their ids kept, so that no text is encoded as one of them."""
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = state["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(name, name): number for name, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(name, name), score] for name, score in vocabulary]
    if "merges" in model:
        merges = (merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"])
        model["merges"] = [merge for merge in merges if not names.keys() & {*merge, "".join(merge)}]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    return state
