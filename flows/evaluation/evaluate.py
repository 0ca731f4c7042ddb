"""One evaluation: two models answer the same prompts, a judge compares, and the games become win rates.

Everything is wanted minus have: answers, scores and verdicts are facts of the warehouse, and a rerun asks only what is
missing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
from pydantic import BaseModel

from factory.engines.fingerprint import remembered_digest
from factory.engines.open import open_engine
from factory.evaluation.confusion import check_responses, rate_confusion
from factory.evaluation.judging import STAGE, JudgeStage, make_structure, wording
from factory.evaluation.scored import decide_games, score_by_truth
from factory.evaluation.verdicts import MIRRORED, STRONG_WEIGHTS
from factory.evaluation.winrates import rate_first_shown, rate_games
from factory.inputs.hf_datasets import resolve_revision
from factory.stages.prompts import SeenPrompts, build_prompts
from factory.stages.sources import identify_sources, read_source
from factory.texts.langid import shared_detector
from flows.build.jobs import sampling_job, scoring_job
from flows.build.recorded import read_recorded
from flows.build.source_rows import check_listed, count_beyond, derive_source_rows, is_recorded, list_while_read
from flows.identity import Lane, identify_asked, make_model_rows, reward_lane, teacher_lane
from flows.lanes.context import OpenEngine, RunContext, open_context
from flows.lanes.lane import LaneJob, run_lane
from schemas.errors import InputError, RecipeError
from schemas.ids import Json, content_id
from schemas.recipe.evaluation import EvaluationSettings, Judge
from schemas.recipe.models import Teacher
from schemas.recipe.prompts import PromptGates, PromptSource
from schemas.recipe.settings import WarehouseSettings
from schemas.toml.paths import is_path
from schemas.toml.section import CONTENT, EXECUTION, PLACE, identify
from warehouse.build.games import Match, add_games, games_with_verdicts, pending_games, pending_scored_games
from warehouse.build.scope import Scope, latest_build
from warehouse.lake.lake import Lake
from warehouse.lake.staging import Derived, Frames, replace_rows
from warehouse.statements import to_literal

OPEN_GATES = PromptGates(language=False, near_duplicate_similarity=0, max_chars=1_000_000)
"""Prompts of an evaluation are taken as they are; only what is not text, or there twice, is left out."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation with its identities resolved. ``judge`` is none where the truth judges."""

    settings: EvaluationSettings
    evaluation_id: str
    a: Lane
    b: Lane
    judge: Lane | None
    judge_fingerprint: str
    reward: Lane | None

    @property
    def models(self) -> tuple[Lane, Lane]:
        return self.a, self.b


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """One run of an evaluation."""

    context: RunContext
    evaluation: Evaluation
    scope: Scope

    @property
    def lake(self) -> Lake:
        return self.context.lake

    @property
    def scorers(self) -> tuple[Lane, ...]:
        lanes = (self.evaluation.judge, self.evaluation.reward)
        return tuple(lane for lane in lanes if lane is not None and lane.role == "reward")


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation found.

    ``rates`` is what ``winrates.rate_games`` returns, ``a`` being the first model. ``answers`` has one row per language
    and model: num_answers, lpr, wpr, script_rate, mean_chars, mean_tokens, truncated (a share), repetition and reward (means). ``first_shown`` is the share of
    won games that the answer shown first has won. ``num_sent`` counts what was asked in this run.
    """

    evaluation: Evaluation
    rates: pl.DataFrame
    answers: pl.DataFrame
    first_shown: float | None
    num_prompts: int
    num_sent: int
    snapshot: int


def evaluate(
    settings: EvaluationSettings,
    warehouse: WarehouseSettings,
    *,
    quiet: bool = False,
    open_engine: OpenEngine = open_engine,
) -> EvaluationResult:
    """Open a warehouse and run an evaluation there; see ``run_evaluation``."""
    with open_context(warehouse, settings.run, quiet=quiet, open_engine=open_engine) as context:
        return run_evaluation(context, settings)


def run_evaluation(context: RunContext, settings: EvaluationSettings) -> EvaluationResult:
    """Run an evaluation, or go on with it.

    Raises:
        FactoryError: whatever the user can mend; BuildStoppedError after Ctrl-C or SIGTERM.
    """
    build_id = None if settings.prompts is not None else _find_build(context.lake, settings.build)
    evaluation = resolve_evaluation(settings, build_id)
    context.say(
        f"evaluation {settings.name} ({evaluation.evaluation_id[:8]}) · {settings.a.name} and {settings.b.name}"
    )
    with context.hold(f"evaluation {evaluation.evaluation_id}") as context:
        num_prompts = _choose_prompts(context, evaluation, build_id)
        with Scope.open(context.lake, evaluation.evaluation_id) as scope:
            _add_games(scope, evaluation)
            run = EvaluationRun(context, evaluation, scope)
            num_sent = _answer(run, build_id) + _judge(run) + _score(run)
            return _summarize(run, num_prompts, num_sent)


def resolve_evaluation(settings: EvaluationSettings, build_id: str | None) -> Evaluation:
    """Fingerprint the models and derive the ids; ``build_id`` names the build whose held-out prompts are answered.

    The evaluation's id has all that changes its games or its figures, by the types of the settings, so that other
    figures have another name. It does not have what its build grows by: the evaluation goes on with it.

    Raises:
        EngineError: a model is not there, or its moving revision cannot be resolved.
        InputError: a file of prompts is missing or cannot be read.
        RecipeError: both models are the same one with the same settings.
    """
    settings = _pin_prompts(settings)
    a = teacher_lane(settings.a, settings.languages, "policy")
    b = teacher_lane(settings.b, settings.languages, "policy")
    if a.settings_id == b.settings_id:
        raise RecipeError(f"{a.name} and {b.name} are one model with the same settings: there is nothing to compare")
    judge, fingerprint = resolve_judge(settings.judge, settings.languages)
    known = {id(lane.model): lane.settings_id for lane in (a, b)}
    figures = identify(settings, stand_in=partial(_stand_in, known)) | {"build": build_id}
    evaluation_id = content_id("evaluation", [fingerprint, figures])
    reward = None if settings.reward is None else reward_lane(settings.reward, settings.languages)
    return Evaluation(settings, evaluation_id, a, b, judge, fingerprint, reward)


def resolve_judge(judge: Judge, languages: tuple[str, ...]) -> tuple[Lane | None, str]:
    """Return the judge's lane and its fingerprint: the model with its settings, and all that decides its verdicts.

    Raises:
        EngineError: the judge's model is not there.
    """
    if judge.reward is not None:
        lane = reward_lane(judge.reward, languages)
        return lane, content_id("judge", [lane.settings_id, judge.tie_margin])
    if judge.llm is None:
        return None, content_id("judge", ["truth", judge.truth, judge.tie_margin])
    # A judge is asked as a teacher is, whose answers have a structure.
    structure = make_structure(judge.scale, judge.output, judge.max_reason_chars)
    fields = judge.llm.model_dump() | {"structured": structure, "languages": ()}
    lane = teacher_lane(Teacher.model_validate(fields), languages, "judge")
    fingerprint = content_id("judge", [lane.settings_id, wording(judge.scale, judge.output)])
    return Lane("judge", lane.name, lane.model, lane.fingerprint, fingerprint, languages, 1, lane.licence), fingerprint


def _stand_in(known: Mapping[int, str], section: BaseModel) -> Json:
    if isinstance(section, PromptSource):
        return _identify_prompts(section)
    return identify_asked(section, known.get(id(section)))


def _pin_prompts(settings: EvaluationSettings) -> EvaluationSettings:
    """Return settings whose prompts, where they are a data set of the hub, are those of a commit."""
    source = settings.prompts
    if source is None or source.dataset is None or is_path(source.dataset):
        return settings
    commit = resolve_revision(source.dataset, source.revision, source.config)
    return settings.model_copy(update={"prompts": source.model_copy(update={"revision": commit})})


def _identify_prompts(source: PromptSource) -> str:
    """Return the id of prompts: by the bytes of files, not by where they lie; of a data set of the hub by its commit."""
    files = identify_sources([source], identify(OPEN_GATES))
    if files is not None:
        return files
    assert source.dataset is not None
    content = remembered_digest(Path(source.dataset)) if is_path(source.dataset) else source.dataset
    return content_id("prompts", [identify(source, without={EXECUTION, PLACE, *CONTENT}), content])


def _find_build(lake: Lake, name: str | None) -> str:
    build_id = latest_build(lake, name)
    if build_id is None:
        raise InputError(
            "the warehouse has no build whose held-out prompts could be answered; name [evaluation.prompts]"
        )
    return build_id


def _choose_prompts(context: RunContext, evaluation: Evaluation, build_id: str | None) -> int:
    """Make the prompts and models those of the evaluation; return how many prompts there are."""
    lake, settings, evaluation_id = context.lake, evaluation.settings, evaluation.evaluation_id
    found = _read_prompts(lake, evaluation) if build_id is None else _find_held_out(lake, evaluation, build_id)
    wanted = found.filter(pl.col("language").is_in(settings.languages)).sort("root_id", "prompt_id")
    chosen = wanted if settings.limit is None else wanted.group_by("language").head(settings.limit)
    if chosen.is_empty():
        raise InputError(f"there are no prompts in {', '.join(settings.languages)} to answer")
    num_seen = chosen.filter(pl.col("split") == "train").height
    if num_seen:
        context.say(f"  warning: {num_seen:,} of {chosen.height:,} prompts are training prompts of this warehouse")
    members = chosen.select(pl.lit(evaluation_id).alias("config_id"), "prompt_id").unique()
    others = {lane.settings_id: lane for lane in (evaluation.judge, evaluation.reward) if lane is not None}
    with Frames("build_prompts") as prompts, Frames("build_models") as models:
        prompts.add(members)
        models.add(make_model_rows(evaluation_id, (*evaluation.models, *others.values())))
        own = f"config_id = {to_literal(evaluation_id)}"
        # In place of those of a build that has grown since, and of what the models were called.
        replace_rows(lake, {"build_prompts": Derived(own, prompts.select), "build_models": Derived(own, models.select)})
    return members.height


def _find_held_out(lake: Lake, evaluation: Evaluation, build_id: str) -> pl.DataFrame:
    """Return the held-out prompts of a build."""
    if any(map(is_recorded, evaluation.models)):
        check_listed(lake, build_id)
    with Scope.open(lake, build_id) as scope:
        return scope.query("SELECT prompt_id, root_id, language, split FROM kept_prompts WHERE split = 'eval'")


def _add_games(scope: Scope, evaluation: Evaluation) -> None:
    settings, judge = evaluation.settings, evaluation.settings.judge
    match = Match(
        models=(evaluation.a.settings_id, evaluation.b.settings_id),
        languages=settings.languages,
        num_samples=settings.a.samples,
        swap=judge.swap if judge.llm is not None else "none",
        seed=settings.seed,
    )
    add_games(scope, match, evaluation.judge_fingerprint)


def _read_prompts(lake: Lake, evaluation: Evaluation) -> pl.DataFrame:
    """Read the evaluation's own prompts into the warehouse, all of them held out; return those that are prompts."""
    assert evaluation.settings.prompts is not None
    source = evaluation.settings.prompts.model_copy(update={"eval_percent": 100.0})
    seen = SeenPrompts(OPEN_GATES)
    ids = []
    has_recorded = any(map(is_recorded, evaluation.models))
    own_id = evaluation.evaluation_id
    with Frames("source_rows") as listed:
        frames = read_source(source, beyond=count_beyond(has_recorded=has_recorded))
        for raw in list_while_read(frames, source, own_id, listed):
            landed = build_prompts(
                raw, source=source, gates=OPEN_GATES, config_id=own_id, seen=seen, detect=shared_detector().detect
            )
            lake.append("prompts", landed.rows)
            lake.append("rejections", landed.rejections)
            ids.extend(landed.rows["prompt_id"].to_list())
        replace_rows(lake, {"source_rows": derive_source_rows(own_id, listed)})
    return lake.query(
        "SELECT prompt_id, root_id, language, split FROM prompts WHERE list_contains(?, prompt_id)", [ids]
    )


