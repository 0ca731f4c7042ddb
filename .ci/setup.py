"""Makes the virtual environment of a checkout: `setup.py DEVICE VENV [PYTHON]`, called by `make setup`.

It is plain Python from 3.8 on, without packages, since it runs on whatever Python a machine has. uv does the work: it
finds a supported Python or brings its own, and is itself taken from PATH or from PyPI.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUPPORTED = ">=3.11,<3.14"  # as in pyproject.toml
OLDEST_UV = (0, 8)
# Source archives alone; all else that a lock file names has wheels, and is not to be compiled where one is missing.
BUILT_HERE = {"fasttext", "jieba", "unidic-lite"}
INSTALLERS = {  # a package manager and its words for a C++ compiler and Python's headers
    "apt-get": ("apt-get install", "g++", "python{}-dev"),
    "dnf": ("dnf install", "gcc-c++", "python{}-devel"),
    "zypper": ("zypper install", "gcc-c++", "python3-devel"),
    "pacman": ("pacman -S", "gcc", "python"),
}


class SetupError(Exception):
    """What keeps the set-up from going on: a sentence that says what to do about it."""


def main(device: str, venv: Path, python: str = "") -> None:
    """Set up ``venv`` for a device (cpu or gpu), with the Python named by a version or a path, or any that fits."""
    began = time.monotonic()
    lock = ROOT / f"requirements-{device}.lock"
    if not lock.is_file():
        raise SetupError(f"DEVICE={device} is unknown; it is cpu or gpu")
    other = "gpu" if device == "cpu" else "cpu"
    if (venv / f".ready-{other}").exists():
        raise SetupError(
            f"{venv} is set up for {other}; say VENV=.venv-{device} for a second one, or `make clean` first"
        )
    uv = find_uv(venv)
    environment = {**os.environ, **read_pip_settings(venv), "UV_NO_PROGRESS": "1", "UV_HTTP_TIMEOUT": "180"}
    # Once, now: otherwise importing vLLM takes half a minute, and does each time where Python may not write bytecode.
    environment["UV_COMPILE_BYTECODE"] = "1"
    environment["UV_NO_BUILD_PACKAGE"] = " ".join(sorted(read_names(lock) - BUILT_HERE))
    version = make_venv(uv, venv, python, environment)
    check_compiler(version, has_headers(venv))

    install = [uv, "pip", "install", "--quiet", "--python", str(venv / "bin/python")]
    torch = read_torch(lock)
    build = choose_torch(uv, venv, torch, environment) if device == "cpu" else "default"
    say(f"installing {len(read_names(lock))} packages for Python {version}; the first time takes minutes")
    backend = ["--torch-backend", "cpu"] if build == "backend" else []
    run([*install, *backend, "--no-deps", "--requirement", str(lock)], environment)
    if build == "cuda":
        say(
            "no CPU build of PyTorch can be reached, neither from the configured index nor from PyTorch's own. PyPI's "
            "build is for CUDA and is imported only with NVIDIA's libraries, so these are installed too (about 5 GB), "
            "GPU or not. UV_INDEX or PIP_EXTRA_INDEX_URL can name an index that has a CPU build"
        )
        run([*install, torch, "--constraint", str(lock)], environment)
    run([*install, "--no-deps", "--editable", str(ROOT)], environment)
    say(f"ready after {time.monotonic() - began:.0f} s: {venv}")


def find_uv(venv: Path) -> str:
    """Return the uv on PATH if it is new enough, else one installed from PyPI into ``venv/uv``."""
    found = shutil.which("uv")
    if found and is_new_enough(found):
        return found
    uv = venv / "uv/bin/uv"
    if not uv.exists():
        if importlib.util.find_spec("ensurepip") is None:
            raise SetupError(
                f"{sys.executable} cannot make virtual environments; install what it lacks "
                "(`sudo apt-get install python3-venv python3-dev g++` on Debian and Ubuntu)"
            )
        say("installing uv")
        run([sys.executable, "-m", "venv", str(venv / "uv")])
        run([str(venv / "uv/bin/python"), "-m", "pip", "install", "--quiet", "uv>=0.8"])
    return str(uv)


def is_new_enough(uv: str) -> bool:
    """Whether this uv knows all options that are used here."""
    said = subprocess.run([uv, "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout
    version = re.match(r"uv (\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= OLDEST_UV


def read_pip_settings(venv: Path) -> dict[str, str]:
    """Return pip's indexes as uv's variables, since uv reads none of pip's settings; nothing where uv has its own."""
    own = {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONFIG_FILE"}
    if own & set(os.environ):
        return {}
    bootstrapped = venv / "uv/bin/python"
    python = str(bootstrapped) if bootstrapped.exists() else sys.executable
    done = subprocess.run(
        [python, "-m", "pip", "config", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return translate_pip_settings(done.stdout)


def translate_pip_settings(listed: str) -> dict[str, str]:
    """Return the variables of uv that say what `pip config list` says about indexes; variables outdo files."""
    values = {}
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{section}\.([a-z-]+)=(.*)$", listed, re.MULTILINE):
            values[name] = " ".join(ast.literal_eval(value).split())
    settings = {}
    if "index-url" in values:
        settings["UV_DEFAULT_INDEX"] = values["index-url"]
    if "extra-index-url" in values:
        # pip takes the best version of all indexes, uv by default the first index that has the package at all.
        settings.update(UV_INDEX=values["extra-index-url"], UV_INDEX_STRATEGY="unsafe-best-match")
    if "find-links" in values:
        settings["UV_FIND_LINKS"] = values["find-links"].replace(" ", ",")
    if "cert" in values:
        settings["SSL_CERT_FILE"] = values["cert"]
    return settings


def make_venv(uv: str, venv: Path, python: str, environment: dict[str, str]) -> str:
    """Make the environment if it is not there; return the version of its Python, like "3.12"."""
    if not (venv / "bin/python").exists():
        wanted = python or SUPPORTED
        command = [uv, "venv", "--quiet", "--seed", "--allow-existing", "--python", wanted, str(venv)]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.stderr.write(done.stderr)
            raise SetupError(
                f"uv found no Python {wanted} and could not bring its own (see above); install Python 3.11, 3.12 or "
                "3.13, or name one: PYTHON=/path/to/python3.12"
            )
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.run([str(venv / "bin/python"), "-c", asked], stdout=subprocess.PIPE, text=True, check=True)
    minor = version.stdout.strip()
    if minor not in ("3.11", "3.12", "3.13"):
        raise SetupError(
            f"{venv} has Python {minor}; supported are 3.11, 3.12 and 3.13: `make clean`, then name one: PYTHON=3.12"
        )
    return minor


def has_headers(venv: Path) -> bool:
    """Whether the environment's Python has the headers that compiled extensions include."""
    asked = "import os, sysconfig; print(os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')))"
    done = subprocess.run([str(venv / "bin/python"), "-c", asked], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip() == "True"


def check_compiler(version: str, headers: bool) -> None:
    """Refuse a machine on which fastText, the one package that is compiled here, cannot be."""
    has_compiler = any(map(shutil.which, filter(None, [os.environ.get("CXX"), "c++", "g++", "clang++"])))
    if has_compiler and headers:
        return
    lacking = " and ".join(
        ([] if has_compiler else ["a C++ compiler"]) + ([] if headers else [f"the headers of Python {version}"])
    )
    manager = next(filter(shutil.which, INSTALLERS), "apt-get")
    command, compiler, development = INSTALLERS[manager]
    packages = ([] if has_compiler else [compiler]) + ([] if headers else [development.format(version)])
    raise SetupError(f"fastText is compiled and needs {lacking}: sudo {command} {' '.join(packages)}")


def choose_torch(uv: str, venv: Path, torch: str, environment: dict[str, str]) -> str:
    """Return where a PyTorch for the CPU comes from.

    "index": the configured indexes have a CPU build. "backend": PyTorch's own index has, which uv knows. "cuda": neither
    can be reached, and the build for CUDA is to be made usable.
    """
    resolve = [uv, "pip", "compile", "-", "--quiet", "--no-deps", "--no-header", "--no-annotate", "--python"]
    resolve.append(str(venv / "bin/python"))
    for build, options in (("index", []), ("backend", ["--torch-backend", "cpu"])):
        done = subprocess.run(
            [*resolve, *options],
            input=torch,
            env={**environment, "UV_HTTP_RETRIES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if done.returncode == 0 and (build == "backend" or "+cpu" in done.stdout):
            return build
    return "cuda"


def read_names(lock: Path) -> set[str]:
    """Return the names of a lock file's packages."""
    return {line.split("==")[0] for line in lock.read_text(encoding="utf-8").splitlines()}


def read_torch(lock: Path) -> str:
    """Return a lock file's requirement of torch."""
    found = re.search(r"^torch==[^ ;\n]+", lock.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SetupError(f"{lock.name} names no torch; run `make lock`")
    return found[0]


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a command; refuse with its own words and, where a wheel is missing, with what to do."""
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return
    sys.stderr.write(done.stderr)
    raise SetupError(explain(done.stderr) or f"`{' '.join(command[:3])}` failed (see above)")


def explain(said: str) -> str | None:
    """Return what to do about uv's complaint that a package has no wheel for this Python or machine, else None."""
    found = re.search(r"(\S+)==(\S+) has no (?:usable )?wheels", " ".join(said.split()))
    if found is None:
        return None
    return (
        f"{found[1]} {found[2]} has no wheel for this Python on Linux {platform.machine()}; "
        "`make clean`, then try another: PYTHON=3.11, 3.12 or 3.13 (wheels need Linux with glibc 2.31 or newer)"
    )


def say(text: str) -> None:
    """Tell what happens."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
    except SetupError as error:
        sys.exit(f"setup: {error}")
