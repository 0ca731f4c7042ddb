"""``python -m factory.training SETTINGS OUTPUT``: one run, in this process or as torchrun in those that it asks for."""

import os
import sys
from typing import NoReturn

from factory.child_process import do_work, make_parser
from schemas.extras import require

PACKAGE = "factory.training"


def main() -> int:
    """Run what the command line names."""
    parser = make_parser(PACKAGE, "Train a model.", "TOML with a [train] table, or JSON of its fields")
    arguments = parser.parse_args()

    def run() -> None:
        from schemas.recipe.training import load_train_settings

        settings = load_train_settings(arguments.settings)
        require(("torch", "transformers"))
        if settings.run.processes > 1 and "RANK" not in os.environ:
            _become_torchrun(settings.run.processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(settings.run.threads))
        from factory.training.trainer import train  # after the number of threads is set

        train(settings, arguments.output, quiet=arguments.quiet)

    return do_work(arguments, run, stopped="stopped; the same command goes on from the last checkpoint")


def _become_torchrun(processes: int) -> NoReturn:
    """Run this command line in several processes, which end when this one does."""
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    own = ["-m", PACKAGE, *sys.argv[1:], "--parent", str(os.getpid())]
    os.execv(sys.executable, [sys.executable, *runner, *own])


if __name__ == "__main__":
    sys.exit(main())
