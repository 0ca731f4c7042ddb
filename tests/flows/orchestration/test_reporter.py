"""A run is the factory's and Prefect watches it: what is shown on a server, and what becomes of a run whose server is lost."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import polars as pl
import pytest

from flows import recipe_run as build_module
from flows.build.build_run import BuildSummary
from flows.lanes.side_by_side import UNWATCHED, Watcher, run_side_by_side
from flows.orchestration import reporter
from flows.orchestration.reporter import FlowRun, Reporter
from tests.http_server import serve
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
def environment(tmp_path: Path, prefect_database: Path) -> dict[str, str]:
    return make_environment(tmp_path / "prefect", prefect_database)


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
        (recipe.parent / "exports").write_text("a file where the folder of the exports is to be")
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


SETTINGS = [("PREFECT_API_URL", "http://[::1"), ("PREFECT_CLIENT_MAX_RETRIES", "SECRET"), ("profiles.toml", "a = [")]


@pytest.mark.parametrize(("setting", "value"), SETTINGS)
def test_what_needs_a_server_refuses_settings_that_prefect_does_not_allow(environment, recipe, setting, value):
    misset(environment, setting, value)
    command = [sys.executable, "-m", "flows.cli", "schedule", recipe.name, "--cron", "0 2 * * *"]
    done = subprocess.run(command, cwd=recipe.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: Prefect's settings cannot be used: .+", done.stderr.splitlines()[-1]), done.stderr
    assert "Traceback" not in done.stderr
    assert "SECRET" not in done.stderr


@pytest.mark.parametrize(("setting", "value"), SETTINGS[:2])
def test_a_run_goes_on_without_settings_that_prefect_does_not_allow(environment, recipe, setting, value):
    misset(environment, setting, value)
    code, said = finish(start(recipe, environment))
    assert code == 0, said
    warning = r"warning: Prefect's settings cannot be used: .+; the build goes on without being watched"
    assert re.search(rf"(?m)^{warning}$", said), said
    assert "Traceback" not in said
    assert "SECRET" not in said


def misset(environment: dict[str, str], setting: str, value: str) -> None:
    """Give a setting of Prefect a value that it does not allow, or write a profile file that is not TOML."""
    if setting == "profiles.toml":
        (Path(environment["PREFECT_HOME"]) / setting).write_text(value)
    else:
        environment[setting] = value


def test_no_password_of_a_server_is_shown(environment, recipe):
    environment["PREFECT_API_URL"] = "http://user:SECRET@127.0.0.1:9/api"
    code, said = finish(start(recipe, environment))
    assert code == 0, said
    assert "warning: the Prefect server at http://127.0.0.1:9/api does not answer" in said
    assert "not told to the Prefect server at http://127.0.0.1:9/api: " in said
    assert "SECRET" not in said


def name_in_profile(environment: dict[str, str], url: str) -> None:
    """Name a server in the active profile of Prefect, and nowhere else."""
    del environment["PREFECT_API_URL"]
    profiles = f'active = "work"\n[profiles.work]\nPREFECT_API_URL = "{url}"\n'
    (Path(environment["PREFECT_HOME"]) / "profiles.toml").write_text(profiles)


PROGRESS = """
import sys
import flows.lanes.progress
from flows.lanes.progress import Board
from flows.orchestration.reporter import FlowRun, Reporter
from flows.lanes.side_by_side import run_side_by_side

def answer():
    with Board(quiet=True).lane("sample", "north", 4) as report:
        for _ in range(3):
            report.count_rows(finished=1)
    return 3

flows.lanes.progress.LOG_SECONDS = 0.0
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


# A server that is scripted, in this process


