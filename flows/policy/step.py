"""One step of a policy: train a model per cluster on what a build exported, merge them, judge the result, write it down.

Models lie in folders that are named by what they are, so one that is finished is found and not made again; the rest is
wanted minus have, as everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from factory.engines.fingerprint import fingerprint_model
from factory.training.data.reading import read_export_id
from factory.training.identity import identify_run
from factory.training.result import TrainResult
from flows.build.build_run import BuildSummary
from flows.evaluation.evaluate import EvaluationResult, run_evaluation
from flows.held_out import make_evaluation
from flows.lanes.context import RunContext
from flows.models.merge import merge_once
from flows.models.train import train_and_record
from flows.policy.reward_hacking import find_hacking
from flows.policy.step_records import Origin, StepOutcome, find_outcome, make_scores, record_outcome
from schemas.names import ALL, BASE
from schemas.recipe.models import Model
from schemas.recipe.policy import Policy, Step
from schemas.recipe.recipe import Recipe
from schemas.toml.section import identify


@dataclass(frozen=True, slots=True)
class Source:
    """The data of a step: the build that it learns from, and that build's export."""

    config_id: str
    export_path: str

    @classmethod
    def of(cls, build: BuildSummary) -> "Source":
        """Return the data of a build that has been exported."""
        assert build.export_path is not None
        return cls(build.config_id, str(Path(build.export_path).resolve()))


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """What the steps of one run share."""

    context: RunContext
    recipe: Recipe
    policy: Policy
    policy_id: str
    build: Source

    @property
    def folder(self) -> Path:
        """Where the models of this policy lie."""
        return Path(self.recipe.run.models).resolve() / self.recipe.name


def do_step(
    run: PolicyRun,
    step: Step,
    start: StepOutcome,
    place: int,
    find_source: Callable[[], Source],
    best: StepOutcome | None = None,
) -> StepOutcome:
    """Train, merge and judge, or find that it is done. With ``best``, the watch compares with it and may stop a round."""
    lake = run.context.lake
    found = find_outcome(lake, run.policy_id, step.name, run.folder)
    if found is not None:
        run.context.say(f"  {step.name}: done · {found}")
        return found
    source = find_source()
    run.context.say(f"  {step.name}: from {start.step} on {source.export_path}")
    results = _train(run, step, start, source)
    models = {name: str(result.model) for name, result in results.items()}
    model, checkpoint_id = _merge(run, step, start, models)
    evaluation = _evaluate(run, step.name, model)
    scores, base_scores = make_scores(evaluation)
    detail = None
    if best is not None:
        kl = max((result.eval_metrics or result.metrics).get("kl") or 0.0 for result in results.values())
        begun, most = start.scores or base_scores.overall, best.scores or base_scores.overall
        detail = find_hacking(run.policy.watch, begun, most, scores.overall, kl)
    outcome = StepOutcome(step.name, model, checkpoint_id, scores.overall, is_kept=detail is None, detail=detail)
    if place == 1:
        base = replace(start, scores=base_scores.overall)
        record_outcome(lake, run.policy_id, base, base_scores, Origin(0, run.build.config_id))
    export_id = read_export_id(source.export_path)
    origin = Origin(
        place, run.build.config_id, source.config_id, export_id, start.checkpoint_id, identify(step), results
    )
    record_outcome(lake, run.policy_id, outcome, scores, origin)
    run.context.say(f"  {step.name}: {outcome}")
    return outcome


def _train(run: PolicyRun, step: Step, start: StepOutcome, source: Source) -> dict[str, TrainResult]:
    """Train a model per cluster, side by side where the machine has the GPUs; return the results by cluster."""
    clusters = run.policy.clusters_of(step) or {ALL: ()}

    def train(cluster: str, languages: tuple[str, ...]) -> TrainResult:
        settings = step.train.settings(
            model=start.model, data=source.export_path, languages=languages, strategies=step.pairs
        )
        name = step.name if len(clusters) == 1 else f"{step.name}-{cluster}"
        output = run.folder / f"{name}-{identify_run(settings).id[:8]}"
        return train_and_record(
            settings, output, warehouse=run.recipe.warehouse, quiet=run.context.board.quiet, slots=run.context.slots
        )

    pieces = {f"train {step.name} {name}": partial(train, name, codes) for name, codes in clusters.items()}
    return dict(zip(clusters, run.context.do(pieces), strict=True))


def _merge(run: PolicyRun, step: Step, start: StepOutcome, models: dict[str, str]) -> tuple[str, str]:
    """Merge the models of the clusters into one; return its folder and its checkpoint id."""
    if len(models) == 1:
        (model,) = models.values()
        return model, fingerprint_model(Model(model=model))
    settings = run.policy.merge_of(step).settings(models, start.model)
    return merge_once(settings, run.folder, step.name, run.recipe.warehouse, quiet=run.context.board.quiet)


def _evaluate(run: PolicyRun, step: str, model: str) -> EvaluationResult:
    """Let the policy and the base answer the build's held-out prompts, and judge them."""
    recipe = run.recipe
    settings = make_evaluation(
        recipe, run.build.config_id, f"{recipe.name}.{step}", (step, model), (BASE, run.policy.base)
    )
    return run_evaluation(run.context, settings)
