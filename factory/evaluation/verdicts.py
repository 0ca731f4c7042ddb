"""The vocabulary of verdicts, and how they are parsed and swapped.

A stored verdict refers to the completions a and b of its row, whichever was shown first.
"""

import json
import re

from schemas.recipe.evaluation import Scale

UNREADABLE = "unreadable"
"""The verdict if a judge's reply states none, or several; it is counted separately and never guessed."""

MIRRORED = {"A>>B": "B>>A", "A>B": "B>A", "A=B": "A=B", "B>A": "A>B", "B>>A": "A>>B", UNREADABLE: UNREADABLE}
"""Maps each verdict to the equivalent one after swapping a and b."""

LABELS: dict[Scale, dict[str, str]] = {
    "aya": {"A": "A>B", "B": "B>A", "TIE": "A=B"},
    "arena": {verdict: verdict for verdict in MIRRORED if verdict != UNREADABLE},
}
"""The labels that a judge may use on each scale, and their verdicts."""

STRONG_WEIGHTS: dict[Scale, int] = {"aya": 1, "arena": 3}
"""How many games a strong verdict counts for (Arena-Hard-Auto)."""

_MARK = re.compile(r"\[\[([^\[\]]*)\]\]")


def parse_verdict(reply: str, scale: Scale, *, is_whole: bool = True) -> str:
    """Return the verdict in a judge's reply, about the answers as shown to it, or ``UNREADABLE``.

    Accepted are a label alone, a JSON object whose "verdict" is a label, and text with labels in double square brackets
    that agree, unless the text was cut off (``is_whole`` is false). Anything else is unreadable.
    """
    labels, text = LABELS[scale], reply.strip()
    if text in labels:
        return labels[text]
    if text.startswith("{"):
        return labels.get(_read_json(text), UNREADABLE)
    marks = set(_MARK.findall(text))
    return labels.get(marks.pop(), UNREADABLE) if len(marks) == 1 and is_whole else UNREADABLE


def compare_scores(score_a: float, score_b: float, tie_margin: float) -> str:
    """Return the verdict by two scores (higher is better); a difference of at most ``tie_margin`` is a tie."""
    if abs(score_a - score_b) <= tie_margin:
        return "A=B"
    return "A>B" if score_a > score_b else "B>A"


def _read_json(text: str) -> str:
    try:
        value = json.loads(text, strict=False)  # allow raw line breaks in the reason
    except ValueError:
        return ""
    verdict = value.get("verdict") if isinstance(value, dict) else None
    return verdict if isinstance(verdict, str) else ""
