"""Merges as ``factory.merging`` does, slowly, with a file that is there while it does: ``python -m tests.flows.slow_merging``."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGE = "tests.flows.slow_merging"

MARKER = "FACTORY_TEST_MERGING_MARKER"
"""The variable that names the file."""

SECONDS = float(os.environ.get("FACTORY_TEST_MERGING_SECONDS", "0.01"))
"""How long each part of a merge takes at least."""

if __name__ == "__main__":
    from factory.merging import merge as module
    from factory.merging.__main__ import main
    from factory.merging.result import MergeResult
    from schemas.recipe.merging import MergeSettings

    merge, marker = module.merge, Path(os.environ[MARKER])

    def merge_slowly(
        settings: MergeSettings, output: Path, *, progress: Callable[[int, int], None] | None = None
    ) -> MergeResult:
        def dawdle(done: int, total: int) -> None:
            marker.write_text(f"{output.name} {done}")
            time.sleep(SECONDS)

        result = merge(settings, output, progress=dawdle)
        marker.unlink(missing_ok=True)
        return result

    module.merge = merge_slowly
    sys.exit(main())
