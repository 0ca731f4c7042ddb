"""What the small commands cost, beside a bare DuckDB script that attaches the same lake, and a small build from nothing.

The lake is that of a finished build of 40 prompts with recorded answers; ``--policy`` trains one on it, with stand-ins for
all models that are asked. Each round runs everything once, so that all meet the same machine. ``--before`` names another
checkout, whose own lake and commands take their turns beside ours.

``python tests/benchmarks/commands.py [--rounds 7] [--policy] [--before FOLDER]``
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]

COMMANDS = {
    "sql": ["sql", "SELECT 1"],
    "status": ["status"],
    "plan": ["plan", "recipe.toml"],
    "export": ["export", "recipe.toml"],
    "run": ["run", "recipe.toml", "--until", "export"],
}
"""All of them find nothing left to do."""

BARE = """
import duckdb, importlib.resources
with duckdb.connect() as lake:
    for name in ("ducklake", "sqlite_scanner"):
        folder = importlib.resources.files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}"
        lake.load_extension(str(folder / f"{name}.duckdb_extension"))
    options = "DATA_PATH 'lake/data', OVERRIDE_DATA_PATH true, READ_ONLY"
    lake.execute(f"ATTACH 'ducklake:sqlite:lake/catalog.sqlite' AS lake ({options})")
    print(lake.execute("USE lake; SELECT 1").fetchall())
"""

Seconds = tuple[float, float]
"""By the clock, and of processor time with all children."""


def run(command: list[str], folder: Path, code: Path) -> Seconds:
    """Run a Python command in a folder with the code of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(code), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read().decode()}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def run_build(code: Path, *, folder: Path | None = None, with_policy: bool = False) -> Seconds:
    """Build from nothing, in a folder that stays or in one that goes; return what that took without loading Python."""
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch) / "project"
        environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--build", str(place), *(["--policy"] if with_policy else [])]
        said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        wall, processor = json.loads(said.splitlines()[-1])
        return wall, processor


def build(folder: Path, *, with_policy: bool) -> None:
    """Build in a folder, with the code that this process finds; print what it took."""
    sys.path.append(str(ROOT))  # for the files of tests that an older checkout lacks
    from flows.build.run import execute_build
    from flows.cli import _load
    from tests.flows.direct import DirectEngines
    from tests.flows.policy_recipe import CLUSTERS, make_policy
    from tests.flows.recorded_build import write_recorded

    path = write_recorded(folder)
    os.chdir(folder)
    if with_policy:
        policy = make_policy().replace(f"clusters = {CLUSTERS}", "clusters = {}")
        path.write_text(f"{path.read_text()}[run]{policy}", encoding="utf-8")
    recipe = _load(path)
    started, processor = time.perf_counter(), time.process_time()
    summary = execute_build(recipe, quiet=True, open_engine=DirectEngines())
    print(json.dumps([time.perf_counter() - started, time.process_time() - processor]))
    if with_policy:
        from flows.policy.policy import train_policy

        train_policy(recipe, summary, quiet=True, open_engine=DirectEngines())


def measure(ways: dict[str, Callable[[], Seconds]], num_rounds: int) -> dict[str, list[Seconds]]:
    """Return what every way took in every round; the ways take turns."""
    seconds: dict[str, list[Seconds]] = defaultdict(list)
    for number in range(num_rounds):
        for name, way in ways.items() if number % 2 else reversed(ways.items()):
            seconds[name].append(way())
    return seconds


def list_ways(code: Path, folder: Path, *, with_policy: bool) -> dict[str, Callable[[], Seconds]]:
    """Make a finished build with the code of a checkout; return what is to be measured there."""
    run_build(code, folder=folder, with_policy=with_policy)
    ways: dict[str, Callable[[], Seconds]] = {
        name: lambda words=words: run(["-m", "flows.cli", *words], folder, code) for name, words in COMMANDS.items()
    }
    if with_policy:
        ways["run, policy"] = lambda: run(["-m", "flows.cli", "run", "recipe.toml"], folder, code)
    return ways | {"build": lambda: run_build(code)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--policy", action="store_true", help="measure a finished policy too, which takes minutes to make"
    )
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.build, with_policy=options.policy)
        return
    with tempfile.TemporaryDirectory() as scratch:
        checkouts = {"": ROOT} | ({"before": options.before.resolve()} if options.before else {})
        ways: dict[str, Callable[[], Seconds]] = {}
        for label, code in checkouts.items():
            folder = Path(scratch) / (label or "now")
            made = list_ways(code, folder, with_policy=options.policy)
            ways |= {f"{name} {label}".strip(): way for name, way in made.items()}
        ways["bare"] = lambda: run(["-c", BARE], Path(scratch) / "now", ROOT)
        seconds = measure(ways, options.rounds)
    print(f"medians of {options.rounds} rounds, in seconds; 'bare' attaches the same lake")
    print(f"{'':18} {'wall':>7} {'x bare':>7} {'cpu':>7} {'x bare':>7}")
    bare = [statistics.median(times) for times in zip(*seconds["bare"], strict=True)]
    for name in sorted(seconds):
        wall, processor = (statistics.median(times) for times in zip(*seconds[name], strict=True))
        print(f"{name:18} {wall:7.2f} {wall / bare[0]:7.2f} {processor:7.2f} {processor / bare[1]:7.2f}")


if __name__ == "__main__":
    main()
