"""Memory does not follow the text: gating and counting a large build keep no answers in memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.settings import WarehouseSettings
from tests.benchmarks.pairs import CONFIG, fill_lake
from warehouse.build_views import count_each_stage
from warehouse.curate import gate
from warehouse.lake import Lake

NUM_PROMPTS = 20_000  # 160,000 completions of 640 characters: 100 MB of text
MAX_GROWTH_MB = 70


def status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(folder: Path) -> float:
    """Return by how much memory grows at most, in MB, while a filled lake is gated and counted."""
    settings = WarehouseSettings(catalog=str(folder / "catalog.sqlite"), data=str(folder / "data"))
    with Lake.open(settings) as lake:
        recipe = fill_lake(lake, NUM_PROMPTS)
    with Lake.open(settings) as lake:
        lake.query("SELECT 1")
        begin = status_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        gate(lake, CONFIG, recipe)
        count_each_stage(lake)
        return status_mb("VmHWM") - begin


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak of memory")
def test_gates_and_counts_hold_no_text(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.warehouse.test_memory", str(tmp_path)]
    growth = float(subprocess.check_output(command, text=True))
    assert growth < MAX_GROWTH_MB


if __name__ == "__main__":
    print(measure(Path(sys.argv[1])))
