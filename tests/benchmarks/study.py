"""Does each step of the recipe earn its place? Five seeds of sampling and students on the microworld, whose truth is known.

    make study                       # or: python -m tests.benchmarks.study build/study --seeds 5 --jobs 2

Of each seed the shipped microworld recipe is run in a warehouse of its own, fewer prompts of it: teachers sample, and
the base goes through SFT on routed answers in two clusters, offline pairs, and three online rounds, merging every time.
Beside it stand students of other routers, of other pair strategies, and other merges of the same models. What is
measured is the mean true quality of answers at temperature 0.7 to questions that no model has seen, and for the
staircase the win rate against the base that the factory itself found, its reward model being the judge. Finished parts
are kept: the same command goes on after a stop. Learning rates and betas were chosen on seed 0, which is not part of it. ``study_report`` makes the tables and the figure.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from statistics import fmean

os.environ.setdefault("OMP_NUM_THREADS", "1")


from factory.microworld.chat_models import complete
from factory.microworld.questions import Question, questions
from factory.microworld.truth import grade
from factory.training.identity import identify_run
from factory.training.trainer import train
from flows.build.build_run import BuildSummary
from flows.build.run import execute_build
from flows.models.merge import merge_once
from flows.policy.policy import PolicySummary, train_policy
from flows.policy.step_records import StepOutcome
from schemas.disk import write_text
from schemas.languages import CORE_LANGUAGES
from schemas.recipe.merging import MergeSettings
from schemas.recipe.policy import Policy, StepMerge
from schemas.recipe.recipe import Recipe, load_recipe
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake

NUM_PROMPTS = 75
EVAL_PERCENT = 20.0
NUM_QUESTIONS = 20
TEMPERATURE = 0.7

ROUTERS = {
    "best single teacher": """
        SELECT completion_id FROM kept WHERE teacher =
            (SELECT teacher FROM kept GROUP BY teacher ORDER BY avg(reward) DESC LIMIT 1)
        QUALIFY row_number() OVER (PARTITION BY prompt_id ORDER BY completion_id) = 1""",
    "fixed per language": """
        SELECT completion_id FROM kept JOIN (
            SELECT language, arg_max(teacher, mean) AS teacher
            FROM (SELECT language, teacher, avg(reward) AS mean FROM kept GROUP BY ALL) GROUP BY language
        ) USING (language, teacher)
        QUALIFY row_number() OVER (PARTITION BY prompt_id ORDER BY completion_id) = 1""",
    "random": """
        SELECT completion_id FROM kept
        QUALIFY row_number() OVER (PARTITION BY prompt_id ORDER BY hash(completion_id, $seed)) = 1""",
    "translation only": """
        WITH english AS (
            SELECT completion_id FROM kept WHERE language = 'en'
            QUALIFY row_number() OVER (PARTITION BY prompt_id ORDER BY reward DESC, completion_id) = 1
        )
        SELECT completion_id FROM english
        UNION ALL
        SELECT candidates.completion_id FROM candidates
        JOIN english ON english.completion_id = candidates.parent_id
        WHERE origin = 'translated' AND split = 'train'""",
    "all completions": """
        SELECT completion_id FROM (
            SELECT completion_id, row_number() OVER (ORDER BY hash(prompt_id, $seed), completion_id) AS place FROM kept
        ) WHERE place <= (SELECT count(DISTINCT prompt_id) FROM kept)""",
}
"""Which answers a student learns from, one SELECT each over ``kept``: the candidates of training prompts, in language."""

PAIRS = ("in_language_vs_translated", "best_vs_mean_minus_2sd", "strong_vs_weak")
MERGES = {
    "slerp": {"method": "slerp"},
    "ties": {"method": "ties", "density": 0.5},
    "dare_linear": {"method": "dare_linear", "density": 0.5, "normalize": True},
    "dare_ties": {"method": "dare_ties", "density": 0.5, "normalize": True},
}


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed's recipe and place."""

    number: int
    folder: Path
    recipe: Recipe

    @property
    def policy(self) -> Policy:
        assert self.recipe.policy is not None
        return self.recipe.policy

    def keep(self, part: str, arm: str, measure: Callable[[], dict[str, float]]) -> None:
        """Measure an arm of a part of the study, unless that is done."""
        path = self.folder / "results" / part / f"{arm}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(measure())
            write_text(path, text)
            print(f"seed {self.number} · {part} · {arm}: {text}", flush=True)


