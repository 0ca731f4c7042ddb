"""Routing against loops, reruns, and routers of a user's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import RecipeError
from schemas.ids import content_id
from tests.warehouse.small_builds import (
    CONFIG,
    Facts,
    Row,
    by_prompt,
    make_recipe,
    open_lake,
    random_facts,
    true_candidates,
)
from warehouse.build.curate import Change, route
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake

FACTS = random_facts(21, 60)
ANSWERS = by_prompt([row for row in true_candidates(FACTS) if row["origin"] != "translated"])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with open_lake(tmp_path_factory.mktemp("routes")) as lake:
        FACTS.write(lake)
        yield lake


def select(lake: Lake, **routing: Any) -> dict[str, str]:
    route(Scope.open(lake, CONFIG), make_recipe(routing=routing))
    rows = lake.query("SELECT prompt_id, completion_id FROM selections WHERE config_id = ?", [CONFIG])
    return dict(rows.iter_rows())


def best(answers: list[Row]) -> str:
    return str(min(answers, key=lambda row: (-row["reward"], row["completion_id"]))["completion_id"])


def test_reward_takes_the_best_of_all(lake: Lake) -> None:
    assert any(len({row["reward"] for row in rows}) < len(rows) for rows in ANSWERS.values()), "no ties to break"
    assert select(lake, method="reward") == {prompt: best(rows) for prompt, rows in ANSWERS.items()}


def test_fixed_takes_the_named_teacher_of_the_language(lake: Lake) -> None:
    teachers = {"en": "a", "zh-Hant": "b", "ar": "c"}
    expected = {}
    for prompt, rows in ANSWERS.items():
        named = [row for row in rows if row["teacher"] == teachers.get(row["language"])]
        if named:
            expected[prompt] = best(named)
    assert select(lake, method="fixed", teachers=teachers) == expected


def test_random_draws_a_teacher_by_hash(lake: Lake) -> None:
    def draw(prompt: str, rows: list[Row], seed: int) -> str:
        def order(row: Row) -> tuple[str, str]:
            return (
                content_id("route", [seed, prompt, row["teacher"]]),
                content_id("route", [seed, row["completion_id"]]),
            )

        return str(min(rows, key=order)["completion_id"])

    for seed in (0, 5):
        expected = {prompt: draw(prompt, rows, seed) for prompt, rows in ANSWERS.items()}
        assert select(lake, method="random", seed=seed) == expected


def test_a_users_router(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "shortest.sql"
    file.write_text(
        "-- the shortest answer; für alle Sprachen 答\n"
        "WITH ours AS (FROM candidates WHERE origin <> 'translated')\n"
        "SELECT prompt_id, min_by(completion_id, (num_chars, completion_id)) AS completion_id, 'extra' AS extra\n"
        "FROM ours GROUP BY prompt_id; -- done\n"
    )
    expected = {
        prompt: min(rows, key=lambda row: (row["num_chars"], row["completion_id"]))["completion_id"]
        for prompt, rows in ANSWERS.items()
    }
    assert select(lake, method="sql", sql=str(file)) == expected


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("DELETE FROM selections", "exactly one SELECT, but holds DELETE"),
        ("SELECT 1 AS prompt_id; SELECT 2", "exactly one SELECT, but holds SELECT, SELECT"),
        ("-- nothing", "exactly one SELECT, but holds nothing"),
        ("SELEC 1", "is not SQL: .*SELEC"),
        ("SELECT prompt_id FROM candidates", "must return the columns prompt_id, completion_id; it returns prompt_id"),
        ("SELECT prompt_id, nonsense AS completion_id FROM candidates", "cannot be run: .*nonsense"),
        ("SELECT prompt_id, 'x' AS completion_id FROM candidates", "completion_id x is not a candidate of this prompt"),
        ("SELECT prompt_id, NULL AS completion_id FROM candidates", "completion_id NULL is not a candidate"),
        ("SELECT prompt_id, completion_id FROM candidates", "one of .*; a prompt has one selection"),
        (
            "SELECT prompt_id, any_value(completion_id) AS completion_id FROM candidates WHERE origin = 'translated' GROUP BY 1",
            "is a translated completion, which is never selected",
        ),
    ],
)
def test_a_users_router_is_checked(lake: Lake, tmp_path: Path, sql: str, message: str) -> None:
    file = tmp_path / "router.sql"
    file.write_text(sql)
    before = lake.snapshot()
    with pytest.raises(RecipeError, match=f"router.sql.*{message}"):
        select(lake, method="sql", sql=str(file))
    assert lake.snapshot() == before


def test_a_missing_file_is_named(lake: Lake) -> None:
    with pytest.raises(RecipeError, match=r"nowhere/router\.sql cannot be read"):
        select(lake, method="sql", sql="/nowhere/router.sql")


def test_a_rerun_writes_what_changed_alone(tmp_path: Path) -> None:
    facts = Facts()
    prompts = [facts.prompt(f"p{index}", "he") for index in range(3)]
    for prompt in prompts:
        facts.completion(prompt, "a", (1.0,))
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        assert route(Scope.open(lake, CONFIG), facts.recipe) == Change(
            num_rows=3, num_rejected=0, num_added=3, num_removed=0
        )
        before = lake.snapshot()
        assert route(Scope.open(lake, CONFIG), facts.recipe) == Change(
            num_rows=3, num_rejected=0, num_added=0, num_removed=0
        )
        assert lake.snapshot() == before
        better = facts.completion(prompts[1], "b", (2.0,))
        facts.completion(prompts[2], "b", (0.0,))
        facts.write(lake)
        assert route(Scope.open(lake, CONFIG), facts.recipe) == Change(
            num_rows=3, num_rejected=0, num_added=1, num_removed=1
        )
        now = set(lake.query("SELECT completion_id FROM selections")["completion_id"])
        then = set(lake.query(f"SELECT completion_id FROM selections AT (VERSION => {before})")["completion_id"])
    assert better["completion_id"] in now
    assert len(now - then) == len(then - now) == 1
