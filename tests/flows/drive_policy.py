"""Runs a recipe with its policy over stand-ins in a process of its own: ``python -m tests.flows.drive_policy RECIPE MARKER``.

Merging is slowed down, and writes the file MARKER while it is at it, so that it can be killed in the middle.
"""

import os
import sys
from pathlib import Path

import flows.models.merge
from flows.build.run import execute_build
from flows.policy.policy import train_policy
from schemas.recipe.recipe import load_recipe
from tests.flows import slow_merging
from tests.flows.direct import DirectEngines

if __name__ == "__main__":
    path, marker = sys.argv[1:]
    flows.models.merge.PACKAGE = slow_merging.PACKAGE
    os.environ[slow_merging.MARKER] = marker
    recipe = load_recipe(Path(path))
    engines = DirectEngines()
    train_policy(recipe, execute_build(recipe, quiet=True, open_engine=engines), quiet=True, open_engine=engines)