def run_seed(number: int, folder: Path) -> None:
    """Do one seed's share of the study, or what is left of it."""
    folder.mkdir(parents=True, exist_ok=True)
    seed = Seed(number, folder, make_recipe(number, folder))
    build = execute_build(seed.recipe, quiet=True)
    policy = train_policy(seed.recipe, build, quiet=True)
    _climb(seed, policy)
    _route(seed, build)
    _pair(seed, policy, build)
    _merge(seed, policy)


def make_recipe(number: int, folder: Path) -> Recipe:
    """Return the microworld's recipe with one seed for its teachers' sampling, its students and their sampling."""
    with as_file(files("flows") / "recipes" / "microworld.toml") as path:
        recipe = load_recipe(path)
    assert recipe.policy is not None
    assert recipe.translation is not None
    # Of vLLM as a whole: a seed for every request costs it twenty times the time on a CPU.
    seeded = {"engine_args": {"seed": number}}
    teachers = tuple(teacher.model_copy(update=seeded) for teacher in recipe.teachers)
    policy = recipe.policy
    steps = [step.model_copy(update={"train": step.train.model_copy(update={"seed": number})}) for step in policy.steps]
    policy = policy.model_copy(update={"steps": tuple(steps)} | seeded)
    source = recipe.prompts[0].model_copy(update={"limit": NUM_PROMPTS, "eval_percent": EVAL_PERCENT})
    translated = tuple(teacher.name for teacher in teachers)
    places = {"catalog": str(folder / "lake/catalog.sqlite"), "data": str(folder / "lake/data")}
    return recipe.model_copy(
        update={
            "prompts": (source,),
            "teachers": teachers,
            "translation": recipe.translation.model_copy(update={"completions_of": translated}),
            "policy": policy,
            "warehouse": recipe.warehouse.model_copy(update=places),
            "run": recipe.run.model_copy(
                update={"exports": str(folder / "exports"), "models": str(folder / "models"), "overlap": "wait"}
            ),
        }
    )


def measure_quality(model: str, seed: int, languages: tuple[str, ...] = ()) -> dict[str, float]:
    """Return the mean true quality of a model's answers to unseen questions, by language."""
    asked = list(_unseen(languages))
    answers = complete(Path(model), [question.text for question in asked], TEMPERATURE, seed)
    grades: dict[str, list[float]] = {}
    for question, answer in zip(asked, answers, strict=True):
        grades.setdefault(question.language, []).append(grade(question.fact, question.language, answer))
    return {language: fmean(values) for language, values in grades.items()}


def _unseen(languages: tuple[str, ...]) -> Iterator[Question]:
    for language in languages or CORE_LANGUAGES:
        yield from [question for question in questions(language) if question.split == "eval"][:NUM_QUESTIONS]


def _climb(seed: Seed, policy: PolicySummary) -> None:
    """Measure every step of the policy, and for those before the rounds the clusters' own models before the merge."""
    for place, outcome in enumerate(policy.steps):
        seed.keep("staircase", f"{place} {outcome.step}", partial(_measure_stand, outcome, seed.number))
    for outcome in policy.steps[1:3]:
        seed.keep("staircase", f"{outcome.step} unmerged", partial(_measure_clusters, seed, outcome.checkpoint_id))


def _measure_stand(outcome: StepOutcome, seed: int) -> dict[str, float]:
    found = _summarize(measure_quality(outcome.model, seed)) | {"is_kept": float(outcome.is_kept)}
    figures = ("win_rate", "num_tokens", "reward")
    return found | {name: outcome.scores[name] for name in figures if outcome.scores.get(name) is not None}


def _measure_clusters(seed: Seed, merged: str) -> dict[str, float]:
    """Return the quality of the models that were merged, each in its own languages; shared ones count for all of them."""
    found: dict[str, list[float]] = {}
    for path, languages in find_clusters(seed, merged):
        for language, value in measure_quality(path, seed.number, languages).items():
            found.setdefault(language, []).append(value)
    return _summarize({language: fmean(values) for language, values in found.items()})


