"""The views that people look at: who wins where, what it cost, what was dropped, where a row comes from."""

from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median, pstdev

import pytest

from tests.warehouse.small_builds import (
    CONFIG,
    Facts,
    Row,
    add_rows,
    by_prompt,
    make_recipe,
    open_lake,
    random_facts,
    true_candidates,
)
from warehouse.build.scope import Scope
from warehouse.statements import read_sql


def true_arbitrage(candidates: list[Row]) -> dict[tuple[str, str], dict[str, float | None]]:
    """Win share, margin and regret of every teacher in every language, prompt by prompt."""
    pools = by_prompt([row for row in candidates if row["origin"] != "translated"])
    lines: dict[tuple[str, str], list[tuple[float, float, float | None, float]]] = {}
    num_prompts: dict[str, int] = {}
    for pool in pools.values():
        language = pool[0]["language"]
        num_prompts[language] = num_prompts.get(language, 0) + 1
        best: dict[str, float] = {}
        for row in pool:
            best[row["teacher"]] = max(row["reward"], best.get(row["teacher"], row["reward"]))
        top = max(best.values())
        winners = [name for name, reward in best.items() if reward == top]
        for name, reward in best.items():
            others = [other for rival, other in best.items() if rival != name]
            lead = reward - max(others) if name in winners and others else None
            share = 1 / len(winners) if name in winners else 0.0
            lines.setdefault((language, name), []).append((reward, share, lead, top - reward))
    result: dict[tuple[str, str], dict[str, float | None]] = {}
    for (language, name), rows in lines.items():
        leads = [lead for _, _, lead, _ in rows if lead is not None]
        result[language, name] = {
            "num_prompts": len(rows),
            "win_share": sum(share for _, share, _, _ in rows) / num_prompts[language],
            "margin": fmean(leads) if leads else None,
            "regret": fmean(regret for *_, regret in rows),
        }
    return result


def check_arbitrage(folder: Path, facts: Facts) -> None:
    """Compare the view with loops."""
    candidates = true_candidates(facts)
    with open_lake(folder) as lake:
        facts.write(lake)
        scope = Scope.open(lake, CONFIG)
        rows = {(row["language"], row["teacher"]): row for row in scope.query("FROM arbitrage").iter_rows(named=True)}
    expected = true_arbitrage(candidates)
    assert set(rows) == set(expected)
    for key, line in expected.items():
        own = [row for row in candidates if (row["language"], row["teacher"]) == key and row["origin"] != "translated"]
        assert rows[key]["num_completions"] == len(own)
        for name, value in line.items():
            assert rows[key][name] == pytest.approx(value), (key, name)
    for language in {language for language, _ in rows}:
        lines = [row for (code, _), row in rows.items() if code == language]
        assert sum(row["win_share"] for row in lines) == pytest.approx(1)
        assert sum(row["is_best_single"] for row in lines) == 1


@pytest.mark.parametrize(("num_rewards", "samples"), [(1, 1), (1, 2), (2, 1), (3, 2)])
def test_arbitrage_is_what_loops_find(tmp_path: Path, num_rewards: int, samples: int) -> None:
    teachers = [{"name": name, "model": f"org/{name}", "samples": samples} for name in "abc"]
    check_arbitrage(tmp_path, random_facts(51, 80, num_rewards=num_rewards, teachers=teachers))


def test_arbitrage_among_many_teachers(tmp_path: Path) -> None:
    names = [f"t{index}" for index in range(130)]
    facts = Facts(make_recipe(teachers=[{"name": name, "model": f"org/{name}"} for name in names], translation=None))
    for number, prompt in enumerate([facts.prompt("p", "ar"), facts.prompt("q", "ar"), facts.prompt("r", "ja")]):
        for index, name in enumerate(names[number:]):
            facts.completion(prompt, name, (float(index * (7 + number) % 50),))
    check_arbitrage(tmp_path, facts)


def test_without_rewards_there_is_no_arbitrage(tmp_path: Path) -> None:
    facts = random_facts(51, 20)
    facts.rewards.clear()
    check_arbitrage(tmp_path, facts)


def quantile(values: list[float], share: float) -> float:
    """The quantile of sorted values, linear between two of them."""
    place = (len(values) - 1) * share
    lower = values[int(place)]
    return lower + (values[min(int(place) + 1, len(values) - 1)] - lower) * (place % 1)


