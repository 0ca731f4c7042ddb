"""Pair strategies and their guards, against loops over the same candidates."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
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
from warehouse.build.curate import Change, make_pairs
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake

Proposal = tuple[Row, Row]

FACTS = {1: random_facts(31, 60), 2: random_facts(32, 40, num_rewards=2)}
POOLS = {num: by_prompt(true_candidates(facts)) for num, facts in FACTS.items()}

GUARDS: list[dict[str, Any]] = [
    {},
    {"ties": "keep", "pairs_per_prompt": 2},
    {"min_margin": 0.75, "max_length_ratio": 2.0},
    {"against_reward": True, "min_margin": 0.5, "pairs_per_prompt": 3},
]
STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "best_vs_worst"},
    {"strategy": "in_language_vs_translated"},
    {"strategy": "best_vs_mean_minus_2sd"},
    {"strategy": "strong_vs_weak", "strong": "b", "weak": "c"},
]


@pytest.fixture(scope="module", params=[1, 2], ids=["one reward", "two rewards"])
def scored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lake, int]]:
    with open_lake(tmp_path_factory.mktemp("pairs")) as lake:
        FACTS[request.param].write(lake)
        yield lake, request.param


def propose(pool: list[Row], strategy: dict[str, Any]) -> list[Proposal]:
    """What a strategy proposes for one prompt, in order of precedence."""
    limit = strategy.get("pairs_per_prompt", 1)
    ranked = sorted(
        (row for row in pool if row["origin"] != "translated"), key=lambda row: (-row["reward"], row["completion_id"])
    )
    match strategy["strategy"]:
        case "best_vs_worst":
            return list(zip(ranked, reversed(ranked), strict=True))[: min(limit, len(ranked) // 2)]
        case "in_language_vs_translated":
            translated = [row for row in pool if row["origin"] == "translated"]
            translated.sort(key=lambda row: (row["reward"], row["completion_id"]))
            return [(ranked[0], row) for row in translated] if ranked else []
        case "best_vs_mean_minus_2sd":
            rewards = [row["reward"] for row in ranked]
            target = fmean(rewards) - 2 * pstdev(rewards) if rewards else 0.0
            nearest = sorted(
                ranked[1:], key=lambda row: (round(abs(row["reward"] - target), 9), row["reward"], row["completion_id"])
            )
            return [(ranked[0], row) for row in nearest[:limit]]
        case _:
            strong = [row for row in ranked if row["teacher"] == strategy["strong"]]
            weak = [row for row in reversed(ranked) if row["teacher"] == strategy["weak"]]
            return list(zip(strong, weak, strict=False))[:limit]


def judge(proposals: list[Proposal], strategy: dict[str, Any]) -> list[str | None]:
    """Why each proposal of one prompt is dropped, or None."""
    reasons: list[str | None] = []
    for chosen, rejected in proposals:
        margin = chosen["reward"] - rejected["reward"]
        lengths = sorted((chosen["num_chars"], rejected["num_chars"]))
        if margin == 0 and strategy.get("ties", "drop") == "drop":
            reasons.append("tie")
        elif (margin < 0 and not strategy.get("against_reward")) or abs(margin) < strategy.get("min_margin", 0):
            reasons.append("margin_too_small")
        elif lengths[1] / lengths[0] > strategy.get("max_length_ratio", float("inf")):
            reasons.append("length_ratio")
        elif reasons.count(None) == strategy.get("pairs_per_prompt", 1):
            reasons.append("too_many_pairs")
        else:
            reasons.append(None)
    return reasons


@pytest.mark.parametrize("guards", GUARDS, ids=["defaults", "ties kept", "margin and length", "against reward"])
def test_strategies_do_what_loops_do(scored: tuple[Lake, int], guards: dict[str, Any]) -> None:
    lake, num_rewards = scored
    strategies = [strategy | guards for strategy in STRATEGIES]
    changes = make_pairs(Scope.open(lake, CONFIG), make_recipe(pairs=strategies))
    for strategy in strategies:
        label = strategy["strategy"]
        kept, dropped = {}, {}
        for prompt_id, pool in POOLS[num_rewards].items():
            proposals = propose(pool, strategy)
            for (chosen, rejected), reason in zip(proposals, judge(proposals, strategy), strict=True):
                ids = [chosen["completion_id"], rejected["completion_id"]]
                pair_id = content_id("pair", [CONFIG, label, *ids])
                if reason:
                    dropped[pair_id] = (reason, chosen["language"])
                else:
                    margin = round(chosen["reward"] - rejected["reward"], 9)
                    newest = max(chosen["round"], rejected["round"])
                    kept[pair_id] = (prompt_id, chosen["language"], *ids, margin, newest)
        pairs = lake.query(
            "SELECT pair_id, prompt_id, language, chosen_id, rejected_id, round(margin, 9), round FROM pairs "
            "WHERE config_id = ? AND strategy = ?",
            [CONFIG, label],
        )
        rejections = lake.query(
            "SELECT row_id, reason, language FROM rejections WHERE config_id = ? AND stage = ?",
            [CONFIG, f"pair:{label}"],
        )
        assert {row[0]: row[1:] for row in pairs.iter_rows()} == kept
        assert {row[0]: row[1:] for row in rejections.iter_rows()} == dropped
        assert (changes[label].num_rows, changes[label].num_rejected) == (len(kept), len(dropped))
        assert kept, "nothing was compared"


def test_every_guard_had_something_to_drop() -> None:
    found = set()
    for guards in GUARDS:
        for strategy in (strategy | guards for strategy in STRATEGIES):
            found |= {reason for pool in POOLS[1].values() for reason in judge(propose(pool, strategy), strategy)}
    assert found == {None, "tie", "margin_too_small", "length_ratio", "too_many_pairs"}


def test_mean_minus_two_deviations_passes_over_outliers(tmp_path: Path) -> None:
    random = Random(33)
    facts = Facts()
    for index in range(40):
        prompt = facts.prompt(f"p{index}", "zh-Hant")
        for sample_index in range(random.randrange(6, 20)):
            reward = random.randrange(-8, 9) / 4 - (9 if random.random() < 0.1 else 0)
            facts.completion(prompt, "c", (reward,), sample_index, origin="recorded")
    strategy = {"strategy": "best_vs_mean_minus_2sd"}
    pools = by_prompt(true_candidates(facts))
    proposals = [(pool, *propose(pool, strategy)[0]) for pool in pools.values()]
    assert any(rejected["reward"] > min(row["reward"] for row in pool) for pool, _, rejected in proposals)
    expected = {(chosen["completion_id"], rejected["completion_id"]) for _, chosen, rejected in proposals}
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        make_pairs(Scope.open(lake, CONFIG), make_recipe(pairs=[strategy]))
        assert set(lake.query("SELECT chosen_id, rejected_id FROM pairs").iter_rows()) == expected


def test_the_reason_is_told_in_one_line(tmp_path: Path) -> None:
    facts = Facts()
    for index, (high, low, text) in enumerate([(1.5, 1.5, "ab"), (1.5, 1.25, "ab"), (9, 0, "abcdef")]):
        prompt = facts.prompt(f"p{index}", "hi")
        facts.completion(prompt, "a", (high,), text=text)
        facts.completion(prompt, "b", (low,), text="cd")
    recipe = make_recipe(pairs=[{"min_margin": 1.0, "max_length_ratio": 2.0}])
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        make_pairs(Scope.open(lake, CONFIG), recipe)
        assert set(lake.query("SELECT reason, detail FROM rejections").iter_rows()) == {
            ("tie", "both rewards are 1.5"),
            ("margin_too_small", "chosen reward 1.5, rejected 1.25: the chosen one must be at least 1 higher"),
            ("length_ratio", "6 and 2 chars, at most 2 times as long allowed"),
        }


def test_a_prompt_with_one_answer_yields_nothing(tmp_path: Path) -> None:
    facts = Facts()
    prompt, sibling = facts.prompt("p", "en"), None
    answer = facts.completion(prompt, "a", (1.0,))
    sibling = facts.prompt("p", "zh", parent=prompt)
    facts.translated(answer, sibling, (1.0,))
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        changes = make_pairs(Scope.open(lake, CONFIG), make_recipe(pairs=STRATEGIES))
        assert set(changes.values()) == {Change(0, 0, 0, 0)}


def test_a_rerun_writes_what_changed_alone(tmp_path: Path) -> None:
    facts = Facts()
    prompts = [facts.prompt(f"p{index}", "vi") for index in range(3)]
    for prompt in prompts:
        facts.completion(prompt, "a", (1.0,))
        facts.completion(prompt, "b", (0.0,))
    tied = facts.prompt("tied", "ja")
    facts.completion(tied, "a", (1.0,))
    facts.completion(tied, "b", (1.0,))
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        assert make_pairs(Scope.open(lake, CONFIG), facts.recipe)["best_vs_worst"] == Change(3, 1, 4, 0)
        before = lake.snapshot()
        assert make_pairs(Scope.open(lake, CONFIG), facts.recipe)["best_vs_worst"] == Change(3, 1, 0, 0)
        assert lake.snapshot() == before
        facts.completion(prompts[0], "c", (2.0,))
        facts.completion(prompts[1], "c", (0.5,))
        facts.completion(tied, "c", (0.5,))
        facts.write(lake)
        assert make_pairs(Scope.open(lake, CONFIG), facts.recipe)["best_vs_worst"] == Change(4, 0, 2, 2)
        assert lake.snapshot() == before + 3, "two appends of facts, one transaction of pairs"
        then = lake.query(f"SELECT count(*) FROM pairs AT (VERSION => {before})").item()
        assert then == 3


def test_new_rewards_of_a_pair_change_its_margin(tmp_path: Path) -> None:
    facts = Facts(make_recipe(rewards={"combine": "mean_rank"}), num_rewards=2)
    prompt = facts.prompt("p", "ar")
    facts.completion(prompt, "a", (4.0, 4.0))
    facts.completion(prompt, "b", (0.0, 0.0))
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        make_pairs(Scope.open(lake, CONFIG), facts.recipe)
        facts.completion(prompt, "c", (1.0, 1.0))
        facts.write(lake)
        assert make_pairs(Scope.open(lake, CONFIG), facts.recipe)["best_vs_worst"] == Change(1, 0, 1, 1)
        assert lake.query("SELECT margin FROM pairs").item() == 2.0


USER_SQL = """
SELECT chosen.prompt_id, chosen.completion_id AS chosen_id, rejected.completion_id AS rejected_id
FROM candidates AS chosen JOIN candidates AS rejected USING (prompt_id)
WHERE chosen.teacher = 'a' AND chosen.origin <> 'translated' AND rejected.completion_id <> chosen.completion_id
"""


@pytest.mark.parametrize("guards", GUARDS[:2])
def test_a_users_strategy(scored: tuple[Lake, int], tmp_path: Path, guards: dict[str, Any]) -> None:
    lake, num_rewards = scored
    (tmp_path / "mine.sql").write_text(USER_SQL + "ORDER BY ALL;\n-- done")
    strategy = {"strategy": "sql", "name": "mine", "sql": str(tmp_path / "mine.sql")} | guards
    changes = make_pairs(Scope.open(lake, CONFIG), make_recipe(pairs=[strategy]))
    expected = []
    for pool in POOLS[num_rewards].values():
        own = [row for row in pool if row["teacher"] == "a" and row["origin"] != "translated"]
        proposals = [(row, other) for row in own for other in pool if row is not other]
        proposals.sort(
            key=lambda pair: (
                -(pair[0]["reward"] - pair[1]["reward"]),
                pair[0]["completion_id"],
                pair[1]["completion_id"],
            )
        )
        expected += [
            (chosen["completion_id"], rejected["completion_id"])
            for (chosen, rejected), reason in zip(proposals, judge(proposals, strategy), strict=True)
            if reason is None
        ]
    pairs = lake.query("SELECT chosen_id, rejected_id FROM pairs WHERE strategy = 'mine'")
    assert sorted(pairs.iter_rows()) == sorted(expected)
    assert (
        changes["mine"].num_rejected == lake.query("SELECT count(*) FROM rejections WHERE stage = 'pair:mine'").item()
    )


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("DROP TABLE pairs", "exactly one SELECT, but holds DROP"),
        (
            "SELECT prompt_id, completion_id AS chosen_id FROM candidates",
            "must return the columns prompt_id, chosen_id, rejected_id; it returns prompt_id, chosen_id",
        ),
        (USER_SQL.replace("chosen.completion_id AS", "'x' AS"), "chosen_id x is not a candidate of this prompt"),
        (
            USER_SQL.replace("rejected.completion_id AS", "NULL AS"),
            "rejected_id NULL is not a candidate of this prompt",
        ),
        (USER_SQL.replace("<> 'translated'", "= 'translated'"), "is a translated completion, which is never chosen"),
        (USER_SQL.replace("rejected.completion_id <>", "rejected.completion_id ="), "are the same completion"),
    ],
)
def test_a_users_strategy_is_checked(tmp_path: Path, sql: str, message: str) -> None:
    facts = Facts()
    prompt = facts.prompt("p", "en")
    answer = facts.completion(prompt, "a", (1.0,))
    sibling = facts.prompt("p", "de", parent=prompt)
    facts.translated(answer, sibling, (0.0,))
    facts.completion(sibling, "b", (2.0,))
    facts.completion(prompt, "b", (2.0,))
    (tmp_path / "mine.sql").write_text(sql)
    recipe = make_recipe(pairs=[{"strategy": "sql", "name": "mine", "sql": str(tmp_path / "mine.sql")}])
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        with pytest.raises(RecipeError, match=f"mine.sql.*{message}"):
            make_pairs(Scope.open(lake, CONFIG), recipe)
