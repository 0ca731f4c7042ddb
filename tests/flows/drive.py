"""Runs a recipe over stand-in engines in a process of its own: ``python -m tests.flows.drive RECIPE LOG SECONDS``."""

import sys
from pathlib import Path

from flows.build.run import execute_build
from schemas.recipe.recipe import load_recipe
from tests.flows.standin import StandInEngines

if __name__ == "__main__":
    recipe, log, seconds = sys.argv[1:]
    engines = StandInEngines(Path(log), batch=4, seconds=float(seconds), max_in_flight=16)
    execute_build(load_recipe(Path(recipe)), open_engine=engines)
