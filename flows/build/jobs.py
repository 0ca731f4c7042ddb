"""What models are asked for in each stage of a build: one job a lane."""

from typing import Literal

from factory.stages.sampling import Sampler
from factory.stages.scoring import Scorer
from factory.stages.translation import Translator
from factory.texts.langid import shared_detector
from flows.build.build_run import BuildRun
from flows.identity import Lane
from flows.lanes.lane import LaneJob
from schemas.recipe.models import RewardModel, Teacher, Translation
from warehouse.build import pending


def prompt_translation_jobs(run: BuildRun) -> list[LaneJob]:
    """Return the lane that translates the build's prompts, if the recipe has one."""
    lane, translation = run.build.translator, run.build.recipe.translation
    if lane is None or translation is None or not translation.prompts:
        return []
    wanted = pending.pending_prompt_translations(lane.settings_id, lane.languages)
    return [_translation_job(lane, translation, "prompts", wanted)]


def completion_translation_jobs(run: BuildRun) -> list[LaneJob]:
    """Return the lane that translates English completions, if the recipe asks for them."""
    lane, translation = run.build.translator, run.build.recipe.translation
    if lane is None or translation is None or not translation.completions_of:
        return []
    wanted = pending.pending_completion_translations(lane.settings_id, lane.languages, translation.completions_of)
    return [_translation_job(lane, translation, "completions", wanted)]


def _translation_job(
    lane: Lane, translation: Translation, table: Literal["prompts", "completions"], wanted: str
) -> LaneJob:
    return LaneJob(
        stage=f"translate_{table}",
        task="translate" if translation.engine == "transformers" else "generate",
        lane=lane,
        pending=wanted,
        table=table,
        work=Translator(lane.provenance, translation, table, detect=shared_detector().detect),
    )


def sampling_jobs(run: BuildRun) -> list[LaneJob]:
    """Return one lane per teacher that is to be asked."""
    number = run.build.recipe.round
    return [sampling_job(lane, number) for lane in run.build.teachers if lane not in run.recorded]


def sampling_job(lane: Lane, round_number: int = 0) -> LaneJob:
    """Return what a teacher or policy has to answer of a build."""
    assert isinstance(lane.model, Teacher)
    wanted = pending.pending_completions(lane.settings_id, lane.languages, lane.num_samples)
    return LaneJob(
        stage="sample",
        task="generate",
        lane=lane,
        pending=wanted,
        table="completions",
        work=Sampler(
            lane.provenance,
            detect=shared_detector().detect,
            origin="on_policy" if lane.role == "policy" else "in_language",
            round=round_number,
            system_prompt=lane.model.system_prompt,
            seed=lane.model.sampling.seed,
        ),
    )


def scoring_jobs(run: BuildRun) -> list[LaneJob]:
    """Return one lane per reward model."""
    return [scoring_job(lane) for lane in run.build.rewards]


def scoring_job(lane: Lane) -> LaneJob:
    """Return what a reward model has to score of a build."""
    assert isinstance(lane.model, RewardModel)
    return LaneJob(
        stage="score",
        task="score",
        lane=lane,
        pending=pending.pending_rewards(lane.settings_id),
        table="rewards",
        work=Scorer(lane.provenance, system_prompt=lane.model.system_prompt),
    )
