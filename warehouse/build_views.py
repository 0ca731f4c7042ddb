"""The views over one build: what people and curation select from."""

import threading
from weakref import WeakKeyDictionary

import polars as pl

from schemas.errors import WarehouseError
from warehouse.lake import Lake
from warehouse.slices import choose_num_slices
from warehouse.statements import read_sql

VIEWS = (
    "build_recipe",
    "build_teachers",
    "build_translators",
    "build_size",
    "build_prompt_scope",
    "kept_prompt_ids",
    "kept_prompts",
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
)
"""Every view, each after those that it reads."""

_INSTALLING = threading.Lock()
"""DuckDB refuses to replace a view that another cursor is replacing."""

_INSTALLED: WeakKeyDictionary[Lake, tuple[str, ...]] = WeakKeyDictionary()
"""Of which build the views of a lake speak, how they combine its rewards, whether it translates, its reward models."""


def use_build(lake: Lake, config_id: str | None) -> None:
    """Make the views of ``sql/views`` speak of one build, for every cursor of the lake; of none, they are empty.

    The views follow the tables, but how rewards are combined and whether there are translations is settled here: call
    this once the build's rows are in ``builds`` and ``build_models``.
    """
    build = config_id or ""
    models, translates = _models(lake, build)
    combination = "single" if len(models) < 2 else _combination(lake, build)
    files = {name: f"views/{name}" for name in VIEWS} | {"build_rewards": f"rewards/{combination}"}
    values = {"config_id": build, "reward_fingerprint": models[0] if models else None, "translates": translates}
    state = (build, combination, str(translates), *models)
    with _INSTALLING:
        if _INSTALLED.get(lake) != state:
            lake.install_views({name: read_sql(file, **values) for name, file in files.items()})
            _INSTALLED[lake] = state


def latest_build(lake: Lake, name: str | None = None) -> str | None:
    """Return the config id of the build that was run last, of those of a name (or a config id); none when there is none.

    Builds of online rounds are meant only where they are named.

    Raises:
        WarehouseError: there are builds, but none of that name.
    """
    builds = lake.query(
        "SELECT config_id, name, (recipe::JSON ->> '$.round')::INTEGER AS round FROM builds ORDER BY recorded_at DESC, run_id DESC"
    )
    for config_id, label, number in builds.iter_rows():
        if name in (label, config_id) or (name is None and not number):
            return str(config_id)
    if name is None:
        return None
    known = ", ".join(dict.fromkeys(builds["name"])) or "none yet"
    raise WarehouseError(f"no build is named {name!r}; the warehouse has: {known}")


def count_slices(lake: Lake) -> int:
    """Return into how many slices queries cut the build in use, so that what they hold in memory does not follow it."""
    most = choose_num_slices(int(lake.query("SELECT count(*) FROM prompts").item()))  # known without a look at the rows
    return most if most == 1 else choose_num_slices(int(lake.query("SELECT num_prompts FROM build_size").item()))


def count_each_stage(lake: Lake) -> pl.DataFrame:
    """Return the rows of the view ``stages`` of the build in use, added up slice by slice."""
    parts = pl.concat(lake.stream("FROM stages", slices=count_slices(lake)))
    return parts.group_by("stage", maintain_order=True).sum()


def _models(lake: Lake, config_id: str) -> tuple[list[str], bool]:
    """Return the lanes of the build's reward models, in order, and whether it has a translator."""
    sql = "SELECT DISTINCT role, settings_id FROM build_models WHERE config_id = ? ORDER BY ALL"
    lanes = lake.query(sql, [config_id]).rows()
    return [lane for role, lane in lanes if role == "reward"], any(role == "translator" for role, _ in lanes)


def _combination(lake: Lake, config_id: str) -> str:
    """Return how the rewards of several models are combined: the name of a file of ``sql/rewards``."""
    recipe = lake.query(
        "SELECT any_value(recipe::JSON ->> '$.rewards.combine') FROM builds WHERE config_id = ?", [config_id]
    )
    return str(recipe.item() or "mean_rank")
