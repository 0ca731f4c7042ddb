"""Scoring through the factory's engine against bare vLLM (``LLM.encode`` for raw logits): rewards per second.

``python tests/benchmarks/scoring.py [--model FOLDER] [--completions 512] [--pairs 5]``
"""

import argparse
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from factory.engines.base import Engine, Message, Request
from factory.engines.open import open_engine
from schemas.recipe import ModelRun, RewardModel
from tests.benchmarks.side_by_side import Bare, Side, compare, engine_pid, make_model, serve_bare, set_environment


def make_turns(number: int, num_completions: int) -> list[str]:
    """Prompts and completions as JSON; four completions of 100 to 400 characters for each prompt of 80."""
    rng = random.Random(number)
    prompts = ["".join(rng.choices("abcdefgh ", k=80)) for _ in range(-(-num_completions // 4))]
    completions = ["".join(rng.choices("abcdefgh ", k=rng.randint(100, 400))) for _ in range(num_completions)]
    return [json.dumps([prompts[at // 4], completion]) for at, completion in enumerate(completions)]


def make_chat(turn: str) -> tuple[Message, Message]:
    prompt, completion = json.loads(turn)
    return Message(role="user", content=prompt), Message(role="assistant", content=completion)


def score(engine: Engine, turns: list[str]) -> int:
    requests = (Request(str(at), make_chat(turn)) for at, turn in enumerate(turns))
    return sum(reply.score is not None for reply in engine.stream(requests))


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
        texts = tokenizer.apply_chat_template([list(make_chat(turn)) for turn in turns], tokenize=False)
        options = {"add_special_tokens": False}
        return len(llm.encode(texts, params, pooling_task="classify", use_tqdm=False, tokenization_kwargs=options))

    serve_bare(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    parser.add_argument("--model", help="a reward model's folder; none: a random Llama is made")
    parser.add_argument("--completions", type=int, default=512)
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
    with Bare(__file__, settings) as bare, open_engine(model, "score") as engine:
        compare(
            "scoring",
            "rewards",
            Side(lambda number: bare.run(make_turns(number, options.completions)), lambda: bare.pid),
            Side(lambda number: score(engine, make_turns(number, options.completions)), lambda: engine_pid(engine)),
            options.pairs,
        )
    if options.model is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
