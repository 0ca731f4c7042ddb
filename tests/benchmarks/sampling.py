"""Sampling through a lane of the factory, rows committed, against bare ``vllm.LLM.generate`` on the same prompts.

Ours reads pending prompts from a warehouse, detects the language of every completion and commits the rows; bare vLLM
only generates. ``python tests/benchmarks/sampling.py [--model FOLDER] [--prompts 384] [--max-tokens 64] [--pairs 5]``
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
from factory.stages.sampling import Sampler
from factory.texts.langid import LanguageDetector
from schemas.recipe.models import ModelRun, Sampling, Teacher
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

TEMPERATURE = 0.7


def make_prompts(number: int, num_prompts: int) -> list[str]:
    """Prompts of 40 to 160 characters, new ones in each round, so that no round finds its own prefixes cached."""
    rng = random.Random(number)
    return ["".join(rng.choices("abcdefgh ", k=rng.randint(40, 160))) for _ in range(num_prompts)]


def sample(lake: Lake, engine: Engine, number: int) -> int:
    sampler = Sampler(LANE, detect=LanguageDetector().detect)
    pending = f"SELECT *, prompt_id AS completion_id, 0 AS sample_index FROM prompts WHERE source = '{number}'"
    return sum(reply.num_completion_tokens for reply in run_lane(lake, engine, "completions", sampler, pending))


def run_bare(settings: dict[str, Any]) -> None:
    set_environment()
    from vllm import LLM, SamplingParams
    from vllm.platforms import current_platform

    llm = LLM(settings["model"], max_model_len=settings["max_model_len"], enforce_eager=current_platform.is_cpu())
    tokenizer = llm.get_tokenizer()
    params = SamplingParams(temperature=TEMPERATURE, max_tokens=settings["max_tokens"])

    def run(prompts: list[str]) -> int:
        # Several, which vLLM takes and its type leaves out.
        chats: Any = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        outputs = llm.generate(texts, params, use_tqdm=False, tokenization_kwargs={"add_special_tokens": False})
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    serve_bare(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    parser.add_argument("--model", help="a model folder; none: a random Llama is made")
    parser.add_argument("--prompts", type=int, default=384)
    parser.add_argument("--max-tokens", type=int, default=64)
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
    folder = options.model or str(make_model("generator", options.hidden_size, options.layers))
    teacher = Teacher(
        name="benchmark",
        model=folder,
        sampling=Sampling(temperature=TEMPERATURE, max_tokens=options.max_tokens),
        run=ModelRun(max_model_len=options.max_model_len, max_in_flight=options.in_flight),
    )
    settings = {"model": folder, "max_tokens": options.max_tokens, "max_model_len": options.max_model_len}
    rounds = {number: make_prompts(number, options.prompts) for number in range(-1, options.pairs)}
    chats = {number: [[{"role": "user", "content": text}] for text in texts] for number, texts in rounds.items()}
    with (
        tempfile.TemporaryDirectory() as warehouse,
        open_lake(Path(warehouse), chats) as lake,
        Bare(__file__, settings) as bare,
        open_engine(teacher, "generate") as engine,
    ):
        compare(
            "sampling",
            "tokens",
            Side(lambda number: bare.run(rounds[number]), lambda: bare.pid),
            Side(lambda number: sample(lake, engine, number), lambda: engine_pid(engine)),
            options.pairs,
        )
        stored = lake.query("SELECT (SELECT count(*) FROM completions), (SELECT count(*) FROM rejections)").row(0)
        print(f"stored: {stored[0]} completions and {stored[1]} rejections of {options.prompts * (options.pairs + 1)}")
        assert sum(stored) == options.prompts * (options.pairs + 1)
    if options.model is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
