"""The small commands: forgetting failures, exporting, querying."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from flows.identity import resolve_build, resolve_made_build
from schemas.errors import FactoryError
from schemas.reasons import TRANSIENT_REASONS, Reason
from schemas.recipe.recipe import Recipe
from schemas.recipe.settings import WarehouseSettings
from warehouse.export.export import export_build
from warehouse.export.hub import push_export
from warehouse.lake.lake import Lake
from warehouse.shell.output import Form
from warehouse.shell.shell import open_for_reading, run_query, run_shell

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


def export_recipe(recipe: Recipe, *, snapshot: int | None, push: str | None) -> Path:
    """Export a recipe's build as it is, or was at a snapshot, and push it where asked; return the folder.

    Raises:
        FactoryError: no build of the recipe has run; or whatever else the user can mend.
    """
    build = resolve_made_build(recipe)
    with Lake.open(recipe.warehouse) as lake:
        result = export_build(lake, build.config_id, recipe, Path(recipe.run.exports), snapshot=snapshot)
    target = push or recipe.run.push_to_hub
    if target:
        push_export(result.path, target)
    return result.path


def answer(
    settings: WarehouseSettings,
    query: str | None,
    output_format: str,
    output: Path | None,
    *,
    build: str | None,
    as_of: int | None,
) -> None:
    """Answer one query, from the argument or from a pipe, or many interactively, about tables and views of one build."""
    form = parse_form(output_format)
    if query == "-" or (query is None and not sys.stdin.isatty()):
        query = sys.stdin.read()
    with open_for_reading(settings, as_of=as_of, build=build) as lake:
        if query is None:
            run_shell(lake, form, sys.stdout)
        else:
            run_query(lake, query, form, output or sys.stdout)


def parse_form(name: str) -> Form:
    """Return the output format of a name.

    Raises:
        FactoryError: there is none of that name.
    """
    for form in get_args(Form):
        if form == name:
            return cast("Form", form)
    raise FactoryError(f"there is no output format {name!r}; allowed are {', '.join(get_args(Form))}")
