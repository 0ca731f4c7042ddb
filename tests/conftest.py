"""What all tests share."""

import gc
import os
import signal
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

pytest_plugins = ["tests.browser", "tests.machine", "tests.services"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

# Tests run beside each other, and each does little at a time: more threads would only wait for one another. DuckDB takes
# their number from what a SLURM cluster grants.
for number_of_threads in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "SLURM_CPUS_ON_NODE"):
    os.environ.setdefault(number_of_threads, "1")

# A shell that starts the suite in its background has it ignore Ctrl-C, and what tests start and interrupt would too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test depends on how fast the machine is.
settings.register_profile("factory", deadline=None)
settings.load_profile("factory")


def pytest_collection_finish() -> None:
    """Look for no garbage among what is loaded by now, which is much and lives to the end."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    """Where skips are not allowed (FACTORY_NO_SKIP), a skipped test is a failed one."""
    report = yield
    if report.skipped and os.environ.get("FACTORY_NO_SKIP") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report
