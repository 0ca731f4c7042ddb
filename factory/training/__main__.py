"""``python -m factory.training SETTINGS OUTPUT``: one run, in this process or in several that torchrun starts."""

import os
import sys
from typing import NoReturn

from factory.child_process import do_work, make_parser
from schemas.extras import require

PACKAGE = "factory.training"


def main() -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(PACKAGE, "Train a model.", "TOML with a [train] table, or JSON of its fields")
    arguments = parser.parse_args()

    def run() -> None:
        from schemas.recipe.training import load_train_settings

        settings = load_train_settings(arguments.settings)
        require(("torch", "transformers"))
        if settings.run.processes > 1 and "RANK" not in os.environ:
            _become_torchrun(settings.run.processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(settings.run.threads))
        from factory.training.trainer import train  # imports torch, which reads OMP_NUM_THREADS once

        train(settings, arguments.output, quiet=arguments.quiet)

    return do_work(arguments, run, stopped="stopped; the same command resumes from the last checkpoint")


def _become_torchrun(processes: int) -> NoReturn:
    """Replace this process with torchrun, which runs this command line in several processes that end with it."""
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    own = ["-m", PACKAGE, *sys.argv[1:], "--parent", str(os.getpid())]
    os.execv(sys.executable, [sys.executable, *runner, *own])


if __name__ == "__main__":
    sys.exit(main())
