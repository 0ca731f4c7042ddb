"""The check-up of ``factory doctor``: is all here that a build needs, and what is to be done about the rest?"""

from collections.abc import Iterator

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from factory.engines.open import PACKAGES
from flows.doctor import machine_checks, recipe_checks, storage_checks
from flows.doctor.finding import Finding, Findings, note, ok, problem
from flows.doctor.recipe_trials import try_models
from flows.home import Substitute
from schemas.errors import FactoryError
from schemas.recipe.recipe import Recipe
from schemas.recipe.settings import WarehouseSettings

STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}

MEND_PREFECT = (
    "start it with `prefect server start --host 127.0.0.1`, or name no server: unset PREFECT_API_URL, or "
    "`prefect config unset PREFECT_API_URL`"
)

MEND_SETTINGS = "mend it where it is set: a PREFECT_ variable of the environment, or ~/.prefect/profiles.toml"

LOG_COLUMNS = 160
"""The width of the table where it does not go to a terminal."""


def print_checkup(recipe: Recipe | None, home: Substitute | None = None) -> bool:
    """Check the machine and, if one is given, what a recipe needs; print a table; return whether there is no problem."""
    console = Console()
    findings = []
    with console.status("checking; importing vLLM takes a moment") as status:
        for finding in check_up(recipe, home):
            findings.append(finding)
            status.update(f"checked {finding.check}; importing vLLM takes a moment")
    if not console.is_terminal:
        console.width = LOG_COLUMNS
    console.print(_as_table(findings))
    num_problems = sum(finding.state == "problem" for finding in findings)
    console.print(f"problems: {num_problems or 'none'}")
    return not num_problems


def _as_table(findings: list[Finding]) -> Table:
    table = Table(title="check-up", title_justify="left")
    for column in ("check", "state", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        state = Text(finding.state, style=STYLES[finding.state])
        table.add_row(Text(finding.check), state, Text(finding.found), Text(finding.to_do))
    return table


def check_up(recipe: Recipe | None, home: Substitute | None = None) -> Iterator[Finding]:
    """Yield the findings as they are made; ``home`` stands in for the user's where that cannot be used."""
    models = recipe_checks.named_models(recipe) if recipe else []
    needed = {package for _, model in models for package in PACKAGES.get(model.engine, ())}
    warehouse = recipe.warehouse if recipe else None
    with machine_checks.HeavyImports() as imports:
        yield from machine_checks.check_platform()
        yield from machine_checks.check_home(home)
        gpus = yield from machine_checks.check_gpus()
        yield from machine_checks.check_language_model()
        yield from machine_checks.check_extensions(warehouse)
        yield from _check_prefect()
        if recipe is None:
            yield from storage_checks.check_warehouse(WarehouseSettings(), "exports")
        else:
            yield from storage_checks.check_warehouse(recipe.warehouse, recipe.run.exports)
            yield from recipe_checks.check_files(recipe)
            yield from recipe_checks.check_models(recipe)
            yield from recipe_checks.check_keys(recipe)
            yield from try_models(recipe)
            if gpus is not None:
                yield from recipe_checks.check_fit(recipe, gpus)
        yield from imports.check(len(gpus or ()), needed=needed)


def _check_prefect() -> Findings:
    """Check the Prefect server that the environment or a profile names; without one a run starts its own."""
    from flows.prefect_settings import find_url, show_url  # loads Prefect

    try:
        url = find_url()
    except FactoryError as error:
        yield problem("Prefect server", f"{error}; builds would go unwatched", MEND_SETTINGS)
        return
    if url is None:
        yield note("Prefect server", "PREFECT_API_URL names none; only `factory schedule` needs one")
    elif fault := _find_prefect_fault(url, recipe_checks.SERVER_SECONDS):
        yield problem("Prefect server", f"{show_url(url)} {fault}; builds would go unwatched", MEND_PREFECT)
    else:
        yield ok("Prefect server", "answers")


def _find_prefect_fault(url: str, seconds: float) -> str | None:
    """Return how a Prefect server fails to answer in time; one that wants a key does answer."""
    try:
        response = httpx.get(f"{url.rstrip('/')}/health", timeout=seconds)
        if response.status_code not in {401, 403}:
            response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"does not answer ({type(error).__name__})"
    return None
