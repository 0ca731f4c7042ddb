"""What a run would send: wanted and answered requests by stage, model and language, with an estimate of tokens."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl
from rich.console import Console

from factory.stages.prompts import SeenPrompts, build_prompts
from factory.stages.sources import read_source
from factory.texts.langid import shared_detector
from flows.build.source_reading import has_read_all
from flows.build.source_rows import is_recorded
from flows.identity import Build, Lane, check_limit, resolve_build
from flows.recipe_names import open_empty, refuse_missing
from flows.terminal import make_table
from schemas.reasons import TRANSIENT_REASONS
from schemas.recipe.models import Writer
from schemas.recipe.recipe import Recipe
from warehouse.build.scope import Scope
from warehouse.build.user_sql import try_sql
from warehouse.catalog.catalog import check_folders, find_catalog
from warehouse.lake.frame_table import as_table
from warehouse.lake.lake import Lake
from warehouse.statements import TableName, read_sql

CHARS_PER_TOKEN = 3.5
"""A guess for a lane that has not run yet; one that has is estimated by what its requests have cost so far."""

SHARE_OF_MAX_TOKENS = 0.5
"""The length of a completion that is guessed for a lane that has not run yet, as a share of its max_tokens."""


@dataclass(frozen=True, slots=True)
class PlannedLane:
    """One model in one stage and one language. Later stages are counted as if every earlier row passed."""

    stage: str
    model: str
    language: str
    num_wanted: int
    num_answered: int
    num_tokens: int

    @property
    def num_to_send(self) -> int:
        return max(self.num_wanted - self.num_answered, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would send, and what its numbers do not say."""

    lanes: Sequence[PlannedLane]
    notes: Sequence[str]


def make_plan(recipe: Recipe, *, limit: int | None = None) -> Plan:
    """Read the sources and the warehouse; nothing is written and no model is started."""
    refuse_missing(recipe, with_policy=True)
    build = resolve_build(recipe)
    with _open_scratch(recipe) as lake:
        check_limit(build, lake, limit)
        with Scope.open(lake, build.config_id) as scope:
            try_sql(scope, recipe)
            planner = _Planner(build, scope, limit)
            return Plan(planner.lanes(), tuple(planner.notes()))


