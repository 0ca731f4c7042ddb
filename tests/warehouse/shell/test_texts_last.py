"""Queries whose texts are read last: the same rows, and rewritten only where that is sure."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warehouse.small_build import fill_lake, make_recipe
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake
from warehouse.shell.shell import open_for_reading
from warehouse.shell.texts_last import leave_texts_for_last


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scope]:
    recipe = make_recipe(tmp_path_factory.mktemp("texts"))
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=6)
    with open_for_reading(recipe.warehouse) as opened:
        yield opened


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM candidates ORDER BY reward DESC, completion_id LIMIT 5",
        "FROM candidates AS c SELECT c.completion_id, upper(text) AS loud ORDER BY c.reward, c.completion_id LIMIT 4 OFFSET 3",
        "SELECT * EXCLUDE (split) FROM candidates WHERE prompt_id = (SELECT min(prompt_id) FROM prompts)",
        "SELECT *, reward + 1 AS more FROM candidates WHERE language IN ('en', 'de') AND num_chars > 2 LIMIT 100",
        "SELECT text, candidates.root_id FROM candidates WHERE completion_id = 'none'",
        "SELECT * FROM scored_completions ORDER BY completion_id LIMIT 3",
        "SELECT to_json(candidates) FROM candidates ORDER BY completion_id LIMIT 3",
        "SELECT COLUMNS('t.*') FROM candidates ORDER BY completion_id LIMIT 3",
        "SELECT language, avg(reward) AS mean, count(*) AS num FROM candidates GROUP BY ALL",
        "WITH a AS (SELECT teacher, split FROM candidates) SELECT teacher, count(split) FROM a GROUP BY teacher",
        "SELECT c.teacher, p.source, c.reward FROM candidates AS c JOIN prompts AS p ON p.prompt_id = c.prompt_id",
        "SELECT completion_id, rank() OVER (PARTITION BY prompt_id ORDER BY reward) FROM candidates",
        "(SELECT completion_id FROM candidates) EXCEPT (SELECT completion_id FROM completions WHERE origin = 'translated')",
    ],
)
def test_rewritten_queries_have_the_same_rows(scope: Scope, sql: str) -> None:
    light = leave_texts_for_last(scope, sql)
    assert (light != sql) == ("(SELECT min" not in sql)
    found, expected = scope.query(light), scope.query(sql)
    assert found.columns == expected.columns
    assert sorted(map(str, found.rows())) == sorted(map(str, expected.rows()))
    if "ORDER BY reward DESC, completion_id" in sql:
        assert found.rows() == expected.rows()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM candidates",
        "SELECT language, max(length(text)) FROM candidates GROUP BY language",
        "SELECT count(*) FROM (SELECT DISTINCT * FROM candidates)",
        "SELECT to_json(c) FROM candidates AS c",
        "SELECT * FROM candidates WHERE text LIKE '%a%' LIMIT 3",
        "SELECT * FROM candidates ORDER BY text LIMIT 3",
        "SELECT * FROM candidates ORDER BY 2 LIMIT 3",
        "SELECT text AS reward FROM candidates ORDER BY reward LIMIT 3",
        "SELECT DISTINCT text FROM candidates LIMIT 3",
        "SELECT count(text) FROM candidates LIMIT 3",
        "SELECT text, row_number() OVER () FROM candidates LIMIT 3",
        "SELECT text FROM candidates WHERE random() < 0.5",
        "SELECT unnest([1, 2]), text FROM candidates LIMIT 3",
        "SELECT * FROM candidates LIMIT 101",
        "SELECT count(*) FROM candidates NATURAL JOIN completions",
        "SELECT count(*) FROM candidates JOIN completions USING (completion_id, text)",
        "WITH candidates AS (SELECT 1 AS reward) SELECT reward FROM candidates",
        "DESCRIBE candidates",
        "SUMMARIZE candidates",
        "SELECT 'candidates'",
        "SELECT completion_id FROM completions LIMIT 3",
    ],
)
def test_other_queries_run_as_they_are(scope: Scope, sql: str) -> None:
    assert leave_texts_for_last(scope, sql) == sql


def test_no_text_of_another_row_is_read(scope: Scope, tmp_path: Path) -> None:
    plan = scope.query("EXPLAIN " + leave_texts_for_last(scope, "SELECT reward, language FROM candidates"))
    assert "text" not in str(plan["explain_value"].to_list())
