"""Memory does not follow the text: gating, counting and planning what to score keep no text of a large build in memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.recipe.recipe import Recipe
from schemas.recipe.settings import WarehouseSettings
from tests.benchmarks.pairs import CONFIG, fill_lake
from warehouse.build.curate import gate
from warehouse.build.pending import pending_rewards
from warehouse.build.scope import Scope
from warehouse.lake import slices
from warehouse.lake.lake import Lake

NUM_PROMPTS = 20_000  # 160,000 completions of 640 characters: 100 MB of text


def status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def gate_and_count(lake: Lake, recipe: Recipe) -> None:
    scope = Scope.open(lake, CONFIG)
    gate(scope, recipe)
    scope.count_each_stage()


def plan_scores(lake: Lake, recipe: Recipe) -> None:
    """Make the slices small, for a build of this size, and look at everything that a new reward model has to score."""
    slices.SLICE_PROMPTS = NUM_PROMPTS // 10
    scope = Scope.open(lake, CONFIG)
    with scope.spool(pending_rewards("another")) as pending:
        assert pending.num_rows == 8 * NUM_PROMPTS


WORK = {"gate_and_count": gate_and_count, "plan_scores": plan_scores}


def measure(folder: Path, name: str) -> float:
    """Return by how much memory grows at most, in MB, while a filled lake is worked on by two threads."""
    settings = WarehouseSettings(catalog=str(folder / "catalog.sqlite"), data=str(folder / "data"))
    with Lake.open(settings) as lake:
        recipe = fill_lake(lake, NUM_PROMPTS)
        if name == "plan_scores":  # whose prompts are what must not be held: 60 MB in all
            long = "[{'role': 'user', 'content': repeat(md5(prompt_id), 100)}]"
            lake.transact(lambda cursor: cursor.execute(f"UPDATE prompts SET messages = {long}"))
    with Lake.open(settings) as lake:
        lake.query("SELECT 1")  # loads Arrow, which is not to be counted
        lake.transact(lambda cursor: cursor.execute("SET threads = 2"))  # each has buffers of its own
        begin = status_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        WORK[name](lake, recipe)
        return status_mb("VmHWM") - begin


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak of memory")
@pytest.mark.parametrize(("name", "max_growth_mb"), [("gate_and_count", 80), ("plan_scores", 160)])
def test_no_text_is_held(tmp_path: Path, name: str, max_growth_mb: float) -> None:
    command = [sys.executable, "-m", "tests.warehouse.lake.test_memory", str(tmp_path), name]
    growth = float(subprocess.check_output(command, text=True))
    assert growth < max_growth_mb


if __name__ == "__main__":
    print(measure(Path(sys.argv[1]), sys.argv[2]))
