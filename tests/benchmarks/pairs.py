"""How fast are pairs? ``make_pairs`` against the bare DuckDB statement on the same lake, within 4 GB of memory.

``python -m tests.benchmarks.pairs`` makes a lake of 8 million scored completions (8 teachers, 1 million prompts, about
5 GB of text), indexes their rewards as a build does before it routes, and makes and commits a million best/worst pairs
of it several times each way, in turns. The index, which is made once, is not in these times; how long it took is printed.

``bare`` is what one would type to get this build's pairs: completions joined with rewards, restricted to the build's
prompts, teachers and kept completions, arg_max and arg_min per prompt, inserted with their ids. ``unscoped`` leaves the
restriction out and pairs whatever lies in the warehouse. Neither knows guards, equal rewards (which of them arg_max takes
is chance), reruns, or rejections of what is dropped. Processor seconds stand beside the clock, for busy machines.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from schemas.languages import CORE_LANGUAGES
from schemas.recipe.recipe import Recipe
from schemas.recipe.settings import WarehouseSettings
from schemas.tables import BuildModels, Builds
from warehouse.build.curate import make_pairs
from warehouse.build.reward_index import index_rewards
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake
from warehouse.statements import to_literal

CONFIG = "benchmark"
TEACHERS = tuple(f"teacher-{index}" for index in range(8))

BARE = """
INSERT INTO pairs (config_id, pair_id, prompt_id, language, strategy, chosen_id, rejected_id, margin, round)
SELECT 'bare', content_id('pair', ['bare', 'best_vs_worst', chosen_id, rejected_id]), prompt_id, language,
    'best_vs_worst', chosen_id, rejected_id, margin, 0
FROM (
    SELECT prompt_id, any_value(language) AS language, arg_max(completion_id, reward) AS chosen_id,
        arg_min(completion_id, reward) AS rejected_id, max(reward) - min(reward) AS margin
    FROM completions JOIN rewards USING (completion_id) {scope}
    GROUP BY prompt_id
)
"""
SCOPE = """
    SEMI JOIN (FROM build_prompts WHERE config_id = 'benchmark') AS scope USING (prompt_id)
    ANTI JOIN (FROM rejections WHERE config_id = 'benchmark' AND stage = 'gate') AS gated ON row_id = completion_id
    WHERE settings_id IN (SELECT settings_id FROM build_models WHERE config_id = 'benchmark')
