"""``python -m factory.merging SETTINGS OUTPUT``: one merge, in this process."""

import signal
import sys

from factory.child_process import do_work, make_parser
from factory.interrupts import interrupt
from factory.merging.progress import merge_visibly
from factory.merging.result import RESULT
from schemas.recipe.merging import MergeSettings

PACKAGE = "factory.merging"


def main() -> int:
    """Run the command line and return its exit status."""
    arguments = make_parser(PACKAGE, "Merge models.", "JSON of the fields of a [merge] table").parse_args()
    # On SIGTERM, raise an exception, so that a stopped merge removes its unfinished folder.
    signal.signal(signal.SIGTERM, interrupt)
    if arguments.parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which decides

    def run() -> None:
        settings = MergeSettings.model_validate_json(arguments.settings.read_bytes())
        result = merge_visibly(settings, arguments.output, quiet=arguments.quiet)
        if arguments.result is not None:
            arguments.result.write_bytes(RESULT.dump_json(result))

    return do_work(arguments, run, stopped="stopped; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
