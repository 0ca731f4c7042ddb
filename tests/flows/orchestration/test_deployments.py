"""A recipe on a real Prefect server: scheduled, run again when prompts come, one run at a time."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.orchestration.deployments import serve
from schemas.errors import FactoryError
from schemas.recipe.recipe import load_recipe
from tests.prefect_server import (
    KEY,
    Teacher,
    make_environment,
    query,
    served,
    started,
    wait_until,
    write_prompts,
    write_small_recipe,
)
from tests.waiting import GUARD_SECONDS

CRON = "0 2 * * *"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> dict[str, str]:
    return make_environment(tmp_path_factory.mktemp("prefect"), prefect_database)


@pytest.fixture(scope="module")
def prefect(environment: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of a Prefect server with a database of its own."""
    with served(environment) as (client, _):
        yield client


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    with Teacher() as server:
        yield server


@pytest.fixture
def recipe(tmp_path: Path, teacher: Teacher) -> Path:
    return write_small_recipe(tmp_path, teacher)


@contextmanager
def scheduled(
    recipe: Path, environment: dict[str, str], *, cron: str = CRON, timezone: str = "Europe/Paris"
) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a recipe by the command line from its folder."""
    command = [sys.executable, "-m", "flows.cli", "schedule", recipe.name, "--cron", cron, "--timezone", timezone]
    with started(command, environment, recipe.parent) as process:
        yield process


def test_runs_of_a_schedule(prefect, environment, recipe, teacher):
    with scheduled(recipe, environment) as process:
        deployment = _find_deployment(prefect, process)
        check_deployment(deployment, recipe)

        teacher.is_open = False
        first = _run(prefect, deployment)
        wait_until(lambda: teacher.num_asked() == 2, process)
        second = _run(prefect, deployment)
        wait_until(lambda: _state(prefect, second) == "CANCELLED", process)
        assert _state(prefect, first) == "RUNNING"
        teacher.is_open = True
        wait_until(lambda: _state(prefect, first) == "COMPLETED", process)
        assert count_answers(recipe) == 2

        write_prompts(recipe.parent, "快速的棕色狐狸跳过了懒狗。", "ما هي عاصمة فرنسا؟")
        third = _run(prefect, deployment)
        wait_until(lambda: _state(prefect, third) == "COMPLETED", process)
        assert count_answers(recipe) == 4
        assert teacher.num_asked() == 4

        process.terminate()
        assert process.wait(GUARD_SECONDS) == 0
    assert _find(prefect)["paused"]
    refuse_a_second_recipe_of_the_name(recipe, environment)
    assert str(recipe.resolve()) in _find(prefect)["description"]


def refuse_a_second_recipe_of_the_name(recipe: Path, environment: dict[str, str]) -> None:
    other = recipe.parent / "elsewhere" / recipe.name
    other.parent.mkdir()
    other.write_text(recipe.read_text())
    with (
        temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}),
        pytest.raises(
            FactoryError, match=f"deployment 'build/nightly' already, of another file than {other} .*{recipe}"
        ),
    ):
        serve(load_recipe(other), other, cron=CRON, timezone="UTC")


@pytest.mark.slow
def test_scheduling_again_updates_the_deployment_and_runs_may_wait(prefect, environment, recipe, teacher):
    with scheduled(recipe, environment) as process:
        _find_deployment(prefect, process)
    recipe.write_text(recipe.read_text().replace('overlap = "skip"', 'overlap = "wait"'))
    with scheduled(recipe, environment, cron="30 4 * * 1", timezone="UTC") as process:
        deployment = _find_deployment(prefect, process, "30 4 * * 1")
        (schedule,) = deployment["schedules"]
        assert schedule["schedule"] == {"cron": "30 4 * * 1", "timezone": "UTC", "day_or": True}
        assert schedule["active"]
        assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"

        teacher.is_open = False
        first = _run(prefect, deployment)
        wait_until(lambda: teacher.num_asked() == 2, process)
        second = _run(prefect, deployment)
        wait_until(lambda: _name(prefect, second) == "AwaitingConcurrencySlot", process)
        teacher.is_open = True
        wait_until(lambda: _state(prefect, second) == "COMPLETED", process)
        assert _state(prefect, first) == "COMPLETED"
        assert teacher.num_asked() == count_answers(recipe) == 2

        write_prompts(recipe.parent, "Warum ist die Banane krumm?")
        teacher.is_open = False
        _run(prefect, deployment)
        wait_until(lambda: teacher.num_asked() == 3, process)
        process.terminate()
        wait_until(lambda: "stopping: waiting for what is in flight" in (recipe.parent / "log").read_text(), None)
        teacher.is_open = True
        assert process.wait(GUARD_SECONDS) == 0
    assert read_statuses(recipe) == ["finished", "finished", "stopped"]
    assert query(recipe, "FROM completions").height == 3
    assert _find(prefect)["paused"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cron": "every night"}, "'every night' is not a cron expression; five fields are needed"),
        ({"cron": "61 2 * * *"}, "'61 2 [*] [*] [*]' is not a cron expression"),
        ({"timezone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'; allowed are names such as"),
        ({"url": None}, "PREFECT_API_URL names none; start one with `prefect server start --host 127.0.0.1`"),
        ({"url": "http://127.0.0.1:9/api"}, "does not answer .*; start one with `prefect server start"),
    ],
)
def test_what_keeps_a_schedule_from_being_made_is_one_sentence(recipe, options, sentence):
    url = options.pop("url", None)
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(FactoryError, match=sentence):
        serve(load_recipe(recipe), recipe, **{"cron": CRON, "timezone": "UTC", **options})


def check_deployment(deployment: dict[str, Any], recipe: Path) -> None:
    (schedule,) = deployment["schedules"]
    assert schedule["schedule"] == {"cron": CRON, "timezone": "Europe/Paris", "day_or": True}
    assert schedule["active"]
    assert deployment["concurrency_limit"] == 1 or deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert KEY not in json.dumps(deployment)
    parameters = deployment["parameters"]["recipe"]
    assert parameters["warehouse"]["catalog"] == str(recipe.parent / "lake" / "catalog.sqlite")
    assert parameters["run"]["exports"] == str(recipe.parent / "exports")


def count_answers(recipe: Path) -> int:
    return query(recipe, "FROM selections").height


def read_statuses(recipe: Path) -> list[str]:
    """Return how the runs of the recipe ended, in their order."""
    return [
        str(status) for status in query(recipe, "FROM builds WHERE status <> 'running' ORDER BY recorded_at")["status"]
    ]


def _run(prefect: httpx.Client, deployment: dict[str, Any]) -> str:
    response = prefect.post(
        f"/deployments/{deployment['id']}/create_flow_run", json={"idempotency_key": uuid.uuid4().hex}
    )
    response.raise_for_status()
    return str(response.json()["id"])


def _state(prefect: httpx.Client, flow_run: str) -> str:
    state = prefect.get(f"/flow_runs/{flow_run}").json()["state"]
    assert state["type"] not in {"FAILED", "CRASHED"}, state
    return str(state["type"])


def _name(prefect: httpx.Client, flow_run: str) -> str:
    return str(prefect.get(f"/flow_runs/{flow_run}").json()["state"]["name"])


def _find_deployment(prefect: httpx.Client, process: subprocess.Popen[bytes], cron: str = CRON) -> dict[str, Any]:
    """Wait until the deployment is there, active, and has this one schedule."""

    def find() -> dict[str, Any] | None:
        deployment = _find(prefect)
        is_active = deployment and not deployment["paused"]
        crons = [entry["schedule"]["cron"] for entry in deployment["schedules"]] if is_active else []
        return deployment if crons == [cron] else None

    wait_until(find, process)
    found = find()
    assert found is not None
    return found


def _find(prefect: httpx.Client) -> dict[str, Any]:
    response = prefect.get("/deployments/name/build/nightly")
    return response.json() if response.is_success else {}
