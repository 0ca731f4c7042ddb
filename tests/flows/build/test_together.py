"""Builds beside one another, beside readers, and on disks that fail: one clear error each, and nothing twice or lost."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows.build import run as way
from flows.build.run import execute_build
from flows.identity import resolve_build
from flows.lanes.stopping import hold_when_free
from schemas.errors import BuildStoppedError, HeldError, WarehouseError
from schemas.recipe.recipe import load_recipe
from tests.flows.conftest import write_prompts
from tests.flows.direct import DirectEngines
from tests.flows.standin import StandInEngines
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake

ROOT = Path(__file__).parents[3]
SMALL = {"languages": ("en", "fr"), "commit_rows": 20}


def build(path: Path, engines: Any = None, **settings: Any) -> Any:
    return execute_build(load_recipe(path), quiet=True, open_engine=engines or DirectEngines(), **settings)


def start_build(path: Path, log: Path, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.flows.drive", str(path), str(log), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def read_tables(path: Path, ids: Any) -> dict[str, set[Any]]:
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        return ids(lake)


def count_candidates(path: Path, config_id: str) -> int:
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        scope = Scope.open(lake, config_id)
        return scope.query("SELECT count(*) FROM candidates").item()


# Side by side


@pytest.mark.parametrize("stage", ["completion_translation_jobs", "scoring_jobs"])
def test_what_another_build_has_answered_meanwhile_passes_the_gates_too(write_recipe, tmp_path, monkeypatch, stage):
    """The other one translates and scores everything just before this build would have its translations or rewards."""
    write_prompts(tmp_path / "prompts.jsonl", 2)
    other = write_recipe(name="other", **SMALL)
    strict = write_recipe(name="strict", **SMALL)
    strict.write_text(strict.read_text().replace("[gates]\n", '[gates]\nrefusal_patterns = ["^fr «"]\n'))
    jobs = getattr(way, stage)
    if stage == "scoring_jobs":
        monkeypatch.setattr(way, "completion_translation_jobs", lambda _: [])

    def wait(run: Any) -> Any:
        monkeypatch.undo()
        build(other)
        return jobs(run)

    monkeypatch.setattr(way, stage, wait)
    assert build(strict).num_sent < 20
    with Lake.open(load_recipe(strict).warehouse, read_only=True) as lake:
        for path, num_kept in ((other, 2), (strict, 0)):
            scope = Scope.open(lake, resolve_build(load_recipe(path)).config_id)
            kept = scope.query("SELECT count(*) FROM kept_completions WHERE origin = 'translated'").item()
            assert kept == num_kept


def test_two_recipes_with_a_common_teacher_run_at_once_beside_a_reader(write_recipe, ids, tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", 6)
    paths = [write_recipe(name=name, teachers=("north", name), **SMALL) for name in ("east", "west")]
    config_id = resolve_build(load_recipe(paths[0])).config_id
    translator = resolve_build(load_recipe(paths[0])).translator
    assert translator is not None
    log = tmp_path / "asked.log"
    counts = []
    # Both wait for the translator until both are there.
    with (
        Lake.open(load_recipe(paths[0]).warehouse) as lake,
        lake.lease(f"translate_prompts-{translator.settings_id}"),
    ):
        processes = [start_build(path, log, 0.2) for path in paths]
        while lake.query("SELECT count(*) FROM builds").item() < 2:
            assert all(process.poll() is None for process in processes)
            counts.append(count_candidates(paths[0], config_id))
            time.sleep(0.3)
        counts.append(count_candidates(paths[0], config_id))
    while any(process.poll() is None for process in processes):
        counts.append(count_candidates(paths[0], config_id))
        time.sleep(0.3)
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert counts == sorted(counts)
    assert len(counts) > 2
    asked = Counter((task, request, name) for task, _, request, name in StandInEngines(log).asked())
    assert set(asked.values()) == {1}, "a request was sent twice"
    # 6 prompts in 2 languages: 12 answers of each teacher, 6 translated prompts, 6 translated answers of north
    assert Counter((task, name) for task, _, name in asked) == {
        ("translate", "translator"): 12,
        **{("generate", teacher): 12 for teacher in ("north", "east", "west")},
        ("score", "judge"): 3 * 12 + 6,
    }
    found = read_tables(paths[0], ids)
    assert len(found["completions"]) == len(found["rewards"]) == 3 * 12 + 6
    assert len(found["selections"]) == 2 * 12
    with Lake.open(load_recipe(paths[0]).warehouse, read_only=True) as lake:
        runs = lake.query("SELECT status FROM builds ORDER BY recorded_at")["status"].to_list()
    assert runs == ["running", "running", "finished", "finished"], "they did not overlap"
    assert count_candidates(paths[0], config_id) == 2 * 12 + 6
    assert all(list((tmp_path / "exports" / name).glob("v0001-*")) for name in ("east", "west"))


def test_a_recipe_that_runs_already_is_refused_or_waited_for(write_recipe, ids, tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", 6)
    path = write_recipe(teachers=("north",), **SMALL)
    log = tmp_path / "asked.log"
    first = start_build(path, log, 0.1)
    try:
        while not StandInEngines(log).asked():
            assert first.poll() is None
        with pytest.raises(WarehouseError) as caught:
            build(path)
        holder = rf"process {first.pid} on \S+"
        assert re.fullmatch(
            rf"'build small \(\w{{32}}\)' is held by {holder}; wait for it to end, or stop it", str(caught.value)
        )
        assert first.poll() is None
        path.write_text(path.read_text() + "overlap = 'wait'\n")
        engines = DirectEngines()
        assert build(path, engines).num_sent == 0
        assert engines.opened == []
        _, said = first.communicate()
        assert first.returncode == 0, said
    finally:
        first.kill()
        first.wait()
    assert len(read_tables(path, ids)["selections"]) == 12


def test_waiting_for_another_process_ends_with_it_or_with_a_stop(write_recipe):
    settings = load_recipe(write_recipe()).warehouse
    stop = threading.Event()
    with Lake.open(settings) as first, Lake.open(settings) as second:
        with first.lease("name"):
            soon = threading.Timer(0.2, stop.set)
            soon.start()
            with pytest.raises(BuildStoppedError), hold_when_free(second, "name", stop):
                pass
            soon.join()
        with hold_when_free(second, "name", threading.Event()), pytest.raises(HeldError), first.lease("name"):
            pass


# Disks


def test_a_full_disk_stops_the_build_and_costs_nothing_but_time(write_recipe, ids, make_small_disk, tmp_path):
    small_disk = make_small_disk(tmp_path / "lake", 16)
    write_prompts(tmp_path / "prompts.jsonl", 8)
    path = write_recipe(teachers=("north",), **SMALL)
    num_asked = 0

    def fill_the_disk(request):
        nonlocal num_asked
        num_asked += request.target_language is None
        if num_asked == 4:
            room = os.statvfs(small_disk)
            (small_disk / "filler").write_bytes(b"x" * (room.f_bavail * room.f_bsize))

    with pytest.raises(
        WarehouseError, match=r"there is no space left for .*lake/data or the catalog: free some"
    ) as caught:
        build(path, DirectEngines(fault=fill_the_disk))
    assert "\n" not in str(caught.value)
    (small_disk / "filler").unlink()
    before = read_tables(path, ids)
    assert len(before["prompts"]) == 16
    summary = build(path)
    assert summary.num_sent == 16 + 8 + 24 - len(before["completions"])
    survived = read_tables(path, ids)
    path.write_text(path.read_text().replace(f"{tmp_path}/lake/", f"{tmp_path}/calm/"))
    build(path)
    assert read_tables(path, ids) == survived


def test_a_warehouse_that_may_not_be_written_is_one_sentence(write_recipe, unprivileged, tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", 4)
    path = write_recipe(**SMALL)
    code = f"""
