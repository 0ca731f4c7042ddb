"""Kill -9 at random instants in every model stage, of the build and of its engine: nothing is lost, nothing is twice."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from factory.engines.open import open_engine
from flows.build.run import execute_build
from flows.lanes.committer import MAX_WAITING_COMMITS
from schemas.recipe.recipe import load_recipe
from tests.flows.standin import StandInEngines
from tests.waiting import GUARD_SECONDS, wait_until
from warehouse.build.audits import run_audits
from warehouse.build.scope import Scope, latest_build
from warehouse.lake.lake import Lake

ROOT = Path(__file__).parents[3]
STAGES = ("translate", "generate", "translate again", "score")
KILLS_PER_STAGE = 5
MAX_IN_FLIGHT, PULLED_AHEAD, COMMIT_ROWS = 16, 64, 10


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def stage_of(asked: list[tuple[str, int, str, str]]) -> list[tuple[str, int]]:
    """Return (stage, engine pid) of every request; translations after the first sample are those of completions."""
    seen_samples = False
    stages = []
    for task, pid, *_ in asked:
        seen_samples |= task == "generate"
        stages.append(("translate again" if task == "translate" and seen_samples else task, pid))
    return stages


def start_build(recipe: Path, log: Path, seconds: float = 0.01) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.flows.drive", str(recipe), str(log), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_stand_in_kills(write_recipe, ids, tmp_path):
    rng = random.Random(os.environ.get("FACTORY_TEST_SEED", "20"))
    path = write_recipe(extra="overlap = 'wait'", commit_rows=COMMIT_ROWS)
    log = tmp_path / "asked.log"
    engines = StandInEngines(log)
    kills: Counter[str] = Counter()
    for stage in STAGES:
        for number in range(KILLS_PER_STAGE):
            process = start_build(path, log)
            already = sum(name == stage for name, _ in stage_of(engines.asked()))
            after = already + rng.randint(1, 18)

            def reached(after: int = after, stage: str = stage, process: "subprocess.Popen[bytes]" = process) -> bool:
                return (
                    process.poll() is not None or sum(name == stage for name, _ in stage_of(engines.asked())) >= after
                )

            wait_until(reached)
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(rng.random() * 0.05)
            engine = engines.asked()[-1][1]
            if number % 2:
                os.kill(engine, signal.SIGKILL)
                kills["engine"] += 1
                time.sleep(rng.random() * 0.1)
            process.kill()
            process.wait()
            process.stderr.close()
            kills["build"] += 1
            wait_until(lambda engine=engine: not is_alive(engine), otherwise="an engine outlived its build")
    assert sum(kills.values()) >= 20
    summary = execute_build(load_recipe(path), quiet=True, open_engine=engines)
    asked = Counter((task, request, name) for task, _, request, name in engines.asked())
    sent_again = sum(asked.values()) - len(asked)
    assert sent_again <= sum(kills.values()) * (MAX_IN_FLIGHT + PULLED_AHEAD + MAX_WAITING_COMMITS * COMMIT_ROWS)
    recipe = load_recipe(path)
    with Lake.open(recipe.warehouse, read_only=True) as lake:
        survived = ids(lake)
        run_audits(Scope.open(lake, summary.config_id))
    text = re.sub(r"/lake/", "/calm/", path.read_text())
    path.write_text(text)
    execute_build(load_recipe(path), quiet=True, open_engine=StandInEngines(tmp_path / "calm.log", seconds=0.0))
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        assert ids(lake) == survived


MICROWORLD = ROOT / "factory" / "microworld"


@pytest.mark.slow
def test_real_vllm_kills(ids, tmp_path):
    """Four kills with real vLLM: of the build and of its engine, while it samples and while it scores."""
    path = tmp_path / "micro.toml"
    path.write_text(f"""
name = "kills"
languages = ["en"]
[[prompts]]
name = "micro"
path = "{MICROWORLD}/prompts.jsonl"
language = "en"
columns = {{ prompt = "prompt", id = "id" }}
limit = 100
[[teachers]]
name = "european"
model = "{MICROWORLD}/models/teacher-european"
samples = 3
sampling = {{ max_tokens = 40 }}
run = {{ max_model_len = 512, max_in_flight = 2 }}
[[reward_models]]
name = "reward"
model = "{MICROWORLD}/models/reward"
run = {{ max_model_len = 512, max_in_flight = 2 }}
[warehouse]
catalog = "{tmp_path}/lake/catalog.sqlite"
data = "{tmp_path}/lake/data"
[run]
exports = "{tmp_path}/exports"
commit_rows = 10
commit_seconds = 0.1
overlap = "wait"
""")
    recipe = load_recipe(path)
    command = [sys.executable, "-m", "flows.cli", "run", str(path)]
    for table in ("completions", "rewards"):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for victim in ("engine", "build"):
            before = count(recipe, table)
            wait_until(lambda table=table, before=before: count(recipe, table) > before)
            assert process.poll() is None
            engines = children_of(process.pid)
            assert engines
            os.kill(engines[-1] if victim == "engine" else process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda engines=engines: not any(map(is_alive, engines)), otherwise="an engine outlived its build")
    execute_build(recipe, quiet=True, open_engine=open_engine)
    with Lake.open(recipe.warehouse, read_only=True) as lake:
        found = ids(lake)
        assert len(found["completions"]) == 300
        run_audits(Scope.open(lake, latest_build(lake)))
    assert execute_build(recipe, quiet=True, open_engine=open_engine).num_sent == 0


def count(recipe, table: str) -> int:
    if not Path(recipe.warehouse.catalog).exists():
        return 0
    try:
        with Lake.open(recipe.warehouse, read_only=True) as lake:
            return lake.query(f"SELECT count(*) FROM {table}").item()
    except Exception:
        return 0


def children_of(pid: int) -> list[int]:
    """Return the engine processes that a build has started, the latest last."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and "factory.engines.supervision.child" in command:
            found.append(int(entry.name))
    return sorted(found)


def test_an_interrupt_drains_and_commits(write_recipe, tmp_path):
    path = write_recipe()
    log = tmp_path / "asked.log"
    process = start_build(path, log, seconds=0.3)  # so slow that it is still at it when the signal comes
    engines = StandInEngines(log)
    wait_until(lambda: sum(task == "generate" for task, *_ in engines.asked()) > 30)
    process.send_signal(signal.SIGINT)
    assert process.wait(GUARD_SECONDS) != 0
    message = process.stderr.read().decode()
    process.stderr.close()
    assert "waiting for what is in flight" in message
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        assert lake.query("SELECT status FROM builds ORDER BY recorded_at DESC LIMIT 1").item() == "stopped"
        num_answered = lake.query("SELECT count(*) FROM completions").item()
    assert num_answered == len({(request, name) for task, _, request, name in engines.asked() if task == "generate"})
