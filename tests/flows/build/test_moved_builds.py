"""A build and its policy that are moved or copied with all they made: they go on where they were, in their own folder."""

import shutil
from pathlib import Path

from flows.build.run import execute_build
from flows.policy.policy import PolicySummary, train_policy
from schemas.recipe.recipe import load_recipe
from tests.flows.direct import DirectEngines
from tests.flows.policy_recipe import CLUSTERS, make_policy
from warehouse.lake.lake import Lake


def run(home: Path, log: Path) -> tuple[PolicySummary, str, int]:
    """Run the recipe of a folder up to the policy's first step; return what came of it, and how much was asked."""
    recipe = load_recipe(home / "small.toml")
    engines = DirectEngines(log=log)
    build = execute_build(recipe, quiet=True, open_engine=engines)
    policy = train_policy(recipe, build, until="sft", quiet=True, open_engine=engines)
    assert build.export_path is not None
    return policy, build.export_path, len(log.read_text().splitlines())


def name_in_recipe(home: Path, old: Path) -> None:
    """Let the recipe of a moved folder name what is in it, as its user would."""
    path = home / "small.toml"
    path.write_text(path.read_text().replace(str(old), str(home)))


def list_models(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (home / "models" / "small").iterdir()}


def test_a_moved_build_finds_its_exports_and_steps(write_recipe, tmp_path):
    first, log = tmp_path / "l'été 湖", tmp_path / "asked.log"
    table = make_policy(max_steps=1).replace('models = "models"', f'models = "{tmp_path}/models"')
    write_recipe(extra=table.replace(CLUSTERS, "{}"))
    first.mkdir()
    for name in ("small.toml", "models", "prompts.jsonl"):
        (tmp_path / name).rename(first / name)
    name_in_recipe(first, tmp_path)
    policy, export, num_asked = run(first, log)
    assert Path(export).parent == first / "exports" / "small"
    models = list_models(first)

    second = Path(shutil.copytree(first, tmp_path / "copy"))  # with the times of all files
    name_in_recipe(second, first)
    copied, its_export, num_asked_then = run(second, log)
    assert num_asked_then == num_asked, "nothing is asked again"
    assert list_models(second) == models, "nothing is trained again"
    assert its_export == export.replace(str(first), str(second))
    assert copied.policy_id == policy.policy_id
    assert copied.kept.model == policy.kept.model.replace(str(first), str(second)), "its own model, not the original's"

    shutil.rmtree(first)
    third = second.rename(tmp_path / "moved")
    name_in_recipe(third, second)
    moved, its_export, num_asked_then = run(third, log)
    assert num_asked_then == num_asked
    assert list_models(third) == models
    assert Path(its_export).is_dir()
    assert Path(moved.kept.model).is_relative_to(third)
    with Lake.open(load_recipe(third / "small.toml").warehouse, read_only=True) as lake:
        assert lake.query("SELECT count(*) FROM exports").item() == 1
