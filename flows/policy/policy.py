"""From a base model, step by step, to the policy that is kept: what a recipe's ``[policy]`` asks for.

A round of an on-policy step is a build of its own, in which the latest policy stands where the teachers stood.
"""

from dataclasses import dataclass
from functools import partial

import polars as pl

from factory.engines.fingerprint import fingerprint_model
from factory.engines.open import open_engine
from factory.training.data.reading import read_export_id
from flows.build.build_run import BuildSummary
from flows.build.run import run_build
from flows.evaluation.evaluate import resolve_judge
from flows.held_out import choose_judge
from flows.identity import identify_asked, identify_name
from flows.lanes.context import OpenEngine, RunContext, open_context
from flows.lanes.side_by_side import Together, run_in_order
from flows.policy.reward_hacking import won
from flows.policy.step import PolicyRun, Source, do_step
from flows.policy.step_records import StepOutcome, find_outcome
from flows.terminal import show_interval
from schemas.errors import NothingToExportError
from schemas.ids import content_id
from schemas.names import BASE
from schemas.recipe.curation import Export, Routing
from schemas.recipe.models import Model, Teacher
from schemas.recipe.policy import OnPolicy, Step
from schemas.recipe.recipe import Recipe
from schemas.toml.section import identify


@dataclass(frozen=True, slots=True)
class PolicySummary:
    """What came of a policy: every step in order, the base first, and the one that is kept in the end."""

    policy_id: str
    steps: tuple[StepOutcome, ...]
    kept: StepOutcome

    def table(self) -> pl.DataFrame:
        """Return a row per step: its games against the base, its mean reward and length, and what became of it.

        The win rate is the mean of the languages; which step is kept is decided by the games with ties as half a win.
        """
        return pl.DataFrame([_describe(outcome, is_policy=outcome == self.kept) for outcome in self.steps])


def _describe(outcome: StepOutcome, *, is_policy: bool) -> dict[str, object]:
    scores = outcome.scores
    has_played = scores.get("win_rate") is not None
    return {
        "step": outcome.step,
        "win rate": show_interval(*(scores[f"win_rate{end}"] for end in ("", "_low", "_high"))) if has_played else "",
        "ties as half": f"{won(scores):.1%}" if has_played else "",
        "won/lost/tied": "{num_wins}/{num_losses}/{num_ties}".format(**scores) if has_played else "",
        "reward": scores.get("reward"),
        "tokens": None if scores.get("num_tokens") is None else round(scores["num_tokens"], 1),
        "state": "policy" if is_policy else "" if outcome.is_kept else "stopped",
    }


def train_policy(
    recipe: Recipe,
    build: BuildSummary,
    *,
    until: str | None = None,
    quiet: bool = False,
    together: Together = run_in_order,
    open_engine: OpenEngine = open_engine,
) -> PolicySummary:
    """Open the warehouse of a recipe and take its policy through its steps; see ``run_policy``."""
    with open_context(recipe.warehouse, recipe.run, quiet=quiet, together=together, open_engine=open_engine) as context:
        return run_policy(context, recipe, build, until=until)


def run_policy(context: RunContext, recipe: Recipe, build: BuildSummary, *, until: str | None = None) -> PolicySummary:
    """Take the recipe's policy through its steps, up to the one that ``until`` names, or go on with them.

    Raises:
        FactoryError: whatever the user can mend; BuildStoppedError after Ctrl-C or SIGTERM.
    """
    assert recipe.policy is not None
    policy = recipe.policy
    base = fingerprint_model(Model(model=policy.base))
    source = Source.of(build)
    policy_id = identify_policy(recipe, source)
    run = PolicyRun(context, recipe, policy, policy_id, source)
    context.say(f"policy {recipe.name} ({policy_id[:8]}) · {', '.join(step.name for step in policy.steps)}")
    kept = StepOutcome(BASE, policy.base, base, {})
    outcomes = [kept]
    for step in policy.steps:
        if step.on_policy:
            done = _do_rounds(run, step, kept, len(outcomes), build.limit)
            kept = _find_best(kept, done)
        else:
            kept = do_step(run, step, kept, len(outcomes), lambda: run.build)
            done = [kept]
        outcomes += done
        if step.name == until:
            break
    outcomes[0] = find_outcome(context.lake, policy_id, BASE, run.folder) or outcomes[0]
    context.say(f"  kept: {kept.step} · {kept.model}")
    return PolicySummary(policy_id, tuple(outcomes), kept)


