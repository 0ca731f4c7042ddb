"""A recipe on a real Prefect server: scheduled, run again when prompts come, one run at a time."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.deployments import serve
from schemas.errors import FactoryError
from schemas.recipe_file import load_recipe
from tests.factory.engines.scripted_server import Call, ScriptedServer, completion
from tests.services import free_port
from warehouse.lake import Lake

KEY = "sk-only-in-the-environment"
CRON = "0 2 * * *"

TIMEOUT = 150.0
"""Seconds; long, because on a busy machine every process takes half a minute to import what it needs."""


class Teacher(ScriptedServer):
    """A teacher and reward model on one server, whose answers can be held back."""

    def __init__(self) -> None:
        super().__init__(self._reply)
        self.is_open = True

    async def _reply(self, call: Call) -> Any:
        if call.path.endswith("/classify"):
            if call.body["use_activation"] == "?":
                return 400, {"error": {"message": "use_activation must be a boolean"}}
            return {"data": [{"probs": [float(len(call.text))]}], "usage": {"prompt_tokens": 3}}
        while not self.is_open:
            await asyncio.sleep(0.02)
        return completion(f"An answer to: {call.text}")

    def num_asked(self) -> int:
        return sum(call.path.endswith("/chat/completions") for call in self.calls)


class Client(httpx.Client):
    """Asks again while the server's SQLite is busy; every request of these tests may be made twice."""

    def request(self, *arguments: Any, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + TIMEOUT
        while (response := super().request(*arguments, **options)).status_code == 503:
            assert time.monotonic() < deadline, response.text
            time.sleep(0.2)
        return response


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the Prefect server and of all that talks to it."""
    home = tmp_path_factory.mktemp("prefect")
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "TEACHER_KEY": KEY,
    }


@pytest.fixture(scope="module")
def prefect(environment: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of a Prefect server with a database of its own."""
    url = httpx.URL(environment["PREFECT_API_URL"])
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        url.host,
        "--port",
        str(url.port),
        "--no-ui",
    ]
    with (
        _started(command, environment, Path(environment["PREFECT_HOME"])) as server,
        Client(base_url=url, timeout=TIMEOUT) as client,
    ):
        _wait_until(lambda: _is_healthy(client), server)
        yield client


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    with Teacher() as server:
        yield server


@pytest.fixture
def recipe(tmp_path: Path, teacher: Teacher) -> Path:
    write_prompts(tmp_path, "Why is the sky blue in the daytime?", "Wie hoch ist der Berg hinter dem Dorf?")
    path = tmp_path / "recipe.toml"
    path.write_text(f"""
name = "nightly"
languages = ["en"]
[[prompts]]
name = "questions"
path = "prompts.jsonl"
language = "en"
columns = {{ prompt = "prompt" }}
[prompt_gates]
language = false
[gates]
language = false
[[teachers]]
name = "teacher"
engine = "openai"
model = "teacher"
run = {{ urls = ["{teacher.url}"], api_key_env = "TEACHER_KEY" }}
[[reward_models]]
name = "reward"
engine = "openai"
model = "reward"
run = {{ urls = ["{teacher.url}"] }}
[run]
commit_seconds = 0.2
overlap = "skip"
""")
    return path


