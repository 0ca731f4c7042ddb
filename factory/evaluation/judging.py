"""LLM judges: turns pending games into requests, and replies into verdicts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from factory.engines.base import Failure, Message, Reply, Request
from factory.evaluation.verdicts import LABELS, MIRRORED, parse_verdict
from factory.inputs.row import Row
from factory.stages.outputs import Provenance, find_reply_fault, find_thinking
from factory.stages.single_reply import SingleReplyStage
from schemas.languages import LANGUAGES
from schemas.recipe.evaluation import Scale
from schemas.recipe.models import Structured

STAGE = "judge"

Output = Literal["json", "choice", "text"]

CRITERIA = (
    "You compare two answers to a prompt and decide which one is better. The answers should be in {language}. The "
    "better answer is written in {language}, unless the prompt asks for another language; it completes what the prompt "
    "requests; it is factually correct and comprehensible; it is grammatical and fluent. The order in which the answers "
    "stand and their length do not count."
)
"""The system text: it names the language and Aya's criteria."""

SCALES: dict[Scale, str] = {
    "aya": "A (answer A is better), B (answer B is better) or TIE (both are as good, or as bad)",
    "arena": (
        "A>>B (answer A is much better), A>B (slightly better), A=B (about the same), B>A (answer B is slightly "
        "better) or B>>A (much better)"
    ),
}

FORMS: dict[Output, str] = {
    "json": 'Reply with a JSON object: first "reason", in one or two sentences, then "verdict".',
    "choice": "Reply with the verdict alone.",
    "text": "Explain yourself briefly, then end with the verdict in double square brackets, such as [[{label}]].",
}

_SHOWN = (
    "<prompt>\n{prompt}\n</prompt>\n\n<answer_a>\n{first}\n</answer_a>\n\n<answer_b>\n{second}\n</answer_b>\n\n"
    "Which answer is better? The verdict is one of {scale}. {form}"
)


class JudgeStage(SingleReplyStage):
    """The stage of an LLM judge.

    Pending rows have the columns game_id, completion_a, completion_b, order ("ab": a is shown first), prompt_id,
    language, messages (the prompt), text_a and text_b. The lane's settings id is the judge's fingerprint. ``reasoning``
    are the tags of its thinking.
    """

    stage = STAGE
    table = "verdicts"
    id_column = "game_id"
    kept = ("completion_a", "completion_b", "order", "prompt_id", "language")

    def __init__(
        self, lane: Provenance, *, scale: Scale, output: Output, reasoning: tuple[str, str] | None = None
    ) -> None:
        super().__init__(lane)
        self._reasoning = reasoning
        self._scale = scale
        self._output = output

    def make_request(self, request_id: str, row: Row) -> Request:
        """Return the request that asks which answer of a game is better."""
        return Request(request_id, make_messages(row, self._scale, self._output))

    def find_fault(self, reply: Reply) -> Failure | None:
        """Return a reply's failure, or a failure if it contains thinking instead of a verdict, or None."""
        return find_reply_fault(reply) or _find_thinking(reply, self._reasoning)

    def make_rows(self, answered: Sequence[tuple[Row, Reply]]) -> list[Row]:
        """Return one row of ``verdicts`` per reply, in order."""
        return [self._make_verdict(game, reply) for game, reply in answered]

    def _make_verdict(self, game: Row, reply: Reply) -> Row:
        assert reply.text is not None
        shown = parse_verdict(reply.text, self._scale, is_whole=reply.finish_reason != "length")
        verdict = shown if game["order"] == "ab" else MIRRORED[shown]
        return game | {"judge_fingerprint": self._lane.settings_id, "verdict": verdict, "text": reply.text}


def make_messages(game: Row, scale: Scale, output: Output) -> tuple[Message, ...]:
    """Return the conversation that asks for the verdict on a game, with the answers in the game's order."""
    first, second = (game["text_a"], game["text_b"]) if game["order"] == "ab" else (game["text_b"], game["text_a"])
    asked = _SHOWN.format(
        prompt=_show_prompt(game["messages"]),
        first=first,
        second=second,
        scale=SCALES[scale],
        form=FORMS[output].format(label=next(iter(LABELS[scale]))),
    )
    criteria = CRITERIA.format(language=LANGUAGES[game["language"]].name)
    return Message(role="system", content=criteria), Message(role="user", content=asked)


def make_structure(scale: Scale, output: Output, max_reason_chars: int | None = None) -> Structured | None:
    """Return the structure that the engine enforces for a judge's reply; None for free text.

    ``max_reason_chars`` limits the reason in JSON; otherwise a weak judge may ramble on and never state a verdict.
    """
    labels = tuple(LABELS[scale])
    match output:
        case "choice":
            return Structured(choice=labels)
        case "json":
            bound = {} if max_reason_chars is None else {"maxLength": max_reason_chars}
            fields = {"reason": {"type": "string"} | bound, "verdict": {"type": "string", "enum": list(labels)}}
            schema = {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}
            return Structured(json_schema=schema)
        case "text":
            return None


def wording(scale: Scale, output: Output) -> list[str]:
    """Return all fixed texts that a judge is given, which are part of its identity."""
    return [CRITERIA, _SHOWN, SCALES[scale], FORMS[output], *LABELS[scale]]


def _find_thinking(reply: Reply, tags: tuple[str, str] | None) -> Failure | None:
    """Return a failure if the verdict would be read from the judge's thinking, else None.

    JSON replies are not checked, because they have a field for the verdict.
    """
    text = (reply.text or "").strip()
    found = None if text.startswith("{") else find_thinking(reply, text, tags)
    if found is None or tags or reply.reasoning:
        return found
    return replace(found, detail=f"{found.detail}; set the judge's 'reasoning'")


def _show_prompt(messages: Sequence[Message]) -> str:
    """Return a prompt as text; the turns of a longer conversation are each preceded by their role."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in messages)