def _answer(run: EvaluationRun, build_id: str | None) -> int:
    """Let both models answer what they have not; return how many requests were sent."""
    num_sent = 0
    for lane in run.evaluation.models:
        run.context.check_stop()
        if is_recorded(lane):
            read_recorded(run.context, run.scope, lane, rows_of=build_id)
        else:
            num_sent += _ask(run, sampling_job(lane))
    return num_sent


def _ask(run: EvaluationRun, job: LaneJob) -> int:
    return run_lane(run.context, run.scope, job, scorers=run.scorers)


def _judge(run: EvaluationRun) -> int:
    """Have the games decided that are not; return how many requests were sent."""
    run.context.check_stop()
    evaluation = run.evaluation
    judge, lane, fingerprint = evaluation.settings.judge, evaluation.judge, evaluation.judge_fingerprint
    pending = pending_games(fingerprint)
    if lane is None:
        _decide(run, (score_by_truth(games) for games in run.scope.stream(pending, batch_rows=1000)))
        return 0
    if lane.role == "reward":
        num_sent = _ask(run, scoring_job(lane))
        scored = pending_scored_games(fingerprint, lane.settings_id)
        _decide(run, run.scope.stream(scored, batch_rows=10_000))
        return num_sent
    reasoning = None if judge.llm is None else judge.llm.reasoning
    work = JudgeStage(lane.provenance, scale=judge.scale, output=judge.output, reasoning=reasoning)
    return _ask(run, LaneJob(STAGE, "generate", lane, pending, "verdicts", work))