def identify_policy(recipe: Recipe, build: Source) -> str:
    """Derive the policy's id from the export of its build, its base, its judge and its settings.

    Models and files go in by their content. In ids from before that was so, folders and ``train.run`` took part; such
    a policy gets another id, under which its steps are found as they are: nothing is trained, asked or judged again.
    """
    policy = recipe.policy
    assert policy is not None
    _, judge = resolve_judge(choose_judge(recipe), recipe.languages)
    settings = identify(policy, content=identify_name, stand_in=identify_asked)
    return content_id("policy", [build.config_id, read_export_id(build.export_path), judge, settings])


def _find_best(start: StepOutcome, rounds: list[StepOutcome]) -> StepOutcome:
    """Return who wins most against the base: the policy before the rounds, or one kept after them; of equals the first."""
    return max((start, *(outcome for outcome in rounds if outcome.is_kept)), key=lambda outcome: won(outcome.scores))


def _do_rounds(run: PolicyRun, step: Step, start: StepOutcome, place: int, limit: int | None) -> list[StepOutcome]:
    """Do the rounds of an on-policy step until the watch stops one, or there is nothing to learn from."""
    assert step.on_policy is not None
    done: list[StepOutcome] = []
    latest = start
    for number in range(step.on_policy.rounds):
        betas = step.on_policy.betas
        train = step.train.model_copy(update={"beta": betas[number]}) if betas else step.train
        name = step.round_name(number + 1)
        recipe = make_round_recipe(run, name, number + 1, step.on_policy, latest)
        round_step = step.model_copy(update={"name": name, "train": train})
        find_source, best = partial(_build_round, run, recipe, limit), _find_best(start, done)
        try:
            done.append(do_step(run, round_step, latest, place + number, find_source, best))
        except NothingToExportError:
            run.context.say(f"  {name}: no two answers to a prompt make a pair, so the rounds end here")
            break
        latest = done[-1]
        if not latest.is_kept:
            break
    return done


def _build_round(run: PolicyRun, recipe: Recipe, limit: int | None) -> Source:
    """Let the policy answer, and export the pairs of its answers."""
    return Source.of(run_build(run.context, recipe, limit=limit))


def make_round_recipe(run: PolicyRun, name: str, number: int, on_policy: OnPolicy, policy: StepOutcome) -> Recipe:
    """Return the build of one round: the same prompts, the policy in place of the teachers, pairs of its own answers."""
    recipe = run.recipe
    prompts = on_policy.prompts or recipe.prompts
    if on_policy.limit is not None:
        prompts = tuple(source.model_copy(update={"limit": on_policy.limit}) for source in prompts)
    teacher = Teacher(
        name=policy.step,
        model=policy.model,
        samples=on_policy.samples,
        sampling=on_policy.sampling,
        chat_template_kwargs=run.policy.chat_template_kwargs,
        engine_args=run.policy.engine_args,
        reasoning=run.policy.reasoning,
        run=run.policy.run,
    )
    translation = recipe.translation and recipe.translation.model_copy(update={"completions_of": ()})
    return recipe.derive(
        name=f"{recipe.name}.{name}",
        round=number,
        prompts=prompts,
        translation=translation,
        teachers=(teacher,),
        routing=Routing(),
        pairs=on_policy.pairs,
        export=Export(sft=False, max_shard_mb=recipe.export.max_shard_mb),
        policy=None,
    )
