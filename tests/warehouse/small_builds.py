"""A build in a few rows, for tests of the SQL: facts as plain Python, from which the truth is worked out by loops."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from typing import Any

import polars as pl

from schemas.ids import content_id
from schemas.recipe.recipe import Recipe
from schemas.recipe.settings import WarehouseSettings
from schemas.splits import choose_split
from schemas.tables import TABLES
from warehouse.lake.lake import Lake

Row = dict[str, Any]

CONFIG = "config-a"
TEXTS = {
    "en": "The answer is four.",
    "de": "Die Antwort ist vier, natürlich.",
    "ar": "الجواب هو أربعة",
    "he": "התשובה היא ארבע",
    "ja": "答えは四です。",
    "zh": "答案是四。",
    "zh-Hant": "答案是四,當然。",
    "hi": "उत्तर चार है",
    "vi": "Ca\u0302u tra\u0309 lo\u031b\u0300i la\u0300 bo\u0302\u0301n",
}
"""Answers with right-to-left, CJK and combining marks (the Vietnamese one is decomposed)."""


def open_lake(folder: Path, **changes: Any) -> Lake:
    """Open the lake of a folder."""
    settings = WarehouseSettings(catalog=str(folder / "catalog.sqlite"), data=str(folder / "data"))
    return Lake.open(settings, **changes)


def make_recipe(**sections: Any) -> Recipe:
    """A recipe with teachers a, b and c over the languages of ``TEXTS``; ``sections`` replace its own."""
    recipe = {
        "name": "small",
        "languages": list(TEXTS),
        "prompts": [{"name": "p", "path": "/p.jsonl", "language": "en", "columns": {"prompt": "text"}}],
        "translation": {"model": "org/translator", "completions_of": ["a"]},
        "teachers": [{"name": name, "model": f"org/{name}", "samples": 2} for name in "abc"],
        "reward_models": [{"name": "r0", "model": "org/r0"}],
    }
    return Recipe.model_validate(recipe | sections)


@dataclass
class Facts:
    """The rows of a small warehouse with one build, teachers a, b, c, a translator and ``num_rewards`` reward models."""

    recipe: Recipe = field(default_factory=make_recipe)
    config_id: str = CONFIG
    num_rewards: int = 1
    prompts: list[Row] = field(default_factory=list)
    completions: list[Row] = field(default_factory=list)
    rewards: list[Row] = field(default_factory=list)
    rejections: list[Row] = field(default_factory=list)

    def prompt(self, name: str, language: str, *, parent: Row | None = None, **changes: Any) -> Row:
        """Add a source prompt, or the translation of one."""
        messages = [{"role": "user", "content": f"{name} {language}"}]
        prompt_id = (
            content_id("translation", ["translator", parent["prompt_id"], language])
            if parent
            else content_id("prompt", [language, messages])
        )
        root_id = parent["root_id"] if parent else prompt_id
        row = {
            "prompt_id": prompt_id,
            "language": language,
            "messages": messages,
            "source": "p",
            "source_row": name,
            "parent_id": parent["prompt_id"] if parent else None,
            "root_id": root_id,
            "translator": "org/translator" if parent else None,
            "settings_id": "translator" if parent else None,
            "split": choose_split(root_id, self.recipe.prompts[0].eval_percent),
            "detected_language": None,
            "language_score": None,
            "script_share": None,
        } | changes
        self.prompts.append(row)
        return row

    def completion(
        self, prompt: Row, teacher: str, rewards: tuple[float, ...] | None = None, sample_index: int = 0, **changes: Any
    ) -> Row:
        """Add a teacher's answer to a prompt, scored when ``rewards`` are given, one for each reward model."""
        text = changes.get("text", TEXTS[prompt["language"]])
        row = {
            "completion_id": content_id("completion", [f"lane-{teacher}", prompt["prompt_id"], sample_index]),
            "prompt_id": prompt["prompt_id"],
            "language": prompt["language"],
            "model": f"org/{teacher}",
            "model_fingerprint": f"print-{teacher}",
            "settings_id": f"lane-{teacher}",
            "origin": "in_language",
            "translator": None,
            "parent_id": None,
            "round": 0,
            "sample_index": sample_index,
            "text": text,
            "reasoning": None,
            "finish_reason": "stop",
            "num_prompt_tokens": 3,
            "num_completion_tokens": 5,
            "num_chars": len(text),
            "repetition": 0.0,
            "detected_language": None,
            "language_score": None,
            "script_share": None,
        } | changes
        self.completions.append(row)
        for index, reward in enumerate(rewards or ()):
            self.rewards.append(
                {"completion_id": row["completion_id"], "reward_fingerprint": f"reward-{index}", "reward": reward}
            )
        return row

    def translated(self, parent: Row, prompt: Row, rewards: tuple[float, ...] | None = None, **changes: Any) -> Row:
        """Add the translation of an answer, as an answer to the sibling prompt."""
        return self.completion(
            prompt,
            parent["model"].removeprefix("org/"),
            rewards,
            **{
                "completion_id": content_id("translation", ["translator", parent["completion_id"], prompt["language"]]),
                "settings_id": "translator",
                "origin": "translated",
                "translator": "org/translator",
                "parent_id": parent["completion_id"],
            }
            | changes,
        )

    def reject(self, stage: str, *row_ids: str, reason: str = "wrong_language", settings_id: str = "") -> None:
        """Add verdicts of the build, or with a ``settings_id`` failures of that lane."""
        for row_id in row_ids:
            self.rejections.append(
                {
                    "config_id": "" if settings_id else self.config_id,
                    "row_id": row_id,
                    "stage": stage,
                    "settings_id": settings_id,
                    "reason": reason,
                    "detail": "",
                    "language": None,
                    "model": None,
                }
            )

    def models(self) -> list[Row]:
        languages = list(self.recipe.languages)
        lanes = [("teacher", teacher.name, f"lane-{teacher.name}", teacher.samples) for teacher in self.recipe.teachers]
        lanes += [("translator", "translator", "translator", 1)] if self.recipe.translation else []
        lanes += [("reward", f"r{index}", f"reward-{index}", 1) for index in range(self.num_rewards)]
        return [
            {
                "config_id": self.config_id,
                "role": role,
                "name": name,
                "settings_id": settings_id,
                "model_fingerprint": f"print-{name}",
                "languages": languages,
                "num_samples": num_samples,
                "licence": None,
            }
            for role, name, settings_id, num_samples in lanes
        ]

    def write(self, lake: Lake) -> None:
        """Append everything to a lake; what it has already is left alone."""
        sources = [prompt for prompt in self.prompts if prompt["parent_id"] is None]
        run = {
            "run_id": f"run of {self.config_id}",
            "config_id": self.config_id,
            "name": self.recipe.name,
            "recipe": json.dumps(self.recipe.identity()),
            "status": "finished",
            "detail": None,
            "recorded_at": datetime(2025, 1, 1, tzinfo=UTC),
        }
        rows = {
            "prompts": self.prompts,
            "completions": self.completions,
            "rewards": self.rewards,
            "rejections": self.rejections,
            "build_prompts": [{"config_id": self.config_id, "prompt_id": row["prompt_id"]} for row in sources],
            "build_models": self.models(),
            "builds": [run],
        }
        for table, given in rows.items():
            if given:
                lake.append(table, pl.DataFrame(given, schema=TABLES[table].create_empty().schema))