@pytest.mark.parametrize("equal", [False, True])
def test_distributions_are_what_loops_find(tmp_path: Path, equal: bool) -> None:
    facts = random_facts(53, 60)
    if equal:
        facts.rewards = [row | {"reward": 1.5} for row in facts.rewards]
    answers = [row for row in true_candidates(facts) if row["origin"] != "translated"]
    expected: dict[tuple[str, str, int], list[float]] = {}
    for measure, column in (("reward", "reward"), ("chars", "num_chars")):
        values = sorted(float(row[column]) for row in answers)
        low, high = quantile(values, 0.01), quantile(values, 0.99)
        for teacher in {row["teacher"] for row in answers}:
            own = [float(row[column]) for row in answers if row["teacher"] == teacher]
            for value in own:
                place = min(max(int((value - low) / (high - low) * 40 // 1), 0), 39) if high > low else 0
                line = expected.setdefault((measure, teacher, place), [low, high, median(own), fmean(own), len(own), 0])
                line[-1] += 1
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        rows = Scope.open(lake, CONFIG).query(read_sql("reports/distributions"))
    keys = ["measure", "teacher", "bin"]
    assert rows.select(keys).rows() == sorted(expected)
    for row in rows.iter_rows(named=True):
        seen = [row[name] for name in ("low", "high", "median", "mean", "num_answers", "num")]
        assert seen == pytest.approx(expected[row["measure"], row["teacher"], row["bin"]])


def test_rewards_and_lengths_by_language(tmp_path: Path) -> None:
    facts = random_facts(52, 40)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in true_candidates(facts):
        groups.setdefault((row["language"], row["origin"]), []).append(row)
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        scope = Scope.open(lake, CONFIG)
        seen = scope.query("FROM rewards_by_language")
    assert seen.height == len(groups)
    for row in seen.iter_rows(named=True):
        own = groups[row["language"], row["origin"]]
        rewards, lengths = [item["reward"] for item in own], [item["num_chars"] for item in own]
        assert row["num_completions"] == len(own)
        assert row["mean_reward"] == pytest.approx(fmean(rewards))
        assert row["reward_deviation"] == pytest.approx(pstdev(rewards))
        assert row["mean_chars"] == pytest.approx(fmean(lengths))
        assert row["median_chars"] == pytest.approx(median(lengths))


def test_rejections_usage_and_lineage(tmp_path: Path) -> None:
    facts = Facts(make_recipe())
    source = facts.prompt("row 7", "en")
    sibling = facts.prompt("row 7", "he", parent=source)
    answer = facts.completion(source, "a", (1.0,))
    translation = facts.translated(answer, sibling, (0.0,))
    facts.reject("gate", "x", reason="empty")
    facts.reject("sample", "y", "z", settings_id="lane-a", reason="timeout")
    facts.reject("sample", "w", settings_id="lane-of-another-build", reason="timeout")
    usage = {
        "stage": "sample",
        "model": "a",
        "settings_id": "lane-a",
        "device": "cpu",
        "num_requests": 10,
        "num_rejected": 1,
        "num_prompt_tokens": 100,
        "num_completion_tokens": 300,
        "seconds": 2.0,
        "recorded_at": datetime(2025, 1, 1, tzinfo=UTC),
    }
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        add_rows(lake, "usage", usage | {"run_id": "1"}, usage | {"run_id": "2", "seconds": 6.0})
        add_rows(lake, "usage", usage | {"run_id": "3", "settings_id": "lane-of-another-build"})
        scope = Scope.open(lake, CONFIG)
        reasons = scope.query("SELECT stage, reason, num_rows FROM rejections_by_reason")
        assert set(reasons.iter_rows()) == {("gate", "empty", 1), ("sample", "timeout", 2)}
        (spent,) = scope.query("FROM usage_by_stage").iter_rows(named=True)
        assert spent["num_requests"] == 20
        assert spent["seconds"] == 8.0
        assert spent["tokens_per_second"] == 100.0
        lineage = {row["completion_id"]: row for row in scope.query("FROM lineage").iter_rows(named=True)}
        line = lineage[translation["completion_id"]]
        assert line["translated_from_completion"] == answer["completion_id"]
        assert line["translated_from_prompt"] == source["prompt_id"]
        assert (line["source"], line["source_row"], line["teacher"]) == ("p", "row 7", "a")
