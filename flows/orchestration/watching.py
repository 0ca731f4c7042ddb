"""Who watches a run: a Prefect server, the configured one or one of its own, or nobody where there is none."""

import contextlib
from collections.abc import Iterator

from flows.lanes.side_by_side import UNWATCHED, Unwatched, Watcher
from flows.orchestration.temporary_server import temporary_server
from flows.prefect_settings import calm_prefect
from schemas.errors import FactoryError
from schemas.recipe.recipe import Recipe


@contextlib.contextmanager
def watch(recipe: Recipe, *, quiet: bool) -> Iterator[Watcher]:
    """Have a run shown as a flow run of the configured Prefect server, or of one of its own, until the block ends."""
    calm_prefect()
    unwatched = Unwatched(quiet=quiet)
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(temporary_server())
        except FactoryError as error:
            unwatched.say(f"warning: {error}; {UNWATCHED}")
            yield unwatched
        else:
            from flows.orchestration.reporter import (  # which imports Prefect, whose settings are known to be sound now
                FlowRun,
                Reporter,
            )

            run = FlowRun(parameters={"recipe": recipe.model_dump(mode="json")})
            yield stack.enter_context(Reporter(url, run, unwatched.say))
