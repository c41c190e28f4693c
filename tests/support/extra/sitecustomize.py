"""Lets kshot find the backbones that only tests use, in every Python process that has this folder on PYTHONPATH.

Python imports a module of this name at its start. So commands, worker processes and Ray's actors know these backbones
as the test process does, and kshot itself does not.
"""

import contextlib
from pathlib import Path

with contextlib.suppress(ImportError):  # a Python of another environment has no kshot
    import kshot.backbones

    kshot.backbones.__path__.append(str(Path(__file__).with_name("backbones")))
