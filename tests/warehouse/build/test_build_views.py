"""The candidates of a build, against loops over the same facts."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from schemas.errors import WarehouseError
from tests.warehouse.small_builds import CONFIG, Facts, make_recipe, open_lake, random_facts, true_candidates
from warehouse.build.scope import VIEWS, Scope, latest_build
from warehouse.lake.lake import Lake


def see_candidates(lake: Lake, config_id: str = CONFIG) -> pl.DataFrame:
    scope = Scope.open(lake, config_id)
    return scope.query("FROM candidates ORDER BY completion_id")


def expect_candidates(facts: Facts, columns: list[str]) -> pl.DataFrame:
    return pl.DataFrame(true_candidates(facts), infer_schema_length=None).select(columns).sort("completion_id")


@pytest.mark.parametrize(
    ("num_rewards", "combine"),
    [(1, "mean_rank"), (2, "mean_rank"), (3, "mean_rank"), (2, "mean_zscore"), (3, "mean_zscore")],
)
def test_candidates_are_what_loops_find(tmp_path: Path, num_rewards: int, combine: str) -> None:
    facts = random_facts(num_rewards, 60, num_rewards=num_rewards, rewards={"combine": combine})
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        seen = see_candidates(lake)
    expected = expect_candidates(facts, seen.columns)
    assert {"translated", "recorded", "in_language"} == set(seen["origin"])
    assert_frame_equal(seen, expected, check_dtypes=False, abs_tol=1e-9, rel_tol=0)


def test_equal_rewards_of_a_prompt_have_equal_zscores(tmp_path: Path) -> None:
    facts = Facts(make_recipe(rewards={"combine": "mean_zscore"}), num_rewards=2)
    prompt = facts.prompt("p", "ja")
    for teacher in "abc":
        facts.completion(prompt, teacher, (0.1, 0.7))
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        assert see_candidates(lake)["reward"].to_list() == [0.0, 0.0, 0.0]


def test_builds_side_by_side_see_their_own_rows(tmp_path: Path) -> None:
    first = random_facts(7, 20)
    recipe = make_recipe(
        teachers=[{"name": "a", "model": "org/a", "samples": 1}, {"name": "b", "model": "org/b", "samples": 3}]
    )
    second = replace(first, config_id="config-b", recipe=recipe, rejections=[])
    second.reject("gate", *(row["completion_id"] for row in first.completions[::7]))
    with open_lake(tmp_path) as lake:
        first.write(lake)
        second.write(lake)
        for facts in (first, second, first):
            seen = see_candidates(lake, facts.config_id)
            assert_frame_equal(seen, expect_candidates(facts, seen.columns), check_dtypes=False)
        assert latest_build(lake, "config-b") == "config-b"
        with pytest.raises(WarehouseError, match="no build is named 'other'; the warehouse has: small"):
            latest_build(lake, "other")


def test_a_build_is_found_by_the_beginning_of_its_config_id(tmp_path: Path) -> None:
    with open_lake(tmp_path) as lake:
        for config_id in ("3ee15e7e01", "3ee15e7e02", "7c4a9d1200"):
            Facts(config_id=config_id).write(lake)
        Facts(make_recipe(name="7c4a9d"), config_id="ffffffffff").write(lake)
        assert latest_build(lake, "7c4a9d1") == "7c4a9d1200"
        assert latest_build(lake, "3ee15e7e02") == "3ee15e7e02"
        assert latest_build(lake, "7c4a9d") == "ffffffffff"  # a name comes first
        with pytest.raises(
            WarehouseError,
            match=r"no build is named '7c4a' \(did you mean '7c4a9d'\?\); the warehouse has: .* \(of an id, 6 characters are needed\)",
        ):
            latest_build(lake, "7c4a")
        several = (
            r"several config ids begin with '3ee15e7e': small \(3ee15e7e01\), small \(3ee15e7e02\); name one whole"
        )
        with pytest.raises(WarehouseError, match=several):
            latest_build(lake, "3ee15e7e")


def test_views_are_empty_without_a_build(tmp_path: Path) -> None:
    with open_lake(tmp_path) as lake:
        assert latest_build(lake) is None
        scope = Scope.open(lake, latest_build(lake))
        for view in set(VIEWS) - {"stages", "build_size"}:
            assert scope.query(f"FROM {view}").is_empty(), view


def test_a_view_is_made_when_a_statement_names_it(tmp_path: Path) -> None:
    def list_views(lake: Lake) -> set[str]:
        return {name for (name,) in lake.rows("SELECT view_name FROM duckdb_views() WHERE schema_name = 'build'")}

    with open_lake(tmp_path) as lake:
        Facts().write(lake)
        scope = Scope.open(lake, CONFIG)
        scope.rows("SELECT 1")
        assert list_views(lake) == set()
        scope.rows('SELECT count(*) FROM "Kept_Prompts"')
        assert list_views(lake) == {"kept_prompts", "kept_prompt_ids", "build_translators", "split_prompts"}
        shown = {name for (name,) in scope.rows("SELECT name FROM (SHOW TABLES)")}
        assert shown >= set(VIEWS)
        assert list_views(lake) == set(VIEWS)


def test_views_look_back_in_time(tmp_path: Path) -> None:
    facts = Facts()
    prompt = facts.prompt("p", "ar")
    facts.completion(prompt, "a", (1.0,))
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        before = lake.snapshot()
        facts.completion(prompt, "b", (2.0,))
        facts.write(lake)
        assert see_candidates(lake).height == 2
    with open_lake(tmp_path, as_of=before) as lake:
        assert see_candidates(lake)["teacher"].to_list() == ["a"]


def test_views_serve_threads_while_they_are_made_again(tmp_path: Path) -> None:
    facts = random_facts(9, 10)
    expected = len(true_candidates(facts))
    with open_lake(tmp_path) as lake, ThreadPoolExecutor(3) as pool:
        facts.write(lake)
        assert set(pool.map(lambda _: see_candidates(lake).height, range(6))) == {expected}
