"""The floor plan: heavy packages stay in the modules that own them, the command starts at once.

That imports point one way and never in a circle is a contract of import-linter, in ``pyproject.toml``.
"""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PACKAGES = ("schemas", "warehouse", "factory", "flows")

OWNERS = {
    "vllm": {"factory/engines/local/vllm.py"},
    "fasttext": {"factory/texts/langid.py"},
    "jieba": {"factory/evaluation/segmenters.py"},
    "fugashi": {"factory/evaluation/segmenters.py"},
    "prefect": {
        "flows/orchestration/deployments.py",
        "flows/prefect_settings.py",
        "flows/orchestration/reporter.py",
        "flows/orchestration/temporary_server.py",
    },
    "datasets": {"factory/inputs/hf_datasets.py"},
    "torch": {"factory/engines/local/translator.py", "factory/merging/", "factory/microworld/", "factory/training/"},
    "transformers": {
        "factory/engines/local/translator.py",
        "factory/engines/local/trial_child.py",
        "factory/engines/local/vllm.py",
        "factory/microworld/",
        "factory/training/",
    },
}
"""The modules (or folders) that may import a heavy package at all."""


def modules():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield package, path


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def test_heavy_packages_are_imported_by_their_owners_alone():
    found = [
        (path.relative_to(ROOT).as_posix(), heavy)
        for _, path in modules()
        for heavy in set(imports(path)) & set(OWNERS)
    ]
    assert found
    assert not [(name, heavy) for name, heavy in found if not any(is_in(name, owner) for owner in OWNERS[heavy])]


def is_in(name: str, owner: str) -> bool:
    return name == owner or (owner.endswith("/") and name.startswith(owner))


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


def test_every_folder_of_tests_is_collected(pytestconfig: pytest.Config):
    """Left to itself, pytest leaves out folders with some names, such as ``build``."""
    left_out = pytestconfig.getini("norecursedirs")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(folders) > 20
    assert not [folder for folder in folders for part in folder.parts if any(fnmatch(part, name) for name in left_out)]
