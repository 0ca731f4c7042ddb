"""Work in a process of its own: ``python -m PACKAGE SETTINGS OUTPUT``, which the factory starts and outlives.

The settings travel as JSON. The child draws its own progress on standard error. The sentence of an error, and what the
work came to, come back in files that the caller names. The child ends when its caller does, however that dies.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from factory.interrupts import heed_interrupts
from schemas.errors import FactoryError

_PR_SET_PDEATHSIG = 1

STOPPED = 130
"""The exit code of a child that was interrupted, as shells give it for Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work: the package that does it, what it is called, and what its errors are.

    ``after_death`` tells the user what to do about a child that was killed.
    """

    package: str
    name: str
    error: type[FactoryError]
    after_death: str


def run_child(
    work: Work,
    settings: BaseModel,
    output: Path,
    *,
    quiet: bool = False,
    environment: Mapping[str, str] | None = None,
) -> str | None:
    """Run ``python -m work.package`` and wait for its end; return what it reports, or None where it reports nothing.

    Raises:
        FactoryError: a ``work.error``, in the child's own words where it had any.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, failed, reported = (Path(scratch) / name for name in ("settings.json", "error.txt", "result.json"))
        given.write_text(settings.model_dump_json(by_alias=True), encoding="utf-8")
        command = [sys.executable, "-m", work.package, str(given), str(output), *(["--quiet"] if quiet else [])]
        command += ["--error", str(failed), "--result", str(reported), "--parent", str(os.getpid())]
        process = subprocess.Popen(command, env=os.environ | (environment or {}))
        try:
            code = _await(process)
        except BaseException:
            _stop(process)
            if not failed.is_file():
                raise
        if failed.is_file():
            raise work.error(failed.read_text(encoding="utf-8"))
        if code:
            raise work.error(f"the {work.name} process ended with code {code}; {work.after_death}")
        return reported.read_text(encoding="utf-8") if reported.is_file() else None


def _await(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code. Waiting takes turns, between which a signal is noticed that came to another thread."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(1.0)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the child put its work in order; interrupted again, kill it."""
    process.terminate()
    try:
        _await(process)
    except BaseException:
        process.kill()
        process.wait()
        raise


def make_parser(package: str, description: str, settings: str) -> argparse.ArgumentParser:
    """Return the command line of a package that can be run as a child; ``settings`` says what that file holds."""
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=description)
    parser.add_argument("settings", type=Path, help=settings)
    parser.add_argument("output", type=Path, help="the folder that it writes")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("--error", type=Path, help="write the sentence of an error to this file, for a caller")
    parser.add_argument("--result", type=Path, help="write what came of it to this file, for a caller")
    parser.add_argument("--parent", type=int, help="the process that started this one, which ends when that does")
    return parser


def do_work(arguments: argparse.Namespace, work: Callable[[], None], stopped: str) -> int:
    """Do what the command line asks for and return the exit code; a mistake that the user can mend is one sentence.

    ``stopped`` is what to say when the work is interrupted.
    """
    if arguments.parent is not None:
        _end_with(arguments.parent)
    warnings.showwarning = _show_warning
    heed_interrupts()
    try:
        work()
    except FactoryError as error:
        if arguments.error is not None:
            arguments.error.write_text(str(error), encoding="utf-8")
        elif os.environ.get("RANK", "0") == "0":  # of processes that torchrun started, one speaks for all
            print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return STOPPED
    return 0


def _show_warning(message: Warning | str, *_where: object, **_line: object) -> None:
    """Say what a user should know in a line, without the line of code that says it."""
    print(f"warning: {message}", file=sys.stderr)


def _end_with(parent: int) -> None:
    """Have the kernel send this process a SIGTERM when its parent ends, however that dies (Linux).

    It does when the parent's thread that started this process ends; that thread waits for this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before that
        os.kill(os.getpid(), signal.SIGTERM)
