"""A small finished build, written straight into the tables: four languages, two teachers, a translator."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from schemas.ids import content_id
from schemas.recipe.recipe import Recipe
from schemas.tables import TABLES
from warehouse.lake.lake import Lake

CONFIG_ID = "c" * 32

QUESTIONS = {
    "en": "What is number {n}?\nSay it in one line.",
    "ar": "ما هو الرقم {n}؟\nقُلْه في سطرٍ واحد.",
    "ja": "番号{n}とは何ですか？\u2028一行で。",
    "hi": "संख्या {n} क्या है?\tक्\u200dष",
}
ANSWERS = {
    "en": 'It is "{n}", a cafe\u0301 \\ bar.',
    "ar": "إنّه «{n}».",
    "ja": "それは{n}です。が\u3099 \U00020bb7野家",
    "hi": "यह {n} है।\nबस।",
}


def make_recipe(folder: Path, **changes: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "small",
            "languages": list(QUESTIONS),
            "prompts": [
                {
                    "name": "numbers",
                    "path": str(folder / "numbers.jsonl"),
                    "columns": {"prompt": "text"},
                    "language": "en",
                    "licence": "CC-BY-4.0",
                }
            ],
            "translation": {"model": "org/translator", "completions_of": ["able"]},
            "teachers": [
                {"name": "able", "model": "org/able", "licence": "apache-2.0"},
                {"name": "bold", "model": "org/bold"},
            ],
            "reward_models": [{"name": "judge", "model": "org/judge"}],
            "pairs": [{"strategy": "best_vs_worst"}, {"strategy": "in_language_vs_translated"}],
            "warehouse": {"catalog": str(folder / "lake/catalog.sqlite"), "data": str(folder / "lake/data")},
            **changes,
        }
    )


def fill_lake(
    lake: Lake, recipe: Recipe, *, num_roots: int = 20, eval_every: int = 5, config_id: str = CONFIG_ID, text: str = ""
) -> None:
    """Write a build of ``num_roots`` English prompts in four languages; every ``eval_every``-th root is held out."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for n in range(num_roots):
        split = "eval" if eval_every and n % eval_every == 0 else "train"
        for language in QUESTIONS:
            _add_prompt(rows, n, language, split, config_id, text)
    for role, name, settings_id in (
        ("teacher", "able", "s-able"),
        ("teacher", "bold", "s-bold"),
        ("translator", "translator", "s-translator"),
        ("reward", "judge", "s-judge"),
    ):
        rows["build_models"].append(
            {
                "config_id": config_id,
                "role": role,
                "name": name,
                "settings_id": settings_id,
                "model_fingerprint": f"f-{name}",
                "languages": list(QUESTIONS),
                "num_samples": 1,
                "licence": None,
            }
        )
    rows["builds"].append(
        {
            "run_id": f"run-{config_id}",
            "config_id": config_id,
            "name": recipe.name,
            "recipe": json.dumps(recipe.identity(), ensure_ascii=False),
            "status": "finished",
            "detail": None,
            "recorded_at": "2030-01-01T00:00:00Z",
        }
    )
    for table, items in rows.items():
        if items:
            lake.append(table, to_frame(table, items))


def to_frame(table: str, items: list[dict[str, Any]]) -> pl.DataFrame:
    """Return rows as a frame of a table; columns that are not given are null."""
    schema = TABLES[table].create_empty().schema
    frame = pl.DataFrame(
        items, schema={name: schema[name] for name in schema if name in items[0] and name != "recorded_at"}
    )
    missing = [
        pl.lit(None, schema[name]).alias(name) for name in schema if name not in frame.columns and name != "recorded_at"
    ]
    if "recorded_at" in schema:
        missing.append(
            pl.lit("2030-01-01T00:00:00Z").str.to_datetime(time_unit="us", time_zone="UTC").alias("recorded_at")
        )
    return frame.with_columns(missing).select(schema.names())


def answer_id(prompt_id: str, *made_by: str) -> str:
    """Return the id of an answer: a hash, as in a real build."""
    return content_id("answer", [prompt_id, *made_by])


def _add_prompt(
    rows: dict[str, list[dict[str, Any]]], n: int, language: str, split: str, config_id: str, text: str
) -> None:
    root_id, prompt_id = f"{n:04d}-en", f"{n:04d}-{language}"
    is_source = language == "en"
    rows["prompts"].append(
        {
            "prompt_id": prompt_id,
            "language": language,
            "messages": [{"role": "user", "content": QUESTIONS[language].format(n=n)}],
            "source": "numbers",
            "source_row": str(n),
            "parent_id": None if is_source else root_id,
            "root_id": root_id,
            "translator": None if is_source else "translator",
            "settings_id": None if is_source else "s-translator",
            "split": split,
        }
    )
    if is_source:
        rows["build_prompts"].append({"config_id": config_id, "prompt_id": prompt_id})
    for teacher in ("able", "bold"):
        _add_completion(rows, prompt_id, language, teacher, f"{ANSWERS[language].format(n=n)} {teacher}{text}", n)
    best, worst = ("able", "bold") if n % 3 else ("bold", "able")
    chosen, rejected = answer_id(prompt_id, best), answer_id(prompt_id, worst)
    rows["selections"].append(
        {"config_id": config_id, "prompt_id": prompt_id, "completion_id": chosen, "router": "reward"}
    )
    _add_pair(rows, config_id, prompt_id, language, "best_vs_worst", chosen, rejected)
    if not is_source:
        _add_completion(rows, prompt_id, language, "able", f"⟨{n}⟩ {language}", n, parent_id=answer_id(root_id, "able"))
        translated = answer_id(prompt_id, "able", "translated")
        _add_pair(rows, config_id, prompt_id, language, "in_language_vs_translated", chosen, translated)


def _add_completion(
    rows: dict[str, list[dict[str, Any]]],
    prompt_id: str,
    language: str,
    teacher: str,
    text: str,
    n: int,
    parent_id: str | None = None,
) -> None:
    completion_id = answer_id(prompt_id, teacher, *(["translated"] if parent_id else []))
    rows["completions"].append(
        {
            "completion_id": completion_id,
            "prompt_id": prompt_id,
            "language": language,
            "model": teacher,
            "model_fingerprint": f"f-{teacher}",
            "settings_id": "s-translator" if parent_id else f"s-{teacher}",
            "origin": "translated" if parent_id else "in_language",
            "translator": "translator" if parent_id else None,
            "parent_id": parent_id,
            "round": 0,
            "sample_index": 0,
            "text": text,
            "finish_reason": "stop",
            "num_prompt_tokens": 5,
            "num_completion_tokens": 7,
            "num_chars": len(text),
            "repetition": 0.0,
            "detected_language": language,
            "language_score": 0.9,
            "script_share": 1.0,
        }
    )
    reward = -1.0 if parent_id else (2.0 if (teacher == "able") == bool(n % 3) else 0.5)
    rows["rewards"].append({"completion_id": completion_id, "reward_fingerprint": "s-judge", "reward": reward})


def _add_pair(
    rows: dict[str, list[dict[str, Any]]],
    config_id: str,
    prompt_id: str,
    language: str,
    strategy: str,
    chosen_id: str,
    rejected_id: str,
) -> None:
    rows["pairs"].append(
        {
            "config_id": config_id,
            "pair_id": content_id("pair", [config_id, strategy, prompt_id]),
            "prompt_id": prompt_id,
            "language": language,
            "strategy": strategy,
            "chosen_id": chosen_id,
            "rejected_id": rejected_id,
            "margin": 1.5 if strategy == "best_vs_worst" else 3.0,
            "round": 0,
        }
    )
