"""Wanted minus have: what each lane still has to do, with the ids that Python makes."""

from pathlib import Path

from schemas.ids import content_id
from tests.warehouse.small_builds import (
    CONFIG,
    TEXTS,
    Facts,
    Row,
    add_rows,
    make_recipe,
    open_lake,
    random_facts,
    true_completions,
)
from warehouse.build.pending import (
    pending_completion_translations,
    pending_completions,
    pending_prompt_translations,
    pending_rewards,
)
from warehouse.build.scope import Scope

LANGUAGES = list(TEXTS)


def ask(scope: Scope, pending: str) -> list[Row]:
    rows = [row for frame in scope.stream(pending, batch_rows=7) for row in frame.iter_rows(named=True)]
    parts = [row for frame in scope.stream(pending, slices=3) for row in frame.iter_rows(named=True)]
    assert sorted(map(str, parts)) == sorted(map(str, rows))
    return rows


def kept_prompts(facts: Facts) -> list[Row]:
    gated = {row["row_id"] for row in facts.rejections if row["config_id"] == CONFIG}
    return [row for row in facts.prompts if row["prompt_id"] not in gated and row["parent_id"] not in gated]


def test_completions_of_a_lane(tmp_path: Path) -> None:
    facts = random_facts(41, 30)
    have = {(row["prompt_id"], row["sample_index"]) for row in facts.completions if row["settings_id"] == "lane-b"}
    wanted = {
        content_id("completion", ["lane-b", row["prompt_id"], index]): row | {"sample_index": index}
        for row in kept_prompts(facts)
        for index in range(3)
        if row["language"] in {"en", "ar", "zh-Hant"} and (row["prompt_id"], index) not in have
    }
    given_up, *_ = wanted
    facts.reject("sample", given_up, settings_id="lane-b", reason="poison")
    facts.reject("sample", *wanted, settings_id="lane-a", reason="poison")
    facts.reject("score", *wanted, settings_id="lane-b", reason="poison")
    del wanted[given_up]
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        scope = Scope.open(lake, CONFIG)
        pending = pending_completions("lane-b", ["en", "ar", "zh-Hant"], 3)
        rows = ask(scope, pending)
        assert len(rows) == len(wanted)
        for row in rows:
            expected = wanted[row["completion_id"]]
            assert row == {"completion_id": row["completion_id"]} | {
                name: expected[name] for name in ("prompt_id", "root_id", "language", "messages", "sample_index")
            }
        for row in rows:
            prompt = next(prompt for prompt in facts.prompts if prompt["prompt_id"] == row["prompt_id"])
            facts.completion(prompt, "b", sample_index=row["sample_index"])
        facts.write(lake)
        assert ask(scope, pending) == []


def test_translations_of_prompts(tmp_path: Path) -> None:
    facts = random_facts(42, 20)
    have = {(row["parent_id"], row["language"]) for row in facts.prompts}
    wanted = {
        content_id("translation", ["translator", row["prompt_id"], language]): (row, language)
        for row in kept_prompts(facts)
        for language in LANGUAGES
        if row["parent_id"] is None and language != row["language"] and (row["prompt_id"], language) not in have
    }
    given_up, *_ = wanted
    facts.reject("translate_prompts", given_up, settings_id="translator", reason="lost_content")
    del wanted[given_up]
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        scope = Scope.open(lake, CONFIG)
        rows = ask(scope, pending_prompt_translations("translator", LANGUAGES))
        assert len(rows) == len(wanted)
        for row in rows:
            parent, language = wanted[row["prompt_id"]]
            assert row == {
                "prompt_id": row["prompt_id"],
                "parent_id": parent["prompt_id"],
                "source_language": parent["language"],
                "language": language,
            } | {name: parent[name] for name in ("root_id", "messages", "source", "source_row", "split")}
        assert len(ask(scope, pending_prompt_translations("another", LANGUAGES))) == sum(
            len(LANGUAGES) - 1 for row in kept_prompts(facts) if row["parent_id"] is None
        )


def test_translations_of_completions(tmp_path: Path) -> None:
    facts = random_facts(43, 40, translation={"model": "org/translator", "completions_of": ["a", "b"]})
    prompts = {row["prompt_id"]: row for row in facts.prompts}
    have = {row["completion_id"] for row in facts.completions}
    wanted: dict[str, tuple[Row, Row]] = {}
    for answer in true_completions(facts).values():
        if answer["language"] == "en" and answer["origin"] != "translated" and answer["teacher"] in {"a", "b"}:
            for sibling in kept_prompts(facts):
                if sibling["root_id"] == prompts[answer["prompt_id"]]["root_id"] and sibling["language"] != "en":
                    key = content_id("translation", ["translator", answer["completion_id"], sibling["language"]])
                    if key not in have:
                        wanted[key] = (answer, sibling)
    assert wanted
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        scope = Scope.open(lake, CONFIG)
        rows = ask(scope, pending_completion_translations("translator", LANGUAGES, ["a", "b"]))
        assert len(rows) == len(wanted)
        for row in rows:
            answer, sibling = wanted[row["completion_id"]]
            assert row == {
                "completion_id": row["completion_id"],
                "parent_id": answer["completion_id"],
                "prompt_id": sibling["prompt_id"],
                "root_id": sibling["root_id"],
                "source_language": "en",
                "language": sibling["language"],
            } | {
                name: answer[name]
                for name in ("text", "finish_reason", "model", "model_fingerprint", "round", "sample_index")
            }


def test_rewards(tmp_path: Path) -> None:
    facts = random_facts(44, 30)
    messages = {row["prompt_id"]: row["messages"] for row in facts.prompts}
    scored = {row["completion_id"] for row in facts.rewards}
    wanted = {key: row for key, row in true_completions(facts).items() if key not in scored}
    given_up, *_ = wanted
    facts.reject("score", given_up, settings_id="reward-0", reason="prompt_too_long")
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        scope = Scope.open(lake, CONFIG)
        rows = {row["completion_id"]: row for row in ask(scope, pending_rewards("reward-0"))}
        assert rows == {
            key: {name: row[name] for name in ("completion_id", "prompt_id", "language", "text")}
            | {"messages": messages[row["prompt_id"]]}
            for key, row in wanted.items()
            if key != given_up
        }
        assert len(ask(scope, pending_rewards("reward-1"))) == len(true_completions(facts))
        add_rows(
            lake,
            "rewards",
            *({"completion_id": key, "reward_fingerprint": "reward-0", "reward": 0.0} for key in rows),
        )
        assert ask(scope, pending_rewards("reward-0")) == []


def test_nothing_is_pending_without_a_build(tmp_path: Path) -> None:
    with open_lake(tmp_path) as lake:
        random_facts(45, 5).write(lake)
        scope = Scope.open(lake, None)
        assert ask(scope, pending_completions("lane-a", LANGUAGES, 1)) == []
        assert ask(scope, pending_rewards("reward-0")) == []


def test_a_smaller_build_wants_less(tmp_path: Path) -> None:
    recipe = make_recipe(languages=["en", "ar"])
    facts = Facts(recipe)
    source = facts.prompt("p", "en")
    facts.prompt("p", "de", parent=source)
    arabic = facts.prompt("p", "ar", parent=source)
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        scope = Scope.open(lake, CONFIG)
        wanted = {row["prompt_id"] for row in ask(scope, pending_completions("lane-a", LANGUAGES, 1))}
    assert wanted == {source["prompt_id"], arabic["prompt_id"]}
