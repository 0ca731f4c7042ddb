"""What the merger's import does to a process."""

import subprocess
import sys
from pathlib import Path

CODE = """
import gc, sys
import factory.merging.merge
print(gc.isenabled(), gc.get_freeze_count(), sorted({"duckdb", "polars", "transformers"} & set(sys.modules)))
"""


def test_the_collector_goes_on_and_nothing_needless_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.stdout == "True 0 []\n", done.stderr
