"""The scope of one build: its views, which people and curation select from, and every query that speaks of it."""

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from schemas.errors import WarehouseError
from schemas.names import suggest
from warehouse.build.reward_index import find_indexed
from warehouse.lake.cursors import Values
from warehouse.lake.lake import Lake
from warehouse.lake.slices import choose_num_slices
from warehouse.statements import TableName, Value, read_sql

if TYPE_CHECKING:
    import polars as pl

    from warehouse.lake.spool import Spool

VIEWS = (
    "build_recipe",
    "build_teachers",
    "build_translators",
    "build_size",
    "split_prompts",
    "build_prompt_scope",
    "kept_prompt_ids",
    "kept_prompts",
    "unjoined_answers",
    "build_answers",
    "build_completions",
    "kept_completions",
    "build_rewards",
    "scored_completions",
    "described_rewards",
    "scored_without_text",
    "candidates",
    "candidates_without_text",
    "arbitrage",
    "rewards_by_language",
    "lineage",
    "stages",
    "rejections_by_reason",
    "usage_by_stage",
    "ancestry",
    "learnt_from",
    "policy_steps",
)
"""Every view, each after those that it reads."""

_VIEW_NAMES = re.compile(rf"\b(?:{'|'.join(VIEWS)})\b", re.IGNORECASE)

_LISTS_VIEWS = re.compile(r"\bSHOW\b|\bduckdb_|\bpg_|\binformation_schema\b|\bsqlite_master\b", re.IGNORECASE)
"""What a statement says that asks which views there are."""

COUNTED_PROMPTS = 1_000_000
"""Prompts that are counted at a time, of which about half a kilobyte each is held."""

MIN_ID_CHARS = 6
"""How much of a config id must be given to name a build by its beginning."""


@dataclass(frozen=True, slots=True)
class _Settled:
    """What is written into the views of a build. ``reward_models`` are lanes; ``eval_percents`` goes by source."""

    config_id: str
    reward_models: tuple[str, ...]
    combination: str
    translates: bool
    translates_prompts: bool
    eval_percents: dict[str, str]
    indexed: int | None


