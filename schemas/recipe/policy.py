"""The ``[policy]`` table: the model that is trained on a build, its training steps, and how each step is judged."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.ids import Json
from schemas.languages import LANGUAGES
from schemas.names import ALL, BASE, STAGES, check_folder_name, fold_name, refuse_reference, suggest
from schemas.recipe.curation import PairStrategy
from schemas.recipe.evaluation import Judge
from schemas.recipe.merging import MergeSettings, Merging, Weight
from schemas.recipe.models import ModelRun, ReasoningTags, Sampling, Switches
from schemas.recipe.prompts import PromptSource
from schemas.recipe.training import Adapters, Training, TrainSettings
from schemas.toml.section import EXECUTION, LATER, Languages, ModelName, Names, Section, suggest_language


class StepLora(Adapters):
    """``[policy.steps.train.lora]``: train low-rank adapters, which are folded in: steps merge and judge whole models."""

    merge: Literal[True] = True


class StepTraining(Training):
    """``[policy.steps.train]``: how a step trains. The step determines the model and, by its clusters, the rows."""

    SETTLED: ClassVar[Mapping[str, Json]] = {
        "model": "",
        "data": "",
        "eval_data": None,
        "revision": None,
        "eval_revision": None,
        "dataset_config": None,
        "split": "train",
        "languages": [],
        "strategies": [],
    }

    lora: StepLora | None = None

    def settings(self, **settled: object) -> TrainSettings:
        """Return the settings of one training run; ``settled`` sets the fields that the step determines."""
        return TrainSettings.model_validate(self.model_dump() | settled)


class StepMerge(Merging):
    """``[policy.merge]``: how a step merges its clusters' models; ``weights`` maps clusters to weights (default: 1).

    Methods that need a base use the policy that the step started from.
    """

    SETTLED: ClassVar[Mapping[str, Json]] = {"models": [], "base": None}

    weights: dict[str, Weight] = Field(default_factory=dict)

    def settings(self, models: Mapping[str, str], base: str) -> MergeSettings:
        """Return the settings for merging ``models``, which maps clusters to paths of models trained from ``base``."""
        own = self.model_dump(by_alias=True, exclude={"weights"})
        parents = [
            {"model": model, "name": name, "weight": self.weights.get(name, 1.0)} for name, model in models.items()
        ]
        return MergeSettings.model_validate(
            own | {"models": parents} | ({"base": base} if self.has_task_vectors else {})
        )


class OnPolicy(Section):
    """``[policy.steps.on_policy]``: rounds in which the latest policy answers and learns from pairs of its own answers.

    Each round samples ``samples`` answers per prompt (of the build, or of ``prompts``), gates, scores and pairs them in
    a build of its own, then trains and merges as the step says. ``betas`` has one beta per round (default: the step's).
    """

    rounds: int = Field(default=3, gt=0)
    betas: tuple[float, ...] = ()
    samples: int = Field(default=4, gt=1)
    sampling: Sampling = Sampling(temperature=0.9)
    prompts: tuple[PromptSource, ...] = ()
    limit: int | None = Field(default=None, gt=0)
    pairs: tuple[PairStrategy, ...] = Field(default=(PairStrategy(),), min_length=1)

    @model_validator(mode="after")
    def _beta_per_round(self) -> Self:
        if self.betas and len(self.betas) != self.rounds:
            raise ValueError(f"'betas' has {len(self.betas)} numbers for {self.rounds} rounds; give one for each")
        if any(beta <= 0 for beta in self.betas):
            raise ValueError("'betas' must be greater than 0")
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        named = [("source", source.name) for source in self.prompts] + [("strategy", pair.label) for pair in self.pairs]
        for what, name in named:
            if named.count((what, name)) > 1:
                raise ValueError(f"the {what} {name!r} is named twice; names must differ")
        if any(pair.strategy == "strong_vs_weak" for pair in self.pairs):
            raise ValueError("strong_vs_weak pairs two teachers, but in a round only the policy answers")
        return self


class Step(Section):
    """``[[policy.steps]]``: train one model per cluster from the current policy and merge them into the next policy.

    ``pairs`` names the pair strategies that preference training uses (default: all of the build). ``clusters`` and
    ``merge`` override the policy's own; ``clusters = {}`` trains one model on all languages.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=100)
    train: StepTraining
    pairs: Names = ()
    on_policy: OnPolicy | None = None
    clusters: dict[str, Names] | None = None
    merge: StepMerge | None = None

    @model_validator(mode="after")
    def _fits_objective(self) -> Self:
        if not self.train.is_preference and (self.on_policy or self.pairs):
            raise ValueError("'pairs' and 'on_policy' belong to preference objectives, not to sft")
        if self.on_policy and self.pairs:
            raise ValueError("an on-policy step uses the pairs of 'on_policy.pairs'; leave 'pairs' out")
        return self

    def round_name(self, number: int) -> str:
        """Return the name of a round's policy; rounds are counted from 1."""
        return f"{self.name}_{number}"

    def round_names(self) -> list[str]:
        """Return the names of all rounds' policies in order; empty if the step has no rounds."""
        return [self.round_name(number) for number in range(1, self.on_policy.rounds + 1)] if self.on_policy else []


class HeldOut(Section):
    """``[policy.held_out]``: after every step, the policy and the base answer the build's held-out prompts.

    ``limit`` is per language. ``judge`` defaults to the recipe's first reward model, which in any case supplies the
    mean reward that ``[policy.watch]`` observes.
    """

    limit: int | None = Field(default=None, gt=0)
    samples: int = Field(default=1, gt=0)
    sampling: Sampling = Sampling(temperature=0.75)
    judge: Judge | None = None
    bootstrap_rounds: int = Field(default=1000, gt=1)


class Watch(Section):
    """``[policy.watch]``: when a step's on-policy rounds are stopped, and the latest round's policy discarded.

    There are two reasons. Either the mean reward of held-out answers has risen since the start of the round while their
    length in tokens has grown by more than ``max_length_ratio`` (a factor), their repetition by more than
    ``max_repetition_rise``, or the KL of training exceeds ``max_kl`` (nats per token of the pairs): the policy exploits
    the reward model. Or the win rate against the base on held-out prompts (a tie counts half) is more than
    ``max_win_rate_drop`` below the best so far.
    """

    max_length_ratio: float = Field(default=1.5, gt=1)
    max_repetition_rise: float = Field(default=0.1, gt=0)
    max_kl: float = Field(default=2.0, gt=0)
    max_win_rate_drop: float = Field(default=0.02, ge=0)


class Policy(Section):
    """``[policy]``: the steps that lead from a base model to the final policy.

    ``clusters`` are named lists of languages that are trained together; the ``shared`` languages are added to each.
    ``train`` holds defaults for the steps' ``[train]`` tables. ``chat_template_kwargs``, ``engine_args``, ``reasoning``
    and ``run`` mean the same as for a teacher, and apply to the policy and its base when they answer.
    """

    base: ModelName = Field(min_length=1)
    clusters: dict[str, Names] = Field(default_factory=dict)
    shared: Languages = ()
    train: dict[str, Any] = Field(default_factory=dict)
    merge: StepMerge = StepMerge()
    steps: tuple[Step, ...] = Field(min_length=1)
    held_out: HeldOut = HeldOut()
    watch: Watch = Watch()
    chat_template_kwargs: Switches = Field(default_factory=dict)
    engine_args: dict[str, Any] = Field(default_factory=dict)
    reasoning: Annotated[ReasoningTags | None, LATER] = None
    run: Annotated[ModelRun, EXECUTION] = ModelRun()

    @model_validator(mode="before")
    @classmethod
    def _hand_down_training(cls, data: object) -> object:
        """Merge the common ``train`` table into every step's own and empty it, so that only steps define training."""
        if not isinstance(data, dict) or not isinstance(data.get("train"), dict):
            return data
        steps = data.get("steps")
        if not isinstance(steps, list | tuple):
            return data
        common = data["train"]
        given = [step | {"train": common | step["train"]} if _has_table(step, "train") else step for step in steps]
        return data | {"steps": given, "train": {}}

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        taken = {BASE: "the model that the policy starts from"} | dict.fromkeys(STAGES, "a stage of the build")
        taken |= {name: f"a round of the step {step.name!r}" for step in self.steps for name in step.round_names()}
        for at, step in enumerate(self.steps):
            if whose := taken.get(step.name):
                refuse_reference(
                    f"{step.name!r} is the name of {whose}; choose another name", "policy", "steps", at, "name"
                )
            taken[step.name] = "another step"
        _check_clusters(self.clusters, "policy", "clusters")
        for at, step in enumerate(self.steps):
            _check_clusters(step.clusters or {}, "policy", "steps", at, "clusters")
            self._check_merge(step)
        return self

    def stand_names(self) -> list[str]:
        """Return the names of the policies that the steps and rounds produce, in order."""
        return [name for step in self.steps for name in step.round_names() or [step.name]]

    def _check_merge(self, step: Step) -> None:
        clusters, merge = self.clusters_of(step), self.merge_of(step)
        strange = sorted(merge.weights.keys() - clusters.keys())
        if strange and clusters:
            raise ValueError(
                f"step {step.name!r} has weights for {', '.join(strange)}{suggest(strange[0], clusters)}; its clusters are {', '.join(clusters)}"
            )

    def clusters_of(self, step: Step) -> dict[str, tuple[str, ...]]:
        """Return a step's clusters including the shared languages; empty if one model is trained on all languages."""
        clusters = self.clusters if step.clusters is None else step.clusters
        return {name: tuple(sorted({*languages, *self.shared})) for name, languages in clusters.items()}

    def merge_of(self, step: Step) -> StepMerge:
        """Return the merge settings of a step."""
        return step.merge or self.merge


def _check_clusters(clusters: Mapping[str, tuple[str, ...]], *location: str | int) -> None:
    """Refuse clusters whose names collide or cannot be folder names, or whose languages are unknown or missing."""
    taken: dict[str, str] = {}
    for name, languages in clusters.items():
        try:
            check_folder_name(name)
        except ValueError as error:
            refuse_reference(f"cluster {error}", *location, name)
        if fold_name(name) == ALL:
            refuse_reference(
                f"{name!r} is the cluster name of a step without clusters; choose another name", *location, name
            )
        if other := taken.get(fold_name(name)):
            refuse_reference(
                f"clusters {other!r} and {name!r} would share a folder on case-insensitive disks; choose another name",
                *location,
                name,
            )
        taken[fold_name(name)] = name
        unknown = [code for code in languages if code not in LANGUAGES]
        if unknown or not languages:
            meant = suggest_language(unknown[0]) if unknown else ""
            refuse_reference(
                f"cluster {name!r} has languages {list(languages)}{meant}; allowed are known codes", *location, name
            )


def _has_table(step: object, name: str) -> bool:
    return isinstance(step, dict) and isinstance(step.get(name), dict)
