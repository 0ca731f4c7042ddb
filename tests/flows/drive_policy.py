"""Runs a recipe with its policy over stand-ins in a process of its own: ``python -m tests.flows.drive_policy RECIPE MARKER``.

Merging is slowed down, and writes the file MARKER while it is at it, so that it can be killed in the middle.
"""

import sys
import time
from functools import wraps
from pathlib import Path

import flows.models.merge
from flows.build.run import execute_build
from flows.policy.policy import train_policy
from schemas.recipe.recipe import load_recipe
from tests.flows.direct import DirectEngines

if __name__ == "__main__":
    marker = Path(sys.argv[2])
    merge = flows.models.merge.merge

    @wraps(merge)
    def merge_slowly(settings, output, *, progress):
        def dawdle(done, total):
            marker.write_text(f"{output.name} {done}")
            time.sleep(0.01)

        result = merge(settings, output, progress=dawdle)
        marker.unlink(missing_ok=True)
        return result

    flows.models.merge.merge = merge_slowly
    recipe = load_recipe(Path(sys.argv[1]))
    engines = DirectEngines()
    train_policy(recipe, execute_build(recipe, quiet=True, open_engine=engines), quiet=True, open_engine=engines)
