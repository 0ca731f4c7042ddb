"""The reward index: views that read it have the rows that they have without it, whatever came before and after it."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.warehouse.small_builds import CONFIG, Facts, open_lake, random_facts, true_candidates
from warehouse.build import reward_index
from warehouse.build.reward_index import find_indexed, index_rewards
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake

NARROW = {"scored_completions": "scored_without_text", "candidates": "candidates_without_text"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_index, "WORTH_INDEXING", 1)
    monkeypatch.setattr(reward_index, "_CHUNK", 17)


def check_views(lake: Lake, facts: Facts) -> None:
    """Check that the views without texts have the rows of those with texts, which are those that loops find."""
    with Scope.open(lake, CONFIG) as scope:
        for wide, narrow in NARROW.items():
            expected = scope.query(f"FROM {wide} ORDER BY completion_id")
            seen = scope.query(f"FROM {narrow} ORDER BY completion_id")
            assert set(expected.columns) - set(seen.columns) == {"text", "reasoning"} & set(expected.columns)
            assert_frame_equal(seen, expected.select(seen.columns), abs_tol=1e-9, rel_tol=0)
        true = pl.DataFrame(true_candidates(facts), infer_schema_length=None).sort("completion_id")
        seen = scope.query("FROM candidates_without_text ORDER BY completion_id")
        assert_frame_equal(seen, true.select(seen.columns), check_dtypes=False, abs_tol=1e-9, rel_tol=0)


@pytest.mark.parametrize("num_rewards", [1, 2])
def test_views_have_the_same_rows_with_and_without_an_index(tmp_path: Path, num_rewards: int) -> None:
    facts = random_facts(5, 30, num_rewards=num_rewards)
    rewards = list(facts.rewards)
    with open_lake(tmp_path) as lake:
        facts.rewards[:] = rewards[: len(rewards) // 2]
        facts.write(lake)
        check_views(lake, facts)
        assert index_rewards(lake) == len(rewards) // 2
        check_views(lake, facts)
        facts.rewards[:] = rewards
        facts.write(lake)
        check_views(lake, facts)
        lake.compact()
        check_views(lake, facts)
        assert index_rewards(lake) == len(rewards) - len(rewards) // 2
        assert index_rewards(lake) == 0
        lake.compact()
        check_views(lake, facts)


def test_views_of_an_open_scope_see_what_comes_after_the_index(tmp_path: Path) -> None:
    facts = Facts()
    prompt = facts.prompt("p", "ar")
    facts.completion(prompt, "a", (1.0,))
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        with Scope.open(lake, CONFIG) as scope:
            assert index_rewards(lake) == 1
            scope.refresh_views()
            facts.completion(prompt, "b", (2.0,))
            facts.write(lake)
            assert sorted(scope.query("FROM scored_without_text")["teacher"]) == ["a", "b"]
            assert index_rewards(lake) == 1
            assert sorted(scope.query("FROM scored_without_text")["teacher"]) == ["a", "b"]


def test_rewards_without_their_completion_are_not_passed_over(tmp_path: Path) -> None:
    facts = random_facts(5, 10)
    lost = facts.completions.pop()
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        assert index_rewards(lake) < len(facts.rewards)
        facts.completions.append(lost)
        facts.write(lake)
        check_views(lake, facts)


def test_a_snapshot_from_before_the_index_is_read_without_it(tmp_path: Path) -> None:
    facts = random_facts(5, 10)
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        lake.transact(lambda cursor: cursor.execute("DROP TABLE reward_index"))
        assert find_indexed(lake) is None
        check_views(lake, facts)


def test_few_rewards_are_not_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with open_lake(tmp_path) as lake:
        random_facts(5, 10).write(lake)
        assert index_rewards(lake) == 0
        assert find_indexed(lake) is None