class Scope:
    """One build of a lake, or one evaluation: its views, and every query that speaks of it.

    A view is made when a statement first names it, since making all of them takes as long as a small build's queries.
    They follow the tables, but how rewards are combined, what is held out and whether there are translations is settled
    with the first of them: open a scope once the build's rows are in ``builds`` and ``build_models``. Scopes of one lake
    do not see each other. ``lake`` is for what concerns no build.
    """

    def __init__(self, lake: Lake, config_id: str, schema: str) -> None:
        self.lake = lake
        self.config_id = config_id
        self._schema = schema
        self._selects: dict[str, str] = {}
        self._made: set[str] = set()
        self._making = threading.Lock()

    @classmethod
    def open(cls, lake: Lake, config_id: str | None) -> Self:
        """Open the scope of a build; of none, its views are empty."""
        return cls(lake, config_id or "", lake.make_schema("build"))

    def refresh_views(self) -> None:
        """Have the views made anew: after the reward index has grown, they read it as far as it goes now."""
        with self._making:
            self._selects, self._made = {}, set()

    def make_views_for(self, *statements: str) -> str:
        """Make the views that statements name and that are not there yet; return the schema in which they are."""
        with self._making:
            if any(map(_LISTS_VIEWS.search, statements)):
                statements = VIEWS
            if any(map(_VIEW_NAMES.search, statements)):
                self._selects = self._selects or _select_views(_look_up(self.lake, self.config_id))
                wanted = _find_named(statements, self._selects) - self._made
                if wanted:
                    self.lake.make_views(self._schema, {name: self._selects[name] for name in VIEWS if name in wanted})
                    self._made |= wanted
        return self._schema

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the views."""
        self.lake.drop_schema(self._schema)

    def add_views(self, selects: Mapping[str, str]) -> None:
        """Make more views that this scope alone sees, each after those that it reads."""
        self.lake.make_views(self.make_views_for(*selects.values()), selects)

    def drop_view(self, name: str) -> None:
        """Drop a view that was added."""
        self.rows(f'DROP VIEW memory."{self._schema}"."{name}"')

    def query(self, sql: str, parameters: Sequence[Value] = (), *, joined_as_written: bool = False) -> "pl.DataFrame":
        """Return the rows of a query; see ``Lake.query``."""
        return self.lake.query(sql, parameters, joined_as_written=joined_as_written, schema=self.make_views_for(sql))

    def rows(self, sql: str, parameters: Sequence[Value] = ()) -> list[Values]:
        """Return the few rows of a query as Python has them; see ``Lake.rows``."""
        return self.lake.rows(sql, parameters, schema=self.make_views_for(sql))

    def value(self, sql: str, parameters: Sequence[Value] = ()) -> Any:
        """Return the one value of a query; see ``Lake.value``."""
        return self.lake.value(sql, parameters, schema=self.make_views_for(sql))

    def stream_rows(self, sql: str) -> Iterator[Values]:
        """Yield the rows of a query as Python has them; see ``Lake.stream_rows``."""
        return self.lake.stream_rows(sql, schema=self.make_views_for(sql))

    def stream(
        self,
        sql: str,
        parameters: Sequence[Value] = (),
        *,
        batch_rows: int = 10_000,
        joined_as_written: bool = False,
        slices: int = 1,
    ) -> "Iterator[pl.DataFrame]":
        """Yield the rows of a query in frames; see ``Lake.stream``."""
        return self.lake.stream(
            sql,
            parameters,
            batch_rows=batch_rows,
            joined_as_written=joined_as_written,
            slices=slices,
            schema=self.make_views_for(sql),
        )

    def spool(self, sql: str) -> "Spool":
        """Run a query on the build's slices and return its rows in a temporary file; see ``Lake.spool``."""
        return self.lake.spool(sql, slices=self.count_slices(), schema=self.make_views_for(sql))

    def insert_select(self, table: str, select: str) -> int:
        """Add the rows of a query that runs on the build's slices; see ``Lake.insert_select``."""
        return self.lake.insert_select(table, select, slices=self.count_slices(), schema=self.make_views_for(select))

    def hold(self, name: str, select: str, *, slices: int = 1) -> None:
        """Make a table of the rows of a query; see ``Lake.hold``."""
        self.lake.hold(name, select, slices=slices, schema=self.make_views_for(select))

    def count_slices(self, per_slice: int | None = None) -> int:
        """Return into how many slices queries cut the build, so that what they hold in memory does not follow it.

        ``per_slice`` is how many prompts a slice may have where the query holds little of each.
        """
        most = choose_num_slices(self.value("SELECT count(*) FROM prompts"), per_slice)  # known without a look at rows
        return most if most == 1 else choose_num_slices(self.value("SELECT num_prompts FROM build_size"), per_slice)

    def count_each_stage(self) -> "pl.DataFrame":
        """Return the rows of the view ``stages``, added up slice by slice."""
        import polars as pl

        parts = pl.concat(self.stream("FROM stages", slices=self.count_slices(COUNTED_PROMPTS), joined_as_written=True))
        return parts.group_by("stage", maintain_order=True).sum()


def _find_named(statements: Iterable[str], selects: Mapping[str, str]) -> set[str]:
    """Return the views that statements name, and those that these read in turn."""
    found: set[str] = set()
    while statements:
        named = {name.lower() for statement in statements for name in _VIEW_NAMES.findall(statement)}
        statements = [selects[name] for name in named - found]
        found |= named
    return found


def _select_views(build: _Settled) -> dict[str, str]:
    """Return the SELECT of every view."""
    values: dict[str, Value] = {
        "config_id": build.config_id,
        "reward_fingerprint": build.reward_models[0] if build.reward_models else None,
        "translates": build.translates,
        "translates_prompts": build.translates_prompts,
        "eval_percents": build.eval_percents,
        "indexed": build.indexed,
        "completions": TableName("completions"),
    }
    values |= {"answers": TableName("build_answers")}
    values |= {"scored": TableName("scored_completions")}
    files = {name: f"views/{name}" for name in VIEWS} | {"candidates_without_text": "views/candidates"}
    files["build_rewards"] = f"rewards/{build.combination}"
    views = {name: read_sql(file, **values) for name, file in files.items()}
    views["candidates_without_text"] = _leave_out_text(values)
    views["kept_completions"] = _select_kept(TableName("build_completions"), values)
    if build.indexed is not None:
        indexed = read_sql("views/indexed_rewards", **values)
        views["described_rewards"] = f"{indexed} UNION ALL BY NAME ({views['described_rewards']})"
    if build.combination == "single":
        views["scored_without_text"] = _select_kept(_select_described(values), values)
    return views