def print_plan(recipe: Recipe, *, limit: int | None = None) -> None:
    """Print the plan by stage and model, and by language, and what its numbers do not say."""
    plan = make_plan(recipe, limit=limit)
    console = Console()
    if plan.lanes:
        _print_tables(console, plan.lanes)
    for line in (*plan.notes, *_describe_policy(recipe), *_find_refusals(recipe, plan.lanes)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _find_refusals(recipe: Recipe, lanes: Sequence[PlannedLane]) -> Iterator[str]:
    """Yield a line for each model that would refuse what it is to be sent."""
    if any(lane.num_to_send for lane in lanes):
        from flows.doctor.recipe_trials import find_refusals

        for refusal in find_refusals(recipe):
            yield f"would fail: {refusal}"


def _print_tables(console: Console, lanes: Sequence[PlannedLane]) -> None:
    rows = [
        {
            "stage": lane.stage,
            "model": lane.model,
            "language": lane.language,
            "wanted": lane.num_wanted,
            "answered": lane.num_answered,
            "to_send": lane.num_to_send,
            "tokens_about": lane.num_tokens,
        }
        for lane in lanes
    ]
    frame = pl.DataFrame(rows)
    sums = pl.col("wanted", "answered", "to_send", "tokens_about").sum()
    console.print(make_table(frame.group_by("stage", "model", maintain_order=True).agg(sums), "by stage and model"))
    console.print(make_table(frame.group_by("language", maintain_order=True).agg(sums), "by language"))
    total = frame.select(sums).row(0, named=True)
    console.print(
        f"{total['to_send']:,} rows to send, about {total['tokens_about']:,} tokens; "
        f"{total['answered']:,} are answered already",
        soft_wrap=True,
    )
    if total["to_send"]:
        console.print("what gates and duplicates remove is counted as if it passed; a stage may send less than planned")


def _describe_policy(recipe: Recipe) -> Iterator[str]:
    """Yield a line for each step that is to be made of the data; what rounds send depends on the models before them."""
    for step in recipe.policy.steps if recipe.policy else ():
        assert recipe.policy is not None
        clusters = recipe.policy.clusters_of(step)
        models = f"{len(clusters)} models, merged ({recipe.policy.merge_of(step).method})" if clusters else "one model"
        rounds = step.on_policy
        times = f", {rounds.rounds} rounds of {rounds.samples} answers to each prompt" if rounds else ""
        yield f"then {step.name}: {step.train.objective}, {models}{times}"


@contextmanager
def _open_scratch(recipe: Recipe) -> Iterator[Lake]:
    """Open the warehouse read-only, or an empty one that goes away where there is none yet."""
    catalog = find_catalog(recipe.warehouse)
    if catalog.sqlite is None or catalog.sqlite.exists():
        with Lake.open(recipe.warehouse, read_only=True) as lake:
            yield lake
        return
    check_folders(catalog)
    with open_empty() as lake:
        yield lake


class _Planner:
    """Goes through the stages in order; what an earlier stage would send is input of the later ones."""

    def __init__(self, build: Build, scope: Scope, limit: int | None) -> None:
        self._build = build
        self._scope = scope
        self._limit = limit
        self._chars = 0
        self._roots: dict[str, str] = {}
        self._num_prompts: Counter[str] = Counter()
        self._read_sources()
        self._facts = self._query_facts()
        costs = scope.query(read_sql("reports/token_costs", lanes=[lane.settings_id for lane in build.lanes]))
        self._costs = {(stage, settings_id): cost for stage, settings_id, cost in costs.iter_rows()}
        self._planned: list[PlannedLane] = []
        self._prompts: Counter[str] = Counter()

    def lanes(self) -> list[PlannedLane]:
        """Return what is planned, in the order of the stages."""
        sources = Counter(self._roots.values())
        self._prompts = sources + self._kept("prompts") + self._translate_prompts(sources)
        sampled = self._sample(self._prompts)
        translated = self._translate_completions()
        completions = self._kept("completions") + sampled + translated
        for lane in self._build.rewards:
            self._plan("score", lane, completions)
        return self._planned

    def notes(self) -> Iterator[str]:
        """Yield what the numbers of ``lanes`` do not say: why somebody is asked nothing, and what they leave out."""
        if not self._roots:
            yield "nothing can be asked: the sources hold no prompt; a run keeps each row with its reason in 'rejections'"
            return
        asked = [lane for lane in self._build.teachers if not is_recorded(lane)]
        unread = [lane for lane in self._build.teachers if is_recorded(lane) and not self._has_answers(lane)]
        if not asked:
            found = ", ".join(f"{number:,} of {name}" for name, number in self._num_prompts.items())
            yield f"no teacher is asked for answers: all of them are recorded; the prompts are {found}"
        for lane in asked:
            if not any(planned.stage == "sample" and planned.model == lane.name for planned in self._planned):
                yield (
                    f"{lane.name} is asked for nothing: it answers in {_list(lane.languages)}, "
                    f"and the prompts are in {_list(sorted(self._prompts))}"
                )
        for lane in unread:
            yield (
                f"the recorded answers of {lane.name} have not been read: a run joins them to the prompts, and what reward "
                "models and the translator are asked about them is not counted here"
            )
        if self._is_by_sentence():
            yield "a text that is translated sentence by sentence is counted once, and is a request for each sentence"
        if self._planned and not unread and not any(planned.num_to_send for planned in self._planned):
            yield "nothing is left to send: all that the recipe asks for is answered"

    def _has_answers(self, lane: Lane) -> bool:
        return any(key[:3] == ("settled", "sample", lane.settings_id) for key in self._facts)

    def _is_by_sentence(self) -> bool:
        translator = self._build.translator
        to_send = (planned.stage.startswith("translate") and planned.num_to_send for planned in self._planned)
        return translator is not None and translator.model.engine == "transformers" and any(to_send)

    def _translate_prompts(self, sources: Counter[str]) -> Counter[str]:
        lane, translation = self._build.translator, self._build.recipe.translation
        if lane is None or translation is None or not translation.prompts:
            return Counter()
        total = sum(sources.values())
        return self._plan("translate_prompts", lane, Counter({code: total - sources[code] for code in lane.languages}))

    def _sample(self, prompts: Counter[str]) -> Counter[str]:
        sent: Counter[str] = Counter()
        for lane in self._build.teachers:
            if not is_recorded(lane):
                wanted = Counter({code: prompts[code] * lane.num_samples for code in lane.languages})
                sent += self._plan("sample", lane, wanted)
        return sent

    def _translate_completions(self) -> Counter[str]:
        lane, translation = self._build.translator, self._build.recipe.translation
        if lane is None or translation is None or not translation.completions_of:
            return Counter()
        new_answers = sum(
            planned.num_to_send
            for planned in self._planned
            if planned.stage == "sample" and planned.language == "en" and planned.model in translation.completions_of
        )
        targets = [code for code in lane.languages if code != "en"]
        return self._plan(
            "translate_completions", lane, self._kept("siblings") + Counter(dict.fromkeys(targets, new_answers))
        )

    def _plan(self, stage: str, lane: Lane, wanted: Counter[str]) -> Counter[str]:
        """Plan one lane in every language; return what it would send."""
        sent: Counter[str] = Counter()
        for language in lane.languages:
            if wanted[language]:
                answered = min(self._facts.get(("settled", stage, lane.settings_id, language), 0), wanted[language])
                sent[language] = wanted[language] - answered
                tokens = round(sent[language] * self._cost(stage, lane))
                self._planned.append(PlannedLane(stage, lane.name, language, wanted[language], answered, tokens))
        return sent

    def _kept(self, what: str) -> Counter[str]:
        return Counter({key[3]: num for key, num in self._facts.items() if key[:2] == ("kept", what)})

    def _query_facts(self) -> dict[tuple[str, str, str, str], int]:
        roots = pl.DataFrame({"root_id": list(self._roots)}, schema={"root_id": pl.String})
        with as_table(roots) as table:
            rows = self._scope.query(self._plan_sql(table)).iter_rows()
        return {(kind, stage, settings_id, language): num for kind, stage, settings_id, language, num in rows}

    def _plan_sql(self, roots: TableName) -> str:
        translation = self._build.recipe.translation
        translated = translation.completions_of if translation else ()
        return read_sql(
            "reports/plan",
            roots=roots,
            config_id=self._build.config_id,
            lanes=[lane.settings_id for lane in self._build.lanes],
            transient=sorted(TRANSIENT_REASONS),
            translated=[lane.settings_id for lane in self._build.teachers if lane.name in translated],
        )

    def _cost(self, stage: str, lane: Lane) -> float:
        """Return the tokens that one request is expected to take."""
        known = self._costs.get((stage, lane.settings_id))
        if known is not None:
            return float(known)
        prompt = self._chars / max(len(self._roots), 1) / CHARS_PER_TOKEN
        if stage == "translate_prompts":
            return 2 * prompt
        longest = max(teacher.sampling.max_tokens for teacher in self._build.recipe.teachers)
        completion = SHARE_OF_MAX_TOKENS * (
            lane.model.sampling.max_tokens if stage == "sample" and isinstance(lane.model, Writer) else longest
        )
        return 2 * completion if stage == "translate_completions" else prompt + completion

    def _read_sources(self) -> None:
        """Read what the sources hold now, as a run would; what the build has read of them already is known."""
        recipe = self._build.recipe
        known = self._scope.query(
            "SELECT prompt_id, language, messages FROM build_prompt_scope WHERE parent_id IS NULL"
        )
        self._count(known)
        if has_read_all(self._scope.lake, self._build, self._limit):
            names = [source.name for source in recipe.prompts]
            found: dict[str, int] = dict(
                self._scope.rows(read_sql("reports/read", config_id=self._build.config_id, sources=names))
            )
            self._num_prompts = Counter({name: found.get(name, 0) for name in names})
            return
        seen = SeenPrompts(recipe.prompt_gates)
        seen.remember(known)
        detect = shared_detector().detect
        for source in recipe.prompts:
            for raw in read_source(source.limited_to(self._limit)):
                gates = recipe.prompt_gates
                rows = build_prompts(raw, source=source, gates=gates, config_id="", seen=seen, detect=detect).rows
                self._num_prompts[source.name] += rows.height
                self._count(rows)

    def _count(self, prompts: pl.DataFrame) -> None:
        fresh = prompts.filter(~pl.col("prompt_id").is_in(list(self._roots)))
        self._roots |= dict(zip(fresh["prompt_id"], fresh["language"], strict=True))
        contents = pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars())
        self._chars += int(fresh.select(contents.list.sum().sum()).item())


def _list(languages: Iterable[str]) -> str:
    return ", ".join(languages) or "none of the recipe's languages"
