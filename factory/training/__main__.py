"""``python -m factory.training SETTINGS OUTPUT``: one run, in this process or as torchrun in those that it asks for."""

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from schemas.errors import FactoryError

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run what the command line names; a mistake that the user can mend is one sentence."""
    parser = argparse.ArgumentParser(prog="python -m factory.training", description="Train a model.")
    parser.add_argument("settings", type=Path, help="TOML with a [train] table, or JSON of its fields")
    parser.add_argument("output", type=Path, help="the run's folder")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("--error", type=Path, help="write the sentence of an error to this file, for a caller")
    parser.add_argument("--parent", type=int, help="the process that started this one, which ends when that does")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        _end_with(arguments.parent)
    try:
        from schemas.recipe.training import load_train_settings

        settings = load_train_settings(arguments.settings)
        if settings.run.processes > 1 and "RANK" not in os.environ:
            _become_torchrun(settings.run.processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(settings.run.threads))
        from factory.training.trainer import train  # after the number of threads is set

        train(settings, arguments.output, quiet=arguments.quiet)
    except FactoryError as error:
        if arguments.error is not None:
            arguments.error.write_text(str(error), encoding="utf-8")
        elif os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _end_with(parent: int) -> None:
    """Have the kernel send this process a SIGTERM when its parent ends, however that dies (Linux).

    It does when the parent's thread that started this process ends; that thread waits for this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before that
        os.kill(os.getpid(), signal.SIGTERM)


def _become_torchrun(processes: int) -> NoReturn:
    """Run this command line in several processes, which end when this one does."""
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    own = ["-m", "factory.training", *sys.argv[1:], "--parent", str(os.getpid())]
    os.execv(sys.executable, [sys.executable, *runner, *own])


if __name__ == "__main__":
    sys.exit(main())
