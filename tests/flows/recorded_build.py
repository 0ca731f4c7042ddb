"""A small build on recorded answers alone, with a stand-in for its reward model, whose commands are tested and measured."""

import json
from pathlib import Path
from typing import Any

from tests.factory.engines.scripted_server import Call, ScriptedServer
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
"""


def serve_reward() -> ScriptedServer:
    """Return a server of a reward model that likes long answers."""

    async def answer(call: Call) -> Any:
        if call.body["use_activation"] == "?":
            return 400, {"error": {"message": "use_activation must be a boolean"}}
        return {"data": [{"probs": [float(len(call.text))]}], "usage": {"prompt_tokens": 3}}

    return ScriptedServer(answer)


def write_recorded(folder: Path, num_prompts: int = 40, *, url: str | None = None) -> Path:
    """Write the recipe with its prompts and three answers to each; return its path.

    The reward model is an empty one in a folder, or on the server at a URL.
    """
    if url is None:
        (folder / "reward").mkdir(parents=True)
        (folder / "reward" / "config.json").write_text("{}", encoding="utf-8")
    reward = (
        'model = "./reward"' if url is None else f'engine = "openai"\nmodel = "judge"\nrun = {{ urls = ["{url}"] }}'
    )
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
    path.write_text(f"{RECIPE}{reward}\n", encoding="utf-8")
    return path
