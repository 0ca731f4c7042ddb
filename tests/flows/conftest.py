import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEACHERS = ("north", "south")
LANGUAGES = ("en", "fr", "ar", "ja")

WORDS = [
    "river",
    "stone",
    "lamp",
    "copper",
    "violin",
    "garden",
    "winter",
    "pepper",
    "anchor",
    "ribbon",
    "falcon",
    "marble",
]


def write_prompts(path: Path, count: int, *, start: int = 0) -> None:
    """Write prompts that are not near-duplicates of one another, and one that is refused."""
    lines = []
    for number in range(start, start + count):
        first, second = WORDS[number % len(WORDS)], WORDS[(number // len(WORDS)) % len(WORDS)]
        lines.append(json.dumps({"id": f"row-{number}", "q": f"Tell me about the {first} and the {second}"}))
    lines.append(json.dumps({"id": "refused", "q": ""}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write a small recipe whose models are empty folders: stand-ins answer for them."""

    def write(
        *,
        name: str = "small",
        languages: tuple[str, ...] = LANGUAGES,
        teachers: tuple[str, ...] = TEACHERS,
        extra: str = "",
        commit_rows: int = 500,
    ) -> Path:
        for model in (*teachers, "translator", "reward"):
            folder = tmp_path / "models" / model
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text(json.dumps({"name": model}), encoding="utf-8")
        if not (tmp_path / "prompts.jsonl").exists():
            write_prompts(tmp_path / "prompts.jsonl", 40)
        pool = "".join(f'[[teachers]]\nname = "{teacher}"\nmodel = "./models/{teacher}"\n' for teacher in teachers)
        text = f"""
name = "{name}"
languages = {json.dumps(languages)}
pairs = [{{ strategy = "best_vs_worst" }}, {{ strategy = "in_language_vs_translated", against_reward = true }}]
[[prompts]]
name = "questions"
path = "prompts.jsonl"
language = "en"
columns = {{ prompt = "q", id = "id" }}
[prompt_gates]
language = false
near_duplicate_similarity = 0
[translation]
model = "./models/translator"
completions_of = ["{teachers[0]}"]
{pool}
[gates]
language = false
[[reward_models]]
name = "judge"
model = "./models/reward"
[warehouse]
catalog = "{tmp_path}/lake/catalog.sqlite"
data = "{tmp_path}/lake/data"
[run]
exports = "{tmp_path}/exports"
commit_rows = {commit_rows}
commit_seconds = 0.5
{extra}
"""
        path = tmp_path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def ids() -> Callable[[Any], dict[str, set[Any]]]:
    """Return the ids of every table of a lake."""

    def read(lake: Any) -> dict[str, set[Any]]:
        columns = {
            "prompts": "prompt_id",
            "completions": "completion_id",
            "rewards": "completion_id || reward_fingerprint",
            "rejections": "config_id || row_id || stage || reason",
            "selections": "config_id || prompt_id || completion_id",
            "pairs": "pair_id",
        }
        found = {}
        for table, column in columns.items():
            values = lake.query(f"SELECT {column} AS id FROM {table}")["id"].to_list()
            assert len(values) == len(set(values)), f"{table} holds something twice"
            found[table] = set(values)
        return found

    return read