def _leave_out_text(values: dict[str, Value]) -> str:
    """Return the SELECT of candidates less their texts, for queries that need none."""
    narrow = TableName("(SELECT *, NULL AS text FROM scored_without_text)")
    return f"SELECT * EXCLUDE (text) FROM ({read_sql('views/candidates', **values | {'scored': narrow})}) AS candidates"


def _select_kept(completions: TableName, values: dict[str, Value]) -> str:
    return read_sql("views/kept_completions", **values | {"completions": completions})


def _select_described(values: dict[str, Value]) -> TableName:
    """Return the build's completions that are scored, gated or not, of the view ``described_rewards``."""
    values = values | {"completions": TableName("described_rewards")}
    values |= {"answers": TableName(f"({read_sql('views/build_answers', **values)})")}
    return TableName(f"({read_sql('views/build_completions', **values)})")


def latest_build(lake: Lake, name: str | None = None) -> str | None:
    """Return the config id of the build that was run last, of those of a name; none when there is none.

    A config id, or its beginning, names a build too. Builds of online rounds are meant only where they are named.

    Raises:
        WarehouseError: there are builds, but none of that name; or several config ids begin with it.
    """
    builds = lake.rows(
        "SELECT config_id, name, (recipe::JSON ->> '$.round')::INTEGER AS round FROM builds ORDER BY recorded_at DESC, run_id DESC"
    )
    for config_id, label, number in builds:
        if name in (label, config_id) or (name is None and not number):
            return str(config_id)
    return None if name is None else _find_beginning(builds, name)


def _find_beginning(builds: list[Values], name: str) -> str:
    """Return the one config id that begins with a name that is long enough to be meant as its beginning."""
    found = {
        str(config_id): label
        for config_id, label, _ in builds
        if len(name) >= MIN_ID_CHARS and config_id.startswith(name)
    }
    if len(found) == 1:
        return next(iter(found))
    if found:
        several = ", ".join(sorted(f"{label} ({config_id})" for config_id, label in found.items()))
        raise WarehouseError(f"several config ids begin with {name!r}: {several}; name one whole")
    labels = list(dict.fromkeys(str(label) for _, label, _ in builds))
    hint = f" (of an id, {MIN_ID_CHARS} characters are needed)" if len(name) < MIN_ID_CHARS else ""
    raise WarehouseError(
        f"no build is named {name!r}{suggest(name, labels)}; the warehouse has: {', '.join(labels) or 'none yet'}{hint}"
    )


def _look_up(lake: Lake, config_id: str) -> _Settled:
    """Return what the views of a build must know of its models and its recipe."""
    ((recipe_json, models),) = lake.rows(
        """
        SELECT
            (SELECT any_value(recipe) FROM builds WHERE config_id = $1) AS recipe,
            (SELECT list_sort(list(DISTINCT [role, settings_id])) FROM build_models WHERE config_id = $1) AS models
        """,
        [config_id],
    )
    recipe, lanes = json.loads(recipe_json or "{}"), models or []
    reward_models = tuple(lane for role, lane in lanes if role == "reward")
    translates = any(role == "translator" for role, _ in lanes)
    return _Settled(
        config_id,
        reward_models,
        "single" if len(reward_models) < 2 else recipe.get("rewards", {}).get("combine", "mean_rank"),
        translates,
        translates and (recipe.get("translation") or {}).get("prompts", True),
        {
            source["name"]: str(source["eval_percent"])
            for source in recipe.get("prompts", ())
            if "eval_percent" in source
        },
        find_indexed(lake),
    )
