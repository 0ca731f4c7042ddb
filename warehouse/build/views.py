"""The views over one build: what people and curation select from."""

import json
import threading
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import polars as pl

from schemas.errors import WarehouseError
from warehouse.lake.lake import Lake
from warehouse.lake.slices import choose_num_slices
from warehouse.statements import Value, read_sql

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
    "build_completions",
    "kept_completions",
    "build_rewards",
    "scored_completions",
    "candidates",
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

MIN_ID_CHARS = 6
"""How much of a config id must be given to name a build by its beginning."""

_INSTALLING = threading.Lock()
"""DuckDB refuses to replace a view that another cursor is replacing."""


@dataclass(frozen=True, slots=True)
class _Settled:
    """What is written into the views of a build. ``reward_models`` are lanes; ``eval_percents`` goes by source."""

    config_id: str
    reward_models: tuple[str, ...]
    combination: str
    translates: bool
    translates_prompts: bool
    eval_percents: dict[str, str]


_INSTALLED: WeakKeyDictionary[Lake, _Settled] = WeakKeyDictionary()
"""Of which build the views of a lake speak."""


def use_build(lake: Lake, config_id: str | None) -> None:
    """Make the views of ``sql/views`` speak of one build, for every cursor of the lake; of none, they are empty.

    The views follow the tables, but how rewards are combined, what is held out and whether there are translations is
    settled here: call this once the build's rows are in ``builds`` and ``build_models``.
    """
    build = _look_up(lake, config_id or "")
    files = {name: f"views/{name}" for name in VIEWS} | {"build_rewards": f"rewards/{build.combination}"}
    values: dict[str, Value] = {
        "config_id": build.config_id,
        "reward_fingerprint": build.reward_models[0] if build.reward_models else None,
        "translates": build.translates,
        "translates_prompts": build.translates_prompts,
        "eval_percents": build.eval_percents,
    }
    with _INSTALLING:
        if _INSTALLED.get(lake) != build:
            lake.install_views({name: read_sql(file, **values) for name, file in files.items()})
            _INSTALLED[lake] = build


def latest_build(lake: Lake, name: str | None = None) -> str | None:
    """Return the config id of the build that was run last, of those of a name; none when there is none.

    A config id, or its beginning, names a build too. Builds of online rounds are meant only where they are named.

    Raises:
        WarehouseError: there are builds, but none of that name; or several config ids begin with it.
    """
    builds = lake.query(
        "SELECT config_id, name, (recipe::JSON ->> '$.round')::INTEGER AS round FROM builds ORDER BY recorded_at DESC, run_id DESC"
    )
    for config_id, label, number in builds.iter_rows():
        if name in (label, config_id) or (name is None and not number):
            return str(config_id)
    return None if name is None else _find_beginning(builds, name)


def _find_beginning(builds: pl.DataFrame, name: str) -> str:
    """Return the one config id that begins with a name that is long enough to be meant as its beginning."""
    found = {
        str(config_id): label
        for config_id, label, _ in builds.iter_rows()
        if len(name) >= MIN_ID_CHARS and config_id.startswith(name)
    }
    if len(found) == 1:
        return next(iter(found))
    if found:
        several = ", ".join(sorted(f"{label} ({config_id})" for config_id, label in found.items()))
        raise WarehouseError(f"several config ids begin with {name!r}: {several}; name one whole")
    known = ", ".join(dict.fromkeys(builds["name"])) or "none yet"
    hint = f" (of an id, {MIN_ID_CHARS} characters are needed)" if len(name) < MIN_ID_CHARS else ""
    raise WarehouseError(f"no build is named {name!r}; the warehouse has: {known}{hint}")


def count_slices(lake: Lake) -> int:
    """Return into how many slices queries cut the build in use, so that what they hold in memory does not follow it."""
    most = choose_num_slices(int(lake.query("SELECT count(*) FROM prompts").item()))  # known without a look at the rows
    return most if most == 1 else choose_num_slices(int(lake.query("SELECT num_prompts FROM build_size").item()))


def count_each_stage(lake: Lake) -> pl.DataFrame:
    """Return the rows of the view ``stages`` of the build in use, added up slice by slice."""
    parts = pl.concat(lake.stream("FROM stages", slices=count_slices(lake)))
    return parts.group_by("stage", maintain_order=True).sum()


def _look_up(lake: Lake, config_id: str) -> _Settled:
    """Return what the views of a build must know of its models and its recipe."""
    found = lake.query(
        """
        SELECT
            (SELECT any_value(recipe) FROM builds WHERE config_id = $1) AS recipe,
            (SELECT list_sort(list(DISTINCT [role, settings_id])) FROM build_models WHERE config_id = $1) AS models
        """,
        [config_id],
    )
    recipe, models = json.loads(found["recipe"].item() or "{}"), found["models"].item()
    lanes = [] if models is None else models.to_list()
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
    )
