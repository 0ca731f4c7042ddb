"""The export of a recipe's build, on its own: as it is now, or was at a snapshot."""

from pathlib import Path

from flows.identity import open_made_build
from schemas.recipe.recipe import Recipe
from warehouse.export.export import export_build


def export_recipe(recipe: Recipe, *, snapshot: int | None, push: str | None) -> Path:
    """Export a recipe's build as it is, or was at a snapshot, and push it where asked; return the folder.

    Raises:
        FactoryError: no build of the recipe has run; or whatever else the user can mend.
    """
    with open_made_build(recipe, read_only=False) as (build, lake):
        result = export_build(lake, build.config_id, recipe, Path(recipe.run.exports), snapshot=snapshot)
    target = push or recipe.run.push_to_hub
    if target:
        from warehouse.export.hub import push_export  # loads the hub's client

        push_export(result.path, target)
    return result.path
