"""A small build on recorded answers alone, with a stand-in for its reward model, whose commands are tested and measured."""

import json
from pathlib import Path

from tests.flows.conftest import WORDS

RECIPE = """
name = "recorded"
languages = ["en"]
pairs = [{ strategy = "best_vs_worst" }]
[[prompts]]
name = "questions"
path = "questions.jsonl"
language = "en"
columns = { prompt = "q", id = "id" }
[prompt_gates]
language = false
near_duplicate_similarity = 0
[[teachers]]
name = "archive"
engine = "recorded"
[teachers.recorded]
path = "answers.jsonl"
columns = { text = "a", key = "id" }
[gates]
language = false
min_chars = 0
[[reward_models]]
name = "judge"
model = "./reward"
"""


def write_recorded(folder: Path, num_prompts: int = 40) -> Path:
    """Write the recipe with its prompts, three answers to each, and an empty reward model; return its path."""
    (folder / "reward").mkdir(parents=True)
    (folder / "reward" / "config.json").write_text("{}", encoding="utf-8")
    topics = [f"the {WORDS[n % 12]} and the {WORDS[n // 12 % 12]}" for n in range(num_prompts)]
    questions = [{"id": f"row-{n}", "q": f"Tell me about {topic}"} for n, topic in enumerate(topics)]
    answers = [
        {"id": f"row-{n}", "a": f"Answer {number} says much of {topic}" + ", and more of it" * number}
        for n, topic in enumerate(topics)
        for number in range(3)
    ]
    for name, rows in (("questions", questions), ("answers", answers)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    path = folder / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path
