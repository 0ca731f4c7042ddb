"""Settings of one evaluation: two models, the prompts that they answer, and who judges the answers."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.ids import Json
from schemas.languages import CORE_LANGUAGES
from schemas.recipe.models import NamedWriter, RewardModel, Sampling, Teacher
from schemas.recipe.prompts import PromptSource
from schemas.recipe.settings import RunSettings
from schemas.toml.section import EXECUTION, FINGERPRINTED, PLACE, Languages, Section, identify

Scale = Literal["aya", "arena"]


class Contestant(Teacher):
    """``[evaluation.a]`` and ``[evaluation.b]``: one of the two models, or recorded answers in place of one."""

    name: Annotated[str, EXECUTION] = Field(min_length=1)
    licence: Annotated[str | None, EXECUTION] = None
    sampling: Sampling = Sampling(temperature=0.75)


class JudgeModel(NamedWriter):
    """``[evaluation.judge.llm]``: a model that reads two answers and says which is better. Pin its revision.

    The form of its verdicts is set by the judge's ``output``, and the criteria that they follow stand in the place of a
    system prompt.
    """

    SETTLED: ClassVar[Mapping[str, Json]] = {"structured": None, "system_prompt": None}

    engine: Annotated[Literal["vllm", "openai"], FINGERPRINTED] = "vllm"
    name: Annotated[str, EXECUTION] = Field(min_length=1)
    licence: Annotated[str | None, EXECUTION] = None
    sampling: Sampling = Sampling(temperature=0.0)


class Judge(Section):
    """``[evaluation.judge]``: exactly one of an LLM, a reward model and the microworld's truth.

    ``scale`` is the scale of an LLM's verdicts: A, B or TIE by Aya's criteria, or Arena-Hard's five steps, where a
    strong verdict counts three times. ``output`` is their form: a JSON object with the reason, a single word (the
    engine enforces both), or double square brackets at the end of free text. ``max_reason_chars`` keeps a weak judge
    from rambling in JSON; vLLM enforces it, a hosted API may reject it. ``swap`` shows each pair in both orders, or
    once in a random order (by ``seed``). Scores of a reward model or the truth that differ by ``tie_margin`` or less
    are a tie.
    """

    llm: JudgeModel | None = None
    reward: RewardModel | None = None
    truth: Literal["microworld"] | None = None
    scale: Scale = "aya"
    output: Literal["json", "choice", "text"] = "json"
    max_reason_chars: int | None = Field(default=None, gt=0)
    swap: Literal["both", "random"] = "both"
    tie_margin: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        if sum(judge is not None for judge in (self.llm, self.reward, self.truth)) != 1:
            raise ValueError("exactly one of 'llm', 'reward' and 'truth' is needed")
        if self.max_reason_chars is not None and self.output != "json":
            raise ValueError("'max_reason_chars' limits the reason in JSON, so it needs output = 'json'")
        return self


class EvaluationSettings(Section):
    """``[evaluation]``: which models are compared, on which prompts, who judges, and how the statistics are computed.

    Without ``prompts``, the models answer the held-out prompts of ``build`` (a name or config id; default: the latest).
    ``limit`` is per language; prompts that are translations of one another are kept or left out together. ``reward``
    additionally scores all answers, whoever judges, and its mean is reported.
    """

    name: Annotated[str, EXECUTION] = Field(default="evaluation", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    a: Contestant
    b: Contestant
    languages: Languages = Field(default=CORE_LANGUAGES, min_length=1)
    prompts: PromptSource | None = None
    build: Annotated[str | None, PLACE] = None
    limit: int | None = Field(default=None, gt=0)
    judge: Judge
    reward: RewardModel | None = None
    seed: int = Field(default=0, ge=0)
    bootstrap_rounds: int = Field(default=1000, gt=1)
    run: Annotated[RunSettings, EXECUTION] = RunSettings()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.prompts is not None and self.build is not None:
            raise ValueError("'prompts' and 'build' both choose the prompts; give one of them")
        if self.a.name == self.b.name:
            raise ValueError(f"both models are named {self.a.name!r}; names must differ")
        if self.a.samples != self.b.samples:
            raise ValueError("both models must give the same number of answers to a prompt: 'samples' must be equal")
        judge, reward = self.judge.reward, self.reward
        if judge and reward and judge.name == reward.name and identify(judge) != identify(reward):
            raise ValueError(
                f"'judge.reward' and 'reward' are different models, both named {judge.name!r}; names must differ"
            )
        return self
