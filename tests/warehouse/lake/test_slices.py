"""Slices: a build read part by part is the build, and a part is all that a query holds in memory."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.warehouse.small_builds import CONFIG, make_recipe, open_lake, random_facts
from warehouse.build.curate import gate, make_pairs, route
from warehouse.build.scope import Scope
from warehouse.lake import slices
from warehouse.lake.slices import MAX_SLICES, choose_num_slices, look_at_slices

SLICED_VIEWS = (
    "build_prompt_scope",
    "kept_prompt_ids",
    "kept_prompts",
    "build_completions",
    "kept_completions",
    "scored_completions",
    "candidates",
    "lineage",
)


def count_rows(frames: Iterable[pl.DataFrame]) -> Counter[str]:
    """Return how often each row is there."""
    return Counter(str(row) for frame in frames for row in frame.iter_rows())


def test_each_row_of_a_view_is_in_one_slice(tmp_path: Path) -> None:
    facts = random_facts(3, 20, num_rewards=2)
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        scope = Scope.open(lake, CONFIG)
        for view in SLICED_VIEWS:
            whole = count_rows([scope.query(f"FROM {view}")])
            assert whole, view
            parts = list(scope.stream(f"FROM {view}", slices=3))
            assert count_rows(parts) == whole, view
            assert max(part.height for part in parts) < whole.total(), "a slice is not everything"
        assert count_rows([scope.query("FROM kept_prompts")]) == count_rows(scope.stream("FROM kept_prompts"))


def test_sources_and_translations_are_in_the_same_slice(tmp_path: Path) -> None:
    with open_lake(tmp_path) as lake:
        random_facts(5, 40).write(lake)
        scope = Scope.open(lake, CONFIG)
        slices_of_roots = [
            set(part["root_id"]) for part in scope.stream("SELECT DISTINCT root_id FROM kept_prompts", slices=9)
        ]
        assert len(slices_of_roots) > 5
        assert sum(map(len, slices_of_roots)) == len(set().union(*slices_of_roots))


def test_curation_of_slices_is_that_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = random_facts(11, 15, num_rewards=2)
    strategies = ["best_vs_worst", "in_language_vs_translated"]
    recipe = make_recipe(
        gates={"language": False, "min_chars": 14}, pairs=[{"strategy": strategy} for strategy in strategies]
    )
    with open_lake(tmp_path / "whole") as whole, open_lake(tmp_path / "parts") as parts:
        for lake, slice_prompts, memory in ((whole, 10_000, 10**12), (parts, 50, 0)):
            monkeypatch.setattr(slices, "SLICE_PROMPTS", slice_prompts)
            monkeypatch.setattr(lake, "memory_limit", lambda memory=memory: memory)
            monkeypatch.setattr(slices, "MAX_SLICES", 3)
            facts.write(lake)
            scope = Scope.open(lake, CONFIG)
            assert gate(scope, recipe) > 0
            assert gate(scope, recipe) == 0
            route(scope, recipe)
            make_pairs(scope, recipe)
        for table in ("rejections", "selections", "pairs"):
            rows = f"SELECT * FROM {table} ORDER BY ALL"
            assert whole.query(rows).height > 10
            assert_frame_equal(parts.query(rows), whole.query(rows))
        assert_frame_equal(scope.count_each_stage(), Scope.open(whole, CONFIG).query("FROM stages"))


@pytest.mark.parametrize("num_slices", [2, 3, 16])
def test_every_text_is_in_one_slice(tmp_path: Path, num_slices: int) -> None:
    ids = ["", "0", "00", "3f", "40", "7fffffff", "80", "f" * 32, "id of a test", "é", "日本", "\U0010fffd"]
    rows = ", ".join(f"('{name}')" for name in ids)
    with open_lake(tmp_path) as lake:
        found = lake.stream(f"SELECT id FROM (VALUES {rows}) AS t(id) WHERE in_slice(id)", slices=num_slices)
        assert sorted(name for frame in found for name in frame["id"]) == sorted(ids)


def test_a_build_is_cut_by_its_size() -> None:
    sizes = [0, 1, 25_000, 25_001, 200_000, 10**9]
    assert [choose_num_slices(size) for size in sizes] == [1, 1, 1, 2, 8, MAX_SLICES]
    assert [len(list(look_at_slices(number))) for number in (2, 5, MAX_SLICES)] == [2, 5, MAX_SLICES]