from pathlib import Path
from flows.build.run import execute_build
from schemas.errors import WarehouseError
from schemas.recipe.recipe import load_recipe
try:
    execute_build(load_recipe(Path({str(path)!r})), quiet=True)
except WarehouseError as error:
    print(error)
"""
    command = [*unprivileged, sys.executable, "-B", "-c", code]
    for folder in (tmp_path, tmp_path / "lake" / "catalog.sqlite.locks"):
        subprocess.run(["chmod", "-R", "a-w", folder], check=True)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        subprocess.run(["chmod", "-R", "u+w", folder], check=True)
        assert re.fullmatch(r"the warehouse cannot be written: Permission denied \(.*/lake.*\)\n", done.stdout), done
        build(path, until="read")
    assert build(path, until="read").num_sent == 0


def test_a_torn_file_is_named_and_a_foreign_one_left_alone(write_recipe, ids, tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", 4)
    path = write_recipe(**SMALL)
    build(path, until="translate")
    folder = tmp_path / "lake" / "data" / "main" / "completions"
    folder.mkdir(parents=True, exist_ok=True)
    foreign = folder / "part-0.parquet"
    shutil.copy(next((tmp_path / "lake" / "data" / "main" / "prompts").glob("*.parquet")), foreign)
    build(path, until="sample")
    assert foreign.exists()
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        files = lake.query("SELECT data_file FROM ducklake_list_files('lake', 'completions')")["data_file"].to_list()
    torn = Path(files[0])
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WarehouseError, match=rf"data file {re.escape(str(torn))} is damaged: restore") as caught:
        build(path)
    assert "\n" not in str(caught.value)
    torn.write_bytes(whole)
    assert build(path).num_sent == 2 * 8 + 4
    assert len(read_tables(path, ids)["selections"]) == 8
    assert foreign.exists()


# Many kinds of lanes in one build


def test_recorded_answers_several_reward_models_and_sql_of_the_users_own(write_recipe, tmp_path):
    write_prompts(tmp_path / "prompts.jsonl", 6)
    answers = [
        {
            "meta": {"row": f"row-{number}", "lang": code},
            "turns": [{"role": "user"}, {"content": f"recorded {number} {code}"}],
        }
        for number in range(5)  # not of every prompt
        for code in ("English", "fra_Latn")
    ]
    answers += [
        {"meta": {"row": "row-99", "lang": "en"}, "turns": [{}, {"content": "of no prompt"}]},
        {"meta": {"row": "row-0", "lang": "en"}, "turns": [{}, {"content": ""}]},
        {"meta": {"row": "row-1", "lang": "en"}},
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
    (tmp_path / "longest.sql").write_text(
        "SELECT prompt_id, arg_max(completion_id, (num_chars, completion_id)) AS completion_id FROM candidates\n"
        "WHERE origin <> 'translated' GROUP BY prompt_id -- a comment at the end"
    )
    (tmp_path / "own.sql").write_text(
        "WITH own AS (SELECT * FROM candidates WHERE teacher = 'archive')\n"
        "SELECT prompt_id, own.completion_id AS chosen_id, other.completion_id AS rejected_id, 'extra' AS note\n"
        "FROM own JOIN candidates AS other USING (prompt_id)\n"
        "WHERE other.teacher = 'north' AND other.origin <> 'translated';\n"
    )
    path = write_recipe(teachers=("north",), **SMALL)
    text = path.read_text()
    text = text.replace(
        'pairs = [{ strategy = "best_vs_worst" }',
        'pairs = [{ strategy = "sql", name = "own", sql = "own.sql", ties = "keep", against_reward = true }',
    )
    text = text.replace(
        "[gates]",
        f"""[[teachers]]