"""


def fill_lake(lake: Lake, num_prompts: int) -> Recipe:
    """Write a build with one scored completion of every teacher for every prompt, lane by lane as a run would."""
    recipe = Recipe.model_validate(
        {
            "name": "benchmark",
            "prompts": [{"name": "p", "path": "/p.jsonl", "language": "en", "columns": {"prompt": "text"}}],
            "teachers": [{"name": name, "model": f"org/{name}"} for name in TEACHERS],
            "reward_models": [{"name": "r", "model": "org/r"}],
        }
    )
    language = f"{to_literal(CORE_LANGUAGES)}[1 + (hash(i) % {len(CORE_LANGUAGES)})::BIGINT]"
    text = f"concat({', '.join(f'md5(i::VARCHAR || {part})' for part in range(20))})"
    _insert(
        lake,
        "prompts",
        f"""SELECT md5('p' || i) AS prompt_id, {language} AS language, [{{'role': 'user', 'content': md5(i::VARCHAR)}}] AS messages,
        'p' AS source, i::VARCHAR AS source_row, NULL AS parent_id, md5('p' || i) AS root_id, NULL AS translator,
        NULL AS settings_id, 'train' AS split, NULL AS detected_language, NULL AS language_score, NULL AS script_share FROM range({num_prompts}) AS t(i)""",
    )
    _insert(lake, "build_prompts", f"SELECT {to_literal(CONFIG)} AS config_id, prompt_id FROM prompts")
    for index, teacher in enumerate(TEACHERS):
        _insert(
            lake,
            "completions",
            f"""SELECT md5('c{index}-' || i) AS completion_id, md5('p' || i) AS prompt_id, {language} AS language,
            '{teacher}' AS model, '{teacher}' AS model_fingerprint, 'lane-{teacher}' AS settings_id,
            'in_language' AS origin, NULL AS translator, NULL AS parent_id, 0 AS round, 0 AS sample_index, {text} AS text,
            NULL AS reasoning, 'stop' AS finish_reason, 9 AS num_prompt_tokens, 99 AS num_completion_tokens,
            640 AS num_chars, 0.1 AS repetition, NULL AS detected_language, NULL AS language_score, NULL AS script_share
            FROM range({num_prompts}) AS t(i)""",
        )
        _insert(
            lake,
            "rewards",
            f"""SELECT md5('c{index}-' || i) AS completion_id, 'reward' AS reward_fingerprint,
            (hash(i, {index}) % 1000000) / 100000 AS reward FROM range({num_prompts}) AS t(i)""",
        )
    lanes = [("teacher", name, f"lane-{name}") for name in TEACHERS] + [("reward", "r", "reward")]
    models = [(CONFIG, role, name, lane, name, list(CORE_LANGUAGES), 1, None) for role, name, lane in lanes]
    lake.append("build_models", pl.DataFrame(models, schema=BuildModels.create_empty().schema, orient="row"))
    run = ("run", CONFIG, "benchmark", json.dumps(recipe.identity()), "finished", None, datetime.now(UTC))
    lake.append("builds", pl.DataFrame([run], schema=Builds.create_empty().schema, orient="row"))
    return recipe


def _insert(lake: Lake, table: str, select: str) -> None:
    lake.transact(lambda cursor: cursor.execute(f"INSERT INTO {table} BY NAME {select}"))


def run_benchmark(lake: Lake, recipe: Recipe, num_runs: int) -> dict[str, list[tuple[float, float]]]:
    """Return wall and processor seconds of every run of every way; the ways take turns, and each starts without pairs."""
    ways: dict[str, Callable[[], object]] = {
        "unscoped": lambda: lake.transact(lambda cursor: cursor.execute(BARE.format(scope=""))),
        "bare": lambda: lake.transact(lambda cursor: cursor.execute(BARE.format(scope=SCOPE))),
        "make_pairs": lambda: make_pairs(Scope.open(lake, CONFIG), recipe),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(num_runs):
        for name, work in ways.items():
            lake.delete("pairs", "true")
            gc.collect()
            wall, processor = time.perf_counter(), time.process_time()
            work()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8_000_000, help="scored completions (8 per prompt)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory", default="4GB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = WarehouseSettings(
            catalog=str(Path(folder) / "catalog.sqlite"), data=str(Path(folder) / "data"), memory=arguments.memory
        )
        with Lake.open(settings) as lake:
            recipe = fill_lake(lake, arguments.rows // len(TEACHERS))
            wall, processor = time.perf_counter(), time.process_time()
            index_rewards(lake)
            indexed = f"{time.perf_counter() - wall:.2f} s, {time.process_time() - processor:.2f} s of processor time"
            seconds = run_benchmark(lake, recipe, arguments.runs)
            num_pairs = lake.query("SELECT count(*) FROM pairs").item()
    print(f"{arguments.rows:,} scored completions -> {num_pairs:,} pairs, memory limit {arguments.memory}, medians")
    print(f"rewards indexed before, once: {indexed}")
    print(f"{'':12} {'wall s':>8} {'x bare':>7} {'cpu s':>8} {'x bare':>7}")
    for name, runs in seconds.items():
        shares = [
            statistics.median(own[clock] / bare[clock] for own, bare in zip(runs, seconds["bare"], strict=True))
            for clock in (0, 1)
        ]
        wall, processor = (statistics.median(run[clock] for run in runs) for clock in (0, 1))
        print(f"{name:12} {wall:8.2f} {shares[0]:7.2f} {processor:8.2f} {shares[1]:7.2f}")


if __name__ == "__main__":
    main()
