"""Peak memory of the parent process against the number of prompts: ``python -m tests.benchmarks.memory``.

A stand-in engine answers, so that the factory and not a model is the work. Reading prompts, sampling, and all the rest
(scoring, routing, pairs, audits, export) are processes of their own; each row of the table is one fresh warehouse.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.build.run import execute_build
from schemas.recipe.recipe import load_recipe
from tests.flows.standin import StandInEngines

RECIPE = """
name = "memory"
languages = ["en"]
[[prompts]]
name = "numbers"
path = "prompts.jsonl"
language = "en"
columns = {{ prompt = "q" }}
[prompt_gates]
language = false
near_duplicate_similarity = {similarity}
[[teachers]]
name = "echo"
model = "./model"
[gates]
language = false
[[reward_models]]
name = "judge"
model = "./model"
[warehouse]
catalog = "{folder}/lake/catalog.sqlite"
data = "{folder}/lake/data"
{memory}
[run]
exports = "{folder}/exports"
"""

STEPS = {"read": "read", "sample": "sample", "the rest": "export"}
"""What each process is called, and up to which stage it runs."""


def prepare(folder: Path, num_prompts: int, similarity: float, memory: str | None = None) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    limit = f'memory = "{memory}"' if memory else ""
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder, similarity=similarity, memory=limit))
    with (folder / "prompts.jsonl").open("w") as file:
        for number in range(num_prompts):
            words = " ".join(f"{(number * 2654435761 + place * 40503) % 99991}" for place in range(60))
            file.write(json.dumps({"q": f"Please say {number}: {words}"}) + "\n")


def run(folder: Path, until: str) -> None:
    started = time.monotonic()
    engines = StandInEngines(folder / "log", batch=512, seconds=0.0, max_in_flight=2048)
    execute_build(load_recipe(folder / "recipe.toml"), until=until, quiet=True, open_engine=engines)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_mb": peak_mb, "seconds": time.monotonic() - started}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1_000, 10_000, 50_000, 200_000])
    parser.add_argument("--similarity", type=float, default=0.0, help="of near-duplicates; 0 switches them off")
    parser.add_argument("--memory", help="the recipe's [warehouse] memory, from which DuckDB spills to disk")
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "UNTIL"))
    arguments = parser.parse_args()
    if arguments.run:
        run(Path(arguments.run[0]), arguments.run[1])
        return
    print(f"{'prompts':>9}" + "".join(f" {name + ' MB':>12} {'s':>6}" for name in STEPS), flush=True)
    for num_prompts in arguments.prompts:
        with TemporaryDirectory() as name:
            prepare(Path(name), num_prompts, arguments.similarity, arguments.memory)
            cells = []
            for until in STEPS.values():
                command = [sys.executable, "-m", "tests.benchmarks.memory", "--run", name, until]
                result = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
                cells.append(f" {result['peak_mb']:>12,.0f} {result['seconds']:>6,.1f}")
            print(f"{num_prompts:>9,}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