name = "archive"
engine = "recorded"
[teachers.recorded]
path = "answers.jsonl"
columns = {{ text = "turns.1.content", key = "meta.row", language = "meta.lang" }}
[routing]
method = "sql"
sql = "longest.sql"
[[reward_models]]
name = "critic"
model = "{tmp_path}/models/north"
[gates]""",
    )
    path.write_text(text, encoding="utf-8")
    summary = build(path)
    # 6 prompts and 6 answers translated, 12 answers of north; two rewards for each of 12 + 10 + 6 completions
    assert summary.num_sent == 6 + 6 + 12 + 2 * 28
    assert summary.export_path is not None
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        scope = Scope.open(lake, summary.config_id)
        rejected = dict(
            scope.query("SELECT reason, count(*) FROM rejections WHERE stage = 'read' GROUP BY 1").iter_rows()
        )
        candidates = scope.query("FROM candidates").to_dicts()
        rewards = scope.query("SELECT completion_id, list(reward ORDER BY reward_fingerprint) FROM rewards GROUP BY 1")
        selections = dict(scope.query("SELECT prompt_id, completion_id FROM selections").iter_rows())
        pairs = scope.query("SELECT prompt_id, chosen_id, rejected_id, margin FROM pairs WHERE strategy = 'own'").rows()
    counts = {row["stage"]: (row["num_in"], row["num_out"], row["num_rejected"]) for row in summary.counts.to_dicts()}
    assert counts["read prompts"] == (7, 6, 1)
    assert counts["join recorded"] == (13, 10, 3)
    assert rejected == {"empty_prompt": 1, "no_such_prompt": 1, "empty": 1, "invalid_row": 1}
    raw = dict(rewards.iter_rows())
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for candidate in candidates:
        by_prompt.setdefault(candidate["prompt_id"], []).append(candidate)
    assert {len(found) for found in by_prompt.values()} == {1, 2, 3}
    for prompt_id, found in by_prompt.items():
        for candidate in found:
            own = raw[candidate["completion_id"]]
            ranks = [1 + sum(raw[other["completion_id"]][model] < own[model] for other in found) for model in (0, 1)]
            assert candidate["reward"] == sum(ranks) / 2
        sampled = [candidate for candidate in found if candidate["origin"] != "translated"]
        longest = max(sampled, key=lambda candidate: (candidate["num_chars"], candidate["completion_id"]))
        assert selections[prompt_id] == longest["completion_id"]
    rows = {candidate["completion_id"]: candidate for candidate in candidates}
    assert len(pairs) == 10
    for prompt_id, chosen, rejected_id, margin in pairs:
        assert (rows[chosen]["origin"], rows[chosen]["prompt_id"]) == ("recorded", prompt_id)
        assert rows[rejected_id]["teacher"] == "north"
        assert margin == rows[chosen]["reward"] - rows[rejected_id]["reward"]

    file = tmp_path / "prompts.jsonl"
    file.write_text(file.read_text().replace('"row-4"', '"moved"'))
    summary = build(path)
    assert summary.num_sent == 0
    counts = {row["stage"]: (row["num_in"], row["num_out"], row["num_rejected"]) for row in summary.counts.to_dicts()}
    assert counts["join recorded"] == (13, 8, 5)
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        scope = Scope.open(lake, summary.config_id)
        lost = scope.query(
            "SELECT reason FROM rejections WHERE detail LIKE 'no row joins this answer any more%'"
        ).rows()
        assert lost == [("no_such_prompt",)] * 2
        assert scope.query("SELECT count(*) FROM pairs WHERE strategy = 'own'").item() == 8


def test_recorded_answers_are_joined_by_the_rows_of_now(write_recipe, tmp_path):
    """A build without ids has read the prompts first; then they get ids, in another order, and recorded answers."""
    write_prompts(tmp_path / "prompts.jsonl", 6)
    lines = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()[:6]]
    rows = [line | {"id": str(6 - number)} for number, line in enumerate(lines)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"id": row["id"], "text": f"the answer to: {row['q']}"} for row in rows]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    path = write_recipe(teachers=("north",), **SMALL)
    text = path.read_text()
    path.write_text(text.replace(', id = "id"', ""))
    build(path, until="read")
    table = '[[teachers]]\nname = "archive"\nengine = "recorded"\n[teachers.recorded]\npath = "answers.jsonl"\n'
    path.write_text(text.replace("[gates]", f'{table}columns = {{ text = "text", key = "id" }}\n[gates]'))
    build(path, until="sample")
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        sql = (
            "SELECT text, messages[1].content FROM completions JOIN prompts USING (prompt_id) WHERE origin = 'recorded'"
        )
        found = lake.query(sql).rows()
    assert len(found) == 6
    assert all(answer == f"the answer to: {question}" for answer, question in found)