def add_rows(lake: Lake, table: str, *rows: Row) -> None:
    """Append rows given as dicts."""
    lake.append(table, pl.DataFrame(list(rows), schema=TABLES[table].create_empty().schema))


def random_facts(seed: int, num_prompts: int, *, num_rewards: int = 1, **sections: Any) -> Facts:
    """A random build: several languages, ties, prompts with one answer or none, gated, unscored and foreign rows."""
    random = Random(seed)
    facts = Facts(make_recipe(**sections), num_rewards=num_rewards)
    for index in range(num_prompts):
        source = facts.prompt(f"prompt {index}", "en" if index % 4 else random.choice(list(TEXTS)))
        others = random.sample([code for code in TEXTS if code != source["language"]], random.randrange(3))
        siblings = [facts.prompt(f"prompt {index}", code, parent=source) for code in others]
        english = list(_random_answers(random, facts, source))
        for sibling in siblings:
            list(_random_answers(random, facts, sibling))
            for answer in english:
                if source["language"] == "en" and random.random() < 0.8:
                    facts.translated(answer, sibling, _random_rewards(random, num_rewards))
    facts.reject("prompt_gate", *random.sample([row["prompt_id"] for row in facts.prompts], num_prompts // 20))
    facts.reject("gate", *random.sample([row["completion_id"] for row in facts.completions], num_prompts // 10))
    facts.rewards = [row for row in facts.rewards if random.random() < 0.97]
    return facts


def _random_answers(random: Random, facts: Facts, prompt: Row) -> Iterator[Row]:
    text = TEXTS[prompt["language"]]
    for teacher in ("a", "b", "c", "foreign"):
        for sample_index in range(random.randrange(4)):
            yield facts.completion(
                prompt,
                teacher,
                _random_rewards(random, facts.num_rewards),
                sample_index,
                text=text * random.randrange(1, 5),
                origin="recorded" if teacher == "c" else "in_language",
                round=random.randrange(3),
            )


def _random_rewards(random: Random, num_rewards: int) -> tuple[float, ...]:
    return tuple(random.randrange(-8, 9) / 4 for _ in range(num_rewards))


def true_completions(facts: Facts) -> dict[str, Row]:
    """The kept completions of the build by id, each with the name of its teacher."""
    gated = {row["row_id"] for row in facts.rejections if row["config_id"] == facts.config_id}
    kept_prompts = {
        row["prompt_id"] for row in facts.prompts if row["prompt_id"] not in gated and row["parent_id"] not in gated
    }
    kept = [row for row in facts.completions if row["prompt_id"] in kept_prompts and row["completion_id"] not in gated]
    samples = {f"lane-{teacher.name}": (teacher.name, teacher.samples) for teacher in facts.recipe.teachers}
    answers: dict[str, Row] = {}
    for row in kept:
        name, num_samples = samples.get(row["settings_id"], ("", 0))
        if name and (row["sample_index"] < num_samples or row["origin"] == "recorded"):
            answers[row["completion_id"]] = row | {"teacher": name}
    translation = facts.recipe.translation
    parents = {key: row for key, row in answers.items() if translation and row["teacher"] in translation.completions_of}
    for row in kept:
        if row["settings_id"] == "translator" and row["parent_id"] in parents:
            answers[row["completion_id"]] = row | {"teacher": parents[row["parent_id"]]["teacher"]}
    return answers


def true_candidates(facts: Facts) -> list[Row]:
    """The rows of the ``candidates`` view, worked out one by one."""
    answers = true_completions(facts)
    prompts = {row["prompt_id"]: row for row in facts.prompts}
    rewards: dict[str, dict[str, float]] = {}
    for row in facts.rewards:
        rewards.setdefault(row["completion_id"], {})[row["reward_fingerprint"]] = row["reward"]
    scored = [row for key, row in answers.items() if len(rewards.get(key, {})) == facts.num_rewards]
    pools = by_prompt(scored)
    return [
        row
        | {
            "root_id": prompts[row["prompt_id"]]["root_id"],
            "split": prompts[row["prompt_id"]]["split"],
            "reward": _true_reward(row, pools[row["prompt_id"]], rewards, facts.recipe),
        }
        for row in scored
    ]


def _true_reward(row: Row, pool: list[Row], rewards: dict[str, dict[str, float]], recipe: Recipe) -> float:
    own = rewards[row["completion_id"]]
    if len(own) == 1:
        return next(iter(own.values()))
    parts = []
    for model, reward in own.items():
        others = [rewards[other["completion_id"]][model] for other in pool]
        if recipe.rewards.combine == "mean_rank":
            num_lower, num_equal = sum(other < reward for other in others), sum(other == reward for other in others)
            parts.append(sum(range(num_lower + 1, num_lower + num_equal + 1)) / num_equal)
        else:
            deviation = pstdev(others)
            parts.append((reward - fmean(others)) / deviation if deviation else 0.0)
    return fmean(parts)


def by_prompt(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows grouped by prompt."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row)
    return groups
