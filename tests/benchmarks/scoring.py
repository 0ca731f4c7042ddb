"""Scoring through a lane of the factory, rows committed, against bare vLLM (``LLM.encode`` for raw logits).

``python tests/benchmarks/scoring.py [--model FOLDER] [--completions 128] [--pairs 5]``
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from factory.engines.base import Engine
from factory.engines.open import open_engine
from factory.stages.scoring import Scorer
from schemas.recipe.models import ModelRun, RewardModel
from tests.benchmarks.side_by_side import (
    LANE,
    Bare,
    Side,
    compare,
    engine_pid,
    make_model,
    open_lake,
    run_lane,
    serve_bare,
    set_environment,
)
from warehouse.lake.lake import Lake


def make_turns(number: int, num_completions: int) -> list[str]:
    """Prompts and completions as JSON; four completions of 100 to 400 characters for each prompt of 80."""
    rng = random.Random(number)
    prompts = ["".join(rng.choices("abcdefgh ", k=80)) for _ in range(-(-num_completions // 4))]
    completions = ["".join(rng.choices("abcdefgh ", k=rng.randint(100, 400))) for _ in range(num_completions)]
    return [json.dumps([prompts[at // 4], completion]) for at, completion in enumerate(completions)]


def make_chat(turn: str) -> list[dict[str, str]]:
    prompt, completion = json.loads(turn)
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def score(lake: Lake, engine: Engine, number: int) -> int:
    pending = f"""
        SELECT prompt_id AS completion_id, language, messages[:1] AS messages, messages[2].content AS text
        FROM prompts WHERE source = '{number}'"""
    return len(run_lane(lake, engine, "rewards", Scorer(LANE), pending))


def run_bare(settings: dict[str, Any]) -> None:
    set_environment()
    from vllm import LLM, PoolingParams
    from vllm.platforms import current_platform

    llm = LLM(
        settings["model"],
        runner="pooling",
        max_model_len=settings["max_model_len"],
        enforce_eager=current_platform.is_cpu(),
    )
    tokenizer = llm.get_tokenizer()
    params = PoolingParams(task="classify", use_activation=False)

    def run(turns: list[str]) -> int:
        texts = tokenizer.apply_chat_template([make_chat(turn) for turn in turns], tokenize=False)
        options = {"add_special_tokens": False}
        return len(llm.encode(texts, params, pooling_task="classify", use_tqdm=False, tokenization_kwargs=options))

    serve_bare(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    parser.add_argument("--model", help="a reward model's folder; none: a random Llama is made")
    parser.add_argument("--completions", type=int, default=128)
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--in-flight", type=int, default=2048)
    options = parser.parse_args()
    if options.bare:
        run_bare(json.loads(options.bare))
        return
    set_environment()
    folder = options.model or str(make_model("reward", options.hidden_size, options.layers))
    run = ModelRun(max_model_len=options.max_model_len, max_in_flight=options.in_flight)
    model = RewardModel(name="benchmark", model=folder, run=run)
    settings = {"model": folder, "max_model_len": options.max_model_len}
    rounds = {number: make_turns(number, options.completions) for number in range(-1, options.pairs)}
    chats = {number: [make_chat(turn) for turn in turns] for number, turns in rounds.items()}
    with (
        tempfile.TemporaryDirectory() as warehouse,
        open_lake(Path(warehouse), chats) as lake,
        Bare(__file__, settings) as bare,
        open_engine(model, "score") as engine,
    ):
        compare(
            "scoring",
            "rewards",
            Side(lambda number: bare.run(rounds[number]), lambda: bare.pid),
            Side(lambda number: score(lake, engine, number), lambda: engine_pid(engine)),
            options.pairs,
        )
        assert lake.query("SELECT count(*) FROM rewards").item() == options.completions * (options.pairs + 1)
    if options.model is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
