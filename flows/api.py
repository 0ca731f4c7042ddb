"""The factory from Python: what the commands do, as functions with types.

```python
import flows.api as factory
```

These names and signatures are kept stable; the modules behind them are not. A mistake that the user can mend is a
``FactoryError``, one sentence, as on the command line. What a function needs is imported when it is called.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from schemas.errors import FactoryError
from schemas.recipe.recipe import Recipe, load_recipe
from schemas.recipe.settings import WarehouseSettings

if TYPE_CHECKING:
    import polars as pl

    from factory.merging.result import MergeResult
    from factory.training.result import TrainResult
    from flows.evaluation.evaluate import EvaluationResult
    from flows.recipe_run import RecipeSummary
    from schemas.recipe.evaluation import EvaluationSettings
    from schemas.recipe.merging import MergeSettings
    from schemas.recipe.training import TrainSettings

__all__ = [
    "FactoryError",
    "Warehouse",
    "evaluate",
    "export",
    "load_recipe",
    "merge",
    "open_warehouse",
    "run",
    "train",
]

Place: TypeAlias = Recipe | WarehouseSettings | Path | str
"""Where a warehouse lies: a recipe's, as its settings say, or the folder of a local one."""


class Warehouse:
    """A warehouse that is open for reading, and the views of one of its builds. A context manager."""

    def __init__(self, settings: WarehouseSettings, *, build: str | None, as_of: int | None) -> None:
        from warehouse.shell.shell import open_for_reading

        self._open = contextlib.ExitStack()
        self._scope = self._open.enter_context(open_for_reading(settings, build=build, as_of=as_of))

    @property
    def config_id(self) -> str:
        """The id of the build that the views speak of; empty where no build has run yet."""
        return self._scope.config_id

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> "pl.DataFrame":
        """Return the rows of one query over the tables and views; ``?`` in it stands for a parameter.

        Raises:
            WarehouseError: the query cannot be run.
        """
        return self._scope.query(sql, parameters)

    def close(self) -> None:
        """Close the warehouse."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_warehouse(place: Place = "lake", *, build: str | None = None, as_of: int | None = None) -> Warehouse:
    """Open a warehouse for reading.

    Args:
        place: a recipe, the settings of a warehouse, or the folder of a local one.
        build: the build that the views speak of: its name, its config id, or the beginning of that; none: the latest.
        as_of: the snapshot to read; none: the newest.

    Raises:
        WarehouseError: there is none, it cannot be opened, or it has no such build.
    """
    return Warehouse(find_warehouse(place), build=build, as_of=as_of)


def run(recipe: Recipe, *, until: str | None = None, limit: int | None = None, quiet: bool = False) -> "RecipeSummary":
    """Run a recipe, or go on with it, as ``factory run`` does: what is answered is never asked again.

    Args:
        recipe: from ``load_recipe``.
        until: the stage, or the step of the policy, to stop after; none: the last one.
        limit: read only the first prompts of each source, this many.
        quiet: say nothing but errors.

    Raises:
        FactoryError: whatever the user can mend; BuildStoppedError after Ctrl-C or SIGTERM.
    """
    from flows.recipe_names import check_run

    until = check_run(recipe, until)  # before a server is started in vain
    from flows.orchestration.watching import watch

    with watch(recipe, quiet=quiet) as watcher:
        from flows.recipe_run import build

        return build(recipe, watcher, until=until, limit=limit, quiet=quiet)


def export(recipe: Recipe, *, as_of: int | None = None, push: str | None = None) -> Path:
    """Write the training shards of a recipe's build and return their folder, as ``factory export`` does.

    Args:
        recipe: from ``load_recipe``; its build must have run.
        as_of: the snapshot to export; none: the newest.
        push: push to this data set of the Hugging Face hub.

    Raises:
        FactoryError: no build of the recipe has run, it has nothing to export, or the files cannot be written.
    """
    from flows.build.export import export_recipe

    return export_recipe(recipe, snapshot=as_of, push=push)


def train(
    settings: "TrainSettings | Path | str", output: Path | str, *, warehouse: Place | None = None, quiet: bool = False
) -> "TrainResult":
    """Train a model, or go on with it, as ``factory train`` does: a run that is complete is not run again.

    Args:
        settings: what to train, on what and how, or a TOML file with a ``[train]`` table.
        output: the run's folder; the model is in ``output/model``.
        warehouse: where to record the model; none: nowhere.
        quiet: say nothing but errors.

    Raises:
        RecipeError: the file holds a value that is not allowed.
        TrainingError: the run could not start or go on.
    """
    from flows.models.train import train_and_record
    from schemas.recipe.training import load_train_settings

    wanted = load_train_settings(Path(settings)) if isinstance(settings, Path | str) else settings
    return train_and_record(wanted, Path(output), warehouse=_find_optional(warehouse), quiet=quiet)


def merge(
    settings: "MergeSettings | Path | str", output: Path | str, *, warehouse: Place | None = None, quiet: bool = False
) -> "MergeResult":
    """Merge models into one, as ``factory merge`` does.

    Args:
        settings: which models, by which method and weights, or a TOML file with a ``[merge]`` table.
        output: the folder to write, which must not exist yet.
        warehouse: where to record the model; none: nowhere.
        quiet: say nothing but errors.

    Raises:
        RecipeError: the file holds a value that is not allowed.
        InputError: the models cannot be read or do not fit each other.
    """
    from flows.models.merge import merge_and_record
    from schemas.recipe.merging import MergeSettings
    from schemas.toml.toml_file import load_table

    wanted = load_table(Path(settings), "merge", MergeSettings) if isinstance(settings, Path | str) else settings
    return merge_and_record(wanted, Path(output), warehouse=_find_optional(warehouse), quiet=quiet)


def evaluate(
    settings: "EvaluationSettings | Path | str", *, warehouse: Place = "lake", quiet: bool = False
) -> "EvaluationResult":
    """Let two models answer held-out prompts and a judge compare them, as ``factory evaluate winrate`` does.

    Args:
        settings: who plays, on which prompts, and who judges, or a TOML file with an ``[evaluation]`` table.
        warehouse: where the prompts are and the answers and verdicts go.
        quiet: say nothing but errors.

    Returns:
        Win rates by language in ``rates`` and what the answers are like in ``answers``, both polars frames.

    Raises:
        FactoryError: whatever the user can mend; BuildStoppedError after Ctrl-C or SIGTERM.
    """
    from flows.evaluation.evaluate import evaluate as run_evaluation
    from schemas.recipe.evaluation import EvaluationSettings
    from schemas.toml.toml_file import load_table

    if isinstance(settings, Path | str):
        settings = load_table(Path(settings), "evaluation", EvaluationSettings)
    return run_evaluation(settings, find_warehouse(warehouse), quiet=quiet)


def find_warehouse(place: Place) -> WarehouseSettings:
    """Return the settings of a warehouse."""
    if isinstance(place, Recipe):
        return place.warehouse
    if isinstance(place, WarehouseSettings):
        return place
    return WarehouseSettings(catalog=str(Path(place) / "catalog.sqlite"), data=str(Path(place) / "data"))


def _find_optional(place: Place | None) -> WarehouseSettings | None:
    return None if place is None else find_warehouse(place)
