"""Forgetting failures, so that what failed is asked for again."""

from collections.abc import Sequence

from flows.identity import resolve_build
from schemas.errors import FactoryError
from schemas.reasons import TRANSIENT_REASONS, Reason
from schemas.recipe.recipe import Recipe
from warehouse.lake.lake import Lake

_SHARED_REASONS = (Reason.EMPTY, Reason.TRUNCATED, Reason.EMPTY_PROMPT, Reason.INVALID_TEXT)
"""Why a request may fail, and also why a gate or a source may reject a row."""

_REQUEST_REASONS = (
    Reason.PROMPT_TOO_LONG,
    Reason.REFUSED_BY_ENGINE,
    Reason.POISON,
    Reason.INVALID_REPLY,
    Reason.LOST_CONTENT,
    Reason.UNTRANSLATED,
    *_SHARED_REASONS,
    *sorted(TRANSIENT_REASONS),
)
"""Why a request may fail."""


def forget_failures(recipe: Recipe, reasons: Sequence[str]) -> str:
    """Delete the final failures of a recipe's lanes that have one of these reasons; return a sentence that counts them.

    Raises:
        FactoryError: a reason is unknown, or none that a request fails for.
    """
    _check_reasons(reasons)
    lanes = [lane.settings_id for lane in resolve_build(recipe).lanes]
    with Lake.open(recipe.warehouse) as lake:
        num_forgotten = lake.delete(
            "rejections",
            "config_id = '' AND list_contains(?, reason) AND list_contains(?, settings_id)",
            [list(reasons), lanes],
        )
    said = f"{num_forgotten:,} requests will be sent again by the next run"
    shared = [reason for reason in reasons if reason in _SHARED_REASONS]
    if not shared:
        return said
    rejected = f"what gates or sources have rejected as {' or '.join(shared)}"
    return f"{said}; {rejected} cannot be retried, and changes with the recipe"


def _check_reasons(reasons: Sequence[str]) -> None:
    allowed = f"reasons that can be retried are {', '.join(_REQUEST_REASONS)}"
    unknown = sorted(set(reasons) - set(Reason))
    if unknown:
        raise FactoryError(f"there is no reason {', '.join(map(repr, unknown))}; {allowed}")
    verdicts = sorted(set(reasons) - set(_REQUEST_REASONS))
    if verdicts:
        raise FactoryError(
            f"{', '.join(map(repr, verdicts))} cannot be retried: that is a verdict of the recipe's gates, sources "
            f"or pairs and changes with them; {allowed}"
        )
