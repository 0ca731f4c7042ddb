"""``python -m factory.training SETTINGS OUTPUT``: one run, alone or as one of torchrun's processes."""

import argparse
import os
import sys
from pathlib import Path

from schemas.errors import FactoryError


def main() -> int:
    """Run what the command line names; a mistake that the user can mend is one sentence."""
    parser = argparse.ArgumentParser(prog="python -m factory.training", description="Train a model.")
    parser.add_argument("settings", type=Path, help="TOML with a [train] table, or JSON of its fields")
    parser.add_argument("output", type=Path, help="the run's folder")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument("--error", type=Path, help="write the sentence of an error to this file, for a caller")
    arguments = parser.parse_args()
    try:
        from schemas.training import load_train_settings

        settings = load_train_settings(arguments.settings)
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


if __name__ == "__main__":
    sys.exit(main())
