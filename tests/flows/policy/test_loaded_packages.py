"""What works with models is loaded by the processes that do, never by the one that they are started from."""

import os
import subprocess
import sys
from pathlib import Path

from tests.flows.policy_recipe import make_policy

ROOT = Path(__file__).parents[3]

CODE = """
import sys
from pathlib import Path
from flows.build.run import execute_build
from flows.policy.policy import train_policy
from schemas.recipe.recipe import load_recipe
from tests.flows.direct import DirectEngines

def show(*done):
    print(*done, sorted({"torch", "transformers", "vllm"} & set(sys.modules)))

recipe, engines = load_recipe(Path(sys.argv[1])), DirectEngines()
build = execute_build(recipe, quiet=True, open_engine=engines)
show("build", build.export_path is not None)
policy = train_policy(recipe, build, until="sft", quiet=True, open_engine=engines)
show("policy", *(Path(step.model).name.partition("-")[0] for step in policy.steps))
"""


def test_a_whole_build_and_a_policy_that_merges_load_none_of_it(write_recipe, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(write_recipe(extra=make_policy()))],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "build True []\npolicy base sft []\n"
    (merged,) = (folder for folder in (tmp_path / "models" / "small").glob("sft-*") if folder.name.count("-") == 1)
    assert (merged / "model.safetensors").is_file()
