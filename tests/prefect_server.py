"""A real Prefect server with a database of its own, a recipe of two prompts, and the models that answer it."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from schemas.recipe.recipe import load_recipe
from tests import waiting
from tests.factory.engines.scripted_server import Call, ScriptedServer, completion
from tests.services import free_port
from tests.waiting import GUARD_SECONDS
from warehouse.lake.lake import Lake

wait_until = partial(waiting.wait_until, pause=0.3)  # each question costs the server some processor time

KEY = "sk-only-in-the-environment"


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
        deadline = time.monotonic() + GUARD_SECONDS
        while (response := super().request(*arguments, **options)).status_code == 503:
            assert time.monotonic() < deadline, response.text
            time.sleep(0.2)
        return response


def make_environment(home: Path, database: Path) -> dict[str, str]:
    """Return the environment of a Prefect server, with a copy of a database in its new home, and of all that talks to it."""
    home.mkdir(exist_ok=True)
    shutil.copy(database, home / "prefect.db")
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_REQUEST_TIMEOUT": f"{GUARD_SECONDS:.0f}",  # however slow the machine is
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "false",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "TEACHER_KEY": KEY,
    }


@contextmanager
def served(environment: dict[str, str]) -> Iterator[tuple[httpx.Client, "subprocess.Popen[bytes]"]]:
    """Have the server of an environment; yields a client of it, and its process, the leader of its group."""
    url = httpx.URL(environment["PREFECT_API_URL"])
    place = ["--host", url.host, "--port", str(url.port)]
    command = [sys.executable, "-m", "prefect", "server", "start", *place, "--no-ui"]
    with (
        started(command, environment, Path(environment["PREFECT_HOME"])) as process,
        Client(base_url=url, timeout=GUARD_SECONDS) as client,
    ):
        wait_until(lambda: _is_healthy(client), process)
        yield client, process


def write_small_recipe(folder: Path, teacher: Teacher) -> Path:
    """Write a recipe of two prompts that a teacher answers and scores."""
    write_prompts(folder, "Why is the sky blue in the daytime?", "Wie hoch ist der Berg hinter dem Dorf?")
    path = folder / "recipe.toml"
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


def query(recipe: Path, sql: str) -> pl.DataFrame:
    """Ask the warehouse of a recipe that was run in its own folder."""
    settings = load_recipe(recipe).warehouse
    places = {name: str(recipe.parent / getattr(settings, name)) for name in ("catalog", "data")}
    with Lake.open(settings.model_copy(update=places), read_only=True) as lake:
        return lake.query(sql)


@contextmanager
def started(command: list[str], environment: dict[str, str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
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


def _is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False
