"""How fast are the queries that people type? Seconds and peak memory of each, in a process of its own, against rows.

``python -m tests.benchmarks.queries`` makes a lake as ``tests.benchmarks.pairs`` does (8 million scored completions, 5.8
GB), routes and pairs it as a build would, and asks. ``--lake FOLDER`` keeps the lake there, or takes the one that is
there. Memory is the process' own, DuckDB's and Python's packages included; seconds are those of the query, with the
opening of the lake and without the start of Python. Processor seconds stand beside the clock, for busy machines.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from flows.report.page import write_report
from flows.status import print_status
from schemas.recipe.settings import WarehouseSettings
from tests.benchmarks.pairs import CONFIG, TEACHERS, fill_lake
from warehouse.build.curate import make_pairs, route
from warehouse.build.reward_index import index_rewards
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake
from warehouse.shell.shell import open_for_reading, run_query

QUERIES = {
    "five rows": "SELECT * FROM candidates LIMIT 5",
    "the best five": "SELECT * FROM candidates ORDER BY reward DESC LIMIT 5",
    "by language": "SELECT language, count(*) AS num, avg(reward) AS reward FROM candidates GROUP BY language",
    "by prompt": "SELECT * FROM candidates WHERE prompt_id = md5('p7')",
    "rewards by language": "FROM rewards_by_language",
    "arbitrage": "FROM arbitrage",
}
COMMANDS = ("status", "report")


def open_settings(folder: Path, memory: str | None = None) -> WarehouseSettings:
    return WarehouseSettings(catalog=str(folder / "catalog.sqlite"), data=str(folder / "data"), memory=memory)


def make_lake(folder: Path, num_rows: int) -> None:
    """Write a build with its selections and pairs."""
    with Lake.open(open_settings(folder, "4GB")) as lake:
        recipe = fill_lake(lake, num_rows // len(TEACHERS))
        index_rewards(lake)
        with Scope.open(lake, CONFIG) as scope:
            route(scope, recipe)
            make_pairs(scope, recipe)


def ask(folder: Path, name: str) -> dict[str, float]:
    """Run a query or a command; return its seconds, processor seconds and the peak memory of this process in GB."""
    settings = open_settings(folder)
    wall, processor = time.perf_counter(), time.process_time()
    with redirect_stdout(io.StringIO()) as out:
        if name == "status":
            print_status(settings, None)
        elif name == "report":
            write_report(settings, None, Path(tempfile.mkdtemp()) / "report.html")
        else:
            with open_for_reading(settings) as scope:
                run_query(scope, QUERIES[name], "json", out)
    return {
        "wall": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def run_benchmark(folder: Path, num_rows: int) -> None:
    """Ask everything, each in a process of its own, and print what it took."""
    if not (folder / "catalog.sqlite").exists():
        make_lake(folder, num_rows)
    with Lake.open(open_settings(folder), read_only=True) as lake:
        print(f"{lake.query('SELECT count(*) FROM rewards').item():,} scored completions")
    print(f"{'':20} {'wall s':>8} {'cpu s':>8} {'peak GB':>8}")
    for name in (*QUERIES, *COMMANDS):
        command = [sys.executable, "-m", "tests.benchmarks.queries", "--lake", str(folder), "--ask", name]
        took = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{name:20} {took['wall']:8.2f} {took['processor']:8.2f} {took['memory']:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8_000_000, help="scored completions (8 per prompt)")
    parser.add_argument("--lake", type=Path, help="folder of the lake; it is made if there is none")
    parser.add_argument("--ask", choices=[*QUERIES, *COMMANDS], help="only this one, in this process; prints JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.lake or Path(temporary)
        if arguments.ask:
            print(json.dumps(ask(folder, arguments.ask)))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            run_benchmark(folder, arguments.rows)


if __name__ == "__main__":
    main()
