"""The set-up of a checkout on machines of all kinds, with stand-ins for uv, the compiler and the package manager."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci/setup.py"

# Logs what it is asked. Its settings are in the environment: the version of its Python, whether that has headers, and
# what an index and PyTorch's own offer ("none": it cannot be reached).
UV = """#!/bin/sh
echo "$*" >> "$LOG"
env | grep -E '^UV_(DEFAULT_INDEX|INDEX|INDEX_STRATEGY|FIND_LINKS)=' | sort >> "$LOG.env"
case "$*" in
    --version) echo "uv $UV_VERSION" ;;
    venv*)
        [ "$PYTHON_VERSION" != none ] || { echo "error: No interpreter found" >&2; exit 2; }
        for venv; do :; done
        mkdir -p "$venv/bin"
        cp "$PYTHON_STANDIN" "$venv/bin/python" ;;
    *compile*--torch-backend*) [ "$BACKEND" != none ] || exit 2; echo "$BACKEND" ;;
    *compile*) [ "$INDEX" != none ] || exit 2; echo "$INDEX" ;;
    *--requirement*) [ -z "$COMPLAINT" ] || { echo "$COMPLAINT" >&2; exit 1; } ;;
esac
"""
PYTHON = """#!/bin/sh
case "$*" in *sysconfig*) echo "$HEADERS" ;; *) echo "$PYTHON_VERSION" ;; esac
"""


@dataclass
class Machine:
    """A machine with nothing but stand-ins on PATH."""

    folder: Path
    facts: dict[str, str] = field(
        default_factory=lambda: {
            "UV_VERSION": "0.13.9",
            "UV_CONFIG_FILE": "/dev/null",  # pip is then not asked for its indexes, which would take a second
            "PYTHON_VERSION": "3.12",
            "HEADERS": "True",
            "INDEX": "torch==2.13.0",
            "BACKEND": "torch==2.13.0+cpu",
        }
    )

    def put(self, name: str, text: str = "#!/bin/sh\n") -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def set_up(self, *arguments: str, code: int = 0, **facts: str) -> str:
        """Set up for a CPU, unless ``arguments`` say otherwise; return what is said."""
        self.put("python-standin", PYTHON)
        bin_path = self.folder / "bin"
        path = os.pathsep.join([str(bin_path), str(self.folder / "tools")])
        environment = {"PATH": path, "LOG": str(self.folder / "log"), **self.facts, **facts}
        environment["PYTHON_STANDIN"] = str(bin_path / "python-standin")
        device, *rest = arguments or ("cpu",)
        command = [sys.executable, str(SCRIPT), device, str(self.folder / "venv"), *rest]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr.strip().splitlines()[-1]

    @property
    def asked(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    def installs(self) -> list[str]:
        return [line.partition("bin/python ")[2] for line in self.asked if line.startswith("pip install")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with uv and a compiler, whose index has only PyPI's PyTorch, and which reaches PyTorch's own index."""
    made = Machine(tmp_path)
    made.put("uv", UV)
    made.put("c++")
    (tmp_path / "tools").mkdir()
    for tool in ("env", "grep", "sort", "mkdir", "cp", "sh"):
        (tmp_path / "tools" / tool).symlink_to(f"/usr/bin/{tool}")
    return made


LOCK = str(SCRIPT.parents[1] / "requirements-cpu.lock")
EDITABLE = f"--no-deps --editable {SCRIPT.parents[1]}"


def test_a_cpu_build_of_the_configured_index_is_taken(machine):
    said = machine.set_up(INDEX="torch==2.13.0+cpu", BACKEND="none")
    assert machine.installs() == [f"--no-deps --requirement {LOCK}", EDITABLE]
    assert "Python 3.12" in said


def test_where_the_index_has_none_pytorchs_own_is_asked(machine):
    said = machine.set_up()
    assert machine.installs() == [f"--torch-backend cpu --no-deps --requirement {LOCK}", EDITABLE]
    assert "CUDA" not in said


@pytest.mark.parametrize("index", ["torch==2.13.0", "none"])
def test_where_neither_is_reached_the_cuda_build_is_made_importable_and_that_is_said(machine, index):
    said = machine.set_up(INDEX=index, BACKEND="none")
    assert machine.installs() == [
        f"--no-deps --requirement {LOCK}",
        f"torch==2.13.0 --constraint {LOCK}",
        EDITABLE,
    ]
    assert "no CPU build of PyTorch can be reached" in said
    assert "NVIDIA's libraries" in said


def test_on_gpus_the_lock_file_alone_decides(machine):
    machine.set_up("gpu")
    assert machine.installs() == [f"--no-deps --requirement {LOCK.replace('cpu', 'gpu')}", EDITABLE]
    assert not any("compile" in line for line in machine.asked)


