"""A build with a policy for the report: the small build, and the rows that steps of training would have added."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from schemas.recipe.recipe import Recipe
from schemas.tables import TABLES
from tests.warehouse.small_build import CONFIG_ID, fill_lake, make_recipe
from warehouse.lake.lake import Lake

STEPS = ("base", "sft", "offline", "online_1", "online_2")
"""The last one is stopped."""

LANGUAGES = ("ar", "en", "hi", "ja", "all")
REASON = "the reward rose by 0.31 while answers grew 2.4 times as long <b>(limit 1.5)</b>"


def fill_report_lake(folder: Path, *, has_policy: bool = True, text: str = "") -> Recipe:
    """Write the build, its pairs' prompts and answers as they are or with ``text`` after each answer."""
    recipe = make_recipe(folder)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, text=text)
        add_usage(lake)
        if has_policy:
            add_policy(lake, folder)
    return recipe


def add_usage(lake: Lake) -> None:
    rows = [
        usage_row("sample", "able", "s-able", 80, 12.5),
        usage_row("sample", "bold", "s-bold", 80, 20.25),
        usage_row("score", "judge", "s-judge", 160, 3.0),
    ]
    append(lake, "usage", rows)
    rejection = {
        "config_id": CONFIG_ID, "row_id": "r", "stage": "gate", "settings_id": "", "reason": "wrong_language",
        "detail": "<script>document.title = 'rejected'</script>", "language": "ar", "model": "bold",
    }  # fmt: skip
    append(lake, "rejections", [rejection])


def usage_row(stage: str, model: str, settings_id: str, number: int, seconds: float) -> dict[str, Any]:
    return {
        "run_id": "run", "stage": stage, "model": model, "settings_id": settings_id, "device": "cpu",
        "num_requests": number, "num_rejected": 0, "num_prompt_tokens": 5 * number,
        "num_completion_tokens": 7 * number, "seconds": seconds, "recorded_at": datetime.now(UTC),
    }  # fmt: skip


def add_policy(lake: Lake, folder: Path, config_id: str = CONFIG_ID) -> None:
    """Add a base, three kept steps and a stopped one; the first was merged of two clusters' models."""
    append(lake, "checkpoints", [
        checkpoint("base-id", "base", [], folder / "base"),
        checkpoint("west", "sft", ["base-id"], write_run(folder / "runs/west", 2.0)),
        checkpoint("east", "sft", ["base-id"], write_run(folder / "runs/east", 2.5)),
        checkpoint("sft-id", "merge", ["west", "east", "base-id"], folder / "merge"),
        checkpoint("offline-id", "preference", ["sft-id"], write_run(folder / "runs/offline", 0.7)),
        checkpoint("online_1-id", "preference", ["offline-id"], folder / "runs/gone/model"),
        checkpoint("online_2-id", "preference", ["online_1-id"], write_run(folder / "runs/online_2", 0.6)),
    ])  # fmt: skip
    steps, scores = [], []
    for place, step in enumerate(STEPS):
        is_kept = step != "online_2"
        steps.append({
            "policy_id": "p" * 32, "step": step, "place": place, "build_id": config_id, "config_id": config_id,
            "export_id": None, "parent_id": f"{STEPS[place - 1]}-id" if place else None, "checkpoint_id": f"{step}-id",
            "settings_id": f"s-{step}", "path": str(folder / step), "is_kept": is_kept, "detail": None if is_kept else REASON, "config": "{}", "metrics": "{}",
            "recorded_at": datetime.now(UTC),
        })  # fmt: skip
        scores += [score(step, place, at, language) for at, language in enumerate(LANGUAGES)]
    append(lake, "steps", steps)
    append(lake, "step_scores", scores)


def score(step: str, place: int, at: int, language: str) -> dict[str, Any]:
    games = 160 if language == "all" else 40
    wins = 4 * (12 + 4 * place) if language == "all" else 12 + 4 * place + 2 * at - 3
    return {
        "policy_id": "p" * 32, "step": step, "language": language, "num_answers": games,
        "reward": 0.2 + 0.4 * place + 0.05 * at, "num_tokens": 40.0 + 6 * place, "num_chars": 180.0 + 25 * place,
        "repetition": 0.02, "lpr": 0.9, "wpr": 0.8 if language in ("ar", "ja", "hi") else None,
                **(against_base(wins, games) if place else {}),
    }  # fmt: skip


def against_base(wins: int, games: int) -> dict[str, Any]:
    rate, ties = wins / games, games // 8
    return {
        "num_wins": wins, "num_losses": games - wins - ties, "num_ties": ties, "win_rate": rate,
        "win_rate_low": rate - 0.06, "win_rate_high": rate + 0.06, "length_controlled": rate + 0.04,
    }  # fmt: skip


def checkpoint(checkpoint_id: str, kind: str, parents: list[str], path: Path) -> dict[str, Any]:
    return {
        "checkpoint_id": checkpoint_id, "kind": kind, "parents": parents, "export_id": None, "path": str(path),
        "config": "{}",
        "metrics": json.dumps({"num_steps": 40, "num_tokens": 12_345, "seconds": 6.5} if kind != "merge" else {}),
        "recorded_at": datetime.now(UTC),
    }  # fmt: skip


def write_run(folder: Path, start: float) -> Path:
    """Write the metrics of a run and return where its model would lie."""
    folder.mkdir(parents=True)
    lines = []
    for step in range(1, 41):
        noise = 0.05 * math.sin(step * start * 5)
        lines.append({
            "step": step, "split": "train", "loss": start * math.exp(-step / 20) + 0.1 + noise,
            "accuracy": min(1.0, 0.5 + step / 90 + noise), "learning_rate": 1e-4 * (1 - step / 40), "grad_norm": 3 + noise,
        })  # fmt: skip
        if step % 10 == 0:
            lines.append({"step": step, "split": "eval", "loss": start * math.exp(-step / 22) + 0.15})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 41, "spl')
    return folder / "model"


def append(lake: Lake, table: str, rows: list[dict[str, Any]]) -> None:
    lake.append(table, pl.DataFrame(rows, schema=TABLES[table].create_empty().schema))