def write_prompts(folder: Path, *prompts: str) -> None:
    with (folder / "prompts.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)


@contextmanager
def scheduled(
    recipe: Path, environment: dict[str, str], *, cron: str = CRON, timezone: str = "Europe/Paris"
) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a recipe by the command line from its folder."""
    command = [sys.executable, "-m", "flows.cli", "schedule", recipe.name, "--cron", cron, "--timezone", timezone]
    with _started(command, environment, recipe.parent) as process:
        yield process


def test_runs_of_a_schedule(prefect, environment, recipe, teacher):
    with scheduled(recipe, environment) as process:
        deployment = _find_deployment(prefect, process)
        check_deployment(deployment, recipe)

        teacher.is_open = False
        first = _run(prefect, deployment)
        _wait_until(lambda: teacher.num_asked() == 2, process)
        second = _run(prefect, deployment)
        _wait_until(lambda: _state(prefect, second) == "CANCELLED", process)
        assert _state(prefect, first) == "RUNNING"
        teacher.is_open = True
        _wait_until(lambda: _state(prefect, first) == "COMPLETED", process)
        assert count_answers(recipe) == 2

        write_prompts(recipe.parent, "快速的棕色狐狸跳过了懒狗。", "ما هي عاصمة فرنسا؟")
        third = _run(prefect, deployment)
        _wait_until(lambda: _state(prefect, third) == "COMPLETED", process)
        assert count_answers(recipe) == 4
        assert teacher.num_asked() == 4

        process.terminate()
        assert process.wait(TIMEOUT) == 0
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
        _wait_until(lambda: teacher.num_asked() == 2, process)
        second = _run(prefect, deployment)
        _wait_until(lambda: _name(prefect, second) == "AwaitingConcurrencySlot", process)
        teacher.is_open = True
        _wait_until(lambda: _state(prefect, second) == "COMPLETED", process)
        assert _state(prefect, first) == "COMPLETED"
        assert teacher.num_asked() == count_answers(recipe) == 2

        write_prompts(recipe.parent, "Warum ist die Banane krumm?")
        teacher.is_open = False
        _run(prefect, deployment)
        _wait_until(lambda: teacher.num_asked() == 3, process)
        process.terminate()
        _wait_until(lambda: "stopping: waiting for what is in flight" in (recipe.parent / "log").read_text(), None)
        teacher.is_open = True
        assert process.wait(TIMEOUT) == 0
    assert read_statuses(recipe) == ["finished", "finished", "stopped"]
    assert query(recipe, "FROM completions").height == 3
    assert _find(prefect)["paused"]


PROGRESS = """
import prefect
import flows.progress
from flows.build import run_as_tasks
from flows.progress import Board

def answer():
    with Board(quiet=True) as board, board.lane("sample", "north", 4) as report:
        for _ in range(3):
            report.count(rows=1)
    return 3

flows.progress.LOG_SECONDS = 0.0
prefect.flow(lambda: run_as_tasks({"sample north": answer}), name="progress")()
"""


def test_a_lane_shows_its_progress_on_the_server(prefect, environment):
    subprocess.run([sys.executable, "-c", PROGRESS], env=environment, check=True, timeout=TIMEOUT)
    found = prefect.post("artifacts/filter", json={"artifacts": {"type": {"any_": ["progress"]}}}).json()
    assert [(artifact["data"], artifact["description"].split(",")[0]) for artifact in found] == [
        (75.0, "sample-north: 3/4 rows")
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cron": "every night"}, "'every night' is no cron expression; five fields are needed"),
        ({"cron": "61 2 * * *"}, "'61 2 [*] [*] [*]' is no cron expression"),
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


def query(recipe: Path, sql: str) -> pl.DataFrame:
    settings = load_recipe(recipe).warehouse
    places = {name: str(recipe.parent / getattr(settings, name)) for name in ("catalog", "data")}
    with Lake.open(settings.model_copy(update=places), read_only=True) as lake:
        return lake.query(sql)


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

    _wait_until(find, process)
    found = find()
    assert found is not None
    return found


def _find(prefect: httpx.Client) -> dict[str, Any]:
    response = prefect.get("/deployments/name/build/nightly")
    return response.json() if response.is_success else {}


def _is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def _wait_until(condition: Callable[[], Any], process: subprocess.Popen[bytes] | None) -> None:
    """Ask until it is so; the end of the process that should bring it about, or the time-out, is an error."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process is None or process.poll() is None, f"the process ended with {process.returncode}"
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.3)  # each question costs the server some processor time


@contextmanager
def _started(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own; it is asked to end, then killed with all its children."""
    log = folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        except BaseException:
            print(log.read_text(errors="replace")[-4000:])
            raise
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
