"""`python -m kshot`, and the command `kshot`."""

import atexit
import os
import sys

from kshot.cli import main


def run() -> None:
    """A process that does one command.

    At its end Python would take torch apart, object by object, for a second. All that was registered to be done at exit
    is done; the rest is left to the system.
    """
    status = 1

    def leave() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # whoever read our output has had enough
            os._exit(1)
        os._exit(status)

    atexit.register(leave)  # the first to be registered comes last
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


if __name__ == "__main__":
    run()
