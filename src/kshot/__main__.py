"""`python -m kshot`, and the command `kshot`."""

import atexit
import os
import sys
from collections.abc import Callable

from kshot.cli import main


def run(command: Callable[[], object] | None = None) -> None:
    """A process that does one command, by default that of the command line.

    At its end Python would take torch apart, object by object, for a second, and threads of torch that still run then
    can abort a process that has done its work. All that was registered to be done at exit is done; the rest is left to
    the system.
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
        (command or main)()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


if __name__ == "__main__":
    run()
