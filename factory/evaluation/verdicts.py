"""The vocabulary of verdicts, and how they are read and turned round.

A stored verdict is about the completions a and b of its row, whichever was shown first.
"""

import json
import re

from schemas.recipe.evaluation import Scale

UNREADABLE = "unreadable"
"""The verdict of a judge whose reply states none, or more than one: it is counted, never guessed."""

MIRRORED = {"A>>B": "B>>A", "A>B": "B>A", "A=B": "A=B", "B>A": "A>B", "B>>A": "A>>B", UNREADABLE: UNREADABLE}
"""Every verdict, with the one that says the same after a and b have changed places."""

LABELS: dict[Scale, dict[str, str]] = {
    "aya": {"A": "A>B", "B": "B>A", "TIE": "A=B"},
    "arena": {verdict: verdict for verdict in MIRRORED if verdict != UNREADABLE},
}
"""What a judge may say on each scale, with the verdict that it stands for."""

STRONG_WEIGHTS: dict[Scale, int] = {"aya": 1, "arena": 3}
"""How many games a strong verdict counts for (Arena-Hard-Auto)."""

_MARK = re.compile(r"\[\[([^\[\]]*)\]\]")


def parse_verdict(reply: str, scale: Scale, *, is_whole: bool = True) -> str:
    """Return the verdict that a judge's reply states about what it was shown as A and B, or ``UNREADABLE``.

    Read are a label alone, a JSON object whose "verdict" is a label, and text with labels in double square brackets
    that all say the same, unless it was cut off before its end. Anything else, in whatever case or wording, is unreadable.
    """
    labels, text = LABELS[scale], reply.strip()
    if text in labels:
        return labels[text]
    if text.startswith("{"):
        return labels.get(_read_json(text), UNREADABLE)
    marks = set(_MARK.findall(text))
    return labels.get(marks.pop(), UNREADABLE) if len(marks) == 1 and is_whole else UNREADABLE


def compare_scores(score_a: float, score_b: float, tie_margin: float) -> str:
    """Return the verdict of two scores, of which the higher is better."""
    if abs(score_a - score_b) <= tie_margin:
        return "A=B"
    return "A>B" if score_a > score_b else "B>A"


def _read_json(text: str) -> str:
    try:
        value = json.loads(text, strict=False)  # a line break within the reason hides no verdict
    except ValueError:
        return ""
    verdict = value.get("verdict") if isinstance(value, dict) else None
    return verdict if isinstance(verdict, str) else ""
