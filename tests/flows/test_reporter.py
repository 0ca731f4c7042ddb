"""A run is the factory's and Prefect watches it: what is shown on a server, and what becomes of a run whose server is lost."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.prefect_server import (
    Teacher,
    make_environment,
    query,
    served,
    wait_until,
    write_small_recipe,
)
from tests.waiting import GUARD_SECONDS

DEAD = "http://127.0.0.1:9/api"
RUN = [sys.executable, "-m", "flows.cli", "run", "recipe.toml"]
PIECES = ["read prompts", "sample teacher", "score reward"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "prefect"
    home.mkdir()
    return make_environment(home)


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    with Teacher() as server:
        yield server


@pytest.fixture
def recipe(tmp_path: Path, teacher: Teacher) -> Path:
    return write_small_recipe(tmp_path, teacher)


def start(recipe: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        RUN, cwd=recipe.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return the exit code, and what was said on stderr."""
    said = process.communicate(timeout=GUARD_SECONDS)[1]
    return process.returncode, said


def find(server: httpx.Client, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.post(f"/{kind}/filter", json={}).json()
    return found


def test_a_run_is_shown_on_the_server_and_outlives_it(environment, recipe, teacher):
    with served(environment) as (server, server_process):
        assert finish(start(recipe, environment))[0] == 0
        (run,) = find(server, "flow_runs")
        assert run["state"]["type"] == "COMPLETED"
        assert run["parameters"]["recipe"]["name"] == "nightly"
        pieces = find(server, "task_runs")
        assert sorted((piece["name"], piece["state"]["type"]) for piece in pieces) == [
            (name, "COMPLETED") for name in PIECES
        ]
        assert {piece["flow_run_id"] for piece in pieces} == {run["id"]}
        assert [(table["key"], table["flow_run_id"]) for table in find(server, "artifacts")] == [
            ("nightly-counts", run["id"])
        ]

        teacher.is_open = False
        recipe.write_text(recipe.read_text().replace('model = "teacher"', 'model = "another"'))
        process = start(recipe, environment)
        wait_until(
            lambda: any(
                piece["name"] == "sample teacher" and piece["state"]["type"] == "RUNNING"
                for piece in find(server, "task_runs")
            ),
            process,
        )
        wait_until(lambda: teacher.num_asked() == 4, process)
        os.killpg(server_process.pid, signal.SIGKILL)
        server_process.wait()
    teacher.is_open = True
    code, said = finish(process)
    assert code == 0, said
    url = re.escape(environment["PREFECT_API_URL"])
    lost = [line for line in said.splitlines() if "Prefect" in line or "Traceback" in line]
    assert len(lost) == 2, said
    assert re.fullmatch(
        rf"warning: the Prefect server at {url} does not answer \(\w+\); the build goes on without being watched",
        lost[0],
    )
    assert re.fullmatch(
        rf"not told to the Prefect server at {url}: 'sample teacher', 'score reward', the table nightly-counts, "
        r"the end of the run \(completed\)",
        lost[1],
    )
    statuses = query(recipe, "SELECT status FROM builds ORDER BY recorded_at")["status"].to_list()
    assert statuses == ["running", "finished"] * 2
    assert list((recipe.parent / "exports").glob("nightly/v0002-*"))


def test_a_failure_and_a_stop_are_shown_as_what_they_are(environment, recipe, teacher):
    with served(environment) as (server, _):
        teacher.is_open = False
        process = start(recipe, environment)
        wait_until(lambda: teacher.num_asked() == 2, process)
        process.send_signal(signal.SIGINT)
        stopping = "stopping: waiting for what is in flight"
        assert process.stderr is not None
        while stopping not in process.stderr.readline():
            assert process.poll() is None
        teacher.is_open = True
        assert finish(process)[0] == 130
        (recipe.parent / "prompts.jsonl").unlink()
        code, said = finish(start(recipe, environment))
        assert (code, said.count("error: ")) == (1, 1)
        assert sorted(run["state"]["type"] for run in find(server, "flow_runs")) == ["CANCELLED", "FAILED"]


@pytest.mark.parametrize("named_by", ["environment", "profile"])
def test_a_server_that_is_dead_from_the_start_is_a_warning(environment, recipe, named_by):
    if named_by == "profile":
        name_in_profile(environment, DEAD)
    else:
        environment["PREFECT_API_URL"] = DEAD
    code, said = finish(start(recipe, environment))
    assert code == 0, said
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("warning: ")] == [
        f"warning: the Prefect server at {DEAD} does not answer (ConnectError); the build goes on without being watched"
    ]
    assert f"not told to the Prefect server at {DEAD}: the start of the run, 'read prompts', " in said
    assert query(recipe, "FROM selections").height == 2


def test_a_server_that_cannot_be_started_is_a_warning(environment, recipe):
    del environment["PREFECT_API_URL"]
    environment["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{recipe}/prefect.db"
    code, said = finish(start(recipe, environment))
    assert code == 0, said
    assert len(re.findall("^warning: no Prefect server could be started for this run: .*watched$", said, re.M)) == 1
    assert query(recipe, "FROM selections").height == 2


def test_doctor_and_schedule_see_a_dead_server_of_a_profile(environment, recipe):
    name_in_profile(environment, DEAD)
    for command in (["doctor"], ["schedule", "recipe.toml", "--cron", "0 2 * * *"]):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *command],
            cwd=recipe.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=GUARD_SECONDS,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        if command == ["doctor"]:
            assert re.search(r"Prefect server\s*│ problem │ http://127\.0\.0\.1:9/api does not answer", done.stdout)
        else:
            assert re.fullmatch(r"error: the Prefect server at \S+ does not answer \(.*\); start one .*\n", done.stderr)


def name_in_profile(environment: dict[str, str], url: str) -> None:
    """Name a server in the active profile of Prefect, and nowhere else."""
    del environment["PREFECT_API_URL"]
    profiles = f'active = "work"\n[profiles.work]\nPREFECT_API_URL = "{url}"\n'
    (Path(environment["PREFECT_HOME"]) / "profiles.toml").write_text(profiles)


PROGRESS = """
import sys
import flows.progress
from flows.progress import Board
from flows.reporter import FlowRun, Reporter
from flows.together import run_side_by_side

def answer():
    with Board(quiet=True) as board, board.lane("sample", "north", 4) as report:
        for _ in range(3):
            report.count(rows=1)
    return 3

flows.progress.LOG_SECONDS = 0.0
with Reporter(sys.argv[1], FlowRun(), print) as reporter:
    assert run_side_by_side(reporter, {"sample north": answer}) == [3]
"""


def test_a_lane_shows_its_progress_on_the_server(environment):
    with served(environment) as (server, _):
        command = [sys.executable, "-c", PROGRESS, environment["PREFECT_API_URL"]]
        assert subprocess.check_output(command, env=environment, timeout=GUARD_SECONDS) == b""
        (artifact,) = find(server, "artifacts")
        assert (artifact["type"], artifact["data"]) == ("progress", 75.0)
        assert artifact["description"].startswith("sample north: 3/4 rows, ")