def find_clusters(seed: Seed, merged: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the folder and the languages of each model that a merge was made of."""
    with Lake.open(seed.recipe.warehouse, read_only=True) as lake:
        rows = lake.query(
            """
            SELECT path, (config::JSON -> '$."settings.languages"')::VARCHAR[] AS languages FROM checkpoints
            WHERE list_contains((SELECT parents FROM checkpoints WHERE checkpoint_id = ?), checkpoint_id) ORDER BY path
            """,
            [merged],
        )
    return [(path, tuple(languages)) for path, languages in rows.iter_rows()]


def _route(seed: Seed, build: BuildSummary) -> None:
    """Measure students of other routers; the recipe's own is the staircase's SFT."""
    for router, select in ROUTERS.items():
        seed.keep("routing", router, partial(_teach, seed, build, router, select))


def _teach(seed: Seed, build: BuildSummary, router: str, select: str) -> dict[str, float]:
    data = seed.folder / "routed" / f"{router}.parquet"
    data.parent.mkdir(exist_ok=True)
    with Lake.open(seed.recipe.warehouse, read_only=True) as lake:
        scope = Scope.open(lake, build.config_id)
        kept = "SELECT * FROM candidates WHERE split = 'train' AND origin <> 'translated'"
        rows = scope.query(
            f"""
            WITH kept AS ({kept}), chosen AS ({select.replace("$seed", str(seed.number))})
            SELECT completions.language, prompts.messages || [{{'role': 'assistant', 'content': text}}] AS messages
            FROM chosen JOIN completions USING (completion_id) JOIN prompts USING (prompt_id) ORDER BY completion_id
            """
        )
    rows.write_parquet(data)
    model = _train_and_merge(seed, seed.policy.steps[0].name, f"route {router}", seed.policy.base, str(data))
    return _summarize(measure_quality(model, seed.number)) | {"num_rows": rows.height}


def _pair(seed: Seed, policy: PolicySummary, build: BuildSummary) -> None:
    """Measure other pair strategies after the same SFT; the recipe's own is the staircase's offline step."""
    assert build.export_path is not None
    for strategy in PAIRS:
        seed.keep("pairs", strategy, partial(_prefer, seed, policy.steps[1].model, build.export_path, strategy))


def _prefer(seed: Seed, start: str, export: str, strategy: str) -> dict[str, float]:
    model = _train_and_merge(seed, "offline", f"pair {strategy}", start, export, strategies=(strategy,))
    return _summarize(measure_quality(model, seed.number))


def _merge(seed: Seed, policy: PolicySummary) -> None:
    """Measure other merges of the SFT's models; the recipe's own is the staircase's."""
    models = {f"model {at}": path for at, (path, _) in enumerate(find_clusters(seed, policy.steps[1].checkpoint_id))}
    for name, fields in MERGES.items():
        merge = StepMerge.model_validate(fields).settings(models, seed.policy.base)
        seed.keep("merging", name, partial(_measure_merge, seed, merge, f"merge-{name}"))


def _measure_merge(seed: Seed, merge: MergeSettings, label: str) -> dict[str, float]:
    model, _ = merge_once(merge, seed.folder / "models", label, seed.recipe.warehouse, quiet=True)
    return _summarize(measure_quality(model, seed.number))


def _train_and_merge(seed: Seed, step: str, label: str, start: str, data: str, **settled: object) -> str:
    """Do what a step of the policy does, with other data; return the merged model's folder."""
    policy = seed.policy
    chosen = next(each for each in policy.steps if each.name == step)
    models = {}
    for cluster, languages in policy.clusters_of(chosen).items():
        settings = chosen.train.settings(model=start, data=data, languages=languages, **settled)
        output = seed.folder / "models" / f"{label}-{cluster}-{identify_run(settings).id[:8]}"
        models[cluster] = str(train(settings, output, quiet=True).model)
    merge = policy.merge_of(chosen).settings(models, start)
    return merge_once(merge, seed.folder / "models", label, seed.recipe.warehouse, quiet=True)[0]


def _summarize(by_language: dict[str, float]) -> dict[str, float]:
    return {"quality": fmean(by_language.values())}


def run_study(folder: Path, *, seeds: int, jobs: int) -> None:
    """Run the seeds, ``jobs`` of them side by side, each in a process of its own.

    Raises:
        SystemExit: a seed failed; the others were finished first.
    """

    def run(number: int) -> int:
        command = [sys.executable, "-m", "tests.benchmarks.study", str(folder), "--seed", str(number)]
        return subprocess.run(command, check=False).returncode

    with ThreadPoolExecutor(jobs) as pool:
        failed = [
            number for number, code in zip(range(1, seeds + 1), pool.map(run, range(1, seeds + 1)), strict=True) if code
        ]
    if failed:
        raise SystemExit(f"seeds {failed} did not finish; the same command goes on with them")


def main() -> None:
    """Run the study, or one seed of it, and print its tables."""
    parser = argparse.ArgumentParser(description="Five seeds of the whole recipe on the microworld.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/study"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="seeds that run side by side")
    parser.add_argument("--seed", type=int, help="only this seed, without tables")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        run_seed(arguments.seed, arguments.folder.resolve() / f"seed-{arguments.seed}")
        return
    run_study(arguments.folder.resolve(), seeds=arguments.seeds, jobs=arguments.jobs)
    from tests.benchmarks.study_report import print_report

    print_report(arguments.folder)


if __name__ == "__main__":
    main()
