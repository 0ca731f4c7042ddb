"""The floor plan: files and rooms stay small, the command starts at once.

That imports point one way and never in a circle, and who may import heavy packages at all, are contracts of
import-linter, in ``pyproject.toml``.
"""

import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PACKAGES = ("schemas", "warehouse", "factory", "flows")


def modules():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield package, path


def test_the_plant_can_be_used_without_prefect_vllm_and_torch():
    code = (
        "import sys, flows.build.run, flows.build.plan\n"
        "print(sorted({'prefect', 'vllm', 'torch', 'transformers', 'datasets', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"


def test_help_answers_at_once():
    """In work done, so that neither a slow nor a busy machine decides: about half a second with Python's own start."""
    code = """
import sys, time
import flows.cli
sys.argv = ["factory", "--help"]
try:
    flows.cli.main()
finally:
    taken = time.process_time()
    from tests.pace import do_unit
    do_unit()
    print(taken / (time.process_time() - taken))
"""
    units = []
    for _ in range(3):
        printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
        units.append(float(printed.splitlines()[-1]))
    assert min(units) < 5


def test_no_file_has_grown_too_long():
    long = {
        str(path.relative_to(ROOT)): count
        for _, path in modules()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long


def test_no_room_has_grown_too_large():
    """A room has one topic; a newcomer looks at the names of its files and knows where to go."""
    rooms = Counter(path.parent.relative_to(ROOT).as_posix() for _, path in modules() if path.name != "__init__.py")
    assert len(rooms) > 30
    assert not {room: count for room, count in rooms.items() if count > 12}


def test_every_folder_of_tests_is_collected(pytestconfig: pytest.Config):
    """Left to itself, pytest leaves out folders with some names, such as ``build``."""
    left_out = pytestconfig.getini("norecursedirs")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(folders) > 20
    assert not [folder for folder in folders for part in folder.parts if any(fnmatch(part, name) for name in left_out)]
