"""What a run would send: wanted and answered requests by stage, model and language, with an estimate of tokens."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from rich.console import Console

from factory.engines.langid import LanguageDetector
from factory.stages.prompts import SeenPrompts, build_prompts
from factory.stages.rows import Detect
from factory.stages.sources import read_source
from flows.identity import Build, Lane, resolve_build
from flows.report import make_table
from schemas.reasons import TRANSIENT_REASONS
from schemas.recipe import Recipe, Teacher, WarehouseSettings
from warehouse.build_views import use_build
from warehouse.lake import Lake
from warehouse.statements import read_sql

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


def make_plan(recipe: Recipe, *, limit: int | None = None) -> list[PlannedLane]:
    """Read the sources and the warehouse; nothing is written and no model is started."""
    build = resolve_build(recipe)
    with _open_scratch(recipe) as lake:
        use_build(lake, build.config_id)
        planner = _Planner(build, lake, limit)
        return planner.lanes()


def print_plan(recipe: Recipe, *, limit: int | None = None) -> None:
    """Print the plan by stage and model, and by language."""
    lanes = make_plan(recipe, limit=limit)
    console = Console()
    if not lanes:
        console.print("the recipe asks for no requests: its sources hold no prompts in a language of its teachers")
        return
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
        f"{total['to_send']:,} requests to send, about {total['tokens_about']:,} tokens; "
        f"{total['answered']:,} are answered already"
    )
    console.print("what gates and duplicates remove is counted as if it passed; a stage may send less than planned")


@contextmanager
def _open_scratch(recipe: Recipe) -> Iterator[Lake]:
    """Open the warehouse read-only, or an empty one that goes away where there is none yet."""
    catalog = recipe.warehouse.catalog
    if "://" in catalog or Path(catalog).exists():
        with Lake.open(recipe.warehouse, read_only=True) as lake:
            yield lake
        return
    with TemporaryDirectory() as folder:
        empty = WarehouseSettings(catalog=f"{folder}/catalog.sqlite", data=f"{folder}/data")
        with Lake.open(empty) as lake:
            yield lake


class _Planner:
    def __init__(self, build: Build, lake: Lake, limit: int | None) -> None:
        self._build = build
        self._lake = lake
        self._limit = limit
        self._chars = 0
        self._sources = self._count_sources()
        self._answered = {
            tuple(row[:3]): row[3]
            for row in lake.query(
                read_sql("reports/answered", config_id=build.config_id, transient=sorted(TRANSIENT_REASONS))
            ).iter_rows()
        }
        self._costs = {
            tuple(row[:2]): row[2]
            for row in lake.query(read_sql("reports/token_costs", config_id=build.config_id)).iter_rows()
        }

    def lanes(self) -> list[PlannedLane]:
        planned: list[PlannedLane] = []
        prompts = self._translate_prompts(planned)
        completions = self._sample(planned, prompts)
        self._translate_completions(planned, completions)
        for lane in self._build.rewards:
            self._add(planned, "score", lane, completions)
        return planned

    def _translate_prompts(self, planned: list[PlannedLane]) -> Counter[str]:
        lane, translation = self._build.translator, self._build.recipe.translation
        prompts = Counter(self._sources)
        if lane is not None and translation is not None and translation.prompts:
            total = sum(self._sources.values())
            wanted = Counter({language: total - self._sources[language] for language in lane.languages})
            self._add(planned, "translate_prompts", lane, wanted)
            prompts += wanted
        return prompts

    def _sample(self, planned: list[PlannedLane], prompts: Counter[str]) -> Counter[str]:
        completions: Counter[str] = Counter()
        for lane in self._build.teachers:
            if isinstance(lane.model, Teacher) and lane.model.recorded:
                continue
            wanted = Counter({language: prompts[language] * lane.num_samples for language in lane.languages})
            self._add(planned, "sample", lane, wanted)
            completions += wanted
        return completions

    def _translate_completions(self, planned: list[PlannedLane], completions: Counter[str]) -> None:
        lane, translation = self._build.translator, self._build.recipe.translation
        if lane is None or translation is None or not translation.completions_of:
            return
        samples = sum(
            teacher.num_samples
            for teacher in self._build.teachers
            if teacher.name in translation.completions_of and "en" in teacher.languages
        )
        wanted = Counter({language: self._sources["en"] * samples for language in lane.languages if language != "en"})
        self._add(planned, "translate_completions", lane, wanted)
        completions += wanted

    def _add(self, planned: list[PlannedLane], stage: str, lane: Lane, wanted: Counter[str]) -> None:
        for language in lane.languages:
            if wanted[language]:
                answered = min(self._answered.get((stage, lane.settings_id, language), 0), wanted[language])
                tokens = round((wanted[language] - answered) * self._cost(stage, lane))
                planned.append(PlannedLane(stage, lane.name, language, wanted[language], answered, tokens))

    def _cost(self, stage: str, lane: Lane) -> float:
        """Return the tokens that one request is expected to take."""
        known = self._costs.get((stage, lane.settings_id))
        if known is not None:
            return float(known)
        prompt = self._chars / max(sum(self._sources.values()), 1) / CHARS_PER_TOKEN
        sampling = getattr(lane.model, "sampling", None)
        if stage == "translate_prompts":
            return 2 * prompt
        longest = max(teacher.sampling.max_tokens for teacher in self._build.recipe.teachers)
        completion = SHARE_OF_MAX_TOKENS * (sampling.max_tokens if stage == "sample" and sampling else longest)
        return 2 * completion if stage == "translate_completions" else prompt + completion

    def _count_sources(self) -> Counter[str]:
        """Count the prompts that the sources hold now, by language, as reading them would."""
        counts: Counter[str] = Counter()
        recipe = self._build.recipe
        seen = SeenPrompts(recipe.prompt_gates)
        detect = LanguageDetector().detect
        known = self._lake.query("SELECT prompt_id, language, messages FROM build_prompt_scope WHERE parent_id IS NULL")
        seen.remember(known)
        ids: set[str] = set()
        for frame in (known, *self._read_sources(seen, detect)):
            fresh = frame.filter(~pl.col("prompt_id").is_in(ids))
            counts.update(fresh["language"])
            ids.update(fresh["prompt_id"])
            contents = pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars())
            self._chars += int(fresh.select(contents.list.sum().sum()).item())
        return counts

    def _read_sources(self, seen: SeenPrompts, detect: Detect) -> Iterator[pl.DataFrame]:
        gates = self._build.recipe.prompt_gates
        for source in self._build.recipe.prompts:
            limited = source if self._limit is None else source.model_copy(update={"limit": self._limit})
            for raw in read_source(limited):
                yield build_prompts(raw, source=source, gates=gates, config_id="", seen=seen, detect=detect).rows