class Script(BaseHTTPRequestHandler):
    """Answers as a Prefect server does, as long as ``is_up``; notes the paths that it was asked for in ``asked``."""

    asked: list[tuple[str, Any]]
    answers: Callable[[str], int]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.answers(self.path)
        if status == 201:
            self.asked.append((self.path, body))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"id": "made"}).encode())

    def do_GET(self) -> None:  # the token against forgery, which a server need not know
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the reporter lose patience at once; what it waits for in these tests comes by an event."""
    monkeypatch.setattr(reporter, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(reporter, "LOST_SECONDS", 0.01)


def report(url: str, watched: Callable[[Watcher], object]) -> list[str]:
    """Return what the user is told while a watched run reports to this URL."""
    said: list[str] = []
    with Reporter(url, FlowRun(), said.append) as watcher:
        watched(watcher)
    return said


def test_a_server_that_comes_back_is_told_all_in_order(quick):
    is_back, has_failed = threading.Event(), threading.Event()

    def answer(path: str) -> int:
        if is_back.is_set():
            return 201
        has_failed.set()
        return 503

    def run(watcher: Watcher) -> None:
        run_side_by_side(watcher, {"قراءة": lambda: 1})
        assert has_failed.wait(GUARD_SECONDS)
        is_back.set()
        watcher.table("counts", "| a |")

    asked: list[tuple[str, Any]] = []
    with serve(type("Here", (Script,), {"asked": asked, "answers": staticmethod(answer)})) as url:
        said = report(f"{url}/api", run)
    assert [line for line in said if not line.startswith("warning: ")] == []
    assert len(said) <= 1
    assert [re.sub(r"[0-9a-f-]{36}", "ID", path).removeprefix("/api") for path, _ in asked] == [
        "/flows/",
        "/flow_runs/",
        "/flow_runs/made/set_state",
        "/task_runs/",
        "/task_runs/ID/set_state",
        "/task_runs/ID/set_state",
        "/artifacts/",
        "/flow_runs/made/set_state",
    ]
    assert asked[3][1]["name"] == "قراءة"
    assert [body["state"]["type"] for path, body in asked if "set_state" in path] == [
        "RUNNING",
        "RUNNING",
        "COMPLETED",
        "COMPLETED",
    ]


def test_a_report_that_is_refused_is_told_of_and_those_after_it_are_sent(quick):
    asked: list[tuple[str, Any]] = []
    answers = staticmethod(lambda path: 422 if "artifacts" in path else 201)
    with serve(type("Here", (Script,), {"asked": asked, "answers": answers})) as url:
        said = report(f"{url}/api", lambda watcher: watcher.table("counts", "| a |"))
    assert said == [
        f"warning: the Prefect server at {url}/api was not told of the table counts (status 422); "
        "the build goes on without being watched",
        f"not told to the Prefect server at {url}/api: the table counts",
    ]
    assert asked[-1][1]["state"] == {"type": "COMPLETED"}


def test_reports_that_the_server_fails_over_hold_no_other_up(quick):
    """All of them wait when the first is sent, so that what is told does not depend on the threads."""
    all_wait = threading.Event()

    def answer(path: str) -> int:
        assert all_wait.wait(GUARD_SECONDS)
        return 500 if "artifacts" in path else 201

    def run(watcher: Watcher) -> None:
        for table in ("counts", "scores"):
            watcher.table(table, "| a |")
        run_side_by_side(watcher, {"قراءة": lambda: 1})
        all_wait.set()

    asked: list[tuple[str, Any]] = []
    with serve(type("Here", (Script,), {"asked": asked, "answers": staticmethod(answer)})) as url:
        said = report(f"{url}/api", run)
    assert [body["name"] for path, body in asked if path.endswith("/task_runs/")] == ["قراءة"]
    assert [body["state"]["type"] for path, body in asked if "/task_runs/" in path and "state" in body] == [
        "RUNNING",
        "COMPLETED",
    ]
    assert asked[-1] == ("/api/flow_runs/made/set_state", {"state": {"type": "COMPLETED"}, "force": True})
    assert said == [
        f"warning: the Prefect server at {url}/api was not told of the table counts (status 500); "
        "the build goes on without being watched",
        f"not told to the Prefect server at {url}/api: the table counts, the table scores",
    ]


def test_a_server_that_hangs_is_lost_with_its_first_time_out(quick, monkeypatch):
    """It takes connections, and never answers: one time-out is enough, however often other faults are tried."""
    monkeypatch.setattr(reporter, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(reporter, "NUM_TRIES", 2**31)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/api"
        with Reporter(url, FlowRun(), said.append) as watcher:
            wait_until(lambda: said)
            run_side_by_side(watcher, {"sample": lambda: 1})
    assert said == [
        f"warning: the Prefect server at {url} does not answer (ReadTimeout); {UNWATCHED}",
        f"not told to the Prefect server at {url}: the start of the run, 'sample', the end of the run (completed)",
    ]


def test_a_server_that_never_ends_its_answer_does_not_hold_up_the_end_of_a_run(monkeypatch):
    """No read of it times out, as there is always another header."""
    is_over = threading.Event()

    class Endless(Script):
        def do_GET(self) -> None:
            self.send_response(200)
            self.flush_headers()
            with contextlib.suppress(OSError):
                while not is_over.wait(0.001):
                    self.wfile.write(b"X")
                    self.wfile.flush()

    monkeypatch.setattr(reporter, "ANSWER_SECONDS", 0.5)
    with serve(Endless) as url:
        said = report(f"{url}/api", lambda watcher: run_side_by_side(watcher, {"sample": lambda: 1}))
        is_over.set()
    assert [
        line.replace("(ReadTimeout)", "in time") for line in said
    ] == [  # which it is where the machine stands still
        f"warning: the Prefect server at {url}/api does not answer in time; {UNWATCHED}",
        f"not told to the Prefect server at {url}/api: the start of the run, 'sample', the end of the run (completed)",
    ]


def test_a_policy_is_trained_though_nobody_watches(quick, monkeypatch):
    """With stand-ins for the build and the training: what is shown here is that neither fails with the watcher."""
    recipe: Any = SimpleNamespace(name="small", policy=SimpleNamespace(steps=[SimpleNamespace(name="sft")]))
    summary = BuildSummary("small", "c", 1, 2, pl.DataFrame({"stage": ["read"], "num_in": [2]}), "exports", 1.0)
    trained: Any = SimpleNamespace(table=lambda: pl.DataFrame({"step": ["sft"]}))

    def work(context: Any, *arguments: Any, **options: Any) -> Any:
        assert context.together({"train": lambda: 5}) == [5]
        return trained if "sft" in options.values() else summary

    recipe.warehouse = recipe.run = None
    monkeypatch.setattr(
        build_module, "open_context", lambda *_, together, **__: nullcontext(SimpleNamespace(together=together))
    )
    monkeypatch.setattr(build_module, "run_build", work)
    monkeypatch.setattr(build_module, "run_policy", work)
    done = []
    said = report(DEAD, lambda watcher: done.append(build_module.build(recipe, watcher, until="sft")))
    assert done[0].policy is trained
    assert len(said) == 2
    assert said[1].endswith("'train', the table small-counts, the table small-policy, the end of the run (completed)")