def _score(run: EvaluationRun) -> int:
    """Have the answers scored whose mean reward is asked for; return how many requests were sent."""
    lane = run.evaluation.reward
    return 0 if lane is None else _ask(run, scoring_job(lane))


def _decide(run: EvaluationRun, games: Iterator[pl.DataFrame]) -> None:
    evaluation = run.evaluation
    for scored in games:
        landed = decide_games(
            scored,
            judge_fingerprint=evaluation.judge_fingerprint,
            tie_margin=evaluation.settings.judge.tie_margin,
        )
        run.lake.append("verdicts", landed.rows)
        run.lake.append("rejections", landed.rejections)


def _summarize(run: EvaluationRun, num_prompts: int, num_sent: int) -> EvaluationResult:
    evaluation = run.evaluation
    settings = evaluation.settings
    games = _orient(run.scope.query(games_with_verdicts(evaluation.judge_fingerprint)))
    if games.is_empty():
        raise InputError("there is no prompt that both models have answered")
    rates = rate_games(
        games,
        strong_weight=STRONG_WEIGHTS[settings.judge.scale],
        rounds=settings.bootstrap_rounds,
        seed=settings.seed,
    )
    answers = pl.concat([_describe_answers(run, lane) for lane in evaluation.models]).sort(
        "language", maintain_order=True
    )
    first_shown = rate_first_shown(games)
    return EvaluationResult(evaluation, rates, answers, first_shown, num_prompts, num_sent, run.lake.snapshot())


