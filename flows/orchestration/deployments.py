"""Scheduled builds: a recipe as a deployment on a Prefect server, served from this process.

The deployment's parameter is the recipe as it was read, with the places of its warehouse, exports and models made absolute, so
that a run finds them wherever it is started. A recipe that changes on disk changes nothing on the server: scheduling it
again updates the deployment of that name, and another file's recipe of the same name is refused. Secrets are not part of a recipe; runs read them from the environment of the
serving process.
"""

import asyncio
import contextlib
import multiprocessing
import signal
from pathlib import Path
from zoneinfo import available_timezones

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.runtime import flow_run
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType

from flows.lanes.side_by_side import Unwatched
from flows.orchestration.reporter import FLOW, FlowRun, Reporter
from flows.prefect_settings import find_url, show_url
from flows.recipe_names import check_run
from flows.recipe_run import RecipeSummary
from flows.recipe_run import build as do_build
from schemas.errors import FactoryError
from schemas.recipe.recipe import Recipe

START_A_SERVER = (
    "start one with `prefect server start --host 127.0.0.1` and set PREFECT_API_URL=http://127.0.0.1:4200/api"
)

_ON_OVERLAP = {"skip": ConcurrencyLimitStrategy.CANCEL_NEW, "wait": ConcurrencyLimitStrategy.ENQUEUE}


@flow(name=FLOW, persist_result=False)
def build(recipe: Recipe, until: str | None = None, limit: int | None = None, quiet: bool = False) -> RecipeSummary:
    """Run a recipe as a flow run that Prefect has started; its state is Prefect's, the rest is reported to it."""
    url, say = find_url(), Unwatched(quiet=quiet).say
    assert url is not None
    with Reporter(url, FlowRun(id=flow_run.id), say) as watcher:
        return do_build(recipe, watcher, until=check_run(recipe, until), limit=limit, quiet=quiet)


def serve(recipe: Recipe, path: Path, *, cron: str, timezone: str) -> None:
    """Deploy a recipe under its name, run it when ``cron`` says, and serve its runs until this process is stopped.

    A run that is due while another one works is skipped (state Cancelled) or waits, as ``run.overlap`` says. When serving
    ends, by Ctrl-C or SIGTERM, the schedule is paused and a working build commits what is in flight and stops.

    Raises:
        FactoryError: the cron or the time zone is wrong, there is no Prefect server, or the recipe of another file has
            the name there.
    """
    schedule = _make_schedule(cron, timezone)
    description = f"The recipe {path} as it was when it was scheduled."
    _find_server()
    _refuse_taken_name(recipe.name, path, description)
    runner = _Runner(name=recipe.name)
    runner.add_flow(
        build,
        name=recipe.name,
        schedule=schedule,
        paused=False,
        parameters={"recipe": _place(recipe).model_dump(mode="json")},
        description=description,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=_ON_OVERLAP[recipe.run.overlap]),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    print(f"serving build/{recipe.name}, due at {cron!r} ({timezone}); Ctrl-C pauses the schedule and ends this")
    print(f"to run it now: prefect deployment run 'build/{recipe.name}'", flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs ignore it; SIGTERM ends by it
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(runner.start())


class _Runner(Runner):
    def handle_sigterm(self, *_arguments: object, **_options: object) -> None:
        """End as by Ctrl-C, which a terminal sends to the working build too.

        Prefect's own answer to SIGTERM may leave the schedule active, and lets the build work on.
        """
        for process in multiprocessing.active_children():
            process.terminate()
        signal.raise_signal(signal.SIGINT)


def _make_schedule(cron: str, timezone: str) -> Schedule:
    if timezone not in available_timezones():
        raise FactoryError(f"there is no time zone {timezone!r}; allowed are names such as UTC or Europe/Paris")
    try:
        return Cron(cron, timezone=timezone)
    except ValueError as error:
        raise FactoryError(
            f"{cron!r} is not a cron expression; five fields are needed: minute, hour, day of month, month, day of week, "
            'such as "0 2 * * *" for every night at two'
        ) from error


def _find_server() -> None:
    """Raise unless a real Prefect server answers: a temporary one would end, and its schedule with it."""
    url = find_url()
    if url is None:
        raise FactoryError(f"a schedule needs a Prefect server, and PREFECT_API_URL names none; {START_A_SERVER}")
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None:
        raise FactoryError(
            f"the Prefect server at {show_url(url)} does not answer ({type(error).__name__}); {START_A_SERVER}"
        )


def _refuse_taken_name(name: str, path: Path, description: str) -> None:
    """Raise if the deployment of a name is another file's: its schedule would go on with this recipe."""
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        deployment = client.read_deployment_by_name(f"build/{name}")
        if deployment.description != description:
            raise FactoryError(
                f"the server has a deployment 'build/{name}' already, of another file than {path} ({deployment.description}); "
                f"give one of them another name, or remove the old one by `prefect deployment delete build/{name}`"
            )


def _place(recipe: Recipe) -> Recipe:
    """Return a recipe whose warehouse, exports and models do not depend on the working directory."""
    catalog, data = (_absolute(place) for place in (recipe.warehouse.catalog, recipe.warehouse.data))
    warehouse = recipe.warehouse.model_copy(update={"catalog": catalog, "data": data})
    run = recipe.run.model_copy(
        update={"exports": _absolute(recipe.run.exports), "models": _absolute(recipe.run.models)}
    )
    return recipe.model_copy(update={"warehouse": warehouse, "run": run})


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().resolve())
