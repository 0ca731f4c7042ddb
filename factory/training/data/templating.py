"""Converting rows to tokens: templates are applied once, masks follow from the tokens, each answer has one end token.

The prompt is rendered as at inference, with the generation prompt, and the completion is whatever tokens follow it. If
a turn's prompt is not a prefix of the whole conversation, as with templates that drop earlier reasoning, the turn
becomes an example of its own, as the model would see it. A turn whose rendering does not begin with its own prompt is
rejected.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from typing import TYPE_CHECKING

import numpy as np

from factory.engines.local.rendering import Renderer, Rendering, RenderingError
from factory.inputs.row import RowError
from factory.training.data.examples import Example, Mask, Tokens
from factory.training.data.reading import Rejected, TextRow
from factory.training.data.turns import Turn, TurnRenderer
from schemas.errors import TrainingError
from schemas.reasons import Reason
from schemas.recipe.training import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH_ROWS = 500

Ids = list[int]
Encoded = dict[Rendering, Ids | RenderingError]


class Templater:
    """Converts rows to examples with one tokenizer, chat template and length limit."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings, eos_ids: Iterable[int] = ()
    ) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        self._eos = tokenizer.eos_token_id
        self._ends = {*eos_ids, *([] if self._eos is None else [self._eos])}
        self._special = self._ends | set(tokenizer.all_special_ids)
        self._special |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._end: int | None = None
        self._renderer = Renderer(tokenizer, None)
        self._turns = TurnRenderer(self._renderer, self._strip)

    def examples(self, rows: Iterable[TextRow | Rejected]) -> Iterator[Example | Rejected]:
        """Yield the examples of all rows in order, with rejected rows in their places."""
        source = iter(rows)
        while batch := list(islice(source, _BATCH_ROWS)):
            yield from self._encode(batch)

    def _encode(self, batch: Sequence[TextRow | Rejected]) -> Iterator[Example | Rejected]:
        turns: list[list[Turn] | Rejected] = []
        for row in batch:
            try:
                turns.append(row if isinstance(row, Rejected) else self._render(row))
            except RowError as fault:
                assert isinstance(row, TextRow)
                turns.append(Rejected(row.row, row.language, fault.reason, fault.detail))
        ids = self._tokenize(batch, turns)
        for row, found in zip(batch, turns, strict=True):
            if isinstance(row, Rejected) or isinstance(found, Rejected):
                assert isinstance(found, Rejected)
                yield found
                continue
            try:
                yield from self._assemble(row, found, ids)
            except RowError as fault:
                yield Rejected(row.row, row.language, fault.reason, fault.detail)

    def _render(self, row: TextRow) -> list[Turn]:
        """Return the rendered turns of a row: each answer with its prompt."""
        if isinstance(row.prompt, str):
            return [self._render_text(row.prompt, answer) for answer in row.answers if isinstance(answer, str)]
        self.find_end()
        if self._settings.train_on == "all" and any(message.get("weight") == 0 for message in row.prompt):
            raise RowError("a turn has weight 0, but train_on = 'all' trains every token")
        if not row.answers:
            return self._turns.render_conversation(row.prompt, row.tools)
        answers = [answer for answer in row.answers if isinstance(answer, list)]
        return self._turns.render_answers(row.prompt, answers, row.tools)

    def _render_text(self, prompt: str, answer: str) -> Turn:
        """Return raw texts as a turn.

        A text that spells out control tokens was probably rendered by a chat template already. It is refused, because
        such text is tokenized as ordinary characters.
        """
        answer = self._strip(answer)
        if control := self._renderer.find_control(prompt.removeprefix(self._tokenizer.bos_token or "") + answer):
            detail = (
                f"the text contains the control token {control}; give conversations as 'messages', without a template"
            )
            raise RowError(detail)
        return Turn(Rendering(prompt), Rendering(prompt + answer))

    def _strip(self, answer: str) -> str:
        """Return an answer without end tokens spelled out at its end; exactly one is added later."""
        text = answer
        spelled = (str(self._tokenizer.decode([end])).strip() for end in sorted(self._all_ends()))
        endings = [ending for ending in spelled if ending]
        while ending := next((ending for ending in endings if text.rstrip().endswith(ending)), None):
            text = text.rstrip().removesuffix(ending)
        if not text.strip():
            raise RowError("an answer is empty", Reason.EMPTY)
        return text

    def _all_ends(self) -> set[int]:
        return self._ends if self._end is None else self._ends | {self._end}

    def find_end(self) -> int:
        """Return the token that ends a turn in the chat template, by default the tokenizer's EOS token.

        Raises:
            TrainingError: there is no chat template, or no token that could end a turn.
        """
        if self._end is None:
            name = self._settings.model
            if self._tokenizer.chat_template is None:
                raise TrainingError(
                    f"the tokenizer of model '{name}' has no chat template, but the data contains conversations; "
                    "set 'chat_template' to a file"
                )
            after = self._find_closing()
            ends = [token for token in after if token in self._ends] + [
                token for token in after if token in self._special
            ]
            self._end = next(iter(ends), self._eos)
            if self._end is None:
                raise TrainingError(f"the tokenizer of model '{name}' has no token that could end a turn")
        return self._end

    def _find_closing(self) -> Ids:
        """Return the tokens with which the template closes an answer: the common suffix of two different answers."""
        ask = {"role": "user", "content": "a"}
        answers = [{"role": "assistant", "content": answer} for answer in ("b", "c")]
        try:
            one, other = (
                self._renderer.encode(self._renderer.render([ask, answer], opens=False)) for answer in answers
            )
        except RenderingError as error:
            raise RowError(str(error)) from error
        shared = list(takewhile(lambda pair: pair[0] == pair[1], zip(reversed(one), reversed(other), strict=False)))
        return one[len(one) - len(shared) :]

    def _tokenize(self, batch: Sequence[TextRow | Rejected], turns: Sequence[list[Turn] | Rejected]) -> Encoded:
        """Return the token ids of all texts of a batch."""
        ids: Encoded = {}
        for is_text in (False, True):
            texts = {
                text: None
                for row, found in zip(batch, turns, strict=True)
                if isinstance(row, TextRow) and isinstance(row.prompt, str) == is_text and isinstance(found, list)
                for turn in found
                for text in (turn.prompt, turn.whole)
            }
            # templates write special tokens themselves; raw texts get those that the tokenizer adds
            encoded = self._renderer.encode_all(list(texts), add_special_tokens=is_text)
            mended = [self._mend(found) if is_text and isinstance(found, list) else found for found in encoded]
            ids |= zip(texts, mended, strict=True)
        return ids

    def _mend(self, ids: Ids) -> Ids:
        """Return ids without a doubled BOS token, and without EOS tokens that the tokenizer added."""
        bos = self._tokenizer.bos_token_id
        while len(ids) > 1 and ids[0] == ids[1] == bos and bos is not None:
            ids = ids[1:]
        while ids and ids[-1] == self._eos:
            ids = ids[:-1]
        return ids

    def _assemble(self, row: TextRow, turns: list[Turn], ids: Encoded) -> Iterator[Example]:
        spans = [self._find_answer(turn, ids, is_text=isinstance(row.prompt, str)) for turn in turns]
        if self._settings.is_preference:
            yield self._make_pair(row, spans)
        else:
            yield from self._make_sequences(row, spans)

    def _find_answer(self, turn: Turn, ids: Encoded, *, is_text: bool) -> tuple[Ids, Ids]:
        """Return the tokens of a prompt and of its answer, which ends with exactly one end token."""
        prompt, whole = (_take(ids[rendering]) for rendering in (turn.prompt, turn.whole))
        answer = whole[len(prompt) :]
        if whole[: len(prompt)] != prompt:
            answer = self._split_by_text(turn, prompt, whole)
        if is_text:
            if self._eos is None:
                raise TrainingError(f"the tokenizer of model '{self._settings.model}' has no end token")
            end, kept = self._eos, answer
        else:
            end = self.find_end()
            backwards = range(len(answer) - 1, -1, -1)
            last = next((at for at in backwards if answer[at] == end), None)
            if last is None and (last := next((at for at in backwards if answer[at] in self._ends), None)) is not None:
                end = answer[last]  # tool calls may end with another token, as in Llama 3.1
            kept = answer[:last]
        if end in kept:
            raise RowError(f"an answer contains the end token {self._tokenizer.decode([end])}")
        if not kept:
            raise RowError("an answer has no tokens", Reason.EMPTY)
        return prompt, [*kept, end]

    def _split_by_text(self, turn: Turn, prompt: Ids, whole: Ids) -> Ids:
        """Return an answer's tokens if the tokenizer has merged its first characters with the prompt's last ones.

        At inference the model sees the prompt's own tokens, so these are kept and the rest is tokenized separately.
        """
        if turn.whole.text.startswith(turn.prompt.text):
            rest = self._renderer.encode(turn.whole.after(len(turn.prompt.text)))
            if self._tokenizer.decode(prompt + rest) == self._tokenizer.decode(whole):
                return rest
        raise RowError(
            f"the prompt is not a prefix of prompt and answer: it ends in {turn.prompt.text[-30:]!r}",
            Reason.TEMPLATE_PREFIX,
        )

    def _make_pair(self, row: TextRow, spans: list[tuple[Ids, Ids]]) -> Example:
        limit = self._settings.max_length
        (prompt, chosen), (_, rejected) = spans
        budget = limit - len(prompt)
        if budget < 2:
            raise RowError(f"the prompt has {len(prompt)} tokens of {limit} allowed", Reason.PROMPT_TOO_LONG)
        is_cut = max(len(chosen), len(rejected)) > budget
        self._refuse_overlong(is_cut, len(prompt) + max(len(chosen), len(rejected)))
        answers = [_cut(answer, budget) for answer in (chosen, rejected)]
        if answers[0] == answers[1]:
            raise RowError("chosen and rejected are the same" + " after truncation" * is_cut, Reason.IDENTICAL_PAIR)
        branches = tuple(map(_tokens, answers))
        trained = tuple(np.ones(len(branch), dtype=np.bool_) for branch in branches)
        if not prompt:  # a text without a begin token: nothing predicts an answer's first token
            for mask in trained:
                mask[0] = False
        return Example(row.row, row.language, _tokens(prompt), branches, trained, is_cut)

    def _make_sequences(self, row: TextRow, spans: list[tuple[Ids, Ids]]) -> Iterator[Example]:
        """Yield the whole conversation, which trains all turns that are a prefix of it, then each other turn."""
        prompt, answer = spans[-1]
        sequence = prompt + answer
        mask = np.zeros(len(sequence), dtype=np.bool_)
        alone: list[Example] = []
        for prompt, answer in spans:
            stop = len(prompt) + len(answer)
            if sequence[:stop] == prompt + answer:
                mask[len(prompt) : stop] = True
            else:
                own = np.zeros(stop, dtype=np.bool_)
                own[len(prompt) :] = True
                alone.append(self._make_sequence(row, prompt + answer, own))
        yield self._make_sequence(row, sequence, mask)
        yield from alone

    def _make_sequence(self, row: TextRow, ids: Ids, mask: Mask) -> Example:
        limit = self._settings.max_length
        is_cut = len(ids) > limit
        if is_cut:
            first = int(mask.argmax())
            if first + 2 > limit:
                raise RowError(f"the prompt has {first} tokens of {limit} allowed", Reason.PROMPT_TOO_LONG)
            self._refuse_overlong(is_cut, len(ids))
            # keep at least one token of the last answer besides its end token; otherwise cut after the answer before it
            stop = limit if mask[limit - 2 : limit].all() else int(np.flatnonzero(mask[: limit - 1])[-1]) + 1
            ids, mask = [*ids[: stop - 1], ids[-1]], mask[:stop]
        if self._settings.train_on == "all":
            mask = np.ones(len(ids), dtype=np.bool_)
        mask[0] = False
        return Example(row.row, row.language, _tokens([]), (_tokens(ids),), (mask,), is_cut)

    def _refuse_overlong(self, is_cut: bool, length: int) -> None:
        if is_cut and self._settings.overlong == "drop":
            raise RowError(f"the row has {length} tokens of {self._settings.max_length} allowed", Reason.TOO_LONG)


def _take(ids: Ids | RenderingError) -> Ids:
    if isinstance(ids, RenderingError):
        raise RowError(str(ids))
    return ids


def _cut(answer: Ids, budget: int) -> Ids:
    """Return an answer truncated to ``budget`` tokens; its last token, the end of the turn, is kept."""
    return answer if len(answer) <= budget else [*answer[: budget - 1], answer[-1]]


def _tokens(ids: Ids) -> Tokens:
    return np.asarray(ids, dtype=np.int32)