def _orient(games: pl.DataFrame) -> pl.DataFrame:
    """Turn games to the first model's point of view: verdict, lengths, and whether its answer was shown first."""
    turned = pl.col("is_mirrored")
    mirrored = pl.col("verdict").replace_strict(MIRRORED, return_dtype=pl.String)
    return games.select(
        "language",
        "root_id",
        "prompt_id",
        pl.when(turned).then(mirrored).otherwise("verdict").alias("verdict"),
        pl.when(turned).then("length_b").otherwise("length_a").alias("length_a"),
        pl.when(turned).then("length_a").otherwise("length_b").alias("length_b"),
        ((pl.col("order") == "ab") != turned).alias("is_first"),
    )


def _describe_answers(run: EvaluationRun, lane: Lane) -> pl.DataFrame:
    """Return, per language, how many answers a model has given, their confusion rates and their lengths."""
    reward = run.evaluation.reward
    rows = run.scope.query(
        """
        SELECT completions.language, text, num_completion_tokens, finish_reason, repetition, reward
        FROM kept_completions AS completions
        LEFT JOIN rewards ON rewards.completion_id = completions.completion_id AND reward_fingerprint = ?
        WHERE completions.settings_id = ?
        ORDER BY completions.completion_id
        """,
        [None if reward is None else reward.settings_id, lane.settings_id],
    )
    responses = (((lane.name,), language, text) for language, text in rows.select("language", "text").iter_rows())
    checked = list(check_responses(responses, shared_detector()))
    if not checked:
        raise InputError(f"{lane.name} has answered none of the prompts")
    confusion = rate_confusion(pl.concat(checked)).rename({"group": "model", "num_responses": "num_answers"})
    confusion = confusion.with_columns(pl.col("model").list.first())
    lengths = rows.group_by("language").agg(
        # Of recorded answers nobody has counted the tokens.
        pl.col("num_completion_tokens").replace(0, None).mean().alias("mean_tokens"),
        (pl.col("finish_reason") == "length").mean().alias("truncated"),
        pl.col("repetition").mean(),
        pl.col("reward").mean(),
    )
    return confusion.drop("num_skipped").join(lengths, on="language", maintain_order="left")
