"""What a run would ask first, tried on the models of a recipe without starting any of them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from factory.engines.base import Message
from factory.engines.local.trial import Trial, find_setting_fault, find_template_faults
from factory.evaluation.judging import make_messages
from factory.stages.sampling import add_system_prompt
from factory.stages.sources import read_source
from factory.stages.translation import plan_translation
from flows.doctor.finding import Findings, note, ok, problem
from flows.held_out import make_contestant
from schemas.errors import FactoryError
from schemas.names import BASE
from schemas.recipe.evaluation import Judge
from schemas.recipe.models import Model, RewardModel, Teacher, Translation
from schemas.recipe.recipe import Recipe
from schemas.toml.paths import is_path

NUM_TRIED_ROWS = 100
"""A source is read this far for a prompt to try; it is refused if not one of these rows can be used."""

TO_DO = "correct the model's settings, name a file in 'chat_template', or leave out its 'system_prompt'"

Prompts = Mapping[str, Sequence[Message]]


def try_models(recipe: Recipe) -> Findings:
    """Find models that would refuse what a run asks of them: by their settings, or by their chat templates."""
    trials = dict(_list_trials(recipe))
    faults = {name: fault for name, trial in trials.items() if (fault := find_setting_fault(trial))}
    templates = {name: trial for name, trial in trials.items() if _has_template(trial) and name not in faults}
    try:
        found = find_template_faults(list(templates.values())) if templates else []
    except FactoryError as error:
        yield note("requests", f"chat templates could not be tried: {error}")
        found, templates = [], {}
    faults |= {name: fault for name, fault in zip(templates, found, strict=True) if fault}
    for name in trials:
        if name in faults:
            yield problem(f"requests to {name}", faults[name], TO_DO)
        elif name in templates:
            yield ok(f"requests to {name}", f"its template takes {' and '.join(trials[name].conversations)}")


def find_refusals(recipe: Recipe) -> list[str]:
    """Return a sentence for each model of a recipe that would refuse what a run asks of it."""
    return [f"{finding.check}: {finding.found}" for finding in try_models(recipe) if finding.state == "problem"]


def find_snapshot(model: Model) -> Path | None:
    """Return the folder of the hub's cache that holds a model, if it is there."""
    from huggingface_hub import try_to_load_from_cache  # takes a fifth of a second, and only names on the hub need it
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(model.model, "config.json", revision=model.revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _has_template(trial: Trial) -> bool:
    """Whether the model's chat template is applied on this machine, and its tokenizer is here."""
    is_pair = trial.task == "score" and trial.model.engine_args.get("task") == "score"
    return trial.model.engine == "vllm" and trial.place is not None and not is_pair


def _list_trials(recipe: Recipe) -> Iterator[tuple[str, Trial]]:
    prompts = _find_prompts(recipe)
    for teacher in recipe.teachers:
        if not teacher.recorded:
            yield f"teacher {teacher.name}", _make_trial(teacher, _ask(teacher, prompts))
    if recipe.translation:
        yield "translator", _make_translator_trial(recipe.translation, prompts)
    for reward_model in recipe.reward_models:
        yield f"reward model {reward_model.name}", _make_trial(reward_model, _ask(reward_model, prompts))
    if recipe.policy:
        base = make_contestant(recipe, BASE, recipe.policy.base)
        yield "policy base", _make_trial(base, _ask(base, prompts))
    judge = recipe.policy.held_out.judge if recipe.policy else None
    if judge is not None:
        yield from _list_judge(judge, prompts)


def _list_judge(judge: Judge, prompts: Prompts) -> Iterator[tuple[str, Trial]]:
    if judge.llm is not None:
        game: dict[str, Any] = {"text_a": "Yes.", "text_b": "No.", "order": "ab", "language": "en"}
        asked = {
            name: make_messages(game | {"messages": messages}, judge.scale, judge.output)
            for name, messages in prompts.items()
        }
        yield f"judge {judge.llm.name}", _make_trial(judge.llm, asked)
    if judge.reward is not None:
        yield f"judge {judge.reward.name}", _make_trial(judge.reward, _ask(judge.reward, prompts))


def _ask(model: Teacher | RewardModel, prompts: Prompts) -> Prompts:
    answer = (Message(role="assistant", content="Yes."),) if isinstance(model, RewardModel) else ()
    return {name: (*add_system_prompt(messages, model.system_prompt), *answer) for name, messages in prompts.items()}


def _make_translator_trial(translation: Translation, prompts: Prompts) -> Trial:
    languages = {"source_language": "en", "language": "fr"}
    plans = {
        name: plan_translation(languages | {"messages": messages}, "trial", translation)
        for name, messages in prompts.items()
    }
    return _make_trial(translation, {name: plan.requests[0].messages for name, plan in plans.items() if plan.requests})


def _make_trial(model: Model, conversations: Prompts) -> Trial:
    folder = Path(model.model) if is_path(model.model) else find_snapshot(model) if model.engine == "vllm" else None
    place = str(folder) if folder is not None and folder.is_dir() else None
    return Trial(model, "score" if isinstance(model, RewardModel) else "generate", conversations, place)


def _find_prompts(recipe: Recipe) -> Prompts:
    """Return a plain question, which every model is asked in some form, and the first prompt of each source of files."""
    prompts: dict[str, Sequence[Message]] = {"a plain question": (Message(role="user", content="What is a cat?"),)}
    for source in recipe.prompts:
        if source.path is None and not Path(str(source.dataset)).exists():
            continue
        try:
            frames = read_source(source.model_copy(update={"limit": NUM_TRIED_ROWS}))
            rows = (row for frame in frames for row in frame.filter(pl.col("reason").is_null()).iter_rows(named=True))
            for row in islice(rows, 1):
                prompts[f"the first prompt of {source.name}"] = row["messages"]
        except FactoryError:
            continue  # the check of files says it
    return prompts