def test_another_device_needs_another_environment(machine):
    machine.set_up()
    (machine.folder / "venv/.ready-cpu").touch()
    assert "VENV=.venv-gpu" in machine.set_up("gpu", code=1)
    assert "it is cpu or gpu" in machine.set_up("tpu", code=1)


def test_any_supported_python_will_do_and_one_can_be_named(machine):
    machine.set_up()
    assert any(line.startswith("venv") and "--python >=3.11,<3.14 " in line for line in machine.asked)
    machine.set_up()
    assert sum(line.startswith("venv") for line in machine.asked) == 1  # it is there, and kept
    other = Machine(machine.folder / "other")
    (other.folder / "bin").mkdir(parents=True)
    (other.folder / "tools").symlink_to(machine.folder / "tools")
    other.put("uv", UV)
    other.put("c++")
    other.set_up("cpu", "3.11")
    assert any(line.startswith("venv") and "--python 3.11 " in line for line in other.asked)


def test_a_python_that_is_not_supported_is_refused(machine):
    assert "PYTHON=3.12" in machine.set_up(code=1, PYTHON_VERSION="3.14")
    assert not machine.installs()


def test_without_a_python_one_sentence_says_what_to_install(machine):
    said = machine.set_up(code=1, PYTHON_VERSION="none")
    assert "uv found no Python >=3.11,<3.14" in said
    assert "install Python 3.11, 3.12 or 3.13" in said


@pytest.mark.parametrize(
    ("manager", "compiler", "headers", "command"),
    [
        ("apt-get", False, "True", "a C++ compiler: sudo apt-get install g++"),
        ("apt-get", True, "False", "the headers of Python 3.12: sudo apt-get install python3.12-dev"),
        ("dnf", False, "False", "and the headers of Python 3.12: sudo dnf install gcc-c++ python3.12-devel"),
    ],
)
def test_a_missing_compiler_is_found_before_anything_is_installed(machine, manager, compiler, headers, command):
    machine.put(manager)
    if not compiler:
        (machine.folder / "bin/c++").unlink()
    assert machine.set_up(code=1, HEADERS=headers).endswith(command)
    assert not machine.installs()


def test_a_missing_wheel_is_one_sentence(machine):
    complaint = "Because llguidance==1.7.6 has no usable wheels and you\n  require llguidance==1.7.6, we can conclude"
    said = machine.set_up(code=1, COMPLAINT=complaint)
    assert said.startswith("setup: llguidance 1.7.6 has no wheel for this Python on Linux ")
    assert "uv pip install` failed (see above)" in machine.set_up(code=1, COMPLAINT="disk full")


def test_pips_indexes_are_uvs_unless_uv_has_its_own(machine):
    del machine.facts["UV_CONFIG_FILE"]
    machine.set_up(
        PIP_EXTRA_INDEX_URL="https://one.example/simple https://two.example/simple", PIP_FIND_LINKS="/wheels"
    )
    given = (machine.folder / "log.env").read_text()
    assert "UV_INDEX=https://one.example/simple https://two.example/simple" in given
    assert "UV_INDEX_STRATEGY=unsafe-best-match" in given
    assert "UV_FIND_LINKS=/wheels" in given
    (machine.folder / "log.env").unlink()
    machine.set_up(PIP_EXTRA_INDEX_URL="https://one.example/simple", UV_DEFAULT_INDEX="https://own.example/simple")
    assert set((machine.folder / "log.env").read_text().splitlines()) == {"UV_DEFAULT_INDEX=https://own.example/simple"}


@pytest.fixture(scope="module")
def script():
    """The script as a module; its name is no name of one, and it lies in no package."""
    spec = importlib.util.spec_from_file_location("setup_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pips_variables_outdo_its_files(script):
    listed = """:env:.index-url='https://variable.example/simple'
global.index-url='https://file.example/simple'
global.find-links='\\n/a\\n/b'
global.timeout='60'
"""
    assert script.translate_pip_settings(listed) == {
        "UV_DEFAULT_INDEX": "https://variable.example/simple",
        "UV_FIND_LINKS": "/a,/b",
    }


@pytest.mark.parametrize(("version", "usable"), [("0.4.2", False), ("0.8.0", True), ("1.0.0", True)])
def test_an_old_uv_is_not_used(machine, script, monkeypatch, version, usable):
    for name, value in {**machine.facts, "UV_VERSION": version, "LOG": str(machine.folder / "log")}.items():
        monkeypatch.setenv(name, value)
    assert script.is_new_enough(str(machine.folder / "bin/uv")) is usable
